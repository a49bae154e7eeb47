//! Every byte of a small store's files flipped, one at a time: what comes of each is found and costs what it stands in, or
//! the content is what was written, and goes on being it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

use super::attacks::{Image, Opened, image, open};
use super::support::{Site, delete, edit, put, read};
use crate::batch::Op;
use crate::error::{Health, VaultError};
use crate::vault::OpenVault;
use crate::vaults::Vaults;

/// Of the bytes, so many are passed over between two that are flipped. `tests/faults/run --flips` flips each.
const STRIDE: usize = 97;
/// As many as cores are counted with.
const THREADS: usize = 2;
/// Where a database has the number of its schema.
const VERSION: Range<usize> = 60..64;
const VAULTS: [&str; 3] = ["system", "prod", "spare"];

/// All that a vault shows: each record with its payload, and the lines of its outbox.
type Content = Vec<String>;

/// What an unseal shows, by vault; the vaults that it names as not what they were have none.
type Shown = BTreeMap<&'static str, Option<Content>>;

fn content(vaults: &Vaults, name: &str) -> Result<Content, VaultError> {
    let vault = match name {
        "system" => vaults.system(),
        name => vaults.vault(name)?,
    };
    let mut shown = Vec::new();
    for listed in vault.list(None)? {
        shown.push(format!("{listed:?} {:?}", read(&vault, &listed.name)?));
    }
    shown.push(format!("{:?}", vault.outbox()?));
    Ok(shown)
}

fn shown(opened: &Opened) -> Shown {
    let report = &opened.report;
    let faulty = report.quarantined.iter().map(|(name, _)| name);
    let faulty = faulty.chain(&report.last_write_missing);
    let faulty: Vec<&String> = faulty.chain(&report.unavailable).collect();
    assert!(faulty.len() < 2, "{report:?}");
    let of = |name| match faulty.iter().any(|faulty| *faulty == name) {
        true => (name, None),
        false => (name, Some(content(&opened.vaults(), name).unwrap())),
    };
    VAULTS.map(of).into()
}

fn is_quarantined(vault: &OpenVault) -> bool {
    matches!(vault.health(), Health::Quarantined(_))
}

/// A file that was read in part only shows its damage where it is written: what is written is there then, beside what was,
/// or the vault says what it is.
fn goes_on(opened: &Opened, right: &Shown) {
    let vaults = opened.vaults();
    for name in VAULTS {
        let vault = match name {
            "system" => vaults.system(),
            name => vaults.vault(name).unwrap(),
        };
        let written = vault.commit(vec![put("later", "later")]);
        let content = written.and_then(|_| content(&vaults, name));
        match content {
            Ok(mut content) => {
                content.retain(|line| !line.contains("later"));
                assert_eq!(Some(&content), right[name].as_ref(), "{name}");
            }
            Err(VaultError::Quarantined(_) | VaultError::Storage(_)) => {}
            // Nothing can be announced to a control.db that fails.
            Err(VaultError::Sealed) if is_quarantined(&vaults.system()) => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

/// A store, the images that are damaged, and what they show while they are not.
struct Scene {
    site: Site,
    /// As a crash leaves it, with logs, and as it is once it was closed.
    images: [Image; 2],
    /// Whose each file is.
    files: BTreeMap<PathBuf, &'static str>,
    right: Shown,
}

impl Scene {
    /// Three vaults of a few records, in files of small pages.
    fn set() -> Scene {
        let mut site = Site::new();
        site.options.threads = 1;
        let (barrier, _) = site.unseal();
        let mut files = BTreeMap::from([(PathBuf::from("control.db"), "system")]);
        for name in ["prod", "spare"] {
            barrier.create_vault(name, None).unwrap();
            let vault = barrier.vault(name).unwrap();
            vault.commit(vec![put("git", "first")]).unwrap();
            let file = site.file(&vault);
            files.insert(file.strip_prefix(&site.path).unwrap().to_owned(), name);
        }
        barrier.settle().unwrap();
        let sealed = site.seal(barrier);
        for file in files.keys() {
            let small = "PRAGMA journal_mode = DELETE; PRAGMA page_size = 512; VACUUM";
            edit(&site.path.join(file), |conn| {
                conn.execute_batch(small).unwrap()
            });
        }
        let (barrier, _) = site.unseal_from(sealed);
        let (system, prod) = (barrier.system(), barrier.vault("prod").unwrap());
        system.commit(vec![put("grant", "policy")]).unwrap();
        prod.commit(vec![put("git", "second"), put("ci", "steady")])
            .unwrap();
        prod.commit(vec![delete("ci"), Op::Outbox(b"line".to_vec())])
            .unwrap();
        let crashed = image(&site.path);
        let right = VAULTS.map(|name| (name, content(&barrier.handle(), name).ok()));
        drop(site.seal(barrier));
        let closed = image(&site.path);
        Scene {
            site,
            images: [crashed, closed],
            files,
            right: right.into(),
        }
    }

    /// Flips a bit of one byte, and unseals in `folder`; whether that was found.
    fn flip(&self, folder: &Path, image: &Image, file: &Path, at: usize) -> bool {
        let mut image = image.clone();
        image.get_mut(file).unwrap()[at] ^= 1 << (at % 8);
        let name = file.to_string_lossy();
        let whose = self.files[Path::new(name.trim_end_matches("-wal"))];
        let Some(opened) = open(&self.site, folder, &image) else {
            assert_eq!(whose, "system", "a vault's file keeps the store closed");
            return true;
        };
        // Of a file that another release has written nothing is known.
        let is_newer = *opened.report.unavailable == [whose] && VERSION.contains(&at);
        assert!(opened.report.unavailable.is_empty() || is_newer);
        let shown = shown(&opened);
        let faulty = shown.values().any(Option::is_none);
        if !faulty {
            assert_eq!(shown, self.right);
            goes_on(&opened, &self.right);
        }
        for (name, shown) in &shown {
            // A log of control.db that ends early is an older control.db, which a vault shows that is newer.
            let older = faulty && whose == "system" && *name == whose;
            let is_lost = shown.is_none() && (whose == *name || whose == "system");
            let holds = shown == &self.right[name] || older || is_lost;
            assert!(holds, "{name}: {shown:?}");
        }
        opened.close(&self.site);
        faulty
    }
}

#[test]
fn every_flipped_byte_is_found_or_changes_nothing() {
    let scene = Scene::set();
    let stride = std::env::var("MCPIST_STRIDE").ok();
    let stride = stride.map_or(STRIDE, |stride| stride.parse().unwrap());
    let mut places = Vec::new();
    for image in &scene.images {
        for (file, bytes) in image {
            let each = (places.len() % stride..bytes.len()).step_by(stride);
            places.extend(each.map(|at| (image, file, at)));
        }
    }
    let (next, found) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let folder = TempDir::new().unwrap();
        let store = folder.path().join("store");
        while let Some((image, file, at)) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
            let flip = AssertUnwindSafe(|| scene.flip(&store, image, file, *at));
            let is_found = catch_unwind(flip);
            let is_found = is_found.unwrap_or_else(|_| panic!("{} at {at}", file.display()));
            found.fetch_add(usize::from(is_found), Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    let (flipped, found) = (places.len(), found.into_inner());
    println!("{flipped} bytes flipped: {found} found, the others change nothing that is shown");
    assert!(flipped > 300 && found * 3 > flipped, "{found} of {flipped}");
}
