//! A vault whose last write a crash cut off, and one that does not answer.

use mcpist_core::api::{ShareOutcome, VaultHealth};
use mcpist_core::error::ErrorCode;
use mcpist_core::ids::VaultName;
use mcpist_sealer::Health;
use mcpist_secret::Secret;

use super::site::{Site, UID, run, wait_closed};
use crate::admin::shown;
use crate::keeper::{Keeper, records};

/// A store whose vault `main` was put back to the state before its last write, which control.db had announced.
async fn rewound() -> Site {
    let site = Site::open().await;
    site.put_credential().await;
    site.keeper.seal(None, "a test").await.unwrap();
    let vaults = site.state().join("store/vaults");
    wait_closed(&vaults);
    let file = std::fs::read_dir(&vaults).unwrap().next().unwrap().unwrap();
    let before = std::fs::read(file.path()).unwrap();
    site.unseal().await;
    // Nothing settles the write: the keys go at once, as in a crash.
    site.inside(|k| {
        let open = k.open().unwrap();
        let vault = open.vaults().vault("main").unwrap();
        let payload = Secret::copy_of(b"canary-the-next-0c5be1").unwrap();
        let name = "token".to_owned();
        let put = records::put_bytes("bearer", name, payload, mcpist_sealer::Expect::Any);
        vault.commit(vec![put.unwrap()]).unwrap();
        open.vaults().revoke();
        k.seal(None, "a test").unwrap();
    })
    .await;
    wait_closed(&vaults);
    std::fs::write(file.path(), before).unwrap();
    site
}

#[test]
fn a_missing_last_write_is_an_alarm_until_a_custodian_confirms_it() {
    run(async {
        let site = rewound().await;
        let main = VaultName::parse("main").unwrap();
        let outcome = site.give_share().await.unwrap();
        let ShareOutcome::Opened(opened) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(opened.last_write_missing, std::slice::from_ref(&main));
        let status = || shown(&site.keeper.house, &site.keeper.view(), Ok(None));
        let alarm = |code| status().alarms.iter().any(|alarm| alarm.code == code);
        assert!(alarm(ErrorCode::LastWriteMissing));
        let shown = status()
            .vaults
            .into_iter()
            .find(|v| v.name == main)
            .unwrap();
        assert!(shown.last_write_missing);
        assert_eq!(shown.health, VaultHealth::Ok);

        let name = main.clone();
        let confirm = move |k: &mut Keeper| k.confirm_last_write(UID, &name);
        site.keeper.ask(confirm.clone()).await.unwrap();
        assert!(!alarm(ErrorCode::LastWriteMissing));
        let again = site.keeper.ask(confirm).await;
        assert_eq!(again.unwrap_err().code, ErrorCode::NotFound);
        site.keeper.seal(None, "a test").await.unwrap();
        let lines = site.lines(&["last_write_missing"]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].contains(&UID.to_string()), "{lines:?}");
        site.unseal().await;
        assert!(!alarm(ErrorCode::LastWriteMissing));
    });
}

#[test]
fn a_vault_that_goes_or_comes_back_has_one_line_each_time() {
    run(async {
        let site = Site::open().await;
        site.put_credential().await;
        let main = VaultName::parse("main").unwrap();
        site.inside(move |k| {
            // As if it had been recorded as away.
            let away = Health::Unavailable;
            k.open().unwrap().health.insert(main, away);
            k.tick();
            k.tick();
        })
        .await;
        site.spoil_vaults().await;
        // Found at the unseal, which records it.
        site.unseal().await;
        site.inside(Keeper::tick).await;
        site.keeper.seal(None, "a test").await.unwrap();
        let count = |kind| site.lines(&[kind]).len();
        assert_eq!((count("vault_health"), count("vault_quarantined")), (1, 1));
    });
}
