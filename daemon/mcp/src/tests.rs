//! Whole connections over an in-memory stream: what a client sees, line by line.

use std::sync::Arc;
use std::time::Duration;

use mcpist_core::access::Access;
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::{Digest, ModuleName, ModuleRev, RegistryId, SchemaRef, ToolName};
use mcpist_core::result::{ToolError, ToolResult};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex, split,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use super::*;

mod calls;
mod eras;
mod hostile;
mod logging;

/// A gateway with one module: `echo` returns its arguments, `wait` ends when told or cancelled.
struct Mock {
    inner: Box<RawValue>,
    release: Arc<Semaphore>,
    events: mpsc::UnboundedSender<String>,
}

fn rev() -> ModuleRev {
    ModuleRev {
        registry: RegistryId::of_manifest(b"manifest"),
        module: ModuleName::parse("demo").unwrap(),
    }
}

impl Mock {
    fn tell(&self, event: String) {
        let _ = self.events.send(event);
    }

    fn with_entry<T>(&self, use_it: impl FnOnce(&SchemaEntry<'_>) -> T) -> T {
        let digest = Digest::of(self.inner.get().as_bytes());
        use_it(&SchemaEntry {
            module: &rev().module,
            tool_name: &ToolName::parse("echo").unwrap(),
            access: Access::Read,
            tool: &self.inner,
            digest: &digest,
            schema_ref: SchemaRef::of(&rev(), &digest),
        })
    }
}

impl Gateway for Mock {
    fn schema(&self, page: &mut SchemaPage) -> Result<(), ToolError> {
        self.with_entry(|entry| page.offer(entry));
        Ok(())
    }

    async fn call(&self, call: ToolCall) -> CallAnswer {
        let text = String::from_utf8(call.arguments.as_bytes().to_vec()).unwrap();
        match (call.module.as_str(), call.tool_name.as_str()) {
            ("demo", "echo") => ToolResult {
                content: format!(r#"[{{"type":"text","text":{}}}]"#, json!(text)).into_bytes(),
                structured: RawValue::from_string(text).ok(),
                is_error: false,
                truncated: false,
            }
            .into(),
            ("demo", "wait") => {
                self.tell(format!("start {text}"));
                tokio::select! {
                    biased;
                    () = call.cancel.cancelled() => {
                        self.tell(format!("cancel {text}"));
                        ToolError::of(ErrorCode::Cancelled).into()
                    }
                    permit = self.release.acquire() => {
                        permit.unwrap().forget();
                        ToolError::with(ErrorCode::Busy, &text).into()
                    }
                }
            }
            ("demo", "changed") => self.with_entry(CallAnswer::schema_changed),
            _ => ToolError::of(ErrorCode::UnknownTool).into(),
        }
    }
}

/// The other end of a served connection.
struct Client {
    read: BufReader<ReadHalf<DuplexStream>>,
    write: WriteHalf<DuplexStream>,
    served: JoinHandle<Result<(), ServeError>>,
    /// Dropped with the client, or when it goes away.
    there: DropGuard,
    release: Arc<Semaphore>,
    events: mpsc::UnboundedReceiver<String>,
}

fn connect(limits: Limits, room: usize) -> Client {
    connect_within(&Budget::new(64 << 20, 64 << 20), limits, room)
}

/// A connection whose lines are of `budget`.
fn connect_within(budget: &Budget, limits: Limits, room: usize) -> Client {
    let inner = r#"{"name":"echo","title":"Echo","description":"Says it again","inputSchema":{"type":"object","properties":{"z":{},"a":{}}}}"#;
    let (ours, theirs) = duplex(room);
    let (sender, events) = mpsc::unbounded_channel();
    let release = Arc::new(Semaphore::new(0));
    let mock = Mock {
        inner: RawValue::from_string(inner.to_owned()).unwrap(),
        release: Arc::clone(&release),
        events: sender,
    };
    let (their_read, their_write) = split(theirs);
    let budget = budget.clone();
    let gone = CancellationToken::new();
    let there = gone.clone().drop_guard();
    let gone = gone.cancelled_owned();
    let served =
        tokio::spawn(
            async move { serve(their_read, their_write, gone, mock, limits, &budget).await },
        );
    let (read, write) = split(ours);
    Client {
        read: BufReader::new(read),
        write,
        served,
        there,
        release,
        events,
    }
}

/// A client of the older era, its session open.
async fn opened() -> Client {
    opened_with(Limits::default(), 1 << 20).await
}

async fn opened_with(limits: Limits, room: usize) -> Client {
    let mut client = connect(limits, room);
    let version = client.initialize("2025-11-25").await["result"]["protocolVersion"].clone();
    assert_eq!(version, "2025-11-25");
    client
}

impl Client {
    async fn line(&mut self, line: impl AsRef<[u8]>) {
        self.write.write_all(line.as_ref()).await.unwrap();
        self.write.write_all(b"\n").await.unwrap();
    }

    async fn text(&mut self) -> String {
        let mut line = String::new();
        self.read.read_line(&mut line).await.unwrap();
        line
    }

    async fn answer(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// Sends a line and reads the next one.
    async fn ask(&mut self, line: impl AsRef<[u8]>) -> Value {
        self.line(line).await;
        self.answer().await
    }

    async fn event(&mut self) -> String {
        self.events.recv().await.unwrap()
    }

    async fn initialize(&mut self, version: &str) -> Value {
        let params = json!({
            "protocolVersion": version, "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}
        });
        self.ask(request(json!("init"), "initialize", params)).await
    }

    /// Ends the connection and gives how it was served.
    async fn end(self) -> Result<(), ServeError> {
        drop((self.read, self.write));
        self.served.await.unwrap()
    }
}

fn request(id: Value, method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

/// A `call_module_tool` of the older era whose arguments are the text given.
fn call(id: u32, tool: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"call_module_tool","arguments":{{"module":"demo","tool_name":"{tool}","arguments":{arguments}}}}}}}"#
    )
}

/// Lets every task of this thread that can run do so.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}
