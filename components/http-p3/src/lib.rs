//! `media-serve` behind `wasi:http/handler` of WASI 0.3.
//!
//! The handler returns the head of the response. A task sends the body, and lives until the host has sent it.

#[cfg(target_family = "wasm")]
mod component;
