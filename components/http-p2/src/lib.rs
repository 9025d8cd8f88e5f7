//! `media-serve` behind `wasi:http/incoming-handler`: a request in, its head answered, its body pumped.
//!
//! A host that only knows `wasi:http` cannot take the streams out of the instance, so the instance lives until the body
//! is sent, and moves it: `pump` has one bounded piece in flight at a time.

#[cfg(target_family = "wasm")]
mod component;
#[cfg(target_family = "wasm")]
mod pump;
