//! Serves media from a WebAssembly component, with the memory of every request known, bounded and given back.
//!
//! The way of a request, from socket to bytes: a connection is accepted and watched by [`listener`], its
//! requests are answered by [`Millpond`] (in `request`): each is checked and admitted, gets an instance of its
//! own from the `engine`, which asks the [`store`] through `instance`; the answer is checked by `response`,
//! the instance freed, and the [`MediaBody`] streams. [`Limits`] says what a request may take, [`Accounts`]
//! what is held right now, and [`End`] how it came out.

mod accounts;
mod body;
mod component;
mod engine;
mod instance;
pub mod limits;
pub mod listener;
mod record;
mod request;
mod response;
pub mod store;

pub use accounts::Accounts;
pub use body::MediaBody;
pub use component::{ComponentError, EMBEDDED, Inspection, Source};
pub use limits::{Limit, Limits};
pub use record::End;
pub use request::{FilesAt, Millpond, NotAPath, Unready};
