//! Fault points: the places where the disk changes, by name.
//!
//! Owns [`point`], called before and after each commit, rename, removal and sync. Promises that it does nothing in a
//! program as it is shipped: without the feature `test-faults` the function is empty, and with the feature a build
//! without debug assertions, as a release is, does not compile. `tests/tests/edges.rs` holds who may name the feature.
//!
//! In a build with it, the environment variable `MCPIST_FAULTS` says what is to happen:
//! - `record:FILE` appends the name of each point that is passed, a line each;
//! - `NAME#N:HOW` acts at the N-th passing of the point, counted from 1: `kill` ends the process by SIGKILL, `full` and
//!   `eio` fail the act with ENOSPC or EIO (after the act: it was done and is reported as failed), `hang` never returns.
//!
//! Does not decide what is a good place for one: the rule is two for each act that moves the disk from one state to
//! another, and none in between that a killed process could not be stopped at.

#[cfg(not(feature = "test-faults"))]
mod off {
    use std::io;

    use crate::store::Role;

    /// A place where the disk changes. Does nothing here: see the [module](self).
    ///
    /// # Errors
    /// None in a program as shipped; in a build for the fault lane, the error that was asked for.
    #[inline(always)]
    pub fn point(_name: &str) -> io::Result<()> {
        Ok(())
    }

    /// [`point`], named by the kind of the database and the act.
    #[inline(always)]
    pub(crate) fn database(_role: Role, _act: &str) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(not(feature = "test-faults"))]
pub(crate) use off::database;
#[cfg(not(feature = "test-faults"))]
pub use off::point;

#[cfg(all(feature = "test-faults", not(debug_assertions)))]
compile_error!(
    "the feature test-faults is for tests: build without it, or with the profile dev or ci"
);

#[cfg(feature = "test-faults")]
mod on {
    use std::collections::HashMap;
    use std::fs::OpenOptions;
    use std::io::{self, Write};
    use std::path::PathBuf;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, raise};

    use crate::store::Role;

    const VARIABLE: &str = "MCPIST_FAULTS";

    enum Order {
        Nothing,
        Record(PathBuf),
        Act { name: String, pass: u64, how: How },
    }

    #[derive(Clone, Copy)]
    enum How {
        Kill,
        Full,
        Eio,
        Hang,
    }

    /// What was asked for, and how often each point was passed.
    struct Faults {
        order: Order,
        passed: Mutex<HashMap<String, u64>>,
    }

    static FAULTS: LazyLock<Faults> = LazyLock::new(|| {
        let order = match std::env::var(VARIABLE) {
            Err(_) => Order::Nothing,
            Ok(text) => parse(&text).unwrap_or_else(|| {
                log::error!("{VARIABLE} is neither record:FILE nor NAME#N:kill|full|eio|hang");
                // A run that was to fail and does not proves nothing.
                std::process::abort()
            }),
        };
        Faults {
            order,
            passed: Mutex::default(),
        }
    });

    fn parse(text: &str) -> Option<Order> {
        if let Some(file) = text.strip_prefix("record:") {
            return Some(Order::Record(file.into()));
        }
        let (point, how) = text.rsplit_once(':')?;
        let (name, pass) = point.split_once('#')?;
        let how = match how {
            "kill" => How::Kill,
            "full" => How::Full,
            "eio" => How::Eio,
            "hang" => How::Hang,
            _ => return None,
        };
        Some(Order::Act {
            name: name.to_owned(),
            pass: pass.parse().ok().filter(|pass| *pass > 0)?,
            how,
        })
    }

    /// A place where the disk changes: counts, and does what was asked for at this place.
    ///
    /// # Errors
    /// ENOSPC or EIO, where that was asked for.
    pub fn point(name: &str) -> io::Result<()> {
        match &FAULTS.order {
            Order::Nothing => Ok(()),
            Order::Record(file) => {
                let mut file = OpenOptions::new().create(true).append(true).open(file)?;
                file.write_all(format!("{name}\n").as_bytes())
            }
            Order::Act {
                name: wanted,
                pass,
                how,
            } if wanted == name => {
                let mut passed = FAULTS.passed.lock().unwrap_or_else(PoisonError::into_inner);
                let count = passed.entry(name.to_owned()).or_default();
                *count += 1;
                let here = *count == *pass;
                drop(passed);
                if here { how.act(name) } else { Ok(()) }
            }
            Order::Act { .. } => Ok(()),
        }
    }

    impl How {
        fn act(self, name: &str) -> io::Result<()> {
            log::error!("fault at {name}");
            match self {
                How::Kill => raise(Signal::SIGKILL).map_err(io::Error::from),
                How::Full => Err(Errno::ENOSPC.into()),
                How::Eio => Err(Errno::EIO.into()),
                How::Hang => loop {
                    std::thread::park();
                },
            }
        }
    }

    /// [`point`], named by the kind of the database and the act.
    pub(crate) fn database(role: Role, act: &str) -> io::Result<()> {
        match role {
            Role::Control => point(&format!("control.{act}")),
            Role::Vault => point(&format!("vault.{act}")),
        }
    }
}

#[cfg(feature = "test-faults")]
pub(crate) use on::database;
#[cfg(feature = "test-faults")]
pub use on::point;
