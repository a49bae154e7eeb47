//! What only one place may do, looked up in the sources: who makes evidence of a peer, who writes `unsafe`, who names
//! a database or MCP's SDK. Test code may do more and is skipped.

use std::path::Path;

use mcpist_tests::programs::workspace;

/// Every source file of the crates, tests and examples left out.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for root in ["sealer", "daemon", "modules"] {
        walk(&workspace().join(root), &mut found);
    }
    assert!(
        found.len() > 100,
        "the sources were not found: {} files",
        found.len()
    );
    found
}

fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
    let entries = std::fs::read_dir(folder).expect("a folder of the workspace");
    for path in entries.map(|e| e.expect("an entry").path()) {
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default()
            .to_owned();
        if path.is_dir() {
            if !["tests", "examples", "target", "fuzz"].contains(&name.as_str()) {
                walk(&path, found);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push((relative(&path), code_of(&path)));
        }
    }
}

fn relative(path: &Path) -> String {
    let path = path.strip_prefix(workspace()).expect("below the workspace");
    path.display().to_string()
}

/// The file's code without comments, up to its test module where that is in the file itself.
fn code_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a source file");
    let lines: Vec<&str> = text.lines().collect();
    let inline = |at: &usize| {
        let after = &lines[*at..lines.len().min(at + 4)];
        lines[*at] == "#[cfg(test)]" && after.iter().any(|l| l.contains("mod tests {"))
    };
    let end = (0..lines.len()).find(inline).unwrap_or(lines.len());
    let bare = lines[..end]
        .iter()
        .map(|line| line.split("//").next().unwrap_or_default());
    bare.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_search_reads_past_a_declared_test_module_and_not_into_an_inline_one() {
    let code = |path: &str| code_of(&workspace().join(path));
    assert!(code("modules/runtime/src/egress.rs").contains("impl Service"));
    assert!(!code("daemon/src/tickets.rs").contains("a_ticket_serves_once"));
}

/// The files whose code holds one of `needles`.
fn files_with(needles: &[&str]) -> Vec<String> {
    let holds = |code: &str| needles.iter().any(|n| code.contains(n));
    let mut files: Vec<String> = sources()
        .into_iter()
        .filter(|(_, code)| holds(code))
        .map(|(path, _)| path)
        .collect();
    files.sort();
    files
}

#[test]
fn evidence_of_a_peer_is_made_in_listen_alone() {
    assert_eq!(
        files_with(&["PeerEvidence::unix", "PeerEvidence::fixed"]),
        ["daemon/src/listen.rs"]
    );
}

#[test]
fn unsafe_stands_in_the_files_for_secret_memory_and_passed_descriptors_alone() {
    let allowed = [
        "modules/wire/src/fd.rs",
        "modules/runtime/src/adopt.rs",
        "sealer/secret/src/alloc.rs",
        "sealer/secret/src/memory.rs",
    ];
    for file in files_with(&["unsafe {", "unsafe fn", "unsafe impl"]) {
        assert!(allowed.contains(&file.as_str()), "unsafe in {file}");
    }
}

#[test]
fn a_database_is_named_by_the_sealer_and_the_sdk_by_mcp_alone() {
    for file in files_with(&["rusqlite::", "use rusqlite"]) {
        assert!(file.starts_with("sealer/src/"), "SQLite in {file}");
    }
    for file in files_with(&["rmcp::", "use rmcp"]) {
        assert!(file.starts_with("daemon/mcp/src/"), "rmcp in {file}");
    }
}

#[test]
fn policy_records_are_written_from_an_approved_change_alone() {
    // The one caller of the write of a policy object, and the one function that may call it.
    assert_eq!(
        files_with(&["policy.op("]),
        ["daemon/src/keeper/store_change.rs"]
    );
    let (_, code) = sources()
        .into_iter()
        .find(|(path, _)| path == "daemon/src/keeper/store_change.rs")
        .expect("the file");
    assert_eq!(code.matches("policy.op(").count(), 1);
    assert!(code.contains("approved: Approved<Change>"));
}

#[test]
fn tests_start_the_command_line_away_from_a_real_home() {
    let mut found = Vec::new();
    for folder in ["tests/src", "tests/tests"] {
        walk(&workspace().join(folder), &mut found);
    }
    let starts = |(_, code): &(String, String)| code.contains("Command::new(program(\"mcpist\"))");
    found.retain(|file| starts(file) && file.0 != "tests/tests/only_here.rs");
    let files: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(files, ["tests/src/programs.rs"], "programs::cli starts it");
}
