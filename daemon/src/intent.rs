//! Stage 6 as the audit log sees it: how an intent is written, and when it counts as written.

use std::sync::OnceLock;

use mcpist_core::access::Access;
use mcpist_core::audit::Seq;
use mcpist_core::error::ErrorCode;
use mcpist_core::event::ArgumentsMac;
use mcpist_core::permit::{Intent, IntentError, IntentSink};
use mcpist_sealer::AuditKey;

use crate::audit::{Audit, AuditError};

/// Writes the intent of one call into the log, arguments as their MAC under the audit sub-key.
pub(crate) struct Intents<'a> {
    audit: &'a Audit,
    mac: &'a AuditKey,
    written: OnceLock<Seq>,
}

impl<'a> Intents<'a> {
    /// For the log of this process and the key of this unsealing.
    pub(crate) fn new(audit: &'a Audit, mac: &'a AuditKey) -> Self {
        Self {
            audit,
            mac,
            written: OnceLock::new(),
        }
    }

    /// Where the intent stands, durable or not. For the outcome of a call that got no permit.
    pub(crate) fn written(&self) -> Option<Seq> {
        self.written.get().copied()
    }
}

impl IntentSink for Intents<'_> {
    async fn intent(&self, intent: &Intent<'_>) -> Result<Seq, IntentError> {
        let mac = self
            .mac
            .mac(intent.arguments().bytes())
            .map_err(|_| IntentError {
                code: ErrorCode::Sealed,
            })?;
        let seq = self
            .audit
            .append(&intent.event(ArgumentsMac(mac)))
            .map_err(coded)?;
        // One sink serves one call.
        let _ = self.written.set(seq);
        if intent.access() > Access::Read {
            self.audit.synced(seq).await.map_err(coded)?;
        }
        Ok(seq)
    }
}

fn coded(error: AuditError) -> IntentError {
    let code = match error {
        AuditError::Closed => ErrorCode::Sealed,
        AuditError::Write(_) | AuditError::Sync | AuditError::Slow => ErrorCode::AuditUnavailable,
    };
    IntentError { code }
}
