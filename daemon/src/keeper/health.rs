//! Vaults that stop answering, answer again or fail while the store is open.
//!
//! Promises that each such change has its line in the audit log within a tick of the keeper, or of the log's taking lines
//! again. Does not look at the disk: a vault's own work finds out.

use std::collections::BTreeMap;
use std::sync::Arc;

use mcpist_core::event::Event;
use mcpist_core::ids::VaultName;
use mcpist_sealer::Health;

use super::Keeper;

/// How each vault was when that was last recorded; one that is not here was well.
pub(super) type Recorded = BTreeMap<VaultName, Health>;

impl Keeper {
    /// Records what has changed.
    pub(super) fn record_health(&mut self) {
        let house = Arc::clone(&self.house);
        let Ok(open) = self.open() else { return };
        for status in open.barrier.vaults() {
            let Ok(vault) = VaultName::parse(&status.name) else {
                continue;
            };
            let before = open.health.get(&vault).unwrap_or(&Health::Ok);
            let Some(event) = change(&vault, before, &status.health) else {
                continue;
            };
            if house.audit.append(&event).is_ok() {
                open.health.insert(vault, status.health);
            }
        }
    }
}

fn change<'a>(vault: &'a VaultName, before: &Health, now: &'a Health) -> Option<Event<'a>> {
    if before == now {
        return None;
    }
    match now {
        Health::Ok => Some(Event::VaultHealth {
            vault,
            available: true,
        }),
        Health::Unavailable => Some(Event::VaultHealth {
            vault,
            available: false,
        }),
        Health::Quarantined(reason) => Some(Event::VaultQuarantined { vault, reason }),
        Health::Sealed => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_of_an_open_vault_is_recorded() {
        let vault = VaultName::parse("main").unwrap();
        let quarantined = Health::Quarantined("a test".into());
        let kind = |before: &Health, now: &Health| change(&vault, before, now).map(|e| e.name());
        assert_eq!(kind(&Health::Ok, &Health::Ok), None);
        assert_eq!(kind(&Health::Ok, &Health::Sealed), None);
        assert_eq!(kind(&quarantined, &quarantined), None);
        assert_eq!(
            kind(&Health::Ok, &Health::Unavailable),
            Some("vault_health")
        );
        assert_eq!(
            kind(&Health::Unavailable, &Health::Ok),
            Some("vault_health")
        );
        assert_eq!(kind(&Health::Ok, &quarantined), Some("vault_quarantined"));
    }
}
