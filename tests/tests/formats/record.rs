//! What is decided and what is recorded: changes of the policy, and the audit log.

use mcpist_core::audit::{
    Anchor, AuditKey, Chain, Checkpoint, Copied, Statement, UnixMs, Verifier, public_key,
};
use mcpist_core::binding::{Binding, Join};
use mcpist_core::change::{Change, Object, PolicyView, State, approval_message};
use mcpist_core::event::Event;
use mcpist_core::grant::Grant;
use mcpist_core::ids::{BindingName, Digest, ModuleName, RegistryId, SlotName};
use mcpist_core::manifest::Manifest;
use mcpist_core::principal::PrincipalRecord;
use ring::signature::Ed25519KeyPair;

use super::{bytes, shows, text};

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

/// A policy in which the changed object has version 5 and nothing else exists.
struct Policy(Object);

impl PolicyView for Policy {
    fn store(&self) -> [u8; 16] {
        [7; 16]
    }
    fn version(&self, object: &Object) -> Option<u64> {
        (*object == self.0).then_some(5)
    }
    fn requesters(&self) -> Option<&[u32]> {
        None
    }
    fn principals(&self) -> impl Iterator<Item = &PrincipalRecord> {
        [].iter()
    }
    fn grants(&self) -> impl Iterator<Item = &Grant> {
        [].iter()
    }
    fn binding(&self, _: &BindingName) -> Option<&Binding> {
        None
    }
    fn join(&self, _: &RegistryId, _: &ModuleName, _: &SlotName) -> Option<&Join> {
        None
    }
    fn manifest(&self, _: &RegistryId) -> Option<&Manifest> {
        None
    }
    fn time_floor(&self) -> u64 {
        0
    }
    fn active(&self) -> impl Iterator<Item = &Manifest> {
        [].iter()
    }
}

#[test]
fn a_change_its_state_and_the_message_that_officers_sign() {
    let change: Change = serde_json::from_value(serde_json::json!({"grant-put": {
        "name": "ops-read-db", "subject": {"group": "ops"}, "module": {"named": "db"},
        "tools": {"named": ["get", "list"]}, "access": "read",
    }}))
    .unwrap();
    shows("change", change.to_bytes());
    let state = State::of(&change, &Policy(change.object()));
    assert_eq!(state.digest(), Digest::of(&bytes("state")));
    shows(
        "approval-message",
        approval_message(&change.digest(), &state.digest()),
    );
}

fn first_key() -> AuditKey {
    public_key(&pair(1))
}

/// A segment line, an event and the checkpoint over both.
fn audit_log() -> (Vec<u8>, Checkpoint, Chain) {
    let (mut log, mut chain) = (Vec::new(), Chain::new(Anchor::genesis(first_key())));
    chain.append_segment(UnixMs(1_700_000_000_000), 0, &Copied::new(), &mut log);
    chain.append(
        UnixMs(1_700_000_000_007),
        &Event::PeerRefused {
            listener: "mcp.socket",
            uid: Some(1000),
            peers: 3,
        },
        &mut log,
    );
    let anchor = *chain.anchor();
    let statement = Statement {
        number: anchor.checkpoint + 1,
        count: anchor.seq,
        head: anchor.head,
        previous: anchor.checkpoint_digest,
        next_key: public_key(&pair(2)),
        time: UnixMs(1_700_000_000_123),
    };
    let checkpoint = statement.sign(&pair(1));
    chain.append_checkpoint(&checkpoint, &mut log);
    (log, checkpoint, chain)
}

#[test]
fn an_audit_log_is_these_lines() {
    let (log, checkpoint, mut chain) = audit_log();
    assert_eq!(
        text("audit-lines"),
        std::str::from_utf8(&log).unwrap().trim_end()
    );
    let mut next = Vec::new();
    let copied = Copied::from([("system".to_owned(), 3)]);
    chain.append_segment(UnixMs(1_700_000_000_200), 1, &copied, &mut next);
    assert_eq!(
        text("audit-segment"),
        std::str::from_utf8(&next).unwrap().trim_end()
    );
    shows("audit-checkpoint", checkpoint.to_bytes());
    let read = Checkpoint::from_bytes(&bytes("audit-checkpoint")).unwrap();
    assert!(read.is_signed_by(&first_key()));
    let mut verifier = Verifier::new(first_key());
    assert!(verifier.feed(format!("{}\n", text("audit-lines")).as_bytes()));
    let report = verifier.finish();
    assert_eq!(
        (report.problem, report.lines, report.checkpoints),
        (None, 3, 1)
    );
    shows("audit-point", report.anchor.point().as_bytes());
}

#[test]
fn an_export_is_told_by_these_lines() {
    let (log, _, mut chain) = audit_log();
    let mut told = Vec::new();
    let exported = Event::AuditExported {
        first: 1,
        through: 3,
        head: &chain.anchor().head.clone(),
        digest: &Digest::of(&log),
        uid: 1000,
    };
    chain.append(UnixMs(1_700_000_000_300), &exported, &mut told);
    let confirmed = Event::ExportConfirmed {
        first: 1,
        through: 3,
        digest: &Digest::of(&log),
        exporter: 1000,
        uid: 1001,
    };
    chain.append(UnixMs(1_700_000_000_350), &confirmed, &mut told);
    let removed = Event::AuditRemoved {
        first_segment: 0,
        last_segment: 0,
    };
    chain.append(UnixMs(1_700_000_000_400), &removed, &mut told);
    chain.append_segment(UnixMs(1_700_000_000_500), 1, &Copied::new(), &mut told);
    assert_eq!(
        text("audit-exported"),
        std::str::from_utf8(&told).unwrap().trim_end()
    );
}
