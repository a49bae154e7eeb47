//! How many connections the admin socket serves. No I/O.
//!
//! Promises that one user's connections do not keep another user's out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::keeper::lock;

/// Connections at once.
const ALL: usize = 64;
/// Of them, those of one user.
const OF_ONE_USER: usize = 16;

/// The connections that are served.
#[derive(Clone, Default)]
pub(super) struct Connections(Arc<Mutex<BTreeMap<u32, usize>>>);

/// One of them; gives its place back when dropped.
pub(super) struct Admitted {
    all: Connections,
    uid: u32,
}

impl Connections {
    /// A place for a connection of `uid`, if there is one.
    pub(super) fn admit(&self, uid: u32) -> Option<Admitted> {
        let mut served = lock(&self.0);
        let all: usize = served.values().sum();
        let own = served.get(&uid).copied().unwrap_or_default();
        if all >= ALL || own >= OF_ONE_USER {
            return None;
        }
        served.insert(uid, own + 1);
        let all = self.clone();
        Some(Admitted { all, uid })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut served = lock(&self.all.0);
        match served.get_mut(&self.uid) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                served.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_user_does_not_keep_another_out_and_an_end_makes_room() {
        let connections = Connections::default();
        let mut mine: Vec<_> = (0..OF_ONE_USER)
            .map(|_| connections.admit(1).unwrap())
            .collect();
        assert!(connections.admit(1).is_none());
        assert!(connections.admit(2).is_some());
        mine.pop();
        assert!(connections.admit(1).is_some());
    }

    #[test]
    fn all_together_are_bounded() {
        let connections = Connections::default();
        let held: Vec<_> = (0..ALL)
            .map(|n| {
                connections
                    .admit(u32::try_from(n / OF_ONE_USER).unwrap())
                    .unwrap()
            })
            .collect();
        assert!(connections.admit(1000).is_none());
        drop(held);
        assert!(lock(&connections.0).is_empty());
    }
}
