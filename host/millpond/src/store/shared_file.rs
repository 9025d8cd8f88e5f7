//! Shared files: files that stay open between requests, for stores with a cache of their own.

use super::cache_status::OriginCacheStatus;
use super::file_slice::{FILE_BYTES, MediaFile, OpenFile};

use super::object_info::ObjectInfo;
use millpond_ledger::{Kind, LedgerHandle, LimitExceeded};
use std::fs::File;
use std::sync::Arc;

/// An open file with the information about its object. Several requests share it. Clones share the file.
///
/// The file has to be on a local disk, since the host reads it on threads that other requests need.
#[derive(Debug, Clone)]
pub struct SharedFile {
    file: Arc<MediaFile>,
    info: Arc<ObjectInfo>,
}

impl SharedFile {
    /// Returns a file of [`ObjectInfo::length`] bytes. The file may be longer.
    #[must_use]
    pub fn new(file: File, info: Arc<ObjectInfo>) -> Self {
        let file = MediaFile::new(file, info.length);
        SharedFile {
            file: Arc::new(file),
            info,
        }
    }

    /// Returns the same file with its bytes in memory, if it is small enough and the kernel has them in memory. The file
    /// must have all bytes of its object.
    #[must_use]
    pub fn with_bytes(self) -> Self {
        let info = self.info;
        match Arc::try_unwrap(self.file) {
            Ok(file) => SharedFile {
                file: Arc::new(file.with_bytes()),
                info,
            },
            Err(file) => SharedFile { file, info },
        }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        self.file.file()
    }

    /// Information about the object.
    #[must_use]
    pub fn info(&self) -> &Arc<ObjectInfo> {
        &self.info
    }

    /// Memory of the file and of its information while it is cached, in bytes.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.file.cached_bytes() + self.info.held_bytes()
    }

    /// The file, without its information.
    pub(super) fn media_file(&self) -> &Arc<MediaFile> {
        &self.file
    }

    /// Returns the file of a request, charged to it.
    pub(super) fn open(
        &self,
        status: Option<OriginCacheStatus>,
        ledger: &LedgerHandle,
    ) -> Result<OpenFile, LimitExceeded> {
        let charge = ledger.charge(Kind::Files, FILE_BYTES + self.info.media_type.len())?;
        Ok(OpenFile::new(Arc::clone(&self.file), charge).with_cache_status(status))
    }
}
