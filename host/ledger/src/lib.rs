//! Ledgers of the memory that requests and connections hold. Memory is charged where it is allocated and released by
//! drop.
//!
//! A [`Ledger`] belongs to one [`Owner`]: a request, a connection, or the host itself. Each thing held for the owner
//! has a [`Charge`] of a [`Kind`]. A [`LedgerRegistry`] knows all ledgers of a host, and counts the ended requests by
//! [`Outcome`]. Responses reserve their memory from a [`Budget`] before they start. The [`monitor`] compares the
//! ledgers with the memory of the process, and warns of leaks.

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
mod usage_counts;

pub use access_log::{ACCESS_LOG, AccessLogEntry};
pub use budget::{Budget, Overloaded, QUEUE, Reservation};
pub use kind::{Balance, Kind, MemoryDomain};
pub use ledger::{Charge, Ledger, LedgerHandle, LimitExceeded, LiveLedgers, Owner};
pub use outcome::Outcome;
pub use registry::{LedgerRegistry, LiveRequest, Observer, RouteSnapshot, Snapshot};
pub use request_counts::RequestCount;
pub use route::{ROUTES, Route};
pub use usage_counts::UsageCounts;
