//! Waiting for what has to come, and searching for what must be nowhere.
//!
//! Promises that a wait ends: what does not come fails its test with the log. Promises that a search which finds nothing
//! has searched: its command must end as one that found nothing does, and must find what is known to be there.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up. Nothing is judged by it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `reached`.
///
/// # Panics
/// With `what` and the log when that takes longer than [`PATIENCE`].
pub fn until(what: &str, log: impl Fn() -> String, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "gave up on {what}: {}", log());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// No file at or below `places` holds `secret`. `known` is a text that one of them holds.
///
/// # Panics
/// When one does, and when the search could not read everything or does not find what is there.
pub fn holds_nowhere(secret: &str, known: &str, places: &[&Path]) {
    let search = |text: &str| {
        let found = Command::new("grep")
            .args(["-rlaF", "-e", text])
            .args(places)
            .output();
        let found = found.expect("grep runs");
        let said = [&found.stdout[..], &found.stderr].concat();
        (
            found.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    // 0: found; 1: not found; else it could not read something.
    let (status, said) = search(known);
    assert_eq!(
        status,
        Some(0),
        "the search does not find {known:?}: {said}"
    );
    assert_eq!(
        search(secret),
        (Some(1), String::new()),
        "{secret:?} is in a file"
    );
}

#[cfg(test)]
mod tests {
    use super::holds_nowhere;

    /// Whether the search of a folder with one file passes.
    fn passes(content: &str, secret: &str, known: &str, place: &str) -> bool {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("file"), content).expect("a file");
        let place = folder.path().join(place);
        std::panic::catch_unwind(|| holds_nowhere(secret, known, &[&place])).is_ok()
    }

    #[test]
    fn a_search_that_did_not_search_fails() {
        assert!(passes("\0a known text\n", "canary", "known", ""));
        assert!(!passes("known\n\0canary\0", "canary", "known", ""));
        assert!(!passes("known", "canary", "unknown", ""));
        assert!(!passes("known", "canary", "known", "absent"));
    }
}
