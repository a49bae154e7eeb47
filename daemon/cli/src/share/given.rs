//! The ways by which a holder's share comes to this program: a file, standard input, or a terminal.
//!
//! Promises that a share may be text, words or an age file, whichever way it comes; that what is damaged is named before
//! it is sent anywhere; and that what was typed on a terminal line by line is checked as it is typed.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use mcpist_quorum::{
    Identity, MAX_SHARE_FILE, MAX_WORDS_TEXT, SHARE_WORDS, Share, is_share_word, nearest_words,
    open_share_file, read_share, words_of,
};
use mcpist_secret::Secret;

use crate::error::{Error, Result};
use crate::secret;
use crate::terminal::Terminal;

/// What ceremony.bin begins with (FORMATS).
const RECORD_MAGIC: &[u8] = b"mcpcerem";

/// Where a share comes from; nothing of it is an argument.
#[derive(Args)]
pub(crate) struct Given {
    /// A file with the share: an age file, its text or its words; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) share_file: Option<PathBuf>,
    /// The age identity that opens it
    #[arg(long, value_name = "FILE", requires = "share_file")]
    pub(crate) identity: Option<PathBuf>,
}

impl Given {
    /// The share: from the file that was named, else from the terminal where standard input is one, else from
    /// standard input. `command` is the one that it was given to.
    pub(crate) fn read(&self, command: &str) -> Result<Share> {
        let share = match &self.share_file {
            Some(path) if path.as_os_str() != "-" => from_file(path, self.identity.as_deref()),
            None if std::io::stdin().is_terminal() => ask_share(&mut Terminal::open()?)?
                .ok_or_else(|| Error::new("not_given", "no share was typed; nothing was done")),
            _ => parse(&secret::read_piped()?, self.identity.as_deref()),
        };
        share.map_err(|e| match e.code() {
            "share_file" => e.next(format!(
                "{command} --share-file FILE --identity IDENTITY, both of the same holder"
            )),
            _ => e,
        })
    }
}

/// The share in a file.
pub(crate) fn from_file(path: &Path, identity: Option<&Path>) -> Result<Share> {
    parse(&secret::read_secret_bytes(path)?, identity).map_err(|e| e.during(path.display()))
}

fn parse(bytes: &Secret, identity: Option<&Path>) -> Result<Share> {
    let bytes = bytes.expose();
    if let Some(what) = no_share(bytes) {
        return Err(Error::new("share", what)
            .next("give the share: its age file with --identity, its text or its words"));
    }
    match (identity, is_age(bytes)) {
        (Some(identity), true) => {
            let identity = Identity::parse(secret::read_secret_file(identity)?.expose())
                .map_err(|e| Error::new("identity", e))?;
            open_share_file(&identity, bytes).map_err(|e| Error::new("share_file", e))
        }
        (None, true) => Err(Error::new("share_file", "the share is encrypted")),
        (_, false) => read_share(bytes).map_err(|e| Error::new("share", e)),
    }
}

/// An age file, armored or binary (age-encryption.org/v1).
fn is_age(bytes: &[u8]) -> bool {
    let head = bytes.trim_ascii_start();
    head.starts_with(b"-----BEGIN AGE") || bytes.starts_with(b"age-encryption.org/")
}

/// What the bytes are, where they are plainly something else than a share. Nothing of them is in the answer.
fn no_share(bytes: &[u8]) -> Option<&'static str> {
    let head = bytes.trim_ascii();
    let begins = |with: &str| {
        let head = head.get(..with.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(with.as_bytes()))
    };
    // age-keygen writes remarks above the identity.
    let holds = |what: &[u8]| head.windows(what.len()).any(|at| at == what);
    if head.is_empty() {
        Some("the share is empty")
    } else if holds(b"AGE-SECRET-KEY-") {
        Some("this is an age identity, not a share")
    } else if begins("age1") || begins("ssh-") {
        Some("this is a recipient, not a share")
    } else if begins("mcpist-witness") {
        Some("this is a witness receipt, not a share")
    } else if bytes.starts_with(RECORD_MAGIC) || begins("MCPist ceremony record") {
        Some("this is a ceremony record, not a share")
    } else {
        None
    }
}

/// Asks for a share on the terminal until what is typed is one; nothing where the first line is empty.
pub(crate) fn ask_share(terminal: &mut Terminal) -> Result<Option<Share>> {
    terminal.say("Share, its text or its words; a line may end anywhere:")?;
    loop {
        let Some(typed) = type_share(terminal)? else {
            return Ok(None);
        };
        match read_share(typed.expose()) {
            Ok(share) => return Ok(Some(share)),
            Err(e) => terminal.say(&format!("{e}; type it once more, from the beginning"))?,
        }
    }
}

/// Lines until they are a share's text or as many words as a share has; nothing where the first is empty. A line with a
/// word that is not on the list is typed again.
pub(crate) fn type_share(terminal: &mut Terminal) -> Result<Option<Secret>> {
    terminal.hidden(type_lines)
}

fn type_lines(terminal: &mut Terminal) -> Result<Option<Secret>> {
    let mut typed = Secret::zeroed(MAX_WORDS_TEXT.max(MAX_SHARE_FILE))?;
    let mut len = 0;
    loop {
        let count = words_of(&typed.expose()[..len]).count();
        let prompt = match count {
            0 => "> ".to_owned(),
            count => format!("{count} of {SHARE_WORDS}> "),
        };
        let line = terminal.ask_secret(&prompt)?;
        let text = line.expose().trim_ascii();
        if text.is_empty() {
            if len == 0 {
                return Ok(None);
            }
            continue;
        }
        let other = match is_age(text) {
            true => Some("this is an age file: name it with --share-file and --identity"),
            false => no_share(text),
        };
        if let Some(other) = other {
            terminal.say(&format!("{other}; type the share"))?;
            continue;
        }
        let whole = len == 0
            && text
                .get(..6)
                .is_some_and(|six| six.eq_ignore_ascii_case(b"mcpist"));
        if !whole
            && let Some((at, word)) = words_of(text).enumerate().find(|(_, w)| !is_share_word(w))
        {
            let near = match terminal.is_private() {
                true => near(word),
                false => String::new(),
            };
            terminal.say(&format!(
                "word {} is not on the list{near}: type this line again",
                count + at + 1
            ))?;
            continue;
        }
        let Some(room) = typed.expose_mut().get_mut(len..len + line.len() + 1) else {
            return Err(Error::usage("a share is shorter: give one share at a time"));
        };
        room[..line.len()].copy_from_slice(line.expose());
        room[line.len()] = b' ';
        len += line.len() + 1;
        if whole || words_of(&typed.expose()[..len]).count() >= SHARE_WORDS {
            typed.truncate(len);
            return Ok(Some(typed));
        }
    }
}

/// What the typed word may have been, from the list alone.
fn near(word: &[u8]) -> String {
    match nearest_words(&String::from_utf8_lossy(word)).as_slice() {
        [] => String::new(),
        near => format!(" (near it: {})", near.join(", ")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Error {
        let parsed = parse(&Secret::copy_of(text.as_bytes()).unwrap(), None);
        parsed.err().unwrap()
    }

    #[test]
    fn what_is_no_share_is_named_and_never_shown() {
        let identity = "AGE-SECRET-KEY-1QQQQ";
        let kept = format!("# created: 2026-11-24\n# public key: age1qqqq\n{identity}\n");
        let record = String::from_utf8([RECORD_MAGIC, b"\0\x02rest"].concat()).unwrap();
        for (text, what) in [
            (identity, "this is an age identity, not a share"),
            (&kept, "this is an age identity, not a share"),
            ("age1qqqq", "this is a recipient, not a share"),
            ("ssh-ed25519 AAAA ada", "this is a recipient, not a share"),
            (
                "mcpist-witness1:qqqq",
                "this is a witness receipt, not a share",
            ),
            (&record, "this is a ceremony record, not a share"),
            (
                "MCPist ceremony record\n\nceremony",
                "this is a ceremony record, not a share",
            ),
            ("", "the share is empty"),
            (" \n", "the share is empty"),
        ] {
            let error = refused(text);
            assert_eq!((error.code(), error.to_string().as_str()), ("share", what));
            let said = format!("{error:?}");
            assert!(!said.contains("QQQQ") && !said.contains("qqqq"), "{said}");
        }
        let age = refused("-----BEGIN AGE ENCRYPTED FILE-----\nqqqq");
        assert_eq!(age.to_string(), "the share is encrypted");
    }

    #[test]
    fn what_to_do_about_a_wrong_identity_is_the_command_that_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("share.age");
        std::fs::write(&file, "-----BEGIN AGE ENCRYPTED FILE-----\n").unwrap();
        let given = Given {
            share_file: Some(file),
            identity: None,
        };
        let error = given.read("mcpist restore --give").err().unwrap();
        let next = error.next_step().unwrap();
        assert!(
            next.starts_with("mcpist restore --give --share-file"),
            "{next}"
        );
    }
}
