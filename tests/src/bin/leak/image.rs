//! The image of a process: all of its memory that a core dump could hold, and more.
//!
//! Read from `/proc/PID/mem` over the mappings of `/proc/PID/smaps` while the process is stopped. Left out are mappings
//! that no core ever holds (`dd`: MADV_DONTDUMP and the kernel's own), which the caller checks, and those that hold
//! nothing but bytes of a file. Everything else is in it, also what `coredump_filter` would leave out.

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use mcpist_tests::needle::{Hit, Needles};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const GIVE_UP: Duration = Duration::from_secs(20);
/// Bytes read at once.
const BLOCK: u64 = 1 << 20;
/// Bytes of a page; a page of zeroes holds nothing.
const PAGE: usize = 4096;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One mapping's bytes.
struct Part {
    place: Place,
    start: u64,
    bytes: Vec<u8>,
}

/// Where in a process a byte is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The stack of the thread with this name.
    Stack(String),
    /// Memory of an allocator, or static data.
    Memory(String),
}

/// A part of a secret in a process.
pub(crate) struct Residue {
    pub(crate) place: Place,
    pub(crate) address: u64,
    pub(crate) hit: Hit,
}

/// All memory of one process at one moment.
pub(crate) struct Image {
    parts: Vec<Part>,
    /// Bytes of mappings that no core holds, the kernel's own left out.
    pub(crate) left_out: u64,
}

/// A stopped process, which goes on when this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn stop(pid: u32) -> Result<Stopped> {
        let stopped = Stopped(Pid::from_raw(i32::try_from(pid)?));
        kill(stopped.0, Signal::SIGSTOP)?;
        let since = Instant::now();
        while !threads(pid)?
            .iter()
            .all(|task| state(pid, *task) == Some('T'))
        {
            if since.elapsed() > GIVE_UP {
                return Err(format!("process {pid} does not stop").into());
            }
            std::thread::yield_now();
        }
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

fn threads(pid: u32) -> Result<Vec<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// A thread's state; `None` for one that has just ended.
fn state(pid: u32, task: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{task}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The stack pointer and name of each thread.
fn stacks(pid: u32) -> Result<Vec<(u64, String)>> {
    let mut stacks = Vec::new();
    for task in threads(pid)? {
        let folder = format!("/proc/{pid}/task/{task}");
        let call = fs::read_to_string(format!("{folder}/syscall"))?;
        // "number arguments... SP PC", or "-1 SP PC" outside a call.
        let pointer = call.split_ascii_whitespace().rev().nth(1);
        let pointer =
            pointer.and_then(|p| u64::from_str_radix(p.trim_start_matches("0x"), 16).ok());
        let name = fs::read_to_string(format!("{folder}/comm"))?;
        let pointer =
            pointer.ok_or_else(|| format!("no stack pointer of thread {task}: {call}"))?;
        stacks.push((pointer, name.trim().to_owned()));
    }
    Ok(stacks)
}

/// A mapping as `smaps` describes it.
#[derive(Debug, Default)]
struct Mapping {
    start: u64,
    end: u64,
    name: String,
    /// kB in memory or in swap.
    used: u64,
    /// kB that are not a file's own bytes.
    anonymous: u64,
    shared: bool,
    dont_dump: bool,
}

fn mappings(pid: u32) -> Result<Vec<Mapping>> {
    let mut all: Vec<Mapping> = Vec::new();
    for line in fs::read_to_string(format!("/proc/{pid}/smaps"))?.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let kilobytes = || words.get(1).and_then(|w| w.parse().ok()).unwrap_or(0);
        match (words.first().copied().unwrap_or_default(), all.last_mut()) {
            ("Rss:" | "Swap:", Some(last)) => last.used += kilobytes(),
            ("Anonymous:", Some(last)) => last.anonymous = kilobytes(),
            ("VmFlags:", Some(last)) => last.dont_dump = words.contains(&"dd"),
            (range, _) if !range.ends_with(':') => {
                let (start, end) = range.split_once('-').ok_or("not a mapping")?;
                all.push(Mapping {
                    start: u64::from_str_radix(start, 16)?,
                    end: u64::from_str_radix(end, 16)?,
                    name: words.get(5..).unwrap_or_default().join(" "),
                    shared: words.get(1).is_some_and(|flags| flags.ends_with('s')),
                    ..Mapping::default()
                });
            }
            _ => {}
        }
    }
    Ok(all)
}

impl Image {
    /// Stops the process, reads its memory and lets it go on.
    pub(crate) fn of(pid: u32) -> Result<Image> {
        let _stopped = Stopped::stop(pid)?;
        let stacks = stacks(pid)?;
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        let mut image = Image {
            parts: Vec::new(),
            left_out: 0,
        };
        for mapping in mappings(pid)? {
            if mapping.dont_dump {
                let kernel = mapping.name.starts_with("[v");
                image.left_out += if kernel {
                    0
                } else {
                    mapping.end - mapping.start
                };
                continue;
            }
            let file_only =
                mapping.name.starts_with('/') && !mapping.shared && mapping.anonymous == 0;
            if mapping.used == 0 || file_only || mapping.name == "[vsyscall]" {
                continue;
            }
            let on_it = stacks
                .iter()
                .find(|(p, _)| (mapping.start..mapping.end).contains(p));
            let place = match on_it {
                Some((_, thread)) => Place::Stack(thread.clone()),
                None => Place::Memory(mapping.name.clone()),
            };
            read(&memory, &mapping, &place, &mut image.parts)
                .map_err(|e| format!("{mapping:?} of process {pid}: {e}"))?;
        }
        Ok(image)
    }

    /// Bytes of the image that are in pages with anything in them.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.bytes.len()).sum()
    }

    /// Whether the bytes are in it.
    pub(crate) fn contains(&self, bytes: &[u8]) -> bool {
        let Some(first) = bytes.first() else {
            return true;
        };
        self.parts.iter().any(|part| {
            let mut rest = &part.bytes[..];
            while let Some(at) = rest.iter().position(|b| b == first) {
                if rest[at..].starts_with(bytes) {
                    return true;
                }
                rest = &rest[at + 1..];
            }
            false
        })
    }

    /// Every part of a secret in it.
    pub(crate) fn search(&self, needles: &Needles) -> Vec<Residue> {
        let mut residues = Vec::new();
        for part in &self.parts {
            residues.extend(needles.search(&part.bytes).into_iter().map(|hit| Residue {
                place: part.place.clone(),
                address: part.start + hit.at as u64,
                hit,
            }));
        }
        residues
    }
}

/// Reads a mapping into parts, one for each run of pages with anything in them.
fn read(
    memory: &File,
    mapping: &Mapping,
    place: &Place,
    parts: &mut Vec<Part>,
) -> std::io::Result<()> {
    let mut block = vec![0; BLOCK as usize];
    let mut at = mapping.start;
    // The run that the next page continues.
    let mut open = false;
    while at < mapping.end {
        let length = (mapping.end - at).min(BLOCK) as usize;
        memory.read_exact_at(&mut block[..length], at)?;
        for (number, page) in block[..length].chunks(PAGE).enumerate() {
            if page == &[0; PAGE][..page.len()] {
                open = false;
                continue;
            }
            match parts.last_mut() {
                Some(part) if open => part.bytes.extend_from_slice(page),
                _ => parts.push(Part {
                    place: place.clone(),
                    start: at + (number * PAGE) as u64,
                    bytes: page.to_vec(),
                }),
            }
            open = true;
        }
        at += length as u64;
    }
    Ok(())
}
