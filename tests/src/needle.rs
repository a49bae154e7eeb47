//! What is looked for: each secret in every form in which the product or a library may write it, and parts of forms.
//!
//! Owns: the forms and the search over bytes. Promises that a run of [`MIN_BYTES`] or more bytes of a secret is found in
//! each form, at any alignment. Does not: find shorter pieces, or a form that is not listed here.

use std::collections::HashMap;

/// Length of the windows that are looked up, in bytes.
const WINDOW: usize = 12;
/// The shortest run of a secret's own bytes that counts as found.
const MIN_BYTES: usize = 12;

/// One secret in one form.
struct Needle {
    /// The secret's name and the form's.
    name: String,
    bytes: Vec<u8>,
    /// The shortest part of this form that counts.
    shortest: usize,
}

/// A set of secrets to look for.
pub struct Needles {
    needles: Vec<Needle>,
    /// By the first two bytes of a window: whether any window begins so.
    starts: Vec<bool>,
    /// Window → needle, and where in it.
    windows: HashMap<[u8; WINDOW], (usize, usize)>,
}

/// A part of a secret, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Position in the bytes that were searched.
    pub at: usize,
    /// Length of the part, in bytes.
    pub length: usize,
    /// The secret's name and the form's.
    pub name: String,
}

impl Needles {
    /// The needles of these secrets, by name: only what is random of each, since what is public of it may be anywhere.
    pub fn new<'s>(secrets: impl IntoIterator<Item = (&'s str, &'s [u8])>) -> Needles {
        let mut all = Needles {
            needles: Vec::new(),
            starts: vec![false; 1 << 16],
            windows: HashMap::new(),
        };
        for (name, secret) in secrets {
            all.add(name, "as it is", secret.to_vec(), 1, 1);
            let reversed = secret.iter().rev().copied().collect();
            all.add(name, "reversed", reversed, 1, 1);
            all.add(name, "hexadecimal", hex(secret, b"0123456789abcdef"), 2, 1);
            all.add(name, "HEXADECIMAL", hex(secret, b"0123456789ABCDEF"), 2, 1);
            for skipped in 0..3 {
                let text = base64(&secret[skipped..]);
                let url = text.iter().map(|b| match b {
                    b'+' => b'-',
                    b'/' => b'_',
                    other => *other,
                });
                all.add(name, "base64url", url.collect(), 4, 3);
                all.add(name, "base64", text, 4, 3);
            }
            let percent = secret.iter().flat_map(|b| format!("%{b:02X}").into_bytes());
            all.add(name, "percent-encoded", percent.collect(), 3, 1);
            let query = secret.iter().flat_map(|b| match b {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => vec![*b],
                other => format!("%{other:02X}").into_bytes(),
            });
            all.add(name, "in a query", query.collect(), 1, 1);
            let json = secret
                .iter()
                .flat_map(|b| format!("\\u{b:04x}").into_bytes());
            all.add(name, "JSON escapes", json.collect(), 6, 1);
            for skipped in 0..4 {
                // As SHA-256 loads a block: big-endian words, in a little-endian processor's memory.
                let (words, _) = secret[skipped..].as_chunks::<4>();
                let words = words.iter().flat_map(|[a, b, c, d]| [*d, *c, *b, *a]);
                all.add(name, "words of a digest", words.collect(), 1, 1);
            }
            for (form, pad) in [("HMAC's inner pad", 0x36), ("HMAC's outer pad", 0x5c)] {
                let padded = secret.iter().map(|byte| byte ^ pad);
                all.add(name, form, padded.collect(), 1, 1);
            }
            let wide = secret.iter().flat_map(|b| [*b, 0]);
            all.add(name, "UTF-16", wide.collect(), 2, 1);
        }
        all
    }

    /// A form in which `bytes` bytes of the secret take `written` bytes.
    fn add(&mut self, name: &str, form: &str, text: Vec<u8>, written: usize, bytes: usize) {
        let number = self.needles.len();
        for (at, window) in text.windows(WINDOW).enumerate() {
            self.starts[start(window[0], window[1])] = true;
            if let Ok(window) = window.try_into() {
                // The first form that has a window names it: forms overlap where nothing needs encoding.
                self.windows.entry(window).or_insert((number, at));
            }
        }
        self.needles.push(Needle {
            name: format!("{name}, {form}"),
            bytes: text,
            shortest: MIN_BYTES * written / bytes,
        });
    }

    /// Every part of a needle in `bytes`.
    pub fn search(&self, bytes: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        let mut at = 0;
        while at + WINDOW <= bytes.len() {
            let found = match self.starts[start(bytes[at], bytes[at + 1])] {
                true => self.windows.get(&bytes[at..at + WINDOW]),
                false => None,
            };
            let Some(&(number, offset)) = found else {
                at += 1;
                continue;
            };
            let needle = &self.needles[number];
            let same = bytes[at..].iter().zip(&needle.bytes[offset..]);
            let length = same.take_while(|(a, b)| a == b).count();
            if length >= needle.shortest {
                hits.push(Hit {
                    at,
                    length,
                    name: needle.name.clone(),
                });
            }
            at += length;
        }
        hits
    }
}

fn start(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

fn hex(bytes: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    bytes
        .iter()
        .flat_map(|b| [digits[usize::from(b >> 4)], digits[usize::from(b & 15)]])
        .collect()
}

/// The standard alphabet, whole groups only: what an end would look like depends on what follows.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (groups, _) = bytes.as_chunks::<3>();
    groups
        .iter()
        .flat_map(|[a, b, c]| {
            let bits = u32::from_be_bytes([0, *a, *b, *c]);
            [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift & 63) as usize])
        })
        .collect()
}

/// Random characters of a token, `length` of them; with `special` some that a URL encodes.
///
/// # Panics
/// Where the system has no randomness.
pub fn token(length: usize, special: bool) -> String {
    const PLAIN: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const SPECIAL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuv0123456789+/=&!$";
    let alphabet = if special { SPECIAL } else { PLAIN };
    let bytes: [u8; 64] = mcpist_secret::random_bytes().expect("random bytes");
    let text = bytes
        .iter()
        .map(|b| char::from(alphabet[usize::from(b & 63)]));
    text.take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"s3cr3t+0123456789/ABCDEFGHIJ";

    fn found(text: &[u8]) -> Vec<Hit> {
        Needles::new([("canary", SECRET)]).search(text)
    }

    #[test]
    fn every_form_is_found_anywhere() {
        let forms: [&[u8]; 6] = [
            SECRET,
            b"c3MzY3IzdCswMTIzNDU2Nzg5L0FCQ0RFRkdISUo",
            b"7333637233742b303132333435363738392f4142434445464748494a",
            b"s3cr3t%2B0123456789%2FABCDEFGHIJ",
            b"JIHGFEDCBA/9876543210+t3rc3s",
            b"%73%33%63%72%33%74%2B%30%31%32%33%34",
        ];
        for form in forms {
            let text = [b"before ", form, b" after"].concat();
            let hits = found(&text);
            assert!(!hits.is_empty(), "{}", String::from_utf8_lossy(form));
            assert!((4..12).contains(&hits[0].at), "{hits:?}");
        }
    }

    #[test]
    fn base64_behind_a_prefix_of_any_length_is_found() {
        for prefix in ["", "u", "us", "use", "user:"] {
            let mut clear = [prefix.as_bytes(), SECRET].concat();
            clear.truncate(clear.len() / 3 * 3);
            assert!(!found(&base64(&clear)).is_empty(), "{prefix:?}");
        }
    }

    #[test]
    fn a_part_is_found_and_a_shorter_one_is_not() {
        let hits = found(&SECRET[5..5 + MIN_BYTES]);
        assert_eq!(hits.len(), 1);
        assert_eq!((hits[0].at, hits[0].length), (0, MIN_BYTES));
        assert_eq!(found(&SECRET[5..5 + MIN_BYTES - 1]), []);
        assert_eq!(found(b"nothing of the kind in this text"), []);
    }

    #[test]
    fn two_copies_are_two_hits() {
        assert_eq!(found(&[SECRET, SECRET].concat()).len(), 2);
    }
}
