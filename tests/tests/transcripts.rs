//! Golden transcripts: what an operator types, and every line that comes back, as files that are reviewed like code.
//!
//! Each file of `tests/tests/transcripts/*.txt` is one host from its first day. A real mcpistd runs as a service, its
//! runner's uid is the tests' own, and the commands run one after the other in a shell in an empty folder, with
//! `mcpist` on PATH. The form:
//!
//! - `# …` is a remark, outside of an answer.
//! - `$ command` is run by `sh`; the lines below it, to the next empty line, are all that it wrote, both streams in their
//!   order. An empty line of it is written as `.`, and `? N` at its end is an exit status other than 0.
//! - `$ pty command` runs it on a terminal. Below it, `> prompt | text` waits for the prompt and types the text and Enter; the
//!   text `{words}` is the share that was shown last, `$NAME` what the environment has. What the terminal shows follows, with `[private]` for all that was
//!   on the other screen.
//! - `! kill` kills the daemon with SIGKILL and starts it again; `! stop` ends it in order, and `! start` starts it.
//! - `! standby` starts a second, blank host: `standby` is its `mcpist` from then on, `standby/init-token` its token.
//! - At hand are `root.json`, `token` (the init token of now), the age identities `ada.txt`, `bob.txt`, `eve.txt`, and in
//!   the environment their recipients `$ADA`, `$BOB`, `$EVE` and two officers' keys `$OFFICER1`, `$OFFICER2`.
//!
//! What differs from run to run is written as `HEX`, `UUID`, `AGE`, `TIME`, `N min`, `N h`, the figures of a drill as `N`, and the
//! host's folder as `HOST`.
//! `MCPIST_TRANSCRIPTS=write cargo test -p mcpist-tests --test transcripts` writes the files anew; read the difference.
#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mcpist_bundle::SigningKey;
use mcpist_quorum::Identity;
use mcpist_tests::appliance::Appliance;
use mcpist_tests::programs::program;
use mcpist_tests::pty::Pty;
use mcpist_tests::start::Start;
use serde_json::json;

/// One host and its desk.
struct Desk {
    appliance: Appliance,
    standby: Option<Appliance>,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    /// The words of the share that was shown last.
    words: RefCell<String>,
}

fn host() -> Appliance {
    let uid = nix::unistd::Uid::effective().as_raw();
    Appliance::start_by(Start::service(program("mcpistd"), uid))
}

impl Desk {
    fn new() -> Desk {
        let appliance = host();
        let folder = appliance.folder().join("desk");
        let bin = appliance.folder().join("bin");
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(&bin).unwrap();
        command_of(&appliance, &bin.join("mcpist"));
        std::fs::write(folder.join("root.json"), appliance.root()).unwrap();
        std::os::unix::fs::symlink("../state/init-token", folder.join("token")).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        // Receipts are kept below it.
        let home = folder.join("home").display().to_string();
        let mut environment = vec![
            ("PATH".to_owned(), path),
            ("XDG_STATE_HOME".to_owned(), home),
        ];
        for name in ["ada", "bob", "eve"] {
            let identity = Identity::generate();
            let text = identity.to_text().unwrap();
            std::fs::write(folder.join(format!("{name}.txt")), text.expose()).unwrap();
            environment.push((name.to_uppercase(), identity.recipient()));
        }
        for name in ["OFFICER1", "OFFICER2"] {
            let key = json!(SigningKey::generate().unwrap().public());
            environment.push((name.to_owned(), key.as_str().unwrap().to_owned()));
        }
        Desk {
            appliance,
            standby: None,
            folder,
            environment,
            words: RefCell::default(),
        }
    }

    /// What a line that begins with `!` asks for.
    fn obey(&mut self, what: &str) {
        match what {
            "kill" => self.appliance.kill_and_restart(),
            "stop" => self.appliance.stop(),
            "start" => self.appliance.restart(),
            "standby" => {
                let standby = host();
                let bin = self.appliance.folder().join("bin");
                command_of(&standby, &bin.join("standby"));
                let state = standby.folder().join("state");
                std::os::unix::fs::symlink(state, self.folder.join("standby")).unwrap();
                self.standby = Some(standby);
            }
            _ => panic!("nothing is called {what}"),
        }
    }

    fn run(&self, command: &str) -> String {
        let done = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(&self.folder)
            .envs(self.environment.iter().cloned())
            .output()
            .unwrap();
        let mut said = String::from_utf8_lossy(&done.stdout).into_owned();
        if let Some(code @ 1..) = done.status.code() {
            if !said.is_empty() && !said.ends_with('\n') {
                said.push('\n');
            }
            writeln!(said, "? {code}").unwrap();
        }
        said
    }

    /// The command on a terminal, with each text typed after its prompt.
    fn type_at(&self, command: &str, typed: &[(String, String)]) -> String {
        let quoted = |(name, value): &(String, String)| format!("export {name}='{value}'; ");
        let exports: String = self.environment.iter().map(quoted).collect();
        let mut pty = Pty::run(&self.folder, &(exports + command));
        for (prompt, text) in typed {
            let since = pty.expect(prompt);
            if since.contains(" 44. ") {
                self.words.replace(words_on(&since));
            }
            let text = text.replace("{words}", &self.words.borrow());
            let named = self
                .environment
                .iter()
                .find(|(name, _)| text == format!("${name}"));
            let text = named.map_or(text.as_str(), |(_, value)| value);
            pty.press(&format!("{text}\n"));
        }
        let (status, shown) = pty.end();
        let mut said = visible(&shown);
        if let Some(code @ 1..) = status.code() {
            writeln!(said, "? {code}").unwrap();
        }
        said
    }

    /// The answer of a block's command, as its file has it.
    fn answer(&self, command: &str, typed: &[(String, String)]) -> String {
        let said = match command.strip_prefix("pty ") {
            Some(command) => self.type_at(command, typed),
            None => self.run(command),
        };
        let standby = self.standby.iter().map(|host| (host, "STANDBY"));
        let hosts = standby.chain([(&self.appliance, "HOST")]);
        let said = hosts.fold(said, |said, (host, name)| {
            said.replace(&host.folder().display().to_string(), name)
        });
        let said = normal(&said);
        let lines = said.lines().map(|line| match line.trim_end() {
            "" => ".\n".to_owned(),
            line => format!("{line}\n"),
        });
        lines.collect()
    }
}

/// Writes an `mcpist` that speaks to this host.
fn command_of(host: &Appliance, file: &Path) {
    let (real, run) = (program("mcpist").display(), host.folder().join("run"));
    let wrapper = format!("#!/bin/sh\nexec {real} --run {} \"$@\"\n", run.display());
    std::fs::write(file, wrapper).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(file, mode).unwrap();
}

/// The words of a share's page, in the order of their numbers.
fn words_on(page: &str) -> String {
    let word = |number: usize| {
        let after = page.rsplit(&format!(" {number}. ")).next().unwrap();
        let word: String = after.chars().take_while(char::is_ascii_lowercase).collect();
        word
    };
    (1..=44).map(word).collect::<Vec<_>>().join(" ")
}

/// What a terminal shows, without what was on its other screen and without its control sequences.
fn visible(shown: &str) -> String {
    let mut kept = String::new();
    for (at, part) in shown.split("\x1b[?1049h").enumerate() {
        let part = match (at, part.split_once("\x1b[?1049l")) {
            (0, _) => part,
            (_, Some((_, after))) => {
                kept += "[private]\n";
                after
            }
            (_, None) => panic!("the other screen was not left: {shown}"),
        };
        kept += part;
    }
    let mut plain = String::new();
    let mut pieces = kept.split("\x1b[");
    plain += pieces.next().unwrap();
    for piece in pieces {
        let end = piece.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        plain += &piece[end + 1..];
    }
    // A line that was drawn over is what it was at its end.
    let lines = plain.replace("\r\n", "\n");
    let lines = lines
        .split('\n')
        .map(|line| line.rsplit('\r').next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// The text with `TIME` for every time of the form 2026-11-24T16:24:43Z.
fn without_times(text: &str) -> String {
    let is_time = |part: &str| {
        let form = part
            .bytes()
            .map(|b| if b.is_ascii_digit() { b'0' } else { b });
        form.eq(*b"0000-00-00T00:00:00Z")
    };
    let (mut out, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let time = rest.get(..20).filter(|part| is_time(part));
        out += time.map_or(&rest[..first.len_utf8()], |_| "TIME");
        rest = &rest[time.map_or(first.len_utf8(), str::len)..];
    }
    out
}

/// The text with what differs from run to run replaced.
fn normal(text: &str) -> String {
    let mut out = String::new();
    let text = &without_times(text);
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
        let end = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let hex = |part: &str| part.bytes().all(|b| b.is_ascii_hexdigit());
        let shape: Vec<_> = end.split('-').map(str::len).collect();
        let name = if end.len() >= 16 && hex(end) {
            "HEX"
        } else if shape == [8, 4, 4, 4, 12] && hex(&end.replace('-', "")) {
            "UUID"
        } else if end.len() > 50 && end.starts_with("age1") {
            "AGE"
        } else if shape == [4, 2, 2] && hex(&end.replace('-', "")) {
            "DATE"
        } else if end.strip_prefix("ceremony-").is_some_and(hex) {
            "ceremony-HEX"
        } else {
            end
        };
        out += name;
        out += &word[end.len()..];
    }
    let lines = out.lines().map(|line| {
        // What this host's kernel has, and for how long.
        if line.starts_with("memory  ") {
            return "memory    MEMORY".to_owned();
        }
        if let Some((before, after)) = line.split_once(", up ") {
            let after = after.split_once(',').map_or("", |(_, after)| after);
            return format!("{before}, up TIME,{after}");
        }
        // How old a backup is, and how long its drill took.
        if line.starts_with("lost  ") || line.starts_with("took  ") {
            return without_figures(line);
        }
        // A store that is idle for a second settles: one generation more, on a host that was slow here.
        if is_of_a_store(line) {
            return without_figures(line);
        }
        let line = match line.split_once("DATE ") {
            Some((before, _)) if line.ends_with(" UTC") => format!("{before}TIME"),
            _ => line.to_owned(),
        };
        match line.split_once("expires in ") {
            // 24 hours are 23 one second later.
            Some((before, after)) if after.ends_with(" h") => format!("{before}expires in N h"),
            Some((before, after)) if after.ends_with(" min") => format!("{before}expires in N min"),
            _ => line,
        }
    });
    lines.map(|line| line + "\n").collect()
}

/// Whether a line says at which generation a store is; that of a sharing is not one.
fn is_of_a_store(line: &str) -> bool {
    let of_a_receipt = line.strip_prefix("generation ");
    of_a_receipt.is_some_and(|figure| !figure.starts_with(' '))
        || ["life  ", "made  "].iter().any(|of| line.starts_with(of))
            && line.contains(", generation ")
        || line.contains(": it is at generation ")
        || line.starts_with("the store agrees, and has ")
}

fn without_figures(line: &str) -> String {
    let mut out = String::new();
    for c in line.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('N') => {}
            true => out.push('N'),
            false => out.push(c),
        }
    }
    out
}

/// The file as it would be written from what comes back today.
fn played(text: &str) -> String {
    let mut desk = Desk::new();
    let (mut out, mut lines) = (String::new(), text.lines().peekable());
    while let Some(line) = lines.next() {
        writeln!(out, "{line}").unwrap();
        if let Some(what) = line.strip_prefix("! ") {
            desk.obey(what);
            continue;
        }
        let Some(command) = line.strip_prefix("$ ") else {
            assert!(
                line.is_empty() || line.starts_with("# "),
                "an answer without a command: {line}"
            );
            continue;
        };
        let mut typed = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("> ")) {
            writeln!(out, "{line}").unwrap();
            let (prompt, text) = line[2..].split_once(" |").expect("> prompt | text");
            typed.push((prompt.to_owned(), text.trim().to_owned()));
        }
        while lines.next_if(|line| !line.is_empty()).is_some() {}
        out += &desk.answer(command, &typed);
    }
    out
}

fn holds(name: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(name);
    let golden = std::fs::read_to_string(&file).unwrap();
    let now = played(&golden);
    if std::env::var_os("MCPIST_TRANSCRIPTS").is_some_and(|how| how == "write") {
        std::fs::write(&file, now).unwrap();
        return;
    }
    for (number, (golden, now)) in golden.lines().zip(now.lines()).enumerate() {
        assert_eq!(golden, now, "{name}, line {}", number + 1);
    }
    assert_eq!(golden.lines().count(), now.lines().count(), "{name}: {now}");
}

#[test]
fn init() {
    holds("init.txt");
}

#[test]
fn init_guided() {
    holds("init-guided.txt");
}

#[test]
fn shares() {
    holds("shares.txt");
}

#[test]
fn rekey() {
    holds("rekey.txt");
}

#[test]
fn rekey_guided() {
    holds("rekey-guided.txt");
}

#[test]
fn rotate() {
    holds("rotate.txt");
}

#[test]
fn repair() {
    holds("repair.txt");
}

#[test]
fn restore() {
    holds("restore.txt");
}

#[test]
fn vault_restore() {
    holds("vault-restore.txt");
}

#[test]
fn unseal() {
    holds("unseal.txt");
}

#[test]
fn vault_quorum() {
    holds("vault-quorum.txt");
}

#[test]
fn witness() {
    holds("witness.txt");
}

#[test]
fn standby() {
    holds("standby.txt");
}

#[test]
fn every_file_is_played() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let call = format!("holds(\"{name}\");");
        assert!(
            include_str!("transcripts.rs").contains(&call),
            "no test plays {name}"
        );
    }
}

#[test]
fn what_differs_from_run_to_run_is_named() {
    let said = "store 6f9619ff-8b86-4d01-b42d-00cf4fc964ff\nkey: 00112233445566778899 (1 of 3); expires in 10 min\n\
                made 2026-09-21 14:13:20 UTC\nbad face\n\
                begun 2026-09-21T14:13:20Z, generation 1\ntook      0.012 s: reading 0.001 s\n";
    assert_eq!(
        normal(said),
        "store UUID\nkey: HEX (1 of 3); expires in N min\nmade TIME\nbad face\n\
         begun TIME, generation 1\ntook      N.N s: reading N.N s\n"
    );
    let screen = "a\x1b[?1049h\x1b[2Jsecret\x1b[2J\x1b[?1049lb\r\n\x1b[0mc";
    assert_eq!(visible(screen), "a[private]\nb\nc");
}
