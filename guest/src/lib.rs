//! The media-serve component: it decides every answer to a request for media and never reads a media byte.
//!
//! The way of a request: [`answer`] is the whole of it, top-down. It finds the [`route`], opens the object
//! through [`imports`], evaluates the [`conditions`], selects the [`range`] and writes the [`message`].
//! All of that is plain Rust, tested natively in milliseconds; only `component` knows that it is compiled
//! to a WebAssembly component, and only `arena` knows where its memory comes from.

pub mod answer;
pub mod conditions;
pub mod imports;
pub mod message;
pub mod range;
pub mod route;

#[cfg(target_family = "wasm")]
mod arena;
#[cfg(target_family = "wasm")]
mod component;
