#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use mcpist_core::access::Access;
use mcpist_core::args::Arguments;
use mcpist_core::audit::Seq;
use mcpist_core::catalogue::{ActiveModule, Catalogue};
use mcpist_core::grant::{Grant, ModuleSel, Subject, ToolSel};
use mcpist_core::ids::{
    CallId, GrantName, ModuleName, ModuleRev, PrincipalName, RegistryId, SlotName,
};
use mcpist_core::manifest::{BlobPath, ModuleManifest};
use mcpist_core::mask::Mask;
use mcpist_core::permit::{Intent, IntentError, IntentSink};
use mcpist_core::principal::{Identities, IdentityRule, PeerEvidence, PrincipalRecord};
use mcpist_core::route::Route;
use mcpist_sealer::Health;
use mcpist_secret::Secret;
use mcpist_secret::redact::Redactor;
use serde_json::json;

use super::*;
use crate::credential::Kind;
use crate::vault::Closed;

const NOW: u64 = 1_800_000_000;

/// A vault in memory that counts what is asked of it.
#[derive(Clone, Default)]
struct Memory(Arc<State>);

#[derive(Default)]
struct State {
    rows: Mutex<BTreeMap<&'static str, Row>>,
    away: Mutex<Option<VaultFault>>,
    gets: AtomicUsize,
    opens: AtomicUsize,
}

#[derive(Clone)]
struct Row {
    kind: Kind,
    version: u64,
    expiry: u64,
    host: &'static str,
    payload: &'static str,
}

const TOKEN: Row = Row {
    kind: Kind::Bearer,
    version: 1,
    expiry: 0,
    host: "notes.lan",
    payload: "token-of-version-1",
};

impl Memory {
    fn with(name: &'static str, row: Row) -> Memory {
        let memory = Memory::default();
        memory.put(name, row);
        memory
    }

    fn put(&self, name: &'static str, row: Row) {
        self.0.rows.lock().unwrap().insert(name, row);
    }
}

impl Vault for Memory {
    fn get(&self, name: &CredentialName) -> Result<Held, VaultFault> {
        self.0.gets.fetch_add(1, Ordering::Relaxed);
        if let Some(fault) = self.0.away.lock().unwrap().clone() {
            return Err(fault);
        }
        let row = self.0.rows.lock().unwrap().get(name.as_str()).cloned();
        let row = row.ok_or(VaultFault::Missing)?;
        let closed = Arc::new(Opener(self.clone(), row.payload));
        Ok(Held::new(
            row.kind,
            row.version,
            row.expiry,
            &[row.host.to_owned()],
            closed,
        ))
    }

    fn health(&self) -> Health {
        Health::Ok
    }
}

struct Opener(Memory, &'static str);

impl Closed for Opener {
    fn open(&self) -> Result<Secret, VaultFault> {
        self.0.0.opens.fetch_add(1, Ordering::Relaxed);
        if let Some(fault) = self.0.0.away.lock().unwrap().clone() {
            return Err(fault);
        }
        Ok(Secret::copy_of(self.1.as_bytes()).unwrap())
    }
}

struct Nowhere;

impl IntentSink for Nowhere {
    async fn intent(&self, _: &Intent<'_>) -> Result<Seq, IntentError> {
        Ok(Seq(1))
    }
}

/// A permit for a tool whose slot `api` is joined to the binding `notes`.
fn permit() -> Permit {
    let manifest = json!({
        "name": "notes", "title": "Notes", "description": "d", "version": "1", "kind": "http",
        "slots": [{"name": "api", "auth": ["bearer"], "hosts": ["notes.lan"], "description": ""}],
        "tools": [{
            "name": "list", "title": "List", "description": "d", "access": "read",
            "input_schema": "in.json",
            "http": {"slot": "api", "method": "GET", "path": "/notes"}
        }]
    });
    let catalogue = Arc::new(
        Catalogue::new(vec![ActiveModule {
            rev: ModuleRev {
                registry: RegistryId::of_manifest(b"bundle"),
                module: ModuleName::parse("notes").unwrap(),
            },
            manifest: ModuleManifest::parse(manifest.to_string().as_bytes()).unwrap(),
            schemas: BTreeMap::from([(
                BlobPath::parse("in.json").unwrap(),
                br#"{"type":"object"}"#.to_vec(),
            )]),
            joins: vec![(SlotName::parse("api").unwrap(), binding_name())],
        }])
        .unwrap(),
    );
    let ada = PrincipalName::parse("ada").unwrap();
    let record = PrincipalRecord {
        name: ada.clone(),
        groups: Vec::new(),
        rules: vec![IdentityRule::Uid(1000)],
    };
    let principal = Identities::new([record], false)
        .identify(PeerEvidence::unix(1000, 1000, 1))
        .unwrap();
    let grant = Grant {
        name: GrantName::parse("all").unwrap(),
        subject: Subject::Principal(ada),
        module: ModuleSel::All,
        tools: ToolSel::All,
        access: Access::Read,
    };
    let visible = Mask::new(vec![grant], Arc::clone(&catalogue))
        .visible(&principal, "notes", "list")
        .unwrap();
    let route = Route::choose(visible, None, &catalogue).unwrap();
    let arguments = Arguments::parse(b"{}".to_vec(), &route).unwrap();
    let issued = pin!(Permit::issue(route, arguments, CallId(7), &Nowhere));
    match issued.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => permit.unwrap(),
        Poll::Pending => panic!("the sink is always ready"),
    }
}

fn binding_name() -> BindingName {
    BindingName::parse("notes").unwrap()
}

fn bound(bend: impl FnOnce(&mut serde_json::Value)) -> BoundBinding {
    let mut record = json!({
        "name": "notes", "vault": "main", "credential": "notes", "scheme": "http",
        "host": "notes.lan", "port": 80, "path_prefix": "/", "methods": ["GET"],
        "trust": "none", "inject": "bearer",
    });
    bend(&mut record);
    BoundBinding {
        binding: serde_json::from_value(record).unwrap(),
        version: 4,
    }
}

fn build(vault: &Memory, binding: BoundBinding, before: Option<&Broker>) -> Broker {
    let find = |name: &VaultName| match name.as_str() {
        "main" => Ok(Box::new(vault.clone()) as Box<dyn Vault>),
        _ => Err(VaultFault::Missing),
    };
    Broker::build([binding], find, before)
}

fn refusal(vault: &Memory, binding: BoundBinding) -> (LeaseError, usize) {
    let broker = build(vault, binding, None);
    let error = broker.lease(&permit(), NOW).unwrap_err();
    (error, vault.0.opens.load(Ordering::Relaxed))
}

#[test]
fn a_lease_carries_what_is_injected_and_the_bindings_version() {
    let basic = Row {
        kind: Kind::Basic,
        payload: "ada:correct horse",
        ..TOKEN
    };
    let vault = Memory::with("notes", basic);
    let broker = build(&vault, bound(|b| b["inject"] = "basic".into()), None);
    let leases = broker.lease(&permit(), NOW).unwrap();
    let [lease] = &leases[..] else { panic!() };
    assert_eq!(lease.secret().expose(), b"ada:correct horse");
    assert_eq!(
        (lease.slot().as_str(), lease.binding().as_str()),
        ("api", "notes")
    );
    assert_eq!((lease.version(), lease.call()), (4, CallId(7)));
}

#[test]
fn a_lease_asks_the_vault_for_nothing() {
    let vault = Memory::with("notes", TOKEN);
    let broker = build(&vault, bound(|_| {}), None);
    for _ in 0..10 {
        broker.lease(&permit(), NOW).unwrap();
    }
    assert_eq!(
        vault.0.gets.load(Ordering::Relaxed),
        1,
        "when the snapshot was built"
    );
    assert_eq!(
        vault.0.opens.load(Ordering::Relaxed),
        10,
        "each lease is opened anew"
    );
}

#[test]
fn a_credential_for_another_host_is_not_even_opened() {
    let vault = Memory::with(
        "notes",
        Row {
            host: "other.lan",
            ..TOKEN
        },
    );
    let (error, opens) = refusal(&vault, bound(|_| {}));
    assert_eq!((error, opens), (LeaseError::Host(binding_name()), 0));
    // No pattern and no suffix: only the very host.
    let vault = Memory::with(
        "notes",
        Row {
            host: "lan",
            ..TOKEN
        },
    );
    assert_eq!(
        refusal(&vault, bound(|_| {})).0,
        LeaseError::Host(binding_name())
    );
}

#[test]
fn a_credential_of_another_kind_is_not_even_opened() {
    let vault = Memory::with("notes", TOKEN);
    let (error, opens) = refusal(&vault, bound(|b| b["inject"] = "basic".into()));
    assert_eq!((error.code(), opens), (ErrorCode::BindingRefused, 0));
    assert_eq!(error, LeaseError::Kind(binding_name()));
}

#[test]
fn an_expired_credential_is_not_even_opened() {
    let vault = Memory::with(
        "notes",
        Row {
            expiry: NOW,
            ..TOKEN
        },
    );
    let (error, opens) = refusal(&vault, bound(|_| {}));
    assert_eq!((error.code(), opens), (ErrorCode::CredentialExpired, 0));
    let broker = build(&vault, bound(|_| {}), None);
    assert!(
        broker.lease(&permit(), NOW - 1).is_ok(),
        "a second before it is good"
    );
}

#[test]
fn a_missing_credential_or_vault_has_its_code() {
    let (error, _) = refusal(&Memory::default(), bound(|_| {}));
    assert_eq!(error.code(), ErrorCode::CredentialMissing);
    let vault = Memory::with("notes", TOKEN);
    let (error, _) = refusal(&vault, bound(|b| b["vault"] = "elsewhere".into()));
    assert_eq!(error.code(), ErrorCode::CredentialMissing);
    let (error, _) = refusal(&vault, bound(|b| b["name"] = "other".into()));
    assert_eq!(error, LeaseError::NoBinding(binding_name()));
}

#[test]
fn a_vault_that_is_away_fails_its_bindings_and_may_come_back() {
    let vault = Memory::with("notes", TOKEN);
    let good = build(&vault, bound(|_| {}), None);
    for (fault, passing, code) in [
        (VaultFault::Unavailable, true, ErrorCode::VaultUnavailable),
        (VaultFault::Quarantined, false, ErrorCode::VaultQuarantined),
        (VaultFault::Rotated, true, ErrorCode::Busy),
        (VaultFault::Sealed, false, ErrorCode::Sealed),
        (VaultFault::VaultSealed, false, ErrorCode::VaultSealed),
    ] {
        *vault.0.away.lock().unwrap() = Some(fault);
        let broker = build(&vault, bound(|_| {}), Some(&good));
        assert_eq!(broker.has_passing_faults(), passing);
        assert_eq!(broker.faults().count(), 1);
        assert_eq!(broker.lease(&permit(), NOW).unwrap_err().code(), code);
        // What is held already follows the vault's state as well.
        assert_eq!(good.lease(&permit(), NOW).unwrap_err().code(), code);
    }
    *vault.0.away.lock().unwrap() = None;
    let again = build(&vault, bound(|_| {}), Some(&good));
    assert!(again.lease(&permit(), NOW).is_ok() && !again.has_passing_faults());
}

#[test]
fn the_client_learns_the_code_and_no_name() {
    let error = ToolError::from(LeaseError::Host(binding_name()));
    assert_eq!(error.code(), ErrorCode::BindingRefused);
    assert!(!error.message().contains("notes"));
}

/// What of `body` a redactor with the broker's fingerprints leaves.
fn redacted(broker: &Broker, body: &str) -> String {
    let key = Arc::new(RedactKey::random().unwrap());
    let prints = broker.fingerprints(&key, |_| true).unwrap();
    let redactor = Redactor::new(Arc::clone(&key), prints.iter().map(|(_, print)| print));
    String::from_utf8(redactor.redact(body.into()).bytes).unwrap()
}

#[test]
fn the_whole_of_a_basic_credential_its_base64_and_its_password_are_redacted() {
    let basic = Row {
        kind: Kind::Basic,
        payload: "ada:correct horse",
        ..TOKEN
    };
    let broker = build(
        &Memory::with("notes", basic),
        bound(|b| b["inject"] = "basic".into()),
        None,
    );
    assert_eq!(redacted(&broker, "x correct horse x"), "x [redacted] x");
    assert_eq!(redacted(&broker, "x ada:correct horse x"), "x [redacted] x");
    // The last group of base64 may stay: it holds less than three bytes.
    let header = redacted(&broker, "Basic YWRhOmNvcnJlY3QgaG9yc2U=");
    assert!(
        header.starts_with("Basic [redacted]") && header.len() < 20,
        "{header}"
    );
    assert_eq!(redacted(&broker, "ada came"), "ada came");
}

#[test]
fn the_version_before_is_redacted_until_its_second_successor() {
    let vault = Memory::with("notes", TOKEN);
    let first = build(&vault, bound(|_| {}), None);
    vault.put(
        "notes",
        Row {
            version: 2,
            payload: "token-of-version-2",
            ..TOKEN
        },
    );
    let second = build(&vault, bound(|_| {}), Some(&first));
    let body = "token-of-version-1 token-of-version-2 token-of-version-3";
    assert_eq!(
        redacted(&second, body),
        "[redacted] [redacted] token-of-version-3"
    );
    assert_eq!(
        second.lease(&permit(), NOW).unwrap()[0].secret().expose(),
        b"token-of-version-2",
        "and only the new one is leased"
    );
    // A build for another reason changes nothing, nor does a vault that is away for a while.
    let same = build(&vault, bound(|_| {}), Some(&second));
    assert_eq!(
        redacted(&same, body),
        "[redacted] [redacted] token-of-version-3"
    );
    *vault.0.away.lock().unwrap() = Some(VaultFault::Unavailable);
    let away = build(&vault, bound(|_| {}), Some(&same));
    let still_away = build(&vault, bound(|_| {}), Some(&away));
    *vault.0.away.lock().unwrap() = None;
    assert_eq!(redacted(&still_away, "token-of-version-2"), "[redacted]");
    vault.put(
        "notes",
        Row {
            version: 3,
            payload: "token-of-version-3",
            ..TOKEN
        },
    );
    let third = build(&vault, bound(|_| {}), Some(&same));
    assert_eq!(
        redacted(&third, body),
        "token-of-version-1 [redacted] [redacted]"
    );
}

#[test]
fn a_credential_that_was_taken_away_is_redacted_and_leased_no_more() {
    let vault = Memory::with("notes", TOKEN);
    let first = build(&vault, bound(|_| {}), None);
    vault.0.rows.lock().unwrap().clear();
    let second = build(&vault, bound(|_| {}), Some(&first));
    assert_eq!(
        second.lease(&permit(), NOW).unwrap_err().code(),
        ErrorCode::CredentialMissing
    );
    assert_eq!(redacted(&second, "token-of-version-1"), "[redacted]");
}

#[test]
fn a_number_stands_for_one_part_of_one_version() {
    let vault = Memory::with(
        "notes",
        Row {
            kind: Kind::Basic,
            payload: "ada:correct horse",
            ..TOKEN
        },
    );
    let basic = || bound(|b| b["inject"] = "basic".into());
    let first = build(&vault, basic(), None);
    let before: Vec<u64> = first.fingerprint_ids().collect();
    assert_eq!(before.len(), 2);
    assert_ne!(before[0], before[1]);
    assert_eq!(
        build(&vault, basic(), None)
            .fingerprint_ids()
            .collect::<Vec<_>>(),
        before
    );
    vault.put(
        "notes",
        Row {
            kind: Kind::Basic,
            version: 2,
            payload: "ada:battery staple",
            ..TOKEN
        },
    );
    let second = build(&vault, basic(), Some(&first));
    let after: Vec<u64> = second.fingerprint_ids().collect();
    assert_eq!(after.len(), 4);
    assert!(before.iter().all(|id| after.contains(id)));
    // Only what is wanted is opened.
    let opens = vault.0.opens.load(Ordering::Relaxed);
    let key = RedactKey::random().unwrap();
    let new = second
        .fingerprints(&key, |id| !before.contains(&id))
        .unwrap();
    assert_eq!(new.len(), 2);
    assert_eq!(vault.0.opens.load(Ordering::Relaxed), opens + 1);
}

#[test]
fn a_credential_that_cannot_be_opened_for_its_fingerprint_is_not_passed_over() {
    let vault = Memory::with("notes", TOKEN);
    let broker = build(&vault, bound(|_| {}), None);
    let key = RedactKey::random().unwrap();
    for fault in [VaultFault::Unavailable, VaultFault::NoMemory] {
        *vault.0.away.lock().unwrap() = Some(fault.clone());
        assert_eq!(broker.fingerprints(&key, |_| true).err(), Some(fault));
    }
    // Of these no lease comes either, so that there is nothing to redact.
    for fault in [
        VaultFault::Sealed,
        VaultFault::VaultSealed,
        VaultFault::Quarantined,
        VaultFault::Rotated,
    ] {
        *vault.0.away.lock().unwrap() = Some(fault);
        assert!(broker.fingerprints(&key, |_| true).unwrap().is_empty());
    }
}

#[test]
fn a_fault_of_the_sealer_keeps_its_meaning() {
    use mcpist_sealer::VaultError;
    assert_eq!(VaultFault::from(VaultError::Sealed), VaultFault::Sealed);
    assert_eq!(
        VaultFault::from(VaultError::NotFound("x".into())),
        VaultFault::Missing
    );
    assert_eq!(
        VaultFault::from(VaultError::Quarantined("x".into())),
        VaultFault::Quarantined
    );
    assert_eq!(VaultFault::from(VaultError::Rotated), VaultFault::Rotated);
    assert_eq!(
        VaultFault::from(VaultError::Storage("x".into())),
        VaultFault::Unavailable
    );
    assert_eq!(
        VaultFault::from(VaultError::Memory("x".into())),
        VaultFault::NoMemory
    );
}
