//! What only root may set: `mcpist.toml`, read once at start. Nothing here can be changed over a socket.
//!
//! Owns the folder layout and the limits. Promises that a value which exists is usable: paths are absolute,
//! limits lie inside their ranges, and a fixed principal on a listener is accepted in dev only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mcpist_core::ids::PrincipalName;
use serde::Deserialize;

use crate::audit::{Remove, Rotation};
use crate::life::Life;
use crate::roles::Groups;
use crate::tpm::{OWNERS_INDICES, Tpm};

/// Default size of the arena of secret pages, in KiB: keys, shares, and what is opened for a moment for each call, up to
/// 64 KiB each. It is resident from the start; 8 MiB is the usual memlock limit of a process.
const ARENA_KIB: usize = 2048;

/// The file's text, strict: an unknown key is an error, since a misspelt limit must not silently be the default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    /// Folder of the store, the audit files, the registries and the quarantine.
    state: PathBuf,
    /// Folder of the sockets.
    run: PathBuf,
    #[serde(default)]
    listener: Vec<ListenerFile>,
    #[serde(default)]
    runner: RunnerFile,
    #[serde(default)]
    roles: Groups,
    #[serde(default)]
    limits: LimitsFile,
    #[serde(default)]
    audit: AuditFile,
    tpm: Option<TpmFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerFile {
    path: PathBuf,
    principal: Option<PrincipalName>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TpmFile {
    device: PathBuf,
    #[serde(default = "tpm_index")]
    index: u32,
}

/// The counter's index unless the file names another: of the owner's range.
fn tpm_index() -> u32 {
    0x0180_4d50
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunnerFile {
    uid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct LimitsFile {
    arena_kib: usize,
    calls_in_flight: usize,
    connections: usize,
    connections_per_user: usize,
    idle_minutes: usize,
    leaking_answers: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct AuditFile {
    rotate_mib: u64,
    rotate_days: u64,
    keep: usize,
    remove: Remove,
}

impl Default for AuditFile {
    fn default() -> Self {
        Self {
            rotate_mib: 16,
            rotate_days: 30,
            keep: 16,
            remove: Remove::default(),
        }
    }
}

impl Default for LimitsFile {
    fn default() -> Self {
        Self {
            arena_kib: ARENA_KIB,
            calls_in_flight: 64,
            connections: 256,
            connections_per_user: 64,
            idle_minutes: 720,
            leaking_answers: 32,
        }
    }
}

/// Why `mcpist.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; write it or name another with --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, or not the keys that are known.
    #[error("{path} is not a valid configuration: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Position and reason, from the TOML reader.
        reason: String,
    },
    /// A value outside its range.
    #[error("{key} = {value} is out of range: {range}")]
    Range {
        /// The key.
        key: &'static str,
        /// The value found.
        value: String,
        /// What is accepted.
        range: &'static str,
    },
    /// A fixed principal outside dev.
    #[error("listener {path} names a principal; that is accepted only with --dev")]
    FixedPrincipal {
        /// The listener's socket.
        path: PathBuf,
    },
}

/// A Unix listener that mcpistd binds itself (dev and tests); in production systemd passes the sockets in.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    /// The socket's path.
    pub(crate) path: PathBuf,
    /// Dev only: every peer of this listener is this principal, which must exist as a record.
    pub(crate) principal: Option<PrincipalName>,
}

/// The configuration of one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// `--dev`: only a dev store opens, mcpistd binds its own sockets and starts the runner.
    pub(crate) dev: bool,
    state: PathBuf,
    run: PathBuf,
    /// The MCP listeners.
    pub(crate) listeners: Vec<Listener>,
    /// The uid that a runner of role `run` must have; in dev the daemon's own.
    pub(crate) runner_uid: Option<u32>,
    /// The Unix groups that give the roles at the admin socket; not looked at in dev.
    pub(crate) roles: Groups,
    /// The TPM counter that the store is bound to.
    pub(crate) tpm: Option<Tpm>,
    /// Bytes of secret memory.
    pub(crate) arena_bytes: usize,
    /// Calls in flight per client connection.
    pub(crate) calls_in_flight: usize,
    /// Client connections at once, over all listeners.
    pub(crate) connections: usize,
    /// Client connections at once of one user, over all listeners.
    pub(crate) connections_per_user: usize,
    /// A client connection on which nothing came for this long is closed.
    pub(crate) idle: Duration,
    /// Answers of a module's service with a secret in them, within ten minutes, after which it takes no calls any more.
    pub(crate) leaking_answers: u32,
    /// When audit segments give way.
    pub(crate) rotation: Rotation,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub(crate) fn load(path: &Path, dev: bool) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let file: File = toml::from_str(&text).map_err(|e| ConfigError::Syntax {
            path: path.to_owned(),
            reason: e.to_string().trim_end().to_owned(),
        })?;
        Self::check(file, dev)
    }

    fn check(file: File, dev: bool) -> Result<Self, ConfigError> {
        let absolute = |key, path: &Path| {
            if path.is_absolute() {
                Ok(())
            } else {
                let value = path.display().to_string();
                Err(ConfigError::Range {
                    key,
                    value,
                    range: "an absolute path",
                })
            }
        };
        absolute("state", &file.state)?;
        absolute("run", &file.run)?;
        let mut listeners = Vec::with_capacity(file.listener.len());
        for l in file.listener {
            absolute("listener.path", &l.path)?;
            if l.principal.is_some() && !dev {
                return Err(ConfigError::FixedPrincipal { path: l.path });
            }
            listeners.push(Listener {
                path: l.path,
                principal: l.principal,
            });
        }
        if let Some(tpm) = &file.tpm {
            absolute("tpm.device", &tpm.device)?;
            if !OWNERS_INDICES.contains(&tpm.index) {
                return Err(ConfigError::Range {
                    key: "tpm.index",
                    value: format!("{:#010x}", tpm.index),
                    range: "0x01800000 to 0x01bfffff, which are the owner's",
                });
            }
        }
        let limits = file.limits;
        range(
            "limits.arena-kib",
            limits.arena_kib,
            256..=262_144,
            "256 to 262144",
        )?;
        range(
            "limits.calls-in-flight",
            limits.calls_in_flight,
            1..=1024,
            "1 to 1024",
        )?;
        range(
            "limits.connections",
            limits.connections,
            1..=4096,
            "1 to 4096",
        )?;
        range(
            "limits.connections-per-user",
            limits.connections_per_user,
            1..=4096,
            "1 to 4096",
        )?;
        range(
            "limits.idle-minutes",
            limits.idle_minutes,
            10..=10_080,
            "10 to 10080",
        )?;
        range(
            "limits.leaking-answers",
            limits.leaking_answers as usize,
            1..=1_000_000,
            "1 to 1000000",
        )?;
        let audit = file.audit;
        range(
            "audit.rotate-mib",
            audit.rotate_mib as usize,
            1..=4096,
            "1 to 4096",
        )?;
        range(
            "audit.rotate-days",
            audit.rotate_days as usize,
            1..=3650,
            "1 to 3650",
        )?;
        range("audit.keep", audit.keep, 2..=100_000, "2 to 100000")?;
        Ok(Self {
            dev,
            state: file.state,
            run: file.run,
            listeners,
            runner_uid: file.runner.uid,
            roles: file.roles,
            // A socket is a software TPM: no anchor outside this host's disk.
            tpm: file.tpm.map(|tpm| Tpm::new(tpm.device, tpm.index, dev)),
            arena_bytes: limits.arena_kib * 1024,
            calls_in_flight: limits.calls_in_flight,
            connections: limits.connections,
            connections_per_user: limits.connections_per_user,
            idle: Duration::from_secs(60 * limits.idle_minutes as u64),
            leaking_answers: limits.leaking_answers,
            rotation: Rotation {
                bytes: audit.rotate_mib * 1024 * 1024,
                age: audit.rotate_days * 86_400,
                keep: audit.keep,
                remove: audit.remove,
            },
        })
    }

    /// The folder of everything that lasts.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// The store's folder (sealer's).
    pub(crate) fn store(&self) -> PathBuf {
        self.state.join("store")
    }

    /// The audit log's folder: `audit`, or that of the store's life where a restore began one.
    pub(crate) fn audit(&self) -> PathBuf {
        let life = Life::read(&self.store());
        self.state
            .join(life.map_or("audit".to_owned(), |life| life.audit()))
    }

    /// Imported registries, one folder per manifest digest.
    pub(crate) fn registries(&self) -> PathBuf {
        self.state.join("registries")
    }

    /// Bundles on their way in.
    pub(crate) fn quarantine(&self) -> PathBuf {
        self.state.join("quarantine")
    }

    /// The file of the one-time token that allows init.
    pub(crate) fn init_token(&self) -> PathBuf {
        self.state.join("init-token")
    }

    /// The mark of a store that was made and never opened.
    pub(crate) fn unopened(&self) -> PathBuf {
        self.state.join("unopened")
    }

    /// A socket in the run folder.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }
}

fn range(
    key: &'static str,
    value: usize,
    accepted: std::ops::RangeInclusive<usize>,
    range: &'static str,
) -> Result<(), ConfigError> {
    if accepted.contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::Range {
            key,
            value: value.to_string(),
            range,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roles::Role;

    fn parse(text: &str, dev: bool) -> Result<Config, ConfigError> {
        let file = toml::from_str(text).map_err(|e| ConfigError::Syntax {
            path: "mcpist.toml".into(),
            reason: e.to_string(),
        })?;
        Config::check(file, dev)
    }

    const PLAIN: &str = "state = \"/var/lib/mcpist\"\nrun = \"/run/mcpist\"\n";

    #[test]
    fn the_layout_hangs_off_two_folders() {
        let config = parse(PLAIN, false).unwrap();
        assert_eq!(config.store(), Path::new("/var/lib/mcpist/store"));
        assert_eq!(
            config.socket("admin.sock"),
            Path::new("/run/mcpist/admin.sock")
        );
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let e = parse(&format!("{PLAIN}[limits]\narena-kb = 512\n"), false).unwrap_err();
        assert!(e.to_string().contains("arena-kb"), "{e}");
    }

    #[test]
    fn a_site_may_name_its_own_groups() {
        let text = format!("{PLAIN}[roles]\nofficer = \"security\"\n");
        let roles = parse(&text, false).unwrap().roles;
        assert_eq!(roles.of(Role::Officer), "security");
        assert_eq!(roles.of(Role::Operator), "mcpist-operator");
        assert!(parse(&format!("{PLAIN}[roles]\nroot = \"wheel\"\n"), false).is_err());
    }

    #[test]
    fn a_relative_path_is_refused() {
        let e = parse("state = \"var\"\nrun = \"/run\"\n", true).unwrap_err();
        assert_eq!(
            e.to_string(),
            "state = var is out of range: an absolute path"
        );
    }

    #[test]
    fn a_tpm_counter_is_in_the_owners_range() {
        let of = |index: &str| {
            let text = format!("{PLAIN}[tpm]\ndevice = \"/dev/tpmrm0\"\n{index}");
            parse(&text, false).map(|config| config.tpm.map(|tpm| tpm.index()))
        };
        assert_eq!(of("").unwrap(), Some(0x0180_4d50));
        assert_eq!(of("index = 0x01bfffff\n").unwrap(), Some(0x01bf_ffff));
        let e = of("index = 0x01c00002\n").unwrap_err();
        assert!(e.to_string().contains("tpm.index = 0x01c00002"), "{e}");
    }

    #[test]
    fn a_fixed_principal_needs_dev() {
        let text = format!("{PLAIN}[[listener]]\npath = \"/run/a.sock\"\nprincipal = \"ada\"\n");
        assert!(parse(&text, true).is_ok());
        assert!(matches!(
            parse(&text, false),
            Err(ConfigError::FixedPrincipal { .. })
        ));
    }
}
