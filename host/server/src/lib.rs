//! HTTP listeners for a [`Millpond`](millpond::Millpond): HTTP/1.1 and HTTP/2, with or without TLS. Their connections
//! are part of its memory plan.
//!
//! A [`Server`] accepts connections from any number of [`Listeners`], and closes those that make no progress
//! ([`ConnectionLimits`]). [`admin`] serves health, metrics and memory of the process on a listener of its own.

//! # Features
//!
//! All are on by default.
//!
//! - `admin`: the listener for health, metrics and memory.
//! - `http2`: HTTP/2. Without it ALPN offers HTTP/1.1 only.
//! - `tls`: TLS, by rustls.
//! - `uploads`: content of requests for a service that reads it, as in `millpond`.
//! - `wasi-http`: components for `wasi:http`, as in `millpond`.

#![deny(unsafe_code)]
// Some code of HTTP/2, TLS and uploads stands beside what every connection has.
#![cfg_attr(
    not(all(feature = "http2", feature = "tls", feature = "uploads")),
    allow(unused)
)]

#[cfg(feature = "admin")]
pub mod admin;
mod client_limits;
mod forwarded;
mod http1;
#[cfg(feature = "http2")]
mod http2;
mod incoming;
mod limits;
mod listener;
mod protocol;
mod request_id;
mod slots;
#[allow(unsafe_code)]
mod sys;
#[cfg(feature = "tls")]
pub mod tls;
mod transport;

/// Without TLS there is no certificate.
#[cfg(not(feature = "tls"))]
mod tls {
    #[derive(Debug, Clone)]
    pub(crate) enum Certificate {}
}

pub use client_limits::{ClientLimits, IpNet, Rate};
pub use incoming::{Listener, Listeners};
pub use limits::{ConnectionLimits, LimitRateTooLow, LiveLimits};
pub use listener::Server;

/// The code in `docs/embed.md` is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/embed.md")]
struct EmbedPage;
