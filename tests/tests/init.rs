//! The day of init, from outside: init again until the first unseal, the guided ceremony on a real terminal, and what the
//! share commands say of its shares.
#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use std::path::Path;
use std::process::Output;

use mcpist_bundle::SigningKey;
use mcpist_quorum::{Identity, read_share};
use mcpist_tests::appliance::Appliance;
use mcpist_tests::look;
use mcpist_tests::programs::{cli, program};
use mcpist_tests::pty::Pty;
use mcpist_tests::start::Start;
use serde_json::{Value, json};

/// `mcpist` with these words, its standard input from `input`.
fn mcpist(appliance: &Appliance, words: &str, input: &str) -> Output {
    let desk = appliance.folder().join("desk");
    std::fs::create_dir_all(&desk).unwrap();
    std::fs::write(desk.join("input"), input).unwrap();
    cli()
        .arg("--run")
        .arg(appliance.folder().join("run"))
        .args(words.split(' '))
        .current_dir(&desk)
        .stdin(std::fs::File::open(desk.join("input")).unwrap())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn state(appliance: &Appliance) -> Value {
    appliance.ask("GET", "/v1/status", None)["state"].clone()
}

fn store(appliance: &Appliance) -> Value {
    appliance.ask("GET", "/v1/status", None)["store"].clone()
}

fn service() -> Appliance {
    Appliance::start_by(Start::service(program("mcpistd"), 0))
}

#[test]
fn init_runs_again_until_the_store_was_opened_and_never_after() {
    let mut appliance = Appliance::start();
    appliance.init();
    let (lost, first) = (appliance.share(1), store(&appliance));
    // The paper is lost, and the power goes: the gate is open as before, with a new token.
    appliance.kill_and_restart();
    appliance.init();
    assert_ne!(store(&appliance), first);
    let refused = appliance.give(&lost);
    assert_eq!(refused["share"]["refused"]["reason"], "other_store");
    appliance.kill_and_restart();
    appliance.unseal();
    assert_eq!(state(&appliance), "unsealed");
    for _ in 0..2 {
        assert!(!appliance.folder().join("state/init-token").exists());
        assert!(!appliance.folder().join("state/unopened").exists());
        let refused = mcpist(
            &appliance,
            "init --token-file - --threshold 2 --holder a=b --root input",
            "00",
        );
        assert!(
            said(&refused).starts_with("error[already_initialised]"),
            "{}",
            said(&refused)
        );
        appliance.kill_and_restart();
    }
    appliance.unseal();
}

#[test]
fn a_plan_that_was_not_confirmed_leaves_the_store_that_is_there() {
    let mut appliance = Appliance::start();
    appliance.init();
    let first = store(&appliance);
    let token = std::fs::read(appliance.folder().join("state/init-token")).unwrap();
    let token = mcpist_secret::Secret::copy_of(token.trim_ascii()).unwrap();
    let shown = appliance.bring(&appliance.ticket(&json!("init_token")), &token);
    assert_eq!(shown, json!("init_token"));
    let holder =
        |n: usize| json!({"label": format!("h{n}"), "recipient": Identity::generate().recipient()});
    let request = json!({"threshold": 2, "root": appliance.root_text(), "officers": [], "dev": true,
        "holders": [holder(1), holder(2)]});
    let plan = appliance.ask("POST", "/v1/init", Some(&request));
    assert_eq!(plan["replaces"], first);
    appliance.kill_and_restart();
    assert_eq!(store(&appliance), first);
    appliance.unseal();
    // The plan went with the process, and the gate with the first unseal.
    let confirmed = json!({"digest": plan["digest"]});
    let (_, answer) = appliance.admin("POST", "/v1/init/confirm", Some(&confirmed));
    assert_eq!(answer["error"]["code"], "already_initialised");
}

#[test]
fn a_store_whose_mark_cannot_go_is_not_opened() {
    let mut appliance = Appliance::start();
    appliance.init();
    let mark = appliance.folder().join("state/unopened");
    std::fs::remove_file(&mark).unwrap();
    std::fs::create_dir_all(mark.join("in-the-way")).unwrap();
    appliance.give(&appliance.share(1));
    let answer = appliance.give(&appliance.share(2));
    assert_eq!(answer["error"]["code"], "unavailable", "{answer}");
    assert_eq!(state(&appliance), "sealed");
    std::fs::remove_dir_all(&mark).unwrap();
    appliance.unseal();
}

#[test]
fn a_mark_of_another_store_opens_no_gate() {
    let mut appliance = Appliance::start();
    appliance.init();
    appliance.unseal();
    appliance.kill();
    let mark = appliance.folder().join("state/unopened");
    std::fs::write(mark, "11111111-1111-4111-9111-111111111111\n").unwrap();
    appliance.restart();
    assert!(!appliance.folder().join("state/init-token").exists());
}

/// The words on the page, by their numbers.
fn words(page: &str) -> Vec<String> {
    let found: Vec<_> = (1..=44)
        .map(|number| {
            let after = page.rsplit(&format!(" {number}. ")).next().unwrap();
            let word: String = after.chars().take_while(char::is_ascii_lowercase).collect();
            assert!(!word.is_empty(), "no word {number}: {page}");
            word
        })
        .collect();
    found
}

/// What stays on a terminal that keeps everything but its other screen.
fn stays(shown: &str) -> String {
    let mut parts = shown.split("\x1b[?1049h");
    let mut kept = parts.next().unwrap().to_owned();
    for part in parts {
        let (hidden, after) = part
            .split_once("\x1b[?1049l")
            .expect("the other screen was left");
        assert!(
            hidden.ends_with("\x1b[2J\x1b[3J\x1b[H"),
            "it was not cleared first"
        );
        kept += after;
    }
    kept
}

/// A service with the root and the officers' keys at hand, and the line of officers' keys.
fn guided() -> (Appliance, [String; 2], Pty) {
    let appliance = service();
    let desk = appliance.folder().join("desk");
    std::fs::create_dir(&desk).unwrap();
    let mcpist = program("mcpist").display();
    let keys = [(); 2].map(|()| {
        let public = SigningKey::generate().unwrap().public();
        json!(public).as_str().unwrap().to_owned()
    });
    std::fs::write(desk.join("root.json"), appliance.root()).unwrap();
    let run = appliance.folder().join("run");
    let command = format!(
        "{mcpist} --run {} init --guided --token-file ../state/init-token --out shares",
        run.display()
    );
    let pty = Pty::run(&desk, &command);
    (appliance, keys, pty)
}

fn officers(pty: &mut Pty, keys: &[String; 2]) {
    for (at, key) in keys.iter().enumerate() {
        pty.answer(&format!("Name of officer {}", at + 1), ["ada", "bob"][at]);
        pty.answer("Public key of", key);
    }
    pty.answer("Name of officer 3", "");
    pty.answer("Folder for the files [shares]: ", "");
}

#[test]
fn the_guided_ceremony_forgives_mistakes_and_leaves_no_share_behind() {
    let (appliance, keys, mut pty) = guided();
    let eve = Identity::generate();
    let desk = appliance.folder().join("desk");
    std::fs::write(desk.join("eve.txt"), eve.to_text().unwrap().expose()).unwrap();
    pty.answer("Trust root", "nowhere.json");
    pty.expect("nowhere.json: ");
    pty.answer("Trust root", "root.json");
    pty.answer("How many custodians?", "many");
    pty.expect("give a number");
    pty.answer("How many custodians?", "3");
    pty.answer("How many of them", "4");
    pty.answer("How many of them", "2");
    pty.answer("Name of custodian 1: ", "ada");
    pty.answer("Age recipient of ada", "");
    pty.answer("Name of custodian 2: ", "ada");
    pty.expect("nobody else's");
    pty.answer("Name of custodian 2: ", "bob");
    pty.answer("Age recipient of bob", "age1oops");
    pty.expect("not an age recipient");
    pty.answer("Age recipient of bob", "");
    pty.answer("Name of custodian 3: ", "eve");
    pty.answer("Age recipient of eve", &eve.recipient());
    officers(&mut pty, &keys);
    pty.answer("Make this store?", "y");

    // ada: an interrupt while the share is shown, a word that is none, one wrong word, and the share in pieces.
    pty.answer("Enter shows it.", "");
    let ada = words(&pty.expect("Enter clears the screen. "));
    pty.press("\x03\n");
    pty.answer("\r\n> ", &format!("{} nonsensical", ada[0]));
    pty.expect("word 2 is not on the list");
    // She looks once more.
    pty.answer("> ", "");
    assert_eq!(words(&pty.expect("Enter clears the screen. ")), ada);
    pty.press("\n");
    let mut wrong = ada.clone();
    wrong[2] = if wrong[2] == "zoo" { "wolf" } else { "zoo" }.to_owned();
    pty.answer("> ", &wrong.join(" "));
    pty.expect("word 3 seems wrong");
    let short: Vec<_> = ada.iter().map(|w| &w[..w.len().min(4)]).collect();
    pty.answer("> ", &short[..20].join(" "));
    pty.answer("20 of 44> ", &short[20..].join(" "));
    pty.answer("It is the share.", "");
    // bob reads his from the picture: the text, in one line.
    pty.answer("Enter shows it.", "");
    let page = pty.expect("Enter clears the screen. ");
    let bob = page.split("mcpist-share1").last().unwrap();
    let bob = format!("mcpist-share1{}", bob.split_whitespace().next().unwrap());
    pty.press("\n");
    pty.answer("> ", &ada.join(" "));
    pty.expect("another one than was shown");
    pty.answer("> ", &bob);
    pty.answer("It is the share.", "");

    // The trial: eve's file, once under another identity, then ada's words; bob is not needed.
    let other = Identity::generate();
    std::fs::write(desk.join("other.txt"), other.to_text().unwrap().expose()).unwrap();
    pty.expect("0 of 2 given.");
    pty.answer("Age file", "shares/share-3-eve.age");
    pty.answer("that opens it: ", "other.txt");
    pty.expect("not encrypted to this identity");
    pty.answer("Age file", "shares/share-3-eve.age");
    pty.answer("that opens it: ", "eve.txt");
    pty.expect("1 of 2 given.");
    pty.answer("Age file", "");
    pty.answer("> ", &ada.join(" "));
    pty.expect("unsealed: ");
    pty.answer("Seal it again now?", "y");
    let (status, shown) = pty.end();
    assert!(status.success(), "{shown}");
    assert!(
        shown.contains("initialised, and opened by its custodians"),
        "{shown}"
    );
    assert_eq!(state(&appliance), "sealed");

    let kept = stays(&shown);
    for secret in [
        &ada[..4].join(" "),
        &short[..4].join(" "),
        "mcpist-share1",
        " 1. ",
    ] {
        assert!(!kept.contains(secret), "{secret:?} stays: {kept}");
    }
    let places = [appliance.folder()];
    look::holds_nowhere("mcpist-share1", "MCPist ceremony record", &places);
    look::holds_nowhere(&ada[..4].join(" "), "MCPist ceremony record", &places);
    assert!(!desk.join("shares/share-1-ada.age").exists());

    commands_know_the_share(&appliance, &desk, &ada.join("\n"), &bob);
}

/// The words from paper and the text from the picture, in the commands that take a share.
fn commands_know_the_share(appliance: &Appliance, desk: &Path, ada: &str, bob: &str) {
    let share = read_share(ada.as_bytes()).unwrap();
    let inspected = said(&mcpist(appliance, "share inspect", ada));
    assert!(
        inspected.contains(&format!(
            "share       1 of 3, 2 are needed\ndigest      {}",
            share.digest()
        )),
        "{inspected}"
    );
    for secret in [
        ada.split('\n').take(2).collect::<Vec<_>>().join(" "),
        bob[20..40].to_owned(),
    ] {
        assert!(!inspected.contains(&secret), "{inspected}");
    }
    let verified = said(&mcpist(
        appliance,
        "share verify --record shares/ceremony.bin",
        bob,
    ));
    assert!(
        verified.starts_with("whole, and the share of bob\n"),
        "{verified}"
    );
    let record = said(&mcpist(
        appliance,
        "share record shares/ceremony.bin --init shares/ceremony.bin",
        "",
    ));
    assert!(record.ends_with("\nsigned by that store key\n"), "{record}");

    let other = Appliance::start();
    let foreign = mcpist(&other, "share verify --record nowhere", "");
    assert!(
        said(&foreign).starts_with("error[file]"),
        "{}",
        said(&foreign)
    );
    let mut forged = std::fs::read(desk.join("shares/ceremony.bin")).unwrap();
    let at = forged.len() / 2;
    forged[at] ^= 1;
    std::fs::write(desk.join("forged.bin"), forged).unwrap();
    let refused = said(&mcpist(appliance, "share record forged.bin", ""));
    assert!(refused.starts_with("error[ceremony_record]"), "{refused}");

    let wrong = said(&mcpist(
        appliance,
        "unseal",
        &ada.replacen('\n', " zoo ", 1),
    ));
    assert!(
        wrong.contains("error[share]: a share is 44 words, got 45"),
        "{wrong}"
    );
    let taken = said(&mcpist(appliance, "unseal --share-file -", ada));
    assert!(taken.contains("taken: 1 of 2 shares (ada)"), "{taken}");
    let opened = said(&mcpist(appliance, "unseal", bob));
    assert!(opened.contains("unsealed: "), "{opened}");
}

#[test]
fn the_guided_ceremony_begins_anew_where_the_trial_fails() {
    let (appliance, keys, mut pty) = guided();
    let desk = appliance.folder().join("desk");
    let people = [Identity::generate(), Identity::generate()];
    for (at, identity) in people.iter().enumerate() {
        std::fs::write(
            desk.join(format!("{at}.txt")),
            identity.to_text().unwrap().expose(),
        )
        .unwrap();
    }
    let ask = |pty: &mut Pty| {
        pty.answer("Trust root", "root.json");
        pty.answer("How many custodians?", "2");
        pty.answer("How many of them", "2");
        for (at, name) in ["ada", "bob"].into_iter().enumerate() {
            pty.answer(&format!("Name of custodian {}: ", at + 1), name);
            pty.answer("Age recipient of", &people[at].recipient());
        }
        officers(pty, &keys);
    };
    ask(&mut pty);
    pty.answer("Make this store?", "n");
    ask(&mut pty);
    pty.answer("Make this store?", "y");
    pty.expect("0 of 2 given.");
    let first = store(&appliance);
    pty.answer("Age file", "anew");
    pty.answer("Begin anew?", "y");
    ask(&mut pty);
    pty.expect(&format!(
        "in the place of store {}",
        first.as_str().unwrap()
    ));
    pty.answer("Make this store?", "y");
    for (at, name) in ["ada", "bob"].into_iter().enumerate() {
        pty.answer("Age file", &format!("shares/share-{}-{name}.age", at + 1));
        pty.answer("that opens it: ", &format!("{at}.txt"));
    }
    pty.answer("Seal it again now?", "n");
    let (status, shown) = pty.end();
    assert!(status.success(), "{shown}");
    assert_eq!(state(&appliance), "unsealed");
    assert_ne!(store(&appliance), first);
}

#[test]
fn new_shares_are_shown_typed_back_and_proved_on_one_terminal() {
    let mut appliance = Appliance::start();
    appliance.init();
    appliance.unseal();
    let desk = appliance.folder().join("desk");
    std::fs::create_dir(&desk).unwrap();
    let joe = Identity::generate();
    std::fs::write(desk.join("joe.txt"), joe.to_text().unwrap().expose()).unwrap();
    let (program, run) = (program("mcpist").display(), appliance.folder().join("run"));
    let command = format!("{program} --run {} rekey --guided --out new", run.display());
    let mut pty = Pty::run(&desk, &command);
    pty.answer("How many custodians?", "2");
    pty.answer("How many of them", "2");
    pty.answer("Name of custodian 1: ", "kim");
    pty.answer("Age recipient of", "");
    pty.answer("Name of custodian 2: ", "joe");
    pty.answer("Age recipient of", &joe.recipient());
    pty.answer("Begin to give the store", "y");
    // Two of the holders of now consent, on one of whom a wrong word is no end.
    pty.answer("Age file of the next share", "");
    pty.answer("> ", "nonsensical");
    pty.expect("word 1 is not on the list");
    let text =
        |number: usize| String::from_utf8(appliance.share(number).expose().to_vec()).unwrap();
    pty.answer("> ", &text(1));
    pty.expect("1 of 2 given.");
    pty.answer("Age file of the next share", "");
    pty.answer("> ", &text(2));
    // kim writes hers down; what she types back is her proof.
    pty.answer("Enter shows it.", "");
    let kim = words(&pty.expect("Enter clears the screen. "));
    pty.press("\n");
    pty.answer("> ", &kim.join(" "));
    pty.answer("It is the share.", "");
    pty.expect("1 of 2 given.");
    pty.answer("Age file of the next share", "new/share-2-joe-g2.age");
    pty.answer("that opens it: ", "joe.txt");
    let (status, shown) = pty.end();
    assert!(status.success(), "{shown}");
    assert!(
        shown.contains("done: the shares of generation 2 open the store"),
        "{shown}"
    );
    assert!(!stays(&shown).contains(&kim[..3].join(" ")), "{shown}");

    appliance.ask("POST", "/v1/seal", None);
    let refused = appliance.give(&appliance.share(1));
    assert_eq!(
        refused["share"]["refused"]["reason"], "superseded",
        "{refused}"
    );
    let taken = said(&mcpist(&appliance, "unseal", &kim.join("\n")));
    assert!(taken.contains("taken: 1 of 2 shares (kim)"), "{taken}");
    let words = "unseal --share-file new/share-2-joe-g2.age --identity joe.txt";
    let opened = said(&mcpist(&appliance, words, ""));
    assert!(opened.contains("unsealed: "), "{opened}");
}

#[test]
fn words_typed_at_unseal_are_not_shown_and_a_wrong_one_is_named_by_its_place_alone() {
    let mut appliance = Appliance::start();
    appliance.init();
    let share = read_share(appliance.share(1).expose()).unwrap();
    let words = String::from_utf8(share.to_words().unwrap().expose().to_vec()).unwrap();
    let words: Vec<_> = words.split(' ').collect();
    let (program, run) = (program("mcpist").display(), appliance.folder().join("run"));
    let command = format!("{program} --run {} unseal", run.display());
    let mut pty = Pty::run(appliance.folder(), &command);
    pty.answer("\r\n> ", &words[..20].join(" "));
    pty.answer("20 of 44> ", &format!("{} abandonned", words[20]));
    pty.expect("word 22 is not on the list: type this line again");
    pty.answer("20 of 44> ", &words[20..].join(" ").to_uppercase());
    let (status, shown) = pty.end();
    assert!(
        status.success() && shown.contains("taken: 1 of 2 shares"),
        "{shown}"
    );
    for typed in [
        words[..3].join(" "),
        words[40..].join(" ").to_uppercase(),
        "abandon".to_owned(),
    ] {
        assert!(
            !shown.contains(&typed),
            "{typed:?} is on the screen: {shown}"
        );
    }
}

#[test]
fn lines_that_were_pasted_past_a_share_s_end_are_not_the_next_program_s() {
    let folder = tempfile::tempdir().unwrap();
    let command = format!("{} share inspect; cat", program("mcpist").display());
    let mut pty = Pty::run(folder.path(), &command);
    pty.expect("> ");
    // The first line ends the reading; the second would be a command of the shell.
    pty.press("\nabandon ability able\n");
    pty.expect("error[");
    pty.press("after\n\x04");
    let (_, shown) = pty.end();
    assert!(shown.contains("after"), "{shown}");
    assert!(!shown.contains("ability"), "{shown}");
}

#[test]
fn a_cancel_and_a_seal_say_what_they_dropped_and_the_log_holds_it() {
    let mut appliance = Appliance::start();
    appliance.init();
    let data = |words: &str| {
        let done = mcpist(&appliance, &format!("--output json {words}"), "");
        assert!(done.status.success(), "{}", said(&done));
        serde_json::from_slice::<Value>(&done.stdout).unwrap()["data"].clone()
    };
    let given = || appliance.ask("GET", "/v1/status", None)["unseal"]["given"].clone();
    assert_eq!(data("unseal --cancel"), json!({ "cancelled": false }));
    assert_eq!(data("seal"), json!({ "dropped": 0 }));
    appliance.give(&appliance.share(1));
    assert_eq!(data("unseal --cancel"), json!({ "cancelled": true }));
    assert_eq!(given(), 0);
    appliance.give(&appliance.share(1));
    assert_eq!(data("seal"), json!({ "dropped": 1 }));
    assert_eq!(given(), 0);
    appliance.unseal();
    // An open store's ceremony holds shares as well.
    let open = appliance.ask("POST", "/v1/ceremony", Some(&json!("rotate_root")));
    let ticket = appliance.ticket(&json!({ "share": { "plan": open["digest"] } }));
    let taken = appliance.bring(&ticket, &appliance.share(1));
    assert_eq!(taken["share"]["pending"]["given"], 1, "{taken}");
    assert_eq!(data("seal")["dropped"], 1);
    let log = std::fs::read_to_string(appliance.folder().join("state/audit/audit-00000000.jsonl"));
    let log = log.unwrap();
    let dropped: Vec<Value> = (log.lines())
        .filter(|line| line.contains("unseal_cancelled"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(dropped.len(), 1, "{log}");
    assert_eq!(dropped[0]["repeats"], 2, "{log}");
}
