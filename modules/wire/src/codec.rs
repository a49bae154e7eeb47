//! The fields of a payload: fixed numbers, and texts and byte strings behind their length. No I/O.
//!
//! [`Cursor`] reads them from hostile bytes: every length is checked against what is there before it is
//! used, and [`Cursor::end`] refuses what is left over, so that one payload has one reading.

/// Why a payload is refused. Each closes the link, but a lease without room, which fails its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The payload ends inside the named field.
    #[error("the payload ends inside {0}; close the link")]
    Short(&'static str),
    /// Bytes follow the last field.
    #[error("{0} bytes follow the last field; close the link")]
    Trailing(usize),
    /// The named field holds a value that it cannot have.
    #[error("{0} has no valid value; close the link")]
    Invalid(&'static str),
    /// The named field, or the whole message, is over its limit.
    #[error("{0} is over its limit; close the link")]
    TooLong(&'static str),
    /// A secret found no room in secret memory.
    #[error("secret memory has no room for {0}; raise the arena's size")]
    NoRoom(&'static str),
}

pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// A text of at most 255 bytes behind one byte of length. Longer texts are cut at a character: names are
/// far shorter by their types.
pub(crate) fn put_name(out: &mut Vec<u8>, text: &str) {
    let text = cut(text, usize::from(u8::MAX));
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// `text`, cut before the character that goes over `limit` bytes.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Reads fields in order from one payload.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Cursor<'a> {
        Cursor { rest: payload }
    }

    pub(crate) fn take(
        &mut self,
        length: usize,
        field: &'static str,
    ) -> Result<&'a [u8], PayloadError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(PayloadError::Short(field))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], PayloadError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(PayloadError::Short(field))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, PayloadError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, PayloadError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, PayloadError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, PayloadError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A text behind one byte of length.
    pub(crate) fn name(&mut self, field: &'static str) -> Result<&'a str, PayloadError> {
        let length = usize::from(self.u8(field)?);
        std::str::from_utf8(self.take(length, field)?).map_err(|_| PayloadError::Invalid(field))
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The end of the payload.
    pub(crate) fn end(self) -> Result<(), PayloadError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(PayloadError::Trailing(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_payload_is_refused() {
        assert_eq!(
            Cursor::new(&[5, b'a']).name("tool"),
            Err(PayloadError::Short("tool"))
        );
    }

    #[test]
    fn a_name_that_is_no_text_is_refused() {
        assert_eq!(
            Cursor::new(&[1, 0xff]).name("tool"),
            Err(PayloadError::Invalid("tool"))
        );
    }

    #[test]
    fn left_over_bytes_are_refused() {
        let mut cursor = Cursor::new(&[0, 0, 0, 1, 9]);
        assert_eq!(cursor.u32("number"), Ok(1));
        assert_eq!(cursor.end(), Err(PayloadError::Trailing(1)));
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(cut("aé", 2), "a");
        let mut out = Vec::new();
        put_name(&mut out, &"é".repeat(200));
        assert_eq!(out.len(), 255);
        assert_eq!(Cursor::new(&out).name("text").map(str::len), Ok(254));
    }
}
