//! Certificates as a person compares them: whose they say they are, and their SHA-256 fingerprint. Pure, no I/O.
//!
//! Reads as much of PEM (RFC 7468) and of DER (RFC 5280 §4.1) as leads to the subject. Promises bounded, escaped text,
//! and that no certificate of a text is passed over: where fewer were read than the text begins, all of it counts as
//! unreadable. Verifies nothing; the fingerprint is what `openssl x509 -fingerprint -sha256` prints.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mcpist_core::ids::Digest;
use mcpist_core::text::excerpt;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Longest subject that is shown, in bytes.
const MAX_SUBJECT: usize = 256;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const VERSION: u8 = 0xa0;

/// One line for each certificate of a PEM text.
pub(crate) fn describe(pem: &str) -> Vec<String> {
    let found: Option<Vec<_>> = pem.split(BEGIN).skip(1).map(body).collect();
    match found {
        // Whatever else begins here, a reader of TLS may take it for a certificate as well.
        Some(found) if found.len() == pem.matches("-----BEGIN").count() => {
            found.iter().map(|der| line(der)).collect()
        }
        _ => vec![format!(
            "unreadable, SHA-256 of the text {}; read the file itself",
            Digest::of(pem.as_bytes())
        )],
    }
}

fn body(after: &str) -> Option<Vec<u8>> {
    let (text, _) = after.split_once(END)?;
    let text: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(text).ok()
}

fn line(der: &[u8]) -> String {
    let subject = subject(der).filter(|s| !s.is_empty());
    let subject = excerpt(subject.as_deref().unwrap_or("no subject"), MAX_SUBJECT);
    format!("{subject}, SHA-256 {}", Digest::of(der))
}

/// The texts of the subject, such as `O=Plant 7, CN=Plant 7 CA`.
fn subject(der: &[u8]) -> Option<String> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = any(rest)?.2;
    }
    // Serial number, algorithm, issuer and validity stand before it.
    for _ in 0..4 {
        rest = any(rest)?.2;
    }
    let (mut names, _) = element(rest, SEQUENCE)?;
    let mut out = Vec::new();
    while !names.is_empty() {
        let (mut set, after) = element(names, SET)?;
        names = after;
        while !set.is_empty() {
            let (pair, after) = element(set, SEQUENCE)?;
            set = after;
            let (oid, value) = element(pair, OID)?;
            let (_, text, _) = any(value)?;
            out.push(format!("{}={}", label(oid), String::from_utf8_lossy(text)));
        }
    }
    Some(out.join(", "))
}

/// The short name of an attribute (RFC 4514 §3).
fn label(oid: &[u8]) -> String {
    let known = match oid {
        [0x55, 4, 3] => "CN",
        [0x55, 4, 6] => "C",
        [0x55, 4, 7] => "L",
        [0x55, 4, 8] => "ST",
        [0x55, 4, 10] => "O",
        [0x55, 4, 11] => "OU",
        _ => return format!("#{}", hex::encode(oid)),
    };
    known.to_owned()
}

/// The contents of an element with this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, contents, rest) = any(der)?;
    (found == tag).then_some((contents, rest))
}

/// The first element (X.690 §8.1): tag, contents and what follows.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let number = length.iter().fold(0, |n, b| n << 8 | usize::from(*b));
            (number, rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = include_str!("../tests/golden/ca.pem");
    const SHOWN: &str = "C=DE, O=Plant 7, CN=Plant 7 CA, SHA-256 \
         ded8589b8d2cca6be8708d6d522346a1d8fd0724b36cb1b15ffc56e2d5966dfb";

    #[test]
    fn a_certificate_is_shown_as_openssl_shows_it() {
        assert_eq!(describe(PEM), [SHOWN]);
        let two = format!("# the old one\n{PEM}\r\n# and again\n{PEM}");
        assert_eq!(describe(&two), [SHOWN, SHOWN]);
    }

    #[test]
    fn a_text_that_could_hold_another_certificate_is_not_shown_as_one() {
        for text in [
            format!("{PEM}-----BEGIN TRUSTED CERTIFICATE-----"),
            format!("{PEM}{BEGIN}\n!\n{END}"),
            format!("{PEM}{BEGIN}"),
        ] {
            let lines = describe(&text);
            assert!(
                lines.len() == 1 && lines[0].starts_with("unreadable"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_subject_steers_no_terminal_and_a_broken_one_keeps_its_fingerprint() {
        let der = body(PEM.trim_start_matches(BEGIN)).unwrap_or_default();
        let mut evil = der.clone();
        let at = der
            .windows(10)
            .rposition(|w| w == b"Plant 7 CA")
            .unwrap_or_default();
        evil[at] = 0x1b;
        assert!(!line(&evil).contains('\u{1b}'), "{}", line(&evil));
        for len in 0..der.len() {
            let shown = line(&der[..len]);
            assert!(
                shown.ends_with(&Digest::of(&der[..len]).to_string()),
                "{shown}"
            );
        }
    }
}
