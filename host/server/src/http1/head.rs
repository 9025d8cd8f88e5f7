//! Whether a request's head, which the parser could read, is one that RFC 9110 and RFC 9112 allow an answer to.
//!
//! It is asked of what came over a connection of ours. An embedder's own requests are the embedder's to judge.

use crate::http1::framing::{Framing, FramingError};
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{Method, StatusCode, Uri, Version};

/// Content that a request may announce, in bytes: none is ever used, and it is read only after the answer, so that
/// the client gets to see that. 413 beyond.
pub(crate) const CONTENT_BYTES: usize = 64 * 1024;

/// Looks a head over.
///
/// # Errors
/// [`HeadError`], and the connection ends with the answer.
pub(crate) fn check(head: &Parts, framing: Framing) -> Result<(), HeadError> {
    if let Framing::Invalid(fault) = framing {
        return Err(HeadError::Framing(fault));
    }
    check_coding(&head.headers)?;
    check_host(&head.headers, head.version)?;
    check_target(&head.method, &head.uri)?;
    check_expectation(&head.headers)?;
    check_length(&head.headers)
}

/// Why a head gets no answer of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("malformed request head: {0}")]
    Framing(FramingError),
    #[error("Transfer-Encoding is not chunked")]
    Coding,
    #[error("there is not exactly one Host field")]
    HostCount,
    #[error("the Host field is not a host")]
    Host,
    #[error("the request target does not fit the method")]
    Target,
    #[error("CONNECT is not supported")]
    Connect,
    #[error("unknown expectation")]
    Expectation,
    #[error("the request content is larger than {CONTENT_BYTES} bytes")]
    Content,
}

impl HeadError {
    /// The status, and what a client is told.
    pub(crate) fn status(self) -> (StatusCode, &'static str) {
        match self {
            HeadError::Framing(FramingError::Plain) => (
                StatusCode::BAD_REQUEST,
                "A plain HTTP request was sent to an HTTPS port",
            ),
            HeadError::Framing(_) | HeadError::Coding => {
                (StatusCode::BAD_REQUEST, "Malformed request")
            }
            HeadError::HostCount | HeadError::Host => {
                (StatusCode::BAD_REQUEST, "Missing or invalid Host field")
            }
            HeadError::Target => (StatusCode::BAD_REQUEST, "Invalid request target"),
            HeadError::Connect => (StatusCode::NOT_IMPLEMENTED, "CONNECT is not supported"),
            HeadError::Expectation => (StatusCode::EXPECTATION_FAILED, "Unknown expectation"),
            HeadError::Content => (StatusCode::PAYLOAD_TOO_LARGE, "Content too large"),
        }
    }
}

/// `chunked`, once, or nothing: whatever else the parser may get along with, someone before us may not
/// (RFC 9112 sections 6.1 and 7).
fn check_coding(fields: &HeaderMap) -> Result<(), HeadError> {
    let mut codings = fields.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(HeadError::Coding),
    }
}

/// One `Host` that names a host, which only HTTP/1.0 may leave out (RFC 9112 section 3.2).
fn check_host(fields: &HeaderMap, version: Version) -> Result<(), HeadError> {
    let mut hosts = fields.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => Err(HeadError::Host),
        (None, _) if version < Version::HTTP_11 => Ok(()),
        _ => Err(HeadError::HostCount),
    }
}

/// Whether it is `uri-host [ ":" port ]` (RFC 9110 section 7.2), and the host not empty (section 4.2.1).
pub(crate) fn is_host(value: &[u8]) -> bool {
    is_plain_host(value) || is_any_host(value)
}

/// Whether it is letters, digits, `.` and `-`, with a port or without: what most are.
fn is_plain_host(value: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let end = value.iter().position(|byte| !is_of_name(byte));
    let (name, rest) = value.split_at(end.unwrap_or(value.len()));
    // Four digits are a port, whatever they are.
    let is_port = |port: &[u8]| match port {
        [b'1'..=b'5', rest @ ..] | rest => rest.len() <= 4 && rest.iter().all(u8::is_ascii_digit),
    };
    !name.is_empty() && (rest.is_empty() || rest.strip_prefix(b":").is_some_and(is_port))
}

fn is_any_host(value: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(value) else {
        return false;
    };
    let port = authority.as_str().strip_prefix(authority.host());
    let port = port.map(|rest| rest.strip_prefix(':').unwrap_or(rest));
    // `user@host` has no such prefix.
    !authority.host().is_empty()
        && port.is_some_and(|port| port.is_empty() || authority.port_u16().is_some())
}

/// The forms of RFC 9112 section 3.2: origin-form, absolute-form, and `*` for `OPTIONS`. The authority of an
/// absolute-form takes precedence over `Host`; since one set of media is served whatever the host, neither matters
/// beyond being well-formed.
fn check_target(method: &Method, target: &Uri) -> Result<(), HeadError> {
    if method == Method::CONNECT {
        return Err(HeadError::Connect);
    }
    match (target.scheme(), target.authority()) {
        (None, None) if target.path() == "*" => (method == Method::OPTIONS)
            .then_some(())
            .ok_or(HeadError::Target),
        (None, None) if target.path().starts_with('/') => Ok(()),
        (Some(scheme), Some(authority))
            if (*scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
                && !authority.as_str().contains('@') =>
        {
            Ok(())
        }
        _ => Err(HeadError::Target),
    }
}

/// `100-continue` is the only expectation there is (RFC 9110 section 10.1.1). Nobody waits for content here, so it
/// is answered with the final status.
fn check_expectation(fields: &HeaderMap) -> Result<(), HeadError> {
    let is_known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let all_known = fields.get_all(header::EXPECT).iter().all(is_known);
    all_known.then_some(()).ok_or(HeadError::Expectation)
}

/// What is announced is no more than what is read after the answer (RFC 9110 section 15.5.14).
fn check_length(fields: &HeaderMap) -> Result<(), HeadError> {
    let announced = |value: &HeaderValue| value.to_str().ok()?.trim().parse::<u64>().ok();
    match fields.get(header::CONTENT_LENGTH).map(announced) {
        Some(Some(bytes)) if bytes > CONTENT_BYTES as u64 => Err(HeadError::Content),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts() {
        for host in ["a", "a.b-c_d:80", "a:", "127.0.0.1", "[::1]", "[::1]:80"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "u@a", "u:p@a:80", "a/b", "a b", "a,b c", "a:b", "a:99999", "a:80:80",
            "::1", "[::1", "a?b", "a#b", "http://a",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_host_is_a_host(text in "[a-z0-9.-]{0,4}(:[0-9]{0,6})?|[a:/@.1\\[-]{0,6}") {
            prop_assert!(!is_plain_host(text.as_bytes()) || is_any_host(text.as_bytes()));
        }
    }
}
