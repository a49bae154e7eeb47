//! The commands against swtpm, a TPM 2 in software: only a TPM says whether what is marshalled here by hand is one. It is
//! a Debian package that `.ci/tools` installs; without it these tests say so and end, but fail where `CI` is set.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;

const INDEX: u32 = 0x0180_4d50;

struct Swtpm {
    child: Child,
    folder: tempfile::TempDir,
}

impl Swtpm {
    fn start() -> Option<Swtpm> {
        let folder = tempfile::tempdir().unwrap();
        let child = launch(folder.path());
        let Ok(child) = child else {
            assert!(std::env::var_os("CI").is_none(), "swtpm is not installed");
            eprintln!("not tested: swtpm is not installed");
            return None;
        };
        let swtpm = Swtpm { child, folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(swtpm.folder.path().join("sock")).is_err() {
            assert!(Instant::now() < deadline, "swtpm does not listen");
            std::thread::yield_now();
        }
        Some(swtpm)
    }

    fn tpm(&self) -> Tpm {
        Tpm::new(self.folder.path().join("sock"), INDEX, true)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(folder: &Path) -> std::io::Result<Child> {
    let at = |name: &str| folder.join(name).display().to_string();
    Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .args(["--server", &format!("type=unixio,path={}", at("sock"))])
        .args(["--tpmstate", &format!("dir={}", folder.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn auth(byte: u8) -> Secret {
    Secret::copy_of(&[byte; AUTH_LEN]).unwrap()
}

#[test]
fn a_counter_is_made_read_and_raised_under_its_password_alone() {
    let Some(swtpm) = Swtpm::start() else { return };
    let tpm = swtpm.tpm();
    assert_eq!(tpm.public(), Err(TpmError::Missing(INDEX)));
    assert_eq!(tpm.read(&auth(1)), Err(TpmError::Missing(INDEX)));
    tpm.define(&auth(1)).unwrap();
    tpm.public().unwrap();
    assert_eq!(tpm.read(&auth(1)), Err(TpmError::Unwritten));
    tpm.raise(&auth(1)).unwrap();
    let first = tpm.read(&auth(1)).unwrap();
    tpm.raise(&auth(1)).unwrap();
    assert_eq!(tpm.read(&auth(1)), Ok(first + 1));
    tpm.public().unwrap();
    for _ in 0..40 {
        assert_eq!(tpm.read(&auth(2)), Err(TpmError::Password(INDEX)));
        assert_eq!(tpm.raise(&auth(2)), Err(TpmError::Password(INDEX)));
    }
    assert_eq!(tpm.read(&auth(1)), Ok(first + 1), "nobody locks it");
}

#[test]
fn a_device_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: PathBuf, socket| {
        let error = Tpm::new(path, INDEX, socket).public().unwrap_err();
        assert!(matches!(error, TpmError::Device { .. }), "{error}");
    };
    refused(folder.path().join("missing"), true);
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(file, true);
    let path = folder.path().join("sock");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    refused(path, false);
}

/// A TPM that answers every command with these bytes.
fn says(answer: &'static [u8]) -> Result<u64, TpmError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 256]);
            let _ = stream.write_all(answer);
        }
    });
    Tpm::new(path, INDEX, true).read(&auth(1))
}

#[test]
fn each_malformed_answer_is_refused() {
    let count = b"\x80\x02\0\0\0\x1d\0\0\0\0\0\0\0\x0a\0\x08\0\0\0\0\0\0\0\x07\0\0\x01\0\0";
    assert_eq!(says(count), Ok(7));
    for (what, answer) in [
        (
            "another tag",
            &b"\x80\x01\0\0\0\x1d\0\0\0\0\0\0\0\x0a\0\x08\0\0\0\0\0\0\0\x07\0\0\x01\0\0"[..],
        ),
        (
            "more parameters than one",
            b"\x80\x02\0\0\0\x1d\0\0\0\0\0\0\0\x0b\0\x08\0\0\0\0\0\0\0\x07\0\0\x01\0\0",
        ),
        (
            "a count of seven bytes",
            b"\x80\x02\0\0\0\x1c\0\0\0\0\0\0\0\x09\0\x07\0\0\0\0\0\0\x07\0\0\x01\0\0",
        ),
        ("a header alone", b"\x80\x02\0\0\0\x0a\0\0\0\0"),
        ("a length below the header's", b"\x80\x02\0\0\0\x06"),
    ] {
        assert_eq!(says(answer), Err(TpmError::Malformed), "{what}");
    }
    let code = b"\x80\x01\0\0\0\x0a\0\0\x01\x01";
    assert_eq!(says(code), Err(TpmError::Refused(0x101)));
    let busy = b"\x80\x01\0\0\0\x0a\0\0\x09\x22";
    assert_eq!(says(busy), Err(TpmError::Refused(0x922)), "not for ever");
    assert!(matches!(says(b"\x80"), Err(TpmError::Device { .. })));
}
