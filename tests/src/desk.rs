//! An operator's side of an appliance's sockets, for a daemon that may end in the middle of an answer.
//!
//! Owns the requests of the admin and the secret socket. Promises that what did not come back is told from what was
//! refused: a test that ends the daemon on purpose has to know which. Does not know what the answers mean.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use mcpist_quorum::{Identity, open_share_file};
use mcpist_secret::Secret;
use mcpist_secret::frame::{Ticket, write_frame};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

use crate::look::PATIENCE;

/// Why a request did not end well.
#[derive(Debug)]
pub enum Trouble {
    /// There is no whole answer: the daemon is gone, or closed the connection.
    Gone(io::Error),
    /// The daemon said no: the answer's object `error`.
    Refused(Value),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Gone(error)
    }
}

/// The sockets of the appliance in a folder.
pub struct Desk {
    folder: PathBuf,
}

/// No answer, since what came is none.
fn torn(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

impl Desk {
    /// Of the appliance in `folder`.
    pub fn of(folder: &Path) -> Desk {
        Desk {
            folder: folder.to_owned(),
        }
    }

    /// The path of its socket `name`: a listener's, `admin` or `secret`.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.folder.join(format!("run/{name}.sock"))
    }

    fn connect(&self, name: &str) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(self.socket(name))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// One admin request: the status and the JSON of the answer.
    ///
    /// # Errors
    /// No whole answer came.
    pub fn admin(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> io::Result<(u16, Value)> {
        let mut stream = self.connect("admin")?;
        let body = body.map(Value::to_string).unwrap_or_default();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .ok_or_else(|| torn("no HTTP"))?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| torn("no HTTP status"))?;
        let body = serde_json::from_str(body).map_err(|_| torn("no JSON"))?;
        Ok((status, body))
    }

    /// An admin request that is to succeed: its data.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Trouble> {
        let (status, mut answer) = self.admin(method, path, body)?;
        if status == 200 {
            Ok(answer["data"].take())
        } else {
            Err(Trouble::Refused(answer["error"].take()))
        }
    }

    /// A ticket for `purpose`.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn ticket(&self, purpose: &Value) -> Result<Ticket, Trouble> {
        let answer = self.ask("POST", "/v1/ticket", Some(&json!({ "purpose": purpose })))?;
        let ticket = answer["ticket"].as_str().unwrap_or_default();
        Ok(Ticket::parse(ticket).map_err(|_| torn("no ticket"))?)
    }

    /// Brings a secret under a ticket and gives the line that comes back.
    ///
    /// # Errors
    /// No line came.
    pub fn bring(&self, ticket: &Ticket, payload: &Secret) -> io::Result<Value> {
        let mut stream = self.connect("secret")?;
        write_frame(&mut stream, ticket, payload)?;
        answer_line(stream)
    }

    /// Passes the descriptor of a file with `bytes` under a ticket for `purpose` and gives the line that comes back.
    ///
    /// # Errors
    /// [`Trouble`], where there is no ticket or no line.
    pub fn pass(&self, purpose: &Value, bytes: &[u8]) -> Result<Value, Trouble> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        self.pass_file(purpose, &file)
    }

    /// Passes the descriptor of `file` under a ticket for `purpose` and gives the line that comes back.
    ///
    /// # Errors
    /// [`Trouble`], where there is no ticket or no line.
    pub fn pass_file(&self, purpose: &Value, file: &File) -> Result<Value, Trouble> {
        let ticket = self.ticket(purpose)?;
        let stream = self.connect("secret")?;
        // A frame has a payload of one byte at least; with a descriptor it says nothing.
        let header = [ticket.as_bytes(), &1_u32.to_be_bytes()[..], &[0]].concat();
        let descriptors = [file.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&descriptors)];
        let sent = sendmsg::<()>(
            stream.as_raw_fd(),
            &[IoSlice::new(&header)],
            &control,
            MsgFlags::empty(),
            None,
        );
        if sent.map_err(io::Error::from)? != header.len() {
            return Err(torn("the frame was not taken whole").into());
        }
        Ok(answer_line(stream)?)
    }

    /// Makes the store with the token that the daemon has left: `request` is what `POST /v1/init` takes, with as many
    /// holders as `identities`, which are added here. Gives the texts of the shares and of the ceremony record,
    /// and leaves the record's bytes in the appliance's folder as `ceremony.bin`.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn init(
        &self,
        mut request: Value,
        identities: &[Identity],
    ) -> Result<(Vec<Secret>, String), Trouble> {
        let token = std::fs::read(self.folder.join("state/init-token"))?;
        let token = Secret::copy_of(token.trim_ascii()).map_err(io::Error::other)?;
        let shown = self.bring(&self.ticket(&json!("init_token"))?, &token)?;
        if shown != json!("init_token") {
            return Err(Trouble::Refused(shown));
        }
        let holder = |(n, i): (usize, &Identity)| json!({ "label": format!("holder-{}", n + 1), "recipient": i.recipient() });
        request["holders"] = identities.iter().enumerate().map(holder).collect();
        let plan = self.ask("POST", "/v1/init", Some(&request))?;
        let confirmed = json!({ "digest": plan["digest"] });
        let done = self.ask("POST", "/v1/init/confirm", Some(&confirmed))?;
        let shares = open_shares(identities, &done["shares"])?;
        let bytes: mcpist_core::api::Base64 =
            serde_json::from_value(done["record"].clone()).map_err(io::Error::other)?;
        std::fs::write(self.folder.join("ceremony.bin"), bytes.0)?;
        let record = done["record_text"].as_str().unwrap_or_default();
        Ok((shares, record.to_owned()))
    }

    /// Gives one share's text under the open plan, and the line that comes back.
    ///
    /// # Errors
    /// [`Trouble`], where there is no plan, no ticket or no line.
    pub fn give(&self, text: &Secret) -> Result<Value, Trouble> {
        self.give_to("/v1/unseal", text)
    }

    /// Gives one share's text under the plan that `path` shows, and the line that comes back.
    ///
    /// # Errors
    /// [`Trouble`], where there is no plan, no ticket or no line.
    pub fn give_to(&self, path: &str, text: &Secret) -> Result<Value, Trouble> {
        let plan = self.ask("GET", path, None)?;
        let ticket = self.ticket(&json!({ "share": { "plan": plan["digest"] } }))?;
        Ok(self.bring(&ticket, text)?)
    }
}

/// The texts of the shares in `files`, which are each for the identity in its place.
///
/// # Errors
/// They are none.
pub fn open_shares(identities: &[Identity], files: &Value) -> io::Result<Vec<Secret>> {
    let files = files.as_array().ok_or_else(|| torn("no shares"))?;
    let open = |(identity, file): (&Identity, &Value)| {
        let age = file["age"].as_str().unwrap_or_default();
        let share = open_share_file(identity, age.as_bytes()).map_err(io::Error::other)?;
        share.to_text().map_err(io::Error::other)
    };
    identities.iter().zip(files).map(open).collect()
}

fn answer_line(stream: UnixStream) -> io::Result<Value> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|_| torn("no line of JSON"))
}
