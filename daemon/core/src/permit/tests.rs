#![allow(clippy::unwrap_used)]

use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use serde_json::json;

use super::*;
use crate::args::tests::route;
use crate::audit::{Anchor, Chain, UnixMs};

/// Writes into memory, or refuses.
struct Memory {
    refuse: Option<ErrorCode>,
    lines: Mutex<(Chain, Vec<u8>)>,
}

impl Memory {
    fn new(refuse: Option<ErrorCode>) -> Memory {
        let lines = Mutex::new((Chain::new(Anchor::genesis([1; 32])), Vec::new()));
        Memory { refuse, lines }
    }

    fn text(&self) -> String {
        String::from_utf8(self.lines.lock().unwrap().1.clone()).unwrap()
    }
}

impl IntentSink for Memory {
    async fn intent(&self, intent: &Intent<'_>) -> Result<Seq, IntentError> {
        if let Some(code) = self.refuse {
            return Err(IntentError { code });
        }
        let mac = ArgumentsMac([intent.arguments().bytes().len() as u8; 32]);
        let (chain, out) = &mut *self.lines.lock().unwrap();
        Ok(chain.append(UnixMs(0), &intent.event(mac), out))
    }
}

/// Never says that it has written.
struct Stuck;

impl IntentSink for Stuck {
    fn intent(&self, _: &Intent<'_>) -> impl Future<Output = Result<Seq, IntentError>> + Send {
        std::future::pending()
    }
}

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn issue(sink: &impl IntentSink) -> Poll<Result<Permit, IntentError>> {
    let route = route(
        &json!({"type": "object", "properties": {"text": {}, "secret": {}}}),
        &["text"],
    );
    let raw = br#"{"text":"shown","secret":"hidden"}"#;
    let arguments = Arguments::parse(raw.to_vec(), &route).unwrap();
    poll(Permit::issue(route, arguments, CallId(5), sink))
}

#[test]
fn the_intent_is_written_before_the_permit_exists() {
    let sink = Memory::new(None);
    let Poll::Ready(Ok(permit)) = issue(&sink) else {
        panic!("no permit")
    };
    assert_eq!(permit.intent(), Seq(1));
    assert_eq!(permit.call(), CallId(5));
    assert_eq!(permit.principal().name().as_str(), "ada");
    assert_eq!(permit.tool().name().as_str(), "write");
    assert_eq!(permit.slots()[0].1.as_str(), "notes");
    let line = sink.text();
    assert!(
        line.contains("\"event\":\"call_intent\",\"call\":5,\"principal\":\"ada\""),
        "{line}"
    );
    assert!(line.contains("\"access\":\"write\""), "{line}");
    assert!(
        line.contains(&"22".repeat(32)),
        "the MAC of 34 bytes: {line}"
    );
    assert!(
        line.contains(r#""recorded":[{"name":"text","value":"\"shown\""}]"#),
        "{line}"
    );
    assert!(!line.contains("hidden"), "{line}");
    assert_eq!(
        permit.into_arguments(),
        br#"{"text":"shown","secret":"hidden"}"#
    );
}

#[test]
fn no_intent_no_permit() {
    let sink = Memory::new(Some(ErrorCode::DiskFull));
    let Poll::Ready(Err(error)) = issue(&sink) else {
        panic!("a permit without an intent")
    };
    assert_eq!(error.code, ErrorCode::DiskFull);
    assert!(sink.text().is_empty());
}

#[test]
fn while_the_sink_is_busy_there_is_no_permit() {
    assert!(issue(&Stuck).is_pending());
}

#[test]
fn the_future_may_cross_threads() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let route = route(&json!({"type": "object"}), &[]);
    let arguments = Arguments::parse(Vec::new(), &route).unwrap();
    let sink = Memory::new(None);
    assert!(poll(send(Permit::issue(route, arguments, CallId(1), &sink))).is_ready());
}

#[test]
fn arguments_of_another_tool_are_not_taken() {
    let other = route(&json!({"type": "object", "properties": {}}), &[]);
    let route = route(&json!({"type": "object"}), &[]);
    let arguments = Arguments::parse(Vec::new(), &other).unwrap();
    let sink = Memory::new(None);
    let Poll::Ready(Err(error)) = poll(Permit::issue(route, arguments, CallId(1), &sink)) else {
        panic!("a permit for unchecked arguments")
    };
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(sink.text().is_empty());
}
