//! Kinds of memory, and bytes by kind.

use std::fmt;

/// Kind of the memory that a request or connection holds. Limits, logs, metrics and tests use these names and no
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Linear memories of the request's instances.
    GuestMemory,
    /// Tables of the request's instances.
    Tables,
    /// Fiber stack of the guest: all of it, because a guest may touch all of it.
    Stack,
    /// wasmtime's store and instance, in the host's memory.
    Instance,
    /// Head of the request, and its access log entry.
    Head,
    /// Head of the response, and the body parts that the guest made.
    Response,
    /// Entries of the resource table, with the host's memory for each.
    Handles,
    /// Bytes lifted from the guest, over all its calls.
    Lifted,
    /// Bytes between file and socket.
    Buffers,
    /// Open files, with the kernel's memory for them.
    Files,
    /// State of a connection: task, read buffer, parser, response head.
    Connection,
    /// Kernel buffers of a connection, in both directions.
    Socket,
}

/// Place of the memory of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryDomain {
    /// Heap of the process's allocator.
    Heap,
    /// Pool of instances, mapped once for the process.
    Pool,
    /// Kernel memory, which no figure of the process includes.
    Kernel,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 12] = [
        Kind::GuestMemory,
        Kind::Tables,
        Kind::Stack,
        Kind::Instance,
        Kind::Head,
        Kind::Response,
        Kind::Handles,
        Kind::Lifted,
        Kind::Buffers,
        Kind::Files,
        Kind::Connection,
        Kind::Socket,
    ];

    /// Name in metrics and JSON, in `snake_case`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::GuestMemory => "guest_memory",
            Kind::Tables => "tables",
            Kind::Stack => "stack",
            Kind::Instance => "instance",
            Kind::Head => "head",
            Kind::Response => "response",
            Kind::Handles => "handles",
            Kind::Lifted => "lifted",
            Kind::Buffers => "buffers",
            Kind::Files => "files",
            Kind::Connection => "connection",
            Kind::Socket => "socket",
        }
    }

    /// Domain of this kind's memory.
    pub(crate) fn domain(self) -> MemoryDomain {
        match self {
            Kind::GuestMemory | Kind::Tables | Kind::Stack => MemoryDomain::Pool,
            Kind::Files | Kind::Socket => MemoryDomain::Kernel,
            _ => MemoryDomain::Heap,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::GuestMemory => "guest memory",
            Kind::Lifted => "lifted bytes",
            kind => kind.name(),
        })
    }
}

/// Memory by kind, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance(pub(crate) [usize; Kind::ALL.len()]);

impl Balance {
    /// Bytes of one kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> usize {
        self.0[kind as usize]
    }

    /// Bytes of all kinds.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// Bytes of all kinds of one domain.
    #[must_use]
    pub fn in_domain(&self, domain: MemoryDomain) -> usize {
        let kinds = Kind::ALL.iter().filter(|kind| kind.domain() == domain);
        kinds.map(|kind| self.of(*kind)).sum()
    }

    /// Kinds with a non-zero number of bytes, and that number.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, usize)> + '_ {
        let kinds = Kind::ALL.iter().map(|kind| (*kind, self.of(*kind)));
        kinds.filter(|(_, bytes)| *bytes > 0)
    }

    pub(crate) fn add(&mut self, other: &Balance) {
        for (sum, bytes) in self.0.iter_mut().zip(other.0) {
            *sum += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names = Kind::ALL.map(Kind::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
