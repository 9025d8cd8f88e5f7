//! The kinds of memory that a ledger tells apart, and bytes by kind.

use serde::Serialize;
use std::fmt;

/// The kinds of memory that a request or a connection holds. Limits, logs, metrics and tests use these names and
/// no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Linear memories of the request's instances, summed.
    GuestMemory,
    /// Tables of the request's instances, summed.
    Tables,
    /// The fiber stack on which the guest runs: all of it, since a guest may touch all of it.
    Stack,
    /// The wasmtime store and instance on the host's side.
    Instance,
    /// The request's head, and what is remembered of it for the log.
    Head,
    /// The response's head and the body parts that the guest made.
    Response,
    /// Entries of the resource table, each with what it holds on the host's side.
    Handles,
    /// Bytes copied out of the guest, over all its calls.
    Lifted,
    /// Bytes between file and socket.
    Buffers,
    /// Open files, in the kernel and here.
    Files,
    /// A connection's own state: task, read buffer, parser, response head.
    Connection,
    /// The kernel's buffers of a connection, both ways.
    Socket,
}

/// Where memory of a kind lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryDomain {
    /// In the allocator's heap.
    Heap,
    /// In the pool of instances, mapped once for the process.
    Pool,
    /// In the kernel, where no figure of the process shows it.
    Kernel,
}

impl Kind {
    /// All of them.
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

    /// The name in metrics and JSON: lower case, with `_`.
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

    /// Where memory of this kind lies.
    #[must_use]
    pub fn domain(self) -> MemoryDomain {
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

/// Bytes by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance(pub(crate) [usize; Kind::ALL.len()]);

impl Balance {
    /// Bytes of that kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> usize {
        self.0[kind as usize]
    }

    /// Bytes of all kinds.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// Bytes of all kinds that lie there.
    #[must_use]
    pub fn in_domain(&self, domain: MemoryDomain) -> usize {
        let kinds = Kind::ALL.iter().filter(|kind| kind.domain() == domain);
        kinds.map(|kind| self.of(*kind)).sum()
    }

    /// The kinds that are not zero, with their bytes.
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

impl Serialize for Balance {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Kind::ALL.iter().map(|kind| (kind.name(), self.of(*kind))))
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
