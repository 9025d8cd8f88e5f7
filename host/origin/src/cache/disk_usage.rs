//! Disk usage: the bytes of all cache files, of those too that have no name any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of all cache files, with those that are reserved for fills.
#[derive(Debug, Default)]
pub(crate) struct DiskUsage(AtomicU64);

/// Bytes of one cache file, which are counted until it is dropped.
#[derive(Debug)]
pub(crate) struct UsedBytes {
    usage: Arc<DiskUsage>,
    bytes: AtomicU64,
}

impl DiskUsage {
    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl UsedBytes {
    pub(super) fn new(usage: &Arc<DiskUsage>, bytes: u64) -> Self {
        usage.0.fetch_add(bytes, Ordering::AcqRel);
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
        self.usage.0.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(super) fn subtract(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.usage.0.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Drop for UsedBytes {
    fn drop(&mut self) {
        self.usage.0.fetch_sub(self.bytes(), Ordering::AcqRel);
    }
}
