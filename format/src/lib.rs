//! The format of millpond's data: on disk and in signed URLs.
//!
//! The host, the store components and the guest read and write the same data. Its rules stand here once:
//!
//! - [`ContentId`]: address of stored media, and its place in the store.
//! - [`Record`]: metadata beside stored media.
//! - [`names`]: names that are served, their media types, and sibling files.
//! - [`listing`]: entries of a folder, page by page.
//! - [`html`]: text in HTML.
//! - [`preferences`]: preferences of a client, as in `Accept`.
//! - [`charset`]: detection of UTF-8 text.
//! - [`version`]: opaque part of the entity tag of a named file.
//! - [`settings`]: settings as environment variables.
//! - [`signature`]: signed URLs.

#![forbid(unsafe_code)]

pub mod charset;
mod content_id;
pub mod html;
pub mod listing;
pub mod names;
pub mod preferences;
mod record;
pub mod settings;
pub mod signature;
mod timestamp;
pub mod version;

pub use content_id::{ContentId, ParseContentIdError};
pub use record::{Access, MAX_VARIANTS, RECORD_BYTES, Record, Variant};
pub use timestamp::timestamp_ns;
