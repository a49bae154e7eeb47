use bech32::{Bech32, Hrp};

use super::*;
use crate::fixtures::{again, share};

/// The generator of P-256 as a compressed point (SEC 2, section 2.4.2), as a hardware recipient.
fn tag_recipient() -> String {
    let point =
        hex::decode("036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296").unwrap();
    bech32::encode::<Bech32>(Hrp::parse("age1tag").unwrap(), &point).unwrap()
}

#[test]
fn a_share_reaches_its_holder() {
    let identity = Identity::generate();
    let file = seal_shares_to(&identity.recipient(), &share()).unwrap();
    assert!(
        file.starts_with("-----BEGIN AGE ENCRYPTED FILE-----\n"),
        "{file}"
    );
    assert!(
        file.trim_end()
            .ends_with("-----END AGE ENCRYPTED FILE-----"),
        "{file}"
    );
    assert!(!file.contains("mcpist-share"));
    let opened = open_share_file(&identity, file.as_bytes()).unwrap();
    assert_eq!(opened.digest(), share().digest());
}

#[test]
fn a_hardware_recipient_is_encrypted_to_and_opens_with_its_own_device_only() {
    let file = seal_shares_to(&tag_recipient(), &share()).unwrap();
    assert!(matches!(
        open_share_file(&Identity::generate(), file.as_bytes()),
        Err(OpenShareError::OtherRecipient)
    ));
}

#[test]
fn another_identity_does_not_open() {
    let file = seal_shares_to(&Identity::generate().recipient(), &share()).unwrap();
    let error = open_share_file(&Identity::generate(), file.as_bytes()).unwrap_err();
    assert!(matches!(error, OpenShareError::OtherRecipient));
}

#[test]
fn what_cannot_be_encrypted_to_is_named() {
    let secret = Identity::generate().to_text().unwrap();
    let secret = std::str::from_utf8(secret.expose()).unwrap().to_owned();
    for (text, expected) in [
        ("", RecipientError::Unknown),
        ("age1", RecipientError::Unknown),
        ("age1qqqqqq", RecipientError::Unknown),
        (
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA x",
            RecipientError::Ssh,
        ),
        ("age1yubikey1qqqq", RecipientError::Plugin),
        (&secret, RecipientError::Identity),
    ] {
        assert_eq!(check_recipient(text), Err(expected), "{text}");
        assert!(matches!(
            seal_shares_to(text, &share()),
            Err(DeliverError::Recipient(found)) if found == expected
        ));
    }
    assert_eq!(check_recipient(&tag_recipient()), Ok(()));
    let padded = format!(" {}", Identity::generate().recipient());
    assert_eq!(check_recipient(&padded), Err(RecipientError::Unknown));
}

#[test]
fn an_error_about_a_secret_key_does_not_repeat_it() {
    let secret = Identity::generate().to_text().unwrap();
    let text = std::str::from_utf8(secret.expose()).unwrap();
    let error = check_recipient(text).unwrap_err();
    assert!(!error.to_string().contains(&text[20..40]));
    let error = Identity::parse(&[secret.expose(), b"x"].concat()).unwrap_err();
    assert!(!error.to_string().contains(&text[20..40]));
}

#[test]
fn an_identity_reads_back_also_from_a_key_file() {
    let identity = Identity::generate();
    let text = identity.to_text().unwrap();
    let file = [
        b"# created: today\n# public key: x\n\n",
        text.expose(),
        b"\r\n",
    ]
    .concat();
    for bytes in [text.expose(), &file] {
        assert_eq!(
            Identity::parse(bytes).unwrap().recipient(),
            identity.recipient()
        );
    }
    let two = [text.expose(), b"\n", text.expose()].concat();
    let long = [b'A'; 300];
    for bytes in [
        b"".as_slice(),
        b"# nothing",
        b"age1qq",
        &[0xff],
        &two,
        &long,
    ] {
        assert!(matches!(
            Identity::parse(bytes),
            Err(IdentityError::NotIdentity)
        ));
    }
    assert!(!format!("{identity:?}").contains("SECRET"));
}

#[test]
fn what_is_no_share_file_is_named() {
    let identity = Identity::generate();
    let open = |bytes: &[u8]| open_share_file(&identity, bytes);
    assert!(matches!(open(b""), Err(OpenShareError::NotAge)));
    assert!(matches!(
        open(b"mcpist-share1"),
        Err(OpenShareError::NotAge)
    ));
    assert!(matches!(
        open(&[b'a'; MAX_SHARE_FILE + 1]),
        Err(OpenShareError::TooLong { found }) if found == MAX_SHARE_FILE + 1
    ));
    let file = seal_shares_to(&identity.recipient(), &again(&share())).unwrap();
    // The line end behind the last line may be missing, and nothing before it.
    for at in 0..file.trim_end().len() {
        assert!(open(&file.as_bytes()[..at]).is_err(), "cut at {at}");
    }
    assert!(open(file.trim_end().as_bytes()).is_ok());
    let recipient = x25519::Recipient::from_str(&identity.recipient()).unwrap();
    let other = age::encrypt_and_armor(&recipient, b"not a share").unwrap();
    assert!(matches!(
        open(other.as_bytes()),
        Err(OpenShareError::Share(ShareError::Prefix))
    ));
    let long = age::encrypt(&recipient, &[b' '; MAX_SHARE_TEXT + 100]).unwrap();
    assert!(matches!(
        open(&long),
        Err(OpenShareError::Share(ShareError::TooLong { .. }))
    ));
}
