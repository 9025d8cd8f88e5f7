//! Accounts of the memory that requests and connections hold: charged where it is taken, given back by drop.
//!
//! A [`Ledger`] belongs to one owner: a request, a connection, or the host itself. Each thing that is held for the owner
//! has a [`Charge`] of a [`Kind`]. The [`LedgerRegistry`] of a host know all ledgers and how requests ended, a [`Budget`] is
//! the memory that they reserve from, and the [`monitor`] compares all of it with what the process has.

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
