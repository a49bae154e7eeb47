//! The redactor against a model that decodes whole bodies and looks at every place, against
//! every encoding of random secrets in random bodies, and against hostile bodies.
#![allow(clippy::unwrap_used)]

use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::Index;

use super::view::{Json, Percent, View};
use super::*;

fn key() -> Arc<RedactKey> {
    Arc::new(RedactKey::random().unwrap())
}

fn redactor(secrets: &[&[u8]]) -> Redactor {
    let key = key();
    let prints: Vec<_> = secrets
        .iter()
        .map(|s| key.fingerprint(s).unwrap())
        .collect();
    Redactor::new(key, &prints)
}

/// A reference base64 encoder, padded, on bits as text.
fn base64(bytes: &[u8], tail: &str) -> Vec<u8> {
    let letters: Vec<u8> = (b'A'..=b'Z')
        .chain(b'a'..=b'z')
        .chain(b'0'..=b'9')
        .chain(tail.bytes())
        .collect();
    let mut bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    bits.push_str(&"0".repeat((6 - bits.len() % 6) % 6));
    let mut text: Vec<u8> = bits
        .as_bytes()
        .chunks(6)
        .map(|six| {
            let six = std::str::from_utf8(six).unwrap();
            letters[usize::from_str_radix(six, 2).unwrap()]
        })
        .collect();
    text.resize(text.len().next_multiple_of(4), b'=');
    text
}

/// The characters of base64 text that `secret` alone decides: what no other surroundings change.
fn stable(secret: &[u8], alignment: usize, tail: &str) -> Vec<u8> {
    let [a, b] = [0x00, 0xFF].map(|fill: u8| {
        let around = vec![fill; alignment];
        base64(&[&around[..], secret, &[fill; 3][..]].concat(), tail)
    });
    let same: Vec<usize> = (0..a.len()).filter(|&at| a[at] == b[at]).collect();
    a[same[0]..=*same.last().unwrap()].to_vec()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn all_forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = hexadecimal(secret);
    let plus = secret
        .iter()
        .map(|&b| if b == b' ' { b'+' } else { b })
        .collect();
    let mut forms = vec![secret.to_vec(), plus, hex.to_uppercase().into(), hex.into()];
    for tail in ["+/", "-_"] {
        forms.extend((0..3).map(|alignment| stable(secret, alignment, tail)));
    }
    forms
}

/// A view decoded as a whole, with the source range of each byte.
fn decode<V: View>(body: &[u8]) -> Vec<(u8, Range<usize>)> {
    let (mut at, mut bytes) = (0, Vec::new());
    while at < body.len() {
        let token = V::next(body, at);
        bytes.extend(
            token
                .decoded()
                .iter()
                .map(|&byte| (byte, at..at + token.len)),
        );
        at += token.len;
    }
    bytes
}

/// Every place of every form in every view.
fn model(body: &[u8], secrets: &[&[u8]]) -> Vec<Range<usize>> {
    let sent = body
        .iter()
        .enumerate()
        .map(|(at, &byte)| (byte, at..at + 1))
        .collect();
    let views: [Vec<(u8, Range<usize>)>; 3] = [sent, decode::<Percent>(body), decode::<Json>(body)];
    let mut found = Vec::new();
    for form in secrets.iter().flat_map(|secret| all_forms(secret)) {
        for view in &views {
            for place in view.windows(form.len()) {
                if place.iter().map(|(byte, _)| byte).eq(&form) {
                    let mut start = place[0].1.start;
                    // A backslash that escapes the first byte goes with it.
                    let run = body[..start]
                        .iter()
                        .rev()
                        .take_while(|&&b| b == b'\\')
                        .count();
                    if run % 2 == 1 && Json::next(body, start - 1).is_escape() {
                        start -= 1;
                    }
                    found.push(start..place[form.len() - 1].1.end);
                }
            }
        }
    }
    found
}

fn expected(body: &[u8], mut found: Vec<Range<usize>>) -> Redacted {
    found.sort_by_key(|range| range.start);
    let (mut bytes, mut at, mut hits) = (Vec::new(), 0, 0);
    for range in found {
        if range.start >= at {
            bytes.extend_from_slice(&body[at..range.start]);
            bytes.extend_from_slice(MARKER);
            hits += 1;
        }
        at = at.max(range.end);
    }
    bytes.extend_from_slice(&body[at..]);
    Redacted { bytes, hits }
}

/// Percent-encodes some bytes, and always `%`.
fn percent_encode(text: &[u8], some: &[bool]) -> Vec<u8> {
    let mut some = some.iter().cycle();
    let mut encoded = Vec::new();
    for &byte in text {
        match (byte == b'%' || *some.next().unwrap(), some.next()) {
            (true, Some(true)) => encoded.extend(format!("%{byte:02X}").bytes()),
            (true, _) => encoded.extend(format!("%{byte:02x}").bytes()),
            _ => encoded.push(byte),
        }
    }
    encoded
}

/// Escapes as a JSON string: what must be escaped, and some other characters.
fn json_escape(text: &[u8], some: &[bool]) -> Vec<u8> {
    let mut some = some.iter().cycle();
    let mut encoded = Vec::new();
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            let (unicode, upper) = (*some.next().unwrap(), *some.next().unwrap());
            match character {
                _ if unicode => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        let digits = format!("{unit:04x}");
                        let digits = if upper { digits.to_uppercase() } else { digits };
                        encoded.extend(format!("\\u{digits}").bytes());
                    }
                }
                '"' | '\\' => encoded.extend([b'\\', character as u8]),
                '/' if upper => encoded.extend(b"\\/"),
                '\n' => encoded.extend(b"\\n"),
                '\t' => encoded.extend(b"\\t"),
                _ => encoded.extend(character.to_string().bytes()),
            }
        }
        encoded.extend(chunk.invalid());
    }
    encoded
}

fn any_secret() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 8..200),
        "[A-Za-z0-9_-]{8,64}".prop_map(String::into_bytes),
        "Bearer [A-Za-z0-9+/=.]{1,80}".prop_map(String::into_bytes),
        "[ -~]{8,40}".prop_map(String::into_bytes),
        "[aé€😀\"\\\\/%+ ]{8,30}".prop_map(String::into_bytes),
        "[ab]{8,20}".prop_map(String::into_bytes),
    ]
}

/// Bodies with many things that look like escapes.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        r#"([\\]{1,5}|\\u00|\\uD83D|\\uDE00|%|%2|%25|\\"|\\/|[a-z]{1,9}){0,12}"#
            .prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_secret_survives_in_any_encoding_at_any_place(
        secret in any_secret(),
        (before, after) in (any_body(), any_body()),
        (form, escapes) in (0usize..11, 0usize..3),
        some in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let text = match form {
            0 => secret.clone(),
            1 => hexadecimal(&secret).into_bytes(),
            2 => hexadecimal(&secret).to_uppercase().into_bytes(),
            3 => secret.iter().map(|&b| if b == b' ' { b'+' } else { b }).collect(),
            n => {
                // As in `user:secret`: something before and after, in one base64 text.
                let around = &b"user:"[..(n - 4) % 3];
                let tail = if n % 2 == 0 { "+/" } else { "-_" };
                base64(&[around, &secret, b":x"].concat(), tail)
            }
        };
        // What was sent as an escape starts where a token starts: behind half an escape it would
        // be another text.
        let mut before = before;
        let text = match escapes {
            0 => text,
            1 => percent_encode(&text, &some),
            _ => json_escape(&text, &some),
        };
        if escapes > 0 {
            let tail = before.len().saturating_sub(12);
            before.iter_mut().skip(tail).filter(|b| b"%\\".contains(b)).for_each(|b| *b = b'.');
        }
        let body = [&before[..], &text, &after].concat();
        let redactor = redactor(&[&secret]);
        let whole = redactor.redact(body.clone());
        prop_assert!(whole.hits >= 1);
        let left = model(&whole.bytes, &[&secret]);
        prop_assert!(left.is_empty(), "found again at {:?}", left);
    }

    /// Secrets and bodies of a few letters that are all part of escapes, so that chance makes
    /// matches over and inside every kind of token.
    #[test]
    fn the_model_agrees(
        secrets in prop::collection::vec(r#"[a\\/%u04]{8,9}|[a4]{8,10}|(ä|/){8}"#, 1..4),
        pieces in prop::collection::vec((0usize..12, any::<Index>()), 0..40),
        some in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let secrets: Vec<&[u8]> = secrets.iter().map(|s| s.as_bytes()).collect();
        let mut body = Vec::new();
        for (kind, pick) in pieces {
            let secret = *pick.get(&secrets);
            match kind {
                0 => body.extend_from_slice(secret),
                1 | 2 => body.extend(percent_encode(secret, &some)),
                3 | 4 => body.extend(json_escape(secret, &some)),
                5 => body.extend_from_slice(&secret[..secret.len() - pick.index(8)]),
                6 => body.extend_from_slice(&secret[pick.index(8)..]),
                7 => body.extend(json_escape(&secret[pick.index(4)..], &some)),
                8 => body.extend_from_slice(b"\\"),
                9 => body.extend_from_slice(br"\\"),
                10 => body.extend_from_slice(b"%"),
                _ => body.extend_from_slice(b"a"),
            }
        }
        let redactor = redactor(&secrets);
        let whole = redactor.redact(body.clone());
        let mut scan = Scan::new(&redactor.table);
        scan.run(&body);
        let (spent, allowed) = scan.cost(body.len());
        prop_assume!(spent <= allowed); // else more is replaced than the model finds
        let mut covered = vec![false; body.len()];
        for range in scan.found() {
            covered[range.clone()].fill(true);
        }
        let found = model(&body, &secrets);
        for range in &found {
            prop_assert!(covered[range.clone()].iter().all(|&covered| covered), "{:?}", range);
        }
        // The search may read an escape from its middle too, and then replace more than the model.
        if !body.iter().any(|byte| b"%\\".contains(byte)) {
            prop_assert_eq!(whole, expected(&body, found));
        }
    }

    #[test]
    fn a_body_without_the_secret_comes_out_unchanged(
        secret in any_secret(),
        body in any_body(),
    ) {
        prop_assume!(model(&body, &[&secret]).is_empty());
        let redactor = redactor(&[&secret]);
        let (sent, allocation) = (body.clone(), body.as_ptr());
        let whole = redactor.redact(body);
        prop_assert_eq!(whole.bytes.as_ptr(), allocation);
        prop_assert_eq!((whole.bytes, whole.hits), (sent, 0));
    }
}

#[test]
fn one_secret_inside_another_and_two_side_by_side() {
    let redactor = redactor(&[b"0123456789abcdef", b"456789ab", b"zyxwvuts"]);
    let redact = |body: &str| {
        let Redacted { bytes, hits } = redactor.redact(body.into());
        (String::from_utf8(bytes).unwrap(), hits)
    };
    assert_eq!(redact("<0123456789abcdef>"), ("<[redacted]>".into(), 1));
    assert_eq!(redact("<.456789ab>"), ("<.[redacted]>".into(), 1));
    assert_eq!(
        redact("<456789abzyxwvuts>"),
        ("<[redacted][redacted]>".into(), 2)
    );
    assert_eq!(redact("<zyxwvut>"), ("<zyxwvut>".into(), 0));
}

#[test]
fn a_secret_that_escapes_write_in_part() {
    let secret = "p\"w/ä+%41\\n=é";
    let redactor = redactor(&[secret.as_bytes()]);
    for text in [
        r#"{"k":"p\"w\/\u00e4+%41\\n=é"}"#,
        r#"{"k":"p\"w/ä+%41\\n=\u00E9"}"#,
        "?k=p%22w/%C3%A4%2b%2541%5Cn=%c3%a9&",
        "?k=p\"w%2F%C3%A4+%2541\\n%3D%C3%A9&",
        "p\"w/ä+%41\\n=é",
    ] {
        let redacted = redactor.redact(text.into());
        assert_eq!(redacted.hits, 1, "{text}");
        assert!(
            String::from_utf8(redacted.bytes)
                .unwrap()
                .contains("[redacted]")
        );
    }
}

#[test]
fn one_escape_anywhere_in_a_secret() {
    let secret = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let redactor = redactor(&[secret]);
    for (at, &byte) in secret.iter().enumerate() {
        for escape in [format!("%{byte:02X}"), format!("\\u{byte:04x}")] {
            let text = [&secret[..at], escape.as_bytes(), &secret[at + 1..]].concat();
            // Every second window is probed: behind an even and behind an odd number of bytes.
            for before in [&b""[..], b"<", b"<<"] {
                let redacted = redactor.redact([before, &text, b">"].concat()).bytes;
                assert_eq!(
                    redacted,
                    [before, MARKER, b">"].concat(),
                    "{escape} at {at}"
                );
            }
        }
    }
}

#[test]
fn a_hit_cuts_no_escape_in_two() {
    let redactor = redactor(&[b"/0123456789", b"\"quoted quoted"]);
    for text in [
        r#"["\/0123456789"]"#,
        r#"["\\\/0123456789"]"#,
        r#"["\"quoted quoted"]"#,
    ] {
        let redacted = String::from_utf8(redactor.redact(text.into()).bytes).unwrap();
        assert!(
            !redacted.contains(r"\[") || redacted.contains(r"\\["),
            "{redacted}"
        );
    }
    assert_eq!(
        redactor.redact(br"\\/0123456789".to_vec()).bytes,
        br"\\[redacted]"
    );
}

#[test]
fn base64_with_slashes_that_json_or_percent_escapes() {
    let secret = [0xFB, 0xFF, 0xBF, 0xFE, 0xFF, 0xEF, 0xFB, 0xFF, 0xBF];
    assert_eq!(base64(&secret, "+/"), b"+/+//v/v+/+/");
    let redactor = redactor(&[&secret]);
    for text in [
        r#""+\/+\/\/v\/v+\/+\/""#,
        "k=%2B%2F%2B%2F%2Fv%2Fv%2B%2F%2B%2F",
        "-_-__v_v-_-_",
    ] {
        assert_eq!(redactor.redact(text.into()).hits, 1, "{text}");
    }
}

#[test]
fn another_key_or_no_fingerprint_never_hits() {
    let print = key().fingerprint(b"0123456789abcdef").unwrap();
    for redactor in [Redactor::new(key(), [&print]), Redactor::new(key(), [])] {
        let body = b"<0123456789abcdef>".to_vec();
        assert_eq!(redactor.redact(body.clone()).bytes, body);
    }
}

#[test]
fn a_decoded_fingerprint_finds_what_the_original_finds() {
    let key = key();
    let bytes = key.fingerprint(b"0123456789abcdef").unwrap().encode();
    let link = Key::fill::<crate::MemoryError>(|k| {
        k.copy_from_slice(key.expose());
        Ok(())
    });
    let other = Arc::new(RedactKey::new(link.unwrap()).unwrap());
    let redactor = Redactor::new(other, [&Fingerprint::decode(&bytes).unwrap()]);
    assert_eq!(
        redactor
            .redact(b"<30313233343536373839616263646566>".to_vec())
            .hits,
        1
    );
}

use crate::Key;

/// A hostile body: the work stays inside the budget, and the secret in it does not survive.
fn survives_flood(secrets: &[&[u8]], flood: &[u8], repeats: usize) {
    let redactor = redactor(secrets);
    let secret = secrets[0];
    let body = [&flood.repeat(repeats), secret, &flood.repeat(repeats)].concat();
    let mut scan = Scan::new(&redactor.table);
    scan.run(&body);
    let (spent, allowed) = scan.cost(body.len());
    // The last candidate may go over: one reading of its form, and one count of a run.
    let last = 20 * u64::from(u16::MAX);
    assert!(spent <= allowed + last, "{spent} of {allowed}");
    assert!(scan.found().len() <= body.len() / secret.len() + 1);
    let whole = redactor.redact(body.clone()).bytes;
    assert!(!whole.windows(secret.len()).any(|window| window == secret));
}

#[test]
fn a_body_of_one_repeated_anchor_costs_no_more_than_the_budget() {
    let long = [&b"aaaaaaaa".repeat(400)[..], b"bcdefghi"].concat();
    let runs = [b'a'; 3000];
    survives_flood(&[&runs], &[b'a'; 2999], 20);
    survives_flood(&[&long], b"bcdefghi", 5000);
    survives_flood(&[&[b'\\'; 500]], b"\\", 100_000);
    survives_flood(&[&[b'\\'; 500]], br"\u005c", 20_000);
    survives_flood(&[&[b'%'; 500]], b"%25", 30_000);
}

#[test]
fn many_secrets_with_one_anchor_cost_no_more_than_the_budget() {
    let secrets: Vec<Vec<u8>> = (0..300)
        .map(|n| {
            [
                &vec![b'.'; n][..],
                b"abcdefgh",
                &[b'-'; 9],
                &vec![b'.'; n][..],
            ]
            .concat()
        })
        .collect();
    let secrets: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
    survives_flood(&secrets, b"abcdefgh-", 2_000);
}

#[test]
fn an_escaped_secret_behind_a_long_run_of_backslashes() {
    let secret = b"pa/ss\"word";
    let redactor = redactor(&[secret]);
    let escaped = json_escape(secret, &[true]);
    for pairs in [1, 2, 3, 200, 301, 1000] {
        for before in 0..3 {
            let body = [
                &vec![b'.'; before],
                &br"\\".repeat(pairs)[..],
                &escaped,
                b".",
            ]
            .concat();
            assert_eq!(redactor.redact(body.repeat(3)).hits, 3);
        }
    }
}

#[test]
fn many_secrets_in_a_long_body_stay_inside_the_budget() {
    let redactor = redactor(&[b"0123456789abcdefghij"]);
    let body = b"<0123456789abcdefghij> and text between".repeat(3000);
    assert_eq!(redactor.redact(body).hits, 3000);
}

#[test]
fn ranges_that_overlap_are_one_place_and_may_end_behind_the_body() {
    let body = b"0123456789abcdefghij";
    let mut found = [15..99, 1..9, 2..4, 8..11, 11..12];
    let Redacted { bytes, hits } = replace(body, &mut found);
    assert_eq!(bytes, b"0[redacted][redacted]cde[redacted]");
    assert_eq!(hits, 3);
}
