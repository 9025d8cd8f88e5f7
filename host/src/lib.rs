//! Serves media from a WebAssembly component, with the memory of every request known, bounded and given back.
//!
//! The way of a request, from socket to bytes: a connection is accepted and watched by [`listener`], its
//! requests are answered by [`Millpond`] (in `request`): each is checked and admitted, gets an instance of its
//! own from the `engine`, which asks the [`store`] through `instance`; the answer is checked by `response`,
//! the instance freed, and the [`MediaBody`] streams. [`Limits`] says what a request may take, [`Accounts`]
//! what is held right now, and [`End`] how it came out.

mod accounts;
mod address;
pub mod admin;
mod body;
mod budget;
pub mod clients;
mod clock;
mod component;
pub mod config;
mod connection;
mod drill;
mod engine;
mod framing;
mod head;
pub mod heap;
mod instance;
pub mod ledger;
pub mod limits;
pub mod listener;
mod meter;
mod pace;
pub mod process;
mod record;
mod request;
mod response;
mod route;
mod socket;
pub mod store;
pub mod watch;
mod window;

pub use accounts::{Accounts, LiveRequest, Observer, RouteSurvey, Survey};
pub use body::MediaBody;
pub use budget::{Bound, Budget, TooLittle};
pub use component::{ComponentError, EMBEDDED, Inspection, Source};
pub use config::Config;
#[doc(hidden)]
pub use drill::Leak;
pub use limits::{Limit, Limits};
pub use record::End;
pub use request::{Millpond, Unready};
pub use route::Route;
