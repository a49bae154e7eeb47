#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::breaker::MIN_OUTCOMES;
use crate::testing::{self, Reply, Seen, TOKEN, answer, binding, ok, redactor, secret};

/// A tool, its limits and a service, called again and again.
struct Bench {
    tool: ToolManifest,
    limits: Limits,
    service: Service,
    redactor: Redactor,
    upstream: testing::Service,
}

impl Bench {
    async fn new(http: &str, reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Bench {
        let upstream = testing::serve(None, reply).await;
        let tool: ToolManifest = serde_json::from_str(&format!(
            r#"{{"name":"t","title":"T","description":"D","access":"read",
                "input_schema":"in.json","http":{http}}}"#
        ))
        .unwrap();
        tool.http.check().unwrap();
        Bench {
            tool,
            limits: Limits::default(),
            service: Service::new(&binding(upstream.port, "{}"), 2).unwrap(),
            redactor: redactor(&[TOKEN]),
            upstream,
        }
    }

    async fn get(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Bench {
        Bench::new(r#"{"slot":"s","method":"GET","path":"/x"}"#, reply).await
    }

    fn with_schema(mut self) -> Bench {
        self.tool.output_schema = Some(mcpist_core::manifest::BlobPath::parse("o.json").unwrap());
        self
    }

    async fn call(&self, arguments: &str) -> Result<Answer, ToolError> {
        run(Call {
            tool: &self.tool,
            limits: &self.limits,
            arguments: arguments.as_bytes(),
            service: &self.service,
            credential: &secret(TOKEN),
            redactor: &self.redactor,
            deadline: deadline(Instant::now(), Duration::from_secs(60), &self.limits),
        })
        .await
    }

    async fn text(&self, arguments: &str) -> String {
        text(&self.call(arguments).await.unwrap())
    }

    async fn error(&self, arguments: &str) -> (&'static str, String) {
        let error = self.call(arguments).await.unwrap_err();
        (error.code().as_str(), error.message().to_owned())
    }
}

fn text(answer: &Answer) -> String {
    let content: serde_json::Value = serde_json::from_slice(&answer.content).unwrap();
    assert_eq!(content.as_array().unwrap().len(), 1);
    assert_eq!(content[0]["type"], "text");
    content[0]["text"].as_str().unwrap().to_owned()
}

fn status(line: &'static str, body: &'static str) -> impl Fn(&Seen) -> Reply {
    move |_| Reply::Raw(answer(line, "", body))
}

#[tokio::test]
async fn a_call_is_rendered_sent_and_shaped() {
    let http = r#"{"slot":"s","method":"POST","path":"/api/{id}",
        "query":[{"name":"q","value":"{q}"}],"headers":[{"name":"x-a","value":"v"}],
        "body":{"json":{"n":"{n}"}},
        "response":{"pick":[{"from":"items[*].id","to":"ids"}]}}"#;
    let bench = Bench::new(http, |_| ok(r#"{"items":[{"id":1.10},{"id":"b"}],"x":0}"#)).await;
    assert_eq!(
        bench.text(r#"{"id":"a b","n":1.50}"#).await,
        r#"{"ids":[1.10,"b"]}"#
    );
    let seen = bench.upstream.seen().pop().unwrap();
    assert_eq!(seen.line(), "POST /api/a%20b HTTP/1.1");
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.body, br#"{"n":1.50}"#);
    let (code, text) = bench.error(r#"{"id":"../x"}"#).await;
    assert_eq!(code, "arguments_invalid");
    assert!(text.contains("\"id\"") && !text.contains("../x"), "{text}");
    assert_eq!(bench.upstream.requests(), 1);
}

#[tokio::test]
async fn structured_content_needs_a_schema_an_object_and_numbers_in_range() {
    let bench = Bench::get(|_| ok(r#"{"a":1.10}"#)).await;
    assert_eq!(bench.call("{}").await.unwrap().structured, None);
    let bench = bench.with_schema();
    assert_eq!(
        bench.call("{}").await.unwrap().structured.unwrap(),
        br#"{"a":1.10}"#
    );

    let wide = Bench::get(|_| ok(r#"{"a":[12345678901234567890123]}"#)).await;
    assert_eq!(wide.text("{}").await, r#"{"a":[12345678901234567890123]}"#);
    let (code, said) = wide.with_schema().error("{}").await;
    assert_eq!(code, "upstream_invalid");
    assert!(said.starts_with("/a/0 "), "{said}");

    for body in ["[1]", "", "1"] {
        let bench = Bench::get(move |_| ok(body)).await.with_schema();
        assert_eq!(bench.error("{}").await.0, "upstream_invalid", "{body}");
    }
}

#[tokio::test]
async fn what_is_no_json_is_refused_without_being_shown() {
    for body in ["<html>", "{\"a\":1", "{\"a\":1,\"a\":2}", "\u{1}"] {
        let (code, said) = Bench::get(move |_| ok(body)).await.error("{}").await;
        assert_eq!(code, "upstream_invalid");
        assert!(
            said.starts_with("the service's answer is ") && !said.contains("html"),
            "{said}"
        );
    }
    assert_eq!(
        Bench::get(|_| ok("")).await.text("{}").await,
        "(status 200, no content)"
    );
}

#[tokio::test]
async fn text_is_cut_at_a_character_and_it_is_said() {
    let http = r#"{"slot":"s","method":"GET","path":"/","response":{"text":true}}"#;
    let mut bench = Bench::new(http, |_| ok("é".repeat(1000))).await;
    bench.limits.client_bytes = 1025;
    let answer = bench.call("{}").await.unwrap();
    assert!(answer.truncated);
    let expected = format!(
        "{}\n\n[not complete: the first 1024 of 2000 bytes]",
        "é".repeat(512)
    );
    assert_eq!(text(&answer), expected);
}

#[tokio::test]
async fn a_result_is_bounded_and_stays_structured() {
    let body = format!("{{\"l\":[{}]}}", vec!["\"0123456789\""; 1000].join(","));
    let mut bench = Bench::get(move |_| ok(body.clone())).await.with_schema();
    bench.limits.client_bytes = 1024;
    let answer = bench.call("{}").await.unwrap();
    assert!(answer.truncated);
    let structured = answer.structured.as_ref().unwrap();
    assert!(structured.len() <= 1024);
    let value: serde_json::Value = serde_json::from_slice(structured).unwrap();
    let kept = value["l"].as_array().unwrap().len();
    assert!(text(&answer).ends_with(&format!("[not complete: /l: {kept} of 1000 items]")));

    let long = Bench::get(|_| ok(format!("{{\"s\":\"{}\"}}", "x".repeat(100_000)))).await;
    let answer = long.call("{}").await.unwrap();
    assert!(answer.truncated && answer.content.len() < 70_000);
    assert_eq!(long.with_schema().error("{}").await.0, "upstream_too_large");
}

#[tokio::test]
async fn values_are_bounded_by_the_modules_memory_over_all_pages_and_picks() {
    let body = format!("[{}0]", "0,".repeat((4 << 20) / 2 - 2));
    let bench = Bench::get(move |_| ok(body.clone())).await;
    let (code, said) = bench.error("{}").await;
    assert_eq!(code, "upstream_too_large");
    assert!(said.contains("memory_bytes"), "{said}");

    // Pages of 7000 values of 20 bytes: one fits, not three of them, nor the picked items beside it.
    let zeros = format!("[0{}]", ",0".repeat(7000));
    let next = move |seen: &Seen| {
        let next = seen.line().len();
        ok(format!(r#"{{"items":{zeros},"meta":{{"next":{next}}}}}"#))
    };
    let mut bench = Bench::new(CURSOR, next).await;
    let picks = std::mem::take(&mut bench.tool.http.response);
    bench.limits.memory_bytes = 300 << 10;
    bench.limits.requests = 1;
    assert!(bench.call("{}").await.is_ok());
    bench.limits.requests = 8;
    assert_eq!(bench.error("{}").await.0, "upstream_too_large");
    bench.limits.requests = 1;
    bench.tool.http.response = picks;
    bench.tool.http.response.pick[0].from = JsonPath::parse("items[*]").unwrap();
    assert_eq!(bench.error("{}").await.0, "upstream_too_large");
}

#[tokio::test]
async fn statuses_are_coded_and_a_body_is_never_passed_on() {
    for (line, code) in [
        ("401 Unauthorized", "credential_suspect"),
        ("403 Forbidden", "credential_suspect"),
        ("404 Not Found", "upstream_status"),
        ("302 Found", "upstream_status"),
        ("500 Internal Server Error", "upstream_status"),
        ("503 Service Unavailable", "upstream_status"),
        ("429 Too Many Requests", "upstream_throttled"),
    ] {
        let (found, said) = Bench::get(status(line, "internal detail"))
            .await
            .error("{}")
            .await;
        assert_eq!(found, code, "{line}");
        assert!(!said.contains("internal"), "{said}");
        assert!(
            said.contains(&line[..3]) || code == "upstream_throttled",
            "{said}"
        );
    }
}

#[tokio::test]
async fn an_error_pick_shows_one_field_redacted_bounded_and_marked() {
    let http = r#"{"slot":"s","method":"GET","path":"/",
        "errors":[{"status":404,"pick":"error.message"}]}"#;
    let body = |message: String| serde_json::json!({"error":{"message": message, "stack": "s3cr"}});
    let long = body(format!("no {TOKEN} here\n{}", "x".repeat(5000))).to_string();
    let bench = Bench::new(http, move |_| {
        Reply::Raw(answer("404 Not Found", "", long.clone()))
    })
    .await;
    let (code, said) = bench.error("{}").await;
    assert_eq!(code, "upstream_status");
    assert!(
        said.starts_with(
            "the service answered with status 404; the service's own text: no [redacted] here"
        ),
        "{said}"
    );
    assert!(said.len() <= 1024 && !said.contains("s3cr") && !said.contains('\n'));
    // Another status, and a body that is no JSON, show nothing.
    let other = Bench::new(
        http,
        status("400 Bad Request", r#"{"error":{"message":"m"}}"#),
    )
    .await;
    assert_eq!(
        other.error("{}").await.1,
        "the service answered with status 400"
    );
    let html = Bench::new(http, status("404 Not Found", "<html>")).await;
    assert_eq!(
        html.error("{}").await.1,
        "the service answered with status 404"
    );
}

#[tokio::test]
async fn a_credential_in_an_answer_is_counted() {
    let bench = Bench::get(|seen| ok(serde_json::json!({"h": seen.head}).to_string())).await;
    let answer = bench.call("{}").await.unwrap();
    assert_eq!(answer.hits, 1);
    let text = text(&answer);
    assert!(
        text.contains("Bearer [redacted]") && !text.contains(TOKEN),
        "{text}"
    );
}

#[tokio::test]
async fn a_credential_in_an_error_answer_is_counted() {
    let http = r#"{"slot":"s","method":"GET","path":"/l","errors":[{"status":422,"pick":"h"}]}"#;
    let echo = |seen: &Seen| {
        let body = serde_json::json!({"h": seen.head}).to_string();
        Reply::Raw(answer("422 Unprocessable Entity", "", &body))
    };
    let error = Bench::new(http, echo).await.call("{}").await.unwrap_err();
    assert_eq!(error.hits(), 1);
    assert!(!error.message().contains(TOKEN), "{}", error.message());
    // An answer that the tool's schema refuses was read and redacted all the same.
    let bad = |seen: &Seen| ok(format!("{{\"h\":{:?}", seen.head));
    let error = Bench::get(bad).await.call("{}").await.unwrap_err();
    assert_eq!(
        (error.code(), error.hits()),
        (ErrorCode::UpstreamInvalid, 1)
    );
}

const CURSOR: &str = r#"{"slot":"s","method":"GET","path":"/l","query":[{"name":"a","value":"1"}],
    "response":{"pick":[{"from":"items[*].n","to":"n"}]},
    "pages":{"cursor":{"query":"after","next":"meta.next","items":"items","pages":9}}}"#;

/// Pages of two items; page `p` names cursor `c&p` until `last`.
fn pages(last: usize) -> impl Fn(&Seen) -> Reply {
    move |seen| {
        let page = seen
            .line()
            .split("after=c%26")
            .nth(1)
            .map_or(0, |rest| rest.split(' ').next().unwrap().parse().unwrap());
        let next = if page == last {
            "null".into()
        } else {
            format!("\"c&{}\"", page + 1)
        };
        let (a, b) = (page * 2, page * 2 + 1);
        ok(format!(
            r#"{{"items":[{{"n":{a}}},{{"n":{b}}}],"meta":{{"next":{next}}}}}"#
        ))
    }
}

#[tokio::test]
async fn cursors_are_followed_to_the_end_or_the_limit() {
    let bench = Bench::new(CURSOR, pages(2)).await;
    assert_eq!(bench.text("{}").await, r#"{"n":[0,1,2,3,4,5]}"#);
    let lines: Vec<_> = bench
        .upstream
        .seen()
        .iter()
        .map(|s| s.line().to_owned())
        .collect();
    assert_eq!(
        lines,
        [
            "GET /l?a=1 HTTP/1.1",
            "GET /l?a=1&after=c%261 HTTP/1.1",
            "GET /l?a=1&after=c%262 HTTP/1.1"
        ]
    );
    let mut bench = Bench::new(CURSOR, pages(100)).await;
    bench.limits.requests = 2;
    let answer = bench.call("{}").await.unwrap();
    assert!(answer.truncated);
    assert_eq!(
        text(&answer),
        "{\"n\":[0,1,2,3]}\n\n[not complete: 2 pages were read; there may be more]"
    );
    bench.limits.requests = 64;
    assert!(bench.text("{}").await.contains("9 pages were read"));
    bench.tool.http.response.max_items = Some(4);
    assert_eq!(bench.upstream.requests(), 11);
    assert!(bench.text("{}").await.contains("2 pages were read"));
    assert_eq!(bench.upstream.requests(), 13);
}

#[tokio::test]
async fn a_cursor_that_does_not_move_ends_the_call() {
    let bench = Bench::new(CURSOR, |_| ok(r#"{"items":[{"n":1}],"meta":{"next":7}}"#)).await;
    assert_eq!(bench.text("{}").await, r#"{"n":[1,1]}"#);
    assert_eq!(bench.upstream.requests(), 2);
}

#[tokio::test]
async fn counted_pages_end_with_an_empty_one() {
    let http = r#"{"slot":"s","method":"GET","path":"/l",
        "pages":{"count":{"query":"offset","first":0,"step":2,"items":"$","pages":9}}}"#;
    let bench = Bench::new(http, |seen| match seen.line() {
        "GET /l?offset=0 HTTP/1.1" => ok("[1,2]"),
        "GET /l?offset=2 HTTP/1.1" => ok("[3]"),
        _ => ok("[]"),
    })
    .await;
    assert_eq!(bench.text("{}").await, "[1,2,3]");
    assert_eq!(bench.upstream.requests(), 3);
    // Of a page behind the last item that was wanted nothing is known, and nothing is said.
    let mut bench = bench;
    bench.tool.http.response.max_items = Some(3);
    let answer = bench.call("{}").await.unwrap();
    assert_eq!(
        (text(&answer).as_str(), answer.truncated),
        ("[1,2,3]", false)
    );
    bench.tool.http.response.max_items = Some(2);
    assert_eq!(bench.text("{}").await, "[1,2]");
    bench.limits.requests = 1;
    bench.tool.http.response.max_items = None;
    assert_eq!(
        bench.text("{}").await,
        "[1,2]\n\n[not complete: 1 pages were read; there may be more]"
    );
}

#[tokio::test]
async fn all_pages_share_one_budget_of_bytes() {
    let body = format!(
        r#"{{"items":["{}"],"meta":{{"next":"n"}}}}"#,
        "x".repeat(600)
    );
    let mut bench = Bench::new(CURSOR, move |_| ok(body.clone())).await;
    bench.limits.upstream_bytes = 1024;
    assert_eq!(bench.error("{}").await.0, "upstream_too_large");
    assert_eq!(bench.upstream.requests(), 2);
}

#[tokio::test]
async fn a_hanging_service_times_out_and_opens_the_breaker_for_one_probe() {
    let mut bench = Bench::get(|_| Reply::Hang(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec())).await;
    bench.limits.deadline_ms = 50;
    for _ in 0..MIN_OUTCOMES {
        assert_eq!(bench.error("{}").await.0, "upstream_timeout");
    }
    for _ in 0..10 {
        assert_eq!(bench.error("{}").await.0, "upstream_unreachable");
    }
    assert!(bench.upstream.requests() <= MIN_OUTCOMES);
}

#[tokio::test]
async fn errors_that_a_service_means_do_not_open_the_breaker() {
    let bench = Bench::get(status("500 Internal Server Error", "")).await;
    for _ in 0..3 * MIN_OUTCOMES {
        assert_eq!(bench.error("{}").await.0, "upstream_status");
    }
    assert_eq!(bench.upstream.requests(), 3 * MIN_OUTCOMES);
    let gateway = Bench::get(status("502 Bad Gateway", "")).await;
    for _ in 0..3 * MIN_OUTCOMES {
        gateway.error("{}").await;
    }
    assert_eq!(gateway.upstream.requests(), MIN_OUTCOMES);
}

#[tokio::test]
async fn a_429_is_not_repeated_and_pauses_the_next_calls() {
    let http = r#"{"slot":"s","method":"POST","path":"/"}"#;
    let bench = Bench::new(http, |_| {
        Reply::Raw(answer("429 Too Many Requests", "retry-after: 30\r\n", ""))
    })
    .await;
    for _ in 0..3 {
        let (code, said) = bench.error("{}").await;
        assert_eq!(code, "upstream_throttled");
        assert_eq!(said, "the service asked to wait 30 s");
    }
    assert_eq!(bench.upstream.requests(), 1);
}

#[tokio::test]
async fn no_more_calls_run_at_once_than_the_module_allows() {
    let held = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&held);
    let bench = Arc::new(
        Bench::get(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Reply::Hang(Vec::new())
        })
        .await,
    );
    let calls: Vec<_> = (0..6)
        .map(|_| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.call("{}").await })
        })
        .collect();
    bench.upstream.until_requests(2).await;
    // A cancelled call gives its place to the next, and its connection is closed.
    for running in 2..6 {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(held.load(Ordering::SeqCst), running);
        calls[running - 2].abort();
        bench.upstream.until_requests(running + 1).await;
    }
    for call in calls {
        call.abort();
    }
}
