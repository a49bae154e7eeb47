//! No I/O. The strict reader of a backup's parts, without a key.
//!
//! Owns: [`BackupScan`]. It says how many bytes it wants next and is given exactly those, so that the caller reads a
//! file or a pipe in parts of at most a mebibyte. Promises that the parts are those of the layout, in its order, that
//! the chunks are as many as the end says, and that the digest in the end is that of every byte before it.
//! Does not: open a chunk, or see what stands after the end; the caller makes sure that nothing does.

use ring::digest::{Context, SHA256};

use super::{
    BackupEnd, BackupError, BackupHeader, END_LEN, FORMAT, MAX_CHUNK, MAX_HEADER, PREFIX_LEN,
    TAG_LEN,
};
use crate::codec::Reader;

/// A part of the file.
#[derive(Debug, PartialEq, Eq)]
pub enum BackupPart {
    /// The header, which every later part depends on.
    Header(Box<BackupHeader>),
    /// The bytes that were given are this chunk, sealed.
    Chunk(u64),
    /// The file ends here.
    End(BackupEnd),
}

enum Next {
    Prefix,
    Header(Vec<u8>),
    Length,
    Chunk,
    End,
    Nothing,
}

/// Where a scan is.
pub struct BackupScan {
    next: Next,
    wants: usize,
    hash: Context,
    chunks: u64,
}

impl Default for BackupScan {
    fn default() -> BackupScan {
        BackupScan {
            next: Next::Prefix,
            wants: PREFIX_LEN,
            hash: Context::new(&SHA256),
            chunks: 0,
        }
    }
}

impl BackupScan {
    /// How many bytes come next; none after the end.
    pub fn wants(&self) -> usize {
        self.wants
    }

    /// Takes the bytes that were wanted; the part that they end, if they end one.
    ///
    /// # Errors
    /// [`BackupError`]; the scan is of no more use then.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<BackupPart>, BackupError> {
        if bytes.len() != self.wants {
            return Err(BackupError::Damaged("at its end: it was cut"));
        }
        let next = std::mem::replace(&mut self.next, Next::Nothing);
        if !matches!(next, Next::End) {
            self.hash.update(bytes);
        }
        match next {
            Next::Prefix => {
                let mut reader = Reader::new(&FORMAT, bytes)?;
                let length = reader.u32("header length")?;
                match usize::try_from(length) {
                    Ok(length @ 1..=MAX_HEADER) => self.want(Next::Header(bytes.to_vec()), length),
                    _ => return Err(reader.value("header length", length.into()).into()),
                }
                Ok(None)
            }
            Next::Header(mut prefix) => {
                prefix.extend_from_slice(bytes);
                self.want(Next::Length, 4);
                let header = BackupHeader::from_bytes(&prefix)?;
                Ok(Some(BackupPart::Header(Box::new(header))))
            }
            Next::Length => {
                let mut reader = Reader::bare(&FORMAT, bytes);
                let length = reader.u32("chunk length")?;
                match usize::try_from(length) {
                    Ok(0) => self.want(Next::End, END_LEN),
                    Ok(length) if (TAG_LEN + 1..=MAX_CHUNK).contains(&length) => {
                        self.want(Next::Chunk, length);
                    }
                    _ => return Err(reader.value("chunk length", length.into()).into()),
                }
                Ok(None)
            }
            Next::Chunk => {
                let number = self.chunks;
                self.chunks += 1;
                self.want(Next::Length, 4);
                Ok(Some(BackupPart::Chunk(number)))
            }
            Next::End => {
                self.wants = 0;
                self.end(bytes).map(|end| Some(BackupPart::End(end)))
            }
            Next::Nothing => Ok(None),
        }
    }

    fn want(&mut self, next: Next, wants: usize) {
        (self.next, self.wants) = (next, wants);
    }

    fn end(&mut self, bytes: &[u8]) -> Result<BackupEnd, BackupError> {
        let mut reader = Reader::bare(&FORMAT, bytes);
        let end = BackupEnd {
            chunks: reader.u64("chunks")?,
            digest: reader.raw("digest")?,
            mac: reader.raw("MAC")?,
        };
        self.hash.update(&end.chunks.to_be_bytes());
        if end.chunks != self.chunks {
            return Err(BackupError::Damaged("in its number of chunks"));
        }
        if self.hash.clone().finish().as_ref() != end.digest {
            return Err(BackupError::Damaged("somewhere before its end"));
        }
        Ok(end)
    }
}
