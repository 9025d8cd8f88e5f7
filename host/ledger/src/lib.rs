//! Ledgers of the memory that requests and connections hold. Memory is charged where it is allocated and released by
//! drop.
//!
//! A [`Ledger`] belongs to one [`Owner`]: a request, a connection, or the host itself. Each thing held for the owner
//! has a [`Charge`] of a [`Kind`]. A [`LedgerRegistry`] knows all ledgers of a host, and counts the ended requests by
//! [`Outcome`]. Responses reserve their memory from a [`Budget`] before they start. The [`monitor`] compares the
//! ledgers with the memory of the process, and warns of leaks.
//!
//! Memory is *leaked* if it is charged to an owner that has ended. It is *unattributed* if it is allocated, but neither
//! charged to a ledger nor part of a cache. Neither should grow.
//!
//! ```
//! use millpond_ledger::{Kind, Ledger, LedgerRegistry, Owner};
//! use std::sync::Arc;
//!
//! let registry = Arc::new(LedgerRegistry::default());
//! let ledger = Ledger::new(&registry, Owner::Connection, 1000);
//! let charge = ledger.charge(Kind::Buffers, 600)?;
//! assert!(ledger.charge(Kind::Files, 500).is_err());
//! assert_eq!(registry.snapshot().connections.total(), 600);
//! // The connection ends, and its buffer is still there.
//! drop(ledger);
//! assert_eq!(registry.snapshot().leaked.of(Kind::Buffers), 600);
//! drop(charge);
//! assert_eq!(registry.snapshot().total().total(), 0);
//! # Ok::<(), millpond_ledger::LimitExceeded>(())
//! ```

#![forbid(unsafe_code)]

mod access_log;
mod budget;
#[cfg(target_os = "linux")]
mod cgroup;
pub mod heap;
mod kind;
mod ledger;
pub mod monitor;
mod outcome;
pub mod process;
mod registry;
mod request_counts;
mod route;
mod snapshot;
mod top_targets;
mod usage_counts;

pub use access_log::{
    ACCESS_LOG, AccessLog, AccessLogEntry, AccessLogFields, AccessLogLine, CacheStatus, ClientText,
    LoggedHead, RedactedUrl,
};
pub use budget::{Budget, Overloaded, Reservation};
pub use kind::{Balance, Kind, MemoryDomain};
pub use ledger::{Charge, Ledger, LedgerHandle};
pub use outcome::Outcome;
pub use registry::{LedgerRegistry, LimitExceeded, Observer, Owner};
pub use request_counts::RequestCount;
pub use route::{Route, RouteCount};
pub use snapshot::{LiveRequest, Snapshot};
pub use top_targets::{TOP_TARGETS_BYTES, TargetBytes};
pub use usage_counts::UsageCounts;
