//! No I/O. A share as words, for paper and for reading aloud.
//!
//! # Form
//! 44 words of the English BIP-39 list (2,048 words, told apart by their first four letters). The
//! share's 56 bytes (`crate::share`) and three zero bits are 41 numbers of 11 bits, most significant
//! first; three check words follow, which make the 44 numbers a codeword of the Reed–Solomon code over
//! GF(2¹¹) (modulus x¹¹ + x² + 1, roots α, α², α³ with α = x, first word the highest coefficient).
//!
//! # Reading
//! Case, line breaks, the numbers of a list and the punctuation behind them are forgiven, and a word may
//! be cut after its fourth letter. What is no word of the list is named by its place. One, two or three
//! wrong words, and so any two words changed for one another, are always noticed; one alone is named
//! by its place, since the code tells where it is.
//!
//! Promises: no error holds a word, typed or meant. The code could tell which word was meant, and never
//! does: an error may end in a log. [`nearest_words`] looks at what was typed and at the list alone, for the
//! terminal on which it was typed. Does not: know whether the share is one of this store.

use bip39::Language;
use mcpist_secret::{MemoryError, Secret};
use zeroize::Zeroizing;

use crate::share::{PAYLOAD_LEN, Share, ShareError};

/// How many words a share has.
pub const SHARE_WORDS: usize = DATA + CHECK;

/// The longest text that [`Share::from_words`] looks at: room for numbers and any spacing.
pub const MAX_WORDS_TEXT: usize = 2048;

const DATA: usize = 41;
const CHECK: usize = 3;
const BITS: usize = 11;
/// Letters of the longest word of the list.
const LONGEST: usize = 8;
/// Letters that tell a word from every other.
const TELLING: usize = 4;

type Numbers = Zeroizing<[u16; SHARE_WORDS]>;

/// Why words are not a share. No variant holds a word.
#[derive(Debug, thiserror::Error)]
pub enum WordsError {
    /// Longer than any spacing of the words.
    #[error("a share is {SHARE_WORDS} words, got {found} bytes: give one share at a time")]
    TooLong {
        /// Length in bytes.
        found: usize,
    },
    /// Not on the list.
    #[error("word {position} is not on the list: compare it with the paper")]
    Unknown {
        /// Place from 1.
        position: usize,
    },
    /// Words are missing or too many.
    #[error("a share is {SHARE_WORDS} words, got {found}: some are missing or doubled")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// The check words do not fit, and all the others do if this one is another word.
    #[error(
        "the check words do not fit: word {position} seems wrong, compare it with the paper, and then the others"
    )]
    Wrong {
        /// Place from 1.
        position: usize,
    },
    /// The check words do not fit, and more than one word is wrong.
    #[error(
        "the check words do not fit: two or more words are wrong or changed places, compare all with the paper"
    )]
    Checksum,
    /// The words are whole and their content is no share's.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// No secret memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl Share {
    /// The share as lower-case words with one space between them, in secret memory.
    pub fn to_words(&self) -> Result<Secret, MemoryError> {
        let payload = self.to_payload()?;
        let mut numbers = Numbers::new([0; SHARE_WORDS]);
        for (at, number) in numbers.iter_mut().take(DATA).enumerate() {
            for bit in at * BITS..(at + 1) * BITS {
                let byte = payload.expose().get(bit / 8).copied().unwrap_or(0);
                *number = *number << 1 | u16::from(byte >> (7 - bit % 8) & 1);
            }
        }
        append_check(&mut numbers);
        let mut text = Secret::zeroed(SHARE_WORDS * (LONGEST + 1))?;
        let mut len = 0;
        for number in numbers.iter() {
            let word = list()[usize::from(*number)].as_bytes();
            text.expose_mut()[len..len + word.len()].copy_from_slice(word);
            len += word.len();
            text.expose_mut()[len] = b' ';
            len += 1;
        }
        text.truncate(len - 1);
        Ok(text)
    }

    /// Reads words. The caller's `text` should be in secret memory too.
    pub fn from_words(text: &[u8]) -> Result<Share, WordsError> {
        if text.len() > MAX_WORDS_TEXT {
            return Err(WordsError::TooLong { found: text.len() });
        }
        let mut numbers = Numbers::new([0; SHARE_WORDS]);
        let mut found = 0;
        for word in words_of(text) {
            let position = found + 1;
            let number = number_of(word).ok_or(WordsError::Unknown { position })?;
            if let Some(slot) = numbers.get_mut(found) {
                *slot = number;
            }
            found += 1;
        }
        if found != SHARE_WORDS {
            return Err(WordsError::Count { found });
        }
        verify(&numbers)?;
        let bits = numbers.iter().take(DATA).flat_map(|number| {
            let number = *number;
            (0..BITS).rev().map(move |bit| number >> bit & 1 == 1)
        });
        // The bits beyond the payload are zero, or these are not words that this program wrote.
        if bits.clone().skip(8 * PAYLOAD_LEN).any(|bit| bit) {
            return Err(ShareError::Field { field: "padding" }.into());
        }
        let payload = Secret::fill(PAYLOAD_LEN, |out| {
            for (at, bit) in bits.take(8 * PAYLOAD_LEN).enumerate() {
                out[at / 8] = out[at / 8] << 1 | u8::from(bit);
            }
            Ok::<(), MemoryError>(())
        })?;
        Ok(Share::from_payload(payload.expose())?)
    }
}

/// The share that was typed, as its text or as words.
pub fn read_share(typed: &[u8]) -> Result<Share, WordsError> {
    let head = typed.trim_ascii_start();
    let looks_like_text = head
        .get(..6)
        .is_some_and(|six| six.eq_ignore_ascii_case(b"mcpist"));
    if looks_like_text {
        Ok(Share::parse(typed)?)
    } else {
        Share::from_words(typed)
    }
}

/// At most three words of the list that are nearest to one that is not on it, by letters changed, left
/// out or put in; none where nothing is within two of them. For the terminal on which it was typed.
pub fn nearest_words(typed: &str) -> Vec<&'static str> {
    if typed.len() > 2 * LONGEST {
        return Vec::new();
    }
    let typed = typed.to_ascii_lowercase();
    let mut near: Vec<(usize, &'static str)> = list()
        .iter()
        .map(|word| (distance(word.as_bytes(), typed.as_bytes()), *word))
        .filter(|(far, _)| *far <= 2)
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, word)| word).collect()
}

/// The place from 1 and the bytes of each word in `text`, as [`Share::from_words`] parts it.
pub fn words_of(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let between = |byte: &u8| byte.is_ascii_whitespace() || b"0123456789.,:;)-".contains(byte);
    text.split(between).filter(|word| !word.is_empty())
}

/// Whether this is a word of the list, whole or cut after its fourth letter.
pub fn is_share_word(word: &[u8]) -> bool {
    number_of(word).is_some()
}

fn list() -> &'static [&'static str; 2048] {
    Language::English.word_list()
}

fn number_of(word: &[u8]) -> Option<u16> {
    let lower = |byte: &u8| byte.to_ascii_lowercase();
    let typed = || word.iter().map(lower);
    let at = list()
        .binary_search_by(|known| known.bytes().cmp(typed()))
        .or_else(|at| {
            // The first word that sorts behind a beginning of four letters has that beginning.
            let begins = |known: &&str| known.bytes().take(TELLING).eq(typed());
            (word.len() == TELLING && list().get(at).is_some_and(begins))
                .then_some(at)
                .ok_or(())
        })
        .ok()?;
    u16::try_from(at).ok()
}

/// Levenshtein's distance.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A product in GF(2¹¹), without a table or a branch that looks at the factors.
fn times(a: u16, b: u16) -> u16 {
    let (mut a, mut product) = (a, 0);
    for bit in 0..BITS {
        product ^= a & (b >> bit & 1).wrapping_neg();
        let over = (a >> (BITS - 1) & 1).wrapping_neg();
        a = a << 1 & 0x7ff ^ over & 0b101;
    }
    product
}

/// Coefficients of (x + α)(x + α²)(x + α³) below x³, highest first.
fn generator() -> [u16; CHECK] {
    const ROOTS: [u16; CHECK] = [2, 4, 8];
    let [a, b, c] = ROOTS;
    [
        a ^ b ^ c,
        times(a, b) ^ times(b, c) ^ times(a, c),
        times(times(a, b), c),
    ]
}

/// The remainder of the data by the generator becomes the check words.
fn append_check(numbers: &mut [u16; SHARE_WORDS]) {
    let generator = generator();
    let mut rest = Zeroizing::new([0; CHECK]);
    for number in &numbers[..DATA] {
        let lead = number ^ rest[0];
        *rest = [
            rest[1] ^ times(lead, generator[0]),
            rest[2] ^ times(lead, generator[1]),
            times(lead, generator[2]),
        ];
    }
    numbers[DATA..].copy_from_slice(rest.as_slice());
}

/// Refuses what is no codeword. A single error e at place p (from the end) has the values e·αᵖ, e·α²ᵖ and
/// e·α³ᵖ at the roots: their quotient is αᵖ, and two errors do not look so, for the distance is four.
fn verify(numbers: &[u16; SHARE_WORDS]) -> Result<(), WordsError> {
    let at = |root: u16| {
        numbers
            .iter()
            .fold(0, |sum, number| times(sum, root) ^ number)
    };
    let [one, two, three] = [at(2), at(4), at(8)];
    if one | two | three == 0 {
        return Ok(());
    }
    let mut locator = 1;
    for position in (1..=SHARE_WORDS).rev() {
        if one != 0 && times(one, locator) == two && times(two, locator) == three {
            return Err(WordsError::Wrong { position });
        }
        locator = times(locator, 2);
    }
    Err(WordsError::Checksum)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
