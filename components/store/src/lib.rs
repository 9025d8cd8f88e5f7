//! How media lies in a folder: by content, with a record beside it, and by name.
//!
//! The host's store and the store component read the same folder by the same rules, which stand here: [`content`] has
//! the addresses and records of added media, [`names`] what a path may name, [`charset`] how text says its encoding,
//! [`settings`] how settings are told through an environment, [`version`] what tells two contents of a name apart.
//! Compiled to WebAssembly this is the store
//! component, `millpond:media/media-store` over the one folder that a WASI host gives.

pub mod charset;
#[cfg(all(target_family = "wasm", feature = "component"))]
mod component;
pub mod content;
pub mod names;
pub mod settings;
pub mod version;
