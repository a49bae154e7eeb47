//! The runner's end of a link as a loop: what mcpistd says is kept, what it asks is run.
//!
//! Owns: [`serve`], and the one state behind it: modules, bindings, fingerprints, services.
//! Promises: one task owns the state; a call takes with it what it needs (shared, immutable) and
//! runs in a task of its own. What is unknown fails with `not_loaded`. `drop` closes the
//! connections of what it names as soon as no call uses them; so does the end of the link. A call
//! that is cancelled, or whose link ended, is dropped where it stands, and its connection with it.
//! Does not: connect, or come back after the link's end; `main` does.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mcpist_core::binding::Binding;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{BindingName, ModuleRev, RegistryId};
use mcpist_core::manifest::ModuleManifest;
use mcpist_core::result::ToolError;
use mcpist_secret::redact::{Fingerprint, RedactKey, Redactor};
use mcpist_secret::stack;
use mcpist_wire::runner::Welcome;
use mcpist_wire::{Answer, Bind, Dropped, LinkEnd, Load, ModuleCall, Request, Requests, Role};
use tokio::time::Instant;

use crate::egress::Service;
use crate::http;

type ServiceKey = (ModuleRev, BindingName, u64);

/// The stack that is wiped after each call, in bytes. HTTP libraries leave parts of what a service answered there, and
/// it may have answered with its credential. The runner has one thread, so it is the stack that they used.
const CALL_STACK: usize = 32 * 1024;

/// What mcpistd told since the link began.
struct State {
    role: Role,
    modules: HashMap<ModuleRev, Arc<ModuleManifest>>,
    bindings: HashMap<(BindingName, u64), Binding>,
    services: HashMap<ServiceKey, Arc<Service>>,
    key: Arc<RedactKey>,
    fingerprints: BTreeMap<u64, Fingerprint>,
    /// Of `fingerprints`; `None` when they changed since.
    redactor: Option<Arc<Redactor>>,
}

/// Serves the link until it ends.
pub async fn serve(role: Role, welcome: Welcome, requests: &mut Requests) -> LinkEnd {
    let mut state = State::new(role, welcome.key);
    loop {
        match requests.next().await {
            Ok(Request::Call(call, responder)) => {
                let ready = state.ready(call);
                tokio::spawn(async move {
                    let outcome = tokio::select! {
                        biased;
                        () = responder.cancelled() => None,
                        outcome = run(ready) => Some(outcome),
                    };
                    stack::wipe::<CALL_STACK>();
                    match outcome {
                        Some(Ok(answer)) => responder.answer(answer).await,
                        Some(Err(error)) => responder.fail(&error),
                        None => {}
                    }
                });
            }
            Ok(Request::Load(load)) => state.load(&load),
            Ok(Request::Bind(bind)) => state.bind(bind),
            Ok(Request::Redact { id, fingerprint }) => {
                state.fingerprints.insert(id, fingerprint);
                state.redactor = None;
            }
            Ok(Request::Drop(dropped)) => state.forget(&dropped),
            Err(end) => return end,
        }
    }
}

/// A call with all that it needs.
struct Ready {
    module: Arc<ModuleManifest>,
    service: Arc<Service>,
    redactor: Arc<Redactor>,
    call: ModuleCall,
    deadline: Instant,
}

async fn run(ready: Result<Ready, ToolError>) -> Result<Answer, ToolError> {
    let Ready {
        module,
        service,
        redactor,
        call,
        deadline,
    } = ready?;
    let tool = module.tool(call.tool()).ok_or_else(not_loaded)?;
    let lease = call.lease(&tool.http.slot).ok_or(ErrorCode::NotJoined)?;
    let outcome = http::run(http::Call {
        tool,
        limits: &module.limits,
        arguments: call.arguments(),
        service: &service,
        credential: lease.secret(),
        redactor: &redactor,
        deadline,
    })
    .await;
    #[cfg(feature = "test-leak")]
    let outcome = outcome.map(|mut answer| {
        crate::leak::leak(lease.secret(), &mut answer);
        answer
    });
    let hits = match &outcome {
        Ok(answer) => answer.hits,
        Err(error) => error.hits(),
    };
    if hits > 0 {
        log::warn!(
            "{} {}: {hits} secrets in the service's answer",
            call.rev(),
            call.tool()
        );
    }
    outcome
}

fn not_loaded() -> ToolError {
    ErrorCode::NotLoaded.into()
}

impl State {
    fn new(role: Role, key: RedactKey) -> State {
        State {
            role,
            modules: HashMap::new(),
            bindings: HashMap::new(),
            services: HashMap::new(),
            key: Arc::new(key),
            fingerprints: BTreeMap::new(),
            redactor: None,
        }
    }

    /// Takes a registry's modules after hashing its manifest anew.
    fn load(&mut self, load: &Load) {
        let registry = load.registry;
        if self.role != Role::Run {
            let registry = registry.short();
            log::error!("registry {registry}: a runner for vaults loads no module");
            return;
        }
        self.forget_registry(registry);
        match load.verify() {
            Ok(manifest) => {
                self.modules.extend(manifest.modules.iter().map(|module| {
                    let rev = ModuleRev {
                        registry,
                        module: module.name.clone(),
                    };
                    (rev, Arc::new(module.clone()))
                }));
            }
            Err(error) => log::error!("not loaded: {error}"),
        }
    }

    fn bind(&mut self, Bind { version, binding }: Bind) {
        self.forget_binding(&binding.name, version);
        self.bindings
            .insert((binding.name.clone(), version), binding);
    }

    fn forget(&mut self, dropped: &Dropped) {
        match dropped {
            Dropped::Registry(registry) => self.forget_registry(*registry),
            Dropped::Binding { name, version } => self.forget_binding(name, *version),
            Dropped::Fingerprint(id) => {
                self.fingerprints.remove(id);
                self.redactor = None;
            }
        }
    }

    fn forget_registry(&mut self, registry: RegistryId) {
        self.modules.retain(|rev, _| rev.registry != registry);
        self.services
            .retain(|(rev, ..), _| rev.registry != registry);
    }

    fn forget_binding(&mut self, name: &BindingName, version: u64) {
        self.bindings.remove(&(name.clone(), version));
        self.services
            .retain(|(_, of, at), _| (of, *at) != (name, version));
    }

    /// Looks up all that the call needs.
    fn ready(&mut self, call: ModuleCall) -> Result<Ready, ToolError> {
        let module = Arc::clone(self.modules.get(call.rev()).ok_or_else(not_loaded)?);
        let tool = module.tool(call.tool()).ok_or_else(not_loaded)?;
        let lease = call.lease(&tool.http.slot).ok_or(ErrorCode::NotJoined)?;
        let key = (call.rev().clone(), lease.binding().clone(), lease.version());
        let service = self.service(key, module.limits.concurrency)?;
        let deadline = http::deadline(Instant::now(), call.deadline(), &module.limits);
        Ok(Ready {
            service,
            redactor: self.redactor(),
            deadline,
            module,
            call,
        })
    }

    fn service(&mut self, key: ServiceKey, concurrency: u32) -> Result<Arc<Service>, ToolError> {
        if let Some(service) = self.services.get(&key) {
            return Ok(Arc::clone(service));
        }
        let binding = self
            .bindings
            .get(&(key.1.clone(), key.2))
            .ok_or_else(not_loaded)?;
        let service = Service::new(binding, concurrency).map_err(|error| {
            log::error!("binding {}: {error}", key.1);
            ToolError::with(ErrorCode::Unavailable, &error.to_string())
        })?;
        let service = Arc::new(service);
        self.services.insert(key, Arc::clone(&service));
        Ok(service)
    }

    fn redactor(&mut self) -> Arc<Redactor> {
        let (key, fingerprints) = (&self.key, &self.fingerprints);
        let fresh = || Arc::new(Redactor::new(Arc::clone(key), fingerprints.values()));
        Arc::clone(self.redactor.get_or_insert_with(fresh))
    }
}

#[cfg(test)]
mod tests;
