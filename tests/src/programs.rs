//! The programs under test, built once per run and found by cargo's own word, never by a guessed path.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The profile of `cargo test`, which has built the programs already when a test asks for them.
const PROFILE: &str = "dev";

/// The workspace's root folder.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// Builds the workspace's programs with `features` into a target folder of their own (`target/FOLDER`), or into the
/// usual one when `folder` is empty, and returns name → path.
///
/// # Panics
/// When the build fails: nothing can be tested then. Its messages go to stderr.
pub fn build(folder: &str, features: &[&str]) -> BTreeMap<String, PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "build",
            "--workspace",
            "--bins",
            "--locked",
            "--message-format=json-render-diagnostics",
        ])
        .args(["--profile", PROFILE])
        .current_dir(workspace())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    // What cargo tells a test of its own package would make build scripts believe that something changed.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let own = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
        ];
        if own.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    if !features.is_empty() {
        cargo.arg("--features").arg(features.join(","));
    }
    if !folder.is_empty() {
        cargo
            .arg("--target-dir")
            .arg(workspace().join("target").join(folder));
    }
    let out = cargo.output().expect("cargo runs");
    assert!(out.status.success(), "the programs do not build");
    let lines = String::from_utf8(out.stdout).expect("cargo prints UTF-8");
    lines
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| {
            let path = message["executable"].as_str()?;
            Some((
                message["target"]["name"].as_str()?.to_owned(),
                PathBuf::from(path),
            ))
        })
        .collect()
}

/// The path of one program, built on first use.
///
/// # Panics
/// When the workspace has no program of this name.
pub fn program(name: &str) -> &'static Path {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let programs = BUILT.get_or_init(|| build("", &[]));
    programs
        .get(name)
        .unwrap_or_else(|| panic!("no program {name} among {:?}", programs.keys()))
}

/// What the command line keeps for its user (witness receipts) goes here in tests, and never into a real home.
pub fn state_home() -> (&'static str, PathBuf) {
    ("XDG_STATE_HOME", workspace().join("target/state"))
}

/// A command of `mcpist`, the only way in which tests start it without a shell.
///
/// # Panics
/// As [`program`] does.
pub fn cli() -> Command {
    let mut command = Command::new(program("mcpist"));
    command.envs([state_home()]);
    command
}

/// Runs `command` to its end with `input` on its standard input; what it said.
///
/// # Panics
/// When it does not start.
pub fn fed(command: &mut Command, input: &[u8]) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // One that asks for nothing may be gone.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("ours to wait for")
}
