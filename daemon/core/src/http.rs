//! The declarative HTTP request of a tool: parsed templates, no evaluation, no I/O.
//!
//! Owns: [`HttpTool`] and what it is made of. The runner interprets these values; this module only
//! makes sure that they can be interpreted.
//! Promises, after [`HttpTool::check`] (which [`crate::manifest`] calls for every tool it yields):
//! names and literals hold no control character, a header name is a lower-case token that a module
//! may set, nothing is set twice, a read of the service carries no body, counts are within bounds.
//! Does not: encode arguments (each position has its own encoding, in the runner), nor decide where
//! a request may go (a [`crate::binding::Binding`] does, on the finished path).

mod path;
mod template;

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::SlotName;

pub use path::{JsonPath, JsonPathError, Step};
pub(crate) use template::is_path_byte;
pub use template::{ArgName, JsonTemplate, PathTemplate, Piece, Template, TemplateError};

/// Most parameters in one place (query, headers, form) and most picks of a response.
pub const MAX_ITEMS: usize = 64;
/// Most pages that one call may fetch; the module's limit of requests holds as well.
pub const MAX_PAGES: u32 = 64;
/// Longest literal name of a parameter, in bytes.
pub const MAX_NAME: usize = 128;

/// Headers that no module may set: those that carry a credential, those that frame the message,
/// those that the runner sets by itself (RFC 9110, RFC 9112), and those by which a service takes
/// another method, path, host or peer than those that the binding was asked about.
const RESERVED_HEADERS: &[&str] = &[
    "accept-encoding",
    "authorization",
    "client-ip",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "cookie2",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "true-client-ip",
    "upgrade",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-host",
    "x-method",
    "x-method-override",
    "x-proxyuser-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-remote-user",
];

/// How further reserved headers begin.
const RESERVED_PREFIXES: &[&str] = &[
    "cf-connecting-",
    "proxy-",
    "sec-",
    "x-forwarded",
    "x-http-method",
    "x-original-",
    "x-override-",
    "x-rewrite-",
];

/// An HTTP request method (RFC 9110 §9, RFC 5789).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

impl Method {
    /// Every method, in order.
    pub const ALL: [Method; 6] = [
        Method::Get,
        Method::Head,
        Method::Post,
        Method::Put,
        Method::Patch,
        Method::Delete,
    ];

    /// The method's token, upper-case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }

    /// The method with exactly this token; methods are case-sensitive (RFC 9110 §9.1).
    pub fn parse(text: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|m| m.as_str() == text)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One request, repeated for each page where `pages` says so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTool {
    /// The slot whose binding serves the request.
    pub slot: SlotName,
    /// Its method.
    pub method: Method,
    /// Its path, below the binding's host. Whether it is in the binding's prefix is judged when it
    /// is filled in.
    pub path: PathTemplate,
    /// Query parameters, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<Param>,
    /// Header fields; names in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Param>,
    /// The body, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Body>,
    /// How the answer is shaped; left out, the whole body goes back.
    #[serde(default, skip_serializing_if = "Response::is_whole")]
    pub response: Response,
    /// For named statuses, the one field of the service's error that may be shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ErrorPick>,
    /// How further pages are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<Pagination>,
}

/// A literal name and a value with holes. A value that is one hole repeats the parameter for an
/// array argument; an absent argument in any hole leaves the parameter out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// The name, as the service spells it; may hold `[]`.
    pub name: String,
    /// The value.
    pub value: Template,
}

/// The body of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// `application/json`.
    Json(JsonTemplate),
    /// `application/x-www-form-urlencoded`.
    Form(Vec<Param>),
}

/// What of the answer goes back to the client.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Response {
    /// The members of the result; empty: the body as it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pick: Vec<Pick>,
    /// The most items of every array in the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_items: Option<u32>,
    /// The body is text, not JSON; it goes back as one text item and nothing is picked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub text: bool,
}

impl Response {
    fn is_whole(&self) -> bool {
        *self == Response::default()
    }
}

/// One member of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pick {
    /// Where it is in the answer.
    pub from: JsonPath,
    /// Where it goes in the result: names and `[*]` only, a name first. With as many `[*]` as
    /// `from` has, items keep their places (`data[*].id` to `items[*].id`, `data[*].name` to
    /// `items[*].name`); with none, what `from` finds becomes one flat array, or the value itself
    /// where `from` has no `[*]` either.
    pub to: JsonPath,
    /// The most items at each `[*]` of `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<u32>,
}

/// One field of a service's own error text, for one status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorPick {
    /// The status, 400 to 599.
    pub status: u16,
    /// The field.
    pub pick: JsonPath,
}

/// How a service gives a long list in parts. The arrays at `items` are joined; all else is of the
/// first page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Pagination {
    /// Each answer names the next page; an absent, null or empty `next` is the end.
    Cursor {
        /// The query parameter that takes the value of `next`.
        query: String,
        /// Where the answer has it.
        next: JsonPath,
        /// The array that is continued.
        items: JsonPath,
        /// The most pages.
        pages: u32,
    },
    /// Pages or offsets are counted; a page without items is the end.
    Count {
        /// The query parameter that takes the number.
        query: String,
        /// The number of the first page.
        first: u32,
        /// What is added for each next page: 1, or the page's length where the service counts
        /// items.
        step: u32,
        /// The array that is continued.
        items: JsonPath,
        /// The most pages.
        pages: u32,
    },
}

/// What is wrong with a request template as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HttpError {
    /// A name is empty, too long or holds what it must not.
    #[error(
        "{place} name \"{name}\" is not allowed here: 1 to 128 printable ASCII characters (header names: lower-case tokens)"
    )]
    Name {
        /// Query, header, form or pagination.
        place: &'static str,
        /// The name, cut and escaped.
        name: String,
    },
    /// A module may not set this header.
    #[error(
        "header \"{0}\" is not the module's to set; it would carry a credential, frame the message or undo the binding's method, path or host"
    )]
    ReservedHeader(String),
    /// A name occurs twice where that has no meaning.
    #[error("{place} \"{name}\" is set twice; keep one")]
    Twice {
        /// What kind of name.
        place: &'static str,
        /// The name, cut and escaped.
        name: String,
    },
    /// More entries than [`MAX_ITEMS`].
    #[error("{place} has {count} entries; at most 64 are allowed")]
    TooMany {
        /// Which list.
        place: &'static str,
        /// How many it has.
        count: usize,
    },
    /// A header's literal part holds what a header may not.
    #[error("header \"{0}\" has a literal outside printable ASCII")]
    HeaderValue(String),
    /// A body on a method that has none.
    #[error("{0} carries no body; use POST, PUT or PATCH")]
    BodyOn(Method),
    /// A pick cannot be placed.
    #[error(
        "pick to \"{0}\" cannot be placed: use names and [*], a name first, and either no [*] or as many as `from` has"
    )]
    PickTo(String),
    /// Two picks would write one place.
    #[error("picks \"{0}\" and \"{1}\" overlap; give each its own place")]
    PickOverlap(String, String),
    /// Text answers cannot be picked from.
    #[error("a text response has no picks, pages or max_items; drop them or drop `text`")]
    TextShaped,
    /// An error pick for a status that is none.
    #[error("error pick for status {0}; use 400 to 599, each once")]
    ErrorStatus(u16),
    /// A path that must name one place has a `*`.
    #[error("path \"{0}\" must name one place; drop the *")]
    ManyPlaces(String),
    /// A count is zero or over its bound.
    #[error("{what} is {value}; use 1 to {max}")]
    Count {
        /// Which count.
        what: &'static str,
        /// Its value.
        value: u32,
        /// Its bound.
        max: u32,
    },
}

impl HttpTool {
    /// Every argument that the request names, as often as it does.
    pub fn holes(&self) -> impl Iterator<Item = &ArgName> {
        let params = self.query.iter().chain(&self.headers);
        let (json, form) = match &self.body {
            Some(Body::Json(json)) => (Some(json), &[][..]),
            Some(Body::Form(form)) => (None, &form[..]),
            None => (None, &[][..]),
        };
        self.path
            .holes()
            .chain(params.chain(form).flat_map(|p| p.value.holes()))
            .chain(json.into_iter().flat_map(JsonTemplate::holes))
    }

    /// Checks what the parts cannot know alone; the module's promises above are its list.
    pub fn check(&self) -> Result<(), HttpError> {
        check_params("query", &self.query, param_name)?;
        check_params("header", &self.headers, is_token)?;
        self.check_headers()?;
        match &self.body {
            Some(_) if matches!(self.method, Method::Get | Method::Head) => {
                return Err(HttpError::BodyOn(self.method));
            }
            Some(Body::Form(form)) => check_params("form", form, param_name)?,
            Some(Body::Json(_)) | None => {}
        }
        self.check_response()?;
        self.check_errors()?;
        self.pages
            .as_ref()
            .map_or(Ok(()), |pages| self.check_pages(pages))
    }

    fn check_headers(&self) -> Result<(), HttpError> {
        for (i, header) in self.headers.iter().enumerate() {
            let name = &header.name;
            if is_reserved_header(name) {
                return Err(HttpError::ReservedHeader(name.clone()));
            }
            if self.headers[..i].iter().any(|other| other.name == *name) {
                return Err(HttpError::Twice {
                    place: "header",
                    name: name.clone(),
                });
            }
            let printable = |p: &Piece| match p {
                Piece::Literal(text) => text.bytes().all(|b| (0x20..0x7f).contains(&b)),
                Piece::Hole(_) => true,
            };
            if !header.value.pieces().iter().all(printable) {
                return Err(HttpError::HeaderValue(name.clone()));
            }
        }
        Ok(())
    }

    fn check_response(&self) -> Result<(), HttpError> {
        let response = &self.response;
        let shaped =
            !response.pick.is_empty() || response.max_items.is_some() || self.pages.is_some();
        if response.text && shaped {
            return Err(HttpError::TextShaped);
        }
        count("max_items", response.max_items, u32::MAX)?;
        if response.pick.len() > MAX_ITEMS {
            return Err(HttpError::TooMany {
                place: "pick",
                count: response.pick.len(),
            });
        }
        for (i, pick) in response.pick.iter().enumerate() {
            count("max_items", pick.max_items, u32::MAX)?;
            let stars = pick.to.stars();
            let placed = matches!(pick.to.steps().first(), Some(Step::Name(_)))
                && pick.to.steps().iter().all(|s| !matches!(s, Step::Index(_)))
                && (stars == 0 || stars == pick.from.stars());
            if !placed {
                return Err(HttpError::PickTo(pick.to.to_string()));
            }
            if let Some(other) = response.pick[..i]
                .iter()
                .find(|other| overlap(&other.to, &pick.to))
            {
                return Err(HttpError::PickOverlap(
                    other.to.to_string(),
                    pick.to.to_string(),
                ));
            }
        }
        Ok(())
    }

    fn check_errors(&self) -> Result<(), HttpError> {
        if self.errors.len() > MAX_ITEMS {
            return Err(HttpError::TooMany {
                place: "errors",
                count: self.errors.len(),
            });
        }
        for (i, error) in self.errors.iter().enumerate() {
            let twice = self.errors[..i]
                .iter()
                .any(|other| other.status == error.status);
            if !(400..600).contains(&error.status) || twice {
                return Err(HttpError::ErrorStatus(error.status));
            }
            one_place(&error.pick)?;
        }
        Ok(())
    }

    fn check_pages(&self, pages: &Pagination) -> Result<(), HttpError> {
        let (query, items, most) = match pages {
            Pagination::Cursor {
                query,
                next,
                items,
                pages,
            } => {
                one_place(next)?;
                (query, items, *pages)
            }
            Pagination::Count {
                query,
                step,
                items,
                pages,
                ..
            } => {
                count("step", Some(*step), 10_000)?;
                (query, items, *pages)
            }
        };
        count("pages", Some(most), MAX_PAGES)?;
        one_place(items)?;
        if !param_name(query) {
            return Err(HttpError::Name {
                place: "pagination",
                name: crate::text::excerpt(query, 48),
            });
        }
        if self.query.iter().any(|p| p.name == *query) {
            return Err(HttpError::Twice {
                place: "query",
                name: crate::text::excerpt(query, 48),
            });
        }
        Ok(())
    }
}

fn check_params(
    place: &'static str,
    params: &[Param],
    valid: impl Fn(&str) -> bool,
) -> Result<(), HttpError> {
    if params.len() > MAX_ITEMS {
        return Err(HttpError::TooMany {
            place,
            count: params.len(),
        });
    }
    match params.iter().find(|p| !valid(&p.name)) {
        Some(p) => Err(HttpError::Name {
            place,
            name: crate::text::excerpt(&p.name, 48),
        }),
        None => Ok(()),
    }
}

fn count(what: &'static str, value: Option<u32>, max: u32) -> Result<(), HttpError> {
    match value {
        Some(value) if value == 0 || value > max => Err(HttpError::Count { what, value, max }),
        _ => Ok(()),
    }
}

fn one_place(path: &JsonPath) -> Result<(), HttpError> {
    if path.stars() == 0 {
        Ok(())
    } else {
        Err(HttpError::ManyPlaces(path.to_string()))
    }
}

/// One path is the other or leads into it, or they disagree on whether a place is an array.
fn overlap(a: &JsonPath, b: &JsonPath) -> bool {
    for (x, y) in a.steps().iter().zip(b.steps()) {
        match (x, y) {
            (Step::Name(x), Step::Name(y)) if x != y => return false,
            (Step::Name(_), Step::Name(_)) | (Step::Each, Step::Each) => {}
            _ => return true,
        }
    }
    true
}

/// A name that stands in a query or a form: printable ASCII without space; the runner encodes it.
pub(crate) fn plain_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
}

/// The same, for what a module names: not the parameter that many frameworks take for the method.
fn param_name(name: &str) -> bool {
    plain_name(name) && !name.eq_ignore_ascii_case("_method")
}

/// A header name in lower case (RFC 9110 §5.6.2, token).
pub(crate) fn is_token(name: &str) -> bool {
    let token =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(token)
}

/// A module may not set it, however it is spelled: in upper case, or with `_` for `-`, which many
/// services take for the same (RFC 3875 §4.1.18).
pub fn is_reserved_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    RESERVED_HEADERS.contains(&name.as_str())
        || RESERVED_PREFIXES.iter().any(|p| name.starts_with(p))
}

#[cfg(test)]
mod tests;
