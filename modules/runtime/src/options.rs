//! The command line: few flags, for systemd and mcpistd to write. Pure.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use mcpist_wire::Role;
use thiserror::Error;

const USAGE: &str = "usage: mcpist-runner --role run|vault (--connect PATH | --fd NUMBER)
  --connect PATH  connect to mcpistd's runner socket, and again after the link's end
  --fd NUMBER     serve an inherited Unix stream socket, once (development)";

/// What the process is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) role: Role,
    pub(crate) link: Link,
}

/// Where the link comes from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Connect(PathBuf),
    Descriptor(RawFd),
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    Run(Options),
    Say(String),
}

/// Why the command line is not understood.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum OptionsError {
    #[error("unknown argument {0:?}\n{USAGE}")]
    Unknown(OsString),
    #[error("{0} needs another value\n{USAGE}")]
    Value(&'static str),
    #[error("name the role and one link\n{USAGE}")]
    Incomplete,
}

impl Options {
    pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Parsed, OptionsError> {
        let mut args = args;
        let (mut role, mut link) = (None, None);
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("--help" | "-h") => return Ok(Parsed::Say(USAGE.to_owned())),
                Some("--version" | "-V") => {
                    let text = concat!("mcpist-runner ", env!("CARGO_PKG_VERSION"));
                    return Ok(Parsed::Say(text.to_owned()));
                }
                Some("--role") => {
                    let value = args.next();
                    let named = [Role::Run, Role::Vault]
                        .into_iter()
                        .find(|role| value.as_deref().is_some_and(|v| v == role.as_str()));
                    role = Some(named.ok_or(OptionsError::Value("--role"))?);
                }
                Some("--connect") if link.is_none() => {
                    let path = args.next().ok_or(OptionsError::Value("--connect"))?;
                    link = Some(Link::Connect(path.into()));
                }
                Some("--fd") if link.is_none() => {
                    let number = args.next().and_then(|v| v.to_str()?.parse::<RawFd>().ok());
                    let number = number.filter(|number| *number >= 0);
                    link = Some(Link::Descriptor(number.ok_or(OptionsError::Value("--fd"))?));
                }
                _ => return Err(OptionsError::Unknown(arg)),
            }
        }
        match (role, link) {
            (Some(role), Some(link)) => Ok(Parsed::Run(Options { role, link })),
            _ => Err(OptionsError::Incomplete),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Parsed, OptionsError> {
        Options::parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_role_and_one_link_are_needed() {
        let run = |role, link| Ok(Parsed::Run(Options { role, link }));
        assert_eq!(
            parse("--role run --connect /run/x"),
            run(Role::Run, Link::Connect("/run/x".into()))
        );
        assert_eq!(
            parse("--fd 3 --role vault"),
            run(Role::Vault, Link::Descriptor(3))
        );
        for text in ["", "--role run", "--fd 3"] {
            assert_eq!(parse(text), Err(OptionsError::Incomplete), "{text}");
        }
        assert_eq!(
            parse("--role other --fd 3"),
            Err(OptionsError::Value("--role"))
        );
        assert_eq!(
            parse("--role run --fd -1"),
            Err(OptionsError::Value("--fd"))
        );
        assert!(matches!(
            parse("--role run --fd 3 --connect /x"),
            Err(OptionsError::Unknown(_))
        ));
    }

    #[test]
    fn help_and_version_are_said() {
        assert!(matches!(parse("--help"), Ok(Parsed::Say(text)) if text.starts_with("usage:")));
        assert!(matches!(parse("-V"), Ok(Parsed::Say(text)) if text.contains("mcpist-runner")));
    }
}
