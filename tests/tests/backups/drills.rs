//! Drills of a restore: what they say, and that they are none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::cli;
use serde_json::{Value, json};

use super::{done, host, refused, restore, text, unseal, works};

/// What the state folder holds: every file with its bytes, every folder.
fn state(host: &Appliance) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let (mut found, mut waiting) = (BTreeMap::new(), vec![host.folder().join("state")]);
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.insert(path.clone(), None);
                waiting.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(path, Some(bytes));
            }
        }
    }
    found
}

fn unchanged(host: &Appliance, before: &BTreeMap<PathBuf, Option<Vec<u8>>>) {
    let now = state(host);
    let names = |of: &BTreeMap<PathBuf, Option<Vec<u8>>>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&now), names(before));
    let other = now.iter().find(|(path, bytes)| before[*path] != **bytes);
    assert_eq!(other.map(|(path, _)| path), None, "a file is another one");
}

fn begin(host: &Appliance, file: &Path) -> Value {
    let open = done(host, &["restore", text(file), "--drill"], b"");
    assert_eq!(
        (&open["drill"], &open["replaces"]),
        (&json!(true), &json!(false))
    );
    open
}

#[test]
fn a_drill_reports_what_a_restore_would_bring_and_leaves_the_host_as_it_was() {
    let (first, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    let made = done(&first, &["backup", text(&file)], b"");
    first.put_credential("later", "bearer", "a-credential-put-later");
    let open = refused(&first, &["restore", text(&file), "--drill"], b"");
    assert_eq!(open["code"], "already_unsealed", "{open}");
    done(&first, &["seal"], b"");
    let standby = Appliance::start();
    for place in [&first, &standby] {
        let before = state(place);
        let report = desk.path().join(format!("report-of-{}", place.pid()));
        begin(place, &file);
        let ours = ["restore", "--give"];
        let damaged = refused(place, &ours, b"mcpist-share-of-nobody");
        assert!(!damaged["code"].is_null());
        done(place, &ours, first.share(1).expose());
        let wrong = ["restore", "--give", "--record", text(&report)];
        let wrong = refused(place, &wrong, first.share(3).expose());
        assert_eq!(wrong["code"], "usage", "{wrong}");
        let last = ["restore", "--give", "--report", text(&report)];
        let found = done(place, &last, first.share(3).expose())["drilled"].clone();
        for field in [
            "backup",
            "created",
            "generation",
            "bytes",
            "vaults",
            "records",
            "files",
        ] {
            assert_eq!(found[field], made[field], "{field}: {found}");
        }
        assert!(
            found["age_s"].is_u64() && found["verifying_ms"].is_u64(),
            "{found}"
        );
        assert_eq!(found["left_out"], json!([]));
        unchanged(place, &before);
        let page = std::fs::read_to_string(&report).unwrap();
        for word in ["RPO", "RTO", made["backup"].as_str().unwrap()] {
            assert!(page.contains(word), "{word}: {page}");
        }
    }
    // The one goes on with its own store, the other is as blank as before.
    first.unseal();
    works(&first);
    let listed = first.ask("GET", "/v1/vaults/main/credentials", None);
    assert_eq!(
        listed["credentials"].as_array().unwrap().len(),
        2,
        "{listed}"
    );
    assert_eq!(
        standby.ask("GET", "/v1/status", None)["state"],
        "uninitialised"
    );
    let restored = restore(&standby, &file, &first);
    assert_eq!(
        (&restored["life"], &restored["kept"]),
        (&json!(2), &json!(false))
    );
    unseal(&standby, &first);
}

#[test]
fn a_share_for_a_drill_restores_nothing_and_the_other_way_round() {
    let (host, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    done(&host, &["backup", text(&file)], b"");
    done(&host, &["seal"], b"");
    let restoring = ["restore", text(&file)];
    for (one, other) in [(true, false), (false, true)] {
        let begun = |drill| match drill {
            true => begin(&host, &file),
            false => done(&host, &restoring, b""),
        };
        let plan = begun(one)["digest"].clone();
        done(&host, &["restore", "--give"], host.share(1).expose());
        done(&host, &["restore", "--cancel"], b"");
        begun(other);
        let ticket = host.ticket(&json!({ "share": { "plan": plan } }));
        let late = host.bring(&ticket, &host.share(2));
        assert_eq!(late["share"]["refused"]["reason"], "other_plan", "{late}");
        let open = done(&host, &["restore", "--give"], host.share(3).expose());
        assert_eq!(open["pending"]["given"], 1, "no share came along: {open}");
        done(&host, &["restore", "--cancel"], b"");
    }
    assert_eq!(host.ask("GET", "/v1/status", None)["old_store"], false);
    host.unseal();
}

#[test]
fn a_drill_that_is_killed_in_the_middle_is_gone_after_the_next_start() {
    let (mut host, _service) = host();
    let desk = tempfile::tempdir().unwrap();
    let file = desk.path().join("store.backup");
    done(&host, &["backup", text(&file)], b"");
    done(&host, &["seal"], b"");
    let scratch = host.folder().join("state/store.drill");
    // The disk may be faster than the look at it.
    for _ in 0..50 {
        begin(&host, &file);
        done(&host, &["restore", "--give"], host.share(1).expose());
        let share = desk.path().join("share");
        std::fs::write(&share, host.share(2).expose()).unwrap();
        let mut last = cli()
            .arg("--run")
            .arg(host.folder().join("run"))
            .args(["restore", "--give"])
            .stdin(std::fs::File::open(&share).unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !scratch.exists() && last.try_wait().unwrap().is_none() {}
        host.kill();
        last.wait().unwrap();
        let cut = scratch.exists();
        host.restart();
        assert!(!scratch.exists());
        if cut {
            host.unseal();
            return works(&host);
        }
    }
    panic!("no kill came in time");
}
