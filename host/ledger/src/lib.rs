//! Accounts of the memory that requests and connections hold: charged where it is taken, given back by drop.
//!
//! A [`Ledger`] belongs to one owner: a request, a connection, or the host itself. Each thing that is held for the owner
//! has a [`Charge`] of a [`Kind`]. The [`Accounts`] of a host know all ledgers and how requests ended, a [`Budget`] is
//! the memory that they reserve from, and the [`monitor`] compares all of it with what the process has.

#![forbid(unsafe_code)]

mod access_log;
mod budget;
#[cfg(target_os = "linux")]
mod cgroup;
mod counts;
pub mod heap;
mod in_use;
mod kind;
mod ledger;
pub mod monitor;
mod outcome;
pub mod process;
mod registry;
mod route;

pub use access_log::{ACCESS_LOG, AccessLogEntry};
pub use budget::{Budget, Overloaded, QUEUE, Reservation};
pub use counts::RequestCount;
pub use in_use::InUse;
pub use kind::{Balance, Kind, Place};
pub use ledger::{Charge, Exceeded, Ledger, LedgerHandle, Ledgers, Owner};
pub use outcome::Outcome;
pub use registry::{Accounts, LiveRequest, Observer, RouteSnapshot, Snapshot};
pub use route::{ROUTES, Route};
