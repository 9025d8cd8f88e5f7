//! Redirects of an origin (RFC 9110 section 15.4).

use super::addresses::is_public;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Uri};
use object_store::client::{HttpRequest, HttpRequestBody};
use std::net::IpAddr;
use url::{Host, Url};

/// Maximum number of redirects that a request follows. Storage services need one or two.
pub(super) const REDIRECTS: usize = 5;

/// Target of a redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RedirectTarget {
    uri: Uri,
    /// Whether it is another server than the origin's.
    pub(super) is_other_server: bool,
}

/// The error of a redirect that is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RedirectError {
    /// There were too many.
    #[error("more than {REDIRECTS} redirects")]
    TooMany,
    /// `Location` is no URL of HTTP.
    #[error("a redirect leads to no URL of HTTP")]
    Invalid,
    /// It leads from an encrypted connection to one in the clear.
    #[error("a redirect leads from https to http")]
    Downgrade,
    /// It leads to a private address.
    #[error("a redirect leads to a private address: --origin-private-redirects follows it")]
    Private,
}

/// Returns the target of a redirect of `from`, in answer to a request to `origin`.
///
/// # Errors
/// [`RedirectError`].
pub(super) fn redirected(
    origin: &Uri,
    from: &Uri,
    location: &HeaderValue,
    allow_private: bool,
) -> Result<RedirectTarget, RedirectError> {
    let invalid = |_| RedirectError::Invalid;
    let origin = Url::parse(&origin.to_string()).map_err(invalid)?;
    let from = Url::parse(&from.to_string()).map_err(invalid)?;
    let location = location.to_str().map_err(|_| RedirectError::Invalid)?;
    let mut target = from.join(location).map_err(invalid)?;
    target.set_fragment(None);
    // Credentials in a URL are the origin's to the client, not ours to another server.
    let cleared = target
        .set_username("")
        .and_then(|()| target.set_password(None));
    cleared.map_err(|()| RedirectError::Invalid)?;
    match (from.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err(RedirectError::Downgrade),
        _ => return Err(RedirectError::Invalid),
    }
    let is_other_server = target.origin() != origin.origin();
    let literal = match target.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::from(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::from(address)),
        Some(Host::Domain(_)) => None,
        None => return Err(RedirectError::Invalid),
    };
    // The resolver checks names.
    let is_private = literal.is_some_and(|address| !is_public(address));
    if is_other_server && is_private && !allow_private {
        return Err(RedirectError::Private);
    }
    let uri = target
        .as_str()
        .parse()
        .map_err(|_| RedirectError::Invalid)?;
    Ok(RedirectTarget {
        uri,
        is_other_server,
    })
}

/// Returns the request to the target of a redirect. Range and conditions stay. Credentials do not go to another server.
pub(super) fn request(mut redirected: Request<()>, target: &RedirectTarget) -> HttpRequest {
    let fields = redirected.headers_mut();
    fields.remove(header::HOST);
    if target.is_other_server {
        remove_credentials(fields);
    }
    *redirected.uri_mut() = target.uri.clone();
    redirected.map(|()| HttpRequestBody::empty())
}

fn remove_credentials(fields: &mut HeaderMap) {
    let is_credential = |name: &HeaderName| {
        let services = ["x-amz-", "x-ms-", "x-goog-"];
        [
            header::AUTHORIZATION,
            header::COOKIE,
            header::PROXY_AUTHORIZATION,
        ]
        .contains(name)
            || services
                .iter()
                .any(|prefix| name.as_str().starts_with(prefix))
    };
    let names: Vec<HeaderName> = fields
        .keys()
        .filter(|name| is_credential(name))
        .cloned()
        .collect();
    for name in names {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn target(
        from: &str,
        location: &str,
        allow_private: bool,
    ) -> Result<(String, bool), RedirectError> {
        let origin = Uri::from_static("https://a.example/media/");
        let location = HeaderValue::from_str(location).unwrap();
        let target = redirected(&origin, &from.parse().unwrap(), &location, allow_private)?;
        Ok((target.uri.to_string(), target.is_other_server))
    }

    #[test]
    fn targets() {
        let from = "https://a.example/media/b";
        let same = |uri: &str| Ok((uri.to_owned(), false));
        let other = |uri: &str| Ok((uri.to_owned(), true));
        for (location, expected) in [
            ("/c", same("https://a.example/c")),
            ("c?d#e", same("https://a.example/media/c?d")),
            ("https://b.example/", other("https://b.example/")),
            ("https://a.example:8443/", other("https://a.example:8443/")),
            ("https://u:p@b.example/", other("https://b.example/")),
            ("http://a.example/", Err(RedirectError::Downgrade)),
            ("ftp://a.example/", Err(RedirectError::Invalid)),
            ("file:///etc/passwd", Err(RedirectError::Invalid)),
            ("https://", Err(RedirectError::Invalid)),
            ("https://127.0.0.1/", Err(RedirectError::Private)),
            ("https://[::1]/", Err(RedirectError::Private)),
            ("https://0x7f.1/", Err(RedirectError::Private)),
            (
                "https://169.254.169.254/latest",
                Err(RedirectError::Private),
            ),
        ] {
            assert_eq!(target(from, location, false), expected, "{location}");
        }
        assert!(target(from, "https://127.0.0.1/", true).is_ok());
        let http = target("http://a.example/", "https://a.example/", false);
        assert_eq!(
            http,
            same("https://a.example/"),
            "the origin is https://a.example"
        );
    }

    #[test]
    fn credentials_stay_with_the_origin_and_the_range_goes_along() {
        let request_to = |is_other_server| {
            let request = Request::get("https://a.example/")
                .header("authorization", "secret")
                .header("x-amz-security-token", "secret")
                .header("range", "bytes=1-2")
                .header("if-match", "\"1\"")
                .body(())
                .unwrap();
            let target = RedirectTarget {
                uri: Uri::from_static("https://b.example/"),
                is_other_server,
            };
            super::request(request, &target)
        };
        let names = |request: &HttpRequest| {
            let names = request.headers().keys().map(ToString::to_string);
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        };
        assert_eq!(names(&request_to(true)), ["if-match", "range"]);
        assert_eq!(names(&request_to(false)).len(), 4);
    }
}
