//! Media stores: [`Folder`], and the trait [`MediaStore`] for other stores.
//!
//! A folder has named files, and content-addressed media. The content of an id is at `<root>/<ab>/<id>`, where `id` is
//! its SHA-256 in lower-case hexadecimal, and `ab` the first two digits. Its record in JSON is at
//! `<root>/<ab>/<id>.json`. [`Importer`] adds and removes media, [`Inventory`] lists it, [`verify`] checks the store, and
//! [`Repairer`] repairs it.

mod access_warning;
mod beneath_dir;
mod cache_status;
mod chunks;
mod cursor;
mod digest_cache;
mod file_slice;
mod folder;
mod folder_listing;
mod import;
mod inventory;
mod journal;
mod maintenance;
mod markup;
mod media_store;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(feature = "uploads")]
mod named_import;
mod object_info;
mod open_file_cache;
mod partial_file;
mod record;
mod remove;
mod repair;
mod shared_file;
mod temporary_files;
mod thread_pool;
mod verify;
mod version;

pub use cache_status::{ForwardReason, OriginCacheStatus};
pub use chunks::ReadAt;
pub use file_slice::{FileRange, OpenFile, has_shrunk};
pub use folder::{Folder, OPEN_FILE_CACHE_VALID};
pub use import::{
    AbandonGuard, ImportError, ImportedMedia, Importer, PendingImport, PublishedMedia,
    UnpublishedMedia, check_source, detect_media_type, open_source,
};
pub use inventory::{Inventory, StoredMedia};
pub use journal::{ImportJournal, UnreadFile};
pub use media_store::{CacheUsage, MediaObject, MediaStore, OpenError};
pub use millpond_format::listing::{Entry, EntryKind, ListOrder, ListQuery, Listing};
pub use millpond_format::{Access, ContentId, Record, Variant};
pub use object_info::{ObjectInfo, ObjectKey, ObjectVariant, ObjectVersion};
pub use partial_file::{PartialFile, PartialReader};
pub use remove::RemovedMedia;
pub use repair::{LOST_AND_FOUND, RepairAction, Repairer};
pub use shared_file::SharedFile;
pub use verify::{Corruption, VerifiedEntry, verify};

pub(crate) use chunks::ReadChunk;
#[cfg(feature = "uploads")]
pub(crate) use file_slice::FILE_BYTES;
pub(crate) use file_slice::{FileSlice, SMALL_BYTES, TryRead, read_at, try_read_at};
pub(crate) use media_store::{DynMediaStore, MediaStream, open, spawn_off_fiber};
#[cfg(feature = "uploads")]
pub(crate) use named_import::NamedImportError;
pub(crate) use open_file_cache::OPEN_FILE_CACHE_SHARE;
pub(crate) use partial_file::{OpenStreamError, PartialStream, WaitForBytes};
pub(crate) use thread_pool::BlockingTask;
