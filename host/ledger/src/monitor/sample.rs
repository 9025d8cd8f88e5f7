//! One look at the process's memory.

use super::trend::Trend;
use crate::heap::HeapFigures;
use crate::process::ProcessMemory;
use crate::registry::Snapshot;

/// Figures of one look at the process.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Sample {
    /// The kernel's figures of the process.
    pub process: ProcessMemory,
    /// The allocator's figures, where it has any.
    pub heap: Option<HeapFigures>,
    /// Bytes that the kernel holds for open connections.
    pub socket_bytes: usize,
    /// The sums of the ledgers.
    pub snapshot: Snapshot,
    /// Bytes that the allocator has given out, less those of the start and those that the ledgers explain. Ledgers count
    /// a little more than is taken, so it may be below zero.
    pub unattributed_bytes: i64,
    /// How what is unexplained moves.
    pub trend: Trend,
}
