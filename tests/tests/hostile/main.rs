//! Bad input over real sockets: each case is refused by its name, changes nothing, and the next good one works.
//!
//! docs/THREAT_MODEL.md has a table of the cases: input, code, what it must not cost.
//!
//! Cases of one group share an appliance, one at a time; each leaves it as it found it. The last of a group that is
//! running takes it down. What changes an appliance for good has one of its own.

mod audit;
mod bundles;
mod clients;
mod control;
mod full;
mod large;
mod live;
mod own_quorum;
mod repair;
mod rollback;
mod service;
mod services;
mod shares;
mod store;

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mcpist_secret::Secret;
use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::workspace;
use mcpist_tests::service::Service;
use serde_json::{Value, json};

const CREDENTIAL: &str = "canary-1c0ffee5eed4b1d2";

/// An appliance that the cases of a group share.
struct Shared {
    make: fn() -> Site,
    running: Mutex<Weak<Mutex<Site>>>,
}

/// An appliance, and the service that its module is bound to.
struct Site {
    appliance: Appliance,
    service: Service,
}

impl Deref for Site {
    type Target = Appliance;
    fn deref(&self) -> &Appliance {
        &self.appliance
    }
}

impl DerefMut for Site {
    fn deref_mut(&mut self) -> &mut Appliance {
        &mut self.appliance
    }
}

impl Shared {
    const fn new(make: fn() -> Site) -> Shared {
        Shared {
            make,
            running: Mutex::new(Weak::new()),
        }
    }

    /// Runs a case. A case that failed before does not take the others with it.
    fn with(&self, case: impl FnOnce(&mut Site)) {
        let site = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.upgrade().unwrap_or_else(|| {
                let site = Arc::new(Mutex::new((self.make)()));
                *running = Arc::downgrade(&site);
                site
            })
        };
        let mut held: MutexGuard<'_, Site> = site.lock().unwrap_or_else(PoisonError::into_inner);
        case(&mut held);
    }
}

/// A store that nobody has opened.
static SEALED: Shared = Shared::new(|| {
    let (mut appliance, service) = (Appliance::start(), Service::start());
    appliance.init();
    Site { appliance, service }
});

/// A store with ada's module in use.
static OPEN: Shared = Shared::new(open);

fn open() -> Site {
    let (mut appliance, service) = (Appliance::start(), Service::start());
    appliance.set_up(service.port(), CREDENTIAL);
    Site { appliance, service }
}

fn secret(text: &[u8]) -> Secret {
    Secret::copy_of(text).expect("memory")
}

fn code(result: &Value) -> &str {
    result["structuredContent"]["code"]
        .as_str()
        .unwrap_or_default()
}

fn works(site: &Site) {
    let answer = site
        .client("ada")
        .call("echo", "get", &json!({ "item": "x" }));
    assert_eq!(answer["isError"], false, "{answer}\n{}", site.log());
}

/// The names of the tests in this folder.
fn cases() -> BTreeSet<String> {
    let folder = workspace().join("tests/tests/hostile");
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("a file");
        let after = text.split("#[test]\nfn ").skip(1);
        names.extend(after.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
    }
    names
}

#[test]
fn every_case_is_in_the_table_of_the_threat_model() {
    let page = std::fs::read_to_string(workspace().join("docs/THREAT_MODEL.md"));
    let page = page.expect("the page");
    let (_, table) = page
        .split_once("## Bad input, over real sockets")
        .expect("the table");
    let named: BTreeSet<String> = table
        .lines()
        .filter_map(|line| Some(line.strip_suffix("` |")?.rsplit_once('`')?.1.to_owned()))
        .collect();
    let mut cases = cases();
    cases.remove("every_case_is_in_the_table_of_the_threat_model");
    let missing: Vec<_> = cases.difference(&named).collect();
    assert!(missing.is_empty(), "add to the table: {missing:?}");
    let gone: Vec<_> = named.difference(&cases).collect();
    assert!(gone.is_empty(), "no such test any more: {gone:?}");
}
