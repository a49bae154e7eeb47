//! The decoded views of a body, read in place: tokens forwards and backwards. No allocation.
//!
//! A view cuts a body into tokens; a token is a literal byte or an escape and stands for 1 to 4
//! decoded bytes. What only looks like an escape is literal. [`View::prev`] undoes [`View::next`]
//! from any token border, so that a candidate can be read from its anchor outwards.

/// The longest token: a surrogate pair of JSON, in bytes.
pub(super) const MAX_TOKEN: usize = 12;
/// The most source bytes that one decoded byte can take: `\u0041`.
pub(super) const MAX_EXPANSION: usize = 6;

/// One token of a view.
#[derive(Clone, Copy)]
pub(super) struct Token {
    /// Length in the body.
    pub(super) len: usize,
    bytes: [u8; 4],
    count: u8,
}

impl Token {
    fn literal(byte: u8) -> Token {
        Token::escape(1, byte)
    }

    fn escape(len: usize, byte: u8) -> Token {
        Token {
            len,
            bytes: [byte, 0, 0, 0],
            count: 1,
        }
    }

    fn character(len: usize, character: char) -> Token {
        let mut bytes = [0; 4];
        let count = character.encode_utf8(&mut bytes).len() as u8;
        Token { len, bytes, count }
    }

    /// What it stands for.
    pub(super) fn decoded(&self) -> &[u8] {
        &self.bytes[..usize::from(self.count)]
    }

    pub(super) fn is_escape(&self) -> bool {
        self.len > 1
    }
}

/// The last run of backslashes whose length was counted: its first byte and the byte after its
/// last. Keeps a body that is one long run from being counted again at every candidate.
#[derive(Clone, Copy, Default)]
pub(super) struct Run {
    start: usize,
    end: usize,
    /// Bytes looked at so far, to be charged to the budget.
    pub(super) counted: u64,
}

impl Run {
    /// Whether an even number of backslashes ends at `at`.
    fn even_before(&mut self, body: &[u8], at: usize) -> bool {
        if !(self.start..=self.end).contains(&at) {
            let mut start = at;
            while start > 0 && start != self.end && body[start - 1] == b'\\' {
                start -= 1;
            }
            self.counted += (at - start) as u64;
            if start != self.end {
                self.start = start;
            }
            self.end = at;
        }
        (at - self.start).is_multiple_of(2)
    }
}

/// A way to decode a body.
pub(super) trait View {
    /// The byte that every escape starts with.
    const ESCAPE: u8;
    /// The lengths that an escape can have, longest first.
    const LENGTHS: &'static [usize];

    /// The token that starts at `at`, a token border inside the body.
    fn next(body: &[u8], at: usize) -> Token;

    /// Whether an escape can start at `at`, where [`View::ESCAPE`] stands.
    fn opens(body: &[u8], at: usize, run: &mut Run) -> bool;

    /// The token that ends at `at`, a token border behind the body's first byte.
    fn prev(body: &[u8], at: usize, run: &mut Run) -> Token {
        for &len in Self::LENGTHS {
            if let Some(start) = at.checked_sub(len)
                && body[start] == Self::ESCAPE
                && Self::opens(body, start, run)
            {
                let token = Self::next(body, start);
                if token.len == len {
                    return token;
                }
            }
        }
        Token::literal(body[at - 1])
    }
}

/// `%XX` (RFC 3986 §2.1).
pub(super) struct Percent;

impl View for Percent {
    const ESCAPE: u8 = b'%';
    const LENGTHS: &'static [usize] = &[3];

    #[inline]
    fn next(body: &[u8], at: usize) -> Token {
        if let [b'%', high, low, ..] = body[at..]
            && let (Some(high), Some(low)) = (digit(high), digit(low))
        {
            return Token::escape(3, (high << 4 | low) as u8);
        }
        Token::literal(body[at])
    }

    fn opens(_: &[u8], _: usize, _: &mut Run) -> bool {
        true
    }
}

/// The escapes of a JSON string (RFC 8259 §7).
pub(super) struct Json;

impl View for Json {
    const ESCAPE: u8 = b'\\';
    const LENGTHS: &'static [usize] = &[12, 6, 2];

    #[inline]
    fn next(body: &[u8], at: usize) -> Token {
        let rest = &body[at..];
        let escaped = match rest {
            [b'\\', b'u', ..] => return unicode(rest),
            [b'\\', byte @ (b'"' | b'\\' | b'/'), ..] => *byte,
            [b'\\', b'b', ..] => 0x08,
            [b'\\', b'f', ..] => 0x0C,
            [b'\\', b'n', ..] => b'\n',
            [b'\\', b'r', ..] => b'\r',
            [b'\\', b't', ..] => b'\t',
            _ => return Token::literal(body[at]),
        };
        Token::escape(2, escaped)
    }

    fn opens(body: &[u8], at: usize, run: &mut Run) -> bool {
        run.even_before(body, at)
    }
}

/// `\uXXXX`, or two of them for a surrogate pair; half a pair is literal.
fn unicode(rest: &[u8]) -> Token {
    let token = match unit(rest) {
        Some(high @ 0xD800..0xDC00) => match unit(&rest[6..]) {
            Some(low @ 0xDC00..0xE000) => {
                let code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                char::from_u32(code).map(|character| Token::character(12, character))
            }
            _ => None,
        },
        Some(code) => char::from_u32(code).map(|character| Token::character(6, character)),
        None => None,
    };
    token.unwrap_or(Token::literal(rest[0]))
}

/// The value of the `\uXXXX` at the start of `rest`.
fn unit(rest: &[u8]) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = rest else {
        return None;
    };
    let digits = digits.first_chunk::<4>()?;
    digits
        .iter()
        .try_fold(0, |value, &byte| Some(value << 4 | digit(byte)?))
}

fn digit(byte: u8) -> Option<u32> {
    char::from(byte).to_digit(16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All token borders of a body, and its decoded bytes.
    fn decode<V: View>(body: &[u8]) -> (Vec<usize>, Vec<u8>) {
        let (mut borders, mut bytes) = (vec![0], Vec::new());
        while let Some(&at) = borders.last().filter(|&&at| at < body.len()) {
            let token = V::next(body, at);
            bytes.extend_from_slice(token.decoded());
            borders.push(at + token.len);
        }
        (borders, bytes)
    }

    #[test]
    fn percent_view() {
        let view = |text: &str| decode::<Percent>(text.as_bytes()).1;
        assert_eq!(view("a%2Fb%2fc%"), b"a/b/c%");
        assert_eq!(view("%zz%4%41%"), b"%zz%4A%");
        assert_eq!(view("%25%2541"), b"%%41");
    }

    #[test]
    fn json_view() {
        let view = |text: &str| decode::<Json>(text.as_bytes()).1;
        assert_eq!(view(r#"\"\\\/\b\f\n\r\t"#), b"\"\\/\x08\x0C\n\r\t");
        assert_eq!(view(r"\u0041\u00e4\u20AC"), "Aä€".as_bytes());
        assert_eq!(view(r"\uD83D\uDE00!"), "😀!".as_bytes());
        assert_eq!(view(r"\\u0041\\\u0041"), br"\u0041\A");
        for literal in [
            r"\x41",
            r"\u004",
            r"\u00g1",
            r"\uD83D",
            r"\uD83D\u0g41",
            r"\uDE00",
            "\\",
        ] {
            assert_eq!(view(literal), literal.as_bytes());
        }
        assert_eq!(
            view(r"\uD83D\uD83D\uDE00"),
            [br"\uD83D", "😀".as_bytes()].concat()
        );
    }

    fn undoes<V: View>(body: &[u8]) -> Result<(), TestCaseError> {
        let mut run = Run::default();
        let (borders, _) = decode::<V>(body);
        // Forwards, as candidates come, and each time some way back, as they are read.
        for (last, &at) in borders.iter().enumerate().skip(1) {
            for index in (last.saturating_sub(5)..last).rev() {
                let at = borders[index + 1].min(at);
                prop_assert_eq!(at - V::prev(body, at, &mut run).len, borders[index]);
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn prev_undoes_next(body in r#"([\\]{1,4}|\\u00|\\uD83D|\\uDE00|%|[4u1n%"]|ab){0,40}"#) {
            undoes::<Percent>(body.as_bytes())?;
            undoes::<Json>(body.as_bytes())?;
        }
    }

    #[test]
    fn a_long_run_is_counted_once() {
        let body = vec![b'\\'; 100_000];
        let mut run = Run::default();
        for at in (2..=body.len()).step_by(2) {
            assert_eq!(Json::prev(&body, at, &mut run).len, 2);
        }
        assert!(run.counted <= 2 * body.len() as u64);
    }
}
