//! Cache status of an object: how a store that caches an origin got it (RFC 9211).

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};
use std::fmt::Write;
use std::time::Duration;

/// Handling of a request by a store that caches an origin. The response has it as `Cache-Status`, with `Age` and `Via`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OriginCacheStatus {
    /// Reason for which the request went to the origin. `None` if the cache had all that the response needs.
    pub forward: Option<ForwardReason>,
    /// Whether the request shared a request to the origin with others.
    pub collapsed: bool,
    /// Whether the cache stores the bytes from the origin.
    pub stored: bool,
    /// Remaining freshness lifetime, in seconds. Negative for a stale object. `None` if the object never goes stale.
    pub ttl_seconds: Option<i64>,
    /// Time since the origin last vouched for the object. `None` if the object never goes stale.
    pub age: Option<Duration>,
}

/// Reason for which a request went to the origin: `fwd` of RFC 9211 section 2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardReason {
    /// The cache had no object of the key.
    UriMiss,
    /// The cache had the object's metadata, and none of the bytes.
    Miss,
    /// The cache had a part of the bytes.
    Partial,
    /// The object was stale, and was revalidated.
    Stale,
}

impl ForwardReason {
    fn name(self) -> &'static str {
        match self {
            ForwardReason::UriMiss => "uri-miss",
            ForwardReason::Miss => "miss",
            ForwardReason::Partial => "partial",
            ForwardReason::Stale => "stale",
        }
    }
}

impl OriginCacheStatus {
    /// Maximum memory of the fields, in bytes.
    pub(crate) const FIELDS_BYTES: usize = 192;

    /// Name of `Cache-Status`, which the crate `http` has under no name.
    const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

    /// Sets the fields of the response. An `Age` and a `Via` of the guest are kept.
    pub(crate) fn set(&self, fields: &mut HeaderMap) {
        for (name, value) in self.fields() {
            if name == Self::CACHE_STATUS || !fields.contains_key(&name) {
                fields.insert(name, value);
            }
        }
    }

    /// Returns the field lines for a head of HTTP/1.1.
    pub(crate) fn lines(&self, to: &mut Vec<u8>) {
        for (name, value) in self.fields() {
            to.extend_from_slice(name.as_str().as_bytes());
            to.extend_from_slice(b": ");
            to.extend_from_slice(value.as_bytes());
            to.extend_from_slice(b"\r\n");
        }
    }

    fn fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let mut text = String::from("millpond");
        match self.forward {
            None => text.push_str("; hit"),
            Some(reason) => {
                // Writing to memory does not fail.
                let _ = write!(text, "; fwd={}", reason.name());
            }
        }
        if let Some(ttl_seconds) = self.ttl_seconds {
            let _ = write!(text, "; ttl={ttl_seconds}");
        }
        if self.stored {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        let age = self.age.map(|age| HeaderValue::from(age.as_secs()));
        let status = HeaderValue::try_from(text).ok();
        [
            age.map(|age| (header::AGE, age)),
            status.map(|status| (Self::CACHE_STATUS, status)),
            Some((header::VIA, HeaderValue::from_static("1.1 millpond"))),
        ]
        .into_iter()
        .flatten()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fields_of_a_cache_status() {
        let hit = OriginCacheStatus {
            ttl_seconds: Some(-3),
            age: Some(Duration::from_millis(63_900)),
            ..OriginCacheStatus::default()
        };
        let miss = OriginCacheStatus {
            forward: Some(ForwardReason::UriMiss),
            collapsed: true,
            stored: true,
            ..OriginCacheStatus::default()
        };
        for (status, age, expected) in [
            (hit, Some("63"), "millpond; hit; ttl=-3"),
            (miss, None, "millpond; fwd=uri-miss; stored; collapsed"),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(
                OriginCacheStatus::CACHE_STATUS,
                HeaderValue::from_static("x"),
            );
            status.set(&mut fields);
            assert_eq!(fields["cache-status"], expected);
            assert_eq!(fields.get("age").map(|age| age.to_str().unwrap()), age);
            let mut lines = Vec::new();
            status.lines(&mut lines);
            let lines = String::from_utf8(lines).unwrap();
            assert!(
                lines.contains(&format!("cache-status: {expected}\r\n")),
                "{lines}"
            );
        }
    }
}
