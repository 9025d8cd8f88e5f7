//! The media-serve component: it decides every answer to a request for media and never reads a media byte.
//!
//! The way of a request: [`answer`] is the whole of it, top-down. It reads the [`config`], finds the [`route`], opens
//! the object through [`imports`], asks for a [`signature`] where it is private, selects a representation
//! ([`negotiate`]), evaluates the [`conditions`], selects the [`range`] and writes the [`message`] with its [`fields`].
//! All of that is plain Rust, tested natively in milliseconds; only `component` knows that it is compiled
//! to a WebAssembly component, and only `arena` knows where its memory comes from.

pub mod answer;
pub mod conditions;
pub mod config;
pub mod digest;
pub mod fields;
pub mod imports;
pub mod message;
pub mod multipart;
pub mod negotiate;
pub mod range;
pub mod route;

#[cfg(any(target_family = "wasm", test))]
mod arena;
#[cfg(target_family = "wasm")]
mod component;
