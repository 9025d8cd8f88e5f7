//! Media stores: [`Folder`], and the trait [`MediaStore`] for other stores.
//!
//! A folder has named files, and content-addressed media. The content of an id is at `<root>/<ab>/<id>`, where `id` is
//! its SHA-256 in lower-case hexadecimal, and `ab` the first two digits. Its record in JSON is at
//! `<root>/<ab>/<id>.json`. [`Importer`] adds media, and [`verify`] checks the store.

mod access_warning;
mod beneath_dir;
mod chunks;
mod cursor;
mod digest_cache;
mod file_slice;
mod folder;
mod folder_listing;
mod import;
mod maintenance;
mod markup;
mod media_store;
#[cfg(target_os = "linux")]
mod mounts;
mod open_file_cache;
mod record;
mod temporary_files;
mod thread_pool;
mod verify;
mod version;

pub use chunks::ReadAt;
pub use file_slice::{FileRange, OpenFile, has_shrunk};
pub use folder::{Folder, OPEN_FILE_CACHE_VALID};
pub use import::{AbandonGuard, ImportError, ImportedMedia, Importer, PublishedMedia};
pub use media_store::{
    CacheUsage, MediaObject, MediaStore, ObjectInfo, ObjectKey, ObjectVariant, ObjectVersion,
    OpenError,
};
pub use millpond_format::listing::{Entry, EntryKind, ListOrder, ListQuery, Listing};
pub use millpond_format::{Access, ContentId, Record, Variant};
pub use verify::{Corruption, VerifiedEntry, verify};

pub(crate) use chunks::ReadChunk;
pub(crate) use file_slice::{FileSlice, SMALL_BYTES, TryRead, read_at, try_read_at};
pub(crate) use media_store::{DynMediaStore, MediaStream, open, spawn_off_fiber};
pub(crate) use open_file_cache::OPEN_FILE_CACHE_SHARE;
pub(crate) use thread_pool::BlockingTask;
