//! State of the process now, beside the history: the verdict, the requests in flight, and the targets with most bytes.

use crate::admin::readiness::Readiness;
use crate::admin::verdict::Verdict;
use crate::tls::Certificate;
use millpond::Millpond;
use millpond::ledger::{LiveRequest, TargetBytes};
use millpond::monitor::{MemorySources, Sample};
use serde::Serialize;
use std::time::SystemTime;

/// Maximum requests in each list.
const LISTED_REQUESTS: usize = 20;

/// Maximum targets in the list.
const LISTED_TARGETS: usize = 20;

/// State of the process now.
#[derive(Debug, Serialize)]
pub(super) struct LiveState {
    verdict: Verdict,
    /// Reason for which the process cannot serve.
    unready: Option<String>,
    requests: usize,
    connections: usize,
    instances: usize,
    response_bodies: usize,
    files: usize,
    waiting: usize,
    reserved_bytes: usize,
    leaked_bytes: usize,
    /// Requests that hold most memory.
    largest: Vec<LiveRequest>,
    oldest: Vec<LiveRequest>,
    top_targets: Vec<TargetBytes>,
    certificate: Option<CertificateState>,
}

/// Validity of the certificate. `None` if it cannot be read from the certificate.
#[derive(Debug, Serialize)]
struct CertificateState {
    /// Days until the certificate expires. Negative once it has expired.
    days_left: Option<i64>,
    not_after: Option<String>,
}

impl LiveState {
    pub(super) fn of(
        millpond: &Millpond,
        seen: &Sample,
        readiness: &Readiness,
        certificate: Option<&Certificate>,
    ) -> Self {
        let registry = millpond.registry();
        let in_use = registry.in_use();
        LiveState {
            verdict: Verdict::of(seen, millpond.warm_up_bytes()),
            unready: readiness.unready(),
            requests: seen.snapshot.live_requests,
            connections: seen.snapshot.live_connections,
            instances: in_use.stores(),
            response_bodies: in_use.bodies(),
            files: in_use.files(),
            waiting: millpond.budget().queue_length(),
            reserved_bytes: millpond.budget().reserved_bytes(),
            leaked_bytes: seen.snapshot.leaked.total(),
            largest: registry.largest_requests(LISTED_REQUESTS),
            oldest: registry.live_requests(LISTED_REQUESTS),
            top_targets: registry.top_targets(LISTED_TARGETS),
            certificate: certificate.map(|certificate| state_of(certificate, SystemTime::now())),
        }
    }
}

#[cfg(feature = "tls")]
fn state_of(certificate: &Certificate, now: SystemTime) -> CertificateState {
    let not_after = certificate.expiry();
    CertificateState {
        days_left: not_after.map(|end| days_between(now, end)),
        not_after: not_after.map(|end| humantime::format_rfc3339_seconds(end).to_string()),
    }
}

#[cfg(not(feature = "tls"))]
fn state_of(certificate: &Certificate, _: SystemTime) -> CertificateState {
    match *certificate {}
}

/// Whole days from `now` to `end`, rounded down.
#[cfg(feature = "tls")]
fn days_between(now: SystemTime, end: SystemTime) -> i64 {
    const DAY_SECONDS: i64 = 24 * 3600;
    let seconds = |span: std::time::Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    match end.duration_since(now) {
        Ok(left) => seconds(left) / DAY_SECONDS,
        Err(past) => -1 - seconds(past.duration()) / DAY_SECONDS,
    }
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn days_are_whole_and_negative_after_the_end() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (seconds, days) in [(86_400, 1), (86_399, 0), (0, 0)] {
            assert_eq!(days_between(now, now + Duration::from_secs(seconds)), days);
        }
        for (seconds, days) in [(1, -1), (86_399, -1), (86_400, -2)] {
            assert_eq!(days_between(now, now - Duration::from_secs(seconds)), days);
        }
    }
}
