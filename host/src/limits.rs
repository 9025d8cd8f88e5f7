//! What one request may take, and the meter that counts it while an instance runs.
//!
//! Every cap of the host has its name here, with the reason for its value; what a limit is called here it is
//! called in answers, logs and tests too.

use std::fmt;
use std::time::Duration;
use wasmtime::ResourceLimiter;

/// Linear memory and tables of one request, in bytes, unless told otherwise: the embedded component takes
/// 128 KiB, and a guest in a language with a runtime of its own some more.
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

/// Core instances, linear memories and tables of one request's component: the embedded one has a handful,
/// composed ones some more.
pub const CORE_INSTANCES: usize = 32;

/// Size of a table element in the host: a pointer.
pub(crate) const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Requests whose instances exist at one time; further ones wait. An instance lives for microseconds, so
/// this bounds what a burst takes and is seldom met.
pub const CONCURRENT_INSTANCES: usize = 128;

/// Longest wait for one of those.
pub const ADMISSION_WAIT: Duration = Duration::from_secs(1);

/// Longest request target, in bytes (RFC 9110 section 4.1 asks for 8000 at least): 414 beyond.
pub const TARGET_BYTES: usize = 8 * 1024;

/// Sum of a request's field names and values, in bytes: 431 beyond.
pub const FIELDS_BYTES: usize = 16 * 1024;

/// Most field lines of a request: 431 beyond.
pub const FIELD_LINES: usize = 100;

/// What a connection reads ahead, and about what it keeps of a response between file and socket, in bytes.
/// It is also where a request's head ends at the latest; it lies well above [`TARGET_BYTES`], so that the
/// usual too long target gets a 414.
pub const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes read of a file at a time.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Largest component that is compiled, in bytes: ones with a language runtime have some 20 MB.
pub const COMPONENT_BYTES: u64 = 64 * 1024 * 1024;

/// The limits that differ from host to host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memories and tables of one request together, in bytes.
    pub request_memory_bytes: usize,
    /// CPU time of one request's instance.
    pub cpu: Duration,
    /// Time from a request's admission to its response head.
    pub wall: Duration,
    /// Entries of one request's resource table.
    pub handles: usize,
    /// Bytes that one request's instance makes the host copy out of it.
    pub lifted_bytes: usize,
    /// Requests whose instances exist at one time.
    pub concurrent_instances: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_memory_bytes: REQUEST_MEMORY_BYTES,
            cpu: CPU,
            wall: WALL,
            handles: HANDLES,
            lifted_bytes: LIFTED_BYTES,
            concurrent_instances: CONCURRENT_INSTANCES,
        }
    }
}

/// A limit that a request's instance met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// Linear memory, summed over all memories of all instances.
    #[error("guest memory")]
    GuestMemory,
    /// Tables, summed likewise.
    #[error("tables")]
    Tables,
    /// Core instances, memories or tables, by count.
    #[error("instances")]
    Instances,
    /// Entries of the resource table.
    #[error("handles")]
    Handles,
    /// Bytes lifted from the guest.
    #[error("lifted bytes")]
    LiftedBytes,
    /// The guest's stack.
    #[error("stack")]
    Stack,
    /// CPU time.
    #[error("CPU time")]
    Cpu,
    /// Time until the response head.
    #[error("time")]
    Wall,
}

impl Limit {
    /// Whether the same request may go well a moment later. Time is short on a busy machine; what the others
    /// count is the same each time.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Limit::Cpu | Limit::Wall)
    }
}

/// Counts what one request's instances take and refuses what would pass a limit.
///
/// wasmtime asks once per memory and once per table; the sums over all of them are kept here, since a limit
/// per memory is no limit per request.
pub(crate) struct Meter {
    memory_bytes: usize,
    table_bytes: usize,
    peak_bytes: usize,
    cap_bytes: usize,
    admitted_bytes: usize,
    lifted_bytes: usize,
    lifted_cap_bytes: usize,
    /// The limit met last: a guest that is refused memory traps by itself soon after, and the trap does not
    /// tell why.
    met: Option<Limit>,
}

impl Meter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Meter {
            memory_bytes: 0,
            table_bytes: 0,
            peak_bytes: 0,
            cap_bytes: limits.request_memory_bytes,
            admitted_bytes: 0,
            lifted_bytes: 0,
            lifted_cap_bytes: limits.lifted_bytes,
            met: None,
        }
    }

    /// The most that linear memories and tables took together, in bytes.
    pub(crate) fn peak_bytes(&self) -> usize {
        self.peak_bytes
    }

    pub(crate) fn met(&self) -> Option<Limit> {
        self.met
    }

    /// Charges bytes that the host copied out of the instance.
    pub(crate) fn lift(&mut self, bytes: usize) -> Result<(), Limit> {
        self.lifted_bytes = self.lifted_bytes.saturating_add(bytes);
        if self.lifted_bytes > self.lifted_cap_bytes {
            return Err(Limit::LiftedBytes);
        }
        Ok(())
    }

    fn admit(&mut self, limit: Limit, bytes: usize) -> bool {
        let total_bytes = self.memory_bytes + self.table_bytes;
        if bytes > self.cap_bytes - total_bytes {
            self.met = Some(limit);
            return false;
        }
        *self.sum_of(limit) += bytes;
        self.admitted_bytes = bytes;
        self.peak_bytes = self.peak_bytes.max(total_bytes + bytes);
        true
    }

    /// Takes back what was admitted last: the engine itself had no room for it.
    fn take_back(&mut self, limit: Limit) {
        let bytes = std::mem::take(&mut self.admitted_bytes);
        *self.sum_of(limit) -= bytes;
        self.met = Some(limit);
    }

    fn sum_of(&mut self, limit: Limit) -> &mut usize {
        match limit {
            Limit::Tables => &mut self.table_bytes,
            _ => &mut self.memory_bytes,
        }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.admit(Limit::GuestMemory, desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back(Limit::GuestMemory);
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = desired.saturating_sub(current);
        Ok(self.admit(Limit::Tables, elements.saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back(Limit::Tables);
        Ok(())
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        CORE_INSTANCES
    }

    fn memories(&self) -> usize {
        CORE_INSTANCES
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "memory {}, CPU {}, {} to the head, {} handles, {} lifted; {} instances at a time",
            bytesize::ByteSize(self.request_memory_bytes as u64)
                .display()
                .iec(),
            humantime::format_duration(self.cpu),
            humantime::format_duration(self.wall),
            self.handles,
            bytesize::ByteSize(self.lifted_bytes as u64).display().iec(),
            self.concurrent_instances,
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn meter(request_memory_bytes: usize) -> Meter {
        Meter::new(&Limits {
            request_memory_bytes,
            lifted_bytes: 10,
            ..Limits::default()
        })
    }

    #[test]
    fn memories_and_tables_are_one_sum() {
        let mut meter = meter(1000);
        assert!(meter.memory_growing(0, 500, None).unwrap());
        assert!(meter.memory_growing(0, 400, None).unwrap());
        assert!(!meter.memory_growing(400, 600, None).unwrap());
        assert_eq!(meter.met(), Some(Limit::GuestMemory));
        assert!(meter.table_growing(0, 10, None).unwrap());
        assert!(!meter.table_growing(10, 1_000_000, None).unwrap());
        assert_eq!(meter.met(), Some(Limit::Tables));
        assert_eq!(meter.peak_bytes(), 900 + 10 * TABLE_ELEMENT_BYTES);
        assert!(!meter.table_growing(0, usize::MAX, None).unwrap());
        // What the engine then could not do is not counted.
        assert!(meter.table_growing(10, 11, None).unwrap());
        meter
            .table_grow_failed(wasmtime::Error::msg("full"))
            .unwrap();
        assert!(meter.table_growing(10, 12, None).unwrap());
    }

    #[test]
    fn lifted_bytes_add_up_over_calls() {
        let mut meter = meter(0);
        assert_eq!(meter.lift(6), Ok(()));
        assert_eq!(meter.lift(5), Err(Limit::LiftedBytes));
        assert_eq!(meter.lift(usize::MAX), Err(Limit::LiftedBytes));
    }
}
