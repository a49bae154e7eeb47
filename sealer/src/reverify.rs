//! A running vault, verified once more against what is in memory.
//!
//! Owns [`Vaults::verify`]. The file is read in slices, each one job of the vault's lane, so that a read waits for one slice.
//! A slice is judged within its job: its rows must be those that the index has between its first name and its last, no
//! more and no fewer, so that what is written between two slices needs no accounting. Every row is opened, since the index
//! keeps of a record what its key is committed to and its tag, and not what it says.
//!
//! Promises that what was found is counted to the end, and quarantines the vault then as at any load; until then no bad row
//! was an answer, since every load is compared by itself. Does not read the wrapped keys of control.db: an unseal opens
//! those, and the root key's wrap opens for a quorum alone.

use mcpist_quorum::{NameHmac, OpenRoom, RecordError};

use crate::disk::{Disk, Role, Unlike, checked, tampered};
use crate::error::VaultError;
use crate::ids::VaultName;
use crate::record::{RowError, name_from_key, open_outbox};
use crate::rows::{Access, Table, for_each_slice};
use crate::vault::OpenVault;
use crate::vaults::Vaults;

/// Records that one job reads and opens.
const SLICE: usize = 256;

/// What a verification read, all of it good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Records, each opened.
    pub records: u64,
    /// Lines that stand in the outbox.
    pub lines: u64,
}

/// What is wrong with rows of records.
#[derive(Default)]
struct Bad {
    /// Opens under no key of its place.
    damaged: u64,
    /// Another version than was written.
    replaced: u64,
    /// Nobody wrote one of that name.
    added: u64,
    missing: u64,
}

/// What one job found.
struct Slice {
    rows: u64,
    last: Option<NameHmac>,
    bad: Bad,
}

impl Bad {
    fn take(&mut self, other: &Bad) {
        self.damaged += other.damaged;
        self.replaced += other.replaced;
        self.added += other.added;
        self.missing += other.missing;
    }

    /// What to say of it, if there is anything.
    fn told(&self) -> Option<String> {
        let kinds = [
            (self.damaged, "damaged"),
            (self.replaced, "replaced"),
            (self.added, "added"),
            (self.missing, "missing"),
        ];
        let told: Vec<_> = kinds
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!told.is_empty()).then(|| format!("of its records, {}", told.join(", ")))
    }
}

impl Vaults {
    /// The vault `name`, the system vault too.
    fn any(&self, name: &str) -> Result<OpenVault, VaultError> {
        if name == VaultName::SYSTEM {
            return Ok(self.system());
        }
        self.vault(name)
    }

    /// Reads the vault `name` whole, `system` too, opens every record and outbox line, and compares all with what is in
    /// memory. The vault serves meanwhile. `progress` hears how many records were read. Takes as long as the disk does.
    ///
    /// # Errors
    /// [`VaultError::Quarantined`] where the file shows anything else than was written, which quarantines the vault; it
    /// is sealed, unavailable or quarantined; [`VaultError::Rotated`] where it was rebuilt meanwhile.
    pub fn verify(
        &self,
        name: &str,
        mut progress: impl FnMut(u64),
    ) -> Result<Verified, VaultError> {
        let vault = self.any(name)?;
        let (mut records, mut bad, mut after) = (0, Bad::default(), None);
        loop {
            let slice = vault.run(move |disk| disk.judge_slice(after))?;
            records += slice.rows;
            bad.take(&slice.bad);
            progress(records);
            if slice.last.is_none() {
                break;
            }
            after = slice.last;
        }
        let lines = vault.run(Disk::judge_rest)?;
        match bad.told() {
            Some(told) => vault.faulty(VaultError::Quarantined(told)),
            None => Ok(Verified { records, lines }),
        }
    }
}

impl Disk {
    /// Judges the records after `after`, as many as one job reads.
    fn judge_slice(&mut self, after: Option<NameHmac>) -> Result<Slice, VaultError> {
        self.ready()?;
        let from = after.as_ref().map(|name| name.as_bytes().as_slice());
        let rows = self
            .rows
            .begin(Access::Read)?
            .scan(Table::Record, from, SLICE)?;
        let last = rows.last().map(|(key, _)| name_from_key(key)).transpose()?;
        let mut bad = Bad::default();
        let mut room = OpenRoom::new()?;
        let mut known = 0;
        for (key, bytes) in &rows {
            let name = name_from_key(key)?;
            let entry = self.buckets.get(&name);
            known += u64::from(entry.is_some());
            let row = match checked(entry, &name, Some(bytes)) {
                Ok(Some(row)) => row,
                Ok(None) | Err(Unlike::Added) => {
                    bad.added += 1;
                    continue;
                }
                Err(Unlike::Replaced) => {
                    bad.replaced += 1;
                    continue;
                }
                Err(Unlike::Damaged(_) | Unlike::Gone) => {
                    bad.damaged += 1;
                    continue;
                }
            };
            let opened = self
                .keys
                .lend(|keys| row.open_in(&mut room, keys, &self.place, &name).map(drop))?;
            match opened {
                Ok(()) => {}
                Err(RowError::Record(RecordError::Memory(error))) => return Err(error.into()),
                Err(_) => bad.damaged += 1,
            }
        }
        let expected = self.buckets.count_between(after.as_ref(), last.as_ref());
        bad.missing = expected.saturating_sub(known);
        Ok(Slice {
            rows: rows.len() as u64,
            last,
            bad,
        })
    }

    /// Judges all that is no record: head, outbox, and control.db's ledger. Answers how many lines stand in the outbox.
    fn judge_rest(&mut self) -> Result<u64, VaultError> {
        self.ready()?;
        let Disk {
            rows,
            keys,
            place,
            head,
            head_row,
            standing,
            role,
            ..
        } = self;
        let mut tx = rows.begin(Access::Read)?;
        if tx.get(Table::Head, b"")?.as_ref() != Some(head_row) {
            return Err(tampered(
                "the file shows another head than the one written last",
            ));
        }
        let mut next = head.outbox_first;
        for_each_slice(tx.as_mut(), Table::Outbox, SLICE, |lines| {
            for (key, sealed) in lines {
                let is_next = key == next.to_be_bytes();
                if !is_next || !standing.holds(next - head.outbox_first, &sealed) {
                    return Err(tampered("an outbox line was replaced or added"));
                }
                keys.lend(|keys| open_outbox(keys, place, next, &sealed))??;
                next += 1;
            }
            Ok(())
        })?;
        if next != head.outbox_next {
            return Err(tampered("an outbox line is missing"));
        }
        if let Role::System { ledger, .. } = role {
            let mut entries = ledger.0.iter();
            for_each_slice(tx.as_mut(), Table::Ledger, SLICE, |rows| {
                for (key, row) in rows {
                    let expected = entries.next();
                    if expected
                        .is_none_or(|(id, entry)| *id.as_bytes() != *key || entry.encode() != row)
                    {
                        return Err(tampered("the ledger of the vaults' heads was changed"));
                    }
                }
                Ok(())
            })?;
            if entries.next().is_some() {
                return Err(tampered("the ledger of the vaults' heads was cut short"));
            }
        }
        Ok(next - head.outbox_first)
    }
}
