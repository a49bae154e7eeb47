//! The store's files changed in place while mcpistd serves from them.

use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::store::{rows_of, sealed_and_closed};
use super::{Site, code, open, works};

/// So many records do not fit into the pages that a connection keeps: they are read from the file.
const RECORDS: usize = 160;
/// So many of them are replaced by a next version: not all stand in the root of the tree, which is always kept.
const REPLACED: usize = 9;
const PAGE: usize = 4096;
/// A page of a tree's leaves begins so; behind it stand, in two bytes each, at 3 the number of its cells, and from 8 on
/// where each begins.
const LEAF: u8 = 0x0a;
const CELLS: usize = 3;
const POINTERS: usize = 8;
/// A record's key, and the most that stands before it in a cell.
const KEY: usize = 32;
const CELL_HEADER: usize = 12;

/// An opened store whose vault `main` has many records, and beside it the vault `spare`; their files as they were before
/// the credential in use was replaced by the next.
struct Scene {
    site: Site,
    /// The file of `main`.
    file: PathBuf,
    before: Vec<(PathBuf, Vec<u8>)>,
    control: Vec<u8>,
}

impl Scene {
    fn set() -> Scene {
        let site = open();
        for number in 0..RECORDS {
            put(&site, number, 'x', 1);
        }
        let file = sealed_and_closed(&site).remove(0).0;
        site.unseal();
        site.ask("POST", "/v1/vaults", Some(&json!({ "name": "spare" })));
        let before = sealed_and_closed(&site);
        let control = std::fs::read(control_of(&site)).expect("a file");
        site.unseal();
        // As long as the first, so that its row takes the same place.
        let next: String = super::CREDENTIAL.chars().rev().collect();
        let stored = site.put_credential("token", "bearer", &next);
        assert_eq!(stored["credential"]["version"], 2, "{stored}");
        for number in 0..REPLACED {
            put(&site, number, 'y', 2);
        }
        // What was written stands in the files themselves, and the logs are empty.
        sealed_and_closed(&site);
        site.unseal();
        works(&site);
        Scene {
            site,
            file,
            before,
            control,
        }
    }

    fn old(&self) -> &[u8] {
        let old = self.before.iter().find(|(file, _)| *file == self.file);
        &old.expect("the file of before").1
    }

    /// The vault's records are read, and it is quarantined, alone; now, and when the store is opened again.
    fn only_main_is_lost(mut self) {
        // Of what a connection keeps the first listing leaves the end of the file.
        let list = || self.site.admin("GET", "/v1/vaults/main/credentials", None);
        let refused = [list(), list()]
            .into_iter()
            .find(|(status, _)| *status != 200);
        let (_, refused) = refused.expect("what was changed is listed as if nothing were");
        self.main_is_quarantined(&refused["error"]["code"]);
        self.site.kill_and_restart();
        self.site.give(&self.site.share(1));
        let opened = self.site.give(&self.site.share(2));
        let quarantined = &opened["share"]["opened"]["quarantined"];
        assert_eq!(quarantined, &json!(["main"]), "{opened}");
        self.main_is_quarantined(&json!("vault_quarantined"));
    }

    fn main_is_quarantined(&self, said: &Value) {
        assert_eq!(said, "vault_quarantined");
        let status = self.site.ask("GET", "/v1/status", None);
        let health = |name: &str| {
            let vaults = status["vaults"].as_array().expect("vaults");
            let vault = vaults.iter().find(|vault| vault["name"] == name);
            vault.expect("the vault")["health"].clone()
        };
        assert_eq!(
            (health("main"), health("spare")),
            ("quarantined".into(), "ok".into())
        );
        let seen = self.site.service.seen().len();
        let mut ada = self.site.client("ada");
        let answer = ada.call("echo", "get", &json!({ "item": "x" }));
        assert_eq!(code(&answer), "vault_quarantined", "{answer}");
        assert_eq!(self.site.service.seen().len(), seen, "a request went out");
        self.site
            .change(&json!({ "principal-put": { "name": "carol" } }));
    }
}

fn control_of(site: &Site) -> PathBuf {
    site.folder().join("state/store/control.db")
}

/// Writes `bytes` into the file that the daemon has open.
fn write_in_place(file: &Path, bytes: &[u8], at: usize) {
    let open = OpenOptions::new().write(true).open(file).expect("a file");
    open.write_all_at(bytes, at as u64).expect("written");
    if at == 0 {
        open.set_len(bytes.len() as u64).expect("cut");
    }
}

/// Puts the credential of that number.
fn put(site: &Site, number: usize, letter: char, version: u64) {
    let secret = letter.to_string().repeat(400);
    let stored = site.put_credential(&format!("other-{number:03}"), "bearer", &secret);
    assert_eq!(stored["credential"]["version"], version, "{stored}");
}

fn number(page: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([page[at], page[at + 1]]))
}

/// The rows of `version` that the leaves have; what a page does not point to is what was there before.
fn leaves(database: &[u8], version: u64) -> Vec<Range<usize>> {
    let mut rows = rows_of(database, version);
    rows.retain(|row| {
        let page = &database[row.start / PAGE * PAGE..][..PAGE];
        let key = row.start % PAGE - KEY;
        let cells = 0..number(page, CELLS).min(PAGE / 4);
        let mut starts = cells.map(|cell| number(page, POINTERS + 2 * cell));
        page[0] == LEAF && starts.any(|start| (1..CELL_HEADER).contains(&(key.wrapping_sub(start))))
    });
    rows
}

#[test]
fn a_row_that_is_replaced_by_its_older_version_under_the_daemon_is_no_answer() {
    let scene = Scene::set();
    let new = std::fs::read(&scene.file).expect("a file");
    let row = leaves(&new, 2).remove(0);
    let key = |bytes: &[u8], row: &Range<usize>| bytes[row.start - KEY..row.start].to_vec();
    let was = rows_of(scene.old(), 1)
        .into_iter()
        .find(|was| key(scene.old(), was) == key(&new, &row));
    let was = was.expect("the version before");
    write_in_place(&scene.file, &scene.old()[was], row.start);
    scene.only_main_is_lost();
}

#[test]
fn two_rows_that_are_swapped_under_the_daemon_are_no_answer() {
    let scene = Scene::set();
    let bytes = std::fs::read(&scene.file).expect("a file");
    let rows = leaves(&bytes, 1);
    let one = &rows[0];
    let other = rows[1..].iter().find(|other| other.len() == one.len());
    let other = other.expect("a row of the same length");
    write_in_place(&scene.file, &bytes[other.clone()], one.start);
    write_in_place(&scene.file, &bytes[one.clone()], other.start);
    scene.only_main_is_lost();
}

#[test]
fn a_row_that_is_taken_out_under_the_daemon_is_missed() {
    let scene = Scene::set();
    let mut bytes = std::fs::read(&scene.file).expect("a file");
    let start = leaves(&bytes, 1)[0].start / PAGE * PAGE;
    let page = &mut bytes[start..start + PAGE];
    let cells = number(page, CELLS);
    assert!(cells > 1, "the page of one row");
    page[CELLS..CELLS + 2].copy_from_slice(&(cells as u16 - 1).to_be_bytes());
    write_in_place(&scene.file, page, start);
    scene.only_main_is_lost();
}

#[test]
fn a_vault_file_that_is_put_back_whole_under_the_daemon_is_no_answer() {
    let scene = Scene::set();
    write_in_place(&scene.file, scene.old(), 0);
    scene.only_main_is_lost();
}

#[test]
fn a_control_db_that_is_put_back_whole_under_the_daemon_takes_no_policy_back() {
    let mut scene = Scene::set();
    let site = &mut scene.site;
    write_in_place(&control_of(site), &scene.control, 0);
    // Whatever of it is read, it is what was written or nothing.
    let (_, answer) = site.admin("GET", "/v1/principals", None);
    assert!(
        answer["data"].is_null() || answer.to_string().contains("ada"),
        "{answer}"
    );
    site.kill_and_restart();
    site.give(&site.share(1));
    let opened = site.give(&site.share(2));
    let quarantined = &opened["share"]["opened"]["quarantined"];
    assert!(
        opened["error"].is_object() || quarantined == &json!(["main"]),
        "{opened}"
    );
    let mut ada = site.client("ada");
    let answer = ada.call("echo", "get", &json!({ "item": "x" }));
    assert_ne!(answer["isError"], false, "{answer}");
}
