//! HTTP listeners for a [`Millpond`](millpond::Millpond): HTTP/1.1 and HTTP/2, with or without TLS. Their connections
//! are part of its memory plan.
//!
//! A [`Server`] accepts connections from any number of [`Listeners`], and closes those that make no progress
//! ([`ConnectionLimits`]). [`admin`] serves health, metrics and memory of the process on a listener of its own.

#![deny(unsafe_code)]

pub mod admin;
mod client_limits;
mod forwarded;
mod http1;
mod http2;
mod incoming;
mod limits;
mod listener;
mod protocol;
mod slots;
#[allow(unsafe_code)]
mod sys;
pub mod tls;
mod transport;

pub use client_limits::{ClientLimits, IpNet, Rate};
pub use incoming::{Listener, Listeners};
pub use limits::{ConnectionLimits, LimitRateTooLow};
pub use listener::Server;

/// The code in `docs/embed.md` is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/embed.md")]
struct EmbedPage;
