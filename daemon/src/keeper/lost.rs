//! A folder that held a store and has no control.db: a mount that failed, a file that fsck took, a slip of the hand.
//!
//! Owns how that is seen, and what is said of it. Promises that no init is offered there: its store would stand over the
//! vaults and the log of the one that is missing. A restore is: it builds a whole folder, and keeps what is in this one
//! beside it. Does not look for the file.

use std::io;
use std::path::Path;

use mcpist_core::api::{Alarm, ApiError};
use mcpist_core::error::ErrorCode;

use super::StartError;
use crate::config::Config;
use crate::life::Life;

const WHAT: &str =
    "this folder held a store, and its control.db is not there: nothing is made over what is left";
const NEXT: &str = "put store/control.db back (is everything mounted?) and restart mcpistd, or: mcpist restore FILE";

/// Whether a store was here: there is a vault's file, a life or a line of an audit log.
pub(super) fn held(config: &Config) -> Result<bool, StartError> {
    let store = config.store();
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::Io { path, source }
    };
    if Life::read(&store).is_some() {
        return Ok(true);
    }
    let vaults = store.join("vaults");
    if !named(&vaults, |_| true).map_err(at(&vaults))?.is_empty() {
        return Ok(true);
    }
    // Whatever life the log is of.
    let state = config.state();
    let logs = named(state, |name| name == "audit" || name.starts_with("audit-"));
    for log in logs.map_err(at(state))? {
        let log = state.join(log);
        let is_line = |name: &str| name.starts_with("audit-") && name.ends_with(".jsonl");
        if !named(&log, is_line).map_err(at(&log))?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The entries of a folder that `is_meant`; none where there is no folder.
fn named(folder: &Path, is_meant: impl Fn(&str) -> bool) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        found.extend(Some(name).filter(|name| is_meant(name)));
    }
    Ok(found)
}

/// For the status, which works without a store.
pub(super) fn alarm() -> Alarm {
    Alarm {
        code: ErrorCode::NotInitialised,
        message: format!("{WHAT}; {NEXT}"),
    }
}

/// What init is answered.
pub(super) fn refusal() -> ApiError {
    ApiError::new(ErrorCode::AlreadyInitialised, WHAT).next(NEXT)
}
