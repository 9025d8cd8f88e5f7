//! Formats of the log.

use clap::ValueEnum;

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per line, with the field names of the Elastic Common Schema.
    Json,
    /// Requests in Apache's Common Log Format, other events as text.
    Common,
    /// Requests in Apache's Combined Log Format, other events as text.
    Combined,
}
