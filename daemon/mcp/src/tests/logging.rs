//! What a logger that takes everything never sees.

use std::sync::{Mutex, PoisonError};

use super::*;

/// Keeps every line that names rmcp, from the whole test process.
struct Everything(Mutex<String>);

static SINK: Everything = Everything(Mutex::new(String::new()));

impl log::Log for Everything {
    fn enabled(&self, _line: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}\n", record.target(), record.args());
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_str(&line);
    }

    fn flush(&self) {}
}

#[tokio::test]
async fn no_argument_and_no_result_reaches_the_log_at_its_highest_level() {
    log::set_logger(&SINK).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let mut client = opened().await;
    let canary = r#"{"k":"canary-4711"}"#;
    let done = client.ask(call(1, "echo", canary)).await;
    assert!(done.to_string().contains("canary-4711"));
    client
        .ask(call(2, "echo", &json!(canary).to_string()))
        .await;
    client
        .ask(call(3, "echo", r#"{"canary-4711":1,"canary-4711":2}"#))
        .await;
    client.ask(call(4, "gone", canary)).await;
    let other = json!({"name": "p", "arguments": {"k": "canary-4711"}});
    client
        .ask(request(json!(5), "prompts/get", other.clone()))
        .await;
    client.ask(request(json!(6), "tools/call", other)).await;
    client.ask("canary-4711").await;
    client.end().await.unwrap();
    let seen = SINK
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    assert!(
        seen.contains("received request"),
        "the bridge to log works, or this shows nothing"
    );
    assert!(!seen.contains("canary-4711"), "{seen}");
}

#[test]
fn a_logger_that_asks_takes_only_warnings_of_rmcp() {
    let takes =
        |target, level| may_log(&log::Metadata::builder().target(target).level(level).build());
    for rmcp in ["rmcp", "rmcp::service"] {
        assert!(takes(rmcp, log::Level::Error) && takes(rmcp, log::Level::Warn));
        assert!(!takes(rmcp, log::Level::Info) && !takes(rmcp, log::Level::Trace));
    }
    assert!(takes("mcpistd", log::Level::Debug) && takes("rmcpx", log::Level::Debug));
}
