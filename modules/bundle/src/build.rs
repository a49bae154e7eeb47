//! From module folders to a bundle, the same bytes from the same input.
//!
//! A folder holds `module.toml`, the TOML form of a [`ModuleManifest`], and the schema files that it names. In the
//! bundle a schema's path begins with the module's name. TOML never enters a bundle. Signing appends a block and
//! changes nothing else, so that a counter-signature needs no rebuild.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mcpist_core::ids::{BundleName, Digest, Namespace, SiteId};
use mcpist_core::manifest::{
    Blob, BlobPath, Draft, FORMAT, FitError, Manifest, ManifestError, ModuleManifest, fit,
};

use crate::container::{BLOCK_LEN, Block, ContainerError, HEADER_LEN, Header, Role};
use crate::keys::{KeyError, SigningKey};

/// Longest `module.toml` and schema, in bytes.
const MAX_SOURCE: u64 = 1 << 20;

/// What a bundle says of itself besides its modules.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Who publishes it.
    pub namespace: Namespace,
    /// Its name there.
    pub name: BundleName,
    /// Its number, from 1.
    pub sequence: u64,
    /// The sites that may import it.
    pub audience: Vec<SiteId>,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970.
    pub not_after: u64,
    /// For the officer who approves it.
    pub notes: String,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `module.toml` is no module.
    #[error("{}: {reason}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Position and reason.
        reason: String,
    },
    /// A request and its schema disagree.
    #[error("{}: tool {tool}: {source}", path.display())]
    Fit {
        /// The module's file.
        path: PathBuf,
        /// The tool.
        tool: String,
        /// How.
        source: FitError,
    },
    /// The manifest that results is refused.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The container that results is refused, or the file to sign is none.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key has signed this bundle as this role.
    #[error("this key has signed the bundle already; each key signs once")]
    SignedAlready,
}

/// Builds an unsigned bundle of the modules in `folders`.
///
/// # Errors
/// [`BuildError`].
pub fn build(folders: &[PathBuf], options: &BuildOptions) -> Result<Vec<u8>, BuildError> {
    let mut modules = Vec::new();
    let mut files = BTreeMap::new();
    for folder in folders {
        modules.push(read_module(folder, &mut files)?);
    }
    modules.sort_by(|a, b| a.name.cmp(&b.name));
    let blobs = files
        .iter()
        .map(|(path, bytes)| Blob {
            path: path.clone(),
            digest: Digest::of(bytes),
            length: bytes.len() as u64,
        })
        .collect();
    let manifest = Manifest::new(Draft {
        format: FORMAT,
        namespace: options.namespace.clone(),
        name: options.name.clone(),
        sequence: options.sequence,
        audience: options.audience.clone(),
        created: options.created,
        not_after: options.not_after,
        notes: options.notes.clone(),
        modules,
        blobs,
    })?;
    let manifest = manifest.to_bytes()?;
    let payload: usize = files.values().map(Vec::len).sum();
    let header = Header::new(0, manifest.len(), payload as u64)?;
    let mut out = Vec::with_capacity(HEADER_LEN + manifest.len() + payload);
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(&manifest);
    for bytes in files.values() {
        out.extend_from_slice(bytes);
    }
    Ok(out)
}

/// The bundle with one more signature.
///
/// # Errors
/// [`BuildError`].
pub fn sign(bundle: &[u8], key: &SigningKey, role: Role) -> Result<Vec<u8>, BuildError> {
    let size = bundle.len() as u64;
    let fixed = bundle.first_chunk::<HEADER_LEN>();
    let fixed = fixed.ok_or(ContainerError::Length {
        found: size,
        expected: HEADER_LEN as u64,
    })?;
    let header = Header::parse(fixed, size)?;
    // The header's sum is the file's size, so these are within it.
    let manifest_at = HEADER_LEN + header.signatures() * BLOCK_LEN;
    let (blocks, rest) = (&bundle[HEADER_LEN..manifest_at], &bundle[manifest_at..]);
    for (index, bytes) in blocks.chunks(BLOCK_LEN).enumerate() {
        let block = Block::parse(bytes, index)?;
        if block.key == key.id() && block.role == role {
            return Err(BuildError::SignedAlready);
        }
    }
    let block = key.block(role, &rest[..header.manifest()])?;
    let signed = Header::new(header.signatures() + 1, header.manifest(), header.payload())?;
    Ok([&signed.to_bytes()[..], blocks, &block.to_bytes(), rest].concat())
}

fn read_module(
    folder: &Path,
    files: &mut BTreeMap<BlobPath, Vec<u8>>,
) -> Result<ModuleManifest, BuildError> {
    let path = folder.join("module.toml");
    let toml_error = |reason: String| BuildError::Toml {
        path: path.clone(),
        reason,
    };
    let text = String::from_utf8(read(&path)?).map_err(|e| toml_error(e.to_string()))?;
    let mut module: ModuleManifest =
        toml::from_str(&text).map_err(|e| toml_error(e.to_string()))?;
    let name = module.name.clone();
    for tool in &mut module.tools {
        let schema = read(&folder.join(tool.input_schema.as_str()))?;
        fit(tool, &schema).map_err(|source| BuildError::Fit {
            path: path.clone(),
            tool: tool.name.to_string(),
            source,
        })?;
        let mut place = |blob: &mut BlobPath, bytes: Vec<u8>| {
            let moved = BlobPath::parse(&format!("{name}/{blob}"))
                .map_err(|e| toml_error(e.to_string()))?;
            files.insert(moved.clone(), bytes);
            *blob = moved;
            Ok::<(), BuildError>(())
        };
        place(&mut tool.input_schema, schema)?;
        if let Some(output) = &mut tool.output_schema {
            let bytes = read(&folder.join(output.as_str()))?;
            place(output, bytes)?;
        }
    }
    Ok(module)
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let io = |source| BuildError::Io {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    // A pipe in its place would keep the reader waiting for a writer.
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(io(std::io::Error::other("it is no regular file")));
    }
    file.take(MAX_SOURCE + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_SOURCE {
        return Err(io(std::io::Error::other("longer than 1 MiB")));
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn options(sequence: u64) -> BuildOptions {
        BuildOptions {
            namespace: Namespace::parse("acme").unwrap(),
            name: BundleName::parse("tools").unwrap(),
            sequence,
            audience: vec![SiteId::parse("site-a").unwrap()],
            created: 1_700_000_000,
            not_after: 1_800_000_000,
            notes: String::new(),
        }
    }

    /// The first-party module as a bundle.
    pub(crate) fn bundle(sequence: u64) -> Vec<u8> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../catalog/prometheus");
        build(&[folder], &options(sequence)).unwrap()
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(bundle(1), bundle(1));
        assert_ne!(bundle(1), bundle(2));
    }

    #[test]
    fn a_signature_changes_nothing_but_header_and_blocks() {
        let (key, other) = (
            SigningKey::generate().unwrap(),
            SigningKey::generate().unwrap(),
        );
        let plain = bundle(1);
        let once = sign(&plain, &key, Role::Publisher).unwrap();
        let twice = sign(&once, &other, Role::Publisher).unwrap();
        assert_eq!(plain[HEADER_LEN..], once[HEADER_LEN + BLOCK_LEN..]);
        assert_eq!(plain[HEADER_LEN..], twice[HEADER_LEN + 2 * BLOCK_LEN..]);
        assert!(matches!(
            sign(&twice, &key, Role::Publisher),
            Err(BuildError::SignedAlready)
        ));
        assert!(matches!(
            sign(&plain[..10], &key, Role::Publisher),
            Err(BuildError::Container(_))
        ));
    }

    #[test]
    fn a_pipe_in_place_of_a_module_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mode = nix::sys::stat::Mode::S_IRWXU;
        nix::unistd::mkfifo(&folder.path().join("module.toml"), mode).unwrap();
        let error = build(&[folder.path().to_owned()], &options(1)).unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
    }

    #[test]
    fn a_fault_names_its_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("module.toml"), "name = 7\n").unwrap();
        let error = build(&[folder.path().to_owned()], &options(1)).unwrap_err();
        assert!(error.to_string().contains("module.toml"), "{error}");
    }
}
