//! Whole classes of changes to a small store's files, as a crash left them: every two rows swapped, every file put
//! back, a log cut. What comes of each is found, or the content is that of one moment, never a mixture.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::support::{Site, delete, edit, put, read, rows};
use crate::Vaults;
use crate::barrier::{Barrier, Sealed, Unsealed};
use crate::sqlite::Sqlite;
use crate::unseal::{Unseal, UnsealReport};

/// The files of a store at one moment, by their paths in its folder: control.db, the vaults', and their logs.
pub(super) type Image = BTreeMap<PathBuf, Vec<u8>>;
/// Payloads by vault and name.
type Content = BTreeMap<(String, String), String>;

/// What an unseal makes of the files.
enum Outcome {
    /// It fails, or names a vault.
    Found,
    Opens(Content),
}

/// A store that was made of an image and opened.
pub(super) struct Opened {
    barrier: Barrier<Unsealed>,
    pub(super) report: UnsealReport,
}

impl Opened {
    pub(super) fn vaults(&self) -> Vaults {
        self.barrier.handle()
    }

    pub(super) fn close(self, site: &Site) {
        drop(site.seal(self.barrier));
    }
}

pub(super) fn image(folder: &Path) -> Image {
    let mut image = Image::new();
    for folder in [folder.to_owned(), folder.join("vaults")] {
        let entries = fs::read_dir(folder).into_iter().flatten();
        let paths = entries.map(|entry| entry.unwrap().path());
        for path in paths.filter(|path| path.is_file()) {
            image.insert(path, Vec::new());
        }
    }
    let bytes = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        (path.strip_prefix(folder).unwrap().to_owned(), bytes)
    };
    image.into_keys().map(bytes).collect()
}

fn content(vaults: &Vaults) -> Content {
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

/// Makes the files in `folder` those of `image`, and unseals with two shares; none where that fails.
pub(super) fn open(site: &Site, folder: &Path, image: &Image) -> Option<Opened> {
    let vaults = folder.join("vaults");
    for folder in [folder, &vaults].iter().filter(|folder| !folder.exists()) {
        fs::DirBuilder::new().mode(0o700).create(folder).unwrap();
    }
    for path in self::image(folder).into_keys() {
        fs::remove_file(folder.join(path)).unwrap();
    }
    for (path, bytes) in image {
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create_new(true).mode(0o600);
        file.open(folder.join(path))
            .unwrap()
            .write_all(bytes)
            .unwrap();
    }
    let barrier = Barrier::open_on(Arc::new(Sqlite), folder, site.options).ok()?;
    let plan = barrier.unseal_plan().digest();
    let closed = |barrier: Barrier<Sealed>| {
        assert!(barrier.base.store.wait_closed(Duration::from_secs(60)));
        None
    };
    let barrier = match barrier.submit(site.share(0), plan, 0) {
        Unseal::Pending(barrier, _) => barrier,
        Unseal::Rejected(barrier, _) | Unseal::Failed(barrier, _) => return closed(barrier),
        Unseal::Opened(..) => panic!("one share opened the store"),
    };
    match barrier.submit(site.share(2), plan, 0) {
        Unseal::Opened(barrier, report) => Some(Opened { barrier, report }),
        Unseal::Pending(barrier, _) | Unseal::Rejected(barrier, _) | Unseal::Failed(barrier, _) => {
            closed(barrier)
        }
    }
}

/// Makes the site's files those of `image`, and unseals.
fn unseal(site: &Site, image: &Image) -> Outcome {
    let Some(opened) = open(site, &site.path, image) else {
        return Outcome::Found;
    };
    let report = &opened.report;
    let outcome = match report.quarantined.len() + report.last_write_missing.len() {
        0 => Outcome::Opens(content(&opened.vaults())),
        1 => Outcome::Found,
        _ => panic!("{report:?}"),
    };
    opened.close(site);
    outcome
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
        moments.push((image(&site.path), content(&barrier.handle())));
    }
    prod.commit(vec![delete("first")]).unwrap();
    moments.push((image(&site.path), content(&barrier.handle())));
    drop(site.seal(barrier));
    (site, moments)
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
    let sound = image(&site.path);
    let tables = |path: &Path| match path.ends_with("control.db") {
        true => &["config", "head", "ledger", "outbox", "record", "vault"][..],
        false => &["head", "outbox", "record"],
    };
    let mut places = Vec::new();
    for path in sound.keys() {
        for table in tables(path) {
            let rows = rows(&site.path.join(path), table);
            places.extend(
                rows.into_iter()
                    .map(|(key, value)| (path, *table, key, value)),
            );
        }
    }
    let set = |(path, table, key, _): &(&PathBuf, &str, Vec<u8>, Vec<u8>), value: &[u8]| {
        edit(&site.path.join(path), |conn| {
            let change = format!("UPDATE {table} SET value = ?2 WHERE key = ?1");
            assert_eq!(conn.execute(&change, (key, value)).unwrap(), 1);
        });
    };
    let mut pairs = 0;
    for (at, one) in places.iter().enumerate() {
        for other in &places[at + 1..] {
            for (path, bytes) in &sound {
                fs::write(site.path.join(path), bytes).unwrap();
            }
            set(one, &other.3);
            set(other, &one.3);
            pairs += 1;
            match unseal(&site, &image(&site.path)) {
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
