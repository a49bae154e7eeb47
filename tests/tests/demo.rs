//! The README's first command, as a newcomer runs it.

use std::process::Stdio;

use mcpist_tests::programs::cli;

#[test]
fn the_demo_passes_every_step_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = cli()
        .arg("demo")
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("mcpist runs");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(
        text.lines().filter(|l| l.starts_with("ok ")).count(),
        18,
        "{text}"
    );
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .expect("the folder")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
