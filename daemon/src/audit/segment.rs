//! The files of the audit log: `audit-00000000.jsonl` and on, in one folder.
//!
//! Owns finding the newest segment, checking and mending its end after a crash, and making a new one with its
//! space reserved beforehand, so that a full disk is met here and not in the middle of a call. Promises that what
//! is cut is only an end that no signature covers, and that the cut is recorded. Does not write event lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mcpist_core::audit::{Anchor, Chain, Checkpoint, Fault, Report, UnixMs, Verifier};
use mcpist_core::event::Event;
use mcpist_core::ids::Digest;
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
        "the audit log does not hold what the store signed last; put the files back that were here"
    )]
    Behind,
    /// The store's own audit record is missing or unreadable.
    #[error("the store's audit key cannot be read: {0}")]
    Key(String),
}

/// The newest segment, open for writing, and where the chain stands in it.
pub(crate) struct Segment {
    pub(crate) file: File,
    /// Offset of the next line.
    pub(crate) end: u64,
    pub(crate) chain: Chain,
    /// What was already copied from the outboxes, as far as this segment tells.
    pub(crate) report: Option<Report>,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError + '_ {
    move |source| OpenError::Io {
        path: path.to_owned(),
        source,
    }
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("audit-{number:08}.jsonl"))
}

/// Numbers of the segments in `folder`, ascending.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
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

/// Opens the newest segment of `folder`, or begins the log at `genesis` where there is none. `newest` is the last
/// checkpoint that the store has signed. A torn end is cut and recorded; a checkpoint that the file lacks is appended.
pub(crate) fn open(
    folder: &Path,
    genesis: Anchor,
    newest: Option<&Checkpoint>,
    reserve: u64,
    now: UnixMs,
) -> Result<Segment, OpenError> {
    let Some(&last) = numbers(folder).map_err(io_error(folder))?.last() else {
        if newest.is_some() {
            return Err(OpenError::Behind);
        }
        return create(folder, Chain::new(genesis), 0, reserve, now);
    };
    let path = path_of(folder, last);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&path)
        .map_err(io_error(&path))?;
    // The first segment is checked from the store's own genesis, a later one from what its first line says; that is
    // held against the store's newest checkpoint below.
    let verifier = if last == 0 {
        Verifier::new(genesis.key)
    } else {
        Verifier::resume()
    };
    let report = check(&file, verifier).map_err(io_error(&path))?;
    let mut chain = resume(&report, newest)?;
    let mut lines = Vec::new();
    let length = file.metadata().map_err(io_error(&path))?.len();
    if length > report.good_bytes {
        let digest = digest_from(&file, report.good_bytes).map_err(io_error(&path))?;
        let cut = Event::Recovered {
            length: length - report.good_bytes,
            digest: &digest,
        };
        chain.append(now, &cut, &mut lines);
        file.set_len(report.good_bytes).map_err(io_error(&path))?;
    }
    if let Some(checkpoint) = newest
        && checkpoint.statement().number == chain.anchor().checkpoint + 1
    {
        chain.append_checkpoint(checkpoint, &mut lines);
    }
    file.write_all_at(&lines, report.good_bytes)
        .map_err(io_error(&path))?;
    file.sync_all().map_err(io_error(&path))?;
    let end = report.good_bytes + lines.len() as u64;
    Ok(Segment {
        file,
        end,
        chain,
        report: Some(report),
    })
}

/// Decides whether the log may go on where the verifier stopped.
fn resume(report: &Report, newest: Option<&Checkpoint>) -> Result<Chain, OpenError> {
    if let Some(problem) = &report.problem {
        // Whatever no checkpoint covers may be torn by a crash, in any shape.
        let crash = !matches!(
            problem.fault,
            Fault::Checkpoint | Fault::Head | Fault::Signature
        );
        if !crash || !report.is_recoverable(newest) {
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
                && c.statement().count <= anchor.seq
        }
    };
    if known {
        Ok(Chain::new(anchor))
    } else {
        Err(OpenError::Behind)
    }
}

/// Makes segment `number` with `reserve` bytes allocated and writes its first line.
pub(crate) fn create(
    folder: &Path,
    mut chain: Chain,
    number: u64,
    reserve: u64,
    now: UnixMs,
) -> Result<Segment, OpenError> {
    let path = path_of(folder, number);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&path)
        .map_err(io_error(&path))?;
    let length = i64::try_from(reserve).unwrap_or(i64::MAX);
    match fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
        // A file system without reservation still has a log; doctor tells.
        Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => {}
        Err(errno) => {
            let _ = std::fs::remove_file(&path);
            return Err(OpenError::Io {
                path,
                source: errno.into(),
            });
        }
    }
    let mut line = Vec::new();
    chain.append_segment(now, number, &mut line);
    file.write_all_at(&line, 0).map_err(io_error(&path))?;
    file.sync_all().map_err(io_error(&path))?;
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(io_error(folder))?;
    Ok(Segment {
        file,
        end: line.len() as u64,
        chain,
        report: None,
    })
}

fn check(mut file: &File, mut verifier: Verifier) -> io::Result<Report> {
    let mut slice = vec![0; SLICE];
    loop {
        let read = file.read(&mut slice)?;
        if read == 0 || !verifier.feed(&slice[..read]) {
            return Ok(verifier.finish());
        }
    }
}

fn digest_from(file: &File, mut at: u64) -> io::Result<Digest> {
    let mut rest = Vec::new();
    let mut slice = vec![0; SLICE];
    loop {
        let read = file.read_at(&mut slice, at)?;
        if read == 0 {
            return Ok(Digest::of(&rest));
        }
        rest.extend_from_slice(&slice[..read]);
        at += read as u64;
    }
}
