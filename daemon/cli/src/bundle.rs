//! `bundle`: keys, roots, building, signing and looking at bundles without a daemon, and import with one.
//!
//! Promises that a key's seed is written under a passphrase, or as a throwaway with an explicit flag; that a signed
//! bundle replaces its file in one rename; and that `verify` judges with the code that import uses, and says what it has
//! left to the site.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use mcpist_bundle::root::{Delegation, Keys};
use mcpist_bundle::{BuildOptions, Inspection, Role, Root, RootParts, SigningKey, VerifyError};
use mcpist_core::api::{Imported, PublicKey};
use mcpist_core::ids::{BundleName, Digest, Namespace, SiteId};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::witness::Keeping;
use crate::{Context, secret};
use mcpist_core::date::{self, date};

/// Longest bundle that these commands take, in bytes.
const MAX_BUNDLE: u64 = 1 << 30;
const DAY: u64 = 86_400;

/// Bundles: signed files in which modules travel
#[derive(Args)]
pub(crate) struct BundleArgs {
    #[command(subcommand)]
    command: BundleCommand,
}

#[derive(Subcommand)]
enum BundleCommand {
    /// Make a signing key
    #[command(after_help = "Examples:
  mcpist bundle keygen publisher.key                asks for a passphrase
  mcpist bundle keygen test.key --throwaway         in clear, mode 0600")]
    Keygen {
        /// The new file
        file: PathBuf,
        /// Write the key in clear; for tests only
        #[arg(long)]
        throwaway: bool,
    },
    /// Write a site's trust root, version 1
    #[command(after_help = "Examples:
  mcpist bundle root root.json --site plant-7 --namespace acme --publisher HEXKEY --publisher HEXKEY \\
      --publisher-threshold 2 --root-key HEXKEY --revoke-key HEXKEY")]
    Root(RootArgs),
    /// Build an unsigned bundle of module folders; the same folders give the same bytes
    #[command(after_help = "Examples:
  mcpist bundle build prometheus/ --namespace acme --name monitoring --sequence 4 --site plant-7 --out m.bundle
  SOURCE_DATE_EPOCH=1700000000 mcpist bundle build prometheus/ … --out m.bundle")]
    Build(BuildArgs),
    /// Add a signature to a bundle
    #[command(after_help = "Examples:\n  mcpist bundle sign m.bundle --key publisher.key")]
    Sign {
        /// The bundle
        bundle: PathBuf,
        /// The signing key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Show what a bundle says, without trusting it
    #[command(after_help = "Examples:\n  mcpist bundle inspect m.bundle --output json")]
    Inspect {
        /// The bundle
        bundle: PathBuf,
    },
    /// Verify a bundle against a trust root: signatures, namespace, site and the digest of every file
    #[command(after_help = "Examples:
  mcpist bundle verify m.bundle --root root.json
  mcpist bundle verify m.bundle --root root.json --time 2026-11-24

What only the site knows is left to import: the numbers that it has by now, and its time floor.")]
    Verify {
        /// The bundle
        bundle: PathBuf,
        /// The trust root
        #[arg(long, value_name = "FILE")]
        root: PathBuf,
        /// Hold the bundle's end against this UTC date, or seconds since 1970
        #[arg(long, value_name = "DATE", value_parser = date::parse)]
        time: Option<u64>,
    },
    /// Hand a bundle to the daemon, which verifies and keeps it
    #[command(after_help = "Examples:
  mcpist bundle import /media/usb/m.bundle

It serves nothing yet: join its slots, retire what has its modules now, and activate it.")]
    Import {
        /// The bundle
        bundle: PathBuf,
    },
}

#[derive(Args)]
struct RootArgs {
    /// The new file
    file: PathBuf,
    /// The site
    #[arg(long, value_name = "ID")]
    site: SiteId,
    /// A namespace that all publisher keys may sign for; repeat
    #[arg(long = "namespace", value_name = "NAME", required = true)]
    namespaces: Vec<Namespace>,
    /// A publisher's public key; repeat
    #[arg(long = "publisher", value_name = "HEXKEY", required = true, value_parser = public_key)]
    publishers: Vec<PublicKey>,
    /// Publisher keys that must sign a bundle
    #[arg(long, value_name = "N", default_value_t = 1)]
    publisher_threshold: usize,
    /// A key that signs the next root; repeat
    #[arg(long = "root-key", value_name = "HEXKEY", required = true, value_parser = public_key)]
    root_keys: Vec<PublicKey>,
    /// A key that signs revocations; repeat
    #[arg(long = "revoke-key", value_name = "HEXKEY", required = true, value_parser = public_key)]
    revoke_keys: Vec<PublicKey>,
}

fn public_key(text: &str) -> std::result::Result<PublicKey, String> {
    PublicKey::parse(text).ok_or_else(|| "64 lower-case hexadecimal digits are expected".to_owned())
}

#[derive(Args)]
struct BuildArgs {
    /// Module folders, each with a module.toml
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Who publishes it
    #[arg(long, value_name = "NAME")]
    namespace: Namespace,
    /// Its name there
    #[arg(long, value_name = "NAME")]
    name: BundleName,
    /// Its number; a site takes only higher ones
    #[arg(long, value_name = "N")]
    sequence: u64,
    /// A site that may import it; repeat
    #[arg(long = "site", value_name = "ID", required = true)]
    sites: Vec<SiteId>,
    /// Days that it may be imported for
    #[arg(long, value_name = "N", default_value_t = 90)]
    days: u64,
    /// When it was made, in seconds since 1970; now if left out
    #[arg(
        long,
        value_name = "SECONDS",
        env = "SOURCE_DATE_EPOCH",
        hide_env_values = true
    )]
    created: Option<u64>,
    /// For the officer who approves it
    #[arg(long, value_name = "TEXT", default_value = "")]
    notes: String,
    /// The new file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Made {
    file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public: Option<PublicKey>,
}

#[derive(Serialize)]
struct Checked {
    registry: Digest,
    keys: Vec<Digest>,
    sequence: u64,
    not_after: u64,
    /// What the end was held against.
    time: Option<u64>,
}

pub(crate) async fn run(context: &Context, args: BundleArgs) -> Result<()> {
    let out = context.out;
    match args.command {
        BundleCommand::Keygen { file, throwaway } => {
            let key = if throwaway {
                keygen(&file)?
            } else {
                keygen_sealed(&file)?
            };
            let made = Made {
                file,
                digest: Some(key.id()),
                public: Some(key.public()),
            };
            out.data(&made, |m| {
                format!("{}: public key {}", m.file.display(), key.public())
            })
        }
        BundleCommand::Root(args) => {
            let root = Root::new(RootParts {
                version: 1,
                site: args.site,
                namespaces: args
                    .namespaces
                    .into_iter()
                    .map(|namespace| Delegation {
                        namespace,
                        keys: args.publishers.clone(),
                    })
                    .collect(),
                publisher: Keys {
                    threshold: args.publisher_threshold,
                    keys: args.publishers,
                },
                root: Keys {
                    threshold: 1,
                    keys: args.root_keys,
                },
                revoke: Keys {
                    threshold: 1,
                    keys: args.revoke_keys,
                },
            })
            .map_err(Error::usage)?;
            let bytes = root.to_bytes().map_err(|e| Error::new("internal", e))?;
            secret::create(&args.file, 0o644, &bytes)?;
            let made = Made {
                file: args.file,
                digest: Some(Digest::of(&bytes)),
                public: None,
            };
            out.data(&made, |m| {
                format!("{}: trust root {}", m.file.display(), Digest::of(&bytes))
            })
        }
        BundleCommand::Build(args) => {
            let created = args.created.unwrap_or_else(now);
            let options = BuildOptions {
                namespace: args.namespace,
                name: args.name,
                sequence: args.sequence,
                audience: args.sites,
                created,
                not_after: created.saturating_add(args.days.saturating_mul(DAY)),
                notes: args.notes,
            };
            let bytes = build(&args.folders, &options)?;
            secret::create(&args.out, 0o644, &bytes)?;
            let digest = inspect(&bytes)?.digest;
            let made = Made {
                file: args.out,
                digest: Some(digest),
                public: None,
            };
            out.data(&made, |m| {
                format!(
                    "{}: registry {digest}, unsigned\nnext: mcpist bundle sign",
                    m.file.display()
                )
            })
        }
        BundleCommand::Sign { bundle, key } => {
            let key = read_key(&key)?;
            let signed = sign(&secret::read_file(&bundle, MAX_BUNDLE)?, &key)?;
            replace(&bundle, &signed)?;
            let made = Made {
                file: bundle,
                digest: Some(key.id()),
                public: Some(key.public()),
            };
            out.data(&made, |m| {
                format!("{}: signed by key {}", m.file.display(), key.id().short())
            })
        }
        BundleCommand::Inspect { bundle } => {
            let inspection = inspect(&secret::read_file(&bundle, MAX_BUNDLE)?)?;
            out.data(&inspection, show)
        }
        BundleCommand::Verify { bundle, root, time } => {
            let checked = verify(&bundle, &root, time)?;
            out.data(&checked, show_checked)
        }
        BundleCommand::Import { bundle } => {
            let file = secret::open(&bundle)?;
            let importing = secret::import(&context.client, &file);
            let imported = out.while_busy("importing", importing).await?;
            Keeping::default().keep(context, imported.receipt.as_deref());
            out.data(&imported, show_imported)
        }
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Draws a key and writes it in clear into a new 0600 file.
pub(crate) fn keygen(file: &Path) -> Result<SigningKey> {
    let key = SigningKey::generate().map_err(|e| Error::new("key", e))?;
    let text = key.to_throwaway_text().map_err(|e| Error::new("key", e))?;
    secret::create(file, 0o600, text.expose())?;
    Ok(key)
}

fn keygen_sealed(file: &Path) -> Result<SigningKey> {
    let passphrase = secret::ask_twice("Passphrase of the new key: ")?;
    let key = SigningKey::generate().map_err(|e| Error::new("key", e))?;
    let sealed = key.to_file(&passphrase).map_err(|e| Error::new("key", e))?;
    secret::create(file, 0o600, &sealed)?;
    Ok(key)
}

/// Reads a key file; asks for the passphrase where it has one.
pub(crate) fn read_key(file: &Path) -> Result<SigningKey> {
    let bytes = secret::read_secret_bytes(file)?;
    if let Ok(key) = SigningKey::from_throwaway_text(bytes.expose()) {
        return Ok(key);
    }
    if !bytes.expose().starts_with(b"age-encryption.org/v1") {
        return Err(Error::new(
            "key",
            format!("{}: no key file", file.display()),
        ));
    }
    let passphrase = secret::ask(&format!("Passphrase of {}: ", file.display()))?;
    SigningKey::from_file(bytes.expose(), &passphrase)
        .map_err(|e| Error::new("key", format!("{}: {e}", file.display())))
}

/// An unsigned bundle of module folders.
pub(crate) fn build(folders: &[PathBuf], options: &BuildOptions) -> Result<Vec<u8>> {
    mcpist_bundle::build(folders, options).map_err(|e| Error::new("bundle_build", e))
}

/// The bundle with one more publisher's signature.
pub(crate) fn sign(bundle: &[u8], key: &SigningKey) -> Result<Vec<u8>> {
    mcpist_bundle::build::sign(bundle, key, Role::Publisher)
        .map_err(|e| Error::new("bundle_sign", e))
}

fn inspect(bundle: &[u8]) -> Result<Inspection> {
    mcpist_bundle::inspect(bundle).map_err(|e| Error::new(e.code(), e))
}

/// Puts new bytes in a file's place in one rename.
fn replace(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".signed");
    let beside = file.with_file_name(name);
    secret::create(&beside, 0o644, bytes)?;
    std::fs::rename(&beside, file).map_err(|e| {
        let _ = std::fs::remove_file(&beside);
        Error::file(file, e)
    })
}

/// Verifies in a private folder of its own, as the daemon does in its quarantine.
fn verify(bundle: &Path, root: &Path, time: Option<u64>) -> Result<Checked> {
    let source = secret::open(bundle)?;
    let root = secret::read_file(root, mcpist_bundle::root::MAX_ROOT as u64)?;
    let root = Root::parse(&root).map_err(|e| Error::new("root", e))?;
    let scratch = Scratch::new()?;
    let taken = mcpist_bundle::take(&source, &scratch.0, MAX_BUNDLE)
        .map_err(|e| Error::new(e.code(), e))?;
    let verified = taken
        .verify(&root, |_, _| Ok(None), time.unwrap_or(0))
        .map_err(|e| match e {
            VerifyError::Expired { not_after, floor } => Error::new(
                e.code(),
                format!(
                    "the bundle was good until {}, and that is before {}",
                    date(not_after),
                    date(floor)
                ),
            ),
            e => Error::new(e.code(), e),
        })?;
    Ok(Checked {
        registry: *verified.registry().digest(),
        keys: verified.keys().iter().copied().collect(),
        sequence: verified.manifest().sequence,
        not_after: verified.manifest().not_after,
        time,
    })
}

/// What holds, and what only the site can hold it against.
fn show_checked(checked: &Checked) -> String {
    let keys: Vec<_> = checked.keys.iter().map(Digest::short).collect();
    let (end, more) = match checked.time {
        Some(time) => (format!(", and so at {}", date(time)), "its time floor"),
        None => (
            String::new(),
            "whether that is over (--time DATE, or its time floor)",
        ),
    };
    format!(
        "verified: registry {}, signed by {}\ngood until {}{end}\nleft to the site's import: whether {} is above the \
         number that it has, and {more}",
        checked.registry,
        keys.join(", "),
        date(checked.not_after),
        checked.sequence
    )
}

/// A private folder that goes away with this value.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Scratch> {
        let random = mcpist_secret::random_bytes::<8>()?;
        let path = std::env::temp_dir().join(format!("mcpist-{}", hex::encode(random)));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|e| Error::file(&path, e))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that is left behind holds nothing secret.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn show(i: &Inspection) -> String {
    let mut lines = vec![
        format!("registry   {}", i.digest),
        format!(
            "bundle     {}/{} sequence {}",
            i.namespace, i.name, i.sequence
        ),
        format!("sites      {}", i.audience.join(", ")),
        format!("good       {} to {}", date(i.created), date(i.not_after)),
        format!("payload    {} bytes", i.payload),
    ];
    for (role, key) in &i.signatures {
        lines.push(format!(
            "signature  {role} key {} (not checked)",
            key.short()
        ));
    }
    for module in &i.modules {
        lines.push(format!("module     {} {}", module.name, module.version));
        for (slot, kinds, hosts) in &module.slots {
            lines.push(format!(
                "  slot     {slot}: {} for {}",
                kinds.join(" or "),
                hosts.join(", ")
            ));
        }
        for (tool, access) in &module.tools {
            lines.push(format!("  tool     {tool} ({access})"));
        }
    }
    lines.join("\n")
}

fn show_imported(imported: &Imported) -> String {
    let registry = &imported.registry;
    let widens: String = imported
        .widens
        .iter()
        .map(|w| format!("\nwidens: {w}"))
        .collect();
    format!(
        "imported {}/{} {} as registry {}{widens}\nnext: mcpist join put --registry {} … for each slot, then retire what has \
         its modules now, then mcpist registry activate",
        registry.namespace,
        registry.name,
        registry.sequence,
        registry.id.short(),
        registry.id.digest()
    )
}
