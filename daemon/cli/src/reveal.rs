//! A share in plain text, on a terminal and nowhere else: as text, QR code and words, and read back from paper.
//!
//! The daemon gives out shares encrypted only. For a holder who has no age recipient this program makes an identity that
//! lives as long as it does, and shows what it opens. Promises that nothing is shown where the controlling terminal cannot
//! be opened, that standard output and files get none of it, and that it is gone from the screen when the holder says so.
//!
//! # Reading back
//! The holder types the whole share, not some words of it: a paper with one wrong word is found out here or in the years
//! after, when it is needed, and a sample of words would let most slips pass. Four letters of each word are enough. What is
//! typed is compared by the digest of the share that it makes.

use mcpist_core::api::DeliveredShare;
use mcpist_quorum::{
    Identity, SHARE_WORDS, Share, ShareDigest, open_share_file, read_share, words_of,
};
use mcpist_secret::Secret;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use zeroize::Zeroize;

use crate::error::{Error, Result};
use crate::share::type_share;
use crate::terminal::Terminal;

/// Black on white, whatever the terminal's colours are, and back.
const INK: (&str, &str) = ("\x1b[30;107m", "\x1b[0m");
/// Words on a line.
const COLUMNS: usize = 4;

/// Shows one holder's share, between two presses of Enter.
pub(crate) fn show(
    terminal: &mut Terminal,
    identity: &Identity,
    delivered: &DeliveredShare,
) -> Result<()> {
    let share = opened(identity, delivered)?;
    // A label is anybody's words: none of it moves the cursor.
    let label = delivered.label.escape_debug();
    terminal.private(|terminal| {
        terminal.ask(&format!(
            "The share of {label}. Nobody else looks at this screen now. Enter shows it. "
        ))?;
        page(terminal, &share)?;
        terminal.ask(&format!(
            "\n{label}: write it down or scan it. It is shown this once. Enter clears the screen. "
        ))?;
        Ok(())
    })
}

/// Shows one holder's share as often as the holder asks for it, until it was read back whole: the share as typed.
pub(crate) fn show_and_read_back(
    terminal: &mut Terminal,
    identity: &Identity,
    delivered: &DeliveredShare,
) -> Result<Share> {
    let share = opened(identity, delivered)?;
    let label = delivered.label.escape_debug();
    terminal.private(|terminal| {
        terminal.ask(&format!(
            "The share of {label}. Nobody else looks at this screen now. Enter shows it. "
        ))?;
        loop {
            terminal.clear()?;
            page(terminal, &share)?;
            terminal.ask(&format!(
                "\n{label}: write all {SHARE_WORDS} words down, with their numbers. Enter clears the screen. "
            ))?;
            if let Some(typed) = read_back(terminal, &label, share.digest())? {
                return Ok(typed);
            }
        }
    })
}

/// The share as the holder types it; nothing where the holder asks to see it again.
fn read_back(
    terminal: &mut Terminal,
    label: &std::str::EscapeDebug<'_>,
    shown: ShareDigest,
) -> Result<Option<Share>> {
    terminal.clear()?;
    terminal.say(&format!(
        "{label}: now type the share back from your paper; four letters of a word are enough, and a line may end \
         anywhere.\nAn empty line at the beginning shows the share again."
    ))?;
    loop {
        let Some(typed) = type_share(terminal)? else {
            return Ok(None);
        };
        match read_share(typed.expose()) {
            Ok(share) if share.digest() == shown => {
                terminal.ask("It is the share. Keep the paper where only you come to it. Enter clears the screen. ")?;
                return Ok(Some(share));
            }
            Ok(_) => {
                terminal.say("This is a share, and another one than was shown. Type yours.")?
            }
            Err(e) => terminal.say(&format!("{e}"))?,
        }
        terminal
            .say("Type it once more, from the first word; an empty line shows the share again.")?;
    }
}

fn opened(identity: &Identity, delivered: &DeliveredShare) -> Result<Share> {
    open_share_file(identity, delivered.age.as_bytes()).map_err(|e| Error::new("share_file", e))
}

/// The share as text, picture and numbered words.
fn page(terminal: &mut Terminal, share: &Share) -> Result<()> {
    let (text, words) = (share.to_text()?, share.to_words()?);
    let mut picture = picture(&text)?;
    terminal.clear()?;
    let shown = terminal.show(picture.as_bytes());
    picture.zeroize();
    shown?;
    terminal.show(text.expose())?;
    terminal.say("\n")?;
    for (at, word) in words_of(words.expose()).enumerate() {
        terminal.show(format!("{:>3}. ", at + 1).as_bytes())?;
        terminal.show(word)?;
        match (at + 1) % COLUMNS {
            0 => terminal.show(b"\n")?,
            _ => terminal.show(&b"          "[word.len().min(9)..])?,
        }
    }
    Ok(())
}

/// The QR code (ISO/IEC 18004) of a text, two rows to a line.
fn picture(text: &Secret) -> Result<String> {
    let code = QrCode::with_error_correction_level(text.expose(), EcLevel::L)
        .map_err(|e| Error::new("internal", e))?;
    let mut plain = code.render::<Dense1x2>().build();
    let mut picture = String::with_capacity(2 * plain.len());
    for line in plain.lines() {
        picture.push_str(INK.0);
        picture.push_str(line);
        picture.push_str(INK.1);
        picture.push('\n');
    }
    plain.zeroize();
    Ok(picture)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_share_s_picture_fits_on_a_screen() {
        let text = Secret::copy_of(&[b'q'; 134]).unwrap();
        let picture = picture(&text).unwrap();
        let lines: Vec<_> = picture.lines().collect();
        let width = |line: &str| line.chars().filter(|c| " ▀▄█".contains(*c)).count();
        assert!(lines.len() <= 30, "{} lines", lines.len());
        assert!(lines.iter().all(|l| width(l) == width(lines[0])));
        assert!((40..=76).contains(&width(lines[0])));
        assert!(
            lines
                .iter()
                .all(|l| l.starts_with(INK.0) && l.ends_with(INK.1))
        );
    }
}
