//! A share in plain text, on a terminal and nowhere else: as its text and as a QR code, once.
//!
//! The daemon gives out shares encrypted only. For a holder who has no age recipient this program makes an identity that
//! lives as long as it does, and shows what it opens. Promises that nothing is shown where the controlling terminal cannot
//! be opened, that standard output and files get none of it, and that the screen and its scrollback are cleared when the
//! holder says so. Does not keep a camera or a second pair of eyes away.

use std::fs::File;
use std::io::{Read, Write};

use mcpist_core::api::DeliveredShare;
use mcpist_quorum::Identity;
use mcpist_secret::Secret;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use zeroize::Zeroize;

use crate::error::{Error, Result};
use crate::share::share_of;

/// Screen and scrollback empty, cursor at the top (ECMA-48 ED 2 and 3, CUP).
const CLEAR: &str = "\x1b[2J\x1b[3J\x1b[H";
/// Black on white, whatever the terminal's colours are, and back.
const INK: (&str, &str) = ("\x1b[30;107m", "\x1b[0m");

/// The controlling terminal, whatever standard input and output are.
pub(crate) fn terminal() -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|e| Error::new("no_terminal", format!("no terminal to ask on: {e}")))
}

/// Reads a line from the terminal; at most 64 bytes of it count.
pub(crate) fn answer(terminal: &mut File) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while terminal.read(&mut byte)? == 1 && byte != *b"\n" {
        if line.len() < 64 {
            line.push(byte[0]);
        }
    }
    Ok(String::from_utf8_lossy(&line).trim().to_owned())
}

/// Shows one holder's share, between two presses of Enter.
pub(crate) fn show(
    terminal: &mut File,
    identity: &Identity,
    delivered: &DeliveredShare,
) -> Result<()> {
    let share = share_of(identity, delivered.age.as_bytes())?;
    // A label is anybody's words: none of it moves the cursor.
    let label = delivered.label.escape_debug();
    write!(
        terminal,
        "{CLEAR}The share of {label}. Nobody else looks at this screen now. Enter shows it. "
    )?;
    answer(terminal)?;
    let mut picture = picture(&share)?;
    terminal.write_all(CLEAR.as_bytes())?;
    terminal.write_all(share.expose())?;
    terminal.write_all(b"\n\n")?;
    let shown = terminal.write_all(picture.as_bytes());
    picture.zeroize();
    shown?;
    write!(
        terminal,
        "\n{label}: write it down or scan it. It is shown this once. Enter clears the screen. "
    )?;
    answer(terminal)?;
    terminal.write_all(CLEAR.as_bytes())?;
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
