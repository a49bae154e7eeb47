//! A retired registry serves those who have read it for a while, and its time ends.

use mcpist_core::api::RegistryState;
use mcpist_core::change::Change;
use mcpist_core::ids::RegistryId;

use super::site::{Site, run};
use crate::clock::steady_seconds;

/// Ten minutes in seconds.
const LIMIT: u64 = 600;

async fn states(site: &Site, ids: [RegistryId; 2]) -> [RegistryState; 2] {
    let registries = site.keeper.ask(|k| k.registries()).await.unwrap();
    let state = |id| registries.iter().find(|r| r.id == id).unwrap().state;
    ids.map(state)
}

/// The registries that the runner has modules of.
fn loaded(site: &Site) -> Vec<RegistryId> {
    let live = site.keeper.house.live().unwrap();
    live.registries().map(|(id, _)| *id).collect()
}

#[test]
fn a_retired_registry_drains_for_ten_minutes_at_most() {
    run(async {
        let site = Site::open().await;
        let old = site.import(&site.bundle(1, "")).await.unwrap().registry.id;
        let new = site.import(&site.bundle(2, "")).await.unwrap().registry.id;
        site.change(Change::RegistryActivate(old)).await.unwrap();
        site.change(Change::RegistryRetire(old)).await.unwrap();
        let began = steady_seconds();
        site.change(Change::RegistryActivate(new)).await.unwrap();
        let both = [RegistryState::Draining, RegistryState::Active];
        // Also after the policy was read anew, and for as long as the next tick can be away.
        site.inside(|k| k.read_anew().unwrap()).await;
        site.inside(move |k| k.end_drains(began + 60).unwrap())
            .await;
        assert_eq!(states(&site, [old, new]).await, both);
        assert_eq!(loaded(&site).len(), 2);
        let live = site.keeper.house.live().unwrap();
        let modules = live.mask.catalogue().modules();
        assert!(modules.iter().all(|m| m.rev().registry == new));

        let late = began + LIMIT - crate::keeper::TICK.as_secs();
        site.inside(move |k| k.end_drains(late).unwrap()).await;
        let over = [RegistryState::Retired, RegistryState::Active];
        assert_eq!(states(&site, [old, new]).await, over);
        assert_eq!(loaded(&site), [new]);
        site.inside(move |k| k.end_drains(late).unwrap()).await;

        // One that serves again does not drain, and a seal ends what does.
        site.change(Change::RegistryRetire(new)).await.unwrap();
        site.change(Change::RegistryActivate(old)).await.unwrap();
        site.change(Change::RegistryRetire(old)).await.unwrap();
        site.change(Change::RegistryActivate(new)).await.unwrap();
        assert_eq!(states(&site, [old, new]).await, both);
        site.keeper.seal(None, "a test").await.unwrap();
        let log = std::fs::read_to_string(site.state().join("audit/audit-00000000.jsonl")).unwrap();
        let drained = log.lines().filter(|l| l.contains("registry_drained"));
        assert_eq!(drained.count(), 1);
        site.unseal().await;
        assert_eq!(states(&site, [old, new]).await, over);
        assert_eq!(loaded(&site), [new]);
    });
}
