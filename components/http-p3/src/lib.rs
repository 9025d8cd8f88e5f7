//! `media-serve` behind `wasi:http/handler` of WASI 0.3: the answer's head is returned, its body pumped by a task that
//! lives until the host has sent it.

#[cfg(target_family = "wasm")]
mod component;
