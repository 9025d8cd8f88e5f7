//! Counts of a client.

use std::sync::atomic::AtomicU64;

/// Counts of a client since its start.
#[derive(Debug, Default)]
pub(crate) struct TransferCounts {
    /// Requests that were sent, with those that followed redirects.
    pub(crate) requests: AtomicU64,
    /// Bytes of content that arrived.
    pub(crate) received_bytes: AtomicU64,
}
