//! Responses to failed requests: a page for browsers, and JSON for others.

use crate::body::BodyPart;
use crate::error::RequestError;
#[cfg(feature = "uploads")]
use crate::upload::form_error::StoredFile;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use millpond_format::html::Escaped;
use std::fmt::Write;

/// Format of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorFormat {
    /// HTML, in the look of the component's pages.
    Page,
    /// `{"error": "…"}`.
    Json,
}

/// Returns the response to a failed request.
pub(crate) fn error_response(error: &RequestError, format: ErrorFormat) -> Response<Vec<BodyPart>> {
    let (status, message) = error.status();
    let details = Details::of(error);
    let (media_type, content) = match format {
        ErrorFormat::Page => (
            "text/html; charset=utf-8",
            error_page(status, &message, &details),
        ),
        ErrorFormat::Json => ("application/json", error_json(&message, &details)),
    };
    let length = content.len();
    let mut response = Response::new(vec![BodyPart::Bytes(Bytes::from(content))]);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    fields.insert(header::CONTENT_LENGTH, length.into());
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if format == ErrorFormat::Page {
        fields.insert(header::VARY, HeaderValue::from_static("accept"));
        fields.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(CONTENT_SECURITY_POLICY),
        );
    }
    if let Some(challenge) = error.challenge() {
        let challenge = HeaderValue::from_static(challenge);
        fields.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(seconds) = error.retry_after_seconds() {
        fields.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// Facts of an error beside its message: those of an upload of several files.
#[derive(Default)]
struct Details<'a> {
    /// Name of the file that failed.
    file: Option<&'a str>,
    /// Files that were stored before, if the request may have stored some.
    #[cfg(feature = "uploads")]
    stored: Option<&'a [StoredFile]>,
}

impl<'a> Details<'a> {
    fn of(error: &'a RequestError) -> Self {
        match error {
            #[cfg(feature = "uploads")]
            RequestError::Form(form) => Details {
                file: form.file.as_deref(),
                stored: Some(&form.stored),
            },
            _ => Details::default(),
        }
    }
}

fn error_json(message: &str, details: &Details<'_>) -> String {
    let mut json = serde_json::json!({ "error": message });
    if let Some(file) = details.file {
        json["file"] = file.into();
    }
    #[cfg(feature = "uploads")]
    if let Some(stored) = details.stored {
        json["stored"] = serde_json::json!(stored);
    }
    json.to_string()
}

/// Style of the page. It is part of the page, so that an overloaded host needs no second request for it.
const STYLE: &str = ":root{color-scheme:light dark;--bg:#f6f7f5;--card:#fff;--line:#d9ddd8;--ink:#1b211e;--mark:#176b52}\
    @media (prefers-color-scheme:dark){:root{--bg:#131715;--card:#1c2220;--line:#323a36;--ink:#e8ece9;--mark:#6cc9a8}}\
    body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.45 system-ui,sans-serif}\
    main{max-width:34rem;margin:12vh auto;padding:0 1rem;text-align:center;overflow-wrap:anywhere}\
    h1{font-size:1.15rem;margin:0}b{display:block;font-size:3.5rem;line-height:1;color:var(--mark)}\
    ul{padding:0;list-style:none}\
    a{color:inherit;text-decoration:none;background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.4rem .6rem}\
    a:hover{border-color:var(--mark)}:focus-visible{outline:3px solid var(--mark);outline-offset:2px}";

/// Policy of the page: nothing but the style by its digest (CSP Level 3).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; img-src data:; style-src 'sha256-JN905GgD4WP3NiiGwlDGYYpOYbAFgnPmHo2xEEhI0kE='; base-uri 'none'";

fn error_page(status: StatusCode, message: &str, details: &Details<'_>) -> String {
    let mut page = String::with_capacity(2048);
    let title = Escaped(message);
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><link rel=\"icon\" href=\"data:,\">\
         <style>{STYLE}</style><main><h1><b>{}</b> {title}</h1>",
        status.as_u16()
    );
    if let Some(file) = details.file {
        let _ = write!(page, "<p>{}</p>", Escaped(file));
    }
    #[cfg(feature = "uploads")]
    if let Some(stored) = details.stored.filter(|stored| !stored.is_empty()) {
        page.push_str("<p>Stored before:</p><ul>");
        for file in stored {
            let name = file.path.rsplit('/').next().unwrap_or_default();
            let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
            let _ = write!(page, "<li>{}</li>", Escaped(&name));
        }
        page.push_str("</ul>");
    }
    page.push_str("<p><a href=\"./\">Up</a></p></main></html>\n");
    page
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn content(response: &Response<Vec<BodyPart>>) -> &str {
        match response.body().as_slice() {
            [BodyPart::Bytes(bytes)] => str::from_utf8(bytes).unwrap(),
            _ => "",
        }
    }

    #[test]
    fn a_page_has_the_status_and_fields_of_the_json() {
        let page = error_response(&RequestError::NoInstance, ErrorFormat::Page);
        let json = error_response(&RequestError::NoInstance, ErrorFormat::Json);
        assert_eq!(page.status(), json.status());
        for name in ["retry-after", "cache-control", "x-content-type-options"] {
            assert_eq!(page.headers()[name], json.headers()[name]);
        }
        assert_eq!(content(&json), "{\"error\":\"Server is busy\"}");
        assert!(json.headers().get(header::VARY).is_none());
        let text = content(&page);
        assert!(text.contains("<b>503</b> Server is busy"), "{text}");
        assert_eq!(page.headers()["content-length"], text.len().to_string());
    }

    /// A browser would show the page without its style.
    #[cfg(feature = "uploads")]
    #[test]
    fn the_policy_has_the_digest_of_the_style() {
        use base64ct::{Base64, Encoding};
        use sha2::{Digest, Sha256};
        let digest = Base64::encode_string(&Sha256::digest(STYLE));
        let expected = format!("style-src 'sha256-{digest}'");
        assert!(CONTENT_SECURITY_POLICY.contains(&expected), "{expected}");
    }

    #[cfg(feature = "uploads")]
    #[test]
    fn names_of_uploads_are_text() {
        use crate::upload::error::UploadError;
        use crate::upload::form_error::FormError;
        let form = FormError {
            error: UploadError::Exists,
            file: Some("<script>a".into()),
            stored: vec![StoredFile {
                path: "/media/%3Cb%3E.txt".into(),
                size: 1,
            }],
        };
        let error = RequestError::from(Box::new(form));
        let page = error_response(&error, ErrorFormat::Page);
        assert_eq!(page.status(), 409);
        let text = content(&page);
        assert!(text.contains("&lt;script&gt;a"), "{text}");
        assert!(text.contains("<li>&lt;b&gt;.txt</li>"), "{text}");
        let json = error_response(&error, ErrorFormat::Json);
        let json: serde_json::Value = serde_json::from_str(content(&json)).unwrap();
        assert_eq!(json["file"], "<script>a");
        assert_eq!(json["stored"][0]["path"], "/media/%3Cb%3E.txt");
    }
}
