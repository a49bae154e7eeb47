//! Repairing a quarantined vault.
//!
//! Owns what the store remembers of repairs and restores of vaults, one record of the system vault for each former file that
//! was kept. Promises
//! that nothing is changed before a custodian gave the digest of what was found; that the file is read on a thread of its
//! own; that the commit which gives the survivors the vault's name carries that record and the audit line with what was
//! lost; and that the snapshot follows before the answer. Names what is lost where it can: of the names in a damaged file
//! nothing can be read, so those that bindings give are looked for.

use std::collections::{BTreeMap, BTreeSet};

use mcpist_core::api::{Alarm, ApiError, LostCredential, VaultFindings, VaultRepaired};
use mcpist_core::date::date;
use mcpist_core::error::ErrorCode;
use mcpist_core::event::Event;
use mcpist_core::ids::{CredentialName, Digest, PrincipalName, VaultName};
use mcpist_sealer::{Expect, Findings, Op, OpenVault, RecordKey, Repair, VaultError, Vaults};
use serde::{Deserialize, Serialize};

use super::backup::blocking;
use super::records::{self, RecordsError};
use super::vault_care::Running;
use super::{Keeper, KeeperHandle, Open, outbox_line, records_error, vault_error};
use crate::clock::unix_seconds;

/// Kind of the records, whose names end in the damaged file's id.
const KIND: &str = "repair";

/// A repair, or a restore, whose former file is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub(super) vault: VaultName,
    /// When, in seconds since 1970.
    pub(super) at: u64,
    /// Records that the vault has since.
    pub(super) records: u64,
    /// Records that were lost; none where no head said how many there were.
    pub(super) lost: Option<u64>,
    /// The backup that they are out of, where it was a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) backup: Option<Digest>,
}

/// Every repair and restore whose former file is kept, by the file's id.
#[derive(Default)]
pub(super) struct Repairs(pub(super) BTreeMap<String, Kept>);

impl Repairs {
    pub(super) fn read(system: &OpenVault) -> Result<Self, RecordsError> {
        let id = |name: &str| name.strip_prefix("repair/").map(str::to_owned);
        let found = records::all(system, KIND)?.into_iter();
        let kept = found.filter_map(|(name, _, kept)| Some((id(&name)?, kept?)));
        Ok(Self(kept.collect()))
    }

    pub(super) fn alarms(&self) -> impl Iterator<Item = Alarm> {
        self.0.iter().map(|(file, kept)| {
            let Kept { vault, at, records, .. } = kept;
            let lost = kept.lost.map_or_else(|| "an unknown number".to_owned(), |n| n.to_string());
            let date = date(*at);
            let what = match &kept.backup {
                None => format!("vault {vault} was repaired on {date}: {records} records were kept, {lost} lost"),
                Some(backup) => format!(
                    "vault {vault} was restored on {date}: it has the {records} records of backup {backup}, {lost} were lost",
                ),
            };
            Alarm {
                code: ErrorCode::VaultRepaired,
                message: format!(
                    "{what}; see what it lacks: mcpist credential list {vault}; its former file is kept as vaults/{file}.db until: mcpist vault discard {vault}"
                ),
            }
        })
    }
}

/// The write that remembers a former file, or that it is gone.
pub(super) fn op(file: &str, kept: Option<&Kept>) -> Result<Op, ApiError> {
    let name = format!("repair/{file}");
    records::put(KIND, name, kept, Expect::Any).map_err(|e| records_error(&e))
}

/// What a repair or a restore is done with.
pub(super) struct Ground {
    pub(super) vaults: Vaults,
    /// The credentials that bindings name.
    bound: BTreeSet<CredentialName>,
    /// The last row of the vault that the log has.
    pub(super) logged: u64,
    pub(super) running: Running,
}

impl Ground {
    fn asked(&self) -> Vec<RecordKey<'_>> {
        let names = self.bound.iter().map(CredentialName::as_str);
        names.map(|name| RecordKey { owner: None, name }).collect()
    }
}

impl KeeperHandle {
    /// Looks at what can be kept of a quarantined vault.
    pub(crate) async fn examine_vault(&self, vault: VaultName) -> Result<VaultFindings, ApiError> {
        let name = vault.clone();
        let ground = self.ask(move |keeper| keeper.repair_ground(&name)).await?;
        let name = vault.clone();
        let found = blocking(move || {
            let told = |read| ground.running.told(read);
            let found = ground.vaults.examine(name.as_str(), &ground.asked(), told);
            found.map_err(|e| refused(&name, &e))
        })
        .await?;
        Ok(shown(vault, &found))
    }

    /// Rebuilds a quarantined vault from what can be kept, if that is what `plan` was given for.
    pub(crate) async fn repair_vault(
        &self,
        uid: u32,
        vault: VaultName,
        plan: Digest,
    ) -> Result<VaultRepaired, ApiError> {
        let keeper = self.clone();
        // It goes on when who asked for it goes away.
        let whole = tokio::spawn(async move { keeper.repair_whole(uid, vault, plan).await });
        whole.await.map_err(|_| ApiError::of(ErrorCode::Internal))?
    }

    async fn repair_whole(
        &self,
        uid: u32,
        vault: VaultName,
        plan: Digest,
    ) -> Result<VaultRepaired, ApiError> {
        let name = vault.clone();
        let ground = self.ask(move |keeper| keeper.repair_ground(&name)).await?;
        let name = vault.clone();
        let (repair, running) = blocking(move || {
            let (digest, asked) = (*plan.as_bytes(), ground.asked());
            let (vaults, told) = (&ground.vaults, |read| ground.running.told(read));
            let built = vaults.repair(name.as_str(), digest, ground.logged, &asked, told);
            let built = built.map_err(|e| refused(&name, &e))?;
            Ok((built, ground.running))
        })
        .await?;
        self.ask(move |keeper| {
            let _running = running;
            keeper.repaired(uid, vault, repair)
        })
        .await
    }
}

impl Keeper {
    pub(super) fn repair_ground(&mut self, vault: &VaultName) -> Result<Ground, ApiError> {
        let open = self.open_for_change()?;
        Ok(Ground {
            running: open.begin_reading(vault)?,
            vaults: open.vaults().clone(),
            bound: open.bound(vault),
            logged: open.copied.logged(vault),
        })
    }

    /// Makes what was built the vault.
    fn repaired(
        &mut self,
        uid: u32,
        vault: VaultName,
        repair: Repair,
    ) -> Result<VaultRepaired, ApiError> {
        self.open_for_change()?;
        let findings = shown(vault.clone(), repair.findings());
        let file = repair.damaged().to_string();
        let kept = Kept {
            vault: vault.clone(),
            at: unix_seconds(),
            records: findings.kept,
            lost: findings.expected.map(|n| n.saturating_sub(findings.kept)),
            backup: None,
        };
        let event = Event::VaultRepaired {
            vault: &vault,
            file: &file,
            kept: findings.kept,
            damaged: findings.damaged,
            expected: findings.expected,
            sure: findings.sure,
            uid,
        };
        let ops = vec![op(&file, Some(&kept))?, Op::Outbox(outbox_line(&event))];
        let committed = repair.commit(ops);
        if committed.is_ok() {
            self.open()?.care.repairs.0.insert(file.clone(), kept);
        }
        let replaced = self.follow(committed)?;
        drop(replaced);
        log::warn!("vault {vault} was repaired; the damaged file is vaults/{file}.db");
        self.record_health();
        self.drain_system()?;
        Ok(VaultRepaired { file, findings })
    }

    /// Discards the damaged files of a vault's repairs.
    pub(crate) fn discard_damaged(&mut self, uid: u32, vault: &VaultName) -> Result<u64, ApiError> {
        let open = self.open_for_change()?;
        let kept = open.care.repairs.0.iter();
        let files: Vec<_> = kept
            .filter(|(_, kept)| kept.vault == *vault)
            .map(|(file, _)| file.clone())
            .collect();
        if files.is_empty() {
            return Err(vault_error(&VaultError::NotKept(vault.to_string())));
        }
        for file in &files {
            let open = self.open_for_change()?;
            let event = Event::DamagedDiscarded { vault, file, uid };
            let ops = vec![op(file, None)?, Op::Outbox(outbox_line(&event))];
            let discarded = open.vaults().discard(file, ops);
            discarded.map_err(|e| vault_error(&e))?;
            open.care.repairs.0.remove(file);
        }
        self.drain_system()?;
        Ok(files.len() as u64)
    }
}

impl Open {
    /// The credentials of a vault that bindings name.
    pub(super) fn bound(&self, vault: &VaultName) -> BTreeSet<CredentialName> {
        let bindings = self.policy.bindings.values();
        let of = bindings.filter(|binding| binding.vault == *vault);
        of.map(|binding| binding.credential.clone()).collect()
    }
}

fn refused(vault: &VaultName, error: &VaultError) -> ApiError {
    let said = vault_error(error);
    match error {
        VaultError::Moved(_) => said.next(&format!("mcpist vault repair {vault}")),
        VaultError::Gone => said.next(&format!("mcpist vault restore {vault} --from BACKUP")),
        VaultError::OwnQuorum(_) => ApiError::new(
            ErrorCode::Conflict,
            "the vault has a quorum of its own, without which nothing of it opens: a backup brings it back",
        )
        .next(&format!("mcpist vault restore {vault} --from BACKUP")),
        VaultError::NotQuarantined(_) => said.next(&format!("mcpist vault verify {vault}")),
        _ => said,
    }
}

fn shown(vault: VaultName, found: &Findings) -> VaultFindings {
    VaultFindings {
        vault,
        plan: Digest::from_bytes(found.digest),
        kept: found.kept,
        damaged: found.damaged,
        damaged_rows: found.damaged_rows.clone(),
        unreadable: found.unreadable,
        expected: found.expected,
        missing: found.missing(),
        sure: found.is_sure,
        lines: found.lines,
        lines_lost: found.lines_lost,
        lost: lost(&found.lost),
    }
}

/// Those of the records that are credentials.
pub(super) fn lost(records: &[(Option<String>, String)]) -> Vec<LostCredential> {
    let credential = |(owner, name): &(Option<String>, String)| {
        let owner = owner.as_deref().and_then(|o| PrincipalName::parse(o).ok());
        let name = CredentialName::parse(name).ok()?;
        Some(LostCredential { name, owner })
    };
    records.iter().filter_map(credential).collect()
}
