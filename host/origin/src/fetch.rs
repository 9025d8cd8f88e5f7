//! Results of requests to an origin.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// Metadata of an object at its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// Length of the whole object, in bytes.
    pub length: u64,
    /// ObjectValidators of the object.
    pub validators: ObjectValidators,
    /// Media type, as in `Content-Type` (RFC 9110 section 8.3). `None` if the origin has none, or one that says nothing.
    pub media_type: Option<String>,
    /// Freshness of the response.
    pub freshness: FreshnessFields,
}

/// ObjectValidators of an object (RFC 9110 section 8.8).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObjectValidators {
    /// Entity tag, as in `ETag`, with its quotes and the prefix of a weak one.
    pub entity_tag: Option<String>,
    /// Time of the last modification, as in `Last-Modified`.
    pub modified: Option<SystemTime>,
}

/// Fields that say how long a response is fresh (RFC 9111 section 4.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FreshnessFields {
    /// Value of `Cache-Control`, its lines joined by commas.
    pub cache_control: Option<String>,
    /// Age of the response when it arrived, as in `Age`.
    pub age: Duration,
}

/// Response to a request for an object's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadResponse {
    /// The object still has the validators of the request (304).
    NotModified(FreshnessFields),
    /// The object has these metadata.
    Found(ObjectHead),
}

/// Bytes of an object on their way from its origin.
pub struct Fetch {
    /// Metadata of the object.
    pub head: ObjectHead,
    /// Offsets of the bytes, from the first to the one after the last.
    pub range: Range<u64>,
    /// The bytes, exactly as many as the range has. It ends with an error if the origin sends fewer.
    pub body: BoxStream<'static, Result<Bytes, FetchError>>,
}

/// The error of a request to an origin.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The origin has no such object (404, 410).
    #[error("the origin has no such object")]
    NotFound,
    /// The object has changed since its metadata were read: it has another entity tag or another length, or the origin
    /// answered 412.
    #[error("the object has changed at its origin")]
    Changed,
    /// The origin answered a request for a range with the whole object.
    #[error("the origin does not serve ranges of the object")]
    NoRanges,
    /// The origin refused access (401, 403).
    #[error("the origin refuses access: {0}")]
    Denied(String),
    /// The origin cannot be reached, does not answer in time, cut its response, or answered 429 or 5xx. A retry may
    /// succeed.
    #[error("the origin is unavailable: {0}")]
    Unavailable(String),
    /// The origin does not list folders.
    #[error("the origin does not list folders")]
    Unsupported,
    /// The response breaks the rules of HTTP, or cannot be combined with others. It has a wrong `Content-Range` or length, or
    /// a content coding.
    #[error("the origin's response is invalid: {0}")]
    Invalid(String),
}
