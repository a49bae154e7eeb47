#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::ids::Digest;

#[test]
fn a_reply_and_a_failure_carry_the_schema_version() {
    assert_eq!(
        serde_json::to_value(Reply::new(Done {})).unwrap(),
        json!({"schema": 1, "data": {}})
    );
    let failure = ApiError::new(ErrorCode::Sealed, "no\u{1b}[2J way").next("mcpist unseal");
    assert_eq!(
        serde_json::to_value(failure.into_failure()).unwrap(),
        json!({"schema": 1, "error": {
            "code": "sealed", "message": "no\\u{1b}[2J way", "next": "mcpist unseal"
        }})
    );
}

#[test]
fn a_request_with_an_unknown_field_is_refused() {
    for text in [
        json!({"purpose": "import", "path": "/etc/passwd"}),
        json!({"purpose": {"share": {"plan": Digest::of(b"").to_string(), "share": "x"}}}),
        json!({"purpose": "everything"}),
    ] {
        assert!(
            serde_json::from_value::<TicketRequest>(text.clone()).is_err(),
            "{text}"
        );
    }
    assert!(serde_json::from_value::<NewVault>(json!({"name": "team", "kind": "env"})).is_err());
    assert!(serde_json::from_value::<NewVault>(json!({"name": "../team"})).is_err());
}

#[test]
fn a_reply_of_a_newer_daemon_is_read() {
    let reply = json!({"schema": 1, "data": {
        "ticket": "00", "expires_s": 60, "later": true
    }});
    let reply: Reply<Ticket> = serde_json::from_value(reply).unwrap();
    assert_eq!(reply.data.expires_s, 60);
    assert_eq!(format!("{:?}", reply.data), "Ticket(redacted, 60 s)");
}

#[test]
fn purposes_and_outcomes_have_these_words() {
    let purpose = Purpose::Credential {
        vault: crate::ids::VaultName::parse("team").unwrap(),
        name: crate::ids::CredentialName::parse("grafana").unwrap(),
        owner: None,
        kind: "bearer".to_owned(),
        hosts: vec!["grafana.lan".to_owned()],
        expiry: 0,
    };
    let text = json!({"credential": {
        "vault": "team", "name": "grafana", "kind": "bearer", "hosts": ["grafana.lan"], "expiry": 0
    }});
    assert_eq!(serde_json::to_value(&purpose).unwrap(), text);
    assert_eq!(
        serde_json::to_value(Purpose::Import).unwrap(),
        json!("import")
    );
    assert_eq!(serde_json::to_value(Approve::Dev).unwrap(), json!("dev"));
    let progress = Progress {
        given: 1,
        needed: 3,
        holders: vec!["ada".into()],
        expires_s: None,
    };
    let outcome = Redeemed::Share(ShareOutcome::Pending(progress));
    assert_eq!(
        serde_json::to_value(outcome).unwrap(),
        json!({"share": {"pending": {"given": 1, "needed": 3, "holders": ["ada"]}}})
    );
}

#[test]
fn bytes_cross_as_text() {
    let bytes = Base64(vec![0, 255, 7]);
    assert_eq!(serde_json::to_value(&bytes).unwrap(), json!("AP8H"));
    assert_eq!(
        serde_json::from_value::<Base64>(json!("AP8H")).unwrap(),
        bytes
    );
    for bad in [json!("AP8"), json!("AP8H\n"), json!("AP-H"), json!(7)] {
        assert!(serde_json::from_value::<Base64>(bad).is_err());
    }
    let key = PublicKey([0xab; 32]);
    let text = Value::String("ab".repeat(32));
    assert_eq!(serde_json::to_value(key).unwrap(), text);
    assert_eq!(serde_json::from_value::<PublicKey>(text).unwrap(), key);
    assert!(serde_json::from_value::<PublicKey>(json!("AB".repeat(32))).is_err());
}

#[test]
fn status_exits_by_the_state_of_the_store() {
    assert_eq!(StoreState::Unsealed.exit_code(), 0);
    assert_eq!(StoreState::Sealed.exit_code(), 2);
    assert_eq!(StoreState::Uninitialised.exit_code(), 1);
}

#[test]
fn paths_are_made_of_names_that_need_no_encoding() {
    let vault = crate::ids::VaultName::parse("team.a").unwrap();
    let name = crate::ids::CredentialName::parse("grafana_1").unwrap();
    assert_eq!(
        path::credential(&vault, &name),
        "/v1/vaults/team.a/credentials/grafana_1"
    );
    let change = Digest::of(b"");
    assert_eq!(
        path::approvals(&change),
        format!("/v1/changes/{change}/approvals")
    );
}
