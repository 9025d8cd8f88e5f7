//! The access log: one entry for each request, from its head to its outcome.

pub(crate) mod line;
mod logged_text;
mod redaction;

pub use line::{ACCESS_LOG, AccessLog, AccessLogFields, AccessLogLine, CacheStatus};
pub use redaction::{ClientText, RedactedUrl};

use crate::kind::Kind;
use crate::ledger::{Charge, Ledger};
use crate::outcome::Outcome;
use crate::registry::{LedgerRegistry, Owner};
use crate::route::Route;
use http::{Method, StatusCode, Version};
use line::TracingAccessLog;
use logged_text::{LoggedText, TRACE_STATE_BYTES, TextPart};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The access log entry of one request. Dropping it counts the request and logs the entry.
///
/// An entry without an outcome counts as aborted. Only a client that leaves makes the connection drop its future or its
/// body.
#[derive(Debug)]
pub struct AccessLogEntry {
    /// Ledger of the request, whose owner is a request.
    ledger: Ledger,
    client: Option<IpAddr>,
    version: Version,
    text: LoggedText,
    _text: Charge,
    status: Option<StatusCode>,
    body_bytes: u64,
    peak_guest_bytes: usize,
    cache: Option<CacheStatus>,
    outcome: Option<Outcome>,
    reason: Option<String>,
}

/// Head of a request, as far as its log line needs it.
#[derive(Debug, Clone, Copy)]
pub struct LoggedHead<'a> {
    /// Target in origin-form, or empty if the request has no path.
    pub target: &'a str,
    /// Version of HTTP.
    pub version: Version,
    /// Address of the client, if it is known.
    pub client: Option<IpAddr>,
    /// Request id, if the request has one.
    pub request_id: Option<&'a str>,
    /// `Host`.
    pub host: Option<&'a [u8]>,
    /// `Referer`.
    pub referrer: Option<&'a [u8]>,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `traceparent` (W3C Trace Context). Several of them are as none.
    pub trace_parent: Option<&'a [u8]>,
    /// `tracestate`.
    pub trace_state: Option<&'a [u8]>,
}

impl<'a> LoggedHead<'a> {
    /// Returns a head of HTTP/1.1 with a target alone.
    #[must_use]
    pub fn new(target: &'a str) -> Self {
        LoggedHead {
            target,
            version: Version::HTTP_11,
            client: None,
            request_id: None,
            host: None,
            referrer: None,
            user_agent: None,
            trace_parent: None,
            trace_state: None,
        }
    }
}

/// Maximum length of a logged reason, in bytes. A component chooses some of them.
const LOGGED_REASON_BYTES: usize = 1024;

impl AccessLogEntry {
    /// Returns the entry of a request whose head is complete, with a new ledger. `limit_bytes` is the maximum memory of
    /// the request, of all kinds together.
    #[must_use]
    pub fn new(
        method: &Method,
        head: &LoggedHead<'_>,
        registry: &Arc<LedgerRegistry>,
        limit_bytes: usize,
    ) -> Self {
        let owner = Owner::Request {
            method: method.clone(),
            route: registry.route(head.target),
        };
        AccessLogEntry::of(Ledger::new(registry, owner, limit_bytes), head)
    }

    /// Returns the entry of a request that has a ledger already. `None` if the owner of the ledger is not a request.
    #[must_use]
    pub fn with_ledger(ledger: Ledger, head: &LoggedHead<'_>) -> Option<Self> {
        ledger.entries.request()?;
        Some(AccessLogEntry::of(ledger, head))
    }

    fn of(ledger: Ledger, head: &LoggedHead<'_>) -> Self {
        let wanted = ledger.entries.registry.access_log_fields();
        let target = match head.target {
            "" => "*",
            target => target,
        };
        let text = LoggedText::of([
            Some(target.as_bytes()).filter(|_| wanted.target),
            head.host.filter(|_| wanted.host),
            head.referrer.filter(|_| wanted.agent),
            head.user_agent.filter(|_| wanted.agent),
            // The response has it too.
            head.request_id.map(str::as_bytes),
            head.trace_parent.filter(|_| wanted.trace),
            head.trace_state
                .filter(|state| wanted.trace && state.len() <= TRACE_STATE_BYTES),
        ]);
        let mut charge = ledger.empty_charge(Kind::Head);
        // The text is short. A request without room for it fails at its next charge.
        let _ = charge.resize(text.held_bytes());
        let log_entry = AccessLogEntry {
            ledger,
            client: head.client,
            version: head.version,
            text,
            _text: charge,
            status: None,
            body_bytes: 0,
            peak_guest_bytes: 0,
            cache: None,
            outcome: None,
            reason: None,
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

    /// Address of the client, if it is known.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        self.client
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
        let registry = &self.ledger.entries.registry;
        registry.count_response_cache_miss();
    }

    /// Sets the reason of the status, such as the message of an error response, unless there is a reason already.
    pub fn set_status_reason(&mut self, reason: &str) {
        let reason = || bounded(reason).to_owned();
        self.reason.get_or_insert_with(reason);
    }

    /// Sets the outcome. Only the first call has an effect.
    pub fn finish(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }

    /// Sets the outcome, with the reason for it. Only the first outcome counts.
    pub fn finish_with(&mut self, outcome: Outcome, reason: impl AsRef<str>) {
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            self.reason = Some(bounded(reason.as_ref()).to_owned());
        }
    }
}

/// Returns the part of a reason that is logged.
fn bounded(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(LOGGED_REASON_BYTES)]
}

impl Drop for AccessLogEntry {
    fn drop(&mut self) {
        let outcome = self.outcome.unwrap_or(Outcome::Aborted);
        let (method, route) = self.request();
        let entries = &self.ledger.entries;
        let (duration, peak_bytes) = (entries.since.elapsed(), entries.peak_bytes());
        // Before the end is counted, so that a reader of that count finds the bytes as well.
        if self.body_bytes > 0
            && self.status.is_some_and(|status| status.is_success())
            && let Some(target) = self.text.part(TextPart::Target)
        {
            let registry = &entries.registry;
            registry.count_target_bytes(&String::from_utf8_lossy(target), self.body_bytes);
        }
        route.count_end(self.status);
        entries
            .registry
            .count_end(outcome, method, self.status, duration, peak_bytes);
        let text = &self.text;
        let request_id = text.part(TextPart::RequestId);
        let line = AccessLogLine {
            level: match outcome {
                Outcome::Completed | Outcome::Aborted => tracing::Level::INFO,
                Outcome::Rejected | Outcome::Limited => tracing::Level::WARN,
                Outcome::Failed => tracing::Level::ERROR,
            },
            client: self.client,
            method,
            target: RedactedUrl::new(text.part(TextPart::Target).unwrap_or_default()),
            route: &route.pattern,
            version: self.version,
            host: text.part(TextPart::Host).map(ClientText),
            referrer: text.part(TextPart::Referrer).map(RedactedUrl::new),
            user_agent: text.part(TextPart::UserAgent).map(ClientText),
            trace_parent: text.part(TextPart::TraceParent),
            trace_state: text.part(TextPart::TraceState),
            // It was text as it came.
            request_id: request_id.and_then(|id| std::str::from_utf8(id).ok()),
            status: self.status,
            body_bytes_sent: self.body_bytes,
            duration,
            outcome,
            cache: self.cache,
            guest_peak_bytes: self.peak_guest_bytes,
            peak_bytes,
            reason: self.reason.as_deref(),
        };
        match entries.registry.access_log() {
            Some(access_log) => access_log.write(&line),
            None => TracingAccessLog.write(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// Keeps what it is told of the text of each request.
    #[derive(Debug)]
    struct Kept {
        fields: AccessLogFields,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl AccessLog for Kept {
        fn fields(&self) -> AccessLogFields {
            self.fields
        }

        fn write(&self, line: &AccessLogLine<'_>) {
            let (host, agent) = (line.host, line.user_agent);
            let words = [host, agent].map(|text| text.map(|text| text.to_string()));
            let text = format!(
                "{} {words:?} {:?} {:?}",
                line.target, line.request_id, line.reason
            );
            self.lines.lock().push(text);
        }
    }

    fn logged(fields: AccessLogFields) -> (Vec<String>, usize) {
        let registry = Arc::new(LedgerRegistry::default());
        let lines = Arc::default();
        let log = Kept {
            fields,
            lines: Arc::clone(&lines),
        };
        assert!(registry.set_access_log(Arc::new(log)).is_ok());
        let head = LoggedHead {
            host: Some(b"h"),
            user_agent: Some(b"curl"),
            request_id: Some("r1"),
            trace_parent: Some(b"00-"),
            // One byte too long.
            trace_state: Some(&[b'x'; TRACE_STATE_BYTES + 1]),
            ..LoggedHead::new("/a?sig=x")
        };
        let mut log_entry = AccessLogEntry::new(&Method::GET, &head, &registry, 10_000);
        let charged = registry.snapshot().total().of(Kind::Head);
        log_entry.finish_with(Outcome::Rejected, "x".repeat(2 * LOGGED_REASON_BYTES));
        drop(log_entry);
        assert_eq!(registry.snapshot().total().total(), 0);
        let mut lines = lines.lock();
        (std::mem::take(&mut *lines), charged)
    }

    #[test]
    fn only_the_text_that_is_logged_is_copied_and_it_is_charged() {
        let reason = "x".repeat(LOGGED_REASON_BYTES);
        let (lines, charged) = logged(AccessLogFields::ALL);
        let all = format!(
            "/a?sig=[redacted] [Some(\"h\"), Some(\"curl\")] Some(\"r1\") Some({reason:?})"
        );
        assert_eq!((lines, charged), (vec![all], 8 + 1 + 4 + 2 + 3));
        let (lines, charged) = logged(AccessLogFields::NONE);
        let none = format!(" [None, None] Some(\"r1\") Some({reason:?})");
        assert_eq!((lines, charged), (vec![none], 2));
    }
}
