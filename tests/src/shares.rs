//! What opens the store, from what its holders have: the values of the shares, the split secret, and the key that wraps
//! the root key. Worked out anew from docs/FORMATS.md, since mcpistd tells none of it. No I/O.

use std::error::Error;

use mcpist_quorum::{Share, derive_kek};
use mcpist_secret::{Key, MemoryError, Secret};

/// Characters behind the prefix: 90 of the 56 bytes, 6 of the checksum.
const DATA: usize = 96;
/// Bytes before the value, all of them public.
const PUBLIC: usize = 24;

/// The secrets of a store, or of a vault, that any two of its shares open.
pub struct Shares<'t> {
    texts: &'t [Secret],
    values: Vec<[u8; 32]>,
    split: [u8; 32],
    kek: Key,
}

impl<'t> Shares<'t> {
    /// From the texts of all shares, in order.
    ///
    /// # Errors
    /// They are not the shares of one secret that any two give; no secret memory.
    pub fn of(texts: &'t [Secret]) -> Result<Shares<'t>, Box<dyn Error + Send + Sync>> {
        let values: Vec<_> = texts.iter().map(|text| value(text.expose())).collect();
        let [first, others @ ..] = &values[..] else {
            return Err("no shares".into());
        };
        let mut given = (2..).zip(others).map(|other| combine((1, first), other));
        let split = given.next().ok_or("one share gives no secret")?;
        if given.any(|other| other != split) {
            return Err("shares of one store give two secrets".into());
        }
        let secret = Key::fill(|key| {
            *key = split;
            Ok::<_, MemoryError>(())
        })?;
        let share = Share::parse(texts[0].expose())?;
        let kek = derive_kek(&secret, share.set(), share.generation())?;
        Ok(Shares {
            texts,
            values,
            split,
            kek,
        })
    }

    /// Each with a name; of a text what is not public.
    pub fn secrets(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let texts = self
            .texts
            .iter()
            .map(|text| ("share's text", random(text.expose())));
        let values = self.values.iter().map(|value| ("share", &value[..]));
        let keys = [
            ("split secret", &self.split[..]),
            ("KEK", &self.kek.expose()[..]),
        ];
        texts.chain(values).chain(keys)
    }
}

/// The characters of a share's text that come from its value and its checksum alone.
fn random(text: &[u8]) -> &[u8] {
    &text[text.len() - DATA + (PUBLIC * 8).div_ceil(5)..]
}

/// The value in a share's text.
fn value(text: &[u8]) -> [u8; 32] {
    const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let mut bytes = Vec::with_capacity(56);
    let (mut bits, mut pending) = (0_u16, 0);
    for character in &text[text.len() - DATA..text.len() - 6] {
        let value = ALPHABET.iter().zip(0_u16..).find(|(c, _)| *c == character);
        bits = bits << 5 | value.map_or(0, |(_, value)| value);
        pending += 5;
        if pending >= 8 {
            pending -= 8;
            bytes.push((bits >> pending) as u8);
        }
    }
    bytes[PUBLIC..].first_chunk().copied().unwrap_or_default()
}

/// The value at 0 of the line through two points, for each byte over GF(2^8) modulo 0x11b.
fn combine(first: (u8, &[u8; 32]), second: (u8, &[u8; 32])) -> [u8; 32] {
    let inverse = (1..=u8::MAX)
        .find(|i| times(*i, first.0 ^ second.0) == 1)
        .unwrap_or(1);
    std::array::from_fn(|at| {
        times(
            times(first.1[at], second.0) ^ times(second.1[at], first.0),
            inverse,
        )
    })
}

fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b > 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = (a << 1) ^ ((a >> 7) * 0x1b);
        b >>= 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/FORMATS.md, "Share".
    const TEXT: &[u8] = b"mcpist-share1qy3zyg3zyg3zyg3zyg3zyg3zyg3qqqqqqypqxpgqqypqxpq9qcrsszg2pvxq6rs0zqg3yyc5z5tpwxqergd3c8g7ru0q57fg";

    #[test]
    fn the_value_of_a_share_is_read_from_its_text() {
        assert_eq!(value(TEXT), std::array::from_fn(|at| at as u8));
        assert!(TEXT.ends_with(random(TEXT)));
        assert_eq!(random(TEXT).len(), 57);
    }

    #[test]
    fn a_line_is_followed_to_zero() {
        // y = secret + slope * x
        let point = |x: u8| (x, std::array::from_fn(|at| at as u8 ^ times(0x53, x)));
        let ((x1, y1), (x2, y2)) = (point(1), point(3));
        assert_eq!(
            combine((x1, &y1), (x2, &y2)),
            std::array::from_fn(|at| at as u8)
        );
    }
}
