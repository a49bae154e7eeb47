//! Which lines stand in a database's outbox. No I/O.
//!
//! Owns [`Standing`]: the SHA-256 of each sealed line's row that was not yet taken out of the file, oldest first.
//! The digest over them is part of the head, so that a line of another branch of the file, sealed for the same
//! sequence, does not pass for the one that was written.
//!
//! ```text
//! digest = SHA-256("mcpist-outbox-v1" | n × SHA-256(row))
//! ```
//! The head is sealed, so that no key is needed here.

use std::collections::VecDeque;

use ring::digest::{Context, Digest, SHA256, digest};

/// The rows of the lines `first..next` of a head.
#[derive(Clone, Default)]
pub(crate) struct Standing(VecDeque<Digest>);

impl Standing {
    /// The next line's row.
    pub(crate) fn push(&mut self, row: &[u8]) {
        self.0.push_back(digest(&SHA256, row));
    }

    /// The `count` oldest lines leave the file.
    pub(crate) fn pass(&mut self, count: u64) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.0.drain(..count.min(self.0.len()));
    }

    /// Whether `row` is the one that stands behind `before` others.
    pub(crate) fn holds(&self, before: u64, row: &[u8]) -> bool {
        usize::try_from(before)
            .ok()
            .and_then(|at| self.0.get(at))
            .is_some_and(|known| known.as_ref() == digest(&SHA256, row).as_ref())
    }

    /// What the head says of them.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        context.update(b"mcpist-outbox-v1");
        for row in &self.0 {
            context.update(row.as_ref());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_and_its_place_move_the_digest() {
        let of = |rows: &[&str]| {
            let mut standing = Standing::default();
            rows.iter().for_each(|row| standing.push(row.as_bytes()));
            standing
        };
        let all = [&[][..], &["a"], &["b"], &["a", "b"], &["b", "a"], &["ab"]];
        for (n, rows) in all.iter().enumerate() {
            for other in &all[..n] {
                assert_ne!(of(rows).digest(), of(other).digest());
            }
        }
        let mut passed = of(&["a", "b"]);
        assert!(passed.holds(1, b"b") && !passed.holds(0, b"b") && !passed.holds(2, b"b"));
        passed.pass(1);
        assert_eq!(passed.digest(), of(&["b"]).digest());
        passed.pass(9);
        assert_eq!(passed.digest(), of(&[]).digest());
    }
}
