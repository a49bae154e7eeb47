//! The lease: one secret, for one call, for one binding.
//!
//! A [`Lease`] is made in two ways only: [`Lease::grant`] takes a `Permit`, and the wire's decoder takes
//! what such a grant sent. It is neither `Clone` nor serialisable by anything but this crate, its `Debug`
//! shows no secret, and its memory is wiped when it is dropped. It says which binding it serves; that the
//! egress sends it nowhere else is the runner's promise.

use std::fmt;

use mcpist_core::ids::{BindingName, CallId, SlotName};
use mcpist_core::permit::Permit;
use mcpist_secret::Secret;

use crate::codec::{Cursor, PayloadError, put_name, put_u64};
use crate::frame::Kind;
use crate::outbox::{Batch, DoesNotFit};

/// A secret for one call through one binding.
pub struct Lease {
    call: CallId,
    slot: SlotName,
    binding: BindingName,
    version: u64,
    secret: Secret,
}

/// Bytes of the longest secret of a lease: it travels in one frame.
pub const MAX_LEASE_SECRET: usize = 32 * 1024;

/// Why there is no lease. The secret is wiped then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The permit has no such slot, so there is nothing that the lease could serve.
    #[error("the permit has no slot {0}; a lease serves only a slot that the called tool declares")]
    NoSuchSlot(SlotName),
    /// The secret is over [`MAX_LEASE_SECRET`].
    #[error("the secret for slot {0} is over {MAX_LEASE_SECRET} bytes; put a shorter credential")]
    TooLong(SlotName),
}

impl Lease {
    /// A lease of `secret` for the binding that `permit` joins to `slot`. `version` is the binding's;
    /// `secret` is what is injected (for `basic` the user, a colon and the password, not yet encoded).
    ///
    /// # Errors
    /// [`GrantError`] when the permit's tool does not use the slot, or the secret is too long to be sent.
    pub fn grant(
        permit: &Permit,
        slot: &SlotName,
        version: u64,
        secret: Secret,
    ) -> Result<Lease, GrantError> {
        let joined = permit.slots().iter().find(|(name, _)| name == slot);
        let (slot, binding) = joined.ok_or_else(|| GrantError::NoSuchSlot(slot.clone()))?;
        if secret.len() > MAX_LEASE_SECRET {
            return Err(GrantError::TooLong(slot.clone()));
        }
        let (slot, binding) = (slot.clone(), binding.clone());
        Ok(Lease {
            call: permit.call(),
            slot,
            binding,
            version,
            secret,
        })
    }

    /// The call that the lease is for.
    #[must_use]
    pub fn call(&self) -> CallId {
        self.call
    }

    /// The slot of the tool that the lease fills.
    #[must_use]
    pub fn slot(&self) -> &SlotName {
        &self.slot
    }

    /// The binding that the lease may serve.
    #[must_use]
    pub fn binding(&self) -> &BindingName {
        &self.binding
    }

    /// The binding's version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The secret, for the injection into one request.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Queues the frame that carries the lease; the secret moves along and is wiped once it is written.
    pub(crate) fn queue(self, batch: &mut Batch) -> Result<(), DoesNotFit> {
        let Lease {
            call,
            slot,
            binding,
            version,
            secret,
        } = self;
        let fields = |out: &mut Vec<u8>| {
            put_name(out, slot.as_str());
            put_name(out, binding.as_str());
            put_u64(out, version);
        };
        batch.secret(Kind::Lease, call.0, fields, secret)
    }

    /// Decodes a lease; its secret goes from `payload` straight into secret memory. Who owns `payload`
    /// wipes it.
    pub(crate) fn decode(call: u64, payload: &[u8]) -> Result<Lease, PayloadError> {
        let mut cursor = Cursor::new(payload);
        let slot = SlotName::parse(cursor.name("the slot")?)
            .map_err(|_| PayloadError::Invalid("the slot"))?;
        let binding = BindingName::parse(cursor.name("the binding")?)
            .map_err(|_| PayloadError::Invalid("the binding"))?;
        let version = cursor.u64("the binding's version")?;
        let secret =
            Secret::copy_of(cursor.rest()).map_err(|_| PayloadError::NoRoom("a lease's secret"))?;
        Ok(Lease {
            call: CallId(call),
            slot,
            binding,
            version,
            secret,
        })
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("call", &self.call)
            .field("slot", &self.slot)
            .field("binding", &self.binding)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
