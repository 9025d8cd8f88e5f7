//! How the requests to one server ended, counted.

use serde::Serialize;
use std::collections::BTreeMap;

/// How a request ended, as its client saw it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    /// Everything came that the head promised.
    Whole,
    /// The client left, as planned.
    Left,
    /// The client gave up on its slow reading, as planned.
    GaveUp,
    /// The server ended the answer before what its head promised.
    CutShort,
    /// There was no answer, or it stopped coming.
    Failed(String),
}

/// One request that ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Done {
    /// The status, where a head came.
    pub(crate) status: Option<u16>,
    /// Body bytes that came.
    pub(crate) bytes: u64,
    pub(crate) end: End,
}

impl Done {
    pub(crate) fn failed(why: impl ToString) -> Self {
        Done {
            status: None,
            bytes: 0,
            end: End::Failed(why.to_string()),
        }
    }
}

/// The requests to one server.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(crate) struct Tally {
    /// Requests that ended one way or another.
    pub(crate) requests: u64,
    /// How many answers had each status.
    pub(crate) by_status: BTreeMap<u16, u64>,
    /// How each request ended; together these are `requests`.
    pub(crate) whole: u64,
    pub(crate) left: u64,
    pub(crate) gave_up: u64,
    pub(crate) cut_short: u64,
    pub(crate) failed: u64,
    /// Messages of the failures, and the number of each.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Planned, and not sent: too many were on their way.
    pub(crate) not_sent: u64,
    /// Still on their way when the time was up, and ended by us.
    pub(crate) stopped: u64,
    /// Body bytes that clients read.
    pub(crate) body_bytes: u64,
}

/// Different failures that are told apart; a server in trouble can say a thousand different things.
const FAILURES_TOLD: usize = 32;

impl Tally {
    pub(crate) fn add(&mut self, done: Done) {
        self.requests += 1;
        self.body_bytes += done.bytes;
        if let Some(status) = done.status {
            *self.by_status.entry(status).or_default() += 1;
        }
        match done.end {
            End::Whole => self.whole += 1,
            End::Left => self.left += 1,
            End::GaveUp => self.gave_up += 1,
            End::CutShort => self.cut_short += 1,
            End::Failed(why) => {
                self.failed += 1;
                let told = self.failures.len() < FAILURES_TOLD;
                if told || self.failures.contains_key(&why) {
                    *self.failures.entry(why).or_default() += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_counts_once_however_it_ended() {
        let mut tally = Tally::default();
        let ends = [
            End::Whole,
            End::Left,
            End::GaveUp,
            End::CutShort,
            End::Failed("no answer".to_owned()),
        ];
        for end in ends {
            tally.add(Done {
                status: Some(200),
                bytes: 10,
                end,
            });
        }
        tally.add(Done::failed("no answer"));
        let ends = tally.whole + tally.left + tally.gave_up + tally.cut_short + tally.failed;
        assert_eq!((tally.requests, ends, tally.body_bytes), (6, 6, 50));
        assert_eq!(tally.by_status, BTreeMap::from([(200, 5)]));
        assert_eq!(
            tally.failures,
            BTreeMap::from([("no answer".to_owned(), 2)])
        );
    }
}
