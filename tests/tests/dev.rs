//! `mcpist dev`: what a developer's site keeps from one run to the next, and from one module to the next.
#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use mcpist_tests::look;
use mcpist_tests::programs::{cli, workspace};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A development site in a folder.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.path("said")).unwrap_or_default()
    }

    /// Runs the site with a module until that serves, and does `act` meanwhile.
    fn run(&self, module: &Path, act: impl FnOnce()) {
        let out = std::fs::File::create(self.path("said")).unwrap();
        let dev = cli()
            .arg("dev")
            .arg(self.path("site"))
            .arg("--module")
            .arg(module)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn();
        let mut dev = Ended(dev.unwrap());
        look::until(
            "the module",
            || self.said(),
            || self.said().contains("serves as registry") || dev.0.try_wait().unwrap().is_some(),
        );
        assert!(
            self.said().contains("serves as registry"),
            "{}",
            self.said()
        );
        act();
    }

    /// What `mcpist` answers there, as JSON.
    fn ask(&self, arguments: &[&str]) -> Value {
        let out = cli()
            .arg("--run")
            .arg(self.path("site/run"))
            .args(["--output", "json"])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success(), "{text}{}", self.said());
        serde_json::from_str::<Value>(&text).unwrap()["data"].clone()
    }
}

/// A process that is told to end, and waited for, when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_site_keeps_its_modules_side_by_side_and_mends_its_principal() {
    let site = Site {
        folder: tempfile::tempdir().unwrap(),
    };
    let echo = workspace().join("tests/fixtures/echo");
    let other = site.path("other");
    std::fs::create_dir_all(other.join("schemas")).unwrap();
    for file in std::fs::read_dir(echo.join("schemas")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), other.join("schemas").join(file.file_name())).unwrap();
    }
    let text = std::fs::read_to_string(echo.join("module.toml")).unwrap();
    let renamed = text.replacen("name = \"echo\"", "name = \"other\"", 1);
    std::fs::write(other.join("module.toml"), renamed).unwrap();

    site.run(&echo, || {
        // As after a first start that was cut off before it made the principal.
        site.ask(&["principal", "delete", "dev"]);
    });
    site.run(&other, || {
        let principals = site.ask(&["principal", "list"]);
        assert_eq!(principals["principals"][0]["name"], "dev", "{principals}");
        let registries = site.ask(&["registry", "list"]);
        let mut active: Vec<_> = registries["registries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| {
                (
                    r["modules"][0].as_str().unwrap(),
                    r["state"].as_str().unwrap(),
                )
            })
            .collect();
        active.sort_unstable();
        assert_eq!(active, [("echo", "active"), ("other", "active")]);
    });
    // A module that is published again takes its own place.
    site.run(&other, || {
        let registries = site.ask(&["registry", "list"]);
        let states = registries["registries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["state"].as_str().unwrap());
        assert_eq!(states.filter(|s| *s == "active").count(), 2, "{registries}");
    });
}
