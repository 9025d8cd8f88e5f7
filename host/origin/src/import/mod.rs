//! Import of files into object storage, in the layout of a folder's store. The record of media is written last, so that
//! media becomes visible when it is whole.

mod content_digest;
mod error;
mod hashed_file;
mod importer;
mod inventory;
mod listed_media;
mod records;
mod removal;
mod upload;
mod upload_journal;
mod verification;

#[cfg(test)]
mod tests;

pub use error::OriginImportError;
pub use hashed_file::{CONTENT_MAX_BYTES, HashedFile};
pub use importer::{OriginImporter, UploadedMedia};
pub use upload_journal::UploadJournals;
