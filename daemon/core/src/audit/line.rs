//! How one audit line is written: fields in the order of the calls, everything escaped, no I/O.
//!
//! Owns: [`Fields`], the only writer of audit text, and [`UnixMs`].
//! Promises: whatever is passed in, the output is one JSON object in printable ASCII or harmless
//! UTF-8 without a line break; each text field is bounded by its caller or by [`MAX_TEXT`].
//! Does not: decide what is recorded ([`crate::event`]) or chain lines ([`crate::audit::Chain`]).

use std::io::Write as _;

use super::Seq;
use crate::ids::Digest;

/// Longest text field in bytes before escaping; what is longer is cut and ends in `…`.
pub const MAX_TEXT: usize = 256;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMs(pub u64);

impl UnixMs {
    const LAST: u64 = 253_402_300_799_999; // 9999-12-31T23:59:59.999Z

    /// RFC 3339 in UTC with milliseconds, always 24 bytes; times after the year 9999 are shown as
    /// its last millisecond.
    pub fn to_text(self) -> String {
        let mut out = Vec::with_capacity(24);
        push_time(&mut out, self);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// What the beginning of a line says: its sequence, and its time in seconds since 1970. Nothing is verified by this.
pub fn place(line: &[u8]) -> Option<(Seq, u64)> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let digits = rest.iter().position(|b| !b.is_ascii_digit())?;
    let (seq, rest) = rest.split_at_checked(digits)?;
    let time = rest.strip_prefix(b",\"time\":\"")?.get(..19)?;
    let seq = std::str::from_utf8(seq).ok()?.parse().ok()?;
    let time = format!("{}Z", std::str::from_utf8(time).ok()?);
    Some((Seq(seq), crate::date::parse(&time).ok()?))
}

fn push_time(out: &mut Vec<u8>, time: UnixMs) {
    let ms = time.0.min(UnixMs::LAST);
    let (days, ms) = (ms / 86_400_000, ms % 86_400_000);
    // Days to a civil date, in eras of 400 years that begin on the first of March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    for (value, width, end) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (ms / 3_600_000, 2, b':'),
        (ms / 60_000 % 60, 2, b':'),
        (ms / 1_000 % 60, 2, b'.'),
        (ms % 1_000, 3, b'Z'),
    ] {
        for place in (0..width).rev() {
            out.push(b'0' + (value / 10u64.pow(place) % 10) as u8);
        }
        out.push(end);
    }
}

/// Appends the fields of one JSON object to a buffer.
pub struct Fields<'b> {
    out: &'b mut Vec<u8>,
    first: bool,
}

impl<'b> Fields<'b> {
    /// Begins an object: writes `{`.
    pub fn open(out: &'b mut Vec<u8>) -> Fields<'b> {
        out.push(b'{');
        Fields { out, first: true }
    }

    /// Ends the object: writes `}`.
    pub fn close(self) {
        self.out.push(b'}');
    }

    /// A text, cut at [`MAX_TEXT`] bytes.
    pub fn text(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.name(name);
        push_string(self.out, value);
        self
    }

    /// A text where there is one; no field where there is none.
    pub fn maybe(&mut self, name: &'static str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// An unsigned number.
    pub fn number(&mut self, name: &'static str, value: u64) -> &mut Self {
        self.name(name);
        push_number(self.out, value);
        self
    }

    /// A truth value.
    pub fn flag(&mut self, name: &'static str, value: bool) -> &mut Self {
        self.name(name);
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    /// Bytes as lower-case hexadecimal digits.
    pub fn hex(&mut self, name: &'static str, value: &[u8]) -> &mut Self {
        self.name(name);
        self.out.push(b'"');
        push_hex(self.out, value);
        self.out.push(b'"');
        self
    }

    /// A digest as lower-case hexadecimal digits.
    pub fn digest(&mut self, name: &'static str, value: &Digest) -> &mut Self {
        self.hex(name, value.as_bytes())
    }

    /// A time as RFC 3339.
    pub fn time(&mut self, name: &'static str, value: UnixMs) -> &mut Self {
        self.name(name);
        self.out.push(b'"');
        push_time(self.out, value);
        self.out.push(b'"');
        self
    }

    /// An object of its own.
    pub fn object(&mut self, name: &'static str, write: impl FnOnce(&mut Fields<'_>)) -> &mut Self {
        self.name(name);
        let mut inner = Fields::open(self.out);
        write(&mut inner);
        inner.close();
        self
    }

    /// Where an outbox row came from.
    pub(crate) fn outbox(&mut self, vault: &str, row: u64) -> &mut Self {
        self.object("outbox", |from| {
            from.text("vault", vault).number("row", row);
        })
    }

    /// A list of objects, one for each item.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(T, &mut Fields<'_>),
    ) -> &mut Self {
        self.name(name);
        self.out.push(b'[');
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            let mut inner = Fields::open(self.out);
            write(item, &mut inner);
            inner.close();
        }
        self.out.push(b']');
        self
    }

    /// Fields that another [`Fields`] wrote, without their braces.
    pub(crate) fn written(&mut self, fields: &[u8]) -> &mut Self {
        self.comma();
        self.out.extend_from_slice(fields);
        self
    }

    fn name(&mut self, name: &'static str) {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
    }
}

pub(crate) fn push_number(out: &mut Vec<u8>, value: u64) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{value}");
}

pub(crate) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let harmless = |b: &u8| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\';
    if text.len() <= MAX_TEXT && text.as_bytes().iter().all(harmless) {
        out.extend_from_slice(text.as_bytes());
    } else {
        let mut taken = 0;
        for c in text.chars() {
            taken += c.len_utf8();
            if taken > MAX_TEXT {
                out.extend_from_slice("…".as_bytes());
                break;
            }
            push_char(out, c);
        }
    }
    out.push(b'"');
}

fn push_char(out: &mut Vec<u8>, c: char) {
    match c {
        '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
        ' '..='~' => out.push(c as u8),
        c if crate::text::steers(c) => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(b"\\u");
                push_hex(out, &unit.to_be_bytes());
            }
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(UnixMs(ms).to_text(), text);
        }
    }

    #[test]
    fn a_line_tells_its_place() {
        let line = br#"{"seq":12,"time":"2100-03-01T00:00:07.250Z","event":"x"}"#;
        assert_eq!(place(line), Some((Seq(12), 4_107_542_407)));
        for end in 0..37 {
            assert_eq!(place(&line[..end]), None, "{end}");
        }
        assert_eq!(
            place(br#"{"seq":12,"time":"2100-02-30T00:00:07.250Z""#),
            None
        );
    }

    #[test]
    fn every_kind_of_field_reads_back() {
        let mut out = Vec::new();
        let mut fields = Fields::open(&mut out);
        fields
            .text("t", "a\"b")
            .maybe("none", None)
            .number("n", u64::MAX)
            .flag("f", true)
            .hex("h", &[0, 255])
            .object("o", |o| {
                o.number("x", 1);
            })
            .list("l", [1, 2], |n, item| {
                item.number("n", n);
            });
        fields.close();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"t":"a\"b","n":18446744073709551615,"f":true,"h":"00ff","o":{"x":1},"l":[{"n":1},{"n":2}]}"#
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn any_text_stays_in_its_field(text in "\\PC{0,40}|.{0,300}") {
            let mut out = Vec::new();
            let mut fields = Fields::open(&mut out);
            fields.text("t", &text);
            fields.close();
            prop_assert!(out.iter().all(|b| *b >= 0x20 && *b != 0x7f));
            let value: Value = serde_json::from_slice(&out).unwrap();
            let read = value["t"].as_str().unwrap();
            prop_assert!(value.as_object().unwrap().len() == 1);
            prop_assert!(read == text || text.starts_with(read.strip_suffix('…').unwrap()));
        }
    }
}
