//! What this crate asks of the program behind it. No I/O, no rmcp.
//!
//! Owns: the trait [`Gateway`] and what crosses it.
//! Promises: names are the client's text and not trusted; arguments are a JSON object that keeps the
//! rules of [`mcpist_core::scan`], in the bytes that the client sent.
//! Does not: know whether a module or a tool exists.

use std::fmt;

use mcpist_core::ids::SchemaRef;
use mcpist_core::result::{ToolError, ToolResult};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::schema::{SchemaEntry, SchemaPage};

/// What answers the two tools, for one connection and its principal.
pub trait Gateway: Send + Sync + 'static {
    /// Answers `get_module_schema`: offers every tool that the principal may see, in ascending order
    /// of (module, tool), until the page says [`Full`](crate::Offer::Full). It may leave out what the
    /// page's query does not name.
    ///
    /// # Errors
    /// Why nothing can be shown now, such as a sealed store.
    fn schema(&self, page: &mut SchemaPage) -> Result<(), ToolError>;

    /// Answers `call_module_tool`. The future is run to its end; it must end soon once
    /// [`ToolCall::cancel`] is cancelled, and its answer is dropped then.
    fn call(&self, call: ToolCall) -> impl Future<Output = CallAnswer> + Send;
}

/// A call as the client asked for it.
#[derive(Debug)]
pub struct ToolCall {
    /// The module's name, as sent: any text.
    pub module: String,
    /// The tool's name, as sent: any text.
    pub tool_name: String,
    /// The tool's own arguments.
    pub arguments: RawArguments,
    /// The edition of the schema that the client says it has read.
    pub schema_ref: Option<SchemaRef>,
    /// Cancelled when the client cancels the request or goes away.
    pub cancel: CancellationToken,
}

/// A tool's arguments: the text of one JSON object that has passed [`mcpist_core::scan`].
pub struct RawArguments(Box<RawValue>);

impl RawArguments {
    pub(crate) fn new(scanned: Box<RawValue>) -> RawArguments {
        RawArguments(scanned)
    }

    /// The bytes as received (of arguments sent as a JSON string: that string's own text).
    pub fn as_bytes(&self) -> &[u8] {
        self.0.get().as_bytes()
    }

    /// Those bytes, for [`mcpist_core::args::Arguments::parse`]; nothing is copied.
    pub fn into_bytes(self) -> Vec<u8> {
        Box::<str>::from(self.0).into_string().into_bytes()
    }
}

impl fmt::Debug for RawArguments {
    /// Says how long they are, and nothing of what they say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawArguments({} bytes)", self.as_bytes().len())
    }
}

/// What a call came to.
#[derive(Debug)]
pub enum CallAnswer {
    /// The tool's own result, `isError` ones included.
    Done {
        /// The result.
        result: ToolResult,
        /// The call was done, and its outcome could not be recorded.
        audit_lost: bool,
    },
    /// No result.
    Failed(ToolError),
    /// The tool has another schema than the client has read: made by
    /// [`CallAnswer::schema_changed`].
    SchemaChanged(NewSchema),
}

/// The entry of a tool, as `get_module_schema` would show it in full.
#[derive(Debug)]
pub struct NewSchema(pub(crate) String);

impl CallAnswer {
    /// Sends the client the schema that holds now.
    pub fn schema_changed(current: &SchemaEntry<'_>) -> CallAnswer {
        CallAnswer::SchemaChanged(NewSchema(current.full()))
    }
}

impl From<ToolResult> for CallAnswer {
    fn from(result: ToolResult) -> CallAnswer {
        CallAnswer::Done {
            result,
            audit_lost: false,
        }
    }
}

impl From<ToolError> for CallAnswer {
    fn from(error: ToolError) -> CallAnswer {
        CallAnswer::Failed(error)
    }
}
