//! What rmcp calls: the server's description, its tool list, and the two tools.
//!
//! Owns: the two protocol versions that are served, and which answer is a protocol error.
//! Promises: an answer to a tool call is left with its request as a finished line; what rmcp gets is an
//! empty result in its place. Only a tool that is neither of the two is a protocol error (-32602);
//! everything else goes back as a result that a model can read.
//! Does not: hold state of a session.

use std::borrow::Cow;
use std::sync::Arc;

use mcpist_core::scan;
use rmcp::RoleServer;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, ErrorData, Implementation,
    ListToolsResult, PaginatedRequestParams, ProtocolVersion, ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;

use crate::Limits;
use crate::gateway::Gateway;
use crate::reply::{Era, Reply};
use crate::schema::SchemaPage;
use crate::tools;
use crate::transport::Call;

/// The newest revision of each era, oldest first, and no other.
const VERSIONS: &[ProtocolVersion] =
    &[ProtocolVersion::V_2025_11_25, ProtocolVersion::V_2026_07_28];

/// How long a client may keep the tool list, in milliseconds: only an upgrade changes it.
const TOOLS_TTL: u64 = 300_000;

/// One connection's handler.
pub(crate) struct Handler<G> {
    gateway: G,
    limits: scan::Limits,
}

impl<G: Gateway> Handler<G> {
    pub(crate) fn new(gateway: G, limits: Limits) -> Handler<G> {
        Handler {
            gateway,
            limits: scan::Limits::bytes(limits.line_bytes),
        }
    }

    fn schema(&self, call: &Call, reply: Reply<'_>) -> Vec<u8> {
        let arguments = call.take_arguments();
        let answer = tools::schema_query(arguments.as_deref(), &self.limits).and_then(|query| {
            let mut page = SchemaPage::new(query);
            self.gateway.schema(&mut page)?;
            page.finish()
        });
        match answer {
            Ok(page) => reply.page(&page),
            Err(error) => reply.error(&error),
        }
    }

    async fn call(&self, call: &Call, reply: Reply<'_>) -> Vec<u8> {
        let cancel = call.cancel.clone();
        let asked = tools::tool_call(call.take_arguments().as_deref(), &self.limits, cancel);
        match asked {
            // Boxed: rmcp moves the future that holds it from hand to hand before it runs.
            Ok(asked) => reply.call(&Box::pin(self.gateway.call(asked)).await),
            Err(error) => reply.error(&error),
        }
    }
}

impl<G: Gateway> ServerHandler for Handler<G> {
    fn get_info(&self) -> ServerConfig {
        let server = Implementation::new("mcpist", env!("CARGO_PKG_VERSION")).with_title("MCPist");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
            .with_server_info(server)
            .with_instructions(tools::INSTRUCTIONS)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(VERSIONS)
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut list = ListToolsResult::with_all_items(tools::tools().to_vec());
        if era(&context) == Era::Stateless {
            list.ttl_ms = Some(TOOLS_TTL);
            list.cache_scope = Some(CacheScope::Private);
        }
        Ok(list)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(call) = context.extensions.get::<Arc<Call>>() else {
            return Err(ErrorData::internal_error(
                "the request came by no transport of ours",
                None,
            ));
        };
        let reply = Reply {
            id: &context.id,
            era: era(&context),
        };
        let line = match request.name.as_ref() {
            tools::SCHEMA => self.schema(call, reply),
            tools::CALL => self.call(call, reply).await,
            _ => {
                return Err(ErrorData::invalid_params(
                    "unknown tool: a module's tool is run through call_module_tool",
                    None,
                ));
            }
        };
        call.answer(line);
        Ok(CallToolResult::default().into())
    }
}

fn era(context: &RequestContext<RoleServer>) -> Era {
    match context.protocol_version() {
        Some(version) if !version.has_initialize() => Era::Stateless,
        _ => Era::Handshake,
    }
}
