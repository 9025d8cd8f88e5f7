//! Outcomes of requests.

use std::fmt;

/// Outcome of a request. Logs, metrics and tests use these five words and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The host passed the whole response to the connection, whatever its status.
    Completed,
    /// The client left before the end of the response.
    Aborted,
    /// The host rejected the request: its head is invalid or too large, its client sends too many, or memory is short.
    Rejected,
    /// The request reached one of its limits.
    Limited,
    /// The guest, the store or the host failed.
    Failed,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Outcome; 5] = [
        Outcome::Completed,
        Outcome::Aborted,
        Outcome::Rejected,
        Outcome::Limited,
        Outcome::Failed,
    ];

    /// Word in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Aborted => "aborted",
            Outcome::Rejected => "rejected",
            Outcome::Limited => "limited",
            Outcome::Failed => "failed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
