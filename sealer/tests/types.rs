//! What the types forbid, with the compiler's words: a sealed barrier opens nothing, and an unsealed one is
//! used up by sealing.

#[test]
fn a_barrier_is_used_in_its_state_only() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}
