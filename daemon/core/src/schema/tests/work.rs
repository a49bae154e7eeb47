//! What matching may cost, whatever the schema and the value.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jsonschema::{Draft, Keyword, ValidationError};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::shape;
use super::{compile, refused};

/// An object schema whose property `a` is `$defs/n`, which may refer to itself.
fn recursive(n: &Value) -> Value {
    json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": n}})
}

fn again() -> Value {
    json!({"$ref": "#/$defs/n"})
}

/// `levels` arrays, or objects with the member `b`, within each other.
fn nested(levels: usize, array: bool) -> Value {
    (0..levels).fold(json!(1), |inner, _| {
        if array {
            json!([inner])
        } else {
            json!({"b": inner})
        }
    })
}

#[test]
fn a_recursion_that_doubles_on_one_part_is_refused() {
    let items = json!({"items": again()});
    let member = json!({"properties": {"b": again()}});
    for n in [
        json!({"allOf": [items, items]}),
        json!({"anyOf": [items, items]}),
        json!({"oneOf": [items, member]}),
        json!({"allOf": [items], "anyOf": [items]}),
        json!({"not": items, "items": again()}),
        json!({"if": items, "then": items}),
        json!({"if": items, "else": items}),
        json!({"dependentSchemas": {"b": member}, "properties": {"b": again()}}),
        json!({"dependentSchemas": {"b": member, "c": member}}),
        json!({"items": again(), "contains": again()}),
        json!({"prefixItems": [again()], "contains": again()}),
        json!({"patternProperties": {"b": again(), "^b": again()}}),
        json!({"patternProperties": {"b": again()}, "properties": {"b": again()}}),
        json!({"patternProperties": {"b": again()}, "additionalProperties": again()}),
        json!({"propertyNames": again(), "additionalProperties": again()}),
        json!({"$ref": "#/$defs/n/properties/c", "properties": {"b": again(), "c": member}}),
        json!({"anyOf": [{"items": {"allOf": [items, {"items": items}]}}]}),
    ] {
        assert!(refused(&recursive(&n)).contains("work"), "{n}");
    }
}

#[test]
fn a_recursion_into_parts_that_differ_is_taken_and_cheap_at_any_depth() {
    for n in [
        json!({"properties": {"b": again(), "left": again(), "right": again()}}),
        json!({"properties": {"left": again()}, "additionalProperties": again()}),
        json!({"prefixItems": [again(), again()], "items": again()}),
        json!({"anyOf": [{"type": ["null", "integer"]}, {"items": again(), "properties": {"b": again()}}]}),
        json!({"items": {"anyOf": [{"type": "string"}, {"type": "integer"}, again()]}}),
    ] {
        let schema = compile(&recursive(&n)).unwrap();
        for array in [true, false] {
            // 63 levels are what the scan lets through.
            let _ = schema.check(&json!({"a": nested(62, array)}));
        }
        assert!(shape::check(&recursive(&n)).unwrap() < 16, "{n}");
    }
}

#[test]
fn references_that_unfold_without_end_are_refused() {
    let mut defs = serde_json::Map::new();
    for level in 0..40 {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        let next = json!({"items": next});
        defs.insert(format!("d{level}"), json!({"allOf": [next, next]}));
    }
    defs.insert("d40".to_owned(), json!({}));
    let text = refused(
        &json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs}),
    );
    assert!(text.contains("work"), "{text}");
}

#[test]
fn keywords_that_are_weighed_nowhere_are_refused() {
    for n in [
        json!({"unevaluatedProperties": false}),
        json!({"unevaluatedItems": again()}),
        json!({"dependencies": {"b": again()}}),
        json!({"additionalItems": again()}),
        json!({"contentSchema": again()}),
    ] {
        assert!(refused(&recursive(&n)).contains("not taken"), "{n}");
    }
}

#[test]
fn more_values_than_the_schema_leaves_work_for_are_refused() {
    let branch = json!({"type": "integer"});
    let schema = compile(&json!({
        "type": "object", "properties": {"a": {"items": {"allOf": vec![branch; 1000]}}}
    }))
    .unwrap();
    assert_eq!(schema.check(&json!({"a": [1, 2, 3]})), Ok(()));
    let violation = schema.check(&json!({"a": vec![1; 100_000]})).unwrap_err();
    assert!(violation.rule.contains("work"), "{violation}");

    let list: Vec<Value> = (0..30_000).map(|n| json!([n])).collect();
    let schema = compile(&json!({
        "type": "object", "properties": {"a": {"items": {"enum": list}}}
    }))
    .unwrap();
    assert_eq!(schema.check(&json!({"a": [[0], [29_999]]})), Ok(()));
    let violation = schema
        .check(&json!({"a": vec![json!([]); 80_000]}))
        .unwrap_err();
    assert!(violation.rule.contains("work"), "{violation}");
}

/// An object schema with the property `a`, and what it says to `{"a": value}`.
fn told(a: &Value, value: &Value) -> String {
    let schema = compile(&json!({"type": "object", "properties": {"a": a}})).unwrap();
    let checked = schema.check(&json!({"a": value}));
    checked.map_or_else(|violation| violation.rule, |()| "fine".to_owned())
}

/// Objects within each other, with the members in one order or the other: the engine compares what
/// is in them twice at each level where the orders differ.
fn twisted(levels: usize, other: bool) -> Value {
    (0..levels).fold(json!(1), |inner, _| {
        if other {
            json!({"a": inner, "c": 1, "b": 1})
        } else {
            json!({"a": inner, "b": 1, "c": 1})
        }
    })
}

#[test]
fn unique_items_cost_no_more_than_their_size() {
    let unique = json!({"type": "array", "uniqueItems": true});
    // All of these hash alike in the engine.
    let lists: Vec<Value> = (0..20_000)
        .map(|n| Value::Array(vec![json!([]); n % 3 + 1]))
        .chain((0..300).map(|n| Value::Array(vec![json!([]); n + 4])))
        .collect();
    assert!(told(&unique, &json!(lists)).contains("too large"));
    let large: Vec<u64> = (0..20_000).map(|n| (1 << 63) + n).collect();
    assert_eq!(told(&unique, &json!(large)), "fine");
    assert_eq!(told(&unique, &json!([twisted(60, false), 1])), "fine");
    let same = json!([twisted(60, false), twisted(60, true)]);
    assert!(told(&unique, &same).contains("non-unique"));

    let often = json!({"allOf": vec![unique.clone(); 100]});
    let ids: Vec<String> = (0..100).map(|n| format!("id-{n}")).collect();
    assert_eq!(told(&often, &json!(ids)), "fine");
    assert!(told(&often, &json!(large)).contains("work"));
    // At each level again, with nearly all of the value below it.
    let below = (0..60).fold(json!(large), |inner, _| json!([inner]));
    let again = recursive(&json!({"uniqueItems": true, "items": again()}));
    let violation = compile(&again)
        .unwrap()
        .check(&json!({"a": below}))
        .unwrap_err();
    assert!(violation.rule.contains("work"), "{violation}");
}

#[test]
fn unique_items_are_compared_as_json_schema_says() {
    let unique = json!({"uniqueItems": true});
    for same in [
        json!([1, 1.0]),
        json!([0, -0.0]),
        json!([1e19, 10_000_000_000_000_000_000_u64]),
        json!([[{"a": 1, "b": [2]}], [{"b": [2.0], "a": 1}]]),
        json!(["x", "x"]),
    ] {
        assert!(told(&unique, &same).contains("non-unique"), "{same}");
        assert_eq!(told(&json!({"uniqueItems": false}), &same), "fine");
    }
    for apart in [
        json!([1, "1", [1], {"1": 1}, true, "true", null, "null"]),
        json!([[], [[]], [[], []], [[[]]], {}, "", [""]]),
        json!([{"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a,b": 1}, {"a": {"b": 1}}]),
        json!(["a,", ["a", ""], "a\",\""]),
        json!([
            1,
            1.5,
            1e300,
            2e300,
            9_007_199_254_740_993_u64,
            9_007_199_254_740_992_u64
        ]),
        json!({"not": "an array"}),
    ] {
        assert_eq!(told(&unique, &apart), "fine", "{apart}");
    }
}

#[test]
fn a_pattern_costs_as_its_size_for_the_text_that_it_is_matched_with() {
    let bits = "10".repeat(100_000);
    let states = json!({"pattern": "1[01]{400}2"});
    assert!(told(&states, &json!(bits)).contains("work"));
    assert!(told(&json!({"pattern": "1[01]{40}2"}), &json!(bits)).contains("work"));
    assert!(told(&json!({"not": states}), &json!(bits)).contains("work"));
    assert!(
        told(
            &json!({"items": {"pattern": "1[01]{400}2|10"}}),
            &json!(vec!["10"; 20_000])
        )
        .contains("work")
    );
    assert!(told(&states, &json!("10")).contains("does not match"));

    let base64 = json!({"pattern": "^[A-Za-z0-9+/=]*$"});
    assert_eq!(told(&base64, &json!("A".repeat(4_000_000))), "fine");
    // A long text beside one with a large pattern costs nothing by it.
    let label = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
    let mail = json!({"properties": {
        "host": {"pattern": format!("^({label}\\.)*{label}$")}, "body": {"type": "string"},
    }});
    let long = json!({"host": "www.acme.example", "body": "x".repeat(1_000_000)});
    assert_eq!(told(&mail, &long), "fine");
    assert!(told(&mail, &json!({"host": "-"})).contains("does not match"));

    let names = json!({"patternProperties": {"1[01]{400}2": {}}});
    assert_eq!(told(&names, &json!({"10": 1})), "fine");
    assert!(told(&names, &json!({bits: 1})).contains("work"));
}

#[test]
fn what_a_schema_spells_out_is_weighed() {
    let long = "n".repeat(30_000);
    let wide: serde_json::Map<String, Value> =
        (0..20).map(|n| (format!("m{n}"), json!(n))).collect();
    for n in [
        json!({"required": [long]}),
        json!({"dependentRequired": {"m1": [long]}}),
        json!({"properties": {long.clone(): {}}}),
    ] {
        let many = vec![json!(wide); 1000];
        assert!(told(&json!({"items": n}), &json!(many)).contains("work"));
    }
}

#[test]
fn a_deep_value_to_compare_with_is_refused() {
    for n in [
        json!({"const": twisted(60, false)}),
        json!({"enum": [1, twisted(4, false)]}),
    ] {
        assert!(refused(&recursive(&n)).contains("deeply"), "{n}");
    }
    compile(&recursive(
        &json!({"enum": [[1, {"a": 1}], null], "const": [[{"a": {}}]]}),
    ))
    .unwrap();
}

#[test]
fn lists_that_the_meta_schema_compares_hold_texts() {
    let twins = json!([twisted(40, false), twisted(40, true)]);
    for n in [
        json!({"required": twins}),
        json!({"type": twins}),
        json!({"dependentRequired": {"a": twins}}),
        json!({"properties": {"a": {"$defs": {"unused": {"required": twins}}}}}),
    ] {
        let text = refused(&recursive(&n));
        assert!(text.contains("no text"), "{text}");
    }
}

#[test]
fn a_mismatch_in_a_large_value_is_told_on_the_whole() {
    let branches: Vec<Value> = (0..20)
        .map(|_| json!({"items": {"type": "string"}}))
        .collect();
    let schema =
        compile(&json!({"type": "object", "properties": {"a": {"anyOf": branches}}})).unwrap();
    let near = schema.check(&json!({"a": [1]})).unwrap_err();
    assert_eq!(near.path.as_str(), "/a");
    let far = schema.check(&json!({"a": vec![1; 100_000]})).unwrap_err();
    assert!(
        far.path.as_str().is_empty() && far.rule.contains("too large"),
        "{far}"
    );
}

#[test]
fn nesting_on_one_part_is_bounded_and_what_is_taken_fits_the_stack() {
    let deep = |levels: usize| {
        let inner = json!({"items": again()});
        recursive(&(1..levels).fold(inner, |inner, _| json!({"anyOf": [inner]})))
    };
    // `items` refers back, so that each level begins with a reference and has 16 on it.
    let schema = compile(&deep(15)).unwrap();
    assert_eq!(schema.check(&json!({"a": nested(62, true)})), Ok(()));
    assert!(refused(&deep(16)).contains("nesting"));
}

#[test]
fn a_chain_of_references_as_long_as_a_schema_can_be_costs_no_stack() {
    for join in ["properties", "items"] {
        let defs: serde_json::Map<String, Value> = (0..3000)
            .map(|level| {
                let next = json!({"$ref": format!("#/$defs/{}", level + 1)});
                let next = if join == "items" {
                    next
                } else {
                    json!({"b": next, "c": next})
                };
                (level.to_string(), json!({join: next}))
            })
            .chain([("3000".to_owned(), json!({}))])
            .collect();
        let schema = json!({
            "type": "object", "properties": {"a": {"$ref": "#/$defs/0"}}, "$defs": defs
        });
        let schema = compile(&schema).unwrap();
        let _ = schema.check(&json!({"a": nested(62, join == "items")}));
    }
}

#[test]
fn subschemas_are_counted() {
    let with = |count: usize| json!({"type": "object", "prefixItems": vec![json!({}); count]});
    compile(&with(9_999)).unwrap();
    assert!(refused(&with(10_000)).contains("subschemas"));
    assert!(refused(&with(80_000)).contains("subschemas"));
}

#[test]
fn patterns_are_counted() {
    let with = |count: usize| {
        let properties: serde_json::Map<String, Value> = (0..count)
            .map(|n| (format!("p{n}"), json!({"pattern": "^a$"})))
            .collect();
        json!({"type": "object", "properties": properties})
    };
    compile(&with(64)).unwrap();
    assert!(refused(&with(65)).contains("patterns"));
}

/// How often each value was looked at, by its address.
type Counts = Arc<Mutex<BTreeMap<usize, u64>>>;

struct Counter(Counts);

impl<'i> Keyword<'i> for Counter {
    fn validate(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        self.is_valid(value);
        Ok(())
    }
    fn is_valid(&self, value: &'i Value) -> bool {
        let address = std::ptr::from_ref(value) as usize;
        *self.0.lock().unwrap().entry(address).or_default() += 1;
        true
    }
}

/// A subschema with the keyword `count` in it and in all below, referring to three definitions.
fn subschema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"count": true})),
        (0..3).prop_map(|n| json!({"count": true, "$ref": format!("#/$defs/{n}")})),
    ];
    leaf.prop_recursive(3, 10, 2, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            list.clone()
                .prop_map(|l| json!({"count": true, "allOf": l})),
            list.clone()
                .prop_map(|l| json!({"count": true, "oneOf": l})),
            list.clone()
                .prop_map(|l| json!({"count": true, "prefixItems": l})),
            inner
                .clone()
                .prop_map(|s| json!({"count": true, "items": s})),
            inner.clone().prop_map(
                |s| json!({"count": true, "contains": s, "items": {"count": true, "not": s}})
            ),
            inner
                .clone()
                .prop_map(|s| json!({"count": true, "additionalProperties": s})),
            inner
                .clone()
                .prop_map(|s| json!({"count": true, "patternProperties": {"b": s}})),
            (inner.clone(), inner.clone(), inner).prop_map(
                |(i, t, p)| json!({"count": true, "if": i, "then": t, "properties": {"b": p}})
            ),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What is taken applies no more subschemas to any part than is promised, counted by the engine.
    #[test]
    fn no_part_of_a_value_is_looked_at_more_often_than_the_bound(
        defs in prop::collection::vec(subschema(), 3),
    ) {
        let schema = json!({
            "type": "object", "count": true,
            "properties": {
                "a": {"count": true, "$ref": "#/$defs/0"},
                "b": {"count": true, "$ref": "#/$defs/1"},
            },
            "$defs": {"0": defs[0], "1": defs[1], "2": defs[2]},
        });
        let Ok(applied) = shape::check(&schema) else { return Ok(()); };
        let counts = Counts::default();
        let counter = Arc::clone(&counts);
        let engine = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_keyword("count", move |_, _, _| Ok(Box::new(Counter(Arc::clone(&counter)))))
            .build(&schema)
            .unwrap();
        for array in [true, false] {
            let value = json!({"a": nested(20, array), "b": [nested(2, array), 1]});
            let _ = engine.is_valid(&value);
            let most = std::mem::take(&mut *counts.lock().unwrap()).into_values().max();
            prop_assert!(most <= Some(applied), "{:?} > {}", most, applied);
        }
    }
}
