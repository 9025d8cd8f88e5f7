//! Access to the admin listener: the token, and the check of `Host` and `Origin`.
//!
//! A page of another site can make a browser send requests to a loopback address. It can also have its own name point
//! there (DNS rebinding). The checks below reject both.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, ORIGIN};
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use subtle::ConstantTimeEq;

/// Minimum length of a token, in characters. With random ones it cannot be guessed.
const MIN_TOKEN_CHARACTERS: usize = 16;

/// Maximum length of a token, in characters. A head has room for it.
const MAX_TOKEN_CHARACTERS: usize = 256;

/// Name of the cookie that a browser gets for the token.
const COOKIE_NAME: &str = "millpond_admin";

/// Token of the admin listener. `Debug` does not show it.
///
/// Only digests are stored, and digests are compared in constant time.
#[derive(Clone)]
pub struct AdminToken {
    bearer: [u8; 32],
    /// Value of the cookie. It is derived from the token, so that no browser stores the token.
    cookie: String,
}

/// The error of a text that is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an admin token has {MIN_TOKEN_CHARACTERS} to {MAX_TOKEN_CHARACTERS} characters, which are letters, digits and -._~+/="
)]
pub struct InvalidToken;

impl AdminToken {
    /// Parses a token: 16 to 256 characters that may occur in the field `Authorization` (RFC 6750 section 2.1). White
    /// space around it is ignored.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        let has_length = (MIN_TOKEN_CHARACTERS..=MAX_TOKEN_CHARACTERS).contains(&text.len());
        if !has_length || !text.bytes().all(is_valid) {
            return Err(InvalidToken);
        }
        Ok(AdminToken {
            bearer: digest("bearer", text),
            cookie: hex::encode(digest("cookie", text)),
        })
    }

    /// Returns whether this is the token.
    pub(super) fn is(&self, token: &str) -> bool {
        self.bearer.ct_eq(&digest("bearer", token)).into()
    }

    /// Returns the value of `Set-Cookie` for a browser that has shown the token. The cookie ends with the browser.
    pub(super) fn set_cookie(&self) -> String {
        let value = &self.cookie;
        format!("{COOKIE_NAME}={value}; Path=/; HttpOnly; SameSite=Strict")
    }

    /// Returns whether a request has the token, or the cookie for it.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let bearer = text(headers, &AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });
        let cookies = headers.get_all(COOKIE).iter();
        let mut cookies = cookies
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == COOKIE_NAME);
        bearer.is_some_and(|token| self.is(token))
            || cookies.any(|(_, value)| self.cookie.as_bytes().ct_eq(value.as_bytes()).into())
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

/// The prefix makes the digests of one token differ by their purpose.
fn digest(purpose: &str, token: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"millpond admin ");
    hash.update(purpose);
    hash.update(b":");
    hash.update(token);
    hash.finalize().into()
}

/// Protection of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    /// A probe: open to all, under any name.
    Probe,
    /// A part of the page without figures: open to all.
    Open,
    /// Metrics: open on a loopback address, else with the token.
    Metrics,
    /// Everything else: with the token, if there is one or the address is not a loopback address.
    Token,
}

/// The reason for which a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessRefusal {
    /// `Host` is neither a loopback name nor the address of the listener.
    Host,
    /// A page of another site made the request.
    Origin,
    /// The request has no valid token.
    Token,
}

/// Checks a request to a listener at `listening`.
///
/// # Errors
/// The reason for which the request is refused.
pub(super) fn check(
    headers: &HeaderMap,
    listening: SocketAddr,
    token: Option<&AdminToken>,
    protection: Protection,
) -> Result<(), AccessRefusal> {
    if protection == Protection::Probe {
        return Ok(());
    }
    let is_local = is_loopback(listening.ip());
    let host = text(headers, &HOST);
    if is_local && headers.contains_key(HOST) && !host.is_some_and(|host| is_own(host, listening)) {
        return Err(AccessRefusal::Host);
    }
    if headers.contains_key(ORIGIN) && !is_same_origin(text(headers, &ORIGIN), host) {
        return Err(AccessRefusal::Origin);
    }
    let is_open = match protection {
        Protection::Probe | Protection::Open => true,
        Protection::Metrics => is_local,
        Protection::Token => is_local && token.is_none(),
    };
    match is_open || token.is_some_and(|token| token.is_in(headers)) {
        true => Ok(()),
        false => Err(AccessRefusal::Token),
    }
}

/// Returns whether only this machine reaches the address.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Returns whether a `Host` names this machine's loopback, or the address of the listener. Any port will do, since it may
/// be that of a tunnel.
fn is_own(host: &str, listening: SocketAddr) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    match name.parse::<IpAddr>() {
        Ok(address) => is_loopback(address) || address == listening.ip(),
        Err(_) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

fn is_same_origin(origin: Option<&str>, host: Option<&str>) -> bool {
    let authority = origin.and_then(|origin| origin.split_once("://"));
    let authority = authority.map(|(_, authority)| authority);
    authority.is_some() && authority == host
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TOKEN: &str = "0123456789abcdef+/=";

    fn checked(
        listening: &str,
        token: Option<&AdminToken>,
        protection: Protection,
        fields: &[(&'static str, &str)],
    ) -> Result<(), AccessRefusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        check(&headers, listening.parse().unwrap(), token, protection)
    }

    #[test]
    fn a_token_is_long_and_fits_a_field() {
        for text in [
            "",
            "short",
            "0123456789 abcdef",
            "0123456789abcdé",
            &"a".repeat(257),
        ] {
            assert_eq!(AdminToken::parse(text).unwrap_err(), InvalidToken, "{text}");
        }
        let token = AdminToken::parse(&format!(" {TOKEN}\n")).unwrap();
        assert!(token.is(TOKEN) && !token.is("0123456789abcdef+/-"));
        assert!(!format!("{token:?} {}", token.set_cookie()).contains("0123456789abcdef"));
    }

    #[test]
    fn on_loopback_a_request_has_a_name_of_this_machine() {
        let at = "127.0.0.1:8079";
        for host in [
            "127.0.0.1:8079",
            "localhost",
            "LOCALHOST.:9000",
            "millpond.localhost:1",
            "[::1]:8079",
            "127.9.9.9",
            "[::ffff:127.0.0.1]",
        ] {
            assert_eq!(
                checked(at, None, Protection::Token, &[("host", host)]),
                Ok(()),
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "10.0.0.1:8079",
            "localhost.evil.example",
            "",
            "a:b:c",
            "\u{e4}",
        ] {
            let fields = [("host", host)];
            for protection in [Protection::Token, Protection::Metrics, Protection::Open] {
                assert_eq!(
                    checked(at, None, protection, &fields),
                    Err(AccessRefusal::Host),
                    "{host}"
                );
            }
            assert_eq!(
                checked(at, None, Protection::Probe, &fields),
                Ok(()),
                "{host}"
            );
        }
        // HTTP/1.0 without the field: no browser sends that.
        assert_eq!(checked(at, None, Protection::Token, &[]), Ok(()));
    }

    #[test]
    fn a_page_of_another_site_gets_nothing() {
        let host = ("host", "localhost:8079");
        for (origin, expected) in [
            ("http://localhost:8079", Ok(())),
            ("https://localhost:8079", Ok(())),
            ("http://localhost:8080", Err(AccessRefusal::Origin)),
            ("https://evil.example", Err(AccessRefusal::Origin)),
            ("null", Err(AccessRefusal::Origin)),
        ] {
            let fields = [host, ("origin", origin)];
            let found = checked("127.0.0.1:8079", None, Protection::Token, &fields);
            assert_eq!(found, expected, "{origin}");
        }
    }

    #[test]
    fn the_token_is_needed_where_other_machines_reach_the_listener() {
        let token = AdminToken::parse(TOKEN).unwrap();
        let other = AdminToken::parse("another-token-0123").unwrap();
        let bearer = format!("Bearer {TOKEN}");
        let cookie = |token: &AdminToken| token.set_cookie().split_once(';').unwrap().0.to_owned();
        let (right, wrong) = (cookie(&token), cookie(&other));
        let right = format!("a=b; {right}");
        let [public, local] = ["0.0.0.0:8079", "127.0.0.1:8079"];
        let host = ("host", "localhost");
        for (listening, has_token, field, metrics, others) in [
            (public, false, host, false, false),
            (public, true, host, false, false),
            (public, true, ("authorization", &*bearer), true, true),
            (
                public,
                true,
                ("authorization", "Bearer 0123456789abcdef+/-"),
                false,
                false,
            ),
            (
                public,
                true,
                ("authorization", "Basic 0123456789abcdef+/="),
                false,
                false,
            ),
            (public, true, ("cookie", &*right), true, true),
            (public, true, ("cookie", &*wrong), false, false),
            (public, false, ("authorization", &*bearer), false, false),
            (local, false, host, true, true),
            (local, true, host, true, false),
            (local, true, ("authorization", &*bearer), true, true),
        ] {
            let token = has_token.then_some(&token);
            let is_allowed = |protection| checked(listening, token, protection, &[field]).is_ok();
            let found = (
                is_allowed(Protection::Metrics),
                is_allowed(Protection::Token),
            );
            assert_eq!(
                found,
                (metrics, others),
                "{listening} {has_token} {field:?}"
            );
            assert!(is_allowed(Protection::Probe) && is_allowed(Protection::Open));
        }
    }
}
