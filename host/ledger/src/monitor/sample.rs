//! One sample of the process's memory.

use super::trend::Trend;
use crate::heap::HeapStats;
use crate::process::ProcessMemory;
use crate::snapshot::Snapshot;
use std::time::SystemTime;

/// One sample of the process's memory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Sample {
    /// The kernel's figures of the process.
    pub process: ProcessMemory,
    /// Statistics of the allocator, if it keeps any.
    pub heap: Option<HeapStats>,
    /// Kernel memory of the open connections, in bytes.
    pub socket_bytes: usize,
    /// Sums of the ledgers.
    pub snapshot: Snapshot,
    /// Unattributed memory, in bytes: allocated memory minus the baseline, the ledgers and the caches. It may be
    /// negative, because ledgers round up.
    pub unattributed_bytes: i64,
    /// Trend of the unattributed memory.
    pub trend: Trend,
    /// Growth that the monitor has warned of and that goes on. `None` while there is none.
    pub growth: Option<Growth>,
}

/// Growth of memory that the monitor warns of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Growth {
    /// Time from which on memory has grown.
    pub since: SystemTime,
    /// The warning as of this sample: rate, shape, and the routes that grow.
    pub message: String,
}
