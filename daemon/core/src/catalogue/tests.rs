#![allow(clippy::unwrap_used)] // a test that fails says so by panicking

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::manifest::tests as manifests;

/// What a module of a registry is built of; `tools` are (name, access).
pub(crate) fn source(registry: &str, module: &str, tools: &[(&str, &str)]) -> ActiveModule {
    let tools: Vec<Value> = tools
        .iter()
        .map(|(name, access)| manifests::tool(name, access))
        .collect();
    let json = serde_json::to_vec(&manifests::module(module, &tools)).unwrap();
    let manifest = ModuleManifest::parse(&json).unwrap();
    let schema = manifest.tools[0].input_schema.clone();
    ActiveModule {
        rev: ModuleRev {
            registry: RegistryId::of_manifest(registry.as_bytes()),
            module: ModuleName::parse(module).unwrap(),
        },
        manifest,
        schemas: BTreeMap::from([(schema, manifests::SCHEMA.to_vec())]),
        joins: vec![(
            SlotName::parse("api").unwrap(),
            BindingName::parse("web-main").unwrap(),
        )],
    }
}

/// A catalogue of such modules.
pub(crate) fn catalogue(modules: Vec<ActiveModule>) -> Arc<Catalogue> {
    Arc::new(Catalogue::new(modules).unwrap())
}

#[test]
fn clients_are_shown_the_whole_tool_on_one_line() {
    let catalogue = catalogue(vec![source("r", "web", &[("get", "read")])]);
    let tool = &catalogue.tools()[0];
    let text = tool.inner().get();
    assert_eq!(
        text,
        r#"{"name":"get","title":"T","description":"d","inputSchema":{"type":"object","properties":{"q":{"type":"string","description":"a \"q\"\n"}},"additionalProperties":false},"annotations":{"readOnlyHint":true,"destructiveHint":false}}"#
    );
    assert_eq!(*tool.digest(), Digest::of(text.as_bytes()));
    assert_eq!(tool.schema_ref(), SchemaRef::of(tool.rev(), tool.digest()));
    assert_eq!(tool.slots().len(), 1);
}

#[test]
fn access_is_told_by_the_annotations() {
    let catalogue = catalogue(vec![source(
        "r",
        "web",
        &[("a", "read"), ("b", "write"), ("c", "destructive")],
    )]);
    let hints: Vec<(bool, bool)> = catalogue
        .tools()
        .iter()
        .map(|tool| {
            let value: Value = serde_json::from_str(tool.inner().get()).unwrap();
            let hint = |name: &str| value["annotations"][name].as_bool().unwrap();
            (hint("readOnlyHint"), hint("destructiveHint"))
        })
        .collect();
    assert_eq!(hints, [(true, false), (false, false), (false, true)]);
}

#[test]
fn the_order_is_by_module_and_name_however_they_come() {
    let catalogue = catalogue(vec![
        source("r", "b", &[("z", "read"), ("a", "read")]),
        source("s", "a-b", &[("y", "read")]),
        source("s", "a", &[("x", "read")]),
    ]);
    let names: Vec<_> = catalogue
        .tools()
        .iter()
        .map(|t| format!("{}/{}", t.module(), t.name()))
        .collect();
    assert_eq!(names, ["a/x", "a-b/y", "b/a", "b/z"]);
    for (at, tool) in catalogue.tools().iter().enumerate() {
        assert_eq!(
            catalogue.position(tool.module().as_str(), tool.name().as_str()),
            Some(at)
        );
    }
    assert_eq!(catalogue.position("b", "x"), None);
    assert_eq!(catalogue.position("", ""), None);
    assert!(catalogue.module("a-b").is_some() && catalogue.module("c").is_none());
}

#[test]
fn two_active_sides_of_one_name_are_refused() {
    let modules = vec![
        source("r", "web", &[("get", "read")]),
        source("s", "web", &[("other", "read")]),
    ];
    let error = Catalogue::new(modules).unwrap_err();
    assert!(
        matches!(
            error,
            NewCatalogueError::Catalogue(CatalogueError::TwoSides { .. })
        ),
        "{error}"
    );
}

#[test]
fn tools_that_name_one_schema_share_it_compiled() {
    let module = Module::build(source("r", "web", &[("a", "read"), ("b", "read")])).unwrap();
    let [a, b] = module.tools() else {
        panic!("two tools")
    };
    assert!(Arc::ptr_eq(a.validator(), b.validator()));
}

#[test]
fn a_tool_without_a_binding_exists_for_nobody() {
    let mut module = source("r", "web", &[("get", "read")]);
    module.joins.clear();
    let module = Module::build(module).unwrap();
    assert!(module.tools().is_empty());
    assert_eq!(module.unjoined().len(), 1);
}

#[test]
fn a_module_that_does_not_fit_is_not_built() {
    let build = |bend: &dyn Fn(&mut ActiveModule)| {
        let mut module = source("r", "web", &[("get", "read")]);
        bend(&mut module);
        Module::build(module).map(|_| ()).unwrap_err()
    };
    let schema = |text: &'static [u8]| {
        move |m: &mut ActiveModule| m.schemas.values_mut().for_each(|s| *s = text.to_vec())
    };
    let other = build(&|m| m.rev.module = ModuleName::parse("other").unwrap());
    assert!(matches!(other, ModuleError::OtherModule { .. }));
    assert!(matches!(
        build(&|m| m.schemas.clear()),
        ModuleError::NoBlob { .. }
    ));
    assert!(matches!(
        build(&|m| m.joins.push(m.joins[0].clone())),
        ModuleError::JoinedTwice { .. }
    ));
    assert!(matches!(build(&schema(b"{")), ModuleError::Schema { .. }));
    assert!(matches!(
        build(&schema(br#"{"type":"object","type":"object"}"#)),
        ModuleError::Schema { .. }
    ));
    assert!(matches!(
        build(&schema(br#"{"type":"object","properties":{}}"#)),
        ModuleError::Fit { .. }
    ));
}
