//! No I/O. The one byte code that every canonical format of this crate is written in.
//!
//! Owns: [`Writer`], [`Reader`] and [`FormatError`]. A format is `magic[8] | version u16 | fields`.
//! Integers are big-endian; a byte string or text is `length u32 | bytes`; a list is `count u16 |
//! items`. There is no padding, no optional order and no trailing byte.
//!
//! Promises: a value has exactly one encoding, so that digests and MACs over the bytes mean the
//! value; the reader refuses every other byte string, allocates nothing beyond the input's own
//! length, and never panics. Does not: know what the fields mean; each format checks its own.

use ring::digest::{Context, SHA256};

/// Why bytes are not the canonical form of a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The first eight bytes are not the format's.
    #[error("not a {format}: the first bytes differ; check which file or field was given")]
    Magic {
        /// The format that was expected.
        format: &'static str,
    },
    /// The format is known, this version of it is not.
    #[error(
        "this {format} has version {found} and this program reads version {known}; use the release that wrote it"
    )]
    Version {
        /// The format.
        format: &'static str,
        /// The version that the bytes name.
        found: u16,
        /// The version that is read here.
        known: u16,
    },
    /// The bytes end inside a field.
    #[error("this {format} ends inside `{field}`: it was cut short, take another copy")]
    Truncated {
        /// The format.
        format: &'static str,
        /// The field that is incomplete.
        field: &'static str,
    },
    /// There are bytes after the last field.
    #[error("this {format} has {extra} bytes after its end: take another copy")]
    Trailing {
        /// The format.
        format: &'static str,
        /// How many bytes are left over.
        extra: usize,
    },
    /// A text or list is longer than the format allows.
    #[error("`{field}` of this {format} holds {found}, the most is {max}")]
    TooLong {
        /// The format.
        format: &'static str,
        /// The field.
        field: &'static str,
        /// Length that was found, in bytes or items.
        found: usize,
        /// Length that is allowed.
        max: usize,
    },
    /// A text is not UTF-8.
    #[error("`{field}` of this {format} is not valid UTF-8: take another copy")]
    Text {
        /// The format.
        format: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A number has no meaning in its field.
    #[error("`{field}` of this {format} is {found}, which has no meaning in this version")]
    Value {
        /// The format.
        format: &'static str,
        /// The field.
        field: &'static str,
        /// The number that was found.
        found: u64,
    },
}

/// Name, magic and version of one format.
pub(crate) struct Format {
    pub(crate) name: &'static str,
    pub(crate) magic: [u8; 8],
    pub(crate) version: u16,
}

/// Builds the canonical bytes of a format.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Begins with the format's magic and version.
    pub(crate) fn new(format: &Format) -> Writer {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&format.magic);
        out.extend_from_slice(&format.version.to_be_bytes());
        Writer(out)
    }

    /// Begins with nothing: for the AAD, whose first field is its format's name.
    pub(crate) fn bare() -> Writer {
        Writer(Vec::with_capacity(256))
    }

    /// Like [`Writer::bare`], in memory that earlier bytes took, which are gone.
    pub(crate) fn over(mut bytes: Vec<u8>) -> Writer {
        bytes.clear();
        Writer(bytes)
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Writer {
        self.raw(&[value])
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Writer {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Writer {
        self.raw(&value.to_be_bytes())
    }

    /// Fixed-size bytes, without a length.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Writer {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes behind their length. No caller comes near 4 GiB: every field is bounded before; the
    /// length saturates, so that an over-long field could only ever fail to parse.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Writer {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.raw(bytes)
    }

    /// The number of items that follow; bounded before, like [`Writer::bytes`].
    pub(crate) fn count(&mut self, items: usize) -> &mut Writer {
        self.raw(&u16::try_from(items).unwrap_or(u16::MAX).to_be_bytes())
    }

    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// Reads the canonical bytes of a format, strictly.
pub(crate) struct Reader<'a> {
    format: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks magic and version.
    pub(crate) fn new(format: &Format, bytes: &'a [u8]) -> Result<Reader<'a>, FormatError> {
        let mut reader = Reader {
            format: format.name,
            rest: bytes,
        };
        if reader.raw::<8>("magic")? != format.magic {
            return Err(FormatError::Magic {
                format: format.name,
            });
        }
        let found = u16::from_be_bytes(reader.raw("version")?);
        if found != format.version {
            return Err(FormatError::Version {
                format: format.name,
                found,
                known: format.version,
            });
        }
        Ok(reader)
    }

    /// Begins behind the magic and version: for a part of a format.
    pub(crate) fn bare(format: &Format, bytes: &'a [u8]) -> Reader<'a> {
        Reader {
            format: format.name,
            rest: bytes,
        }
    }

    /// Whether no field is left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], FormatError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(FormatError::Truncated {
                format: self.format,
                field,
            })?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn raw<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, field)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, FormatError> {
        Ok(u8::from_be_bytes(self.raw(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, FormatError> {
        Ok(u32::from_be_bytes(self.raw(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, FormatError> {
        Ok(u64::from_be_bytes(self.raw(field)?))
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, FormatError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.value(field, other.into())),
        }
    }

    /// Bytes behind their length, at most `max`.
    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        max: usize,
    ) -> Result<&'a [u8], FormatError> {
        let found = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        if found > max {
            return Err(FormatError::TooLong {
                format: self.format,
                field,
                found,
                max,
            });
        }
        self.take(found, field)
    }

    pub(crate) fn text(&mut self, field: &'static str, max: usize) -> Result<String, FormatError> {
        self.text_ref(field, max).map(str::to_owned)
    }

    /// A text that stays in the bytes that are read.
    pub(crate) fn text_ref(
        &mut self,
        field: &'static str,
        max: usize,
    ) -> Result<&'a str, FormatError> {
        let bytes = self.bytes(field, max)?;
        std::str::from_utf8(bytes).map_err(|_| FormatError::Text {
            format: self.format,
            field,
        })
    }

    /// Reads a list of at most `max` items.
    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        max: usize,
        mut item: impl FnMut(&mut Reader<'a>) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        let found = usize::from(u16::from_be_bytes(self.raw(field)?));
        if found > max {
            return Err(FormatError::TooLong {
                format: self.format,
                field,
                found,
                max,
            });
        }
        (0..found).map(|_| item(self)).collect()
    }

    /// The error for a number that its field does not know.
    pub(crate) fn value(&self, field: &'static str, found: u64) -> FormatError {
        FormatError::Value {
            format: self.format,
            field,
            found,
        }
    }

    /// Refuses anything that is left.
    pub(crate) fn finish(self) -> Result<(), FormatError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(FormatError::Trailing {
                format: self.format,
                extra,
            }),
        }
    }
}

/// SHA-256(domain ‖ 0 ‖ parts). Every caller's parts have fixed lengths or are one canonical
/// encoding, so that the boundaries between them cannot move.
pub(crate) fn digest(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(domain.as_bytes());
    context.update(&[0]);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const THING: Format = Format {
        name: "thing",
        magic: *b"mcpthing",
        version: 1,
    };

    fn thing() -> Vec<u8> {
        Writer::new(&THING)
            .u8(1)
            .u32(2)
            .u64(3)
            .bytes(b"four")
            .count(2)
            .u8(5)
            .u8(6)
            .finish()
    }

    type Thing = (bool, u32, u64, String, Vec<u8>);

    fn read(bytes: &[u8]) -> Result<Thing, FormatError> {
        let mut reader = Reader::new(&THING, bytes)?;
        let out = (
            reader.flag("flag")?,
            reader.u32("small")?,
            reader.u64("large")?,
            reader.text("text", 4)?,
            reader.list("list", 2, |r| r.u8("item"))?,
        );
        reader.finish()?;
        Ok(out)
    }

    #[test]
    fn the_layout_is_what_the_module_says() {
        let expected = "6d63707468696e67000101000000020000000000000003\
                        00000004666f757200020506";
        assert_eq!(hex::encode(thing()), expected);
        assert_eq!(
            read(&thing()).unwrap(),
            (true, 2, 3, "four".to_owned(), vec![5, 6])
        );
    }

    #[test]
    fn every_prefix_is_truncated() {
        let bytes = thing();
        for len in 0..bytes.len() {
            assert!(
                matches!(read(&bytes[..len]), Err(FormatError::Truncated { .. })),
                "{len}"
            );
        }
    }

    #[test]
    fn one_byte_too_many_is_refused() {
        let mut bytes = thing();
        bytes.push(0);
        assert_eq!(
            read(&bytes),
            Err(FormatError::Trailing {
                format: "thing",
                extra: 1
            })
        );
    }

    #[test]
    fn each_malformed_field_is_named() {
        let with = |at: usize, byte: u8| {
            let mut bytes = thing();
            bytes[at] = byte;
            read(&bytes).unwrap_err()
        };
        let format = "thing";
        assert_eq!(with(0, b'M'), FormatError::Magic { format });
        assert_eq!(
            with(9, 2),
            FormatError::Version {
                format,
                found: 2,
                known: 1
            }
        );
        assert_eq!(
            with(10, 2),
            FormatError::Value {
                format,
                field: "flag",
                found: 2
            }
        );
        assert_eq!(
            with(26, 5),
            FormatError::TooLong {
                format,
                field: "text",
                found: 5,
                max: 4
            }
        );
        assert_eq!(
            with(27, 0xff),
            FormatError::Text {
                format,
                field: "text"
            }
        );
        assert_eq!(
            with(32, 3),
            FormatError::TooLong {
                format,
                field: "list",
                found: 3,
                max: 2
            }
        );
    }
}
