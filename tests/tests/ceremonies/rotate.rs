//! A new root key under the same shares.

use serde_json::json;

use super::Site;

#[test]
fn the_same_shares_open_a_new_root_key() {
    let site = Site::open();
    let begun = site.ask("POST", "/v1/ceremony", Some(&json!("rotate_root")));
    assert_eq!(
        (&begun["act"], &begun["phase"]),
        (&json!("rotate_root"), &json!("consent"))
    );
    assert_eq!(site.give_to_ceremony(&site.share(3))["pending"]["given"], 1);
    let done = site.give_to_ceremony(&site.share(1));
    assert_eq!(done["completed"]["act"], "rotate_root", "{done}");
    assert_eq!(done["completed"]["generation"], 1, "{done}");
    assert_eq!(
        site.steps("rotate"),
        ["planned", "share_accepted", "completed"]
    );
    site.put_credential("later", "bearer", "another-credential");
    site.ask("POST", "/v1/seal", None);
    site.opens_with(&site.share(2), &site.share(1));
}

#[test]
fn a_daemon_killed_before_the_last_share_has_changed_nothing() {
    let mut site = Site::open();
    let control = site.folder().join("state/store/control.db");
    site.ask("POST", "/v1/ceremony", Some(&json!("rotate_root")));
    let _ = site.give_to_ceremony(&site.share(3));
    site.appliance.kill_and_restart();
    assert!(control.exists());
    site.opens_with(&site.share(1), &site.share(2));
    assert_eq!(site.admin("GET", "/v1/ceremony", None).0, 404);
}
