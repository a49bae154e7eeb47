//! No I/O. One sharing of a secret: which set and generation, how many of how many, and whose
//! share has which digest.
//!
//! Owns: [`Sharing`], what a seal config says about shares and a [`crate::Collector`] compares them
//! with, its rules and its bytes (part of [`crate::SealConfig`]'s and [`crate::VaultConfig`]'s). Does not: say
//! what it opens, or know a share's value.

use crate::codec::{Reader, Writer};
use crate::collector::ShareRefusal;
use crate::config::{
    ConfigError, MAX_LABEL, MAX_RECIPIENT, check_holders, check_threshold, distinct,
    read_generation, read_threshold,
};
use crate::ids::{Generation, MAX_SHARES, SetId, ShareDigest, Threshold};
use crate::share::Share;

/// One holder of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Who, for people to read.
    pub label: String,
    /// The age recipient that the share was encrypted to; may be empty in dev.
    pub recipient: String,
    /// The share's digest.
    pub digest: ShareDigest,
}

/// A config that says who opens something.
pub trait Shared {
    /// The sharing that opens it.
    fn sharing(&self) -> &Sharing;
}

/// One sharing. The [`crate::SealConfig`] or [`crate::VaultConfig`] that carries it has checked its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sharing {
    /// The lineage of sharings.
    pub set: SetId,
    /// Which sharing of that lineage.
    pub generation: Generation,
    /// How many shares, of how many.
    pub threshold: Threshold,
    /// The holder of share 1, 2, and so on.
    pub holders: Vec<Holder>,
}

impl Sharing {
    /// The holder of share `index` (from 1).
    pub fn holder(&self, index: u8) -> Option<&Holder> {
        self.holders.get(usize::from(index).checked_sub(1)?)
    }

    /// The holder of a share of this sharing; any other share is refused by name.
    pub(crate) fn judge(&self, share: &Share) -> Result<&Holder, ShareRefusal> {
        if share.set() != self.set {
            return Err(ShareRefusal::OtherStore {
                found: share.set(),
                expected: self.set,
            });
        }
        let (found, current) = (share.generation(), self.generation);
        if found < current {
            return Err(ShareRefusal::Superseded { found, current });
        }
        if found > current {
            return Err(ShareRefusal::Newer { found, current });
        }
        let index = share.index();
        match self.holder(index) {
            Some(holder)
                if share.threshold() == self.threshold && share.digest() == holder.digest =>
            {
                Ok(holder)
            }
            _ => Err(ShareRefusal::Damaged { index }),
        }
    }

    /// One distinct holder per share, with a recipient (none needed in dev), and a threshold of one
    /// in dev only.
    pub(crate) fn check(&self, dev: bool) -> Result<(), ConfigError> {
        check_threshold(self.threshold, dev)?;
        let holders = self
            .holders
            .iter()
            .map(|h| (h.label.as_str(), h.recipient.as_str()));
        check_holders(self.threshold, holders, dev)?;
        let digests = self.holders.iter().map(|h| &h.digest);
        distinct("holder", "share digest", digests)
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.raw(self.set.as_bytes())
            .u32(self.generation.get())
            .u8(self.threshold.needed())
            .u8(self.threshold.total())
            .count(self.holders.len());
        for holder in &self.holders {
            out.bytes(holder.label.as_bytes())
                .bytes(holder.recipient.as_bytes())
                .raw(holder.digest.as_bytes());
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Sharing, ConfigError> {
        Ok(Sharing {
            set: SetId::from_bytes(reader.raw("set")?),
            generation: read_generation(reader)?,
            threshold: read_threshold(reader)?,
            holders: reader.list("holders", MAX_SHARES.into(), |r| {
                Ok(Holder {
                    label: r.text("label", MAX_LABEL)?,
                    recipient: r.text("recipient", MAX_RECIPIENT)?,
                    digest: ShareDigest::from_bytes(r.raw("share digest")?),
                })
            })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use mcpist_secret::frame::Ticket;
    use mcpist_secret::{Key, Secret};

    use super::*;

    /// Says of a type whether `==` works on it: the inherent constant hides the trait's where it exists.
    struct Compares<T>(PhantomData<T>);

    trait Otherwise {
        const WITH_EQ: bool = false;
    }

    impl<T> Otherwise for Compares<T> {}

    impl<T: PartialEq> Compares<T> {
        const WITH_EQ: bool = true;
    }

    #[test]
    fn nothing_secret_can_be_compared_but_in_constant_time() {
        const {
            assert!(!Compares::<Share>::WITH_EQ);
            assert!(!Compares::<Key>::WITH_EQ);
            assert!(!Compares::<Secret>::WITH_EQ);
            // A share is judged by its digest, and a digest and a ticket compare by `subtle` alone.
            assert!(Compares::<ShareDigest>::WITH_EQ && Compares::<Ticket>::WITH_EQ);
        }
        let ids = include_str!("ids.rs");
        let (_, named) = ids
            .split_once("macro_rules! named_bytes")
            .expect("it is there");
        let (named, _) = named.split_once("\nnamed_bytes!(").expect("it is used");
        assert!(named.contains("bool::from(self.0.ct_eq(&other.0))"));
        assert!(!named.contains("derive(Clone, Copy, PartialEq"));
        let frame = include_str!("../../secret/src/frame.rs");
        assert!(frame.contains("self.0.ct_eq(&other.0).into()"));
        let judged = include_str!("sharing.rs");
        assert!(judged.contains("share.digest() == holder.digest"));
    }
}
