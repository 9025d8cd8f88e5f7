//! Disk usage: the bytes of all cache files, of those too that have no name any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Bytes of all cache files, with those that are reserved for fills.
#[derive(Debug, Default)]
pub(crate) struct DiskUsage {
    bytes: AtomicU64,
    /// Notified when bytes become free.
    freed: Notify,
}

/// Bytes of one cache file, which are counted until it is dropped.
#[derive(Debug)]
pub(crate) struct UsedBytes {
    usage: Arc<DiskUsage>,
    bytes: AtomicU64,
}

impl DiskUsage {
    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Returns a future that waits until bytes become free from now on.
    pub(crate) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }
}

impl UsedBytes {
    pub(super) fn new(usage: &Arc<DiskUsage>, bytes: u64) -> Self {
        usage.bytes.fetch_add(bytes, Ordering::AcqRel);
        UsedBytes {
            usage: Arc::clone(usage),
            bytes: AtomicU64::new(bytes),
        }
    }

    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub(super) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.usage.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(super) fn subtract(&self, bytes: u64) {
        self.take_back(bytes);
        self.usage.freed.notify_waiters();
    }

    /// Subtracts bytes that were added in vain.
    pub(super) fn take_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.usage.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Drop for UsedBytes {
    fn drop(&mut self) {
        self.usage.bytes.fetch_sub(self.bytes(), Ordering::AcqRel);
        self.usage.freed.notify_waiters();
    }
}
