//! Fields for browsers: cross-origin access, content security policy, and the name of a download.

use crate::message::{Request, Response};
use crate::settings::{EffectiveSettings, Origins};
use http::{HeaderName, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// Request fields that a script may send across origins: those that responses with media depend on.
const ALLOWED_FIELDS: &str = "Range, If-Range, If-Match, If-None-Match, If-Modified-Since, \
                              If-Unmodified-Since, Want-Repr-Digest, Want-Content-Digest";

/// Response fields that a script of another origin may read, beside the safelisted ones. A script that reads ranges needs
/// them.
const EXPOSED_FIELDS: &str = "Accept-Ranges, Content-Disposition, Content-Encoding, Content-Length, \
                              Content-Range, Content-Digest, Date, ETag, Repr-Digest, Retry-After";

/// Adds the cross-origin fields of every response (Fetch): access, embedding and timing.
#[must_use]
pub(crate) fn cross_origin<S>(
    mut response: Response<S>,
    request: &Request<'_>,
    settings: &EffectiveSettings,
) -> Response<S> {
    if !settings.cross_origin_resource_policy.is_empty() {
        response = response.with(
            CROSS_ORIGIN_RESOURCE_POLICY,
            settings.cross_origin_resource_policy.as_str(),
        );
    }
    if !settings.timing_allow_origin.is_empty() {
        response = response.with(TIMING_ALLOW_ORIGIN, settings.timing_allow_origin.as_str());
    }
    match allowed_origin(request, settings) {
        Some(origin) => response
            .with(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)
            .with(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_FIELDS),
        None => response,
    }
}

/// Adds the fields of a preflight response (Fetch section 4.8), if the request is a preflight.
#[must_use]
pub(crate) fn preflight<S>(
    response: Response<S>,
    request: &Request<'_>,
    settings: &EffectiveSettings,
) -> Response<S> {
    let is_preflight = request.has(&header::ORIGIN)
        && request.has(&header::ACCESS_CONTROL_REQUEST_METHOD)
        && allowed_origin(request, settings).is_some();
    if !is_preflight {
        return response;
    }
    response
        .with(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS")
        .with(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_FIELDS)
        .with(
            header::ACCESS_CONTROL_MAX_AGE,
            settings.cors_max_age_s.to_string(),
        )
}

/// Returns whether responses depend on the origin.
#[must_use]
pub(crate) fn vary_by_origin(settings: &EffectiveSettings) -> bool {
    matches!(&settings.cors_origins, Origins::Listed(origins) if !origins.is_empty())
}

fn allowed_origin(request: &Request<'_>, settings: &EffectiveSettings) -> Option<String> {
    match &settings.cors_origins {
        Origins::Any => Some("*".into()),
        Origins::Listed(origins) => {
            let asking = request.values(&header::ORIGIN).next()?;
            let mut origins = origins.iter();
            origins.find(|origin| origin.as_bytes() == asking).cloned()
        }
    }
}

/// Adds the content security policy to types that can run scripts.
#[must_use]
pub(crate) fn content_security_policy<S>(
    response: Response<S>,
    media_type: &str,
    settings: &EffectiveSettings,
) -> Response<S> {
    if !can_run_script(media_type) || settings.content_security_policy.is_empty() {
        return response;
    }
    response.with(
        header::CONTENT_SECURITY_POLICY,
        settings.content_security_policy.as_str(),
    )
}

/// Returns whether a browser could run a script in a document of a media type.
///
/// Browsers run scripts in HTML and in every type of XML. Elements of XML may be of XHTML or SVG, or become so by a style
/// sheet. Browsers also run scripts in a part of a message, which has a type of its own. PDF has a sandbox in the viewer, which
/// does not start under a policy. With `nosniff`, no other type runs scripts.
fn can_run_script(media_type: &str) -> bool {
    // A browser takes the last of several types in one field (Fetch, "extract a MIME type").
    media_type.to_ascii_lowercase().split(',').any(|one| {
        let essence = one.split(';').next().unwrap_or(one).trim();
        let (kind, subtype) = essence.split_once('/').unwrap_or((essence, ""));
        matches!(kind, "multipart" | "message")
            || subtype.ends_with("html")
            || subtype.ends_with("+xml")
            || subtype.starts_with("xml-")
            // Types of XML from before `+xml`, and the type of MHTML.
            || ["xml", "xsl", "xslt", "rdf", "mathml", "x-mimearchive"].contains(&subtype)
    })
}

/// Adds `Content-Disposition` (RFC 6266) if the query has `download`. Its value is the name, by default `file_name`.
#[must_use]
pub(crate) fn disposition<S>(
    response: Response<S>,
    query: Option<&str>,
    file_name: &str,
) -> Response<S> {
    let Some(asked) = query.and_then(|query| {
        query
            .split('&')
            .find_map(|pair| match pair.split_once('=') {
                Some(("download", name)) => Some(name),
                None if pair == "download" => Some(""),
                _ => None,
            })
    }) else {
        return response;
    };
    let asked = percent_decode_str(asked).decode_utf8_lossy();
    let name = if asked.is_empty() { file_name } else { &asked };
    response.with(header::CONTENT_DISPOSITION, attachment(name))
}

/// Maximum length of a name, in characters. File systems accept 255 bytes.
const NAME_CHARS: usize = 120;

/// Returns `attachment` with the name in ASCII, and in full as well if it has other characters (RFC 8187).
fn attachment(name: &str) -> String {
    /// Characters that are encoded in an `ext-value`: all but `attr-char`.
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'!')
        .remove(b'#')
        .remove(b'$')
        .remove(b'&')
        .remove(b'+')
        .remove(b'-')
        .remove(b'.')
        .remove(b'^')
        .remove(b'_')
        .remove(b'`')
        .remove(b'|')
        .remove(b'~');
    // No name is a path, and no file is hidden.
    let name: String = name
        .chars()
        .take(NAME_CHARS)
        .map(|c| {
            if c.is_control() || matches!(c, '/' | '\\' | ':') {
                '_'
            } else {
                c
            }
        })
        .collect();
    let name = name.trim_start_matches('.');
    let ascii: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() && !matches!(c, '"' | '%') || c == ' ' {
                c
            } else {
                '_'
            }
        })
        .collect();
    if ascii == name {
        return format!("attachment; filename=\"{ascii}\"");
    }
    let full = utf8_percent_encode(name, ENCODED);
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{full}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use proptest::prelude::*;

    fn disposition_of(query: &str) -> Option<String> {
        let response = Response::<()>::new(StatusCode::OK);
        let response = disposition(response, Some(query), "own.gif");
        let mut fields = response.headers.into_iter();
        fields.find_map(|(name, value)| (name == header::CONTENT_DISPOSITION).then_some(value))
    }

    #[test]
    fn names_of_downloads() {
        for (query, expected) in [
            ("download", Some("attachment; filename=\"own.gif\"")),
            ("download=", Some("attachment; filename=\"own.gif\"")),
            ("x=1&download=a.gif", Some("attachment; filename=\"a.gif\"")),
            (
                "download=a%20b.gif",
                Some("attachment; filename=\"a b.gif\""),
            ),
            (
                "download=na%C3%AFve.gif",
                Some("attachment; filename=\"na_ve.gif\"; filename*=UTF-8''na%C3%AFve.gif"),
            ),
            (
                "download=%22%0d%0ax%3A.gif",
                Some("attachment; filename=\"___x_.gif\"; filename*=UTF-8''%22__x_.gif"),
            ),
            (
                "download=..%2f..%2fetc",
                Some("attachment; filename=\"_.._etc\""),
            ),
            ("downloads", None),
            ("", None),
        ] {
            assert_eq!(disposition_of(query).as_deref(), expected, "{query}");
        }
    }

    /// The policy was sent with five types only, so that scripts in MathML, RDF, XSLT and feeds ran.
    #[test]
    fn every_type_that_a_browser_runs_script_in_has_the_policy() {
        for (media_type, is_active) in [
            ("text/html", true),
            ("TEXT/HTML; charset=utf-8", true),
            (" text/html ;x", true),
            ("application/xhtml+xml", true),
            ("application/vnd.wap.xhtml+xml", true),
            ("image/svg+xml", true),
            ("text/xml", true),
            ("application/xml", true),
            ("application/xml-dtd", true),
            ("text/xml-external-parsed-entity", true),
            ("application/mathml+xml", true),
            ("text/mathml", true),
            ("application/rdf+xml", true),
            ("text/rdf", true),
            ("application/xslt+xml", true),
            ("text/xsl", true),
            ("application/atom+xml", true),
            ("application/rss+xml", true),
            ("application/vnd.mozilla.xul+xml", true),
            ("application/anything+xml", true),
            ("text/x-server-parsed-html", true),
            ("multipart/related", true),
            ("multipart/x-mixed-replace", true),
            ("message/rfc822", true),
            ("application/x-mimearchive", true),
            ("image/gif, text/html", true),
            ("", false),
            ("html", false),
            ("text/plain", false),
            ("text/plain; charset=utf-8", false),
            ("text/vtt", false),
            ("text/javascript", false),
            ("application/json", false),
            ("application/pdf", false),
            (
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
                false,
            ),
            ("application/octet-stream", false),
            ("image/gif", false),
            ("video/mp4", false),
        ] {
            let response = Response::<()>::new(StatusCode::OK);
            let response =
                content_security_policy(response, media_type, &EffectiveSettings::default());
            let mut fields = response.headers.iter();
            let has_policy = fields.any(|(name, _)| *name == header::CONTENT_SECURITY_POLICY);
            assert_eq!(has_policy, is_active, "{media_type}");
        }
    }

    proptest! {
        #[test]
        fn no_name_breaks_out_of_its_field(name: String) {
            let value = attachment(&name);
            prop_assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            prop_assert_eq!(value.matches('"').count(), 2);
        }
    }
}
