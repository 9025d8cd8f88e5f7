//! How requests end.

use std::fmt;

/// How a request ended. Logs, metrics and tests use these five words and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The whole response was handed to the connection, whatever its status.
    Completed,
    /// The client left before that.
    Aborted,
    /// The host rejected the request: its head is invalid or too large, its client sends too many, or there is no room.
    Rejected,
    /// The request reached one of its limits.
    Limited,
    /// The guest, the store or the host failed.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 5] = [
        Outcome::Completed,
        Outcome::Aborted,
        Outcome::Rejected,
        Outcome::Limited,
        Outcome::Failed,
    ];

    /// The word in logs and metrics.
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
