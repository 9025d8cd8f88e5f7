//! Signed URLs: each grants access to private media until it expires.
//!
//! The query has four parameters. `exp` is the expiry in Unix seconds, and `key` the id of the key. `ip` is an address
//! prefix of the client, if the URL is bound to one. `sig` is the HMAC-SHA256 (RFC 2104) of the others and the path, in
//! URL-safe base64. A signature is for reading: it covers `GET` and `HEAD` alike.

use base64ct::{Base64UrlUnpadded, Encoding};
use core::fmt;
use core::net::IpAddr;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// A secret, and the id by which a signature names it. Several keys at a time allow for rotation.
#[derive(Clone)]
pub struct SigningKey {
    id: String,
    secret: Vec<u8>,
    /// HMAC with this secret, before any message. A key always has one, so no verification runs without the secret.
    mac: Hmac<Sha256>,
}

impl fmt::Debug for SigningKey {
    /// Shows the id, and no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Minimum length of a secret, in bytes.
pub const MIN_SECRET_BYTES: usize = 16;

/// Access that a signature grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant<'a> {
    /// Path, as in the request target.
    pub path: &'a str,
    /// Expiry, in Unix seconds.
    pub expires: u64,
    /// Client addresses that may use it, as in `192.0.2.0/24`; every address by default.
    pub client_prefix: Option<&'a str>,
}

/// Reason why a request is denied private media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The request has no signature: 401.
    Unsigned,
    /// The signature is malformed, expired, of an unknown key, for another path or for another client: 403. The
    /// response does not say which.
    Invalid,
}

impl SigningKey {
    /// Parses `<id>:<secret in hexadecimal>`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.split_once(':')?;
        SigningKey::new(id, &base16ct::mixed::decode_vec(secret).ok()?)
    }

    /// Makes a key. Returns `None` if the id is malformed or the secret too short.
    #[must_use]
    pub fn new(id: &str, secret: &[u8]) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if id.is_empty() || !id.chars().all(is_plain) || secret.len() < MIN_SECRET_BYTES {
            return None;
        }
        Some(SigningKey {
            id: id.to_owned(),
            mac: Hmac::new_from_slice(secret).ok()?,
            secret: secret.to_owned(),
        })
    }

    /// Id: ASCII letters, digits, `-` and `_`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Secret, at least [`MIN_SECRET_BYTES`] long.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// Text for [`SigningKey::parse`]. It contains the secret.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!(
            "{}:{}",
            self.id,
            base16ct::lower::encode_string(&self.secret)
        )
    }

    /// Returns the query, without `?`, that grants this access.
    #[must_use]
    pub fn sign(&self, grant: &Grant<'_>) -> String {
        let signature = Base64UrlUnpadded::encode_string(&self.mac(grant).finalize().into_bytes());
        let ip = grant.client_prefix.map(|prefix| format!("&ip={prefix}"));
        format!(
            "exp={}&key={}{}&sig={signature}",
            grant.expires,
            self.id,
            ip.unwrap_or_default()
        )
    }

    fn mac(&self, grant: &Grant<'_>) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        let prefix = grant.client_prefix.unwrap_or_default();
        // No part can contain a line feed.
        for part in [
            "millpond-1",
            "GET",
            grant.path,
            &grant.expires.to_string(),
            &self.id,
            prefix,
        ] {
            mac.update(part.as_bytes());
            mac.update(b"\n");
        }
        mac
    }
}

/// Checks that a query grants a client access to a path at a point in time.
///
/// # Errors
/// [`Denied`] if it does not.
pub fn check(
    path: &str,
    query: Option<&str>,
    now_seconds: u64,
    client: Option<&str>,
    keys: &[SigningKey],
) -> Result<(), Denied> {
    let parameter = |name: &str| {
        let mut pairs = query?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    };
    let signature = parameter("sig").ok_or(Denied::Unsigned)?;
    let granted = || {
        let signature = Base64UrlUnpadded::decode_vec(signature).ok()?;
        let key_id = parameter("key")?;
        let key = keys.iter().find(|key| key.id == key_id)?;
        let expires = parameter("exp")?;
        let grant = Grant {
            path,
            // A leading `0` or `+` would be another URL for the same grant, which was not signed.
            expires: expires
                .parse()
                .ok()
                .filter(|seconds: &u64| seconds.to_string() == expires)?,
            client_prefix: parameter("ip"),
        };
        // This comparison takes constant time.
        key.mac(&grant).verify_slice(&signature).ok()?;
        let is_client = match grant.client_prefix {
            None => true,
            Some(prefix) => client.is_some_and(|client| covers(prefix, client)),
        };
        (now_seconds <= grant.expires && is_client).then_some(())
    };
    granted().ok_or(Denied::Invalid)
}

/// Returns whether an address is within a prefix such as `192.0.2.0/24` or `2001:db8::/32`. A single address is its own
/// prefix.
#[must_use]
pub fn covers(prefix: &str, client: &str) -> bool {
    let (network, length) = match prefix.split_once('/') {
        Some((network, length)) => (network, Some(length)),
        None => (prefix, None),
    };
    let (Ok(network), Ok(client)) = (network.parse::<IpAddr>(), client.parse::<IpAddr>()) else {
        return false;
    };
    let (network, client, bits) = match (network, client.to_canonical()) {
        (IpAddr::V4(network), IpAddr::V4(client)) => (
            u128::from(network.to_bits()) << 96,
            u128::from(client.to_bits()) << 96,
            32,
        ),
        (IpAddr::V6(network), IpAddr::V6(client)) => (network.to_bits(), client.to_bits(), 128),
        _ => return false,
    };
    let length = match length {
        None => bits,
        Some(length) => match length.parse::<u32>() {
            Ok(length) if length <= bits => length,
            _ => return false,
        },
    };
    length == 0 || (network ^ client) >> (128 - length) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn key() -> SigningKey {
        SigningKey::parse("k1:000102030405060708090a0b0c0d0e0f").unwrap()
    }

    fn grant(prefix: Option<&'static str>) -> Grant<'static> {
        Grant {
            path: "/api/media/ab",
            expires: 1000,
            client_prefix: prefix,
        }
    }

    #[test]
    fn a_signature_grants_what_it_is_for_and_nothing_else() {
        let query = key().sign(&grant(None));
        let keys = [key()];
        let check = |path: &str, query: &str, now| check(path, Some(query), now, None, &keys);
        assert_eq!(check("/api/media/ab", &query, 1000), Ok(()));
        for (path, query, now) in [
            ("/api/media/ab", query.clone(), 1001),
            ("/api/media/ac", query.clone(), 1),
            ("/api/media/ab/info", query.clone(), 1),
            ("/api/media/ab", query.replace("exp=1000", "exp=9999"), 1),
            ("/api/media/ab", query.replace("key=k1", "key=k2"), 1),
            (
                "/api/media/ab",
                query.replace("&sig", "&ip=10.0.0.1&sig"),
                1,
            ),
            ("/api/media/ab", query[..query.len() - 1].to_owned(), 1),
            ("/api/media/ab", "sig=".into(), 1),
            ("/api/media/ab", "sig=%00&exp=1&key=k1".into(), 1),
        ] {
            assert_eq!(
                check(path, &query, now),
                Err(Denied::Invalid),
                "{path} {query}"
            );
        }
        for query in ["", "exp=1000&key=k1", "x=sig="] {
            assert_eq!(
                check("/api/media/ab", query, 1),
                Err(Denied::Unsigned),
                "{query}"
            );
        }
    }

    /// The number was signed, not its text in the URL, so that one signature was valid for many URLs.
    #[test]
    fn an_expiry_that_is_written_otherwise_was_granted() {
        let query = key().sign(&grant(None));
        for written in ["exp=+1000", "exp=01000", "exp=1000%20"] {
            let query = query.replace("exp=1000", written);
            let result = check("/api/media/ab", Some(&query), 1, None, &[key()]);
            assert_eq!(result, Err(Denied::Invalid), "{query}");
        }
    }

    #[test]
    fn a_signature_may_be_bound_to_a_client() {
        let query = key().sign(&grant(Some("192.0.2.0/24")));
        let check = |client| check("/api/media/ab", Some(&query), 1, client, &[key()]);
        assert_eq!(check(Some("192.0.2.7")), Ok(()));
        assert_eq!(check(Some("::ffff:192.0.2.7")), Ok(()));
        for client in [Some("192.0.3.7"), Some("::1"), Some("x"), None] {
            assert_eq!(check(client), Err(Denied::Invalid), "{client:?}");
        }
    }

    #[test]
    fn a_rotated_key_is_good_for_as_long_as_it_is_listed() {
        let other = SigningKey::parse("k2:ffffffffffffffffffffffffffffffff").unwrap();
        let query = key().sign(&grant(None));
        let check = |keys: &[SigningKey]| check("/api/media/ab", Some(&query), 1, None, keys);
        assert_eq!(check(&[other.clone(), key()]), Ok(()));
        assert_eq!(check(&[other]), Err(Denied::Invalid));
        assert_eq!(check(&[]), Err(Denied::Invalid));
    }

    #[test]
    fn prefixes() {
        for (prefix, client, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1/33", "10.0.0.1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("2001:db8::/32", "10.0.0.1", false),
            ("", "10.0.0.1", false),
        ] {
            assert_eq!(covers(prefix, client), expected, "{prefix} {client}");
        }
    }

    /// A branch verified with zeros if HMAC rejected the secret. HMAC rejects none.
    #[test]
    fn a_secret_of_whatever_length_verifies_as_itself_and_not_as_zeros() {
        for length in [16, 32, 63, 64, 65, 200] {
            let key =
                |byte: &str| SigningKey::parse(&format!("k1:{}", byte.repeat(length))).unwrap();
            let (own, zeros) = (key("0a").sign(&grant(None)), key("00").sign(&grant(None)));
            let check = |query: &str| check("/api/media/ab", Some(query), 1, None, &[key("0a")]);
            assert_eq!(check(&own), Ok(()), "{length}");
            assert_eq!(check(&zeros), Err(Denied::Invalid), "{length}");
        }
    }

    #[test]
    fn a_key_is_written_as_it_is_read() {
        let text = "k1:000102030405060708090a0b0c0d0e0f";
        assert_eq!(key().to_text(), text);
        let upper = SigningKey::parse(&text.to_uppercase().replace("K1", "k1")).unwrap();
        assert_eq!(upper.to_text(), text);
    }

    #[test]
    fn keys() {
        for text in [
            "",
            "k",
            "k:",
            "k:00",
            ":000102030405060708090a0b0c0d0e0f",
            "k!:000102030405060708090a0b0c0d0e0f",
            "k:zz0102030405060708090a0b0c0d0e0f",
        ] {
            assert!(SigningKey::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_query_panics_or_grants(query: String, path: String) {
            prop_assert!(check(&path, Some(&query), 0, Some("::1"), &[key()]).is_err());
        }
    }
}
