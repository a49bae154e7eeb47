//! What no file may hold after a run: the credentials, and of every quorum that came out of a ceremony the shares, the secret
//! that they give and the key that is made of it.
//!
//! They are looked for in every form ([`mcpist_tests::needle`]), the shares in words as well, in all files below a folder:
//! the state, and what the daemons said on standard output and standard error. Promises that a search which finds nothing
//! has searched: it has to find what was put there for it.

use std::path::{Path, PathBuf};

use mcpist_quorum::{SHARE_WORDS, Share};
use mcpist_secret::Secret;
use mcpist_tests::needle::Needles;
use mcpist_tests::shares::Shares;

use crate::Result;

/// What the search itself is tested by: a secret, and the file that holds it.
const PLANTED: &str = "planted-for-the-search-e41d07";
const PLANTED_FILE: &str = "planted";
/// Words that say nothing but what is public of a share: the first 24 of its 56 bytes, 11 bits a word.
const PUBLIC_WORDS: usize = (24 * 8_usize).div_ceil(11);

/// Looks for `credentials` and for what `quorums` have in every file of `folder` and in `others`, which are named.
pub(crate) fn are_nowhere<'q>(
    credentials: &[&str],
    quorums: impl Iterator<Item = &'q [Secret]>,
    folder: &Path,
    others: &[(&str, &[u8])],
) -> Result<()> {
    let quorums: Vec<&[Secret]> = quorums.filter(|quorum| !quorum.is_empty()).collect();
    let shares: Vec<Shares<'_>> = (quorums.iter())
        .map(|quorum| Shares::of(quorum))
        .collect::<Result<_>>()?;
    let mut words = Vec::new();
    for text in quorums.iter().copied().flatten() {
        words.extend(in_words(text)?);
    }
    let credentials = credentials
        .iter()
        .map(|text| ("credential", text.as_bytes()));
    let needles = Needles::new(
        (credentials.chain(shares.iter().flat_map(Shares::secrets)))
            .chain(words.iter().map(|text| ("share in words", text.as_bytes())))
            .chain([("planted", PLANTED.as_bytes())]),
    );
    let planted = folder.join(PLANTED_FILE);
    let hex: String = PLANTED.bytes().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&planted, hex)?;
    let mut found = Vec::new();
    let mut files = vec![folder.to_owned()];
    while let Some(path) = files.pop() {
        match what_is(&path)? {
            What::Folder(inside) => files.extend(inside),
            What::File(bytes) => {
                let hits = needles.search(&bytes).into_iter();
                found.extend(hits.map(|hit| (path.clone(), hit.name)));
            }
            What::Neither => {}
        }
    }
    for (name, bytes) in others {
        let hits = needles.search(bytes).into_iter();
        found.extend(hits.map(|hit| (PathBuf::from(name), hit.name)));
    }
    let (known, found): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(path, _)| *path == planted);
    if known.len() != 1 {
        return Err(format!("the search does not find what is there: {known:?}").into());
    }
    match found.first() {
        None => Ok(std::fs::remove_file(planted)?),
        Some((path, name)) => Err(format!("{} holds a secret: {name}", path.display()).into()),
    }
}

/// The words of a share that are not public, in a line and each in a line of its own.
fn in_words(text: &Secret) -> Result<[String; 2]> {
    let words = Share::parse(text.expose())?.to_words()?;
    let words = std::str::from_utf8(words.expose())?;
    let random: Vec<&str> = words.split_whitespace().skip(PUBLIC_WORDS).collect();
    if random.len() != SHARE_WORDS - PUBLIC_WORDS {
        return Err("a share has another number of words".into());
    }
    Ok([random.join(" "), random.join("\n")])
}

enum What {
    File(Vec<u8>),
    Folder(Vec<PathBuf>),
    /// A link, or a socket.
    Neither,
}

fn what_is(path: &Path) -> Result<What> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    if kind.is_file() {
        return Ok(What::File(std::fs::read(path)?));
    }
    if !kind.is_dir() {
        return Ok(What::Neither);
    }
    let inside = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
    Ok(What::Folder(inside.collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpist_quorum::{Foundation, InitTerms, OfficerKey, Plan, PlannedHolder, Threshold};

    /// The shares of a store that two of three open.
    fn quorum() -> Vec<Secret> {
        let holder = |label: &str| PlannedHolder {
            label: label.into(),
            recipient: String::new(),
        };
        let terms = InitTerms {
            holders: ["Ada", "Bo", "Cy"].map(holder).to_vec(),
            officers: vec![OfficerKey {
                name: "Olga".into(),
                public: [1; 32],
            }],
            root_digest: [2; 32],
            dev: true,
        };
        let threshold = Threshold::new(2, 3).expect("2 of 3");
        let plan = Plan::init(threshold, terms).expect("a plan");
        let foundation = Foundation::lay(&plan, 1_790_000_000).expect("a foundation");
        let shares = foundation.shares().iter();
        shares
            .map(|share| share.to_text().expect("a text"))
            .collect()
    }

    /// What a search of a folder with one file in a folder of its own says.
    fn search(quorum: &[Secret], content: &[u8]) -> Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("state"))?;
        std::fs::write(folder.path().join("state/file"), content)?;
        let others = [("an answer", &b"none"[..])];
        are_nowhere(
            &["canary-of-a-test-0c5be1"],
            [quorum].into_iter(),
            folder.path(),
            &others,
        )
    }

    #[test]
    fn a_secret_is_found_in_every_form_and_nothing_where_there_is_none() {
        let quorum = quorum();
        let shares = Shares::of(&quorum).expect("shares");
        search(&quorum, b"nothing of the kind").expect("nothing");
        for (name, secret) in shares.secrets() {
            let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            for form in [secret, hex.as_bytes()] {
                let found = search(&quorum, form).map_err(|e| e.to_string());
                assert!(
                    found.is_err_and(|e| e.contains("state/file holds")),
                    "{name}"
                );
            }
        }
        let words = in_words(&quorum[2]).expect("words");
        for text in [&words[0], &words[1], "Y2FuYXJ5LW9mLWEtdGVzdC0wYzViZTE="] {
            assert!(search(&quorum, text.as_bytes()).is_err(), "{text}");
        }
    }
}
