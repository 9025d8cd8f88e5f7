//! `millpond:media/media-store` over `wasi:blobstore`: media by its content, as `millpond add` puts it into a folder,
//! in a container of objects with the same names.

#[cfg(target_family = "wasm")]
mod component;
