//! The TPM counter that a store is bound to: a record of the system vault, held against the counter.
//!
//! Owns the record `anchor/tpm`:
//!
//! ```text
//! 1 u8 | bound u8 | incarnation [16] | index u32 | count u64 | password [32]
//! ```
//!
//! The record is written before the counter is raised to it, so that there is no moment in which an older store passes;
//! what a crash leaves between the two is one count, and is made up for at the next unseal. Promises that a store which is
//! bound opens beside its counter alone; that an unseal binds one that is not bound, and only to a counter that it makes
//! itself; and that a life which a restore began is bound anew. Does not: remove a counter, or unbind a store. That takes
//! a restore, which a quorum does.

use mcpist_core::api::ApiError;
use mcpist_core::error::ErrorCode;
use mcpist_quorum::{CounterVerdict, judge_counter};
use mcpist_sealer::{Expect, OpenVault, VaultError, Vaults};
use mcpist_secret::Secret;

use super::{records, records_error, vault_error};
use crate::tpm::{AUTH_LEN, Tpm, TpmError};

const NAME: &str = "anchor/tpm";
const KIND: &str = "anchor";
const V1: u8 = 1;
const LEN: usize = 2 + 16 + 4 + 8 + AUTH_LEN;

/// What the store knows of its counter.
struct Bound {
    is_bound: bool,
    life: [u8; 16],
    index: u32,
    count: u64,
    auth: Secret,
}

impl Bound {
    fn load(system: &OpenVault) -> Result<Option<Bound>, ApiError> {
        let payload = match records::open(system, NAME) {
            Ok(payload) => payload,
            Err(records::RecordsError::Vault(VaultError::NotFound(_))) => return Ok(None),
            Err(e) => return Err(records_error(&e)),
        };
        let damaged = || records_error(&records::RecordsError::Payload(NAME.to_owned()));
        let bytes = <&[u8; LEN]>::try_from(payload.expose()).map_err(|_| damaged())?;
        let (head, auth) = bytes.split_at(LEN - AUTH_LEN);
        let number = |range: std::ops::Range<usize>| {
            head[range]
                .iter()
                .fold(0, |n, byte| n << 8 | u64::from(*byte))
        };
        if bytes[0] != V1 || bytes[1] > 1 {
            return Err(damaged());
        }
        let mut life = [0; 16];
        life.copy_from_slice(&head[2..18]);
        Ok(Some(Bound {
            is_bound: bytes[1] == 1,
            life,
            index: u32::try_from(number(18..22)).map_err(|_| damaged())?,
            count: number(22..30),
            auth: Secret::copy_of(auth).map_err(|e| memory(&e))?,
        }))
    }

    fn save(&self, system: &OpenVault) -> Result<(), ApiError> {
        let mut payload = Secret::zeroed(LEN).map_err(|e| memory(&e))?;
        let out = payload.expose_mut();
        out[..2].copy_from_slice(&[V1, u8::from(self.is_bound)]);
        out[2..18].copy_from_slice(&self.life);
        out[18..22].copy_from_slice(&self.index.to_be_bytes());
        out[22..30].copy_from_slice(&self.count.to_be_bytes());
        out[30..].copy_from_slice(self.auth.expose());
        let put = records::put_bytes(KIND, NAME.to_owned(), payload, Expect::Any);
        let put = put.map_err(|e| records_error(&e))?;
        let committed = system.commit(vec![put]);
        committed.map(drop).map_err(|e| vault_error(&e))
    }
}

fn memory(error: &mcpist_secret::MemoryError) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, &error.to_string())
}

fn refused(text: &str) -> ApiError {
    ApiError::new(ErrorCode::TpmRefused, text)
}

fn tpm_error(error: &TpmError) -> ApiError {
    let said = refused(&error.to_string());
    match error {
        TpmError::Foreign(index) | TpmError::Password(index) => said.next(&format!(
            "find out who made it; where it is of no use any more: tpm2_nvundefine {index:#010x}, then mcpist unseal"
        )),
        _ => said,
    }
}

fn life_of(vaults: &Vaults) -> Result<[u8; 16], ApiError> {
    let at = vaults.point().map_err(|e| vault_error(&e))?;
    Ok(at.incarnation.id)
}

/// Judges a store that a quorum has just opened by its counter, if it is bound to one. Writes nothing to the store.
pub(super) fn judge(vaults: &Vaults, tpm: Option<&Tpm>) -> Result<(), ApiError> {
    let life = life_of(vaults)?;
    let found = Bound::load(&vaults.system())?;
    let Some(bound) = found.filter(|bound| bound.is_bound && bound.life == life) else {
        return Ok(());
    };
    match tpm {
        None => Err(refused(
            "the store is bound to a TPM counter, and mcpist.toml names no TPM",
        )),
        Some(tpm) if tpm.index() != bound.index => Err(refused(&format!(
            "the store is bound to the TPM counter at index {:#010x}, and mcpist.toml names {:#010x}",
            bound.index,
            tpm.index()
        ))),
        Some(tpm) => agree(&bound, tpm),
    }
}

/// Sees that record and counter agree, and makes up for a raise that a crash cut off.
fn agree(bound: &Bound, tpm: &Tpm) -> Result<(), ApiError> {
    let found = tpm.read(&bound.auth).map_err(|e| tpm_error(&e))?;
    match judge_counter(bound.count, found) {
        CounterVerdict::Current => Ok(()),
        CounterVerdict::Behind => tpm.raise(&bound.auth).map_err(|e| tpm_error(&e)),
        CounterVerdict::RolledBack => {
            let text = format!(
                "the store was put back: it recorded count {} of the TPM's counter, which is at {found}",
                bound.count
            );
            Err(ApiError::new(ErrorCode::StoreRolledBack, &text).reason("rolled_back"))
        }
        CounterVerdict::OtherCounter => Err(refused(&format!(
            "the TPM's counter is at {found}, and the store saw it at {}: it is another TPM's",
            bound.count
        ))),
    }
}

/// Raises the counter by one, or binds the store to one that is made for it: then the answer is true.
pub(super) fn raise(vaults: &Vaults, tpm: &Tpm) -> Result<bool, ApiError> {
    let (life, system) = (life_of(vaults)?, vaults.system());
    let mut bound = match Bound::load(&system)? {
        Some(bound) if bound.is_bound && bound.life == life => bound,
        found => return bind(&system, tpm, life, found).map(|()| true),
    };
    agree(&bound, tpm)?;
    bound.count = bound.count.saturating_add(1);
    bound.save(&system)?;
    tpm.raise(&bound.auth).map_err(|e| tpm_error(&e))?;
    Ok(false)
}

/// Binds the store to a counter. `found` is the record of an earlier life, whose counter serves on where it is this
/// TPM's, or what a crash left of a binding.
fn bind(
    system: &OpenVault,
    tpm: &Tpm,
    life: [u8; 16],
    found: Option<Bound>,
) -> Result<(), ApiError> {
    let is_there = match tpm.public() {
        Ok(()) => true,
        Err(TpmError::Missing(_)) => false,
        Err(e) => return Err(tpm_error(&e)),
    };
    let is_earlier = found.as_ref().is_some_and(|bound| bound.life != life);
    let auth = match found {
        // The counter of another TPM has another password: none passes for this one.
        Some(bound) if is_there || !is_earlier => bound.auth,
        _ => mcpist_secret::random_bytes::<AUTH_LEN>()
            .and_then(|mut bytes| Secret::take(&mut bytes))
            .map_err(|e| memory(&e))?,
    };
    let mut bound = Bound {
        is_bound: false,
        life,
        index: tpm.index(),
        count: 0,
        auth,
    };
    if !is_there {
        // Its password first: after a crash the counter is known.
        bound.save(system)?;
        tpm.define(&bound.auth).map_err(|e| tpm_error(&e))?;
    }
    bound.count = match tpm.read(&bound.auth) {
        Ok(count) if is_earlier => {
            // The life before is behind from here on: its disk, put back, is refused and does not lock this one out.
            bound.count = count.saturating_add(1);
            bound.is_bound = true;
            bound.save(system)?;
            return tpm.raise(&bound.auth).map_err(|e| tpm_error(&e));
        }
        // A store from the moment of its binding must not be bound once more.
        Ok(_) => return Err(tpm_error(&TpmError::Password(tpm.index()))),
        Err(TpmError::Unwritten) => {
            tpm.raise(&bound.auth).map_err(|e| tpm_error(&e))?;
            tpm.read(&bound.auth).map_err(|e| tpm_error(&e))?
        }
        Err(e) => return Err(tpm_error(&e)),
    };
    bound.is_bound = true;
    bound.save(system)
}
