//! Errors of a request, with their outcome and the response to the client.

use crate::downstream::Rejection;
use crate::head_size::HeadTooLarge;
use crate::limits::Limit;
#[cfg(feature = "uploads")]
use crate::upload::{error::UploadError, form_error::FormError};
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use millpond_ledger::{LimitExceeded, Outcome, Overloaded};
use std::borrow::Cow;

/// The error of a request without a complete response of the guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    HeadTooLarge(#[from] HeadTooLarge),
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    #[cfg(feature = "uploads")]
    #[error(transparent)]
    Upload(#[from] UploadError),
    #[cfg(feature = "uploads")]
    #[error(transparent)]
    Form(#[from] Box<FormError>),
    #[error("all instances are in use")]
    NoInstance,
    #[error("limit reached: {0}")]
    Limited(Limit),
    #[error("the component trapped: {0}")]
    Trapped(String),
    #[error("the component's response is invalid: {0}")]
    Invalid(#[from] InvalidResponse),
    #[error("the component returned no response")]
    NoResponse,
    #[error("the component returned an error: {0}")]
    WasiHttp(String),
    #[error("the store cannot fetch the media: {0}")]
    Store(#[source] std::io::Error),
}

impl From<LimitExceeded> for RequestError {
    fn from(exceeded: LimitExceeded) -> Self {
        RequestError::Limited(exceeded.into())
    }
}

impl RequestError {
    /// Returns the error of a call into an instance. `limit` is the limit that caused it, if one did.
    pub(crate) fn from_trap(error: &wasmtime::Error, limit: Option<Limit>) -> Self {
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return RequestError::NoInstance;
        }
        match limit {
            Some(limit) => RequestError::Limited(limit),
            None => RequestError::Trapped(one_line(error)),
        }
    }

    /// Outcome of the request.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            RequestError::HeadTooLarge(_)
            | RequestError::Rejected(_)
            | RequestError::Overloaded(_)
            | RequestError::NoInstance => Outcome::Rejected,
            #[cfg(feature = "uploads")]
            RequestError::Upload(error) => error.outcome(),
            #[cfg(feature = "uploads")]
            RequestError::Form(form) => form.error.outcome(),
            RequestError::Limited(_) => Outcome::Limited,
            RequestError::Trapped(_)
            | RequestError::Invalid(_)
            | RequestError::NoResponse
            | RequestError::WasiHttp(_)
            | RequestError::Store(_) => Outcome::Failed,
        }
    }

    /// Status and message for the client. The message reveals nothing about the host.
    pub(crate) fn status(&self) -> (StatusCode, Cow<'static, str>) {
        let (status, message) = match self {
            RequestError::HeadTooLarge(HeadTooLarge::Target) => {
                (StatusCode::URI_TOO_LONG, "Target too long")
            }
            RequestError::HeadTooLarge(HeadTooLarge::Fields) => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "Header fields too large",
            ),
            RequestError::Rejected(rejection) => (rejection.status, rejection.message),
            #[cfg(feature = "uploads")]
            RequestError::Upload(error) => error.status(),
            #[cfg(feature = "uploads")]
            RequestError::Form(form) => form.error.status(),
            RequestError::Overloaded(_) | RequestError::NoInstance => {
                (StatusCode::SERVICE_UNAVAILABLE, "Server is busy")
            }
            RequestError::Limited(limit) if limit.is_transient() => {
                (StatusCode::SERVICE_UNAVAILABLE, "Request took too long")
            }
            RequestError::Limited(limit) => {
                let message = format!("Request limit reached: {limit}");
                return (StatusCode::INTERNAL_SERVER_ERROR, message.into());
            }
            RequestError::Trapped(_)
            | RequestError::Invalid(_)
            | RequestError::NoResponse
            | RequestError::WasiHttp(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "Media component failed")
            }
            RequestError::Store(_) => (StatusCode::BAD_GATEWAY, "Media origin failed"),
        };
        (status, message.into())
    }

    /// `WWW-Authenticate`, if the client has to authenticate.
    pub(crate) fn challenge(&self) -> Option<&'static str> {
        match self {
            #[cfg(feature = "uploads")]
            RequestError::Upload(error) => error.challenge(),
            #[cfg(feature = "uploads")]
            RequestError::Form(form) => form.error.challenge(),
            _ => None,
        }
    }

    /// `Retry-After`, in seconds (RFC 9110 section 10.2.3). `None` if a retry is pointless.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            RequestError::Rejected(rejection) => rejection.retry_after_seconds,
            _ => (self.status().0 == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        }
    }
}

/// The error of a guest's response that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidResponse {
    #[error("status {0} is not a final status")]
    Status(u16),
    #[error("the field name {0:?} is malformed")]
    FieldName(String),
    #[error("the value of the field {0} is malformed")]
    FieldValue(HeaderName),
    #[error("the field {0} is reserved for the connection")]
    ConnectionField(HeaderName),
    #[error("too many fields")]
    TooManyFields,
    #[error("a body part is not a stream of the store")]
    ForeignStream,
    #[error("a body part declares {promised} bytes and has {has}")]
    PartLength { promised: u64, has: u64 },
    #[error("Content-Length is {promised:?} and the body has {has} bytes")]
    ContentLength { promised: HeaderValue, has: u64 },
    #[error("status {0} allows no content")]
    ContentNotAllowed(StatusCode),
}

/// Returns an error and its causes in one line.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    let causes: Vec<String> = error
        .chain()
        .map(|cause| cause.to_string().trim().replace('\n', " "))
        .collect();
    causes.join(": ")
}
