//! Counts of ended requests by outcome, method and status class.

use crate::outcome::Outcome;
use http::{Method, StatusCode};
use std::sync::atomic::{AtomicU64, Ordering};

/// Methods that are counted by name. Every other method is counted as `other`, so that no client can add a series.
const METHODS: [&str; 10] = [
    "GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "other",
];

/// Classes of status codes (RFC 9110 section 15). `none` is a request that got no response.
pub(crate) const CODES: [&str; 5] = ["none", "2xx", "3xx", "4xx", "5xx"];

/// One counter for each combination. Counting a request adds to one atomic number and takes no lock.
#[derive(Debug, Default)]
pub(crate) struct RequestCounts([[[AtomicU64; CODES.len()]; METHODS.len()]; Outcome::ALL.len()]);

/// Number of ended requests with one outcome, method and class of status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestCount {
    /// Outcome of the requests.
    pub outcome: Outcome,
    /// Method of the requests, or `other`.
    pub method: &'static str,
    /// Class of the status code, as in `2xx`. `none` if there was no response.
    pub code: &'static str,
    /// Number of requests.
    pub count: u64,
}

impl RequestCount {
    /// All values of `code`.
    pub const CODES: [&'static str; 5] = CODES;
}

impl RequestCounts {
    pub(crate) fn add(&self, outcome: Outcome, method: &Method, status: Option<StatusCode>) {
        let method = METHODS.iter().position(|name| *name == method.as_str());
        let method = method.unwrap_or(METHODS.len() - 1);
        let code = class(status);
        self.0[outcome as usize][method][code].fetch_add(1, Ordering::AcqRel);
    }

    /// All counts, including zeros.
    pub(crate) fn all(&self) -> impl Iterator<Item = RequestCount> + '_ {
        Outcome::ALL.into_iter().flat_map(move |outcome| {
            let of_outcome = METHODS.iter().zip(&self.0[outcome as usize]);
            of_outcome.flat_map(move |(method, of_method)| {
                CODES
                    .iter()
                    .zip(of_method)
                    .map(move |(code, count)| RequestCount {
                        outcome,
                        method,
                        code,
                        count: count.load(Ordering::Acquire),
                    })
            })
        })
    }

    /// Number of requests with one outcome.
    pub(crate) fn of(&self, outcome: Outcome) -> u64 {
        let counts = self.0[outcome as usize].iter().flatten();
        counts.map(|count| count.load(Ordering::Acquire)).sum()
    }
}

/// Index of a status code's class in [`CODES`]. A code beyond the five classes counts as 5xx (RFC 9110 section 15).
pub(crate) fn class(status: Option<StatusCode>) -> usize {
    let class = status.map_or(0, |status| usize::from(status.as_u16() / 100));
    class.saturating_sub(1).min(CODES.len() - 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_are_counted_by_outcome_method_and_class() {
        let counts = RequestCounts::default();
        for (method, status, of_method, of_code) in [
            ("GET", Some(206), "GET", "2xx"),
            ("HEAD", Some(304), "HEAD", "3xx"),
            ("BREW", Some(405), "other", "4xx"),
            ("get", Some(999), "other", "5xx"),
            ("OPTIONS", None, "OPTIONS", "none"),
        ] {
            let before: Vec<_> = counts.all().collect();
            let status = status.map(|status| StatusCode::from_u16(status).unwrap());
            counts.add(Outcome::Limited, &method.parse().unwrap(), status);
            let after: Vec<_> = counts.all().collect();
            let changed: Vec<_> = after
                .iter()
                .filter(|count| !before.contains(count))
                .collect();
            let expected = RequestCount {
                outcome: Outcome::Limited,
                method: of_method,
                code: of_code,
                count: 1,
            };
            assert_eq!(changed, [&expected]);
        }
        assert_eq!(counts.of(Outcome::Limited), 5);
        assert_eq!(counts.of(Outcome::Completed), 0);
    }
}
