//! Which life of a store a folder holds, as far as that can be seen without its keys.
//!
//! Owns the file `life`, which a restore writes into the folder that it builds and which moves with it: the life's id, a space
//! and its number, 34 bytes and more. It names the folder of the life's audit log, and tells the next restore above which
//! number to begin. Nobody signs it: a folder that names no life is of the first, a wrong id leads to a log that does not fit the
//! store, and a wrong number costs numbers ([`mcpist_quorum::Incarnation::after`] takes no leap).

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mcpist_quorum::Incarnation;

/// Bytes of the file at most.
const LONGEST: u64 = 32 + 1 + 20;

/// The life of the store in a folder, where a restore began it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    id: String,
    counter: u64,
}

impl Life {
    pub(crate) fn of(incarnation: &Incarnation) -> Life {
        Life {
            id: hex::encode(incarnation.id),
            counter: incarnation.counter,
        }
    }

    /// The life that the folder `store` names.
    pub(crate) fn read(store: &Path) -> Option<Life> {
        let mut text = String::new();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(file(store))
            .ok()?;
        file.take(LONGEST + 1).read_to_string(&mut text).ok()?;
        Life::parse(&text)
    }

    fn parse(text: &str) -> Option<Life> {
        let (id, counter) = text.split_once(' ')?;
        let life = Life {
            id: id.to_owned(),
            counter: counter.parse().ok()?,
        };
        let is_id = id.len() == 32 && id.bytes().all(|b| b"0123456789abcdef".contains(&b));
        (is_id && life.text() == text).then_some(life)
    }

    /// Writes it into a folder that names none, and onto the disk.
    pub(crate) fn write(&self, store: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file(store))?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()
    }

    fn text(&self) -> String {
        format!("{} {}", self.id, self.counter)
    }

    /// The name of its audit log's folder.
    pub(crate) fn audit(&self) -> String {
        format!("audit-{}", self.id)
    }
}

/// The number of the life in the folder `store`, and the first where it names none.
pub(crate) fn number(store: &Path) -> u64 {
    Life::read(store).map_or(1, |life| life.counter)
}

fn file(store: &Path) -> PathBuf {
    store.join("life")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_read_as_it_was_written_and_once() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(number(store.path()), 1);
        let life = Life::of(&Incarnation {
            counter: u64::MAX,
            id: [0xab; 16],
            parent: [0; 16],
        });
        life.write(store.path()).unwrap();
        assert_eq!(Life::read(store.path()), Some(life.clone()));
        assert_eq!(number(store.path()), u64::MAX);
        assert_eq!(life.audit(), format!("audit-{}", "ab".repeat(16)));
        life.write(store.path()).unwrap_err();
    }

    #[test]
    fn what_names_no_life_is_none() {
        let id = "ab".repeat(16);
        assert!(Life::parse(&format!("{id} 2")).is_some());
        for text in [
            String::new(),
            id.clone(),
            format!("{id} 2\n"),
            format!("{id} 02"),
            format!("{id} +2"),
            format!("{id} 18446744073709551616"),
            format!("{id}  2"),
            format!("{} 2", id.to_uppercase()),
            "../../../../../../../../etc/abc 2".to_owned(),
        ] {
            assert_eq!(Life::parse(&text), None, "{text:?}");
        }
    }
}
