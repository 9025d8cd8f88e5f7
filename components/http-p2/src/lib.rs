//! `media-serve` behind `wasi:http/incoming-handler`.
//!
//! A host that knows only `wasi:http` cannot take the streams out of the instance. The instance therefore lives until the
//! body is sent, and sends it itself: `body` has one bounded chunk in flight at a time.

#[cfg(target_family = "wasm")]
mod body;
#[cfg(target_family = "wasm")]
mod component;
