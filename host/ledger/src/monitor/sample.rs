//! One look at the process's memory.

use super::trend::Trend;
use crate::heap::HeapFigures;
use crate::process::ProcessMemory;
use crate::registry::Snapshot;

/// What the watch saw last.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Sample {
    /// What the kernel says of the process.
    pub process: ProcessMemory,
    /// What the allocator says of itself, where it says anything.
    pub heap: Option<HeapFigures>,
    /// What the kernel holds for open connections.
    pub socket_bytes: usize,
    /// What the ledgers say.
    pub survey: Snapshot,
    /// What the allocator has given out beyond what it had at the start and what the ledgers explain. Ledgers count
    /// a little more than is taken, so it may be below zero.
    pub unexplained_bytes: i64,
    /// How what is unexplained moves.
    pub trend: Trend,
}
