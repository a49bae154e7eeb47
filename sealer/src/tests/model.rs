//! Random sequences of changes, failures and restarts against a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::groups::together;
use super::support::{Fail, Site, delete, file_name, put_if, read};
use crate::barrier::{Barrier, Unsealed};
use crate::batch::{Expect, Op};
use crate::error::VaultError;

#[derive(Debug, Clone)]
enum Step {
    Put {
        name: u8,
        expect: u8,
    },
    Delete {
        name: u8,
    },
    Both {
        put: u8,
        delete: u8,
    },
    Failing {
        name: u8,
        how: u8,
        control: bool,
    },
    /// One batch of one change each, of several writers; how the transaction fails, if it does.
    Group {
        parts: Vec<(u8, u8)>,
        how: Option<u8>,
        control: bool,
    },
    Settle,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5u8, 0..3u8).prop_map(|(name, expect)| Step::Put { name, expect }),
        2 => (0..5u8).prop_map(|name| Step::Delete { name }),
        2 => (0..5u8, 0..5u8).prop_map(|(put, delete)| Step::Both { put, delete }),
        2 => (0..5u8, 0..3u8, any::<bool>())
            .prop_map(|(name, how, control)| Step::Failing { name, how, control }),
        3 => (prop::collection::vec((0..3u8, 0..4u8), 2..7), prop::option::of(0..3u8), any::<bool>())
            .prop_map(|(parts, how, control)| Step::Group { parts, how, control }),
        1 => Just(Step::Settle),
        2 => Just(Step::Reopen),
    ]
}

/// What a vault must hold: names to version and payload; and the highest version that was deleted.
#[derive(Default, Clone)]
struct Model {
    records: BTreeMap<String, (u64, String)>,
    floor: u64,
}

impl Model {
    fn put(&mut self, name: &str, payload: &str) -> u64 {
        let version = self.records.get(name).map_or(self.floor, |record| record.0) + 1;
        self.records
            .insert(name.to_owned(), (version, payload.to_owned()));
        version
    }

    fn delete(&mut self, name: &str) -> Option<u64> {
        let (version, _) = self.records.remove(name)?;
        self.floor = self.floor.max(version);
        Some(version)
    }

    fn version(&self, name: &str) -> u64 {
        self.records.get(name).map_or(0, |record| record.0)
    }
}

/// One vault, its model, and a counter that makes payloads differ.
struct Run {
    site: Site,
    barrier: Option<Barrier<Unsealed>>,
    name: &'static str,
    model: Model,
    count: u32,
}

impl Run {
    fn vault(&self) -> crate::OpenVault {
        let barrier = self.barrier.as_ref().unwrap();
        if self.name == "system" {
            barrier.system()
        } else {
            barrier.vault(self.name).unwrap()
        }
    }

    fn commit(&mut self, ops: Vec<Op>, expected: impl FnOnce(&mut Model) -> Option<Vec<u64>>) {
        let mut after = self.model.clone();
        let versions = expected(&mut after);
        let result = self.vault().commit(ops);
        match (result, versions) {
            (Ok(committed), Some(versions)) => {
                assert_eq!(committed.versions, versions);
                self.model = after;
            }
            (Err(VaultError::Conflict { .. } | VaultError::NotFound(_)), None) => {}
            (Err(VaultError::Batch { .. }), None) => {}
            (result, versions) => panic!("{result:?} where the model has {versions:?}"),
        }
    }

    /// Several writers at once: each batch is judged as if those before it had been made.
    fn group(&mut self, parts: &[(u8, u8)], how: Option<Fail>, control: bool) {
        let (mut after, mut expected, mut batches) = (self.model.clone(), Vec::new(), Vec::new());
        for (number, (name, act)) in parts.iter().enumerate() {
            let (name, payload) = (format!("record {name}"), format!("{} {number}", self.count));
            let expect = match act {
                0 => Expect::Absent,
                1 => Expect::Version(2),
                _ => Expect::Any,
            };
            let found = after.version(&name);
            let refused = expect.check(&name, found).is_err();
            if *act == 3 {
                expected.push(after.delete(&name));
                batches.push(vec![delete(&name)]);
            } else {
                expected.push((!refused).then(|| after.put(&name, &payload)));
                batches.push(vec![put_if(&name, &payload, expect)]);
            }
        }
        let vault = self.vault();
        let writes = expected.iter().any(Option::is_some);
        let file = match control || self.name == "system" {
            true => "control.db".to_owned(),
            false => file_name(&vault),
        };
        let outcomes = together(&vault, batches, || {
            if let Some(how) = how.filter(|_| writes) {
                self.site.faults.fail_next(&file, how);
            }
        });
        let made = !writes || how.is_none_or(|how| how == Fail::Made);
        for (outcome, expected) in outcomes.into_iter().zip(expected) {
            match (outcome, expected) {
                (Ok(committed), Some(version)) if made => {
                    assert_eq!(committed.versions, [version]);
                }
                (Err(VaultError::Conflict { .. } | VaultError::NotFound(_)), None) if made => {}
                (Err(VaultError::Full(_)), _) if !made => {}
                (outcome, expected) => panic!("{outcome:?} where the model has {expected:?}"),
            }
        }
        if made {
            self.model = after;
        }
    }

    fn step(&mut self, step: &Step) {
        self.count += 1;
        let payload = format!("payload {}", self.count);
        let name = |n: u8| format!("record {n}");
        match *step {
            Step::Put { name: n, expect } => {
                let (n, found) = (name(n), self.model.version(&name(n)));
                let expect = match expect {
                    0 => Expect::Any,
                    1 => Expect::Absent,
                    _ => Expect::Version(2),
                };
                let fits = match expect {
                    Expect::Any => true,
                    Expect::Absent => found == 0,
                    Expect::Version(version) => found == version,
                };
                self.commit(vec![put_if(&n, &payload, expect)], |model| {
                    fits.then(|| vec![model.put(&n, &payload)])
                });
            }
            Step::Delete { name: n } => {
                self.commit(vec![delete(&name(n))], |model| {
                    Some(vec![model.delete(&name(n))?])
                });
            }
            Step::Both { put, delete: gone } => {
                let ops = vec![
                    put_if(&name(put), &payload, Expect::Any),
                    Op::Outbox(payload.clone().into_bytes()),
                    delete(&name(gone)),
                ];
                self.commit(ops, |model| {
                    let version = model.put(&name(put), &payload);
                    if put == gone {
                        return None;
                    }
                    Some(vec![version, model.delete(&name(gone))?])
                });
            }
            Step::Failing {
                name: n,
                how,
                control,
            } => {
                let how = [Fail::Put, Fail::Lost, Fail::Made][usize::from(how)];
                let control = control || self.name == "system";
                let vault = self.vault();
                let own = file_name(&vault);
                self.site
                    .faults
                    .fail_next(if control { "control.db" } else { &own }, how);
                let ops = vec![put_if(&name(n), &payload, Expect::Any)];
                match vault.commit(ops) {
                    Ok(_) if how == Fail::Made => drop(self.model.put(&name(n), &payload)),
                    Err(VaultError::Full(_)) if how != Fail::Made => {}
                    other => panic!("{other:?}"),
                }
            }
            Step::Group {
                ref parts,
                how,
                control,
            } => {
                let how = how.map(|how| [Fail::Put, Fail::Lost, Fail::Made][usize::from(how)]);
                self.group(parts, how, control);
            }
            Step::Settle => self.barrier.as_ref().unwrap().settle().unwrap(),
            Step::Reopen => {
                let sealed = self.site.seal(self.barrier.take().unwrap());
                let (barrier, report) = self.site.unseal_from(sealed);
                assert!(report.quarantined.is_empty() && report.unavailable.is_empty());
                self.barrier = Some(barrier);
            }
        }
    }

    fn compare(&self) {
        let vault = self.vault();
        let listed: BTreeMap<_, _> = vault
            .list(None)
            .unwrap()
            .into_iter()
            .map(|one| (one.name, one.meta.version))
            .collect();
        let expected: BTreeMap<_, _> = self
            .model
            .records
            .iter()
            .map(|(name, record)| (name.clone(), record.0))
            .collect();
        assert_eq!(listed, expected);
        for (name, (_, payload)) in &self.model.records {
            assert_eq!(&read(&vault, name).unwrap(), payload);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_vault_holds_what_a_map_holds(
        steps in prop::collection::vec(step(), 1..24),
        system in any::<bool>(),
    ) {
        let site = Site::new();
        let (barrier, _) = site.unseal();
        barrier.create_vault("prod", None).unwrap();
        let name = if system { "system" } else { "prod" };
        let mut run =
            Run { site, barrier: Some(barrier), name, model: Model::default(), count: 0 };
        for step in &steps {
            run.step(step);
            run.compare();
        }
        run.step(&Step::Reopen);
        run.compare();
    }
}
