#![allow(clippy::unwrap_used)]

use serde_json::Value;

use super::*;
use crate::audit::{Anchor, Body, Chain, MAX_LINE};

fn written(event: &Event<'_>) -> Value {
    let mut chain = Chain::new(Anchor::genesis([1; 32]));
    let mut out = Vec::new();
    chain.append(UnixMs(0), event, &mut out);
    assert!(out.len() <= MAX_LINE);
    assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
    let body = Body::new(event, UnixMs(0));
    assert_eq!(
        Body::parse(body.as_bytes()).is_ok(),
        !["recovered", "audit_exported", "export_confirmed"].contains(&event.name())
    );
    serde_json::from_slice(&out).unwrap()
}

fn rev() -> ModuleRev {
    ModuleRev {
        registry: RegistryId::of_manifest(b"manifest"),
        module: crate::ids::ModuleName::parse("prometheus").unwrap(),
    }
}

#[test]
fn an_intent_carries_a_mac_and_only_recordable_values() {
    let line = written(&Event::CallIntent {
        call: CallId(9),
        principal: &PrincipalName::parse("ada@site").unwrap(),
        rev: &rev(),
        tool: &ToolName::parse("query_range").unwrap(),
        access: Access::Read,
        arguments: ArgumentsMac([0xab; 32]),
        recorded: &[Recorded {
            name: "query",
            value: "\"up{job=\\\"x\\\"}\"",
        }],
    });
    assert_eq!(line["event"], "call_intent");
    assert_eq!(line["principal"], "ada@site");
    assert_eq!(line["access"], "read");
    assert_eq!(line["arguments"], "ab".repeat(32));
    assert_eq!(line["recorded"][0]["name"], "query");
    assert_eq!(line["recorded"][0]["value"], "\"up{job=\\\"x\\\"}\"");
    let names: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        [
            "seq",
            "time",
            "event",
            "call",
            "principal",
            "registry",
            "module",
            "tool",
            "access",
            "arguments",
            "recorded",
            "hash"
        ]
    );
}

#[test]
fn the_longest_line_is_within_the_bound_of_the_log() {
    let worst = "\u{7f}".repeat(300);
    let recorded = [Recorded {
        name: &worst,
        value: &worst,
    }; 64];
    let line = written(&Event::CallIntent {
        call: CallId(u64::MAX),
        principal: &PrincipalName::parse(&"a".repeat(64)).unwrap(),
        rev: &rev(),
        tool: &ToolName::parse(&"a".repeat(64)).unwrap(),
        access: Access::Destructive,
        arguments: ArgumentsMac([0xff; 32]),
        recorded: &recorded,
    });
    assert_eq!(line["recorded"].as_array().unwrap().len(), MAX_ITEMS);
    let digest = Digest::of(b"");
    written(&Event::ChangeStored {
        kind: "binding-put",
        object: &worst,
        change: &digest,
        state: &digest,
        officers: &[digest; 1_000],
        uid: u32::MAX,
    });
}

#[test]
fn an_outcome_names_its_intent_and_its_code() {
    let outcome = Outcome {
        error: Some(ErrorCode::UpstreamTimeout),
        is_error: false,
        truncated: false,
        bytes: 0,
        hits: 2,
        micros: 10_000_000,
    };
    let line = written(&Event::CallOutcome {
        call: CallId(9),
        intent: 4,
        outcome,
    });
    assert_eq!(line["code"], "upstream_timeout");
    assert_eq!(line["intent"], 4);
    let outcome = Outcome {
        error: None,
        ..outcome
    };
    assert_eq!(
        written(&Event::CallOutcome {
            call: CallId(9),
            intent: 4,
            outcome
        })["code"],
        "ok"
    );
}

#[test]
fn what_a_stranger_asked_for_is_bounded_and_breaks_no_line() {
    let hostile = "x\n\",\"event\":\"forged\u{202e}\u{1b}[2J".repeat(1_000);
    let line = written(&Event::CallDenied {
        principal: &PrincipalName::parse("ada").unwrap(),
        module: &hostile,
        tool: &hostile,
        code: ErrorCode::UnknownTool,
    });
    assert_eq!(line["event"], "call_denied");
    assert!(line["module"].as_str().unwrap().len() <= 256 + 3);
    assert!(line.get("forged").is_none());
}

#[test]
fn a_share_leaves_no_trace_but_its_refusal() {
    let plan = Digest::of(b"plan");
    for (step, expected) in [
        (Step::Planned, "planned"),
        (
            Step::ShareAccepted {
                given: 1,
                needed: 3,
            },
            "share_accepted",
        ),
        (Step::ShareRefused { reason: "damaged" }, "share_refused"),
        (Step::Completed, "completed"),
        (Step::Cancelled, "cancelled"),
        (Step::Expired, "expired"),
        (Step::Failed { reason: "io" }, "failed"),
    ] {
        let line = written(&Event::Ceremony {
            ceremony: Ceremony::Unseal,
            plan: &plan,
            step,
            uid: Some(0),
        });
        assert_eq!(line["step"], expected);
        assert_eq!(line["ceremony"], "unseal");
    }
}

#[test]
fn a_rotation_says_what_a_vault_has_since() {
    let vault = VaultName::parse("team").unwrap();
    let steps = [
        RotationStep::Begun { records: 2 },
        RotationStep::Completed {
            id: Some("new"),
            records: 2,
        },
        RotationStep::Failed { reason: "io" },
    ];
    let lines = steps.map(|step| {
        written(&Event::VaultRotation {
            vault: &vault,
            lazy: false,
            step,
            uid: 7,
        })
    });
    assert_eq!(lines[0]["step"], "begun");
    assert_eq!(
        (&lines[1]["id"], &lines[1]["records"]),
        (&"new".into(), &2.into())
    );
    assert_eq!(
        (&lines[2]["reason"], &lines[2]["uid"]),
        (&"io".into(), &7.into())
    );
}

#[test]
fn a_step_of_a_vaults_own_quorum_names_the_vault() {
    let (plan, vault) = (Digest::of(b"plan"), VaultName::parse("payroll").unwrap());
    let line = written(&Event::VaultCeremony {
        vault: &vault,
        ceremony: Ceremony::UnsealVault,
        plan: &plan,
        step: Step::Completed,
        uid: Some(7),
    });
    assert_eq!(
        (&line["ceremony"], &line["vault"]),
        (&"unseal_vault".into(), &"payroll".into())
    );
    assert_eq!(
        (&line["step"], &line["uid"]),
        (&"completed".into(), &7.into())
    );
}

#[test]
fn every_event_is_one_flat_object_with_its_own_name() {
    let digest = Digest::of(b"x");
    let registry = RegistryId::of_manifest(b"manifest");
    let vault = VaultName::parse("team").unwrap();
    let name = CredentialName::parse("grafana").unwrap();
    let principal = PrincipalName::parse("ada").unwrap();
    let binding = BindingName::parse("grafana").unwrap();
    let (namespace, bundle) = (
        Namespace::parse("acme").unwrap(),
        BundleName::parse("monitoring").unwrap(),
    );
    let rev = rev();
    let events = [
        Event::Start {
            since: UnixMs(4),
            version: "0.1.0",
            dev: false,
        },
        Event::Unsealed {
            site: None,
            vaults: 1,
            records: 2,
            quarantined: 0,
        },
        Event::Sealed {
            uid: None,
            reason: "stop",
        },
        Event::TicketIssued {
            uid: 0,
            purpose: "unseal",
        },
        Event::AdminRefused {
            uid: 1,
            action: "seal",
            code: ErrorCode::Forbidden,
        },
        Event::ChangeStored {
            kind: "grant_put",
            object: "ops",
            change: &digest,
            state: &digest,
            officers: &[digest, Digest::of(b"y")],
            uid: 3,
        },
        Event::ChangeRefused {
            kind: "grant_put",
            change: &digest,
            code: ErrorCode::ChangeVoid,
            uid: 3,
        },
        Event::OldStoreRemoved { uid: 1 },
        Event::VaultCreated {
            vault: &vault,
            uid: 1,
        },
        Event::VaultSealed {
            vault: &vault,
            uid: 1,
        },
        Event::VaultVerified {
            vault: &vault,
            records: 2,
            uid: 1,
        },
        Event::VaultRotation {
            vault: &vault,
            lazy: false,
            step: RotationStep::Begun { records: 2 },
            uid: 1,
        },
        Event::VaultRepaired {
            vault: &vault,
            file: "00000000-0000-4000-8000-000000000000",
            kept: 3,
            damaged: 1,
            expected: Some(5),
            sure: false,
            uid: 1,
        },
        Event::VaultRestored {
            vault: &vault,
            backup: &digest,
            file: Some("00000000-0000-4000-8000-000000000000"),
            records: 3,
            other: Some(1),
            missing: Some(2),
            uid: 1,
        },
        Event::DamagedDiscarded {
            vault: &vault,
            file: "00000000-0000-4000-8000-000000000000",
            uid: 1,
        },
        Event::VaultQuarantined {
            vault: &vault,
            reason: "root",
        },
        Event::VaultHealth {
            vault: &vault,
            available: false,
        },
        Event::LastWriteMissing {
            vault: &vault,
            confirmed: Some(7),
        },
        Event::VaultFilesUnknown { files: 2 },
        Event::StoreBehindLog {
            vault: &vault,
            logged: u64::MAX,
            next: 3,
        },
        Event::LogForged {
            vault: &vault,
            row: 13,
        },
        Event::ReceiptGiven {
            generation: 7,
            uid: 4,
        },
        Event::ReceiptIgnored {
            reason: "forged",
            uid: 4,
        },
        Event::TpmBound {
            index: 0x0180_4d50,
            uid: 4,
        },
        Event::StoreRefused {
            reason: "rolled_back",
            generation: 7,
            shown: 9,
            uid: Some(4),
        },
        Event::CredentialPut {
            vault: &vault,
            name: &name,
            owner: Some(&principal),
            version: 2,
            kind: "bearer",
            uid: Some(1),
        },
        Event::CredentialDeleted {
            vault: &vault,
            name: &name,
            owner: None,
            version: 2,
            uid: 1,
        },
        Event::CredentialSuspect {
            call: CallId(9),
            binding: &binding,
            version: 2,
        },
        Event::BundleImported {
            registry: &registry,
            namespace: &namespace,
            name: &bundle,
            sequence: 4,
            widens: true,
            uid: 3,
        },
        Event::BundleRefused {
            reason: "signature",
            registry: None,
            uid: 3,
        },
        Event::RegistryDrained {
            registry: &registry,
        },
        Event::PeerRefused {
            listener: "unix",
            uid: None,
            peers: 2,
        },
        Event::RedactionHit {
            call: CallId(1),
            rev: &rev,
            hits: 1,
            stage: "daemon",
        },
        Event::ModuleQuarantined {
            rev: &rev,
            reason: "redaction",
        },
        Event::RunnerConnected {
            role: RunnerRole::Run,
            pid: 2,
            uid: 3,
            version: 1,
        },
        Event::RunnerLost {
            role: RunnerRole::Vault,
            reason: "closed",
            calls: 4,
        },
        Event::RunnerRefused {
            role: "run",
            uid: 9,
            reason: "uid",
        },
        Event::Recovered {
            length: 3,
            digest: &digest,
        },
        Event::DiskAlarm {
            free_bytes: 1,
            limit_bytes: 2,
            raised: true,
        },
        Event::CallsDenied {
            principal: &PrincipalName::parse("ada").unwrap(),
            calls: 1,
        },
        Event::RequestsRefused {
            uid: Some(1000),
            requests: 2,
        },
        Event::RequestsServed {
            uid: None,
            requests: 3,
        },
        Event::AuditLost { calls: 1 },
        Event::AuditExported {
            first: 1,
            through: 9,
            head: &digest,
            digest: &digest,
            uid: 4,
        },
        Event::ExportConfirmed {
            first: 1,
            through: 9,
            digest: &digest,
            exporter: 4,
            uid: 5,
        },
        Event::AuditRemoved {
            first_segment: 0,
            last_segment: 2,
        },
        Event::AuditMatched {
            arguments: ArgumentsMac([3; 32]),
            matched: false,
            uid: 4,
        },
        Event::Boot {
            since: UnixMs(5),
            what: "admin_refused",
            code: "forbidden",
            uid: Some(1000),
            repeats: 3,
        },
    ];
    let mut names = std::collections::BTreeSet::new();
    for event in &events {
        let line = written(event);
        assert_eq!(line["event"], event.name());
        assert!(names.insert(event.name()), "{} twice", event.name());
    }
}
