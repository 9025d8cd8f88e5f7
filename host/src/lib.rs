//! Serves media from a WebAssembly component, with the memory of every request known, bounded and given back.
//!
//! The way of a request, from socket to bytes: [`listener`] accepts a `connection`, whose requests [`Millpond`] answers
//! (in `request`): each is charged to its [`ledger`], admitted, and given an `instance` of its own, which asks the
//! [`store`]; the answer is checked, the instance freed, and the [`MediaBody`] streams. Beside it, [`watch`] looks at
//! what all of them hold, and [`admin`] tells it. [`Limits`] says what a request may take, [`Accounts`] what is held
//! right now, and [`Outcome`] how it came out.

pub mod admin;
mod body;
pub mod config;
mod connection;
mod instance;
pub mod ledger;
pub mod limits;
pub mod listener;
mod request;
mod reuse;
pub mod store;
pub mod watch;

pub use body::MediaBody;
pub use config::Config;
pub use connection::clients;
pub use connection::tls;
pub use instance::component::{ComponentError, EMBEDDED, Inspection, Source};
pub use ledger::accounts::{Accounts, LiveRequest, Observer, RouteSurvey, Survey};
pub use ledger::budget::{Bound, Budget, TooLittle};
pub use ledger::counts::RequestCount;
pub use ledger::record::{ACCESS_LOG, Outcome};
pub use ledger::route::Route;
pub use limits::{Limit, Limits};
pub use request::{CacheBytes, Millpond, Unready};
#[doc(hidden)]
pub use watch::drill::Leak;
pub use watch::heap;

/// The code in the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
