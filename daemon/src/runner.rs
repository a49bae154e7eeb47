//! The runner as mcpistd sees it: at most one live link for each role, fed with what the policy says now.
//!
//! Owns the links and what each was told. A runner is told of a registry, a binding or a fingerprint before the first
//! call that needs it is made, since link and snapshot are switched under one short mutex and frames keep their
//! order. Promises that a lost runner costs the calls in flight and nothing else. Does not start processes
//! ([`crate::dev`]) nor judge a peer's uid beyond the one that the configuration names.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use mcpist_core::event::{Event, RunnerRole};
use mcpist_core::ids::{BindingName, RegistryId};
use mcpist_secret::redact::RedactKey;
use mcpist_wire::daemon::{AcceptError, TellError};
use mcpist_wire::{
    Answer, Bind, CallError, CloseCode, DaemonLink, Dropped, Greeting, LinkEnd, Load, ModuleCall,
    Role,
};
use tokio::net::{UnixListener, UnixStream};

use crate::audit::Audit;
use crate::house::House;
use crate::live::Live;

/// A connection that says nothing for this long is closed.
const HELLO: Duration = Duration::from_secs(5);

/// The links.
pub(crate) struct Runners {
    run: ArcSwapOption<DaemonLink>,
    fed: Mutex<Option<Fed>>,
}

/// What the live link was told.
struct Fed {
    link: Arc<DaemonLink>,
    key: RedactKey,
    registries: BTreeSet<RegistryId>,
    bindings: BTreeSet<(BindingName, u64)>,
    fingerprints: BTreeSet<u64>,
}

impl Runners {
    /// No links.
    pub(crate) fn new() -> Self {
        Self {
            run: ArcSwapOption::empty(),
            fed: Mutex::new(None),
        }
    }

    fn fed(&self) -> MutexGuard<'_, Option<Fed>> {
        self.fed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a runner of role `run` is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.run.load().is_some()
    }

    /// Calls that the runner has not answered yet.
    pub(crate) fn in_flight(&self) -> u64 {
        self.run
            .load()
            .as_ref()
            .map_or(0, |link| link.in_flight() as u64)
    }

    /// Runs one call.
    pub(crate) async fn call(&self, call: ModuleCall) -> Result<Answer, CallError> {
        let Some(link) = self.run.load_full() else {
            return Err(CallError::RunnerLost);
        };
        link.call(call).await
    }

    /// Tells the live link what `live` has and the link does not, switches with `switch`, then takes back what
    /// `live` no longer has. `None` takes everything back.
    pub(crate) fn switch(&self, live: Option<&Live>, switch: impl FnOnce()) {
        let mut fed = self.fed();
        if let Some(fed) = fed.as_mut() {
            if let Some(live) = live {
                fed.tell(live);
            }
            switch();
            fed.take_back(live);
        } else {
            switch();
        }
    }

    /// Serves one connection that claims to be a runner, until it ends. `expected` is the uid that the role must have.
    pub(crate) async fn serve(
        &self,
        stream: UnixStream,
        expected: u32,
        audit: &Audit,
        live: impl Fn() -> Option<Arc<Live>>,
    ) {
        let uid = stream.peer_cred().map(|c| c.uid()).ok();
        let refused = |role, reason, text: &dyn std::fmt::Display| {
            let uid = uid.unwrap_or(u32::MAX);
            log::warn!("runner of uid {uid} refused: {text}");
            record(audit, &Event::RunnerRefused { role, uid, reason });
        };
        let greeting = match tokio::time::timeout(HELLO, Greeting::accept(stream)).await {
            Ok(Ok(greeting)) => greeting,
            Ok(Err(e)) => return refused("unknown", unheard(&e), &e),
            Err(_) => return refused("unknown", "hello_timeout", &"it says no hello"),
        };
        let role = greeting.hello().role;
        let refusal = if role != Role::Run {
            Some((
                CloseCode::RoleRefused,
                "role_not_served",
                "no such role is served here",
            ))
        } else if uid != Some(expected) {
            Some((
                CloseCode::RoleRefused,
                "uid_refused",
                "the uid is not the role's",
            ))
        } else if self.is_connected() {
            Some((
                CloseCode::RoleTaken,
                "role_taken",
                "the role is connected already",
            ))
        } else {
            None
        };
        if let Some((code, reason, text)) = refusal {
            refused(role.as_str(), reason, &text);
            greeting.refuse(code, text).await;
            return;
        }
        let uid = expected;
        let (pid, version) = (greeting.hello().pid, greeting.version());
        let link = match RedactKey::random().and_then(|key| Ok((greeting.welcome(&key)?, key))) {
            Ok((link, key)) => self.adopt(link, key, live),
            Err(e) => {
                log::error!("runner not welcomed: {e}");
                return;
            }
        };
        log::info!("runner connected: pid {pid}, uid {uid}, wire version {version}");
        record(
            audit,
            &Event::RunnerConnected {
                role: RunnerRole::Run,
                pid,
                uid,
                version,
            },
        );
        let end = link.ended().await;
        let calls = link.lost() as u64;
        {
            let mut fed = self.fed();
            if fed
                .as_ref()
                .is_some_and(|fed| Arc::ptr_eq(&fed.link, &link))
            {
                self.run.store(None);
                *fed = None;
            }
        }
        log::warn!("runner lost: {end}; {calls} calls in flight failed");
        record(
            audit,
            &Event::RunnerLost {
                role: RunnerRole::Run,
                reason: "link_ended",
                calls,
            },
        );
    }

    fn adopt(
        &self,
        link: DaemonLink,
        key: RedactKey,
        live: impl Fn() -> Option<Arc<Live>>,
    ) -> Arc<DaemonLink> {
        let link = Arc::new(link);
        let mut slot = self.fed();
        // Two that came together: the second is turned away.
        if slot.is_some() {
            link.close(CloseCode::RoleTaken);
            return link;
        }
        let mut fed = Fed {
            link: Arc::clone(&link),
            key,
            registries: BTreeSet::new(),
            bindings: BTreeSet::new(),
            fingerprints: BTreeSet::new(),
        };
        // Under the mutex: a switch of the snapshot comes wholly before or after this.
        if let Some(live) = live() {
            fed.tell(&live);
        }
        *slot = Some(fed);
        self.run.store(Some(Arc::clone(&link)));
        link
    }
}

impl Fed {
    /// Sends what is new. What a live link does not take is sent again with the next change; a link that has ended is
    /// noticed by [`Runners::serve`].
    fn tell(&mut self, live: &Live) {
        let note = |what: &str, told: Result<(), TellError>| {
            if let Err(e) = &told {
                log::error!("the runner was not told of {what}: {e}");
            }
            told.is_ok()
        };
        let fresh = match live.fingerprints(&self.key, |id| !self.fingerprints.contains(&id)) {
            Ok(fresh) => fresh,
            Err(e) => {
                // A runner that cannot redact gets nothing to do; it connects again and is told anew.
                log::error!("no fingerprints for the runner: {e}");
                self.link.close(CloseCode::Stopping);
                return;
            }
        };
        for (id, fingerprint) in fresh {
            if note("a fingerprint", self.link.redact(id, &fingerprint)) {
                self.fingerprints.insert(id);
            }
        }
        for (registry, manifest) in live.registries() {
            if self.registries.contains(registry) {
                continue;
            }
            let load = Load {
                registry: *registry,
                manifest: manifest.clone(),
            };
            if note("a registry", self.link.load(&load)) {
                self.registries.insert(*registry);
            }
        }
        for (name, version, binding) in live.bindings() {
            let key = (name.clone(), version);
            if !self.bindings.contains(&key) {
                let bind = Bind {
                    version,
                    binding: binding.clone(),
                };
                if note("a binding", self.link.bind(&bind)) {
                    self.bindings.insert(key);
                }
            }
        }
    }

    fn take_back(&mut self, live: Option<&Live>) {
        let link: &DaemonLink = &self.link;
        self.registries.retain(|id| {
            live.is_some_and(|l| l.has_registry(id)) || {
                let _ = link.drop(&Dropped::Registry(*id));
                false
            }
        });
        self.bindings.retain(|(name, version)| {
            live.is_some_and(|l| l.has_binding(name, *version)) || {
                let _ = link.drop(&Dropped::Binding {
                    name: name.clone(),
                    version: *version,
                });
                false
            }
        });
        let wanted = live.map(Live::fingerprint_ids).unwrap_or_default();
        self.fingerprints.retain(|id| {
            wanted.contains(id) || {
                let _ = link.drop(&Dropped::Fingerprint(*id));
                false
            }
        });
    }
}

/// Serves the runner socket: one connection after the other, each judged by its uid.
pub(crate) async fn listen(house: Arc<House>, listener: UnixListener) {
    // Without a uid in the configuration no runner is let in: deny is the empty case.
    let Some(expected) = house.config.runner_uid else {
        log::error!("runner.uid is not set in mcpist.toml; no runner is accepted");
        return;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let house = Arc::clone(&house);
                tokio::spawn(async move {
                    house
                        .runners
                        .serve(stream, expected, &house.audit, || house.live())
                        .await;
                });
            }
            Err(e) => {
                log::warn!("runner socket: accept failed: {}", e.kind());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Why no hello was heard, as the log says it.
fn unheard(error: &AcceptError) -> &'static str {
    match error {
        AcceptError::Version { .. } => "wire_version",
        AcceptError::NoHello(LinkEnd::Protocol(_)) => "wire_protocol",
        AcceptError::NoHello(_) => "connection_lost",
    }
}

/// Lines about runners are written where the log is open; the journal has them in any case.
fn record(audit: &Audit, event: &Event<'_>) {
    if let Err(e) = audit.append(event) {
        log::debug!("not in the audit log: {e}");
    }
}
