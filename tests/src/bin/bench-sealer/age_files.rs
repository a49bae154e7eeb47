//! The same credentials as age files: one file each, opened in process by the `age` crate with an X25519 identity.

use std::time::Instant;

use age::x25519::Identity;
use mcpist_tests::report::Report;

use crate::Result;
use crate::site::{name, payload, scattered};

/// Rows of so many files; how many there are does not change what one takes.
pub(crate) fn measure(files: usize, size: &str, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let identity = Identity::generate();
    let recipient = identity.to_public();
    for number in 0..files {
        let sealed = age::encrypt(&recipient, payload(number).as_bytes())?;
        std::fs::write(folder.path().join(name(number)), sealed)?;
    }
    let mut times = Vec::with_capacity(files);
    for number in scattered(files) {
        let path = folder.path().join(name(number));
        let started = Instant::now();
        let opened = age::decrypt(&identity, &std::fs::read(&path)?)?;
        times.push(started.elapsed());
        if opened != payload(number).as_bytes() {
            return Err(format!("age file {number} has another payload").into());
        }
    }
    report.times("age_file_read", times, &[&format!("read_{size}")]);
    Ok(())
}
