//! Bad input over real sockets: each case is refused by its name, changes nothing, and the next good one works.
//!
//! Cases of one group share an appliance, one at a time; each leaves it as it found it. The last of a group that is
//! running takes it down. What changes an appliance for good has one of its own.

use std::fs::Permissions;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mcpist_bundle::container::{BLOCK_LEN, HEADER_LEN};
use mcpist_core::audit::{Fault, Report, Verifier};
use mcpist_core::ids::SiteId;
use mcpist_quorum::{Share, split};
use mcpist_secret::frame::Ticket;
use mcpist_secret::{Key, Secret};
use mcpist_tests::appliance::{Appliance, Client};
use mcpist_tests::programs::{program, workspace};
use mcpist_tests::service::Service;
use serde_json::{Value, json};

const CREDENTIAL: &str = "canary-1c0ffee5eed4b1d2";

/// An appliance that the cases of a group share.
struct Shared {
    make: fn() -> Site,
    running: Mutex<Weak<Mutex<Site>>>,
}

/// An appliance, and the service that its module is bound to.
struct Site {
    appliance: Appliance,
    service: Service,
}

impl Deref for Site {
    type Target = Appliance;
    fn deref(&self) -> &Appliance {
        &self.appliance
    }
}

impl DerefMut for Site {
    fn deref_mut(&mut self) -> &mut Appliance {
        &mut self.appliance
    }
}

impl Shared {
    const fn new(make: fn() -> Site) -> Shared {
        Shared {
            make,
            running: Mutex::new(Weak::new()),
        }
    }

    /// Runs a case. A case that failed before does not take the others with it.
    fn with(&self, case: impl FnOnce(&mut Site)) {
        let site = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.upgrade().unwrap_or_else(|| {
                let site = Arc::new(Mutex::new((self.make)()));
                *running = Arc::downgrade(&site);
                site
            })
        };
        let mut held: MutexGuard<'_, Site> = site.lock().unwrap_or_else(PoisonError::into_inner);
        case(&mut held);
    }
}

/// A store that nobody has opened.
static SEALED: Shared = Shared::new(|| {
    let (mut appliance, service) = (Appliance::start(), Service::start());
    appliance.init();
    Site { appliance, service }
});

/// A store with ada's module in use.
static OPEN: Shared = Shared::new(open);

fn open() -> Site {
    let (mut appliance, service) = (Appliance::start(), Service::start());
    appliance.set_up(service.port(), CREDENTIAL);
    Site { appliance, service }
}

fn secret(text: &[u8]) -> Secret {
    Secret::copy_of(text).expect("memory")
}

fn code(result: &Value) -> &str {
    result["structuredContent"]["code"]
        .as_str()
        .unwrap_or_default()
}

fn works(site: &Site) {
    let answer = site
        .client("ada")
        .call("echo", "get", &json!({ "item": "x" }));
    assert_eq!(answer["isError"], false, "{answer}\n{}", site.log());
}

// Shares.

/// One share is in; `answer` of a bad one is a refusal for `reason` that costs nothing.
fn refused_share(site: &Site, reason: &str, bad: impl FnOnce(&Site) -> Value) {
    site.ask("POST", "/v1/unseal/cancel", None);
    let first = site.give(&site.share(1));
    assert_eq!(first["share"]["pending"]["given"], 1, "{first}");
    let answer = bad(site);
    let refused = &answer["share"]["refused"];
    assert_eq!(refused["reason"], reason, "{answer}");
    assert_eq!(refused["progress"]["given"], 1, "{answer}");
    let status = site.ask("GET", "/v1/status", None);
    assert_eq!(status["state"], "sealed");
    assert_eq!(status["unseal"]["given"], 1, "{status}");
    // The share that was given still counts.
    let opened = site.give(&site.share(2));
    assert!(opened["share"]["opened"].is_object(), "{opened}");
    site.ask("POST", "/v1/seal", None);
}

/// A share's text with the character at `at` replaced by another of the alphabet.
fn mistyped(share: &Secret, at: usize) -> Secret {
    let mut text = share.expose().to_vec();
    text[at] = if text[at] == b'q' { b'p' } else { b'q' };
    secret(&text)
}

#[test]
fn a_mistyped_share_is_refused_wherever_the_slip_is() {
    SEALED.with(|site| {
        let share = site.share(2);
        let end = share.len() - 1;
        for at in [end / 2, end] {
            refused_share(site, "not_a_share", |s| s.give(&mistyped(&share, at)));
        }
    });
}

#[test]
fn a_share_that_is_cut_off_or_no_text_at_all_is_refused() {
    SEALED.with(|site| {
        let share = site.share(2);
        let half = secret(&share.expose()[..share.len() / 2]);
        refused_share(site, "not_a_share", |s| s.give(&half));
        refused_share(site, "not_a_share", |s| s.give(&secret(&[0xff; 4096])));
    });
}

#[test]
fn a_share_that_reads_well_and_holds_another_value_is_refused() {
    SEALED.with(|site| {
        // Everything is right but the value: set, generation, number and checksum.
        let real = Share::parse(site.share(2).expose()).expect("a share");
        let key = Key::random().expect("memory");
        let forged = split(&key, real.threshold(), real.set(), real.generation());
        let forged = forged.expect("shares").swap_remove(1);
        assert_eq!(forged.index(), real.index());
        let text = forged.to_text().expect("memory");
        refused_share(site, "damaged", |s| s.give(&text));
    });
}

#[test]
fn a_share_of_another_store_is_refused() {
    SEALED.with(|site| {
        let mut other = Appliance::start();
        other.init();
        refused_share(site, "other_store", |s| s.give(&other.share(2)));
    });
}

#[test]
fn a_share_that_is_given_twice_counts_once() {
    SEALED.with(|site| refused_share(site, "already_given", |s| s.give(&s.share(1))));
}

#[test]
fn a_share_under_another_plan_is_refused() {
    SEALED.with(|site| {
        refused_share(site, "other_plan", |s| {
            let plan = "00".repeat(32);
            let ticket = s.ticket(&json!({ "unseal": { "plan": plan } }));
            s.bring(&ticket, &s.share(2))
        });
    });
}

// Tickets.

#[test]
fn a_ticket_serves_once_also_when_that_was_refused() {
    SEALED.with(|site| {
        site.ask("POST", "/v1/unseal/cancel", None);
        let plan = site.ask("GET", "/v1/unseal", None);
        let ticket = site.ticket(&json!({ "unseal": { "plan": plan["digest"] } }));
        let first = site.bring(&ticket, &secret(b"no share"));
        assert_eq!(first["share"]["refused"]["reason"], "not_a_share");
        let again = site.bring(&ticket, &site.share(1));
        assert_eq!(again["error"]["code"], "ticket_invalid", "{again}");
        let status = site.ask("GET", "/v1/status", None);
        assert_eq!(status["unseal"]["given"], 0, "{status}");
    });
}

#[test]
fn a_ticket_that_was_never_issued_is_refused() {
    SEALED.with(|site| {
        site.ask("POST", "/v1/unseal/cancel", None);
        let answer = site.bring(&Ticket::from_bytes([7; 32]), &site.share(1));
        assert_eq!(answer["error"]["code"], "ticket_invalid", "{answer}");
        let status = site.ask("GET", "/v1/status", None);
        assert_eq!(status["unseal"]["given"], 0, "{status}");
    });
}

// Bundles.

fn module() -> PathBuf {
    workspace().join("tests/fixtures/echo")
}

/// `bundle` is refused with `code`, its reason is in the log, and no registry came or went.
fn refused_bundle(site: &Site, bundle: &[u8], code: &str, reason: &str) {
    let registries = site.ask("GET", "/v1/registries", None);
    let before = site.log().len();
    let answer = site.import(bundle);
    assert_eq!(answer["error"]["code"], code, "{answer}");
    let log = site.log().split_off(before);
    assert!(log.contains(&format!("bundle refused: {reason}")), "{log}");
    assert_eq!(site.ask("GET", "/v1/registries", None), registries);
    let left = std::fs::read_dir(site.folder().join("state/quarantine")).expect("a folder");
    assert_eq!(left.count(), 0, "files left in quarantine");
    works(site);
}

#[test]
fn a_bundle_with_a_flipped_byte_is_refused_wherever_it_is() {
    OPEN.with(|site| {
        let good = site.bundle(&module());
        let blocks = HEADER_LEN + 2 * BLOCK_LEN;
        for (at, reason) in [
            (0, "not_a_bundle"),
            (HEADER_LEN + BLOCK_LEN - 1, "bad_signature"),
            (blocks + 10, "bad_signature"),
            (good.len() - 1, "bad_blob"),
        ] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            refused_bundle(site, &bad, "bundle_refused", reason);
        }
    });
}

#[test]
fn a_bundle_that_is_cut_off_is_refused() {
    OPEN.with(|site| {
        let good = site.bundle(&module());
        for length in [1, HEADER_LEN, good.len() - 1] {
            refused_bundle(site, &good[..length], "bundle_refused", "wrong_length");
        }
    });
}

#[test]
fn a_bundle_with_too_few_signatures_is_refused() {
    OPEN.with(|site| {
        let good = site.bundle(&module());
        let once = with_blocks(&good, &[0]);
        refused_bundle(site, &once, "bundle_refused", "too_few_signatures");
    });
}

#[test]
fn one_key_that_signs_twice_counts_once() {
    OPEN.with(|site| {
        let good = site.bundle(&module());
        let twice = with_blocks(&good, &[0, 0]);
        refused_bundle(site, &twice, "bundle_refused", "key_twice");
    });
}

/// The bundle with those of its signature blocks.
fn with_blocks(bundle: &[u8], blocks: &[usize]) -> Vec<u8> {
    let mut made = bundle[..HEADER_LEN].to_vec();
    made[11] = u8::try_from(blocks.len()).expect("few");
    for block in blocks {
        let at = HEADER_LEN + block * BLOCK_LEN;
        made.extend_from_slice(&bundle[at..at + BLOCK_LEN]);
    }
    made.extend_from_slice(&bundle[HEADER_LEN + 2 * BLOCK_LEN..]);
    made
}

#[test]
fn a_bundle_of_an_older_sequence_is_refused() {
    OPEN.with(|site| {
        let (older, newer) = (site.bundle(&module()), site.bundle(&module()));
        assert!(site.import(&newer)["import"].is_object());
        refused_bundle(site, &older, "bundle_refused", "older_sequence");
    });
}

#[test]
fn the_same_bundle_again_is_said_to_be_here() {
    OPEN.with(|site| {
        let bundle = site.bundle(&module());
        assert!(site.import(&bundle)["import"].is_object());
        refused_bundle(site, &bundle, "already_imported", "already_imported");
    });
}

#[test]
fn another_bundle_of_one_sequence_is_refused_as_equivocation() {
    OPEN.with(|site| {
        let mut sequence = 0;
        let bundle = site.bundle_with(&module(), |options| sequence = options.sequence);
        assert!(site.import(&bundle)["import"].is_object());
        let other = site.bundle_with(&module(), |options| {
            options.sequence = sequence;
            options.notes = "another".into();
        });
        refused_bundle(site, &other, "equivocation", "equivocation");
    });
}

#[test]
fn a_bundle_for_another_site_is_refused() {
    OPEN.with(|site| {
        let elsewhere = vec![SiteId::parse("elsewhere").expect("a name")];
        let bundle = site.bundle_with(&module(), |options| options.audience = elsewhere);
        refused_bundle(site, &bundle, "bundle_refused", "other_audience");
    });
}

#[test]
fn an_import_without_a_file_is_refused() {
    OPEN.with(|site| {
        let ticket = site.ticket(&json!("import"));
        let answer = site.bring(&ticket, &secret(b"x"));
        assert_eq!(answer["error"]["code"], "request_invalid", "{answer}");
    });
}

// Clients.

/// A call of echo/get with `arguments` as they stand.
fn raw_call(id: u64, arguments: &str) -> String {
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"tests","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"call_module_tool","arguments":{{"module":"echo","tool_name":"get","arguments":{arguments}}},"_meta":{meta}}}}}"#
    )
}

/// The connection that took something bad still serves, and the service saw nothing of it.
fn goes_on(site: &Site, client: &mut Client, seen: usize) {
    assert_eq!(site.service.seen().len(), seen, "the service was asked");
    let answer = client.call("echo", "get", &json!({ "item": "after" }));
    assert_eq!(answer["isError"], false, "{answer}");
}

#[test]
fn an_unknown_module_and_a_hidden_tool_are_the_same_bytes() {
    OPEN.with(|site| {
        let line = |module: &str, tool: &str| {
            let mut bob = site.client("bob");
            bob.call(module, tool, &json!({ "item": "x" }));
            bob.transcript.pop().expect("an answer")
        };
        let hidden = line("echo", "get");
        assert!(hidden.contains("unknown_tool"), "{hidden}");
        assert_eq!(hidden, line("echo", "nothing"));
        assert_eq!(hidden, line("nothing", "get"));
    });
}

#[test]
fn arguments_of_ten_thousand_levels_are_answered() {
    OPEN.with(|site| {
        let (mut ada, seen) = (site.client("ada"), site.service.seen().len());
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        ada.send(&raw_call(7, &format!(r#"{{"item":{deep}}}"#)));
        let answer = ada.receive();
        assert_eq!(answer["id"], 7);
        assert_eq!(code(&answer["result"]), "arguments_invalid", "{answer}");
        goes_on(site, &mut ada, seen);
    });
}

#[test]
fn a_line_over_eight_mebibytes_is_answered_and_skipped() {
    OPEN.with(|site| {
        let (mut ada, seen) = (site.client("ada"), site.service.seen().len());
        let long = "x".repeat(8 << 20);
        ada.send(&raw_call(7, &format!(r#"{{"item":"{long}"}}"#)));
        let answer = ada.receive();
        assert_eq!(answer["error"]["code"], -32600, "{answer}");
        goes_on(site, &mut ada, seen);
    });
}

#[test]
fn lines_that_are_not_json_are_answered() {
    OPEN.with(|site| {
        let (mut ada, seen) = (site.client("ada"), site.service.seen().len());
        for line in ["hello", "{", "\0", r#"{"id":1,"id":2}"#] {
            ada.send(line);
            let answer = ada.receive();
            assert!(answer["error"]["code"].is_i64(), "{line}: {answer}");
        }
        goes_on(site, &mut ada, seen);
    });
}

#[test]
fn an_integer_over_64_bits_in_an_answer_is_refused_or_passed_as_it_is() {
    OPEN.with(|site| {
        let mut ada = site.client("ada");
        // Without an output schema the answer is text, digit for digit.
        let answer = ada.call("echo", "get", &json!({ "item": "number" }));
        let text = r#"{"big":123456789012345678901234567890}"#;
        assert_eq!(answer["content"][0]["text"], text, "{answer}");
        assert!(answer.get("structuredContent").is_none(), "{answer}");
        // With one it would become a number of the client's, which cannot hold it.
        let answer = ada.call("echo", "typed", &json!({ "item": "number" }));
        assert_eq!(code(&answer), "upstream_invalid", "{answer}");
        let said = answer["content"][0]["text"].as_str().expect("text");
        assert!(said.contains("/big is a number out of range"), "{said}");
        works(site);
    });
}

// The host.

/// What a second mcpistd under the same configuration says as it gives up.
fn second_daemon(folder: &Path) -> String {
    let second = Command::new(program("mcpistd"))
        .args(["--dev", "--config"])
        .arg(folder.join("mcpist.toml"))
        .stdin(Stdio::null())
        .output()
        .expect("mcpistd starts");
    assert!(!second.status.success());
    String::from_utf8_lossy(&second.stderr).into_owned()
}

#[test]
fn a_second_daemon_on_a_blank_folder_is_refused_and_leaves_the_init_token() {
    let mut appliance = Appliance::start();
    let token = appliance.folder().join("state/init-token");
    let before = std::fs::read(&token).expect("a token");
    let said = second_daemon(appliance.folder());
    assert!(said.contains("another mcpistd holds"), "{said}");
    assert_eq!(std::fs::read(&token).expect("a token"), before);
    appliance.init();
}

#[test]
fn a_second_daemon_on_the_folder_is_refused_and_touches_nothing() {
    OPEN.with(|site| {
        // What an import of the first one holds at this moment.
        let taken = site.folder().join("state/quarantine/taken.bundle");
        std::fs::write(&taken, b"in use").expect("a file");
        let said = second_daemon(site.folder());
        let state = site.folder().join("state");
        let named = format!("another mcpistd holds the folder {}", state.display());
        assert!(said.contains(&named), "{said}");
        assert!(taken.exists(), "the second one cleaned up after the first");
        std::fs::remove_file(&taken).expect("ours");
        works(site);
    });
}

/// The files of the vaults and their logs, as they stand while no process has them open.
fn vault_files(site: &Site) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = std::fs::read_dir(site.folder().join("state/store/vaults")).expect("a folder");
    let read = |file: PathBuf| {
        let bytes = std::fs::read(&file).expect("a file");
        (file, bytes)
    };
    folder
        .flatten()
        .map(|entry| entry.path())
        .map(read)
        .collect()
}

/// Puts the files of the vaults back as they were.
fn put_back(site: &Site, before: &[(PathBuf, Vec<u8>)]) {
    for (file, _) in vault_files(site) {
        std::fs::remove_file(file).expect("a file");
    }
    for (file, bytes) in before {
        std::fs::write(file, bytes).expect("a file");
        std::fs::set_permissions(file, Permissions::from_mode(0o600)).expect("ours");
    }
}

#[test]
fn a_vault_file_that_is_put_back_quarantines_that_vault_alone() {
    let mut site = open();
    site.ask("POST", "/v1/vaults", Some(&json!({ "name": "spare" })));
    site.kill_and_restart();
    let before = vault_files(&site);
    site.unseal();
    let stored = site.put_credential("token", "bearer", "canary-the-next-0c5be1");
    assert_eq!(stored["credential"]["version"], 2, "{stored}");
    // Sealing writes down that the change arrived; a crash in between is another case.
    site.ask("POST", "/v1/seal", None);
    site.kill_and_restart();
    put_back(&site, &before);
    site.give(&site.share(1));
    let opened = site.give(&site.share(2));
    let quarantined = &opened["share"]["opened"]["quarantined"];
    assert_eq!(quarantined, &json!(["main"]), "{opened}");

    let status = site.ask("GET", "/v1/status", None);
    let vaults = status["vaults"].as_array().expect("vaults");
    let vault = |name: &str| vaults.iter().find(|v| v["name"] == name).expect("a vault");
    assert_eq!(vault("main")["health"], "quarantined");
    let reason = vault("main")["reason"].as_str().expect("a reason");
    assert!(reason.contains("its file was put back"), "{reason}");
    assert_eq!(vault("spare")["health"], "ok", "{status}");

    let mut ada = site.client("ada");
    let answer = ada.call("echo", "get", &json!({ "item": "x" }));
    assert_eq!(code(&answer), "vault_quarantined", "{answer}");
    assert!(site.service.seen().is_empty());
    // The rest works: policy, schemas and a change.
    assert!(ada.schema(&json!({})).to_string().contains("echo"));
    site.change(&json!({ "principal-put": { "name": "carol" } }));
    let principals = site.ask("GET", "/v1/principals", None);
    assert!(principals.to_string().contains("carol"), "{principals}");
}

#[test]
fn a_vault_file_that_is_put_back_after_a_crash_is_never_opened_in_silence() {
    let mut site = open();
    site.kill_and_restart();
    let before = vault_files(&site);
    site.unseal();
    site.put_credential("token", "bearer", "canary-the-next-0c5be1");
    // Whether the store knows by now that the change arrived is up to the moment of the crash.
    site.kill_and_restart();
    put_back(&site, &before);
    site.give(&site.share(1));
    let opened = site.give(&site.share(2));
    let opened = &opened["share"]["opened"];
    let named = |list: &str| opened[list] == json!(["main"]);
    assert!(
        named("quarantined") != named("last_write_missing"),
        "{opened}"
    );
    let status = site.ask("GET", "/v1/status", None);
    let vaults = status["vaults"].as_array().expect("vaults");
    let main = vaults.iter().find(|v| v["name"] == "main");
    let main = main.unwrap_or_else(|| panic!("{status}\n{opened}\n{}", site.log()));
    let quarantined = main["health"] == "quarantined";
    assert_eq!(quarantined, named("quarantined"), "{main}");
    assert_eq!(main["last_write_missing"], !quarantined, "{main}");
}

// The audit log.

fn verified(site: &Site, files: &[Vec<u8>]) -> Report {
    let record = site.folder().join("ceremony-record");
    let record = std::fs::read_to_string(record).expect("a file");
    let key = record
        .lines()
        .find_map(|line| line.strip_prefix("audit key"))
        .expect("the key's line");
    let key = hex::decode(key.trim()).expect("hexadecimal");
    let mut verifier = Verifier::new(key.try_into().expect("32 bytes"));
    for (number, file) in files.iter().enumerate() {
        if number > 0 {
            verifier.next_file();
        }
        verifier.feed(file);
    }
    verifier.finish()
}

fn audit_files(folder: &Path) -> Vec<Vec<u8>> {
    let folder = std::fs::read_dir(folder.join("state/audit")).expect("a folder");
    let mut files: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "jsonl"));
    files.sort();
    let read = |file: PathBuf| std::fs::read(file).expect("a file");
    files.into_iter().map(read).collect()
}

#[test]
fn the_audit_log_verifies_and_a_flipped_byte_is_named_by_its_line() {
    let site = open();
    works(&site);
    site.ask("POST", "/v1/seal", None);
    let files = audit_files(site.folder());
    let good = verified(&site, &files);
    assert_eq!(good.problem, None);
    assert!(good.checkpoints > 0 && good.lines > 10, "{good:?}");
    assert_eq!(good.unsigned_tail, 0, "seal signs what it closes");

    let lines: Vec<&[u8]> = files[0].split_inclusive(|b| *b == b'\n').collect();
    for line in [1, lines.len() / 2, lines.len()] {
        let start: usize = lines[..line - 1].iter().map(|l| l.len()).sum();
        let mut bad = files.clone();
        bad[0][start + lines[line - 1].len() / 2] ^= 1;
        let problem = verified(&site, &bad).problem.expect("a problem");
        assert_eq!(problem.line, line as u64, "{problem}");
    }
    // A whole line that is taken out is missed as well.
    let cut = [&lines[..3], &lines[4..]].concat().concat();
    let problem = verified(&site, &[cut]).problem.expect("a problem");
    assert_eq!((problem.line, problem.fault), (4, Fault::Sequence));
}
