//! What one client connection may ask: the two tools, answered for the peer at its other end.
//!
//! Thin on purpose: the schema of what is visible is read from the snapshot, a call goes to [`crate::call`].

use std::sync::Arc;

use mcpist_core::error::ErrorCode;
use mcpist_core::result::ToolError;
use mcpist_mcp::{CallAnswer, Detail, Gateway, Offer, SchemaEntry, SchemaPage, ToolCall};

use crate::call::call;
use crate::house::House;
use crate::listen::Peer;

/// The gateway of one connection.
pub(crate) struct ClientGateway {
    house: Arc<House>,
    peer: Peer,
}

impl ClientGateway {
    /// For the connection of `peer`.
    pub(crate) fn new(house: Arc<House>, peer: Peer) -> Self {
        Self { house, peer }
    }
}

impl Gateway for ClientGateway {
    fn schema(&self, page: &mut SchemaPage) -> Result<(), ToolError> {
        let live = self.house.live().ok_or(ToolError::of(ErrorCode::Sealed))?;
        let principal = live
            .identities
            .identify(self.peer.evidence())
            .ok_or(ToolError::of(ErrorCode::Unidentified))?;
        // Names and summaries show no schema.
        let in_full = page.query().detail == Detail::Full;
        for tool in live.mask.list(&principal) {
            match page.offer(&entry(tool)) {
                Offer::Full => break,
                Offer::Shown if in_full => self.house.shown.note(principal.name(), tool),
                Offer::Shown | Offer::Skipped => {}
            }
        }
        Ok(())
    }

    async fn call(&self, asked: ToolCall) -> CallAnswer {
        call(&self.house, &self.peer, asked).await
    }
}

/// A tool as the schema answer shows it.
pub(crate) fn entry(tool: &mcpist_core::catalogue::Tool) -> SchemaEntry<'_> {
    SchemaEntry {
        module: tool.module(),
        tool_name: tool.name(),
        access: tool.access(),
        tool: tool.inner(),
        digest: tool.digest(),
        schema_ref: tool.schema_ref(),
    }
}
