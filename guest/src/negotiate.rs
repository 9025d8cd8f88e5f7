//! Content negotiation: the choice among representations of a resource (RFC 9110 section 12).

use crate::imports::{Info, VariantInfo};
use crate::message::Request;
use http::{HeaderName, header};
use millpond_format::preferences::{self, MOST, Preferences};

/// Returns the request fields that the choice depends on, for `Vary`.
#[must_use]
pub(crate) fn dimensions(info: &Info, variants: &[VariantInfo]) -> Vec<HeaderName> {
    let mut dimensions = Vec::new();
    if variants
        .iter()
        .any(|variant| variant.media_type != info.media_type)
    {
        dimensions.push(header::ACCEPT);
    }
    if variants
        .iter()
        .any(|variant| variant.content_coding.is_some())
    {
        dimensions.push(header::ACCEPT_ENCODING);
    }
    dimensions
}

/// Returns the variant that the request prefers to the original, if any.
///
/// A variant must be accepted by its type or coding, not by `*/*`: many clients send `*/*` and cannot show every format.
/// Without such a preference the original is chosen.
#[must_use]
pub(crate) fn choose<'a>(
    request: &Request<'_>,
    info: &Info,
    variants: &'a [VariantInfo],
) -> Option<&'a VariantInfo> {
    let accept = Preferences::of(request.values(&header::ACCEPT));
    let accept_encoding = Preferences::of(request.values(&header::ACCEPT_ENCODING));
    let original = accept
        .named(&info.media_type)
        .or_else(|| accept.any_of_kind(&info.media_type))
        .unwrap_or(if accept.is_empty() { MOST } else { 0 });
    variants
        .iter()
        .filter_map(|variant| {
            let of_type = if variant.media_type == info.media_type {
                original
            } else {
                accept
                    .named(&variant.media_type)
                    .filter(|weight| *weight > 0)?
            };
            let of_coding = match &variant.content_coding {
                Some(coding) => accept_encoding.named(coding)?,
                None => MOST,
            };
            let is_wanted = of_coding > 0 && of_type >= original;
            is_wanted.then_some(((of_type, of_coding, preference(variant)), variant))
        })
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, variant)| variant)
}

/// Returns whether the request prefers HTML to JSON. It must name HTML, as browsers do; `*/*` gets JSON.
#[must_use]
pub(crate) fn prefers_html(request: &Request<'_>) -> bool {
    preferences::prefers_html(request.values(&header::ACCEPT))
}

/// Rank among variants that the request prefers equally: formats and codings that are usually smaller come first.
fn preference(variant: &VariantInfo) -> u8 {
    let of_type = match variant.media_type.as_str() {
        "image/avif" => 20,
        "image/webp" => 10,
        _ => 0,
    };
    let of_coding = match variant.content_coding.as_deref() {
        Some("br") => 3,
        Some("zstd") => 2,
        Some("gzip") => 1,
        _ => 0,
    };
    of_type + of_coding
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::imports::Key;
    use millpond_format::Access;
    use proptest::prelude::*;

    fn variant(media_type: &str, coding: Option<&str>) -> VariantInfo {
        VariantInfo {
            key: Key::Named(format!("{media_type} {}", coding.unwrap_or_default())),
            media_type: media_type.into(),
            content_coding: coding.map(str::to_owned),
        }
    }

    fn info(media_type: &str) -> Info {
        Info {
            length: 1,
            media_type: media_type.into(),
            modified: None,
            created: None,
            digest: None,
            version: None,
            access: Access::Public,
        }
    }

    fn chosen(media_type: &str, variants: &[VariantInfo], fields: &[(&str, &str)]) -> String {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let request = Request::from_head("GET", "/", &fields);
        match choose(&request, &info(media_type), variants).map(|variant| &variant.key) {
            Some(Key::Named(name)) => name.trim().to_owned(),
            _ => String::new(),
        }
    }

    #[test]
    fn pictures() {
        let variants = [variant("image/webp", None), variant("image/avif", None)];
        assert_eq!(chosen("image/png", &variants, &[]), "");
        for (accept, expected) in [
            ("image/avif,image/webp,image/png,*/*;q=0.8", "image/avif"),
            ("image/webp,*/*", "image/webp"),
            ("image/avif;q=0.5,image/webp", "image/webp"),
            ("image/avif;q=0.5", "image/avif"),
            ("image/avif;q=0.5,image/png", ""),
            ("image/avif;q=0.5,*/*;q=0.9", ""),
            ("image/avif;q=0,image/webp;q=0", ""),
            ("IMAGE/WEBP", "image/webp"),
            ("image/*", ""),
            ("*/*", ""),
            ("", ""),
            (";;;,,q=,=", ""),
            ("image/webp;q=nonsense", "image/webp"),
        ] {
            let got = chosen("image/png", &variants, &[("accept", accept)]);
            assert_eq!(got, expected, "{accept}");
        }
    }

    /// Members of `Accept` were compared with the type including its parameters.
    #[test]
    fn a_type_with_a_charset_was_accepted_by_no_name() {
        let variants = [variant("text/csv; charset=utf-8", None)];
        for (accept, expected) in [
            ("text/html, text/csv;q=0.9", ""),
            ("text/csv, text/html;q=0.9", "text/csv; charset=utf-8"),
            ("TEXT/HTML;q=0.5, text/csv;q=0.4", ""),
        ] {
            let got = chosen("text/html; charset=utf-8", &variants, &[("accept", accept)]);
            assert_eq!(got, expected, "{accept}");
        }
    }

    #[test]
    fn texts() {
        let svg = "image/svg+xml";
        let variants = [
            variant(svg, Some("gzip")),
            variant(svg, Some("br")),
            variant(svg, Some("zstd")),
        ];
        for (accept_encoding, expected) in [
            ("gzip, deflate, br, zstd", "image/svg+xml br"),
            ("gzip", "image/svg+xml gzip"),
            ("gzip;q=1.0, br;q=0.1", "image/svg+xml gzip"),
            ("br;q=0", ""),
            ("identity", ""),
            ("*", ""),
        ] {
            let got = chosen(svg, &variants, &[("accept-encoding", accept_encoding)]);
            assert_eq!(got, expected, "{accept_encoding}");
        }
        let both = [("accept", "text/html"), ("accept-encoding", "br")];
        assert_eq!(chosen(svg, &variants, &both), "image/svg+xml br");
    }

    proptest! {
        #[test]
        fn no_value_panics(value: Vec<u8>) {
            let fields = [("accept".to_owned(), value.clone()), ("accept-encoding".to_owned(), value)];
            let request = Request::from_head("GET", "/", &fields);
            let variants = [variant("image/webp", None), variant("image/png", Some("br"))];
            let _ = choose(&request, &info("image/png"), &variants);
        }
    }
}
