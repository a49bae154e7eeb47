//! Services that give credentials back, and the modules that are stopped for it.
//!
//! Owns the count, for each module of a registry, of answers out of which a redactor took a secret, and which modules take
//! no calls any more. Promises that the call path pays one atomic load while there is none of those, and that a quarantine
//! lasts until officers activate the registry again, or the process ends, after which a quorum opens the store. Does not find
//! secrets ([`mcpist_secret::redact`] does).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mcpist_core::ids::{ModuleRev, RegistryId};

/// Answers are counted for this long, from the first one on.
const WINDOW: Duration = Duration::from_secs(600);

/// What each module's service gave back.
pub(crate) struct Leaks {
    /// Answers with a secret in one window after which a module is stopped.
    limit: u32,
    any: AtomicBool,
    modules: Mutex<BTreeMap<ModuleRev, Counted>>,
}

struct Counted {
    since: Instant,
    answers: u32,
    is_stopped: bool,
}

impl Leaks {
    /// Nothing was given back yet.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            any: AtomicBool::new(false),
            modules: Mutex::default(),
        }
    }

    fn modules(&self) -> MutexGuard<'_, BTreeMap<ModuleRev, Counted>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the module takes no calls.
    pub(crate) fn is_stopped(&self, rev: &ModuleRev) -> bool {
        self.any.load(Ordering::Acquire) && self.modules().get(rev).is_some_and(|c| c.is_stopped)
    }

    /// Counts an answer that held a secret. True where it is the one too many.
    pub(crate) fn count(&self, rev: &ModuleRev, at: Instant) -> bool {
        let mut modules = self.modules();
        let fresh = Counted {
            since: at,
            answers: 0,
            is_stopped: false,
        };
        let counted = modules.entry(rev.clone()).or_insert(fresh);
        if at.saturating_duration_since(counted.since) >= WINDOW {
            (counted.since, counted.answers) = (at, 0);
        }
        counted.answers = counted.answers.saturating_add(1);
        let stops = counted.answers >= self.limit && !counted.is_stopped;
        if stops {
            counted.is_stopped = true;
            self.any.store(true, Ordering::Release);
        }
        stops
    }

    /// The modules that take no calls.
    pub(crate) fn stopped(&self) -> Vec<ModuleRev> {
        let modules = self.modules();
        let stopped = modules.iter().filter(|(_, counted)| counted.is_stopped);
        stopped.map(|(rev, _)| rev.clone()).collect()
    }

    /// Officers activated the registry: its modules begin anew.
    pub(crate) fn activated(&self, registry: &RegistryId) {
        let mut modules = self.modules();
        modules.retain(|rev, _| rev.registry != *registry);
        let any = modules.values().any(|counted| counted.is_stopped);
        self.any.store(any, Ordering::Release);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mcpist_core::ids::ModuleName;

    use super::*;

    fn rev(module: &str, registry: &[u8]) -> ModuleRev {
        ModuleRev {
            registry: RegistryId::of_manifest(registry),
            module: ModuleName::parse(module).unwrap(),
        }
    }

    #[test]
    fn the_answer_that_is_one_too_many_stops_its_module_and_no_other() {
        let leaks = Leaks::new(3);
        let (leaking, other) = (rev("a", b"1"), rev("b", b"1"));
        let at = Instant::now();
        assert!(!leaks.count(&leaking, at) && !leaks.count(&leaking, at));
        assert!(!leaks.count(&other, at));
        assert!(!leaks.is_stopped(&leaking));
        assert!(leaks.count(&leaking, at));
        assert!(leaks.is_stopped(&leaking) && !leaks.is_stopped(&other));
        assert!(!leaks.count(&leaking, at), "told once");
        assert_eq!(leaks.stopped(), std::slice::from_ref(&leaking));
        leaks.activated(&RegistryId::of_manifest(b"2"));
        assert!(leaks.is_stopped(&leaking));
        leaks.activated(&leaking.registry);
        assert!(!leaks.is_stopped(&leaking) && !leaks.count(&leaking, at));
    }

    #[test]
    fn answers_far_apart_stop_nothing() {
        let leaks = Leaks::new(2);
        let (module, mut at) = (rev("a", b"1"), Instant::now());
        for _ in 0..10 {
            assert!(!leaks.count(&module, at));
            at += WINDOW;
        }
        assert!(leaks.count(&module, at - WINDOW));
    }
}
