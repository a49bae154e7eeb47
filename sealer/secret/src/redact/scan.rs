//! The search: one pass over a body, which may go on when more of the body is there.
//!
//! Owns: where the pass stands, the rolling windows of the decoded views, and the verdict on
//! candidates. Promises: every window of every view is probed exactly once; nothing is allocated
//! until something is found; verification costs a bounded number of steps for each byte of the
//! body, because past that budget a marked window counts as a hit.

use std::marker::PhantomData;
use std::ops::Range;

use subtle::Choice;
use zeroize::Zeroizing;

use super::fingerprint::{ANCHOR, Form, load};
use super::table::Table;
use super::view::{Json, MAX_EXPANSION, MAX_TOKEN, Percent, Run, View};

/// What one MAC costs beside its bytes, in bytes hashed.
const MAC_COST: u64 = 256;
/// What a form costs that is only looked at or compared, in bytes hashed.
const COMPARE_COST: u64 = 16;
/// Verification allowed for each byte of a body, in bytes hashed.
const ALLOWED_PER_BYTE: u64 = 32;
/// Verification allowed for any body, in bytes hashed.
const ALLOWED_ALWAYS: u64 = 1 << 16;

/// Windows that are probed between two looks at the rare cases.
const BLOCK: usize = 8;

/// A pass over a body.
pub(super) struct Scan<'r> {
    table: &'r Table,
    /// The first window that was not probed yet.
    at: usize,
    percent: Walker<Percent>,
    json: Walker<Json>,
    judge: Judge<'r>,
}

impl<'r> Scan<'r> {
    pub(super) fn new(table: &'r Table) -> Scan<'r> {
        let judge = Judge {
            table,
            passed: 0,
            spent: 0,
            run: Run::default(),
            found: Vec::new(),
        };
        Scan {
            table,
            at: 0,
            percent: Walker::new(),
            json: Walker::new(),
            judge,
        }
    }

    /// Where the next window starts.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Ranges of the body to be replaced, in no strict order; they may overlap.
    pub(super) fn found(&mut self) -> &mut Vec<Range<usize>> {
        &mut self.judge.found
    }

    /// Probes all windows that start before `until`. `body` is the one given last time, longer or
    /// not; past `until` it must hold a whole form in every view, or be at its end.
    pub(super) fn advance(&mut self, body: &[u8], until: usize) {
        if self.table.len() == 0 {
            return;
        }
        let until = until.min(body.len());
        let mut at = self.at;
        while at + BLOCK <= until
            && let Some(block) = body[at..].first_chunk::<{ 2 * BLOCK - 1 }>()
        {
            let mut marked = 0;
            for start in 0..BLOCK {
                marked |= self.table.marked(load(&block[start..]));
            }
            if marked != 0 {
                self.anchors(body, at, at + BLOCK);
            }
            let escapes = holds(load(block), b'%') | holds(load(block), b'\\');
            if escapes | self.percent.warm | self.json.warm != 0 {
                self.escapes(body, at, at + BLOCK);
            }
            at += BLOCK;
        }
        if at < until {
            self.anchors(body, at, until);
            self.escapes(body, at, until);
            at = until;
        }
        self.at = self.at.max(at);
        self.percent.catch_up(body, self.at);
        self.json.catch_up(body, self.at);
    }

    /// The windows of the body itself that start from `from` to `to`, one by one.
    #[inline(never)]
    fn anchors(&mut self, body: &[u8], from: usize, to: usize) {
        for at in from..to.min((body.len() + 1).saturating_sub(ANCHOR)) {
            let window = load(&body[at..]);
            if self.table.marked(window) != 0 {
                self.judge.as_sent(body, at, window);
            }
        }
    }

    /// The windows of the decoded views around the escapes from `from` to `to`.
    #[inline(never)]
    fn escapes(&mut self, body: &[u8], from: usize, to: usize) {
        self.percent.walk(body, from, to, &mut self.judge);
        self.json.walk(body, from, to, &mut self.judge);
    }

    /// Forgets the first `count` bytes of the body; all were probed, and no range reaches there.
    pub(super) fn shift(&mut self, count: usize) {
        self.at -= count;
        self.percent.at -= count;
        self.json.at -= count;
        self.judge.passed += count as u64;
        self.judge.run.forget();
        for range in &mut self.judge.found {
            *range = range.start.saturating_sub(count)..range.end - count;
        }
    }

    /// Verification done so far, and the most that the budget admits, in bytes hashed.
    #[cfg(test)]
    pub(super) fn cost(&self) -> (u64, u64) {
        (self.judge.spent, self.judge.allowed(self.at))
    }
}

/// Not 0 where one of the 8 bytes is `byte`.
#[inline(always)]
fn holds(window: u64, byte: u8) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let zero_where_equal = window ^ (ONES * u64::from(byte));
    zero_where_equal.wrapping_sub(ONES) & !zero_where_equal & (ONES << 7)
}

/// The rolling window of one decoded view. It rests where the view is the body itself.
struct Walker<V> {
    /// A token border: what comes before it is in the window.
    at: usize,
    /// The last 8 decoded bytes, the newest on top.
    window: u64,
    /// How many of them there are.
    filled: usize,
    /// How many more decoded bytes give a window that holds a byte of an escape.
    warm: u64,
    view: PhantomData<V>,
}

impl<V: View> Walker<V> {
    fn new() -> Walker<V> {
        Walker {
            at: 0,
            window: 0,
            filled: 0,
            warm: 0,
            view: PhantomData,
        }
    }

    /// Takes the tokens that start before `to` and probes the windows that hold an escape. All
    /// escapes before `from` were taken by an earlier call.
    fn walk(&mut self, body: &[u8], from: usize, to: usize, judge: &mut Judge<'_>) {
        loop {
            if self.warm == 0 {
                let from = self.at.max(from);
                let mut rest = body.get(from..to).unwrap_or_default().iter();
                let Some(literals) = rest.position(|&byte| byte == V::ESCAPE) else {
                    return;
                };
                self.catch_up(body, from + literals);
            }
            if self.at >= to {
                return;
            }
            let token = V::next(body, self.at);
            self.at += token.len;
            let decoded = token.decoded();
            if token.is_escape() {
                self.warm = (decoded.len() + ANCHOR - 1) as u64;
            }
            for (index, &byte) in decoded.iter().enumerate() {
                self.warm = self.warm.saturating_sub(1);
                self.roll(byte);
                if self.filled == ANCHOR && judge.table.marked(self.window) != 0 {
                    judge.decoded::<V>(body, self.at, decoded.len() - 1 - index, self.window);
                }
            }
        }
    }

    /// Moves on to `to` over literal bytes, while at rest.
    fn catch_up(&mut self, body: &[u8], to: usize) {
        if self.warm == 0 && self.at < to {
            for &byte in &body[self.at.max(to.saturating_sub(ANCHOR))..to] {
                self.roll(byte);
            }
            self.at = to;
        }
    }

    #[inline(always)]
    fn roll(&mut self, byte: u8) {
        self.window = self.window >> 8 | u64::from(byte) << 56;
        self.filled = (self.filled + 1).min(ANCHOR);
    }
}

/// Decides on marked windows.
struct Judge<'r> {
    table: &'r Table,
    /// Bytes of the body that were forgotten.
    passed: u64,
    /// Work done so far, in bytes hashed.
    spent: u64,
    run: Run,
    found: Vec<Range<usize>>,
}

impl Judge<'_> {
    /// A marked window of the body itself, at `at`. Its form may go on over escapes.
    fn as_sent(&mut self, body: &[u8], at: usize, window: u64) {
        for alike in same_shape(self.table.forms(window)) {
            if self.flooded(at, at + ANCHOR) {
                return;
            }
            let (offset, len) = (alike[0].offset as usize, alike[0].len as usize);
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
        for alike in same_shape(self.table.forms(window)) {
            if self.flooded(end.saturating_sub(ANCHOR), end) {
                return;
            }
            self.read::<V>(body, end, alike[0].offset as usize + ANCHOR + extra, alike);
        }
    }

    /// Reads the form that starts `back` decoded bytes before the token border `at`.
    fn read<V: View>(&mut self, body: &[u8], at: usize, back: usize, alike: &[Form]) {
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
        let (mut end, mut left) = (start, alike[0].len as usize);
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
    fn verdict(&mut self, body: &[u8], alike: &[Form], mac: &[u8; 16], range: Range<usize>) {
        self.spent += MAC_COST + u64::from(alike[0].len) + COMPARE_COST * alike.len() as u64;
        let equal = alike
            .iter()
            .fold(Choice::from(0), |any, form| any | form.is(mac));
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
        let flooded = self.spent > self.allowed(from);
        if flooded {
            let start = from.saturating_sub(MAX_EXPANSION * self.table.before());
            self.hit(start..to + MAX_EXPANSION * self.table.after());
        }
        flooded
    }

    fn allowed(&self, at: usize) -> u64 {
        ALLOWED_ALWAYS + ALLOWED_PER_BYTE * (self.passed + at as u64)
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

/// Cuts forms with one hash into those with one offset and length, which share a MAC.
fn same_shape(forms: &[Form]) -> impl Iterator<Item = &[Form]> {
    forms.chunk_by(|a, b| (a.offset, a.len) == (b.offset, b.len))
}
