//! Tests of the arena: wiping, disjointness and what the kernel says about the pages.
#![allow(clippy::unwrap_used)]

use super::*;

fn leaked(bytes: usize) -> &'static Arena {
    Box::leak(Box::new(Arena::new(bytes, Policy::Warn).unwrap()))
}

#[test]
fn a_slot_is_zero_when_taken_again() {
    let arena = leaked(MAX_BLOCK);
    let mut slot = arena.take(MAX_BLOCK).unwrap();
    let first = slot.bytes().as_ptr();
    slot.bytes_mut().fill(0xA5);
    drop(slot);
    let slot = arena.take(MAX_BLOCK).unwrap();
    assert_eq!(
        slot.bytes().as_ptr(),
        first,
        "the arena has room for one such slot only"
    );
    assert!(slot.bytes().iter().all(|&b| b == 0));
}

#[test]
fn a_full_arena_says_so_and_recovers() {
    let arena = leaked(1);
    let slots: Vec<_> = (0..MAX_BLOCK / 64)
        .map(|_| arena.take(32).unwrap())
        .collect();
    assert_eq!(
        arena.take(32).err(),
        Some(MemoryError::ArenaFull { len: 32 })
    );
    drop(slots);
    assert!(arena.take(MAX_BLOCK).is_ok());
}

#[test]
fn writing_one_slot_leaves_its_neighbours_alone() {
    let arena = leaked(MAX_BLOCK);
    let mut slots: Vec<_> = (1..=200).map(|len| arena.take(len).unwrap()).collect();
    for (value, slot) in slots.iter_mut().enumerate() {
        slot.bytes_mut().fill(value as u8);
    }
    for (value, slot) in slots.iter().enumerate() {
        assert!(slot.bytes().iter().all(|&b| b == value as u8));
    }
}

#[test]
fn more_than_the_largest_secret_is_refused() {
    let arena = leaked(1);
    let len = MAX_SECRET + 1;
    assert_eq!(arena.take(len).err(), Some(MemoryError::TooLarge { len }));
}

#[test]
fn arena_sizes_out_of_range_are_refused() {
    for bytes in [0, MAX_ARENA + 1, usize::MAX] {
        let refused = Arena::new(bytes, Policy::Warn).err();
        assert_eq!(refused, Some(MemoryError::ArenaSize { bytes }));
    }
}

#[test]
fn a_second_init_is_refused() {
    arena().unwrap();
    assert_eq!(init(1, Policy::Warn), Err(MemoryError::AlreadyInitialised));
    assert!(protections().arena_bytes >= DEFAULT_ARENA);
}

/// The kernel's own flags of the mapping that holds `address` (proc(5), `VmFlags`).
fn kernel_flags(address: usize) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        if let Some((from, to)) = range
            && let (Ok(from), Ok(to)) = (
                usize::from_str_radix(from, 16),
                usize::from_str_radix(to, 16),
            )
        {
            inside = (from..to).contains(&address);
        }
        if let (true, Some(flags)) = (inside, line.strip_prefix("VmFlags:")) {
            return flags.split_whitespace().map(String::from).collect();
        }
    }
    Vec::new()
}

#[test]
fn the_kernel_confirms_what_is_reported() {
    let arena = leaked(1);
    let flags = kernel_flags(arena.pages.as_ptr() as usize);
    let has = |flag: &str| flags.iter().any(|f| f == flag);
    let reported = arena.protections;
    assert_eq!(has("dd"), reported.dont_dump);
    assert_eq!(has("dc"), reported.dont_fork);
    assert_eq!(has("wf"), reported.wipe_on_fork);
    assert_eq!(has("lo"), reported.kind != PageKind::Plain);
}

#[test]
fn locked_pages_get_all_three_advices() {
    let size = NonZeroUsize::new(MAX_BLOCK).unwrap();
    let mapping = Mapping::anonymous(size).unwrap();
    let kind = if mapping.lock() {
        PageKind::Locked
    } else {
        PageKind::Plain
    };
    let (pages, reported) = mapping.protect(kind);
    assert!(reported.dont_dump && reported.dont_fork && reported.wipe_on_fork);
    let flags = kernel_flags(pages.as_ptr() as usize);
    assert!(
        ["dd", "dc", "wf"]
            .iter()
            .all(|flag| flags.iter().any(|f| f == flag))
    );
}

#[test]
fn every_missing_protection_is_named() {
    let whole = Protections {
        kind: PageKind::Locked,
        dont_dump: true,
        dont_fork: true,
        wipe_on_fork: true,
        arena_bytes: 1,
    };
    assert_eq!(whole.missing(), None);
    let memfd = Protections {
        kind: PageKind::MemfdSecret,
        wipe_on_fork: false,
        ..whole
    };
    assert_eq!(memfd.missing(), None);
    assert!(
        Protections {
            kind: PageKind::Plain,
            ..whole
        }
        .missing()
        .is_some()
    );
    assert!(
        Protections {
            dont_dump: false,
            ..whole
        }
        .missing()
        .is_some()
    );
    assert!(
        Protections {
            dont_fork: false,
            ..memfd
        }
        .missing()
        .is_some()
    );
    assert!(
        Protections {
            wipe_on_fork: false,
            ..whole
        }
        .missing()
        .is_some()
    );
}

#[test]
fn hardening_takes_the_process_out_of_reach() {
    harden_process(true).unwrap();
    harden_process(false).unwrap();
    assert!(!prctl::get_dumpable().unwrap());
    let core = nix::sys::resource::getrlimit(Resource::RLIMIT_CORE).unwrap();
    assert_eq!(core, (0, 0));
}
