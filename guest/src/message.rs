//! A request's head, a response, and the fields they share (`wit/media-serve.wit`).

use crate::imports::Timestamp;
use http::{HeaderName, StatusCode, header};
use serde::Serialize;

/// One field line: name and value.
pub type FieldLine = (String, Vec<u8>);

/// A request's head: `record request` in `wit/media-serve.wit`.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method, case-sensitive.
    pub method: &'a str,
    /// Path and query in origin-form, or `*`.
    pub target: &'a str,
    /// The field lines in the order they came.
    pub fields: &'a [FieldLine],
    /// When the head was complete.
    pub received: Timestamp,
    /// A number that nobody can guess.
    pub nonce: u64,
    /// The client's address.
    pub client: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// A request of which no more is known than its head, as in a test.
    #[must_use]
    pub fn of_head(method: &'a str, target: &'a str, fields: &'a [FieldLine]) -> Self {
        Request {
            method,
            target,
            fields,
            received: Timestamp(0),
            nonce: 0,
            client: None,
        }
    }

    /// The path and the query of the target.
    #[must_use]
    pub fn path_and_query(&self) -> (&'a str, Option<&'a str>) {
        match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target, None),
        }
    }

    /// The values of every line of that field, in order (RFC 9110 section 5.3).
    pub fn values(&self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.fields
            .iter()
            .filter(move |(line, _)| line.eq_ignore_ascii_case(name.as_str()))
            .map(|(_, value)| value.as_slice())
    }

    /// Whether the request has that field.
    #[must_use]
    pub fn has(&self, name: &'a HeaderName) -> bool {
        self.values(name).next().is_some()
    }
}

/// A response: `record response` in `wit/media-serve.wit`. `S` is a handle on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<S> {
    /// The status code.
    pub status: StatusCode,
    /// The field lines.
    pub fields: Vec<(HeaderName, String)>,
    /// The content, part after part.
    pub body: Vec<Part<S>>,
    /// Whether the host may give this answer again.
    pub reuse: Option<Reuse>,
}

/// One piece of a body: `variant part` in `wit/media-serve.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<S> {
    /// Bytes made by the component.
    Bytes(Vec<u8>),
    /// The first `length` bytes of a stream.
    Stream {
        /// Where the bytes come from.
        source: S,
        /// How many bytes are taken.
        length: u64,
    },
}

/// The terms on which a host may give an answer again: `record reuse` in `wit/media-serve.wit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    /// The request fields on which the answer depended, in lower case.
    pub depends_on: &'static [&'static str],
    /// How long it holds, in milliseconds.
    pub valid_for_ms: u32,
}

impl<S> Response<S> {
    /// A response without content and without fields of its own but `X-Content-Type-Options`, which every
    /// response carries: what a store calls a picture is never run as a script.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Response {
            status,
            fields: Vec::with_capacity(16),
            body: Vec::new(),
            reuse: None,
        }
        .with(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// An error, told as JSON: `{"error": "…"}`. It is never stored by a cache for longer than the next
    /// request (RFC 9111 section 5.2.2.5): an error that outlives its cause is an outage.
    #[must_use]
    pub fn error(status: StatusCode, message: &'static str) -> Self {
        Self::new(status)
            .with(header::CACHE_CONTROL, "no-store")
            .with_json(&ErrorBody { error: message })
    }

    /// The same with one more field line.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// The same with that value as its content, in JSON.
    #[must_use]
    pub fn with_json(self, value: &impl Serialize) -> Self {
        let json = serde_json::to_vec(value).unwrap_or_default();
        let mut response = self
            .with(header::CONTENT_TYPE, "application/json")
            .with(header::CONTENT_LENGTH, json.len().to_string());
        response.body = vec![Part::Bytes(json)];
        response
    }

    /// The same, when the request asked for that: without content for `HEAD`, fields unchanged
    /// (RFC 9110 section 9.3.2).
    #[must_use]
    pub fn for_method(mut self, method: &str) -> Self {
        if method == "HEAD" {
            self.body.clear();
        }
        self
    }
}

#[derive(Serialize)]
struct ErrorBody {
    error: &'static str,
}
