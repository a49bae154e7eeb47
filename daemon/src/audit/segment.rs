//! The files of the audit log: `audit-00000000.jsonl` and on, in one folder.
//!
//! Owns finding the newest segment, checking and mending its end after a crash, and making a new one with its
//! space reserved beforehand, so that a full disk is met here and not in the middle of a call. Promises that what
//! is cut is only an end that no signature covers, and that the cut is recorded. Does not write event lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mcpist_core::audit::{
    Anchor, Chain, Checkpoint, Copied, Fault, Logged, Report, Seq, UnixMs, Verifier, place,
};
use mcpist_core::event::Event;
use mcpist_core::ids::Digest;
use mcpist_sealer::fault;
use nix::fcntl::{FallocateFlags, fallocate};

/// Bytes read at a time while checking.
const SLICE: usize = 256 * 1024;

/// Why the log cannot be opened for writing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// A file operation failed.
    #[error("audit folder {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Lines that a signature covers are missing or changed.
    #[error(
        "the audit log is damaged before its last checkpoint, {problem}; keep the files, run 'mcpist audit verify'"
    )]
    Damaged {
        /// Line and fault.
        problem: String,
    },
    /// The log ends before what the store knows to be signed, or it belongs to another store.
    #[error(
        "the audit log does not hold what the store signed last{signed}: {found}; put every audit-*.jsonl of that folder back that was removed, moved or cut"
    )]
    Behind {
        /// Which line that is, where it was signed.
        signed: String,
        /// What is there, by path.
        found: String,
    },
    /// The store's own audit record is missing or unreadable.
    #[error("the store's audit key cannot be read: {0}")]
    Key(String),
}

/// The newest segment, open for writing, and where the chain stands in it.
pub(crate) struct Segment {
    pub(crate) file: File,
    pub(crate) number: u64,
    /// Offset of the next line.
    pub(crate) end: u64,
    pub(crate) chain: Chain,
    /// Outbox rows that are in the log.
    pub(crate) outbox: Logged,
    /// When its first line was written, in seconds since 1970.
    pub(crate) begun: u64,
    /// Bytes from its beginning that have space on the disk.
    pub(crate) reserved: u64,
}

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError + '_ {
    move |source| OpenError::Io {
        path: path.to_owned(),
        source,
    }
}

pub(super) fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("audit-{number:08}.jsonl"))
}

/// Numbers of the segments in `folder`, ascending.
pub(super) fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|n| n.strip_prefix("audit-"))
            .and_then(|n| n.strip_suffix(".jsonl"))
            .filter(|n| n.len() == 8);
        if let Some(number) = number.and_then(|n| n.parse().ok()) {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// A segment file as it was found.
struct Found {
    path: PathBuf,
    file: File,
    number: u64,
    length: u64,
}

impl Found {
    fn open(folder: &Path, number: u64) -> Result<Self, OpenError> {
        let path = path_of(folder, number);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            // A pipe in its place must not hold up the opening.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(&path)
            .and_then(|file| {
                let found = file.metadata()?;
                if !found.is_file() {
                    return Err(io::Error::other("not a regular file"));
                }
                Ok((found.len(), file))
            });
        let (length, file) = opened.map_err(io_error(&path))?;
        Ok(Self {
            path,
            file,
            number,
            length,
        })
    }

    fn feed(&self, verifier: &mut Verifier) -> Result<bool, OpenError> {
        let mut file = &self.file;
        let mut slice = vec![0; SLICE];
        loop {
            match file.read(&mut slice).map_err(io_error(&self.path))? {
                0 => return Ok(true),
                n if !verifier.feed(&slice[..n]) => return Ok(false),
                _ => {}
            }
        }
    }

    /// Hashes what stands from `at` on.
    fn hash(&self, mut at: u64, into: &mut ring::digest::Context) -> Result<(), OpenError> {
        let mut slice = vec![0; SLICE];
        loop {
            match self
                .file
                .read_at(&mut slice, at)
                .map_err(io_error(&self.path))?
            {
                0 => return Ok(()),
                n => {
                    into.update(&slice[..n]);
                    at += n as u64;
                }
            }
        }
    }
}

/// The segment that the log goes on in, what of it holds, and a later file that goes with what is cut.
struct Examined {
    base: Found,
    good: u64,
    dropped: Option<Found>,
    report: Report,
}

/// Opens the newest segment of `folder`, or begins the log at `genesis` where there is none. `newest` is the last
/// checkpoint that the store has signed. A torn end is cut and recorded; a checkpoint that the file lacks is appended.
///
/// The segment before the newest is read as well: a crash during the turn from one to the other may have cost the end
/// of the older one, and then nothing in the newer one was ever reported as durable. One of the two holds the last line
/// that `newest` signs, since no segment is turned without a checkpoint. Its hash stands for all lines before it; what a
/// segment's first line says proves nothing, since anybody can write one.
pub(crate) fn open(
    folder: &Path,
    genesis: Anchor,
    newest: Option<&Checkpoint>,
    reserve: u64,
    now: UnixMs,
) -> Result<Segment, OpenError> {
    let found = numbers(folder).map_err(io_error(folder))?;
    let Some(&last) = found.last() else {
        if newest.is_some() {
            let found = format!("there is no audit-*.jsonl in {}", folder.display());
            return Err(behind(newest, found));
        }
        return create(folder, Chain::new(genesis), reserve, now);
    };
    let before = last.checked_sub(1);
    if let Some(missing) = before.filter(|n| !found.contains(n)) {
        return Err(OpenError::Damaged {
            problem: Fault::MissingSegment(missing).to_string(),
        });
    }
    let found = || format!("the newest file is {}", path_of(folder, last).display());
    if newest.is_none() && before.is_some_and(|n| n > 0) {
        return Err(behind(newest, found()));
    }
    let examined = examine(folder, genesis, newest, before, last)?;
    let chain = resume(&examined.report, newest)?.ok_or_else(|| behind(newest, found()))?;
    let (report, base) = (&examined.report, &examined.base);
    if report.lines > 0 && report.next_segment != base.number + 1 {
        return Err(OpenError::Damaged {
            problem: format!("{} holds another segment", base.path.display()),
        });
    }
    let mut segment = mend(folder, examined, chain, newest, now)?;
    match reserve_space(&segment.file, reserve) {
        Ok(()) => segment.reserved = reserve,
        Err(e) => log::warn!("audit log: no space reserved for the open segment: {e}"),
    }
    Ok(segment)
}

/// Verifies the newest segment, and the one before it where it is there.
fn examine(
    folder: &Path,
    genesis: Anchor,
    newest: Option<&Checkpoint>,
    before: Option<u64>,
    last: u64,
) -> Result<Examined, OpenError> {
    // The first segment is checked from the store's own genesis, a later one from what its first line says; the caller
    // holds the outcome against the store's newest checkpoint.
    let mut verifier = if before.unwrap_or(last) == 0 {
        Verifier::new(genesis.key)
    } else {
        Verifier::resume()
    };
    if let Some(checkpoint) = newest {
        verifier = verifier.expecting(checkpoint.statement().head);
    }
    let last = Found::open(folder, last)?;
    let Some(before) = before else {
        last.feed(&mut verifier)?;
        let report = verifier.finish();
        let good = report.good_bytes;
        return Ok(Examined {
            base: last,
            good,
            dropped: None,
            report,
        });
    };
    let before = Found::open(folder, before)?;
    let whole = before.feed(&mut verifier)? && verifier.next_file();
    if whole {
        last.feed(&mut verifier)?;
    }
    let report = verifier.finish();
    let good = report.good_bytes;
    let (base, good, dropped) = match (whole, good) {
        (true, 0) => {
            let length = before.length;
            (before, length, Some(last))
        }
        (true, good) => (last, good, None),
        (false, good) => (before, good, Some(last)),
    };
    Ok(Examined {
        base,
        good,
        dropped,
        report,
    })
}

/// Cuts what does not hold, records the cut, and appends the checkpoint that the file lacks. The record is on disk
/// before anything is cut: a crash in between leaves bytes behind it, and the next opening records those.
fn mend(
    folder: &Path,
    examined: Examined,
    mut chain: Chain,
    newest: Option<&Checkpoint>,
    now: UnixMs,
) -> Result<Segment, OpenError> {
    let Examined {
        base,
        good,
        dropped,
        report,
    } = examined;
    let failed = || io_error(&base.path);
    let mut lines = Vec::new();
    if chain.anchor().seq == 0 {
        chain.append_segment(now, base.number, &Copied::new(), &mut lines);
    }
    let cut = base.length - good + dropped.as_ref().map_or(0, |d| d.length);
    if cut > 0 {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        base.hash(good, &mut hash)?;
        if let Some(dropped) = &dropped {
            dropped.hash(0, &mut hash)?;
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        let event = Event::Recovered {
            length: cut,
            digest: &Digest::from_bytes(digest),
        };
        chain.append(now, &event, &mut lines);
    }
    if let Some(checkpoint) = newest
        && checkpoint.statement().number == chain.anchor().checkpoint + 1
    {
        chain.append_checkpoint(checkpoint, &mut lines);
    }
    let end = good + lines.len() as u64;
    fault::point("audit.mend")
        .and_then(|()| base.file.write_all_at(&lines, good))
        .map_err(failed())?;
    base.file.sync_all().map_err(failed())?;
    if base.length > end {
        fault::point("audit.cut")
            .and_then(|()| base.file.set_len(end))
            .map_err(failed())?;
        base.file.sync_all().map_err(failed())?;
    }
    if let Some(dropped) = &dropped {
        fault::point("audit.drop")
            .and_then(|()| std::fs::remove_file(&dropped.path))
            .map_err(io_error(&dropped.path))?;
        sync_folder(folder)?;
    }
    Ok(Segment {
        begun: first_place(&base.file).map_or(now.0 / 1_000, |(_, time)| time),
        file: base.file,
        number: base.number,
        end,
        chain,
        outbox: report.outbox,
        reserved: 0,
    })
}

fn behind(newest: Option<&Checkpoint>, found: String) -> OpenError {
    let signed = newest.map(|c| format!(", to line {}", c.statement().count));
    OpenError::Behind {
        signed: signed.unwrap_or_default(),
        found,
    }
}

/// Decides whether the log may go on where the verifier stopped; nothing where it is behind the store.
fn resume(report: &Report, newest: Option<&Checkpoint>) -> Result<Option<Chain>, OpenError> {
    let signed = newest.map(Checkpoint::statement);
    // The last line that was signed is there, in its place.
    let holds = signed.is_none_or(|s| report.expected_at == Some(s.count));
    if let Some(problem) = &report.problem
        && problem.fault != Fault::Truncated
    {
        // Whatever no checkpoint covers may be torn by a crash, in any shape.
        let crash = !matches!(
            problem.fault,
            Fault::Checkpoint | Fault::Head | Fault::Signature
        );
        if !crash || !holds {
            return Err(OpenError::Damaged {
                problem: problem.to_string(),
            });
        }
    }
    let anchor = report.anchor;
    let known = match newest {
        None => anchor.checkpoint == 0,
        Some(c) if c.statement().number == anchor.checkpoint => {
            c.digest() == anchor.checkpoint_digest
        }
        // Signed and stored, but the crash came before its line was written.
        Some(c) => {
            c.statement().number == anchor.checkpoint + 1
                && c.statement().previous == anchor.checkpoint_digest
        }
    };
    Ok((known && holds).then(|| Chain::new(anchor)))
}

/// Makes the first segment with `reserve` bytes allocated and writes its first line.
fn create(
    folder: &Path,
    mut chain: Chain,
    reserve: u64,
    now: UnixMs,
) -> Result<Segment, OpenError> {
    let path = path_of(folder, 0);
    let file = new_file(OpenOptions::new().create_new(true), &path, reserve)?;
    let mut line = Vec::new();
    chain.append_segment(now, 0, &Copied::new(), &mut line);
    fault::point("audit.begin")
        .and_then(|()| file.write_all_at(&line, 0))
        .map_err(io_error(&path))?;
    file.sync_all().map_err(io_error(&path))?;
    sync_folder(folder)?;
    Ok(Segment {
        file,
        number: 0,
        end: line.len() as u64,
        chain,
        outbox: Logged::default(),
        begun: now.0 / 1_000,
        reserved: reserve,
    })
}

/// The sequence and the time of a segment's first line; none where it has no line yet.
pub(super) fn first_place(file: &File) -> Option<(Seq, u64)> {
    let mut line = [0; 64];
    let read = file.read_at(&mut line, 0).ok()?;
    place(&line[..read])
}

/// Makes an empty file with `reserve` bytes allocated, or none.
pub(super) fn new_file(
    how: &mut OpenOptions,
    path: &Path,
    reserve: u64,
) -> Result<File, OpenError> {
    fault::point("audit.create").map_err(io_error(path))?;
    let file = how
        .read(true)
        .write(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
        .map_err(io_error(path))?;
    reserve_space(&file, reserve).map_err(|source| {
        let _ = std::fs::remove_file(path);
        OpenError::Io {
            path: path.to_owned(),
            source,
        }
    })?;
    Ok(file)
}

/// Allocates the first `reserve` bytes of a file without making it longer.
pub(super) fn reserve_space(file: &File, reserve: u64) -> io::Result<()> {
    let length = i64::try_from(reserve).unwrap_or(i64::MAX);
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
        // A file system without reservation still has a log; doctor tells.
        Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes names in `folder` durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), OpenError> {
    fault::point("audit.folder")
        .and_then(|()| File::open(folder))
        .and_then(|f| f.sync_all())
        .map_err(io_error(folder))
}
