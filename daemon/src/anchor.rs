//! What people bring from outside the disk: witness receipts that wait for the quorum. No I/O.
//!
//! Owns [`Receipts`]. While the store is sealed there is no key to judge a receipt by, so each waits as it is. Promises
//! that a user who presents thousands keeps nobody else's out and loses none but their own, that of one user's the
//! newest stay, and that a receipt which was presented is not forgotten by an unseal that failed. Does not judge
//! ([`mcpist_quorum::judge`] does).

use mcpist_quorum::{Ignored, Receipt};

/// Receipts that wait at once.
const AT_ONCE: usize = 64;
/// Of them, those of one user.
const OF_ONE_USER: usize = 4;

/// The receipts that were presented to a sealed store.
#[derive(Default)]
pub(crate) struct Receipts(Vec<(u32, Receipt)>);

/// There is no room for another user's receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{AT_ONCE} witness receipts of other users wait already")]
pub(crate) struct NoRoom;

impl Receipts {
    /// Keeps a receipt for the quorum. Says how many wait.
    pub(crate) fn present(&mut self, uid: u32, receipt: Receipt) -> Result<usize, NoRoom> {
        if self.0.iter().any(|held| *held == (uid, receipt.clone())) {
            return Ok(self.0.len());
        }
        let theirs = self.0.iter().filter(|(of, _)| *of == uid).count();
        if theirs < OF_ONE_USER && self.0.len() >= AT_ONCE {
            return Err(NoRoom);
        }
        self.0.push((uid, receipt));
        if theirs >= OF_ONE_USER {
            let of_them = self.0.iter().enumerate().filter(|(_, (of, _))| *of == uid);
            let oldest = of_them.reduce(|oldest, next| {
                if oldest.1.1.is_newer_than(&next.1.1) {
                    next
                } else {
                    oldest
                }
            });
            if let Some(at) = oldest.map(|(at, _)| at) {
                self.0.remove(at);
            }
        }
        Ok(self.0.len())
    }

    /// The receipts that wait.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Receipt> {
        self.0.iter().map(|(_, receipt)| receipt)
    }

    /// Drops those that were found to say nothing, and names who presented each.
    pub(crate) fn drop_ignored(&mut self, ignored: &[(Ignored, Receipt)]) -> Vec<(u32, Ignored)> {
        let mut dropped = Vec::new();
        self.0.retain(|(uid, held)| {
            let found = ignored.iter().find(|(_, receipt)| receipt == held);
            dropped.extend(found.map(|(why, _)| (*uid, *why)));
            found.is_none()
        });
        dropped
    }

    /// The store opened: what waited has been judged.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mcpist_quorum::{Incarnation, LogPoint, StoreId, StorePoint};
    use ring::signature::Ed25519KeyPair;

    use super::*;

    fn receipt(generation: u64) -> Receipt {
        let at = StorePoint {
            incarnation: Incarnation {
                counter: 1,
                id: [2; 16],
                parent: [0; 16],
            },
            generation,
            digest: [3; 32],
        };
        let log = LogPoint {
            sequence: 1,
            head: [4; 32],
        };
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        Receipt::sign(StoreId::from_bytes([1; 16]), at, log, 0, &pair)
    }

    fn generations(receipts: &Receipts) -> Vec<u64> {
        receipts.all().map(|r| r.at().generation).collect()
    }

    #[test]
    fn of_a_users_thousand_receipts_the_newest_stay_and_nobody_elses_goes() {
        let mut receipts = Receipts::default();
        receipts.present(1, receipt(5)).unwrap();
        for generation in (0..1000).rev() {
            receipts.present(2, receipt(generation)).unwrap();
        }
        let mut held = generations(&receipts);
        held.sort_unstable();
        assert_eq!(held, [5, 996, 997, 998, 999]);
    }

    #[test]
    fn the_same_receipt_waits_once() {
        let mut receipts = Receipts::default();
        assert_eq!(receipts.present(1, receipt(5)), Ok(1));
        assert_eq!(receipts.present(1, receipt(5)), Ok(1));
        assert_eq!(receipts.present(2, receipt(5)), Ok(2));
    }

    #[test]
    fn where_all_places_are_taken_a_new_user_is_told_and_an_old_one_goes_on() {
        let mut receipts = Receipts::default();
        for uid in 0..16 {
            for generation in 0..4 {
                receipts.present(uid, receipt(generation)).unwrap();
            }
        }
        assert_eq!(receipts.present(16, receipt(9)), Err(NoRoom));
        assert_eq!(receipts.present(3, receipt(9)), Ok(AT_ONCE));
    }

    #[test]
    fn what_says_nothing_is_dropped_and_its_user_named() {
        let mut receipts = Receipts::default();
        receipts.present(1, receipt(5)).unwrap();
        receipts.present(2, receipt(6)).unwrap();
        let ignored = [(Ignored::Forged, receipt(6))];
        assert_eq!(receipts.drop_ignored(&ignored), [(2, Ignored::Forged)]);
        assert_eq!(generations(&receipts), [5]);
    }
}
