//! The same credentials in SQLCipher, by the program of `tests/bench/sqlcipher.c`, which prints its figures.

use std::process::{Command, Stdio};

use mcpist_tests::report::Report;

use crate::{Options, Result, size_name};

/// Rows of a database of `records` credentials.
pub(crate) fn measure(options: &Options, records: usize, report: &mut Report) -> Result<()> {
    let size = size_name(records);
    let out = Command::new(&options.sqlcipher)
        .arg(options.folder.join(format!("sqlcipher-{records}.db")))
        .args([records, options.counts.reads, options.counts.commits].map(|n| n.to_string()))
        .stderr(Stdio::inherit())
        .output()?;
    if !out.status.success() {
        return Err("the program with SQLCipher failed".into());
    }
    for line in std::str::from_utf8(&out.stdout)?.lines() {
        let (figure, value) = line.split_once(' ').ok_or("a line without a figure")?;
        let (unit, beside) = match figure {
            "read_p50" | "read_p99" => ("us", figure.replace("read", &format!("read_{size}"))),
            "verify" => ("ms", format!("unseal_{size}")),
            _ => ("/s", figure.to_owned()),
        };
        report.row(
            &format!("sqlcipher_{figure}"),
            value.parse()?,
            unit,
            &[&beside],
        );
    }
    Ok(())
}
