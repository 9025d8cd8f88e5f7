//! Line of the access log: all that is known of a request at its end, and the interface to write it.

use super::redaction::{ClientText, RedactedUrl};
use crate::outcome::Outcome;
use http::{Method, StatusCode, Version};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Writer of the access log. Without one, each line is an event of `tracing` ([`ACCESS_LOG`]).
///
/// Register it with [`LedgerRegistry::set_access_log`](crate::LedgerRegistry::set_access_log).
pub trait AccessLog: fmt::Debug + Send + Sync {
    /// Returns the fields to keep until the end of a request. Nothing is copied for the others.
    fn fields(&self) -> AccessLogFields;

    /// Writes a line. It is called on the thread that ends the request, so it must not wait.
    fn write(&self, line: &AccessLogLine<'_>);
}

/// Fields of a line that a request has to keep for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessLogFields {
    /// Address of the client.
    pub client: bool,
    /// Target.
    pub target: bool,
    /// `Host`.
    pub host: bool,
    /// `Referer` and `User-Agent`.
    pub agent: bool,
    /// `traceparent` and `tracestate`.
    pub trace: bool,
}

impl AccessLogFields {
    /// All fields.
    pub const ALL: AccessLogFields = AccessLogFields {
        client: true,
        target: true,
        host: true,
        agent: true,
        trace: true,
    };

    /// No fields.
    pub const NONE: AccessLogFields = AccessLogFields {
        client: false,
        target: false,
        host: false,
        agent: false,
        trace: false,
    };
}

/// Line of the access log.
///
/// A client chose method, target, host, referrer and user agent. They may contain any bytes, so each format has to escape
/// them.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AccessLogLine<'a> {
    /// Level: `INFO` for requests that completed or were aborted, `WARN` for rejected and limited ones, else `ERROR`.
    pub level: tracing::Level,
    /// Address of the client, which may be behind trusted proxies. Only millpond's own server knows it.
    pub client: Option<IpAddr>,
    /// Method, or `-` if the head could not be read.
    pub method: &'a Method,
    /// Target in origin-form, 1 KiB at most.
    pub target: RedactedUrl<'a>,
    /// Pattern of the target's route, as in `/api/media/:id`. There are few of them.
    pub route: &'a str,
    /// Version of HTTP.
    pub version: Version,
    /// `Host`, 256 bytes at most.
    pub host: Option<ClientText<'a>>,
    /// `Referer`, 256 bytes at most.
    pub referrer: Option<RedactedUrl<'a>>,
    /// `User-Agent`, 256 bytes at most.
    pub user_agent: Option<ClientText<'a>>,
    /// `traceparent` (W3C Trace Context), 64 bytes at most. `None` if the request has several.
    pub trace_parent: Option<&'a [u8]>,
    /// `tracestate`, 512 bytes at most. `None` if the request has a longer one, or several.
    pub trace_state: Option<&'a [u8]>,
    /// Request id. Only millpond's own server has one. It consists of letters, digits and some punctuation.
    pub request_id: Option<&'a str>,
    /// Status of the response. `None` if there was none.
    pub status: Option<StatusCode>,
    /// Bytes of the body that were sent.
    pub body_bytes_sent: u64,
    /// Time from the end of the head to the outcome.
    pub duration: Duration,
    /// Outcome.
    pub outcome: Outcome,
    /// Part of the response cache. `None` if the request did not get that far.
    pub cache: Option<CacheStatus>,
    /// Maximum memory of the instance, in bytes.
    pub guest_peak_bytes: usize,
    /// Maximum memory that the request held, of all kinds together, in bytes.
    pub peak_bytes: usize,
    /// Reason of the outcome or the status, 1 KiB at most.
    pub reason: Option<&'a str>,
}

/// Part of the response cache in a request (RFC 9211).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// The response came from the response cache.
    Hit,
    /// The component ran.
    Miss,
}

impl CacheStatus {
    /// Word in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CacheStatus::Hit => "hit",
            CacheStatus::Miss => "miss",
        }
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl AccessLogLine<'_> {
    /// Returns the version as in `HTTP/1.1` or `HTTP/2` (RFC 9110 section 2.5).
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_09 => "HTTP/0.9",
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_3 => "HTTP/3",
            _ => "HTTP/1.1",
        }
    }

    /// Duration in microseconds.
    #[must_use]
    pub fn duration_us(&self) -> u64 {
        u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX)
    }
}

/// Target of the `tracing` event of a request. Each request has one event, at its end.
pub const ACCESS_LOG: &str = "millpond::access";

/// Access log of a program that has set none: an event of `tracing` for each line.
#[derive(Debug)]
pub(crate) struct TracingAccessLog;

impl AccessLog for TracingAccessLog {
    fn fields(&self) -> AccessLogFields {
        AccessLogFields {
            trace: false,
            ..AccessLogFields::ALL
        }
    }

    fn write(&self, line: &AccessLogLine<'_>) {
        // One list of fields for every level.
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    target: ACCESS_LOG,
                    client = line.client.map(tracing::field::display),
                    method = %line.method,
                    target = %line.target,
                    status = line.status.map(|status| status.as_u16()),
                    body_bytes_sent = line.body_bytes_sent,
                    duration_us = line.duration_us(),
                    outcome = %line.outcome,
                    cache = line.cache.map(tracing::field::display),
                    guest_peak_bytes = line.guest_peak_bytes,
                    peak_bytes = line.peak_bytes,
                    protocol = %line.protocol(),
                    host = line.host.map(tracing::field::display),
                    request_id = line.request_id.map(tracing::field::display),
                    referrer = line.referrer.map(tracing::field::display),
                    user_agent = line.user_agent.map(tracing::field::display),
                    reason = line.reason,
                )
            };
        }
        match line.level {
            tracing::Level::ERROR => log!(error),
            tracing::Level::WARN => log!(warn),
            _ => log!(info),
        }
    }
}
