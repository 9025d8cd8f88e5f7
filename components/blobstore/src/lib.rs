//! The interface `millpond:media/media-store` over `wasi:blobstore`.
//!
//! The container holds media by content id, under the names that `millpond add` gives files in a folder.

#[cfg(target_family = "wasm")]
mod component;
