//! Rekey: new shares for other people.

use serde_json::json;

use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::program;
use mcpist_tests::start::Start;

use super::Site;

#[test]
fn the_new_quorum_opens_and_the_old_shares_are_refused_by_name() {
    for rotate_root in [false, true] {
        let site = Site::open();
        let new = site.rekey(rotate_root);
        assert_eq!(site.state(), "unsealed", "a rekey interrupts nobody");
        let over = site.admin("GET", "/v1/ceremony", None);
        assert_eq!(over.0, 404, "{over:?}");
        let told = site.steps("rekey");
        let expected = [
            "planned",
            "share_accepted",
            "delivered",
            "proven",
            "completed",
        ];
        assert_eq!(told, expected);
        site.ask("POST", "/v1/seal", None);
        assert_eq!(site.refuses(&site.share(1)), "superseded");
        site.opens_with(&new[1], &new[2]);
    }
}

#[test]
fn a_killed_daemon_leaves_the_store_to_those_who_had_it() {
    let mut site = Site::open();
    // Planned; one consent; delivered; one proof.
    for phase in 0..4 {
        site.begin_rekey(phase % 2 == 0);
        let mut new = Vec::new();
        match phase {
            0 => {}
            1 => drop(site.give_to_ceremony(&site.share(3))),
            2 => new = site.consent(),
            _ => {
                new = site.consent();
                assert_eq!(site.give_to_ceremony(&new[0])["proven"]["given"], 1);
            }
        }
        site.appliance.kill_and_restart();
        for share in &new {
            assert_eq!(site.refuses(share), "newer");
        }
        site.opens_with(&site.share(2), &site.share(3));
        assert_eq!(site.admin("GET", "/v1/ceremony", None).0, 404);
    }
    // Two were tried and abandoned: no number is given twice, and what they gave out stays refused.
    let plan = site.begin_rekey(false);
    let new = site.consent();
    let _ = site.give_to_ceremony(&new[0]);
    let done = site.give_to_ceremony(&new[1]);
    assert_eq!(done["completed"]["generation"], 4, "{done} {plan}");
    site.appliance.kill_and_restart();
    assert_eq!(site.refuses(&site.share(1)), "superseded");
    site.opens_with(&new[0], &new[2]);
}

#[test]
fn each_wrong_share_is_refused_by_name_and_costs_nothing() {
    let site = Site::open();
    let refused = |answer: serde_json::Value, reason: &str, given: u8| {
        assert_eq!(answer["refused"]["reason"], reason, "{answer}");
        assert_eq!(answer["refused"]["progress"]["given"], given, "{answer}");
    };
    let plan = site.begin_rekey(false)["digest"].clone();
    let other = json!("00".repeat(32));
    let _ = site.give_to_ceremony(&site.share(1));
    refused(site.give_to_ceremony(&site.share(1)), "already_given", 1);
    refused(site.give_under(&other, &site.share(2)), "other_plan", 1);
    refused(
        site.give_to_ceremony(&super::Secret::copy_of(b"no share").unwrap()),
        "not_a_share",
        1,
    );
    let foreign = Site::open();
    refused(site.give_to_ceremony(&foreign.share(2)), "other_store", 1);

    let delivered = site.give_to_ceremony(&site.share(2));
    let new = site.open_letters(&delivered["delivered"]["shares"]);
    // The same letters as often as they are asked for.
    let again = site.ask("GET", "/v1/ceremony/shares", None);
    assert_eq!(again["shares"], delivered["delivered"]["shares"]);
    refused(site.give_under(&plan, &site.share(3)), "consent_given", 0);
    let _ = site.give_to_ceremony(&new[1]);
    refused(site.give_to_ceremony(&new[1]), "already_given", 1);
    refused(site.give_under(&other, &new[0]), "other_plan", 1);
    assert!(site.give_to_ceremony(&new[0])["completed"].is_object());
}

#[test]
fn a_share_given_to_unseal_serves_no_ceremony() {
    let site = Site::open();
    site.ask("POST", "/v1/seal", None);
    let unseal = site.ask("GET", "/v1/unseal", None)["digest"].clone();
    site.opens_with(&site.share(1), &site.share(2));
    let told = site.give_under(&unseal, &site.share(1));
    assert!(told.is_null(), "no ceremony is open: {told}");
    site.begin_rekey(false);
    let answer = site.give_under(&unseal, &site.share(1));
    assert_eq!(answer["refused"]["reason"], "other_plan", "{answer}");
}

#[test]
fn what_was_cancelled_or_sealed_away_is_gone() {
    let site = Site::open();
    site.begin_rekey(false);
    let second = json!("rotate_root");
    let busy = site.admin("POST", "/v1/ceremony", Some(&second));
    assert_eq!(busy.1["error"]["code"], "conflict", "{busy:?}");
    let new = site.consent();
    site.ask("DELETE", "/v1/ceremony", None);
    assert_eq!(site.admin("DELETE", "/v1/ceremony", None).0, 404);
    let status = site.ask("GET", "/v1/status", None);
    assert!(status["ceremony"].is_null(), "{status}");
    assert_eq!(site.steps("rekey").last().unwrap(), "cancelled");
    site.begin_rekey(false);
    let status = site.ask("GET", "/v1/status", None);
    assert_eq!(status["ceremony"]["phase"], "consent", "{status}");
    site.ask("POST", "/v1/seal", None);
    assert_eq!(site.refuses(&new[0]), "newer");
    site.opens_with(&site.share(1), &site.share(3));
    assert_eq!(site.admin("GET", "/v1/ceremony", None).0, 404);
}

#[test]
fn nonsense_begins_nothing() {
    let site = Site::open();
    let recipient = site.people[0].recipient();
    let holder = |label: &str, recipient: &str| json!({ "label": label, "recipient": recipient });
    let rekey = |threshold: u8, holders: &[serde_json::Value]| json!({ "rekey": { "threshold": threshold, "holders": holders } });
    let bad = [
        json!("everything"),
        json!({ "rekey": { "threshold": 1 } }),
        json!({ "rekey": { "threshold": 1, "holders": [], "force": true } }),
        rekey(1, &[]),
        rekey(3, &[holder("ada", &recipient)]),
        rekey(0, &[holder("ada", &recipient)]),
        rekey(1, &[holder("ada", "age1nobody")]),
        rekey(1, &[holder("", &recipient)]),
        rekey(2, &[holder("ada", &recipient), holder("bob", &recipient)]),
    ];
    for request in bad {
        let (status, answer) = site.admin("POST", "/v1/ceremony", Some(&request));
        assert_eq!(
            answer["error"]["code"], "request_invalid",
            "{status} {request}"
        );
    }
    assert_eq!(site.admin("GET", "/v1/ceremony", None).0, 404);
    site.ask("POST", "/v1/seal", None);
    let sealed = site.admin("POST", "/v1/ceremony", Some(&json!("rotate_root")));
    assert_eq!(sealed.1["error"]["code"], "sealed", "{sealed:?}");
}

#[test]
fn nobody_without_the_role_begins_sees_or_ends_a_ceremony() {
    let start = Start::service(program("mcpistd"), Start::UID)
        .with_config("[roles]\noperator = \"a-group-of-nobody\"\n");
    let appliance = Appliance::start_by(start);
    let begin = json!("rotate_root");
    for (method, path, body) in [
        ("POST", "/v1/ceremony", Some(&begin)),
        ("DELETE", "/v1/ceremony", None),
        ("GET", "/v1/ceremony/shares", None),
        (
            "POST",
            "/v1/ticket",
            Some(&json!({ "purpose": { "share": { "plan": "00".repeat(32) } } })),
        ),
    ] {
        let (status, answer) = appliance.admin(method, path, body);
        assert_eq!(answer["error"]["code"], "forbidden", "{method} {path}");
        assert_eq!(status, 403);
    }
}
