//! The search: one pass over a body.
//!
//! Owns: the rolling windows of the decoded views, and the verdict on
//! candidates. Promises: every second window of the body, and every window of a decoded view that
//! holds an escape, is probed exactly once, which meets each anchor; nothing is allocated until
//! something is found; verification costs a bounded number of steps for each byte of the
//! body, because past that budget a marked window counts as a hit.

use std::marker::PhantomData;
use std::ops::Range;

use subtle::Choice;
use zeroize::Zeroizing;

use super::fingerprint::{Mac, WINDOW, kind, load};
use super::table::{Place, Table};
use super::view::{Json, MAX_EXPANSION, MAX_TOKEN, Percent, Run, View};

/// What one MAC costs beside its bytes, in bytes hashed.
const MAC_COST: u64 = 256;
/// What a form costs that is only looked at or compared, in bytes hashed.
const COMPARE_COST: u64 = 16;
/// Verification allowed for each byte of a body, in bytes hashed.
const ALLOWED_PER_BYTE: u64 = 32;
/// Verification allowed for any body, in bytes hashed.
const ALLOWED_ALWAYS: u64 = 1 << 18;

/// Bytes from one window that is probed to the next, at the most: an anchor has two windows side by
/// side.
const STEP: usize = 2;
/// Bytes between two looks at the rare cases.
const BLOCK: usize = 16;
/// Bytes of a block and of the last word that starts in it.
const BLOCK_REACH: usize = BLOCK - STEP + 8;

/// A pass over a body.
pub(super) struct Scan<'r> {
    table: &'r Table,
    percent: Walker<Percent>,
    json: Walker<Json>,
    judge: Judge<'r>,
}

impl<'r> Scan<'r> {
    pub(super) fn new(table: &'r Table) -> Scan<'r> {
        let judge = Judge {
            table,
            spent: 0,
            run: Run::default(),
            found: Vec::new(),
        };
        Scan {
            table,
            percent: Walker::new(),
            json: Walker::new(),
            judge,
        }
    }

    /// Ranges of the body to be replaced, in no strict order; they may overlap.
    pub(super) fn found(&mut self) -> &mut Vec<Range<usize>> {
        &mut self.judge.found
    }

    /// Probes all windows of a body.
    pub(super) fn run(&mut self, body: &[u8]) {
        if self.table.is_empty() {
            return;
        }
        let mut at = 0;
        while let Some(block) = body[at..].first_chunk::<BLOCK_REACH>() {
            let mut marked = 0;
            for start in (0..BLOCK).step_by(STEP) {
                marked |= self.table.marked(word(&block[start..]) << 8);
            }
            let words = [word(block), word(&block[8..])];
            let percent = holds(words[0], Percent::ESCAPE) | holds(words[1], Percent::ESCAPE);
            let json = holds(words[0], Json::ESCAPE) | holds(words[1], Json::ESCAPE);
            let end = at + BLOCK;
            if marked & 1 != 0 {
                self.anchors(body, at, end);
            }
            if percent | self.percent.warm != 0 {
                self.percent.walk(body, at, end, &mut self.judge);
            }
            if json | self.json.warm != 0 {
                self.json.walk(body, at, end, &mut self.judge);
            }
            at = end;
        }
        self.anchors(body, at, body.len());
        self.percent.walk(body, at, body.len(), &mut self.judge);
        self.json.walk(body, at, body.len(), &mut self.judge);
    }

    /// The windows of the body itself that start from `from` to `to`, one by one.
    #[inline(never)]
    fn anchors(&mut self, body: &[u8], from: usize, to: usize) {
        for at in (from..to).step_by(STEP) {
            let Some(window) = body.get(at..at + WINDOW) else {
                return;
            };
            let window = load(window);
            if self.table.marked(window) & 1 != 0 {
                self.judge.as_sent(body, at, window);
            }
        }
    }

    /// Verification done over a body of so many bytes, and the most that the budget admits, in bytes hashed.
    #[cfg(test)]
    pub(super) fn cost(&self, bytes: usize) -> (u64, u64) {
        (self.judge.spent, allowed(bytes))
    }
}

/// The first 8 bytes, the first one lowest; 0 where there are fewer.
#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word))
}

/// Where one of the 8 bytes is `byte`, 0x80 stands in the result; only the lowest is certain.
#[inline(always)]
fn holds(word: u64, byte: u8) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let zero_where_equal = word ^ (ONES * u64::from(byte));
    zero_where_equal.wrapping_sub(ONES) & !zero_where_equal & (ONES << 7)
}

/// Where `byte` stands first in `body[from..to]`.
#[inline]
fn find(body: &[u8], mut from: usize, to: usize, byte: u8) -> Option<usize> {
    while from + 8 <= to {
        let equal = holds(word(&body[from..]), byte);
        if equal != 0 {
            return Some(from + equal.trailing_zeros() as usize / 8);
        }
        from += 8;
    }
    let rest = body.get(from..to)?;
    rest.iter()
        .position(|&other| other == byte)
        .map(|index| from + index)
}

/// The rolling window of one decoded view. It rests where the view is the body itself.
struct Walker<V> {
    /// A token border: what comes before it is in the window.
    at: usize,
    /// The last decoded bytes, the newest on top. Behind a byte that is in no form, and at the
    /// start, it may be a window that is nowhere; a form is always read from the body itself.
    window: u64,
    /// How many more decoded bytes give a window that holds a byte of an escape.
    warm: u64,
    view: PhantomData<V>,
}

impl<V: View> Walker<V> {
    fn new() -> Walker<V> {
        Walker {
            at: 0,
            window: 0,
            warm: 0,
            view: PhantomData,
        }
    }

    /// Takes the tokens that start before `to` and probes the windows that hold an escape. All
    /// escapes before `from` were taken by an earlier call.
    #[inline(never)]
    fn walk(&mut self, body: &[u8], from: usize, to: usize, judge: &mut Judge<'_>) {
        loop {
            if self.warm > 0 {
                self.literals(body, to, judge);
            }
            let start = if self.warm > 0 {
                self.at
            } else {
                self.at.max(from)
            };
            let Some(at) = find(body, start, to, V::ESCAPE) else {
                return;
            };
            self.escape(body, at, judge);
        }
    }

    /// Takes the literal bytes that are left of the warm ones and come before `to`.
    fn literals(&mut self, body: &[u8], to: usize, judge: &mut Judge<'_>) {
        let end = to.min(self.at + self.warm as usize);
        for &byte in body.get(self.at..end).unwrap_or_default() {
            if byte == V::ESCAPE {
                return;
            }
            self.at += 1;
            self.warm -= 1;
            self.probe(body, byte, 0, judge);
        }
    }

    /// Takes the token at `at`, where an escape character stands.
    fn escape(&mut self, body: &[u8], at: usize, judge: &mut Judge<'_>) {
        let token = V::next(body, at);
        let decoded = token.decoded();
        if decoded
            .iter()
            .any(|&byte| !judge.table.has_kind(kind(byte)))
        {
            // It is part of no form, and neither is a window with it.
            (self.at, self.warm) = (at + token.len, 0);
            return;
        }
        self.catch_up(body, at);
        self.at = at + token.len;
        self.warm = if token.is_escape() {
            (WINDOW - 1) as u64
        } else {
            self.warm.saturating_sub(1)
        };
        for (index, &byte) in decoded.iter().enumerate() {
            self.probe(body, byte, decoded.len() - 1 - index, judge);
        }
    }

    /// Rolls in a decoded byte, `extra` decoded bytes before the token's end, and probes.
    #[inline(always)]
    fn probe(&mut self, body: &[u8], byte: u8, extra: usize, judge: &mut Judge<'_>) {
        self.roll(byte);
        let window = self.window & !0xFF;
        if judge.table.marked(window) & 1 != 0 {
            judge.decoded::<V>(body, self.at, extra, window);
        }
    }

    /// Moves on to `to` over literal bytes, while at rest.
    fn catch_up(&mut self, body: &[u8], to: usize) {
        if self.warm == 0 && self.at < to {
            for &byte in &body[self.at.max(to.saturating_sub(WINDOW))..to] {
                self.roll(byte);
            }
            self.at = to;
        }
    }

    #[inline(always)]
    fn roll(&mut self, byte: u8) {
        self.window = self.window >> 8 | u64::from(byte) << 56;
    }
}

/// Decides on marked windows.
struct Judge<'r> {
    table: &'r Table,
    /// Work done so far, in bytes hashed.
    spent: u64,
    run: Run,
    found: Vec<Range<usize>>,
}

impl Judge<'_> {
    /// A marked window of the body itself, at `at`. Its form may go on over escapes.
    fn as_sent(&mut self, body: &[u8], at: usize, window: u64) {
        for alike in same_shape(self.table.places(window)) {
            if self.flooded(at, at + WINDOW) {
                return;
            }
            let Place { offset, len, .. } = alike[0];
            self.spent += COMPARE_COST;
            // No view is longer than the body, so this range must exist for any of them.
            let Some(start) = at.checked_sub(offset) else {
                continue;
            };
            let Some(text) = body.get(start..start + len) else {
                continue;
            };
            let mac = self.table.key().mac_of(|mac| mac.update(text));
            self.verdict(body, alike, &mac, start..start + len);
            // Before the anchor, an escape that is part of the form may start a token earlier.
            let reach = &body[start.saturating_sub(MAX_TOKEN)..start + len];
            if reach.contains(&Percent::ESCAPE) {
                self.read::<Percent>(body, at, offset, alike);
            }
            if reach.contains(&Json::ESCAPE) {
                self.read::<Json>(body, at, offset, alike);
            }
        }
    }

    /// A marked window of a decoded view that holds an escape; it ends `extra` decoded bytes
    /// before the token border `end`.
    fn decoded<V: View>(&mut self, body: &[u8], end: usize, extra: usize, window: u64) {
        for alike in same_shape(self.table.places(window)) {
            if self.flooded(end.saturating_sub(WINDOW), end) {
                return;
            }
            self.read::<V>(body, end, alike[0].offset + WINDOW + extra, alike);
        }
    }

    /// Reads the form that starts `back` decoded bytes before the token border `at`.
    fn read<V: View>(&mut self, body: &[u8], at: usize, back: usize, alike: &[Place]) {
        let counted = self.run.counted;
        let (mut start, mut gone) = (at, 0);
        while gone < back && start > 0 {
            let token = V::prev(body, start, &mut self.run);
            start -= token.len;
            gone += token.decoded().len();
        }
        self.spent += COMPARE_COST + (at - start) as u64 + self.run.counted - counted;
        // The form may start inside a character of several bytes.
        let Some(mut skip) = gone.checked_sub(back) else {
            return;
        };
        let (mut end, mut left) = (start, alike[0].len);
        let mut block = Zeroizing::new([0; 64]);
        let mac = self.table.key().mac_of(|mac| {
            let mut used = 0;
            while left > 0 && end < body.len() {
                let token = V::next(body, end);
                end += token.len;
                for &byte in token.decoded().iter().skip(skip).take(left) {
                    block[used] = byte;
                    used += 1;
                    left -= 1;
                    if used == block.len() {
                        mac.update(&*block);
                        used = 0;
                    }
                }
                skip = 0;
            }
            mac.update(&block[..used]);
        });
        self.spent += (end - start) as u64;
        if left == 0 {
            self.verdict(body, alike, &mac, start..end);
        }
    }

    /// Compares a MAC with those of forms of one shape. A hit takes a backslash along that escapes
    /// its first byte (`\/`), so that no escape is cut in two.
    fn verdict(&mut self, body: &[u8], alike: &[Place], mac: &Mac, range: Range<usize>) {
        self.spent += MAC_COST + alike[0].len as u64 + COMPARE_COST * alike.len() as u64;
        let equal = alike
            .iter()
            .fold(Choice::from(0), |any, place| any | place.mac.is(mac));
        if equal.into() {
            let escaped = range.start.checked_sub(1).filter(|&at| {
                body[at] == Json::ESCAPE
                    && Json::next(body, at).is_escape()
                    && Json::opens(body, at, &mut self.run)
            });
            self.hit(escaped.unwrap_or(range.start)..range.end);
        }
    }

    /// Past the budget, the widest form around the window `from..to` is a hit.
    fn flooded(&mut self, from: usize, to: usize) -> bool {
        let flooded = self.spent > allowed(from);
        if flooded {
            let start = from.saturating_sub(MAX_EXPANSION * self.table.before());
            self.hit(start..to + MAX_EXPANSION * self.table.after());
        }
        flooded
    }

    fn hit(&mut self, range: Range<usize>) {
        match self.found.last_mut() {
            // So that a flood is one range, not one for each byte.
            Some(last) if range.start < last.end && last.start < range.end => {
                *last = last.start.min(range.start)..last.end.max(range.end);
            }
            _ => self.found.push(range),
        }
    }
}

/// Verification allowed before the byte `at`, in bytes hashed.
fn allowed(at: usize) -> u64 {
    ALLOWED_ALWAYS + ALLOWED_PER_BYTE * at as u64
}

/// Cuts places with one hash into those with one offset and length, which share a MAC.
fn same_shape(places: &[Place]) -> impl Iterator<Item = &[Place]> {
    places.chunk_by(|a, b| (a.offset, a.len) == (b.offset, b.len))
}
