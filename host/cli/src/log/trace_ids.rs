//! Ids of a request's span, for its log line.

use std::fmt;

/// Trace id and span id of a request, which its log line has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceIds {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
}

/// Id in hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct HexId<'a>(pub(super) &'a [u8]);

impl fmt::Display for HexId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
