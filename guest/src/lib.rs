#![doc = include_str!("../README.md")]
//!
//! # Life of a request
//!
//! [`handle`] is the whole of it, top-down. It reads the settings, parses the target, opens the object through
//! [`Imports`] and checks the signature of private media. Then it selects a representation, evaluates the conditions,
//! selects the ranges and makes the response. All of that is plain Rust, tested natively in milliseconds.

#![deny(unsafe_code)]

mod answer;
mod conditions;
mod digest;
mod fields;
mod handler;
mod imports;
mod listing;
mod message;
mod multipart;
mod negotiate;
mod range;
pub mod settings;
mod target_resource;

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod component;
#[cfg(any(all(target_family = "wasm", feature = "allocator"), test))]
#[allow(unsafe_code)]
mod sys;

pub use answer::handle;
pub use handler::{Handler, Media};
pub use imports::{
    Imports, Info, InputStream, Key, Object, SettingsError, StoreError, Timestamp, VariantInfo,
    Version,
};
pub use message::{Cacheability, HeaderLine, Part, Request, Response};
pub use millpond_format::Access;
pub use millpond_format::listing::{Entry, EntryKind, ListOrder, ListQuery, Listing};
pub use millpond_format::settings::Settings;
pub use millpond_format::signature;
