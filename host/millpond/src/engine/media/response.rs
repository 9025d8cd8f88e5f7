//! From what the guest answered to a response head, checked: the guest's word is not taken for any of it.

use super::{Dependency, StoreData, serve};
use crate::body::BodyPart;
use crate::error::InvalidResponse;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

/// A response, and what it takes to make it anew where the guest allows that.
pub(crate) struct CheckedResponse {
    pub(crate) response: Response<Vec<BodyPart>>,
    pub(crate) recipe: Option<Recipe>,
}

/// How a response is made anew without its guest, and on which terms.
pub(crate) struct Recipe {
    /// The guest's terms.
    pub(crate) cacheability: serve::Cacheability,
    /// The source of each part.
    pub(crate) parts: Vec<PartRecipe>,
    /// The objects that the guest opened for it.
    pub(crate) dependencies: Vec<Dependency>,
}

/// The source of a part of a response.
pub(crate) enum PartRecipe {
    /// Bytes that the guest made.
    Bytes(Bytes),
    /// Bytes of an object.
    Object {
        /// Its place among what was opened.
        dependency: Option<usize>,
        /// The first byte.
        offset: u64,
        /// How many.
        length: u64,
    },
}

impl PartRecipe {
    /// Bytes that a part made of it takes, beside its file.
    pub(crate) fn made_bytes(&self) -> usize {
        match self {
            PartRecipe::Bytes(bytes) => size_of::<BodyPart>() + bytes.len(),
            PartRecipe::Object { .. } => size_of::<BodyPart>(),
        }
    }
}

/// Makes a response of a guest's answer, taking the streams out of its instance; and one that can be given again, where
/// that is wanted and allowed.
///
/// # Errors
/// [`InvalidResponse`]: the answer is not sent, not even in part.
pub(crate) fn check(
    guest_response: serve::Response,
    method: &Method,
    is_cacheable: bool,
    state: &mut StoreData,
) -> Result<CheckedResponse, InvalidResponse> {
    let status = StatusCode::from_u16(guest_response.status_code)
        .ok()
        .filter(|status| (200..600).contains(&status.as_u16()))
        .ok_or(InvalidResponse::Status(guest_response.status_code))?;
    let mut fields = check_fields(guest_response.headers)?;
    let mut parts = Vec::with_capacity(guest_response.body.len());
    let mut sources = Vec::with_capacity(guest_response.body.len());
    for part in guest_response.body {
        let (part, source) = take_part(part, state)?;
        parts.push(part);
        sources.push(source);
    }
    check_length(&mut fields, &parts, status, method)?;
    let mut response = Response::new(parts);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    let dependencies = state.take_dependencies();
    let cacheability = guest_response.cacheability.filter(|_| is_cacheable);
    let recipe = cacheability
        .zip(dependencies)
        .map(|(cacheability, dependencies)| Recipe {
            cacheability,
            parts: sources,
            dependencies,
        });
    Ok(CheckedResponse { response, recipe })
}

/// Fields that belong to one connection (RFC 9110 section 7.6.1), which the host alone writes.
const CONNECTION_FIELDS: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fn check_fields(lines: Vec<(String, Vec<u8>)>) -> Result<HeaderMap, InvalidResponse> {
    let mut fields = HeaderMap::with_capacity(lines.len());
    for (name, value) in lines {
        let Ok(name) = HeaderName::try_from(&name) else {
            return Err(InvalidResponse::FieldName(name));
        };
        if CONNECTION_FIELDS.contains(&name) {
            return Err(InvalidResponse::ConnectionField(name));
        }
        let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) else {
            return Err(InvalidResponse::FieldValue(name));
        };
        fields
            .try_append(name, value)
            .map_err(|_| InvalidResponse::TooManyFields)?;
    }
    Ok(fields)
}

/// Sees to it that fields which a component for `wasi:http` gave are not the connection's.
///
/// # Errors
/// [`InvalidResponse::ConnectionField`].
pub(crate) fn check_http(fields: &HeaderMap) -> Result<(), InvalidResponse> {
    let mut connection = CONNECTION_FIELDS.into_iter();
    match connection.find(|name| fields.contains_key(name)) {
        Some(name) => Err(InvalidResponse::ConnectionField(name)),
        None => Ok(()),
    }
}

/// How long a component for `wasi:http` says that its answer is; `None` where it does not. What does not have any
/// content, is of no length.
pub(crate) fn promised_length(head: &http::response::Parts, method: &Method) -> Option<u64> {
    let without_content = matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    if without_content || method == Method::HEAD {
        return Some(0);
    }
    let promised = head.headers.get(header::CONTENT_LENGTH)?;
    promised.to_str().ok()?.parse().ok()
}

fn take_part(
    part: serve::Part,
    state: &mut StoreData,
) -> Result<(BodyPart, PartRecipe), InvalidResponse> {
    match part {
        serve::Part::Bytes(bytes) => {
            let bytes = Bytes::from(bytes);
            Ok((BodyPart::Bytes(bytes.clone()), PartRecipe::Bytes(bytes)))
        }
        serve::Part::Stream(part) => {
            let (stream, dependency) = state
                .take_stream(part.source)
                .ok_or(InvalidResponse::ForeignStream)?;
            if stream.remaining() < part.length {
                return Err(InvalidResponse::PartLength {
                    promised: part.length,
                    has: stream.remaining(),
                });
            }
            let source = PartRecipe::Object {
                dependency,
                offset: stream.offset(),
                length: part.length,
            };
            Ok((BodyPart::Stream(stream.truncated(part.length)), source))
        }
    }
}

/// Sees to it that `Content-Length` is there and true, wherever the status and the method allow content
/// (RFC 9110 section 8.6).
fn check_length(
    fields: &mut HeaderMap,
    parts: &[BodyPart],
    status: StatusCode,
    method: &Method,
) -> Result<(), InvalidResponse> {
    // Parts of the interface's have a length, all of them.
    let has: u64 = parts.iter().filter_map(BodyPart::length).sum();
    let without_content = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if without_content && has > 0 {
        return Err(InvalidResponse::ContentNotAllowed(status));
    }
    if without_content || (method == Method::HEAD && has == 0) {
        return Ok(());
    }
    let mut promises = fields.get_all(header::CONTENT_LENGTH).iter();
    match (promises.next(), promises.next()) {
        (None, _) => {
            fields.insert(header::CONTENT_LENGTH, has.into());
            Ok(())
        }
        (Some(promised), None) if *promised == HeaderValue::from(has) => Ok(()),
        (Some(promised), _) => Err(InvalidResponse::ContentLength {
            promised: promised.clone(),
            has,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn line(name: &str, value: &str) -> (String, Vec<u8>) {
        (name.into(), value.into())
    }

    #[test]
    fn fields_that_could_split_or_steer_the_connection_are_refused() {
        for (name, value) in [
            ("x-a", "b\r\nx-c: d"),
            ("x-a", "b\0"),
            ("x a", "b"),
            ("", "b"),
            ("x-a\r\nx-b", "c"),
            ("Connection", "close"),
            ("transfer-encoding", "chunked"),
            ("Keep-Alive", "1"),
            ("upgrade", "h2c"),
        ] {
            assert!(check_fields(vec![line(name, value)]).is_err(), "{name}");
        }
        let fields = check_fields(vec![line("Vary", "a"), line("vary", "b")]).unwrap();
        assert_eq!(fields.get_all("vary").iter().count(), 2);
    }

    #[test]
    fn the_promised_length_is_the_length() {
        let parts = [
            BodyPart::Bytes(Bytes::from_static(b"ab")),
            BodyPart::Bytes(Bytes::from_static(b"c")),
        ];
        let check = |promised: &[&str], status: StatusCode| {
            let mut fields = HeaderMap::new();
            for promised in promised {
                let promised = HeaderValue::from_str(promised).unwrap();
                fields.append(header::CONTENT_LENGTH, promised);
            }
            check_length(&mut fields, &parts, status, &Method::GET).map(|()| fields)
        };
        for promised in [&[][..], &["3"]] {
            let fields = check(promised, StatusCode::OK).unwrap();
            assert_eq!(fields[header::CONTENT_LENGTH], "3");
        }
        for promised in [&["2"][..], &["4"], &["03"], &["3, 3"], &["3", "3"], &["x"]] {
            assert!(check(promised, StatusCode::OK).is_err(), "{promised:?}");
        }
        assert!(check(&[], StatusCode::NOT_MODIFIED).is_err());
    }
}
