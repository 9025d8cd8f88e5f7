//! Fields of a response that are passed on to `object_store`.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED};

/// Fields that `object_store` needs of the response for an object. The others may hold bytes that it fails on.
const PASSED_ON: [HeaderName; 5] = [
    CONTENT_LENGTH,
    CONTENT_RANGE,
    ETAG,
    LAST_MODIFIED,
    // Tells a folder of Azure from an object.
    HeaderName::from_static("x-ms-resource-type"),
];

/// Returns the fields that are passed on, without malformed ones.
///
/// A weak entity tag is left out. `object_store` would resume a body under it, and combine bytes that may differ (RFC 9110
/// section 15.3.7.3).
pub(super) fn passed_on(fields: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for name in PASSED_ON {
        let text = |value: &HeaderValue| value.to_str().is_ok_and(|text| is_passed(&name, text));
        if let Some(value) = fields.get(&name).filter(|value| text(value)) {
            passed.insert(name, value.clone());
        }
    }
    passed
}

fn is_passed(name: &HeaderName, text: &str) -> bool {
    match *name {
        CONTENT_RANGE => is_byte_range(text),
        // A malformed date is as none (RFC 9110 section 8.8.2.1).
        LAST_MODIFIED => httpdate::parse_http_date(text).is_ok(),
        ETAG => !text.starts_with("W/"),
        _ => true,
    }
}

/// Whether a value of `Content-Range` has a range and the length of the whole (RFC 9110 section 14.4).
fn is_byte_range(text: &str) -> bool {
    let parsed = || {
        let (range, complete) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((digits(first)?, digits(last)?, digits(complete)?))
    };
    parsed().is_some_and(|(first, last, complete)| first <= last && last < complete)
}

/// Returns the number that a text of digits is.
fn digits(text: &str) -> Option<u64> {
    let are_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn passed(name: &'static str, value: &[u8]) -> bool {
        let mut fields = HeaderMap::new();
        fields.insert(name, HeaderValue::from_bytes(value).unwrap());
        !passed_on(&fields).is_empty()
    }

    #[test]
    fn a_range_that_overflows_reaches_no_parser() {
        for (value, expected) in [
            (&b"bytes 0-9/10"[..], true),
            (b"bytes 0-10/10", false),
            (b"bytes 9-0/10", false),
            (b"bytes 0-18446744073709551615/18446744073709551615", false),
            (b"bytes 0-9/*", false),
            (b"bytes */10", false),
            (b"bytes +1-9/10", false),
            (b"\xff", false),
        ] {
            assert_eq!(passed("content-range", value), expected, "{value:?}");
        }
    }

    #[test]
    fn a_weak_tag_a_malformed_date_and_other_fields_are_left_out() {
        for (name, value, expected) in [
            ("etag", &b"\"a\""[..], true),
            ("etag", b"W/\"a\"", false),
            ("last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("last-modified", b"yesterday", false),
            ("content-length", b"5", true),
            ("content-disposition", b"\xff", false),
            ("x-amz-meta-a", b"\xff", false),
        ] {
            assert_eq!(passed(name, value), expected, "{name}");
        }
    }
}
