//! Time of one redaction of 10 KB bodies, best of many: `cargo run --release --example redact_speed`.
//! It judges nothing; DESIGN's budget is about 10 µs for both processes.

use std::error::Error;
use std::hint::black_box;
use std::io::{Write, stdout};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpist_secret::random_bytes;
use mcpist_secret::redact::{RedactKey, Redactor};

fn main() -> Result<(), Box<dyn Error>> {
    let key = Arc::new(RedactKey::random()?);
    let fill = |piece: &str| piece.bytes().cycle().take(10_240).collect::<Vec<u8>>();
    let bodies = [
        (
            "no escape",
            fill(r#"{"id":1234,"name":"web-03","up":true,"note":"all is well"},"#),
        ),
        (
            "some",
            fill(r#"{"id":1234,"note":"first line of the note here\nand another line"},"#),
        ),
        (
            "dense",
            fill(r#"{\"id\":1234,\"name\":\"web-03\",\"up\":true},"#),
        ),
    ];
    for (kind, letters) in [
        ("token", &b"0123456789abcdefABCDEF_-"[..]),
        ("any bytes", b"az09/\"\\ %\n"),
    ] {
        for secrets in [10, 100, 1000] {
            let mut prints = Vec::new();
            for _ in 0..secrets {
                let random: [u8; 40] = random_bytes()?;
                let secret = random.map(|byte| letters[usize::from(byte) % letters.len()]);
                prints.push(key.fingerprint(&secret)?);
            }
            let redactor = Redactor::new(key.clone(), &prints);
            for (name, body) in &bodies {
                let mut best = Duration::MAX;
                for _ in 0..2000 {
                    let start = Instant::now();
                    black_box(redactor.redact_slice(black_box(body)));
                    best = best.min(start.elapsed());
                }
                writeln!(
                    stdout(),
                    "{secrets:5} {kind} secrets, {name:9} escapes: {best:?}"
                )?;
            }
        }
    }
    Ok(())
}
