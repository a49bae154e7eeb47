//! No I/O. A fresh secret and its shares: the one maker of both, for init and for rekey.
//!
//! Owns: [`NewSharing`]. Promises: the secret is forgotten before anybody sees a share, what stays of
//! it is the key that it gives; and quorums of the shares were combined and compared before (every
//! one, or where there are too many a bounded number in which each share takes part). Does not:
//! encrypt or hand out a share.

use mcpist_secret::Key;

use crate::ids::{Generation, SetId, Threshold};
use crate::plan::PlannedHolder;
use crate::share::Share;
use crate::sharing::{Holder, Sharing};
use crate::split::{SplitError, derive_kek, split};

/// Shares that nobody has yet.
#[derive(Debug)]
pub(crate) struct NewSharing {
    pub(crate) sharing: Sharing,
    /// The key that wraps the root key.
    pub(crate) kek: Key,
    /// In order of their holders.
    pub(crate) shares: Vec<Share>,
}

impl NewSharing {
    /// Splits a fresh secret among `holders`.
    pub(crate) fn make(
        set: SetId,
        generation: Generation,
        threshold: Threshold,
        holders: &[PlannedHolder],
    ) -> Result<NewSharing, SplitError> {
        let secret = Key::random()?;
        let shares = split(&secret, threshold, set, generation)?;
        let kek = derive_kek(&secret, set, generation)?;
        drop(secret);
        let holders = holders.iter().zip(&shares).map(|(holder, share)| Holder {
            label: holder.label.clone(),
            recipient: holder.recipient.clone(),
            digest: share.digest(),
        });
        Ok(NewSharing {
            sharing: Sharing {
                set,
                generation,
                threshold,
                holders: holders.collect(),
            },
            kek,
            shares,
        })
    }
}
