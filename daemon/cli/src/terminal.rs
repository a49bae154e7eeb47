//! The controlling terminal: what is asked there, and what is shown there and nowhere else.
//!
//! Promises that it is the terminal whatever standard input and output are; that a secret typed there is in secret memory,
//! echoed only inside [`Terminal::private`], and no line of it left for another program; and that what was shown inside of
//! that is gone from screen and scrollback afterwards, also where the act fails. Keys that would end or stop the program are
//! ignored meanwhile, since the screen would stay. Does not keep a camera or a second pair of eyes away, and a terminal that
//! logs what it shows does so.

use std::fs::File;
use std::io::{Read, Write};

use mcpist_secret::Secret;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::error::{Error, Result};

/// The other screen of terminals that have two (xterm's private mode 1049), which keeps no scrollback, and back.
const OTHER_SCREEN: (&str, &str) = ("\x1b[?1049h", "\x1b[?1049l");
/// Screen and scrollback empty, cursor at the top (ECMA-48 ED 2 and 3, CUP).
const CLEAR: &str = "\x1b[2J\x1b[3J\x1b[H";
/// Longest line that is read, in bytes: a hybrid recipient has about 2,000 characters.
const MAX_LINE: usize = 4096;

/// The controlling terminal of this process.
pub(crate) struct Terminal {
    tty: File,
    private: bool,
}

impl Terminal {
    /// Opens it.
    pub(crate) fn open() -> Result<Terminal> {
        let tty = File::options().read(true).write(true).open("/dev/tty");
        let tty =
            tty.map_err(|e| Error::new("no_terminal", format!("no terminal to ask on: {e}")))?;
        Ok(Terminal {
            tty,
            private: false,
        })
    }

    /// Shows text.
    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        self.show(text.as_bytes())?;
        self.show(b"\n")
    }

    /// Shows bytes that may be secret.
    pub(crate) fn show(&mut self, bytes: &[u8]) -> Result<()> {
        self.tty.write_all(bytes)?;
        Ok(self.tty.flush()?)
    }

    /// Empties the screen.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.show(CLEAR.as_bytes())
    }

    /// A line, without blanks at its ends.
    pub(crate) fn ask(&mut self, prompt: &str) -> Result<String> {
        self.show(prompt.as_bytes())?;
        let line = self.line()?;
        let text = String::from_utf8_lossy(line.expose());
        Ok(text.trim().to_owned())
    }

    /// Whether the answer is yes; anything else is no.
    pub(crate) fn agrees(&mut self, question: &str) -> Result<bool> {
        let answer = self.ask(&format!("{question} [y/N] "))?;
        Ok(matches!(answer.as_str(), "y" | "Y" | "yes"))
    }

    /// Does something in which secrets are typed: not shown, unless inside [`Terminal::private`]. One mode for all its lines,
    /// since what was typed ahead is dropped at both ends.
    pub(crate) fn hidden<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.private {
            return act(self);
        }
        // Without signals: an interrupt would leave the terminal without echo.
        let _mode = Mode::without(&self.tty, LocalFlags::ECHO | LocalFlags::ISIG)?;
        act(self)
    }

    /// A line that is secret, inside [`Terminal::hidden`] or [`Terminal::private`].
    pub(crate) fn ask_secret(&mut self, prompt: &str) -> Result<Secret> {
        self.show(prompt.as_bytes())?;
        let line = self.line();
        if !self.private {
            self.show(b"\n")?;
        }
        line
    }

    /// Does something whose screen nobody is to find afterwards.
    pub(crate) fn private<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let _mode = Mode::without(&self.tty, LocalFlags::ISIG)?;
        self.show(OTHER_SCREEN.0.as_bytes())?;
        self.clear()?;
        self.private = true;
        let done = act(self);
        self.private = false;
        self.clear()
            .and_then(|()| self.show(OTHER_SCREEN.1.as_bytes()))?;
        done
    }

    /// Whether what is on the screen now will be gone.
    pub(crate) fn is_private(&self) -> bool {
        self.private
    }

    /// Reads to the end of the line, one byte at a time, so that nothing stays in a buffer.
    fn line(&mut self) -> Result<Secret> {
        let mut line = Secret::zeroed(MAX_LINE)?;
        let mut len = 0;
        loop {
            let Some(room) = line.expose_mut().get_mut(len..=len) else {
                return Err(Error::usage("the line is too long"));
            };
            if self.tty.read(room)? == 0 {
                return Err(Error::new("no_terminal", "the terminal was closed"));
            }
            if room == b"\n" {
                line.truncate(len);
                return Ok(line);
            }
            len += 1;
        }
    }
}

/// The terminal in another mode, until this is dropped.
struct Mode {
    tty: File,
    before: Termios,
}

impl Mode {
    fn without(tty: &File, flags: LocalFlags) -> Result<Mode> {
        let tty = tty.try_clone()?;
        let before = tcgetattr(&tty).map_err(std::io::Error::from)?;
        let mut after = before.clone();
        after.local_flags.remove(flags);
        // What was typed ahead is nobody's answer.
        tcsetattr(&tty, SetArg::TCSAFLUSH, &after).map_err(std::io::Error::from)?;
        Ok(Mode { tty, before })
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        // What is left of a secret that was pasted in several lines is not the shell's. Nothing can be done where the terminal
        // is gone.
        let _ = tcsetattr(&self.tty, SetArg::TCSAFLUSH, &self.before);
    }
}
