//! Responses of the admin listener.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use std::convert::Infallible;

/// Body of a response: text, or events without an end.
pub(super) type AdminBody = UnsyncBoxBody<Bytes, Infallible>;

/// Policy of the page: its own files only, no inline script or style, and no page of others around it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Fields of every response.
const FIELDS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    // With `no-referrer`, a browser would send `Origin: null` with the form.
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response<AdminBody> {
    respond(status, "text/plain; charset=utf-8", text.into())
}

pub(super) fn json(value: &impl serde::Serialize) -> Response<AdminBody> {
    match serde_json::to_string_pretty(value) {
        Ok(json) => respond(StatusCode::OK, "application/json", json + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

pub(super) fn respond(
    status: StatusCode,
    media_type: &'static str,
    content: impl Into<Bytes>,
) -> Response<AdminBody> {
    with_body(status, media_type, Full::new(content.into()).boxed_unsync())
}

pub(super) fn with_body(
    status: StatusCode,
    media_type: &'static str,
    body: AdminBody,
) -> Response<AdminBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    for (name, value) in FIELDS {
        fields.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Adds a field.
pub(super) fn with_field(
    mut response: Response<AdminBody>,
    name: HeaderName,
    value: HeaderValue,
) -> Response<AdminBody> {
    response.headers_mut().insert(name, value);
    response
}
