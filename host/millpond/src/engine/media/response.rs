//! Validation of a guest's response. The host does not trust any part of it.

use super::{Dependency, StoreData, serve};
use crate::body::BodyPart;
use crate::error::InvalidResponse;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

/// A valid response, with the recipe to make it again if the guest allows that.
pub(crate) struct CheckedResponse {
    pub(crate) response: Response<Vec<BodyPart>>,
    pub(crate) recipe: Option<Recipe>,
}

/// Recipe to make a response again without its guest.
pub(crate) struct Recipe {
    /// Terms of the guest.
    pub(crate) cacheability: serve::Cacheability,
    /// Recipe of each part.
    pub(crate) parts: Vec<PartRecipe>,
    /// Lookups of the guest.
    pub(crate) dependencies: Vec<Dependency>,
}

/// Recipe of a part of a response.
#[derive(Debug)]
pub(crate) enum PartRecipe {
    /// Bytes that the guest made.
    Bytes(Bytes),
    /// Bytes of an object.
    Object {
        /// Index of the object's dependency.
        dependency: Option<usize>,
        /// Offset of the first byte.
        offset: u64,
        /// Length, in bytes.
        length: u64,
    },
}

impl PartRecipe {
    /// Memory of a part made from the recipe, without its file, in bytes.
    pub(crate) fn made_bytes(&self) -> usize {
        match self {
            PartRecipe::Bytes(bytes) => size_of::<BodyPart>() + bytes.len(),
            PartRecipe::Object { .. } => size_of::<BodyPart>(),
        }
    }
}

/// Validates a guest's response, and takes its streams out of the instance. With `is_cacheable`, the result has a
/// recipe if the guest allows that.
///
/// # Errors
/// [`InvalidResponse`]. No part of the response is sent then.
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

/// Fields of the connection (RFC 9110 section 7.6.1), which only the host writes.
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

/// Checks that a component of `wasi:http` sets no fields of the connection.
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

/// Returns the length of a response of `wasi:http`. `None` if it has no `Content-Length`. Zero if the response has no
/// content.
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

/// Checks `Content-Length`, and adds it if it is missing, unless the status or the method exclude content (RFC 9110
/// section 8.6).
fn check_length(
    fields: &mut HeaderMap,
    parts: &[BodyPart],
    status: StatusCode,
    method: &Method,
) -> Result<(), InvalidResponse> {
    // Every part of a guest of `media-serve` has a length.
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
