//! What mcpistd sends, judged frame by frame. No I/O.
//!
//! A frame that breaks the protocol ends the link. What concerns a call that is not in flight any more is
//! ignored: a cancellation and an answer may cross. A lease that finds no room in secret memory costs its own
//! call, which is answered `busy`.

use std::sync::Arc;

use mcpist_core::error::ErrorCode;
use mcpist_core::result::ToolError;
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
    /// What came for the call that has to follow.
    leases: Option<Leases>,
    /// A message that goes on.
    partial: Option<Partial>,
}

/// The leases of one call.
struct Leases {
    call: u64,
    held: Vec<Lease>,
    /// One of them found no room.
    no_room: bool,
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
            leases: None,
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
            .as_ref()
            .is_some_and(|leases| !expected || leases.call != call)
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
                self.lease(call, payload)?;
                return Ok(None);
            }
            Kind::Call => match self.leases.take() {
                Some(Leases { no_room: true, .. }) => {
                    let busy = ToolError::of(ErrorCode::Busy);
                    self.shared.enter(call)?.fail(&busy);
                    return Ok(None);
                }
                leases => {
                    let held = leases.map(|leases| leases.held).unwrap_or_default();
                    let asked = ModuleCall::decode(call, payload, held)?;
                    Request::Call(asked, self.shared.enter(call)?)
                }
            },
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

    fn lease(&mut self, call: u64, payload: &[u8]) -> Result<(), PayloadError> {
        let leases = self.leases.get_or_insert(Leases {
            call,
            held: Vec::new(),
            no_room: false,
        });
        if leases.no_room {
            return Ok(());
        }
        if leases.held.len() == MAX_LEASES {
            return Err(PayloadError::TooLong("the list of leases"));
        }
        match Lease::decode(call, payload) {
            Ok(lease) => leases.held.push(lease),
            Err(e @ PayloadError::NoRoom(_)) => {
                log::error!("call {call}: {e}");
                leases.no_room = true;
                // What the call had so far makes room for others at once.
                leases.held.clear();
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

fn unexpected(kind: Kind) -> LinkEnd {
    LinkEnd::Protocol(format!("mcpistd never sends {kind:?}"))
}
