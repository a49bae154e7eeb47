//! What mcpistd sends, judged frame by frame. No I/O.
//!
//! A frame that breaks the protocol ends the link. What concerns a call that is not in flight any more is
//! ignored: a cancellation and an answer may cross.

use std::sync::Arc;

use mcpist_secret::redact::Fingerprint;

use super::Request;
use super::calls::Shared;
use crate::call::{MAX_ARGUMENTS, MAX_LEASES, ModuleCall};
use crate::codec::{Cursor, PayloadError};
use crate::end::LinkEnd;
use crate::frame::{Header, Kind};
use crate::lease::Lease;
use crate::message::{Bind, Close, Dropped, Load, MAX_BINDING, MAX_FINGERPRINT, MAX_MANIFEST};
use crate::outbox::{Batch, Body};

/// More than any message's fixed fields need.
const FIELDS: usize = 1024;

/// What is to be remembered from frame to frame.
pub(super) struct Incoming {
    shared: Arc<Shared>,
    /// Leases of the call that has to follow.
    leases: Vec<Lease>,
    /// A message that goes on.
    partial: Option<Partial>,
}

struct Partial {
    kind: Kind,
    call: u64,
    bytes: Vec<u8>,
}

impl Incoming {
    pub(super) fn new(shared: Arc<Shared>) -> Incoming {
        Incoming {
            shared,
            leases: Vec::new(),
            partial: None,
        }
    }

    /// Judges one frame from mcpistd.
    pub(super) fn receive(
        &mut self,
        header: Header,
        payload: &[u8],
    ) -> Result<Option<Request>, LinkEnd> {
        let (kind, call) = (header.kind(), header.call());
        if self
            .partial
            .as_ref()
            .is_some_and(|partial| (partial.kind, partial.call) != (kind, call))
        {
            return Err(LinkEnd::Protocol(format!(
                "{kind:?} came inside another message"
            )));
        }
        let expected = matches!(kind, Kind::Lease | Kind::Call);
        if self
            .leases
            .first()
            .is_some_and(|lease| !expected || lease.call().0 != call)
        {
            return Err(LinkEnd::Protocol(format!(
                "{kind:?} came between a lease and its call"
            )));
        }
        if self.partial.is_none() && !header.more() {
            return self.message(kind, call, payload);
        }
        let limit = FIELDS
            + match kind {
                Kind::Load => MAX_MANIFEST,
                Kind::Bind => MAX_BINDING,
                Kind::Redact => MAX_FINGERPRINT,
                Kind::Call => MAX_ARGUMENTS,
                other => return Err(unexpected(other)),
            };
        let partial = self.partial.get_or_insert(Partial {
            kind,
            call,
            bytes: Vec::new(),
        });
        if partial.bytes.len() + payload.len() > limit {
            return Err(PayloadError::TooLong("a message in several frames").into());
        }
        partial.bytes.extend_from_slice(payload);
        if header.more() {
            return Ok(None);
        }
        let whole = self
            .partial
            .take()
            .map(|partial| partial.bytes)
            .unwrap_or_default();
        self.message(kind, call, &whole)
    }

    fn message(
        &mut self,
        kind: Kind,
        call: u64,
        payload: &[u8],
    ) -> Result<Option<Request>, LinkEnd> {
        let request = match kind {
            Kind::Load => Request::Load(Load::decode(payload)?),
            Kind::Bind => Request::Bind(Bind::decode(payload)?),
            Kind::Redact => {
                let mut cursor = Cursor::new(payload);
                let id = cursor.u64("the fingerprint's number")?;
                let fingerprint = Fingerprint::decode(cursor.rest())
                    .map_err(|_| PayloadError::Invalid("the fingerprint"))?;
                Request::Redact { id, fingerprint }
            }
            Kind::Drop => Request::Drop(Dropped::decode(payload)?),
            Kind::Lease => {
                if self.leases.len() == MAX_LEASES {
                    return Err(PayloadError::TooLong("the list of leases").into());
                }
                self.leases.push(Lease::decode(call, payload)?);
                return Ok(None);
            }
            Kind::Call => {
                let leases = std::mem::take(&mut self.leases);
                let asked = ModuleCall::decode(call, payload, leases)?;
                Request::Call(asked, self.shared.enter(call)?)
            }
            Kind::Cancel => {
                if let Some(flow) = self.shared.leave(call) {
                    flow.cancel();
                }
                return Ok(None);
            }
            Kind::Credit => {
                let mut cursor = Cursor::new(payload);
                let bytes = cursor.u32("the credit")? as usize;
                cursor.end()?;
                self.shared.grant(call, bytes);
                return Ok(None);
            }
            Kind::Ping => {
                // A closed outbox means that the link ends; the next read says so.
                let pong =
                    |batch: &mut Batch| batch.chunk(Kind::Pong, false, call, Body::default());
                let _ = self.shared.outbox.push(pong);
                return Ok(None);
            }
            Kind::Close => return Err(LinkEnd::Closed(Close::decode(payload)?)),
            other => return Err(unexpected(other)),
        };
        Ok(Some(request))
    }
}

fn unexpected(kind: Kind) -> LinkEnd {
    LinkEnd::Protocol(format!("mcpistd never sends {kind:?}"))
}
