//! No I/O. Shamir's secret sharing over GF(256), and the only user of `vsss-rs`.
//!
//! Each of the secret's 32 bytes is the constant term of its own polynomial of degree `needed - 1`
//! over GF(2⁸) with the reduction polynomial 0x11b; share `x` holds the 32 values at `x` (Shamir,
//! "How to share a secret", CACM 22(11), 1979).
//!
//! # Threat model
//! Fewer than `needed` shares say nothing about the secret, whatever the adversary computes. A wrong
//! value among them would combine to wrong bytes without a sign, and the library does not notice:
//! so the only public way to [`combine`] is a [`ValidShares`], whose shares were compared with the
//! digests of the seal config. This file adds what the library leaves open: indices are 1 to total
//! and never zero or doubled, exactly `needed` shares are combined, a threshold of one is a copy,
//! coefficients come from the system's generator, uniform over all 256 values, in secret memory, and
//! a fresh split is combined again and compared before it is given out.
//!
//! # Limits
//! The library takes polynomials as arrays of elements: one byte's coefficients stand on the stack
//! while that byte is computed. They are overwritten, copies that the compiler makes are not.

use mcpist_secret::{Key, MemoryError, Secret};
use ring::rand::{SecureRandom, SystemRandom};
use vsss_rs::{DefaultShare, Gf256, IdentifierGf256, Polynomial, ReadableShareSet};
use zeroize::{Zeroize, Zeroizing};

use crate::codec::Writer;
use crate::collector::ValidShares;
use crate::ids::{Generation, MAX_SHARES, SetId, Threshold};
use crate::share::Share;

const SECRET_LEN: usize = 32;

/// Why a secret was not split. Nothing was given out.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The system gave no randomness.
    #[error("the system gave no randomness for the shares: nothing was made, try again")]
    Random,
    /// The fresh shares did not combine to the secret.
    #[error("fresh shares did not give the secret back: nothing was made, the host is not sound")]
    SelfCheck,
    /// No secret memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Why shares were not combined.
#[derive(Debug, thiserror::Error)]
pub enum CombineError {
    /// Not exactly as many shares as are needed.
    #[error("{needed} shares are needed, got {found}: give exactly that many")]
    Count {
        /// How many are needed.
        needed: u8,
        /// How many there are.
        found: usize,
    },
    /// An index is zero or occurs twice.
    #[error("share number {0} is zero or given twice: give each share once")]
    Index(u8),
    /// The library refused.
    #[error("the shares could not be combined: their numbers do not form a set")]
    Library,
    /// No secret memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Splits `secret` into `threshold.total()` shares of which `threshold.needed()` give it back.
pub fn split(
    secret: &Key,
    threshold: Threshold,
    set: SetId,
    generation: Generation,
) -> Result<Vec<Share>, SplitError> {
    let random = usize::from(threshold.needed()) * SECRET_LEN;
    let coefficients = Secret::fill(random, |out| {
        SystemRandom::new()
            .fill(out)
            .map_err(|_| SplitError::Random)
    })?;
    let shares = split_with(secret, coefficients.expose(), threshold, set, generation)?;
    check(secret, threshold, &shares)?;
    Ok(shares)
}

/// Gives the split secret back.
pub fn combine(shares: &ValidShares) -> Result<Key, CombineError> {
    let points: Vec<(u8, &Key)> = shares
        .shares()
        .iter()
        .map(|share| (share.index(), share.value()))
        .collect();
    combine_points(shares.needed(), &points)
}

/// The key that wraps the root key: HKDF-SHA-256 over the split secret, salted with the set's id.
/// `info` = `"mcpist-kek-v1"` as a length-prefixed field, generation u32, and a byte 0: no host factor.
pub fn derive_kek(secret: &Key, set: SetId, generation: Generation) -> Result<Key, MemoryError> {
    let info = Writer::bare()
        .bytes(b"mcpist-kek-v1")
        .u32(generation.get())
        .u8(0)
        .finish();
    secret.derive(set.as_bytes(), &info)
}

type Point = DefaultShare<IdentifierGf256, IdentifierGf256>;

/// The library's elements for one byte: a polynomial's coefficients, or the points to combine.
struct Elements([Point; MAX_SHARES as usize]);

impl Elements {
    /// Overwritten when dropped, since the library does not.
    fn new() -> Zeroizing<Elements> {
        Zeroizing::new(Elements(<[Point; MAX_SHARES as usize] as Polynomial<
            Point,
        >>::create(0)))
    }
}

impl Zeroize for Elements {
    fn zeroize(&mut self) {
        for point in &mut self.0 {
            point.identifier.0.0.zeroize();
            point.value.0.0.zeroize();
        }
    }
}

/// The split with given coefficients: byte `b` of the secret takes `coefficients[32·i + b]` as the
/// coefficient of xⁱ for i from 1 to needed − 1; the first 32 bytes are not used.
fn split_with(
    secret: &Key,
    coefficients: &[u8],
    threshold: Threshold,
    set: SetId,
    generation: Generation,
) -> Result<Vec<Share>, MemoryError> {
    let needed = usize::from(threshold.needed());
    (1..=threshold.total())
        .map(|index| {
            let x = IdentifierGf256(Gf256(index));
            let mut polynomial = Elements::new();
            let mut y = IdentifierGf256::default();
            let value = Key::fill(|out| {
                for (at, (slot, byte)) in out.iter_mut().zip(secret.expose()).enumerate() {
                    polynomial.0[0].value = IdentifierGf256(Gf256(*byte));
                    let rows = coefficients.chunks_exact(SECRET_LEN).enumerate();
                    for (power, row) in rows.take(needed).skip(1) {
                        polynomial.0[power].identifier = IdentifierGf256(Gf256(row[at]));
                    }
                    polynomial.0.evaluate_in_place(&x, needed, &mut y);
                    *slot = y.0.0;
                }
                y.0.0.zeroize();
                Ok::<(), MemoryError>(())
            })?;
            Ok(Share::new(set, generation, index, threshold, value))
        })
        .collect()
}

/// How many quorums of a fresh split are tried.
const MOST_QUORUMS: usize = 128;

/// Combines quorums and compares.
fn check(secret: &Key, threshold: Threshold, shares: &[Share]) -> Result<(), SplitError> {
    for quorum in tried_quorums(threshold) {
        let given = shares
            .iter()
            .filter(|share| quorum & (1 << (share.index() - 1)) != 0);
        let points: Vec<(u8, &Key)> = given.map(|s| (s.index(), s.value())).collect();
        let back = combine_points(threshold.needed(), &points).map_err(|error| match error {
            CombineError::Memory(memory) => SplitError::Memory(memory),
            _ => SplitError::SelfCheck,
        })?;
        if !back.ct_eq(secret) {
            return Err(SplitError::SelfCheck);
        }
    }
    Ok(())
}

/// Quorums as sets of share numbers, bit 0 for share 1: all of them, or where there are more than
/// [`MOST_QUORUMS`], each share with those that follow it around the circle.
fn tried_quorums(threshold: Threshold) -> Vec<u32> {
    let (needed, total) = (u32::from(threshold.needed()), u32::from(threshold.total()));
    let sets = (0..1_u32 << total).filter(|set| set.count_ones() == needed);
    let all: Vec<u32> = sets.take(MOST_QUORUMS + 1).collect();
    if all.len() <= MOST_QUORUMS {
        return all;
    }
    let from = |first| (0..needed).fold(0, |set, next| set | (1_u32 << ((first + next) % total)));
    (0..total).map(from).collect()
}

fn combine_points(needed: u8, points: &[(u8, &Key)]) -> Result<Key, CombineError> {
    if points.len() != usize::from(needed) || points.is_empty() || needed > MAX_SHARES {
        return Err(CombineError::Count {
            needed,
            found: points.len(),
        });
    }
    for (at, (x, _)) in points.iter().enumerate() {
        if *x == 0 || points[..at].iter().any(|(earlier, _)| earlier == x) {
            return Err(CombineError::Index(*x));
        }
    }
    let mut elements = Elements::new();
    let mut byte = IdentifierGf256::default();
    Key::fill(|out| {
        if let [(_, only)] = points {
            out.copy_from_slice(only.expose());
            return Ok(());
        }
        for (at, slot) in out.iter_mut().enumerate() {
            for (element, (x, value)) in elements.0.iter_mut().zip(points) {
                element.identifier = IdentifierGf256(Gf256(*x));
                element.value = IdentifierGf256(Gf256(value.expose()[at]));
            }
            (&elements.0[..points.len()])
                .combine_in_place(&mut byte)
                .map_err(|_| CombineError::Library)?;
            *slot = byte.0.0;
        }
        byte.0.0.zeroize();
        Ok(())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
