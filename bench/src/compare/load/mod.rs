//! The load: what is sent, by which program, and what comes back.

pub(crate) mod answers;
pub(crate) mod h2load;
mod schedule;
pub(crate) mod sender;
pub(crate) mod wrk;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Result of a load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Answers that came whole.
    pub(crate) answers: u64,
    /// Requests that had none, or were still waiting for it at the end.
    pub(crate) failed: u64,
    /// How many answers had each status; empty where the program does not tell.
    pub(crate) by_status: BTreeMap<u16, u64>,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// Bytes of answers, heads included.
    pub(crate) bytes: u64,
    /// Answers that had no status of 2xx or 3xx.
    pub(crate) errors: u64,
    /// Time from the planned start of each request to the end of its response. `None` for a program that waits for a
    /// response before it sends the next request: it leaves out the requests that would have waited.
    pub(crate) latency: Option<Latency>,
}

/// Latencies, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) most: f64,
}
