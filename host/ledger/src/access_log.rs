//! The access log: one entry for each request, from its head to its outcome.

use crate::ledger::Ledger;
use crate::outcome::Outcome;
use crate::registry::{LedgerRegistry, Owner};
use crate::route::Route;
use http::{Method, StatusCode};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The access log entry of one request. Dropping it counts the request and logs the entry.
///
/// An entry without an outcome counts as aborted. Only a client that leaves makes the connection drop its future or its
/// body.
#[derive(Debug)]
pub struct AccessLogEntry {
    /// Ledger of the request, whose owner is a request.
    ledger: Ledger,
    target: String,
    status: Option<StatusCode>,
    body_bytes: u64,
    peak_guest_bytes: usize,
    cache: Option<CacheStatus>,
    outcome: Option<Outcome>,
    error: Option<String>,
}

/// Part of the response cache in a request (RFC 9211). Absent if the request did not get that far.
#[derive(Debug, Clone, Copy)]
enum CacheStatus {
    Hit,
    Miss,
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CacheStatus::Hit => "hit",
            CacheStatus::Miss => "miss",
        })
    }
}

/// Target of the `tracing` event of a request. Each request has one event, at its end.
pub const ACCESS_LOG: &str = "millpond::access";

/// Maximum length of a logged target, in bytes. The rest is cut off.
const LOGGED_TARGET_BYTES: usize = 1024;

impl AccessLogEntry {
    /// Returns the entry of a request whose head is complete, with a new ledger.
    ///
    /// `target` is in origin-form, or empty if the request has no path. `limit_bytes` is the maximum memory of the
    /// request, of all kinds together.
    #[must_use]
    pub fn new(
        method: &Method,
        target: &str,
        registry: &Arc<LedgerRegistry>,
        limit_bytes: usize,
    ) -> Self {
        let owner = Owner::Request {
            method: method.clone(),
            route: registry.route(target),
        };
        AccessLogEntry::of(Ledger::new(registry, owner, limit_bytes), target)
    }

    /// Returns the entry of a request that has a ledger already. `None` if the owner of the ledger is not a request.
    #[must_use]
    pub fn with_ledger(ledger: Ledger, target: &str) -> Option<Self> {
        ledger.entries.request()?;
        Some(AccessLogEntry::of(ledger, target))
    }

    fn of(ledger: Ledger, target: &str) -> Self {
        let target = if target.is_empty() { "*" } else { target };
        let log_entry = AccessLogEntry {
            ledger,
            target: target[..target.floor_char_boundary(LOGGED_TARGET_BYTES)].to_owned(),
            status: None,
            body_bytes: 0,
            peak_guest_bytes: 0,
            cache: None,
            outcome: None,
            error: None,
        };
        log_entry.route().requests.fetch_add(1, Ordering::Relaxed);
        log_entry
    }

    /// Ledger of the request.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Route of the request's target.
    #[must_use]
    pub fn route(&self) -> &Arc<Route> {
        self.request().1
    }

    #[allow(
        clippy::expect_used,
        reason = "each constructor has a request's ledger"
    )]
    fn request(&self) -> (&Method, &Arc<Route>) {
        let request = self.ledger.entries.request();
        request.expect("the owner of the ledger is a request")
    }

    /// Sets the status of the response.
    pub fn set_status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Adds bytes of the body that were sent.
    pub fn add_body_bytes(&mut self, bytes: usize) {
        self.body_bytes += bytes as u64;
        let registry = &self.ledger.entries.registry;
        registry.count_response_body_bytes(bytes);
    }

    /// Sets the maximum memory that the guest held at one time in linear memories and tables, in bytes.
    pub fn set_guest_peak_bytes(&mut self, peak_bytes: usize) {
        self.peak_guest_bytes = peak_bytes;
    }

    /// Records that the response comes from the response cache.
    pub fn cache_hit(&mut self) {
        self.cache = Some(CacheStatus::Hit);
        let registry = &self.ledger.entries.registry;
        registry.count_response_cache_hit();
    }

    /// Records that the component makes the response.
    pub fn cache_miss(&mut self) {
        self.cache = Some(CacheStatus::Miss);
    }

    /// Sets the outcome. Only the first call has an effect.
    pub fn finish(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }

    /// Sets the outcome, with the error that led to it. Only the first outcome counts.
    pub fn finish_with(&mut self, outcome: Outcome, error: impl Into<String>) {
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            self.error = Some(error.into());
        }
    }
}

impl Drop for AccessLogEntry {
    fn drop(&mut self) {
        let outcome = self.outcome.unwrap_or(Outcome::Aborted);
        let (method, _) = self.request();
        let entries = &self.ledger.entries;
        let (duration, peak_bytes) = (entries.since.elapsed(), entries.peak_bytes());
        // Before the end is counted, so that a reader of that count finds the bytes as well.
        if self.body_bytes > 0 && self.status.is_some_and(|status| status.is_success()) {
            let registry = &entries.registry;
            registry.count_target_bytes(&self.target, self.body_bytes);
        }
        entries
            .registry
            .count_end(outcome, method, self.status, duration, peak_bytes);
        // One list of fields for every level.
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    target: ACCESS_LOG,
                    method = %method,
                    target = %RedactedTarget(&self.target),
                    status = self.status.map(|status| status.as_u16()),
                    body_bytes_sent = self.body_bytes,
                    duration_us = micros(duration),
                    outcome = %outcome,
                    cache = self.cache.map(tracing::field::display),
                    guest_peak_bytes = self.peak_guest_bytes,
                    peak_bytes,
                    error = self.error,
                )
            };
        }
        match outcome {
            Outcome::Completed | Outcome::Aborted => log!(info),
            Outcome::Rejected | Outcome::Limited => log!(warn),
            Outcome::Failed => log!(error),
        }
    }
}

/// A target for the log: on one line, with secrets such as signatures replaced.
struct RedactedTarget<'a>(&'a str);

/// Replacement of a secret in the log.
const REDACTED: &str = "[redacted]";

impl fmt::Display for RedactedTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        let Some((path, query)) = self.0.split_once('?') else {
            return write_escaped(self.0, f);
        };
        write_escaped(path, f)?;
        for (place, pair) in query.split('&').enumerate() {
            f.write_char(if place == 0 { '?' } else { '&' })?;
            match pair.split_once('=') {
                Some((name, value)) if !value.is_empty() && is_secret(name) => {
                    write_escaped(name, f)?;
                    f.write_char('=')?;
                    f.write_str(REDACTED)?;
                }
                _ => write_escaped(pair, f)?,
            }
        }
        Ok(())
    }
}

/// Returns whether a query parameter is a secret. `sig` is millpond's own. The other names occur in signed URLs of
/// other programs (`X-Amz-Signature`, `access_token`), because a component may come from anyone.
fn is_secret(name: &str) -> bool {
    let ends_with = |word: &str| {
        let start = name.len().checked_sub(word.len());
        let end = start.and_then(|start| name.as_bytes().get(start..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(word.as_bytes()))
    };
    name.eq_ignore_ascii_case("sig")
        || ["signature", "token", "password", "secret"]
            .into_iter()
            .any(ends_with)
}

fn write_escaped(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if text.bytes().all(is_plain) {
        f.write_str(text)
    } else {
        fmt::Display::fmt(&text.escape_debug(), f)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_logged_escaped() {
        for target in [
            "/a.gif?b=c&d",
            "*",
            "/a\"b",
            "/a'b",
            "/a\\b",
            "/\u{e4}",
            "/\n\u{1b}[1m",
            "",
        ] {
            assert_eq!(
                RedactedTarget(target).to_string(),
                target.escape_debug().to_string()
            );
        }
    }

    #[test]
    fn a_signature_that_can_be_used_is_not_logged() {
        for (target, logged) in [
            (
                "/api/media/ab?exp=1&key=k1&ip=10.0.0.1&sig=c2VjcmV0",
                "/api/media/ab?exp=1&key=k1&ip=10.0.0.1&sig=[redacted]",
            ),
            ("/a?sig=c2Vj&download=b", "/a?sig=[redacted]&download=b"),
            (
                "/a?sig=x&SIG=y&sig=\"z",
                "/a?sig=[redacted]&SIG=[redacted]&sig=[redacted]",
            ),
            ("/a?sig=x=y?z&b", "/a?sig=[redacted]&b"),
            (
                "/a?X-Amz-Signature=x&access_token=y",
                "/a?X-Amz-Signature=[redacted]&access_token=[redacted]",
            ),
            ("/a?\u{e4}=b&sig=x", "/a?\u{e4}=b&sig=[redacted]"),
            ("/a?sig=", "/a?sig="),
            ("/a?sig&sign=x&design=y&?&&", "/a?sig&sign=x&design=y&?&&"),
            ("/sig=x/a", "/sig=x/a"),
        ] {
            assert_eq!(RedactedTarget(target).to_string(), logged);
        }
    }
}
