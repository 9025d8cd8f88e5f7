//! The interface `millpond:media/media-store` over the one folder that a WASI host preopens.

#[cfg(target_family = "wasm")]
mod component;
