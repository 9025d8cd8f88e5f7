//! Conditional requests, evaluated in the order of RFC 9110 section 13.2.2.

use crate::message::Request;
use http::{HeaderName, header};
use std::time::SystemTime;

/// Result of the preconditions of a request (RFC 9110 section 13.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evaluation {
    /// The conditions hold.
    Proceed {
        /// Whether a `Range` field applies: false if `If-Range` does not match (RFC 9110 section 13.1.5).
        range_applies: bool,
    },
    /// The client has a current copy: 304.
    NotModified,
    /// The representation is another than the client assumes: 412.
    PreconditionFailed,
}

/// Validators of the selected representation (RFC 9110 section 8.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Validators {
    /// Entity tag.
    pub(crate) etag: EntityTag,
    /// Modification time, in whole seconds, if the representation has one.
    pub(crate) last_modified: Option<SystemTime>,
}

/// An entity tag (RFC 9110 section 8.8.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntityTag {
    /// Whether the tag is weak: two contents may share it.
    pub(crate) is_weak: bool,
    /// Opaque part, with its quotes.
    pub(crate) quoted: String,
}

impl EntityTag {
    /// Makes a strong tag of an opaque part. Characters that a tag must not contain are left out.
    #[must_use]
    pub(crate) fn strong(opaque: &str) -> Self {
        let is_etagc = |character: &char| character.is_ascii_graphic() && *character != '"';
        let mut quoted = String::with_capacity(opaque.len() + 2);
        quoted.push('"');
        quoted.extend(opaque.chars().filter(is_etagc));
        quoted.push('"');
        EntityTag {
            is_weak: false,
            quoted,
        }
    }

    /// Makes a weak tag of an opaque part, likewise.
    #[must_use]
    pub(crate) fn weak(opaque: &str) -> Self {
        EntityTag {
            is_weak: true,
            ..EntityTag::strong(opaque)
        }
    }

    /// Value of an `ETag` field.
    #[must_use]
    pub(crate) fn field_value(&self) -> String {
        let mark = if self.is_weak { "W/" } else { "" };
        format!("{mark}{}", self.quoted)
    }
}

/// Evaluates the conditions of a `GET` or `HEAD` request.
#[must_use]
pub(crate) fn evaluate(request: &Request<'_>, validators: &Validators) -> Evaluation {
    if request.has(&header::IF_MATCH) {
        if !lists_etag(request, &header::IF_MATCH, validators, Comparison::Strong) {
            return Evaluation::PreconditionFailed;
        }
    } else if let (Some(since), Some(modified)) = (
        date(request, &header::IF_UNMODIFIED_SINCE),
        validators.last_modified,
    ) && modified > since
    {
        return Evaluation::PreconditionFailed;
    }

    if request.has(&header::IF_NONE_MATCH) {
        if lists_etag(
            request,
            &header::IF_NONE_MATCH,
            validators,
            Comparison::Weak,
        ) {
            return Evaluation::NotModified;
        }
    } else if let (Some(since), Some(modified)) = (
        date(request, &header::IF_MODIFIED_SINCE),
        validators.last_modified,
    ) && modified <= since
    {
        return Evaluation::NotModified;
    }

    Evaluation::Proceed {
        range_applies: if_range_matches(request, validators),
    }
}

/// Evaluates `If-Range`, which needs a strong match: an entity tag by the strong comparison, or the exact date (RFC 9110
/// section 13.1.5).
fn if_range_matches(request: &Request<'_>, validators: &Validators) -> bool {
    let mut values = request.values(&header::IF_RANGE);
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => {
            !validators.etag.is_weak && value == validators.etag.quoted.as_bytes()
                || validators.last_modified.is_some()
                    && date(request, &header::IF_RANGE) == validators.last_modified
        }
        (Some(_), Some(_)) => false,
    }
}

/// Parses a field that is one HTTP-date (RFC 9110 section 5.6.7).
///
/// Returns `None` if the field is absent, malformed or repeated, as sections 13.1.3 and 13.1.4 require.
fn date(request: &Request<'_>, name: &HeaderName) -> Option<SystemTime> {
    let mut values = request.values(name);
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    httpdate::parse_http_date(str::from_utf8(value).ok()?).ok()
}

/// Comparison of two entity tags (RFC 9110 section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// Equal, and neither is weak.
    Strong,
    /// Equal but for weakness.
    Weak,
}

/// Returns whether a field that is `*` or a list of entity tags contains the current tag.
///
/// Parsing stops at the first malformed tag, and malformed tags match nothing. `If-Match` therefore never succeeds by
/// mistake, and a client with a malformed `If-None-Match` gets the whole representation.
fn lists_etag(
    request: &Request<'_>,
    name: &HeaderName,
    validators: &Validators,
    comparison: Comparison,
) -> bool {
    request.values(name).any(|value| {
        value.trim_ascii() == b"*" || {
            EntityTags { rest: value }.any(|tag| {
                tag.quoted == validators.etag.quoted.as_bytes()
                    && !((tag.is_weak || validators.etag.is_weak)
                        && comparison == Comparison::Strong)
            })
        }
    })
}

struct ListedTag<'a> {
    is_weak: bool,
    quoted: &'a [u8],
}

/// Entity tags of a list (RFC 9110 sections 5.6.1 and 8.8.3), up to the first malformed one.
struct EntityTags<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for EntityTags<'a> {
    type Item = ListedTag<'a>;

    fn next(&mut self) -> Option<ListedTag<'a>> {
        let is_delimiter = |byte: &u8| matches!(byte, b',' | b' ' | b'\t');
        let start = self.rest.iter().position(|byte| !is_delimiter(byte))?;
        let element = &self.rest[start..];
        self.rest = &[];
        let (is_weak, tag) = match element.strip_prefix(b"W/") {
            Some(tag) => (true, tag),
            None => (false, element),
        };
        let opaque = tag.strip_prefix(b"\"")?;
        let is_etagc = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..=0xff);
        let end = opaque.iter().position(|byte| !is_etagc(byte))?;
        let (quoted, rest) = tag.split_at(end + 2);
        if !quoted.ends_with(b"\"") || !rest.first().is_none_or(is_delimiter) {
            return None;
        }
        self.rest = rest;
        Some(ListedTag { is_weak, quoted })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const WHOLE: Evaluation = Evaluation::Proceed {
        range_applies: false,
    };
    const RANGE: Evaluation = Evaluation::Proceed {
        range_applies: true,
    };
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const EXACT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn evaluate_fields(fields: &[(&str, &str)]) -> Evaluation {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let request = Request::from_head("GET", "/", &fields);
        let validators = Validators {
            etag: EntityTag::strong("a"),
            last_modified: Some(httpdate::parse_http_date(EXACT).unwrap()),
        };
        evaluate(&request, &validators)
    }

    #[test]
    fn single_conditions() {
        use Evaluation::{NotModified, PreconditionFailed};
        for (name, value, expected) in [
            ("if-match", "\"a\"", RANGE),
            ("if-match", "\"b\", \"a\"", RANGE),
            ("if-match", "*", RANGE),
            ("if-match", "\"b\"", PreconditionFailed),
            ("if-match", "W/\"a\"", PreconditionFailed),
            ("if-match", "a", PreconditionFailed),
            ("if-unmodified-since", EXACT, RANGE),
            ("if-unmodified-since", AFTER, RANGE),
            ("if-unmodified-since", BEFORE, PreconditionFailed),
            ("if-unmodified-since", "yesterday", RANGE),
            ("if-none-match", "\"a\"", NotModified),
            ("if-none-match", "W/\"a\"", NotModified),
            ("if-none-match", "\"b\",\"a\"", NotModified),
            ("if-none-match", "*", NotModified),
            ("if-none-match", "\"b\"", RANGE),
            ("if-none-match", "\"b, a\"", RANGE),
            ("if-none-match", "\"b,\"a\"", RANGE),
            ("if-none-match", "\"\",, \"a\"", NotModified),
            ("if-none-match", "\"b\"\"a\"", RANGE),
            ("if-none-match", "w/\"a\"", RANGE),
            ("if-none-match", "\"a", RANGE),
            ("if-none-match", "W/", RANGE),
            ("if-none-match", "nonsense", RANGE),
            ("if-modified-since", EXACT, NotModified),
            ("if-modified-since", AFTER, NotModified),
            ("if-modified-since", BEFORE, RANGE),
            (
                "if-modified-since",
                "Sunday, 06-Nov-94 08:49:37 GMT",
                NotModified,
            ),
            ("if-modified-since", "yesterday", RANGE),
            ("if-range", "\"a\"", RANGE),
            ("if-range", "W/\"a\"", WHOLE),
            ("if-range", "\"b\"", WHOLE),
            ("if-range", EXACT, RANGE),
            ("if-range", AFTER, WHOLE),
            ("if-range", BEFORE, WHOLE),
            ("if-range", "nonsense", WHOLE),
        ] {
            let outcome = evaluate_fields(&[(name, value)]);
            assert_eq!(outcome, expected, "{name}: {value}");
        }
    }

    #[test]
    fn the_order_of_rfc_9110_section_13_2_2() {
        use Evaluation::{NotModified, PreconditionFailed};
        for (fields, expected) in [
            // Step 1 precedes step 3, and step 2 is skipped after step 1.
            (
                &[("if-none-match", "\"a\""), ("if-match", "\"b\"")][..],
                PreconditionFailed,
            ),
            (
                &[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)],
                RANGE,
            ),
            // Step 4 is skipped after step 3.
            (
                &[("if-none-match", "\"b\""), ("if-modified-since", AFTER)],
                RANGE,
            ),
            (
                &[("if-none-match", "\"a\""), ("if-modified-since", BEFORE)],
                NotModified,
            ),
            // Step 5 is last.
            (
                &[("if-range", "\"a\""), ("if-none-match", "\"a\"")],
                NotModified,
            ),
            // Several lines are one list.
            (
                &[("if-none-match", "\"b\""), ("if-none-match", "\"a\"")],
                NotModified,
            ),
        ] {
            assert_eq!(evaluate_fields(fields), expected, "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(value: Vec<u8>) {
            let fields: Vec<_> = [
                "if-match",
                "if-none-match",
                "if-range",
                "if-modified-since",
                "if-unmodified-since",
            ]
            .into_iter()
            .map(|name| (name.to_owned(), value.clone()))
            .collect();
            for first in 0..fields.len() {
                let request = Request::from_head("GET", "/", &fields[first..]);
                let validators = Validators {
                    etag: EntityTag::strong("a"),
                    last_modified: None,
                };
                let _ = evaluate(&request, &validators);
            }
        }
    }
}
