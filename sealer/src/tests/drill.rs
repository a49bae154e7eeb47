//! Drills of a restore, and what restores and drills leave behind that are cut off.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::backup::{Files, back_up, unseal_at};
use super::support::{Site, put, read};
use crate::aside::{aside, drilled, is_kept_aside, mark, remove_aside, tidy};
use crate::backup::StoredBackup;
use crate::batch::Op;
use crate::error::VaultError;
use crate::restore::{RestoreFiles, RestoredSystem, drill, restore};
use crate::{Barrier, Sealed};

/// A sealed store with a backup that is older than it.
fn site() -> (Site, Barrier<Sealed>, StoredBackup) {
    let site = Site::new();
    let (barrier, _) = site.unseal();
    barrier.system().commit(vec![put("note", "old")]).unwrap();
    barrier.create_vault("main", None).unwrap();
    let vault = barrier.vault("main").unwrap();
    vault.commit(vec![put("a", "1"), put("b", "2")]).unwrap();
    let stored = back_up(&site, &barrier, "backup");
    barrier.system().commit(vec![put("note", "newer")]).unwrap();
    let sealed = site.seal(barrier);
    (site, sealed, stored)
}

/// Every file below a folder, with its bytes, and every folder.
fn all_below(folder: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_below(&path, found);
            found.insert(path, None);
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, Some(bytes));
        }
    }
}

fn host(site: &Site) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    all_below(site.path.parent().unwrap(), &mut found);
    found
}

/// Writes into the folder that is being built, and may fail at the last moment.
struct Watched<'a> {
    files: Files,
    folder: PathBuf,
    before: &'a BTreeMap<PathBuf, Option<Vec<u8>>>,
    fails: bool,
}

impl RestoreFiles for Watched<'_> {
    fn begin(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.files.begin(name, length)
    }

    fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.files.piece(bytes)
    }

    fn end(&mut self) -> io::Result<()> {
        self.files.end()
    }

    fn lives(&mut self, system: &mut RestoredSystem<'_>) -> Result<Vec<u64>, VaultError> {
        self.files.lives(system)
    }

    fn records(&mut self, system: &mut RestoredSystem<'_>) -> Result<Vec<Op>, VaultError> {
        fs::write(self.folder.join("of-the-daemon"), b"here").unwrap();
        let mut now = BTreeMap::new();
        all_below(self.folder.parent().unwrap(), &mut now);
        now.retain(|path, _| !path.starts_with(&self.folder));
        assert_eq!(&now, self.before, "only its own folder is written");
        if self.fails {
            return Err(VaultError::Full("a test".to_owned()));
        }
        self.files.records(system)
    }
}

#[test]
fn a_drill_opens_all_that_a_restore_would_and_leaves_nothing() {
    let (site, sealed, stored) = site();
    let kek = site.foundation.kek();
    // One that was cut off, and a store of an earlier restore.
    fs::create_dir_all(drilled(&site.path).join("vaults")).unwrap();
    fs::write(drilled(&site.path).join("control.db"), b"half").unwrap();
    fs::create_dir(aside(&site.path)).unwrap();
    fs::write(aside(&site.path).join("control.db"), b"kept").unwrap();
    let mut before = host(&site);
    before.retain(|path, _| !path.starts_with(drilled(&site.path)));
    for fails in [true, false] {
        let mut files = Watched {
            files: Files::default(),
            folder: drilled(&site.path),
            before: &before,
            fails,
        };
        let found = drill(&stored, kek, &site.path, &mut files);
        assert_eq!(found.is_err(), fails, "{found:?}");
        assert!(host(&site) == before, "nothing is left of it");
        if let Ok(found) = found {
            // The record that names the vault is one.
            assert_eq!((found.vaults, found.records), (2, 4));
            assert!(!found.is_kept && found.unsettled.is_none());
            assert_eq!(files.files.seen.as_deref(), Some("old"));
        }
    }
    let (barrier, _) = site.unseal_from(sealed);
    assert_eq!(read(&barrier.system(), "note").unwrap(), "newer");
}

#[test]
fn a_drill_refuses_what_a_restore_refuses() {
    let (site, _sealed, stored) = site();
    let other = Site::new();
    let found = drill(
        &stored,
        other.foundation.kek(),
        &site.path,
        &mut Files::default(),
    );
    assert!(found.is_err() && !drilled(&site.path).exists());
}

#[test]
fn a_new_store_that_did_not_come_into_its_place_is_not_the_old_one() {
    let (site, sealed, stored) = site();
    let (kek, elsewhere) = (site.foundation.kek(), site.path.with_file_name("elsewhere"));
    // Whole, and cut off right before the exchange.
    restore(&stored, kek, &elsewhere, &mut Files::default()).unwrap();
    fs::rename(&elsewhere, aside(&site.path)).unwrap();
    assert!(is_kept_aside(&site.path).unwrap(), "without its mark");
    mark(&aside(&site.path)).unwrap();
    assert!(!is_kept_aside(&site.path).unwrap());
    assert!(!remove_aside(&site.path).unwrap());
    fs::create_dir(drilled(&site.path)).unwrap();
    tidy(&site.path).unwrap();
    assert!(!aside(&site.path).exists() && !drilled(&site.path).exists());
    tidy(&site.path).unwrap();
    let (barrier, _) = site.unseal_from(sealed);
    assert_eq!(read(&barrier.system(), "note").unwrap(), "newer");
}

#[test]
fn a_store_whose_mark_a_crash_left_is_kept_by_the_next_restore() {
    let (site, sealed, stored) = site();
    drop(sealed);
    let kek = site.foundation.kek();
    for tidied in [false, true] {
        // Cut off right after the exchange.
        mark(&site.path).unwrap();
        if tidied {
            tidy(&site.path).unwrap();
        }
        let restored = restore(&stored, kek, &site.path, &mut Files::default()).unwrap();
        assert!(restored.is_kept && restored.unsettled.is_none());
        assert!(is_kept_aside(&site.path).unwrap());
        tidy(&site.path).unwrap();
        let (kept, _) = unseal_at(&site, &aside(&site.path));
        let is = if tidied { "old" } else { "newer" };
        assert_eq!(read(&kept.system(), "note").unwrap(), is);
        drop(site.seal(kept));
        assert!(remove_aside(&site.path).unwrap());
    }
}
