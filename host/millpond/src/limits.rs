//! Limits of a host, and the names of limits in responses, logs and metrics.

use millpond_ledger::{Kind, LimitExceeded};
use std::fmt;
use std::time::Duration;

/// Default memory limit of the process, in bytes.
const MEMORY_BYTES: usize = 1 << 30;

/// Default memory limit of a request, in bytes. The embedded component takes 64 KiB, and its stack four times as much.
/// The rest is for the buffers of a fast download.
const REQUEST_MEMORY_BYTES: usize = 1024 * 1024;

/// Default CPU time of a request. The embedded component takes a ten-thousandth of it.
const CPU: Duration = Duration::from_millis(200);

/// Default time from the admission of a request to the head of its response. A disk that takes longer is out of order.
const WALL: Duration = Duration::from_secs(10);

/// Default maximum number of entries in a request's resource table. An entry may hold an open file. A request serves
/// one representation, and variants and playlists take a few.
const HANDLES: usize = 64;

/// Default maximum of bytes lifted from a request's instance, over all its calls. A response takes a few kilobytes of
/// head and as much JSON.
const LIFTED_BYTES: usize = 128 * 1024;

/// Default maximum number of instances. Further requests wait. An instance lives for microseconds, so a burst seldom
/// reaches it.
pub(crate) const CONCURRENT_INSTANCES: usize = 128;

/// Default size of the response cache, in bytes. About two thousand responses fit.
const RESPONSE_CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Limits of a host. The embedder sets them once, in [`Millpond::new`](crate::Millpond::new).
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
    /// Maximum memory of the process, including the kernel's memory for it, in bytes. [`MemoryPlan`](crate::MemoryPlan)
    /// partitions it.
    pub memory_bytes: usize,
    /// Maximum memory of one request, of all kinds together, in bytes.
    pub request_memory_bytes: usize,
    /// Maximum CPU time of one request's instance. For `wasi:http`, it applies to each chunk of the body.
    pub cpu: Duration,
    /// Maximum time from the admission of a request to the head of its response. For `wasi:http`, it also applies to
    /// each chunk of the body.
    pub wall: Duration,
    /// Maximum number of entries in a request's resource table, such as open objects and streams.
    pub handles: usize,
    /// Maximum of bytes lifted from a request's instance, over all its calls.
    pub lifted_bytes: usize,
    /// Maximum number of instances at one time. The memory limit may allow fewer.
    pub concurrent_instances: usize,
    /// Maximum size of the response cache, in bytes. The memory limit may leave less room for it. 0 turns the cache
    /// off.
    pub response_cache_bytes: usize,
    /// Memory that the program takes beside the host and after its start, such as a queue of its own, in bytes. It is
    /// part of [`Limits::memory_bytes`]. 0 unless the program sets it.
    pub other_bytes: usize,
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
            other_bytes: 0,
        }
    }
}

/// A limit that a request hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Limit {
    /// Memory of the request. The kind is the one whose charge would have exceeded it, or the one with a limit of its
    /// own.
    #[error("{0}")]
    Memory(Kind),
    /// Number of core instances, memories or tables.
    #[error("instances")]
    Instances,
    /// CPU time.
    #[error("CPU time")]
    Cpu,
    /// Time until the head of the response.
    #[error("time")]
    Wall,
}

impl From<LimitExceeded> for Limit {
    fn from(exceeded: LimitExceeded) -> Self {
        Limit::Memory(exceeded.kind)
    }
}

impl Limit {
    /// Returns whether the same request may succeed later. Only limits of time depend on the load of the machine.
    pub(crate) fn is_transient(self) -> bool {
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
