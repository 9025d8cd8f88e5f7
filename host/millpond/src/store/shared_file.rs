//! Shared files: files that stay open between requests, for stores with a cache of their own.

use super::cache_status::OriginCacheStatus;
use super::file_slice::{self, FILE_BYTES, MediaFile, OpenFile};

use super::media_store::{MediaObject, ObjectInfo};
use super::partial_file::{PartialFile, PartialMedia};
use bytes::{Bytes, BytesMut};
use millpond_ledger::{Kind, LedgerHandle, LimitExceeded};
use std::fs::File;
use std::io;
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

    /// Reads bytes from `offset` on, at least one and `max_bytes` at most. It waits for the disk on another thread.
    ///
    /// # Errors
    /// The system's, and [`io::ErrorKind::UnexpectedEof`] if the file has none.
    pub async fn read_at(&self, offset: u64, max_bytes: usize) -> io::Result<Bytes> {
        let mut buffer = BytesMut::zeroed(max_bytes);
        let read = match file_slice::try_read_at(self.file(), &mut buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let file = self.clone();
                let read = tokio::task::spawn_blocking(move || {
                    let count = file_slice::read_at(file.file(), &mut buffer, offset)?;
                    Ok((buffer, count))
                });
                read.await.map_err(io::Error::other).flatten()
            }
            read => read.map(|count| (buffer, count)),
        };
        match read? {
            (_, 0) => Err(file_slice::has_shrunk()),
            (mut buffer, count) => {
                buffer.truncate(count);
                Ok(buffer.freeze())
            }
        }
    }

    /// Returns an object with the bytes of the file, charged to the request.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the request's memory does not suffice.
    pub fn open(
        &self,
        status: Option<OriginCacheStatus>,
        ledger: &LedgerHandle,
    ) -> Result<MediaObject, LimitExceeded> {
        let file = self.charged(status, ledger)?;
        Ok(MediaObject::of_file(file, Arc::clone(&self.info)))
    }

    /// Returns an object with the bytes of the file and those that it lacks, charged to the request.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the request's memory does not suffice.
    pub fn open_partial(
        &self,
        partial: impl PartialFile,
        status: OriginCacheStatus,
        ledger: &LedgerHandle,
    ) -> Result<MediaObject, LimitExceeded> {
        let file = Arc::new(PartialMedia {
            file: self.charged(Some(status), ledger)?,
            partial,
            status,
            length: self.info.length,
            charge: ledger.empty_charge(Kind::Handles),
        });
        Ok(MediaObject::of_partial_file(file, Arc::clone(&self.info)))
    }

    fn charged(
        &self,
        status: Option<OriginCacheStatus>,
        ledger: &LedgerHandle,
    ) -> Result<Arc<OpenFile>, LimitExceeded> {
        let charge = ledger.charge(Kind::Files, FILE_BYTES + self.info.media_type.len())?;
        let file = OpenFile::new(Arc::clone(&self.file), charge).with_cache_status(status);
        Ok(Arc::new(file))
    }
}
