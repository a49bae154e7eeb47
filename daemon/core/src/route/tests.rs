#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use serde_json::json;

use super::*;
use crate::catalogue::tests::{catalogue, source};
use crate::mask::Mask;
use crate::principal::tests::principal;

fn mask(catalogue: Arc<Catalogue>) -> Mask {
    let grant = json!({"name": "g", "subject": {"principal": "alice"}, "module": "all", "tools": "all", "access": "read"});
    Mask::new(vec![serde_json::from_value(grant).unwrap()], catalogue)
}

fn visible(mask: &Mask) -> VisibleTool {
    mask.visible(&principal("alice", &[]), "web", "get")
        .unwrap()
}

#[test]
fn without_a_schema_ref_the_active_side_answers() {
    let now = catalogue(vec![source("r", "web", &[("get", "read")])]);
    let route = Route::choose(visible(&mask(now.clone())), None, &now).unwrap();
    assert_eq!(route.tool().rev(), now.tools()[0].rev());
    assert_eq!(route.principal().name().as_str(), "alice");
}

#[test]
fn the_schema_ref_of_now_is_taken_and_any_other_gets_the_new_schema() {
    let old = catalogue(vec![source("r", "web", &[("get", "read")])]);
    let now = catalogue(vec![source("s", "web", &[("get", "read")])]);
    let mask = mask(now.clone());
    let of_now = now.tools()[0].schema_ref();
    assert!(Route::choose(visible(&mask), Some(&of_now), &now).is_ok());
    // The same schema of another registry is another edition.
    let of_old = old.tools()[0].schema_ref();
    let error = Route::choose(visible(&mask), Some(&of_old), &now).unwrap_err();
    let RouteError::SchemaChanged { current } = error else {
        panic!("{error}")
    };
    assert_eq!(current.schema_ref(), of_now);
}

#[test]
fn a_mask_of_an_older_snapshot_leads_to_no_other_edition() {
    let old = catalogue(vec![source("r", "web", &[("get", "read")])]);
    let now = catalogue(vec![source("s", "web", &[("get", "read")])]);
    let error = Route::choose(visible(&mask(old.clone())), None, &now).unwrap_err();
    assert!(matches!(error, RouteError::SchemaChanged { .. }));
    let error = Route::choose(visible(&mask(old)), None, &Catalogue::default()).unwrap_err();
    assert!(matches!(error, RouteError::NoSide(_)));
}
