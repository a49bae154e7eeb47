#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::access::Access;
use crate::catalogue::tests::{catalogue, source};
use crate::principal::tests::{principal, record};

const GROUPS: [&str; 3] = ["dev", "ops", "sec"];
const PRINCIPALS: [&str; 3] = ["alice", "bob", "dev"];
const MODULES: [&str; 3] = ["db", "web", "web-x"];
const TOOLS: [(&str, &str); 3] = [("get", "read"), ("put", "write"), ("wipe", "destructive")];

/// Every module with every tool, built once: compiling schemas is what costs.
fn full() -> Arc<Catalogue> {
    static FULL: LazyLock<Arc<Catalogue>> =
        LazyLock::new(|| catalogue(MODULES.iter().map(|m| source("r", m, &TOOLS)).collect()));
    FULL.clone()
}

fn grant(
    name: &str,
    subject: serde_json::Value,
    module: serde_json::Value,
    tools: serde_json::Value,
    access: &str,
) -> Grant {
    let value = json!({"name": name, "subject": subject, "module": module, "tools": tools, "access": access});
    serde_json::from_value(value).unwrap()
}

/// Every tool with its module, as the mask lists them.
fn seen(mask: &Mask, principal: &Principal) -> Vec<(String, String)> {
    mask.list(principal)
        .iter()
        .map(|t| (t.module().to_string(), t.name().to_string()))
        .collect()
}

#[test]
fn without_a_grant_nothing_exists() {
    let mask = Mask::new(Vec::new(), full());
    let alice = principal("alice", &["dev"]);
    assert!(mask.list(&alice).is_empty());
    assert!(mask.visible(&alice, "web", "get").is_none());
    let empty = grant(
        "g",
        json!({"principal": "alice"}),
        json!("all"),
        json!({"named": []}),
        "destructive",
    );
    assert!(Mask::new(vec![empty], full()).list(&alice).is_empty());
}

#[test]
fn a_group_and_a_principal_of_one_name_are_not_confused() {
    let to_group = grant(
        "g",
        json!({"group": "dev"}),
        json!("all"),
        json!("all"),
        "read",
    );
    let mask = Mask::new(vec![to_group], full());
    assert!(mask.list(&principal("dev", &[])).is_empty());
    assert_eq!(mask.list(&principal("alice", &["dev"])).len(), 3);
}

#[test]
fn unknown_and_forbidden_answer_alike() {
    let only_get = grant(
        "g",
        json!({"principal": "alice"}),
        json!({"named": "web"}),
        json!({"named": ["get"]}),
        "read",
    );
    let mask = Mask::new(vec![only_get], full());
    let alice = principal("alice", &[]);
    assert!(mask.visible(&alice, "web", "get").is_some());
    for (module, tool) in [
        ("web", "put"),
        ("db", "get"),
        ("web", "no"),
        ("no", "get"),
        ("", ""),
        ("web/get", ""),
        ("WEB", "get"),
    ] {
        assert!(
            mask.visible(&alice, module, tool).is_none(),
            "{module}/{tool}"
        );
    }
}

#[test]
fn a_visible_tool_carries_its_principal() {
    let all = grant(
        "g",
        json!({"group": "ops"}),
        json!("all"),
        json!("all"),
        "destructive",
    );
    let mask = Mask::new(vec![all], full());
    let bob = principal("bob", &["ops"]);
    let visible = mask.visible(&bob, "db", "wipe").unwrap();
    assert_eq!(visible.principal(), &bob);
    assert_eq!(visible.tool().name().as_str(), "wipe");
}

#[test]
fn an_explanation_names_grants_and_near_misses() {
    let catalogue = full();
    let mask = Mask::new(
        vec![
            grant(
                "yes",
                json!({"group": "ops"}),
                json!({"named": "web"}),
                json!("all"),
                "write",
            ),
            grant(
                "low",
                json!({"principal": "bob"}),
                json!("all"),
                json!("all"),
                "read",
            ),
            grant(
                "else",
                json!({"principal": "alice"}),
                json!("all"),
                json!("all"),
                "write",
            ),
            grant(
                "far",
                json!({"principal": "alice"}),
                json!({"named": "db"}),
                json!("all"),
                "write",
            ),
        ],
        catalogue,
    );
    let explained = mask.explain(&record("bob", &["ops"], &[]), "web", "put");
    assert!(explained.loaded && explained.visible);
    assert_eq!(
        explained
            .granted_by
            .iter()
            .map(|g| g.as_str())
            .collect::<Vec<_>>(),
        ["yes"]
    );
    let misses: Vec<_> = explained
        .near_misses
        .iter()
        .map(|m| (m.grant.as_str(), m.lacks))
        .collect();
    assert_eq!(misses, [("low", Lack::Access), ("else", Lack::Subject)]);
    let unknown = mask.explain(&record("bob", &["ops"], &[]), "web", "no");
    assert!(!unknown.loaded && !unknown.visible && unknown.near_misses.is_empty());
}

fn any_grant() -> impl Strategy<Value = Grant> {
    let subject = (any::<bool>(), 0..3_usize).prop_map(|(group, i)| {
        if group {
            json!({"group": GROUPS[i]})
        } else {
            json!({"principal": PRINCIPALS[i]})
        }
    });
    let module = prop::option::of(0..3_usize)
        .prop_map(|m| m.map_or(json!("all"), |i| json!({"named": MODULES[i]})));
    let tools = prop::option::of(prop::collection::vec(0..3_usize, 0..3)).prop_map(|t| {
        t.map_or(
            json!("all"),
            |list| json!({"named": list.iter().map(|i| TOOLS[*i].0).collect::<Vec<_>>()}),
        )
    });
    let access = prop::sample::select(vec!["read", "write", "destructive"]);
    (subject, module, tools, access).prop_map(|(s, m, t, a)| grant("g", s, m, t, a))
}

/// The rules in their plainest form.
fn model(
    grants: &[Grant],
    name: &str,
    groups: &[&str],
    module: &str,
    tool: &str,
    access: Access,
) -> bool {
    grants.iter().any(|g| {
        let g = serde_json::to_value(g).unwrap();
        let subject =
            g["subject"]["principal"] == name || groups.iter().any(|x| g["subject"]["group"] == *x);
        let module = g["module"] == "all" || g["module"]["named"] == module;
        let tools = g["tools"] == "all"
            || g["tools"]["named"]
                .as_array()
                .unwrap()
                .iter()
                .any(|t| t == tool);
        subject
            && module
            && tools
            && access <= Access::parse(g["access"].as_str().unwrap()).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_principal_sees_exactly_what_the_model_says(
        grants in prop::collection::vec(any_grant(), 0..6),
        who in 0..3_usize,
        groups in prop::sample::subsequence(GROUPS.to_vec(), 0..=3),
    ) {
        let mask = Mask::new(grants.clone(), full());
        let asker = principal(PRINCIPALS[who], &groups);
        let listed = seen(&mask, &asker);
        let mut expected = Vec::new();
        for module in MODULES {
            for (tool, access) in TOOLS {
                let shown = model(&grants, PRINCIPALS[who], &groups, module, tool, Access::parse(access).unwrap());
                prop_assert_eq!(mask.visible(&asker, module, tool).is_some(), shown);
                let explained = mask.explain(&record(PRINCIPALS[who], &groups, &[]), module, tool);
                prop_assert_eq!(explained.visible, shown);
                if shown {
                    expected.push((module.to_owned(), tool.to_owned()));
                }
            }
        }
        prop_assert_eq!(listed, expected);
    }

    #[test]
    fn one_more_grant_hides_nothing(
        grants in prop::collection::vec(any_grant(), 0..5),
        extra in any_grant(),
        who in 0..3_usize,
        groups in prop::sample::subsequence(GROUPS.to_vec(), 0..=3),
    ) {
        let asker = principal(PRINCIPALS[who], &groups);
        let before = seen(&Mask::new(grants.clone(), full()), &asker);
        let after = seen(&Mask::new([grants, vec![extra]].concat(), full()), &asker);
        prop_assert!(before.iter().all(|tool| after.contains(tool)));
    }

    #[test]
    fn a_grant_within_another_shows_no_more(
        wide in any_grant(),
        narrow in any_grant(),
        who in 0..3_usize,
        groups in prop::sample::subsequence(GROUPS.to_vec(), 0..=3),
    ) {
        if narrow.within(&wide) {
            let asker = principal(PRINCIPALS[who], &groups);
            let wide = seen(&Mask::new(vec![wide], full()), &asker);
            let narrow = seen(&Mask::new(vec![narrow], full()), &asker);
            prop_assert!(narrow.iter().all(|tool| wide.contains(tool)));
        }
    }
}

#[test]
fn more_subjects_than_one_word_has_bits_are_told_apart() {
    let grants: Vec<Grant> = (0..130)
        .map(|i| {
            grant(
                "g",
                json!({"principal": format!("p{i}")}),
                json!({"named": MODULES[i % 3]}),
                json!("all"),
                "read",
            )
        })
        .collect();
    let mask = Mask::new(grants, full());
    for i in 0..130 {
        let listed = seen(&mask, &principal(&format!("p{i}"), &[]));
        assert_eq!(listed, [(MODULES[i % 3].to_owned(), "get".to_owned())]);
    }
}
