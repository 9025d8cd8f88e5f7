//! What is remembered of one request from its head to its end, and logged once: how it ended.

use crate::ledger::accounts::Accounts;
use crate::ledger::route::Route;
use crate::ledger::{Ledger, Owner};
use http::StatusCode;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How a request ended. Logs, metrics and tests use these five words and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its answer was handed to the connection whole, whatever its status.
    Completed,
    /// The client went away first.
    Aborted,
    /// The host did not take it: its head is unsound or too large, its client asks for too much, or there is no room.
    Refused,
    /// It met a limit of its own.
    Limited,
    /// The guest, the store or the host failed.
    Failed,
}

impl End {
    /// All of them.
    pub const ALL: [End; 5] = [
        End::Completed,
        End::Aborted,
        End::Refused,
        End::Limited,
        End::Failed,
    ];

    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            End::Completed => "completed",
            End::Aborted => "aborted",
            End::Refused => "refused",
            End::Limited => "limited",
            End::Failed => "failed",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The record of one request. Dropped without an end, it was aborted: whoever waits for an answer is the only
/// one who can take its future or its body away.
#[derive(Debug)]
pub(crate) struct Record {
    method: http::Method,
    target: String,
    status: Option<StatusCode>,
    body_bytes: u64,
    peak_guest_bytes: usize,
    is_reused: bool,
    end: Option<End>,
    reason: Option<String>,
    accounts: Arc<Accounts>,
    route: Arc<Route>,
    ledger: Ledger,
}

/// The `tracing` target of the one event that there is for each request, when it has ended.
pub const ACCESS_LOG: &str = "millpond::access";

/// Longest piece of a target that is logged, in bytes.
const LOGGED_TARGET_BYTES: usize = 1024;

impl Record {
    /// The record of a request whose head is complete, with a ledger of that limit. The target is in origin-form, or empty
    /// where it has no path.
    pub(crate) fn new(
        method: &http::Method,
        target: &str,
        accounts: Arc<Accounts>,
        limit_bytes: usize,
    ) -> Self {
        let route = accounts.route(target);
        let owner = Owner::Request {
            method: method.clone(),
            route: Arc::clone(&route),
        };
        let ledger = Ledger::new(&accounts, owner, limit_bytes);
        Record::on(ledger, route, method, target, accounts)
    }

    /// The same where there is a ledger already, of a request for that route.
    pub(crate) fn on(
        ledger: Ledger,
        route: Arc<Route>,
        method: &http::Method,
        target: &str,
        accounts: Arc<Accounts>,
    ) -> Self {
        route.requests.fetch_add(1, Ordering::Relaxed);
        let target = if target.is_empty() { "*" } else { target };
        Record {
            ledger,
            route,
            method: method.clone(),
            target: target[..target.floor_char_boundary(LOGGED_TARGET_BYTES)].to_owned(),
            status: None,
            body_bytes: 0,
            peak_guest_bytes: 0,
            is_reused: false,
            end: None,
            reason: None,
            accounts,
        }
    }

    /// What the request holds.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The route that its target follows.
    pub(crate) fn route(&self) -> &Arc<Route> {
        &self.route
    }

    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.body_bytes += bytes as u64;
    }

    pub(crate) fn guest_took(&mut self, peak_bytes: usize) {
        self.peak_guest_bytes = peak_bytes;
    }

    /// The answer is one that was given before.
    pub(crate) fn reused(&mut self) {
        self.is_reused = true;
        self.accounts.count_reused();
    }

    /// Says how the request ended. What is said first counts.
    pub(crate) fn ended(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// Says how the request ended, and why.
    pub(crate) fn ended_because(&mut self, end: End, reason: impl Into<String>) {
        if self.end.is_none() {
            self.end = Some(end);
            self.reason = Some(reason.into());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let end = self.end.unwrap_or(End::Aborted);
        let duration = self.ledger.since().elapsed();
        self.accounts
            .count_end(end, duration, self.ledger.peak_bytes());
        // The names stand once, here; the level is all that differs.
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    target: ACCESS_LOG,
                    method = %self.method,
                    path = %Logged(&self.target),
                    status = self.status.map(|status| status.as_u16()),
                    bytes = self.body_bytes,
                    duration_us = micros(duration),
                    end = %end,
                    reused = self.is_reused,
                    guest_peak_bytes = self.peak_guest_bytes,
                    peak_bytes = self.ledger.peak_bytes(),
                    reason = self.reason,
                )
            };
        }
        match end {
            End::Completed | End::Aborted => log!(info),
            End::Refused | End::Limited => log!(warn),
            End::Failed => log!(error),
        }
    }
}

/// A target as it is logged: on one line, whatever a client puts into it, and without what would let a reader of the log
/// in, such as a signature.
struct Logged<'a>(&'a str);

/// Stands in the log for a secret.
const REDACTED: &str = "[redacted]";

impl fmt::Display for Logged<'_> {
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

/// Whether a query's parameter of that name is a secret: ours is `sig`; the others are those of signed URLs elsewhere
/// (`X-Amz-Signature`, `access_token`), since a component may be anyone's.
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
                Logged(target).to_string(),
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
            assert_eq!(Logged(target).to_string(), logged);
        }
    }
}
