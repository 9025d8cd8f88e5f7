//! Requests and responses (`wit/media-serve.wit`).

use crate::imports::Timestamp;
use http::{HeaderName, StatusCode, header};
use serde::Serialize;

/// One field line: name and value.
pub type HeaderLine = (String, Vec<u8>);

/// The head of a request: `record request` of `wit/media-serve.wit`.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Method, case-sensitive.
    pub method: &'a str,
    /// Path and query in origin-form, or `*`.
    pub path_with_query: &'a str,
    /// Field lines in the order in which they were received.
    pub headers: &'a [HeaderLine],
    /// Time at which the head was complete.
    pub received: Timestamp,
    /// An unpredictable number.
    pub random: u64,
    /// The client's address, if the host knows it.
    pub client: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Makes a request of a head alone, as in a test.
    #[must_use]
    pub fn from_head(method: &'a str, path_with_query: &'a str, headers: &'a [HeaderLine]) -> Self {
        Request {
            method,
            path_with_query,
            headers,
            received: Timestamp(0),
            random: 0,
            client: None,
        }
    }

    /// Makes the same request for another path and query.
    #[must_use]
    pub fn with_target<'b>(&self, path_with_query: &'b str) -> Request<'b>
    where
        'a: 'b,
    {
        Request {
            path_with_query,
            ..*self
        }
    }

    /// Returns the path, and the query if there is one.
    #[must_use]
    pub fn path_and_query(&self) -> (&'a str, Option<&'a str>) {
        match self.path_with_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.path_with_query, None),
        }
    }

    /// Returns the values of all lines of a field, in order (RFC 9110 section 5.3).
    pub fn values(&self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.headers
            .iter()
            .filter(move |(line, _)| line.eq_ignore_ascii_case(name.as_str()))
            .map(|(_, value)| value.as_slice())
    }

    /// Returns whether the request has a field.
    #[must_use]
    pub fn has(&self, name: &'a HeaderName) -> bool {
        self.values(name).next().is_some()
    }
}

/// A response: `record response` of `wit/media-serve.wit`. `S` is a stream handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<S> {
    /// Status code.
    pub status: StatusCode,
    /// Field lines.
    pub headers: Vec<(HeaderName, String)>,
    /// Content, part by part.
    pub body: Vec<Part<S>>,
    /// Conditions for storing the response.
    pub cacheability: Option<Cacheability>,
}

/// One part of a body: `variant part` of `wit/media-serve.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<S> {
    /// Bytes that the component made.
    Bytes(Vec<u8>),
    /// The first `length` bytes of a stream.
    Stream {
        /// Stream of the store.
        source: S,
        /// Number of bytes to send.
        length: u64,
    },
}

/// Conditions for storing a response: `record cacheability` of `wit/media-serve.wit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cacheability {
    /// Names of the request fields that the response depends on, in lower case.
    pub vary: &'static [&'static str],
    /// Freshness lifetime, in milliseconds.
    pub max_age_ms: u32,
}

impl<S> Response<S> {
    /// Makes a response without content. It has one field, `X-Content-Type-Options`.
    ///
    /// Every response carries that field, so that no browser runs as a script what the store calls a picture.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Response {
            status,
            headers: Vec::with_capacity(16),
            body: Vec::new(),
            cacheability: None,
        }
        .with(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// Makes an error response in JSON: `{"error": "…"}`.
    ///
    /// No cache may store it (RFC 9111 section 5.2.2.5): an error that outlives its cause is an outage.
    #[must_use]
    pub fn error(status: StatusCode, message: &'static str) -> Self {
        Self::new(status)
            .with(header::CACHE_CONTROL, "no-store")
            .with_json(&ErrorBody { error: message })
    }

    /// Adds a field line.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the content to bytes of a media type.
    #[must_use]
    pub fn with_bytes(self, media_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let mut response = self
            .with(header::CONTENT_TYPE, media_type)
            .with(header::CONTENT_LENGTH, bytes.len().to_string());
        response.body = vec![Part::Bytes(bytes)];
        response
    }

    /// Sets the content to a value in JSON.
    #[must_use]
    pub fn with_json(self, value: &impl Serialize) -> Self {
        // Serialization of the types that are used here cannot fail: they have text keys and no maps.
        let json = serde_json::to_vec(value).unwrap_or_default();
        self.with_bytes("application/json", json)
    }

    /// Removes the content if the method is `HEAD`, and keeps the fields (RFC 9110 section 9.3.2).
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
