//! Whole classes of changes to a small store's files, as a crash left them: every byte flipped, every two rows swapped,
//! every file put back. What comes of each is found, or the content is that of one moment, never a mixture.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::support::{Site, delete, edit, put, read, rows};
use crate::barrier::{Barrier, Sealed};
use crate::sqlite::Sqlite;
use crate::unseal::Unseal;

/// Of the bytes of the files, so many are passed over between two that are flipped. One at a time, with `MCPIST_STRIDE=1`,
/// takes hours.
const STRIDE: usize = 1499;

/// The files of a store at one moment: control.db, a vault's, and their logs.
type Image = BTreeMap<PathBuf, Vec<u8>>;
/// Payloads by vault and name.
type Content = BTreeMap<(String, String), String>;

/// What an unseal makes of the files.
enum Outcome {
    /// It fails, or names a vault.
    Found,
    Opens(Content),
}

fn image(site: &Site) -> Image {
    let mut image = Image::new();
    for folder in [site.path.clone(), site.path.join("vaults")] {
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        for path in entries.filter(|path| path.is_file()) {
            let bytes = fs::read(&path).unwrap();
            image.insert(path, bytes);
        }
    }
    image
}

fn content(vaults: &crate::Vaults) -> Content {
    let mut content = Content::new();
    for name in ["system", "prod"] {
        let vault = match name {
            "system" => vaults.system(),
            name => vaults.vault(name).unwrap(),
        };
        for listed in vault.list(None).unwrap() {
            let payload = read(&vault, &listed.name).unwrap();
            content.insert((name.to_owned(), listed.name), payload);
        }
    }
    content
}

/// Makes the files those of `image`, and unseals.
fn unseal(site: &Site, image: &Image) -> Outcome {
    for path in self::image(site).into_keys() {
        fs::remove_file(path).unwrap();
    }
    for (path, bytes) in image {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create_new(true).mode(0o600).open(path);
        file.unwrap().write_all(bytes).unwrap();
    }
    let Ok(barrier) = Barrier::open_on(Arc::new(Sqlite), &site.path, site.options) else {
        return Outcome::Found;
    };
    let plan = barrier.unseal_plan().digest();
    let closed = |barrier: Barrier<Sealed>| {
        assert!(barrier.base.store.wait_closed(Duration::from_secs(60)));
        Outcome::Found
    };
    let barrier = match barrier.submit(site.share(0), plan, 0) {
        Unseal::Pending(barrier, _) => barrier,
        Unseal::Rejected(barrier, _) | Unseal::Failed(barrier, _) => return closed(barrier),
        Unseal::Opened(..) => panic!("one share opened the store"),
    };
    match barrier.submit(site.share(2), plan, 0) {
        Unseal::Opened(barrier, report) => {
            let outcome = if report.quarantined.is_empty() && report.last_write_missing.is_empty() {
                Outcome::Opens(content(&barrier.handle()))
            } else {
                assert_eq!(
                    report.quarantined.len() + report.last_write_missing.len(),
                    1
                );
                Outcome::Found
            };
            drop(site.seal(barrier));
            outcome
        }
        Unseal::Pending(barrier, _) | Unseal::Rejected(barrier, _) | Unseal::Failed(barrier, _) => {
            closed(barrier)
        }
    }
}

/// A store with one vault, and its files and content after each of some writes; the newest last. The last write of each
/// is the vault's.
fn history() -> (Site, Vec<(Image, Content)>) {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.create_vault("prod", None).unwrap();
    let (system, prod) = (barrier.system(), barrier.vault("prod").unwrap());
    let mut moments = Vec::new();
    for (policy, secret) in [("one", "first"), ("two", "second"), ("three", "third")] {
        system.commit(vec![put("grant", policy)]).unwrap();
        prod.commit(vec![put("git", secret), put(secret, secret)])
            .unwrap();
        moments.push((image(&site), content(&barrier.handle())));
    }
    prod.commit(vec![delete("first")]).unwrap();
    moments.push((image(&site), content(&barrier.handle())));
    drop(site.seal(barrier));
    (site, moments)
}

#[test]
fn every_flipped_byte_is_found_or_changes_nothing() {
    let (site, moments) = history();
    let stride = std::env::var("MCPIST_STRIDE").ok();
    let stride = stride.map_or(STRIDE, |stride| stride.parse().unwrap());
    // Before the last one, whose logs are empty.
    let (image, right) = &moments[2];
    let (mut flipped, mut found) = (0, 0);
    for (path, bytes) in image {
        // Another place of each page in each file.
        for at in (path.as_os_str().len() % 7..bytes.len()).step_by(stride) {
            let mut image = image.clone();
            image.get_mut(path).unwrap()[at] ^= 1 << (at % 8);
            flipped += 1;
            match unseal(&site, &image) {
                Outcome::Found => found += 1,
                Outcome::Opens(content) => {
                    assert_eq!(content, *right, "{} at {at}", path.display());
                }
            }
        }
    }
    assert!(
        flipped > 50 && found > 10,
        "{found} of {flipped} were found"
    );
}

#[test]
fn a_log_that_is_cut_anywhere_is_found_or_is_that_of_a_moment() {
    let (site, moments) = history();
    let (image, _) = &moments[2];
    for (path, bytes) in image.iter().filter(|(path, _)| is_log(path)) {
        for length in (0..bytes.len()).step_by(2060) {
            let mut image = image.clone();
            image.get_mut(path).unwrap().truncate(length);
            if let Outcome::Opens(content) = unseal(&site, &image) {
                let known = moments.iter().any(|(_, moment)| *moment == content);
                assert!(known, "{} cut at {length}: {content:?}", path.display());
            }
        }
    }
}

fn is_log(path: &Path) -> bool {
    path.to_string_lossy().ends_with("-wal")
}

#[test]
fn every_file_put_back_is_found_or_all_of_it_is_that_of_a_moment() {
    let (site, moments) = history();
    let files: Vec<&PathBuf> = moments[0].0.keys().collect();
    assert_eq!(files.len(), 4, "{files:?}");
    let mut found = 0;
    for choice in 0..moments.len().pow(4) {
        let of =
            |file: usize| choice / moments.len().pow(u32::try_from(file).unwrap()) % moments.len();
        let mut image = Image::new();
        for (number, file) in files.iter().enumerate() {
            image.insert((*file).clone(), moments[of(number)].0[*file].clone());
        }
        match unseal(&site, &image) {
            Outcome::Found => found += 1,
            Outcome::Opens(content) => {
                let known = moments.iter().any(|(_, moment)| *moment == content);
                assert!(known, "{:?}: {content:?}", [of(0), of(1), of(2), of(3)]);
            }
        }
    }
    assert!(found > 20, "{found}");
}

#[test]
fn every_two_rows_swapped_are_found() {
    let (site, moments) = history();
    // Closed: each database is one file.
    let Outcome::Opens(right) = unseal(&site, &moments[3].0) else {
        panic!("a sound store opens");
    };
    let sound = image(&site);
    let tables = |path: &Path| match path.ends_with("control.db") {
        true => &["config", "head", "ledger", "outbox", "record", "vault"][..],
        false => &["head", "outbox", "record"],
    };
    let mut places = Vec::new();
    for path in sound.keys() {
        for table in tables(path) {
            let rows = rows(path, table);
            places.extend(
                rows.into_iter()
                    .map(|(key, value)| (path, *table, key, value)),
            );
        }
    }
    let set = |(path, table, key, _): &(&PathBuf, &str, Vec<u8>, Vec<u8>), value: &[u8]| {
        edit(path, |conn| {
            let change = format!("UPDATE {table} SET value = ?2 WHERE key = ?1");
            assert_eq!(conn.execute(&change, (key, value)).unwrap(), 1);
        });
    };
    let mut pairs = 0;
    for (at, one) in places.iter().enumerate() {
        for other in &places[at + 1..] {
            for (path, bytes) in &sound {
                fs::write(path, bytes).unwrap();
            }
            set(one, &other.3);
            set(other, &one.3);
            pairs += 1;
            match unseal(&site, &image(&site)) {
                Outcome::Found => {}
                Outcome::Opens(content) => {
                    assert!(
                        one.3 == other.3 && content == right,
                        "{one:?} and {other:?}"
                    );
                }
            }
        }
    }
    assert!(pairs > 30, "{pairs}");
}
