//! Limits that differ from host to host, and how one that was met is called in responses, logs and metrics.

use millpond_ledger::{Kind, LimitExceeded};
use std::fmt;
use std::time::Duration;

/// All that the process may hold, in bytes, unless told otherwise.
pub const MEMORY_BYTES: usize = 1 << 30;

/// All that one request may hold, in bytes, unless told otherwise: the embedded component takes 64 KiB, its
/// stack four times as much, and the rest is for the buffers of a fast download.
pub const REQUEST_MEMORY_BYTES: usize = 1024 * 1024;

/// CPU time of one request's instance: ten thousand times what the embedded component takes.
pub const CPU: Duration = Duration::from_millis(200);

/// Time from a request's admission to its response head, waiting included: a disk that does not answer for
/// longer is out of order.
pub const WALL: Duration = Duration::from_secs(10);

/// Entries of a request's resource table, each of which may hold an open file. One request serves one
/// representation; variants and playlists take a few.
pub const HANDLES: usize = 64;

/// Bytes that a request's instance makes the host copy out of it, over all its calls: a few kilobytes of
/// head and as much again of JSON.
pub const LIFTED_BYTES: usize = 128 * 1024;

/// Instances that may exist at one time where memory allows; further requests wait. An instance lives for
/// microseconds, so this bounds what a burst takes and is seldom met.
pub const CONCURRENT_INSTANCES: usize = 128;

/// Answers that may be given again take so much together, in bytes, unless told otherwise: some two thousand.
pub const RESPONSE_CACHE_BYTES: usize = 4 * 1024 * 1024;

/// The limits that differ from host to host.
///
/// ```
/// use millpond::Limits;
/// use std::time::Duration;
///
/// let mut limits = Limits::default();
/// limits.memory_bytes = 256 << 20;
/// limits.request_memory_bytes = 2 << 20;
/// limits.wall = Duration::from_secs(2);
/// assert!(limits.cpu < limits.wall);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// All that the process may hold, and the kernel on its behalf, in bytes.
    pub memory_bytes: usize,
    /// All that one request may hold, in bytes.
    pub request_memory_bytes: usize,
    /// CPU time of one request's instance.
    pub cpu: Duration,
    /// Time from a request's admission to its response head.
    pub wall: Duration,
    /// Entries of one request's resource table.
    pub handles: usize,
    /// Bytes that one request's instance makes the host copy out of it.
    pub lifted_bytes: usize,
    /// Instances that exist at one time.
    pub concurrent_instances: usize,
    /// Maximum size of the response cache, in bytes, as far as the memory limit has room for it. 0 turns the cache off.
    pub response_cache_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: MEMORY_BYTES,
            request_memory_bytes: REQUEST_MEMORY_BYTES,
            cpu: CPU,
            wall: WALL,
            handles: HANDLES,
            lifted_bytes: LIFTED_BYTES,
            concurrent_instances: CONCURRENT_INSTANCES,
            response_cache_bytes: RESPONSE_CACHE_BYTES,
        }
    }
}

/// A limit that a request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Limit {
    /// The memory of the request, by the kind that would pass the limit; or a limit of that kind itself.
    #[error("{0}")]
    Memory(Kind),
    /// Core instances, memories or tables, by count.
    #[error("instances")]
    Instances,
    /// CPU time.
    #[error("CPU time")]
    Cpu,
    /// Time until the response head.
    #[error("time")]
    Wall,
}

impl From<LimitExceeded> for Limit {
    fn from(exceeded: LimitExceeded) -> Self {
        Limit::Memory(exceeded.kind)
    }
}

impl Limit {
    /// Whether the same request may go well a moment later. Time is short on a busy machine; what the others
    /// count is the same each time.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Limit::Cpu | Limit::Wall)
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "memory {}, CPU {}, {} to the head, {} handles, {} lifted",
            bytesize::ByteSize(self.request_memory_bytes as u64)
                .display()
                .iec(),
            humantime::format_duration(self.cpu),
            humantime::format_duration(self.wall),
            self.handles,
            bytesize::ByteSize(self.lifted_bytes as u64).display().iec(),
        )
    }
}
