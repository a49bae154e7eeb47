//! The process-wide arena of secret pages, and the process's own protection.
//!
//! Owns: the pages, their protections, the free lists and the process's dump settings.
//! Promises: bytes of a slot are zero when it is handed out and wiped when it is given back; no
//! two slots overlap; pages are touched once at [`init`], so that later use cannot run out of
//! memory. With `memfd_secret` the pages are out of the kernel's direct map, never swapped, not in
//! a core dump and not in a child; locked pages give all but the first.
//! Does not promise: protection from root, from code in this process, or from copies that callers
//! make. Where the kernel or a limit refuses a protection, [`Policy`] says what happens, and
//! [`protections`] reports it.
//!
//! Threat model: another process of the same user (ptrace, `/proc/pid/mem`), a core dump, a swap
//! or hibernation image, a stray read of kernel memory, a forked helper.
#![allow(unsafe_code)] // Raw pages and raw pointers into them; safe code sees slices only.

mod buddy;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::libc::c_void;
use nix::sys::mman::{self, MapFlags, MmapAdvise, ProtFlags};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use thiserror::Error;
use zeroize::Zeroize;

use self::buddy::{Block, Buddy, MAX_BLOCK};

/// The longest secret, in bytes.
pub const MAX_SECRET: usize = MAX_BLOCK;

/// Size of the arena when nobody called [`init`] before the first secret.
const DEFAULT_ARENA: usize = 1 << 20;
/// The largest arena that [`init`] accepts, in bytes.
const MAX_ARENA: usize = 1 << 30;
/// The smallest page of any supported machine; touching at this step touches every page.
const PAGE: usize = 4096;

static ARENA: OnceLock<Arena> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

/// What to do when a protection cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// A missing protection is an error.
    Require,
    /// A missing protection is only reported by [`protections`]; for development.
    Warn,
}

/// What kind of pages the arena stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    /// `memfd_secret(2)`: not even the kernel maps them elsewhere.
    MemfdSecret,
    /// Anonymous pages held in memory by `mlock(2)`.
    Locked,
    /// Ordinary pages, which may be swapped out.
    Plain,
}

/// The protections that the arena really has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protections {
    /// The kind of pages.
    pub kind: PageKind,
    /// Pages are left out of core dumps (`MADV_DONTDUMP`).
    pub dont_dump: bool,
    /// Pages are not mapped in a child process (`MADV_DONTFORK`).
    pub dont_fork: bool,
    /// Pages would be zero in a child process (`MADV_WIPEONFORK`); `memfd_secret` refuses it.
    pub wipe_on_fork: bool,
    /// Size of the arena in bytes; 0 before the first use.
    pub arena_bytes: usize,
}

impl Protections {
    /// The first protection that is missing, in words for an operator; `None` when all are there.
    pub fn missing(&self) -> Option<&'static str> {
        match self {
            Protections {
                kind: PageKind::Plain,
                ..
            } => Some("pages that are never swapped"),
            Protections {
                dont_dump: false, ..
            } => Some("MADV_DONTDUMP"),
            Protections {
                dont_fork: false, ..
            } => Some("MADV_DONTFORK"),
            Protections {
                kind: PageKind::Locked,
                wipe_on_fork: false,
                ..
            } => Some("MADV_WIPEONFORK"),
            _ => None,
        }
    }
}

/// Why secret memory, a key or the process's protection could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// More than [`MAX_SECRET`] bytes asked for.
    #[error("a secret of {len} bytes is too large; at most {MAX_SECRET} bytes fit")]
    TooLarge {
        /// The length asked for, in bytes.
        len: usize,
    },
    /// No free slot of this size.
    #[error("secret memory is full: no room for {len} bytes; raise the arena size or end calls")]
    ArenaFull {
        /// The length asked for, in bytes.
        len: usize,
    },
    /// The arena stands already.
    #[error("secret memory is already set up; call init before the first secret")]
    AlreadyInitialised,
    /// An arena size outside 1 byte to 1 GiB.
    #[error("an arena of {bytes} bytes is refused; choose 1 byte to 1 GiB")]
    ArenaSize {
        /// The size asked for, in bytes.
        bytes: usize,
    },
    /// The kernel gave no pages at all.
    #[error("cannot map {bytes} bytes of secret memory: {errno}")]
    Map {
        /// The size asked for, in bytes.
        bytes: usize,
        /// The kernel's answer.
        errno: Errno,
    },
    /// [`Policy::Require`], and a protection is missing.
    #[error(
        "secret memory of {bytes} bytes lacks {missing}; enable secretmem or raise LimitMEMLOCK"
    )]
    Unprotected {
        /// The size asked for, in bytes.
        bytes: usize,
        /// The missing protection, in words.
        missing: &'static str,
    },
    /// The process could not be made undumpable.
    #[error("cannot harden the process: {call}: {errno}")]
    Harden {
        /// The system call that failed.
        call: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The system's random generator failed.
    #[error("the system's random generator failed")]
    Random,
    /// A key derivation was asked for what HKDF cannot give.
    #[error("key derivation failed")]
    Derive,
}

/// Sets up the process-wide arena; to be called once, before the first secret. `arena_bytes` is
/// rounded up to a multiple of [`MAX_SECRET`]. Without this call the first secret sets up 1 MiB
/// under [`Policy::Warn`].
///
/// # Errors
/// [`MemoryError::AlreadyInitialised`], [`MemoryError::ArenaSize`], [`MemoryError::Map`], and
/// under [`Policy::Require`] [`MemoryError::Unprotected`].
pub fn init(arena_bytes: usize, policy: Policy) -> Result<Protections, MemoryError> {
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if ARENA.get().is_some() {
        return Err(MemoryError::AlreadyInitialised);
    }
    let arena = Arena::new(arena_bytes, policy)?;
    Ok(ARENA.get_or_init(|| arena).protections)
}

/// The protections of the process-wide arena; before its first use nothing is protected and
/// `arena_bytes` is 0.
pub fn protections() -> Protections {
    ARENA
        .get()
        .map(|arena| arena.protections)
        .unwrap_or(Protections {
            kind: PageKind::Plain,
            dont_dump: false,
            dont_fork: false,
            wipe_on_fork: false,
            arena_bytes: 0,
        })
}

/// Makes the process undumpable (`PR_SET_DUMPABLE`, which also closes `/proc/self/mem` and ptrace
/// to others of the same user) and sets its core limit to 0. With `dumpable` nothing is changed,
/// for a developer who wants a debugger.
///
/// # Errors
/// [`MemoryError::Harden`] with the call that failed.
pub fn harden_process(dumpable: bool) -> Result<(), MemoryError> {
    if dumpable {
        return Ok(());
    }
    prctl::set_dumpable(false).map_err(|errno| MemoryError::Harden {
        call: "prctl(PR_SET_DUMPABLE)",
        errno,
    })?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|errno| MemoryError::Harden {
        call: "setrlimit(RLIMIT_CORE)",
        errno,
    })
}

/// The process-wide arena, set up with defaults if need be.
fn arena() -> Result<&'static Arena, MemoryError> {
    if let Some(arena) = ARENA.get() {
        return Ok(arena);
    }
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(arena) = ARENA.get() {
        return Ok(arena);
    }
    let arena = Arena::new(DEFAULT_ARENA, Policy::Warn)?;
    Ok(ARENA.get_or_init(|| arena))
}

/// Pages that are mapped for the rest of the process's life, and which parts are taken.
struct Arena {
    pages: NonNull<u8>,
    free: Mutex<Buddy>,
    protections: Protections,
}

// Why needed: the arena is a static, and `NonNull` is neither Send nor Sync.
// SAFETY: `pages` itself never changes and is never unmapped; the bytes behind it are reached
// only through `Slot`s, which `Buddy` keeps disjoint.
unsafe impl Send for Arena {}
// SAFETY: as above; `free` brings its own lock.
unsafe impl Sync for Arena {}

impl Arena {
    fn new(bytes: usize, policy: Policy) -> Result<Arena, MemoryError> {
        if bytes == 0 || bytes > MAX_ARENA {
            return Err(MemoryError::ArenaSize { bytes });
        }
        let blocks = bytes.div_ceil(MAX_BLOCK);
        let bytes = blocks * MAX_BLOCK;
        let size = NonZeroUsize::new(bytes).ok_or(MemoryError::ArenaSize { bytes })?;
        let (pages, protections) = match Mapping::secret(size) {
            Ok(mapping) => mapping.protect(PageKind::MemfdSecret),
            Err(_) => {
                let mapping =
                    Mapping::anonymous(size).map_err(|errno| MemoryError::Map { bytes, errno })?;
                let kind = if mapping.lock() {
                    PageKind::Locked
                } else {
                    PageKind::Plain
                };
                mapping.protect(kind)
            }
        };
        if let (Policy::Require, Some(missing)) = (policy, protections.missing()) {
            // The pages stay mapped, empty: the caller is about to give up anyway.
            return Err(MemoryError::Unprotected { bytes, missing });
        }
        Ok(Arena {
            pages,
            free: Mutex::new(Buddy::new(blocks)),
            protections,
        })
    }

    fn take(&'static self, len: usize) -> Result<Slot, MemoryError> {
        if len > MAX_SECRET {
            return Err(MemoryError::TooLarge { len });
        }
        let block = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(len);
        let block = block.ok_or(MemoryError::ArenaFull { len })?;
        Ok(Slot {
            block: Some(block),
            arena: self,
        })
    }
}

/// Fresh zero pages, readable and writable, that nothing else refers to.
struct Mapping {
    pages: NonNull<c_void>,
    size: NonZeroUsize,
}

impl Mapping {
    /// Pages of `memfd_secret(2)`. Fails where the kernel has none, forbids it, or the memlock
    /// limit is too low.
    fn secret(size: NonZeroUsize) -> Result<Mapping, Errno> {
        // Why needed: neither nix nor std wraps this call.
        // SAFETY: the call takes one flag and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
        let fd = i32::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
        // SAFETY: the kernel has just given us this descriptor, so nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let length = i64::try_from(size.get()).map_err(|_| Errno::EFBIG)?;
        nix::unistd::ftruncate(&fd, length)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // Why needed: mapping is unsafe by definition. The mapping outlives the descriptor.
        // SAFETY: a new shared mapping at an address of the kernel's choice, of a file that only
        // this function ever knew.
        let pages = unsafe { mman::mmap(None, size, protection, MapFlags::MAP_SHARED, &fd, 0)? };
        Ok(Mapping { pages, size })
    }

    fn anonymous(size: NonZeroUsize) -> Result<Mapping, Errno> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let pages = unsafe { mman::mmap_anonymous(None, size, protection, MapFlags::MAP_PRIVATE)? };
        Ok(Mapping { pages, size })
    }

    /// Holds the pages in memory; false where the memlock limit is too low.
    fn lock(&self) -> bool {
        // SAFETY: the range is our own mapping.
        unsafe { mman::mlock(self.pages, self.size.get()) }.is_ok()
    }

    /// Asks for the protections one by one, touches every page and hands the pages over.
    fn protect(self, kind: PageKind) -> (NonNull<u8>, Protections) {
        let advise = |advice| {
            // Why needed: the three advices exist only as madvise.
            // SAFETY: the range is our own mapping, and none of the three discards its content.
            unsafe { mman::madvise(self.pages, self.size.get(), advice) }.is_ok()
        };
        let protections = Protections {
            kind,
            dont_dump: advise(MmapAdvise::MADV_DONTDUMP),
            dont_fork: advise(MmapAdvise::MADV_DONTFORK),
            wipe_on_fork: advise(MmapAdvise::MADV_WIPEONFORK),
            arena_bytes: self.size.get(),
        };
        let pages = self.pages.cast::<u8>();
        for offset in (0..self.size.get()).step_by(PAGE) {
            // Why needed: a page that is first touched when memory is short would be a SIGBUS in
            // the middle of a call.
            // SAFETY: the offset is inside our own mapping, which nothing else refers to yet.
            unsafe { pages.add(offset).write_volatile(0) };
        }
        (pages, protections)
    }
}

/// A part of the arena, owned alone; zero when taken, wiped when dropped.
pub(crate) struct Slot {
    /// `None` only while being dropped.
    block: Option<Block>,
    arena: &'static Arena,
}

impl Slot {
    /// Takes a slot of at least `len` bytes from the process-wide arena.
    pub(crate) fn new(len: usize) -> Result<Slot, MemoryError> {
        arena()?.take(len)
    }

    /// The whole slot.
    pub(crate) fn bytes(&self) -> &[u8] {
        let Some(block) = &self.block else { return &[] };
        // Why needed: the only way from pages to a slice.
        // SAFETY: `Buddy` gives out offsets inside the arena only, and no block to two slots; the
        // pages are mapped and initialised for the rest of the process's life.
        unsafe {
            let start = self.arena.pages.add(block.offset());
            std::slice::from_raw_parts(start.as_ptr(), block.size())
        }
    }

    /// The whole slot, to write to.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let Some(block) = &self.block else {
            return &mut [];
        };
        // SAFETY: as for `bytes`; `&mut self` makes it the only reference.
        unsafe {
            let start = self.arena.pages.add(block.offset());
            std::slice::from_raw_parts_mut(start.as_ptr(), block.size())
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        if let Some(block) = self.block.take() {
            self.arena
                .free
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .give_back(block);
        }
    }
}
