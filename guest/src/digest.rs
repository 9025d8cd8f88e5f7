//! Digest fields (RFC 9530): of the representation, which the store knows, and of the content if it is the same.
//!
//! No digest is computed here, since that would need to read media.

use crate::imports::Info;
use crate::message::{Request, Response};
use base64ct::{Base64, Encoding};
use http::{HeaderName, StatusCode};

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");
const WANT_CONTENT_DIGEST: HeaderName = HeaderName::from_static("want-content-digest");

/// Adds `Repr-Digest` to a response with all or part of the representation, unless the request declines it.
///
/// Adds `Content-Digest` if the request wants it and the content is the whole representation.
#[must_use]
pub(crate) fn digests<S>(
    mut response: Response<S>,
    request: &Request<'_>,
    info: &Info,
) -> Response<S> {
    let Some(value) = info.digest.as_deref().and_then(field_value) else {
        return response;
    };
    if response.status == StatusCode::OK
        && request.method == "GET"
        && wants(request, &WANT_CONTENT_DIGEST) == Some(true)
    {
        response = response.with(CONTENT_DIGEST, value.as_str());
    }
    if wants(request, &WANT_REPR_DIGEST) == Some(false) {
        return response;
    }
    response.with(REPR_DIGEST, value)
}

/// `sha-256=:<base64>:`, a dictionary of structured fields.
fn field_value(hexadecimal: &str) -> Option<String> {
    let mut digest = [0; 32];
    let digest = base16ct::lower::decode(hexadecimal, &mut digest).ok()?;
    Some(format!("sha-256=:{}:", Base64::encode_string(digest)))
}

/// Returns whether the request wants a SHA-256, by a weight above 0. Returns `None` if it has no preference.
fn wants(request: &Request<'_>, name: &HeaderName) -> Option<bool> {
    request
        .values(name)
        .filter_map(|value| str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
        .find_map(|member| {
            let (algorithm, weight) = member.trim().split_once('=')?;
            (algorithm == "sha-256").then(|| weight.trim() != "0")
        })
}
