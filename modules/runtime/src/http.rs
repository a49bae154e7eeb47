//! The kind `http`: one call of a declarative tool, from arguments to answer.
//!
//! Owns: [`Call`] and [`run`]: render, pass the gate, send, follow pages, shape.
//! Promises: all of it within the deadline and the module's limits; at most one request for a tool
//! without pages, and nothing sent twice. A status that is no success is a coded error; of the
//! service's own text at most the one field that the manifest picks for the status, redacted,
//! bounded and marked. What was left out of a result is said in its text.
//! Does not: know the link; [`crate::server`] does.
//!
//! # Numbers
//! The text keeps every number as it came. Structured content (for tools with an output schema) is
//! refused with the path when a number in it fits no 64-bit integer or no `f64`; a tool without an
//! output schema has text only, so that such an answer still serves.

use std::time::Duration;

use bytes::Bytes;
use mcpist_core::error::ErrorCode;
use mcpist_core::http::{JsonPath, Pagination};
use mcpist_core::manifest::{Limits, ToolManifest};
use mcpist_core::result::ToolError;
use mcpist_core::text::excerpt;
use mcpist_secret::Secret;
use mcpist_secret::redact::Redactor;
use mcpist_wire::Answer;
use tokio::time::{Instant, timeout_at};

use crate::breaker::Outcome;
use crate::egress::{self, Budget, EgressError, Request, Response, Service};
use crate::gate::Pass;
use crate::json::{Doc, JsonError, Kind, Value};
use crate::room::{NoRoom, Room};
use crate::shape::{self, Shaped, Source};
use crate::template::{self, Rendered};

/// Most bytes of a service's own error text.
const MAX_SERVICE_TEXT: usize = 900;

/// One call and what it may use.
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    /// The tool.
    pub tool: &'c ToolManifest,
    /// Its module's limits.
    pub limits: &'c Limits,
    /// The arguments' JSON text.
    pub arguments: &'c [u8],
    /// The binding in the tool's slot.
    pub service: &'c Service,
    /// What the binding injects.
    pub credential: &'c Secret,
    /// The secrets that must not come back.
    pub redactor: &'c Redactor,
    /// When the call must be over.
    pub deadline: Instant,
}

/// Runs the call.
///
/// # Errors
/// A [`ToolError`] whose text a client may read.
pub async fn run(call: Call<'_>) -> Result<Answer, ToolError> {
    let rendered = template::render(&call.tool.http, call.arguments)
        .map_err(|error| ToolError::with(ErrorCode::ArgumentsInvalid, &error.to_string()))?;
    let pass = match timeout_at(call.deadline, call.service.gate().enter()).await {
        Ok(pass) => pass.map_err(EgressError::from)?,
        Err(_) => return Err(ErrorCode::Busy.into()),
    };
    let budget = Budget::new(call.limits.requests, call.limits.upstream_bytes);
    let mut sender = Sender {
        call,
        pass,
        budget,
        room: Room::new(call.limits.memory_bytes),
        base: Base::of(rendered),
        hits: 0,
    };
    let answer = request(&call, &mut sender).await;
    // Also of answers that became an error: what was taken out counts.
    answer.map_err(|error| error.with_hits(sender.hits))
}

/// The requests, and what is made of their answers.
async fn request(call: &Call<'_>, sender: &mut Sender<'_>) -> Result<Answer, ToolError> {
    let first = match &call.tool.http.pages {
        Some(Pagination::Count { query, first, .. }) => {
            sender.send(Some((query, &first.to_string()))).await?
        }
        Some(Pagination::Cursor { .. }) | None => sender.send(None).await?,
    };
    if call.tool.http.response.text || first.body.is_empty() {
        return text_answer(call, &first, sender.hits);
    }
    let first = parse(first.body, &mut sender.room)?;
    let (others, more) = match &call.tool.http.pages {
        None => (Vec::new(), false),
        Some(pages) => sender.pages(pages, &first).await?,
    };
    let source = match &call.tool.http.pages {
        None => Source::single(&first),
        Some(pages) => Source::paged(&first, &others, items(pages)),
    };
    let response = &call.tool.http.response;
    let mut shaped = shape::shape(&source, response, client_bytes(call), &mut sender.room)
        .map_err(|NoRoom| no_room())?;
    if more {
        let read = others.len() + 1;
        let said = format!("{read} pages were read; there may be more");
        shaped.notes.push(said);
    }
    json_answer(call, shaped, sender.hits)
}

fn client_bytes(call: &Call<'_>) -> usize {
    usize::try_from(call.limits.client_bytes).unwrap_or(usize::MAX)
}

fn parse(body: Vec<u8>, room: &mut Room) -> Result<Doc<'static>, ToolError> {
    Doc::parse(body, room).map_err(|error| match error {
        JsonError::NoRoom(NoRoom) => no_room(),
        error => ToolError::with(
            ErrorCode::UpstreamInvalid,
            &format!("the service's answer is {error}"),
        ),
    })
}

fn no_room() -> ToolError {
    ToolError::with(
        ErrorCode::UpstreamTooLarge,
        "the service's answer has more values than the module's memory_bytes hold; ask for less",
    )
}

fn items(pages: &Pagination) -> &JsonPath {
    match pages {
        Pagination::Cursor { items, .. } | Pagination::Count { items, .. } => items,
    }
}

/// The rendered request; its body is shared by all pages.
struct Base {
    rendered: Rendered,
    body: Option<(&'static str, Bytes)>,
}

impl Base {
    fn of(mut rendered: Rendered) -> Base {
        let body = rendered
            .body
            .take()
            .map(|(kind, bytes)| (kind, Bytes::from(bytes)));
        Base { rendered, body }
    }

    fn request(&self, parameter: Option<(&str, &str)>) -> Request {
        let mut rendered = self.rendered.clone();
        if let Some((name, value)) = parameter {
            rendered.add_query(name, value);
        }
        let Rendered {
            method,
            path,
            query,
            headers,
            ..
        } = rendered;
        Request {
            method,
            path,
            query,
            headers,
            body: self.body.clone(),
        }
    }
}

struct Sender<'c> {
    call: Call<'c>,
    pass: Pass<'c>,
    budget: Budget,
    /// For the values of all answers and what is picked of them.
    room: Room,
    base: Base,
    hits: u32,
}

impl Sender<'_> {
    /// Sends one request within the deadline, tells the breaker, and takes only a success.
    async fn send(&mut self, parameter: Option<(&str, &str)>) -> Result<Response, ToolError> {
        let Call {
            service,
            credential,
            redactor,
            deadline,
            ..
        } = self.call;
        let request = self.base.request(parameter);
        let sending = service.send(request, credential, &mut self.budget, redactor);
        let sent = timeout_at(deadline, sending)
            .await
            .unwrap_or(Err(EgressError::Timeout));
        self.pass
            .report(sent.as_ref().map_or_else(EgressError::outcome, outcome));
        let response = sent?;
        self.hits = self.hits.saturating_add(response.hits);
        match response.status {
            200..=299 => Ok(response),
            _ => Err(status_error(self.call.tool, &response, &mut self.room)),
        }
    }

    /// The further pages, and whether it was not seen that there are no more.
    async fn pages(
        &mut self,
        pages: &Pagination,
        first: &Doc<'_>,
    ) -> Result<(Vec<Doc<'static>>, bool), ToolError> {
        let (query, most) = match pages {
            Pagination::Cursor { query, pages, .. } | Pagination::Count { query, pages, .. } => {
                (query, *pages)
            }
        };
        let enough = self
            .call
            .tool
            .http
            .response
            .max_items
            .map_or(usize::MAX, |n| n as usize);
        let mut others = Vec::new();
        let mut found = count_items(first.root(), items(pages));
        let mut next = next_page(pages, first.root(), 1);
        while let Some(value) = next {
            if found >= enough {
                // What was cut off is said by the shape; of a counted page nobody knows that it is there.
                return Ok((others, matches!(pages, Pagination::Cursor { .. })));
            }
            if others.len() + 1 >= most as usize || self.budget.requests_left() == 0 {
                return Ok((others, true));
            }
            let body = self.send(Some((query, &value))).await?.body;
            let doc = parse(body, &mut self.room)?;
            found += count_items(doc.root(), items(pages));
            next =
                next_page(pages, doc.root(), others.len() as u32 + 2).filter(|next| *next != value);
            others.push(doc);
        }
        Ok((others, false))
    }
}

fn count_items(root: Value<'_>, path: &JsonPath) -> usize {
    shape::find(root, path)
        .filter(|value| value.kind() == Kind::Array)
        .map_or(0, Value::count)
}

/// The value that asks for the page after `page`, which is number `read` (from 1); `None` at the end.
fn next_page(pages: &Pagination, page: Value<'_>, read: u32) -> Option<String> {
    match pages {
        Pagination::Cursor { next, .. } => {
            let next = shape::find(page, next)?;
            let text = match next.kind() {
                Kind::String => next.as_str()?.into_owned(),
                Kind::Number => next.raw().to_owned(),
                _ => return None,
            };
            Some(text).filter(|text| !text.is_empty())
        }
        Pagination::Count {
            first, step, items, ..
        } => {
            let last = count_items(page, items) == 0;
            let number = u64::from(*first) + u64::from(*step) * u64::from(read);
            (!last).then(|| number.to_string())
        }
    }
}

/// What the breaker learns from an answer: a gateway's error is no answer of the service.
fn outcome(response: &Response) -> Outcome {
    match response.status {
        429 => Outcome::Throttled(response.pause),
        502..=504 => Outcome::Failed,
        _ => Outcome::Answered,
    }
}

/// The coded error of a status that is no success.
fn status_error(tool: &ToolManifest, response: &Response, room: &mut Room) -> ToolError {
    let status = response.status;
    let (code, mut text) = match status {
        401 | 403 => (
            ErrorCode::CredentialSuspect,
            format!("the service refused the credential ({status})"),
        ),
        429 => {
            let error = egress::throttled(response.pause);
            (error.code(), error.message().to_owned())
        }
        300..=399 => {
            let text = format!("the service redirects ({status}); no redirect is followed");
            (ErrorCode::UpstreamStatus, text)
        }
        _ => (
            ErrorCode::UpstreamStatus,
            format!("the service answered with status {status}"),
        ),
    };
    if let Some(said) = picked_error(tool, response, room) {
        text.push_str("; the service's own text: ");
        text.push_str(&said);
    }
    ToolError::with(code, &text)
}

/// The one field that the manifest picks for this status, bounded and escaped.
fn picked_error(tool: &ToolManifest, response: &Response, room: &mut Room) -> Option<String> {
    let pick = tool
        .http
        .errors
        .iter()
        .find(|pick| pick.status == response.status)?;
    let doc = Doc::parse(&response.body, room).ok()?;
    let value = shape::find(doc.root(), &pick.pick)?;
    let text = value.as_str().unwrap_or_else(|| value.raw().into());
    Some(excerpt(&text, MAX_SERVICE_TEXT)).filter(|text| !text.is_empty())
}

fn text_answer(call: &Call<'_>, response: &Response, hits: u32) -> Result<Answer, ToolError> {
    if call.tool.output_schema.is_some() {
        let text = "the service sent no JSON, and the tool promises a structured result";
        return Err(ToolError::with(ErrorCode::UpstreamInvalid, text));
    }
    if response.body.is_empty() {
        let text = format!("(status {}, no content)", response.status);
        return Ok(Answer {
            content: content(&text, &[]),
            hits,
            ..Answer::default()
        });
    }
    let kept = &response.body[..shape::boundary(&response.body, client_bytes(call))];
    let mut notes = Vec::new();
    if kept.len() < response.body.len() {
        notes.push(format!(
            "the first {} of {} bytes",
            kept.len(),
            response.body.len()
        ));
    }
    let content = content(&String::from_utf8_lossy(kept), &notes);
    Ok(Answer {
        content,
        truncated: !notes.is_empty(),
        hits,
        ..Answer::default()
    })
}

fn json_answer(call: &Call<'_>, shaped: Shaped, hits: u32) -> Result<Answer, ToolError> {
    let has_schema = call.tool.output_schema.is_some();
    let refused = |code, text: &str| Err(ToolError::with(code, text));
    if has_schema && shaped.cut {
        let text = "the answer is over the limit of the result even with one item of each list";
        return refused(ErrorCode::UpstreamTooLarge, text);
    }
    if has_schema && !shaped.object {
        let text = "the service's answer is no object, and the tool promises a structured result";
        return refused(ErrorCode::UpstreamInvalid, text);
    }
    if let (true, Some(path)) = (has_schema, &shaped.wide) {
        return refused(
            ErrorCode::UpstreamInvalid,
            &format!("{path} is a number out of range in the service's answer"),
        );
    }
    // The text was JSON or a prefix of it, cut at a character: always UTF-8.
    let text = String::from_utf8_lossy(&shaped.json);
    Ok(Answer {
        content: content(&text, &shaped.notes),
        structured: has_schema.then_some(shaped.json),
        is_error: false,
        truncated: !shaped.notes.is_empty(),
        hits,
    })
}

/// The finished `content` array: one text item, with what was left out said behind it.
fn content(text: &str, notes: &[String]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8 + 64);
    out.extend_from_slice(br#"[{"type":"text","text":"#);
    if notes.is_empty() {
        template::push_string(&mut out, text);
    } else {
        let said = format!("{text}\n\n[not complete: {}]", notes.join("; "));
        template::push_string(&mut out, &said);
    }
    out.extend_from_slice(b"}]");
    out
}

/// The deadline of a call that may still take `left`, within the module's own limit.
pub fn deadline(now: Instant, left: Duration, limits: &Limits) -> Instant {
    now + left.min(Duration::from_millis(limits.deadline_ms))
}

#[cfg(test)]
mod tests;
