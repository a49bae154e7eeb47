//! The keys that sign checkpoints: each signs one and is then gone.
//!
//! Owns the record `audit/checkpoint` of the system vault: `first public key 32 | current seed 32 | last checkpoint
//! 184 or nothing`. Promises that a checkpoint and the seed of the next one are stored in one commit that replaces
//! the old seed, so whoever takes the host later signs nothing that came before (remnants of the medium aside,
//! docs/THREAT_MODEL.md). Seeds live in secret memory; `ring` keeps a copy on the stack while it signs.

use mcpist_core::audit::{
    Anchor, AuditKey, CHECKPOINT_LEN, Checkpoint, Statement, UnixMs, public_key,
};
use mcpist_core::ids::Digest;
use mcpist_sealer::{Expect, Op, OpenVault, RecordKey};
use mcpist_secret::{MemoryError, Secret};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::Ed25519KeyPair;

use super::segment::OpenError;

/// Kind and name of the record.
const KIND: &str = "audit";
pub(crate) const NAME: &str = "audit/checkpoint";
const KEY_LEN: usize = 32;

/// Where the checkpoint record is kept. The daemon's is the system vault; tests bring their own.
pub(crate) trait CheckpointStore: Send {
    /// The record's payload.
    fn load(&self) -> Result<Secret, String>;
    /// Replaces it, durably, before it answers.
    fn save(&self, payload: Secret) -> Result<(), String>;
}

/// The record in the system vault.
pub(crate) struct SystemVault(pub(crate) OpenVault);

impl CheckpointStore for SystemVault {
    fn load(&self) -> Result<Secret, String> {
        let key = RecordKey {
            owner: None,
            name: NAME,
        };
        let sealed = self.0.load(&key).map_err(|e| e.to_string())?;
        self.0.open(&sealed).map_err(|e| e.to_string())
    }

    fn save(&self, payload: Secret) -> Result<(), String> {
        self.0
            .commit(vec![put(payload, Expect::Any)])
            .map(drop)
            .map_err(|e| e.to_string())
    }
}

fn put(payload: Secret, expect: Expect) -> Op {
    Op::Put {
        owner: None,
        name: NAME.into(),
        kind: KIND.into(),
        expiry: 0,
        hosts: Vec::new(),
        payload,
        expect,
    }
}

/// The first key of a new store, made at init. Its public half goes into the ceremony record.
pub(crate) struct FirstKey {
    payload: Secret,
    public: AuditKey,
}

impl FirstKey {
    /// Draws a key.
    pub(crate) fn generate() -> Result<Self, MemoryError> {
        let seed = new_seed()?;
        let public = public_key(&pair(seed.expose())?);
        Ok(Self {
            payload: payload(&public, &seed, None)?,
            public,
        })
    }

    /// The public half.
    pub(crate) fn public(&self) -> AuditKey {
        self.public
    }

    /// The write that puts it in the place of the keys of an earlier life of the store.
    pub(crate) fn renew(self) -> Op {
        put(self.payload, Expect::Any)
    }

    /// The write that stores it with the store's first commit.
    pub(crate) fn into_op(self) -> Op {
        put(self.payload, Expect::Absent)
    }
}

/// The first key of the log that the record `payload` is of.
pub(crate) fn first_key(payload: &Secret) -> Option<AuditKey> {
    payload.expose().first_chunk().copied()
}

/// Where the log stood that the record `payload` is of: lines and last hash that its newest checkpoint covers.
pub(crate) fn signed_head(payload: &Secret) -> (u64, Digest) {
    let signed = payload.expose().get(2 * KEY_LEN..);
    match signed.and_then(|bytes| Checkpoint::from_bytes(bytes).ok()) {
        Some(checkpoint) => (checkpoint.statement().count, checkpoint.statement().head),
        None => (0, Digest::from_bytes([0; 32])),
    }
}

/// The signing keys of an open log.
pub(crate) struct Keys {
    first: AuditKey,
    seed: Secret,
    newest: Option<Checkpoint>,
    store: Box<dyn CheckpointStore>,
}

impl Keys {
    /// Reads the record.
    pub(crate) fn load(store: Box<dyn CheckpointStore>) -> Result<Self, OpenError> {
        let payload = store.load().map_err(OpenError::Key)?;
        let broken = || OpenError::Key("the record has another length".into());
        let bytes = payload.expose();
        let (first, rest) = bytes.split_first_chunk::<KEY_LEN>().ok_or_else(broken)?;
        let (seed, checkpoint) = rest.split_first_chunk::<KEY_LEN>().ok_or_else(broken)?;
        let newest = if checkpoint.is_empty() {
            None
        } else {
            Some(Checkpoint::from_bytes(checkpoint).map_err(|_| broken())?)
        };
        let seed = Secret::copy_of(seed).map_err(|e| OpenError::Key(e.to_string()))?;
        Ok(Self {
            first: *first,
            seed,
            newest,
            store,
        })
    }

    /// Where the log of this store begins.
    pub(crate) fn genesis(&self) -> Anchor {
        Anchor::genesis(self.first)
    }

    /// The last checkpoint that was signed.
    pub(crate) fn newest(&self) -> Option<&Checkpoint> {
        self.newest.as_ref()
    }

    /// Signs the lines up to `anchor`, which must be on disk, and stores checkpoint and next key in one commit.
    pub(crate) fn sign(&mut self, anchor: &Anchor, time: UnixMs) -> Result<Checkpoint, String> {
        let text = |e: MemoryError| e.to_string();
        let next = new_seed().map_err(text)?;
        let statement = Statement {
            number: anchor.checkpoint + 1,
            count: anchor.seq,
            head: anchor.head,
            previous: anchor.checkpoint_digest,
            next_key: public_key(&pair(next.expose()).map_err(text)?),
            time,
        };
        let checkpoint = statement.sign(&pair(self.seed.expose()).map_err(text)?);
        self.store
            .save(payload(&self.first, &next, Some(&checkpoint)).map_err(text)?)?;
        self.seed = next;
        self.newest = Some(checkpoint);
        Ok(checkpoint)
    }
}

fn new_seed() -> Result<Secret, MemoryError> {
    Secret::fill(KEY_LEN, |seed| {
        SystemRandom::new()
            .fill(seed)
            .map_err(|_| MemoryError::Random)
    })
}

fn pair(seed: &[u8]) -> Result<Ed25519KeyPair, MemoryError> {
    // Fails only for another length than 32.
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| MemoryError::Random)
}

fn payload(
    first: &AuditKey,
    seed: &Secret,
    checkpoint: Option<&Checkpoint>,
) -> Result<Secret, MemoryError> {
    let signed = checkpoint.map(Checkpoint::to_bytes);
    let length = 2 * KEY_LEN + signed.as_ref().map_or(0, |_| CHECKPOINT_LEN);
    Secret::fill(length, |out| {
        out[..KEY_LEN].copy_from_slice(first);
        out[KEY_LEN..2 * KEY_LEN].copy_from_slice(seed.expose());
        if let Some(signed) = &signed {
            out[2 * KEY_LEN..].copy_from_slice(signed);
        }
        Ok(())
    })
}
