//! Shares and the tickets that they come with.

use mcpist_quorum::{Share, split};
use mcpist_secret::frame::Ticket;
use mcpist_secret::{Key, Secret};
use mcpist_tests::appliance::Appliance;
use serde_json::{Value, json};

use super::{SEALED, Site, secret};

/// One share is in; `answer` of a bad one is a refusal for `reason` that costs nothing.
fn refused_share(site: &Site, reason: &str, bad: impl FnOnce(&Site) -> Value) {
    site.ask("POST", "/v1/unseal/cancel", None);
    let first = site.give(&site.share(1));
    assert_eq!(first["share"]["pending"]["given"], 1, "{first}");
    let answer = bad(site);
    let refused = &answer["share"]["refused"];
    assert_eq!(refused["reason"], reason, "{answer}");
    assert_eq!(refused["progress"]["given"], 1, "{answer}");
    let status = site.ask("GET", "/v1/status", None);
    assert_eq!(status["state"], "sealed");
    assert_eq!(status["unseal"]["given"], 1, "{status}");
    // The share that was given still counts.
    let opened = site.give(&site.share(2));
    assert!(opened["share"]["opened"].is_object(), "{opened}");
    site.ask("POST", "/v1/seal", None);
}

/// A share's text with the character at `at` replaced by another of the alphabet.
fn mistyped(share: &Secret, at: usize) -> Secret {
    let mut text = share.expose().to_vec();
    text[at] = if text[at] == b'q' { b'p' } else { b'q' };
    secret(&text)
}

#[test]
fn a_mistyped_share_is_refused_wherever_the_slip_is() {
    SEALED.with(|site| {
        let share = site.share(2);
        let end = share.len() - 1;
        for at in [end / 2, end] {
            refused_share(site, "not_a_share", |s| s.give(&mistyped(&share, at)));
        }
    });
}

#[test]
fn a_share_that_is_cut_off_or_no_text_at_all_is_refused() {
    SEALED.with(|site| {
        let share = site.share(2);
        let half = secret(&share.expose()[..share.len() / 2]);
        refused_share(site, "not_a_share", |s| s.give(&half));
        refused_share(site, "not_a_share", |s| s.give(&secret(&[0xff; 4096])));
    });
}

#[test]
fn a_share_that_reads_well_and_holds_another_value_is_refused() {
    SEALED.with(|site| {
        // Everything is right but the value: set, generation, number and checksum.
        let real = Share::parse(site.share(2).expose()).expect("a share");
        let key = Key::random().expect("memory");
        let forged = split(&key, real.threshold(), real.set(), real.generation());
        let forged = forged.expect("shares").swap_remove(1);
        assert_eq!(forged.index(), real.index());
        let text = forged.to_text().expect("memory");
        refused_share(site, "damaged", |s| s.give(&text));
    });
}

#[test]
fn a_share_of_another_store_is_refused() {
    SEALED.with(|site| {
        let mut other = Appliance::start();
        other.init();
        refused_share(site, "other_store", |s| s.give(&other.share(2)));
    });
}

#[test]
fn a_share_that_is_given_twice_counts_once() {
    SEALED.with(|site| refused_share(site, "already_given", |s| s.give(&s.share(1))));
}

#[test]
fn a_share_under_another_plan_is_refused() {
    SEALED.with(|site| {
        refused_share(site, "other_plan", |s| {
            let plan = "00".repeat(32);
            let ticket = s.ticket(&json!({ "share": { "plan": plan } }));
            s.bring(&ticket, &s.share(2))
        });
    });
}

// Tickets.

#[test]
fn a_ticket_serves_once_also_when_that_was_refused() {
    SEALED.with(|site| {
        site.ask("POST", "/v1/unseal/cancel", None);
        let plan = site.ask("GET", "/v1/unseal", None);
        let ticket = site.ticket(&json!({ "share": { "plan": plan["digest"] } }));
        let first = site.bring(&ticket, &secret(b"no share"));
        assert_eq!(first["share"]["refused"]["reason"], "not_a_share");
        let again = site.bring(&ticket, &site.share(1));
        assert_eq!(again["error"]["code"], "ticket_invalid", "{again}");
        let status = site.ask("GET", "/v1/status", None);
        assert_eq!(status["unseal"]["given"], 0, "{status}");
    });
}

#[test]
fn a_ticket_that_was_never_issued_is_refused() {
    SEALED.with(|site| {
        site.ask("POST", "/v1/unseal/cancel", None);
        let answer = site.bring(&Ticket::from_bytes([7; 32]), &site.share(1));
        assert_eq!(answer["error"]["code"], "ticket_invalid", "{answer}");
        let status = site.ask("GET", "/v1/status", None);
        assert_eq!(status["unseal"]["given"], 0, "{status}");
    });
}
