//! The demo's search for its credential: in every file of its folder, in the forms that a leak would have.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::error::{Error, Result};

/// What a search went through.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Searched {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// Files that hold one of the forms.
    pub(crate) found: Vec<String>,
}

/// The forms in which `secret` could stand in a file: as it is, in hexadecimal, and in base64 at each of its three
/// alignments.
pub(crate) fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![
        secret.to_vec(),
        hex::encode(secret).into_bytes(),
        hex::encode_upper(secret).into_bytes(),
    ];
    for skip in 0..3.min(secret.len()) {
        // Whole groups only: what stands at the edges depends on the neighbours.
        let aligned = &secret[skip..];
        let whole = &aligned[..aligned.len() / 3 * 3];
        forms.push(STANDARD_NO_PAD.encode(whole).into_bytes());
        forms.push(URL_SAFE_NO_PAD.encode(whole).into_bytes());
    }
    forms
}

/// Searches every file below `folder`.
pub(crate) fn search(folder: &Path, forms: &[Vec<u8>]) -> Result<Searched> {
    let mut searched = Searched::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| Error::file(&folder, e))? {
            let entry = entry.map_err(|e| Error::file(&folder, e))?;
            let (path, kind) = (
                entry.path(),
                entry.file_type().map_err(|e| Error::file(&folder, e))?,
            );
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
                searched.files += 1;
                searched.bytes += bytes.len() as u64;
                if forms.iter().any(|form| holds(&bytes, form)) {
                    searched.found.push(path.display().to_string());
                }
            }
        }
    }
    Ok(searched)
}

fn holds(bytes: &[u8], form: &[u8]) -> bool {
    let Some(first) = form.first() else {
        return false;
    };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| b == first) {
        if rest[at..].starts_with(form) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_found_wherever_it_stands() {
        let secret = b"demo-0123456789abcdef";
        let folder = tempfile::tempdir().unwrap();
        let clean = search(folder.path(), &forms(secret)).unwrap();
        assert_eq!(clean, Searched::default());
        for skip in 0..3 {
            let around = [&b"ab"[..skip], secret, b"tail"].concat();
            let sub = folder.path().join(format!("sub{skip}"));
            std::fs::create_dir(&sub).unwrap();
            std::fs::write(sub.join("plain"), &around).unwrap();
            std::fs::write(sub.join("base64"), STANDARD_NO_PAD.encode(&around)).unwrap();
            std::fs::write(sub.join("hex"), hex::encode(&around)).unwrap();
            std::fs::write(sub.join("clean"), b"demo-0123456789").unwrap();
        }
        let found = search(folder.path(), &forms(secret)).unwrap();
        assert_eq!((found.files, found.found.len()), (12, 9));
    }
}
