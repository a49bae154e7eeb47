//! Leaks on purpose, so that the leak test (`tests/leak/run`) can show that it finds them. Only with the feature
//! `test-leak`, which no build that is shipped has; `tests/tests/edges.rs` holds that none has it by default.

use std::sync::{Mutex, PoisonError};

use mcpist_secret::Secret;
use mcpist_wire::Answer;

/// Copies in ordinary memory, for as long as the process lives.
static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Leaks `secret` into ordinary memory, the log and the answer: backwards, a form that redaction does not know.
pub(crate) fn leak(secret: &Secret, answer: &mut Answer) {
    let secret = secret.expose();
    log::warn!("a leak on purpose: {}", String::from_utf8_lossy(secret));
    let backwards: Vec<u8> = secret.iter().rev().copied().collect();
    let text = String::from_utf8_lossy(&backwards);
    answer.content = format!(r#"[{{"type":"text","text":"{text}"}}]"#).into_bytes();
    KEPT.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(secret.to_vec());
}
