//! Guards P6: what design section 7 wants of the type system.

/// Applying frames to a log and writing it through an export exclude each other at compile time.
#[test]
fn frames_and_writes_exclude_each_other() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
