//! Files that `mcpist` writes: whole, or not there.
#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use std::path::Path;
use std::process::{Command, Output};

/// Runs `mcpist`; files that are longer than `blocks` cannot be written, as on a full stick.
fn mcpist(folder: &Path, blocks: &str, arguments: &[&str]) -> Output {
    Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"",
            "sh",
            blocks,
        ])
        .arg(env!("CARGO_BIN_EXE_mcpist"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn a_write_that_fails_leaves_nothing_that_blocks_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let echo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/echo");
    let keygen = ["bundle", "keygen", "key", "--throwaway"];
    let build = [
        "bundle",
        "build",
        echo,
        "--namespace",
        "acme",
        "--name",
        "echo",
        "--sequence",
        "1",
        "--site",
        "site-1",
        "--out",
        "echo.bundle",
    ];
    let sign = ["bundle", "sign", "echo.bundle", "--key", "key"];
    for arguments in [&keygen[..], &build, &sign] {
        let failed = mcpist(folder.path(), "0", arguments);
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(
            !failed.status.success() && said.contains("File too large"),
            "{said}"
        );
        let done = mcpist(folder.path(), "unlimited", arguments);
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["echo.bundle", "key"]);
}
