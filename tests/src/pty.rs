//! A command on a terminal of its own, typed at as a person would.
//!
//! The terminal is one that `script` (util-linux) makes, with echo. Promises that a wait ends, with all that was shown.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use crate::look::PATIENCE;
use crate::programs::state_home;

/// The running command and everything that its terminal has shown.
pub struct Pty {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    shown: Vec<u8>,
    /// Where the next [`Pty::expect`] looks from.
    seen: usize,
}

impl Pty {
    /// Runs a shell command in `folder`.
    ///
    /// # Panics
    /// When there is no `script`; so do all methods where what is waited for does not come.
    pub fn run(folder: &Path, command: &str) -> Pty {
        let mut child = Command::new("script")
            .args(["-q", "-e", "-f", "-E", "always", "-c", command, "/dev/null"])
            .current_dir(folder)
            .env("TERM", "xterm")
            .envs([state_home()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("script (util-linux) is installed");
        let keys = child.stdin.take().expect("piped");
        let mut output = child.stdout.take().expect("piped");
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut bytes) {
                if send.send(bytes[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Pty {
            child,
            keys,
            screen,
            shown: Vec::new(),
            seen: 0,
        }
    }

    /// Waits for `text`, and gives what was shown since the last wait, `text` included.
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let fresh = &self.shown[self.seen..];
            let found = fresh.windows(text.len()).position(|w| w == text.as_bytes());
            if let Some(at) = found {
                let end = self.seen + at + text.len();
                let since = String::from_utf8_lossy(&self.shown[self.seen..end]).into_owned();
                self.seen = end;
                return since;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown.extend(bytes),
                Err(_) => panic!("{text:?} was not shown: {}", self.shown()),
            }
        }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("a terminal");
        self.keys.flush().expect("a terminal");
    }

    /// Waits for `prompt` and types a line.
    pub fn answer(&mut self, prompt: &str, line: &str) -> String {
        let since = self.expect(prompt);
        self.press(&format!("{line}\n"));
        since
    }

    /// Everything so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }

    /// Waits for the command's end: its status, and everything that was shown.
    pub fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(bytes) = self
            .screen
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.shown.extend(bytes);
        }
        let status = self.child.wait().expect("a status");
        (status, self.shown())
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // It has ended, or its test has.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
