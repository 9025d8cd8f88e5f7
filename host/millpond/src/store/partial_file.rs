//! Partial files: files that lack some bytes of their object.

use super::cache_status::{ForwardReason, OriginCacheStatus};
use super::chunks::{ChunkStream, DynReadAt, OpenBytes, ReadAt};
use super::cursor::OutOfBounds;
use super::file_slice::OpenFile;
use millpond_ledger::{Charge, LimitExceeded};
use std::sync::Arc;

/// A file that lacks some bytes of its object, which its store fetches.
pub trait PartialFile: Send + Sync + 'static {
    /// Reader of a range with missing bytes.
    type Reader: ReadAt;

    /// Returns whether the file has all bytes of a range. They must stay in the file as long as it is open.
    fn has(&self, offset: u64, length: u64) -> bool;

    /// Returns a reader of a range with missing bytes, and the reason for which the store fetches them.
    fn reader(&self, offset: u64, length: u64) -> (Self::Reader, ForwardReason);
}

/// The error of a stream that an object cannot return.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum OpenStreamError {
    /// The range exceeds the object.
    #[error(transparent)]
    OutOfBounds(#[from] OutOfBounds),
    /// The request's memory does not suffice.
    #[error(transparent)]
    Exceeded(#[from] LimitExceeded),
}

/// A partial file of a request.
pub(super) struct PartialMedia<P> {
    pub(super) file: Arc<OpenFile>,
    pub(super) partial: P,
    pub(super) status: OriginCacheStatus,
    /// Length of the object, in bytes.
    pub(super) length: u64,
    /// Charge of zero bytes, for those of the readers.
    pub(super) charge: Charge,
}

/// [`PartialMedia`] of any type.
pub(super) trait DynPartialFile: Send + Sync {
    /// Returns the open file, if it has all bytes of this range.
    fn file_with(&self, offset: u64, length: u64) -> Option<&Arc<OpenFile>>;

    /// Returns a stream of a range with missing bytes.
    ///
    /// # Errors
    /// [`OpenStreamError`], if the range exceeds the object, or the request's memory does not suffice.
    fn stream(&self, offset: u64, length: u64) -> Result<ChunkStream, OpenStreamError>;
}

impl<P: PartialFile> DynPartialFile for PartialMedia<P> {
    fn file_with(&self, offset: u64, length: u64) -> Option<&Arc<OpenFile>> {
        self.partial.has(offset, length).then_some(&self.file)
    }

    fn stream(&self, offset: u64, length: u64) -> Result<ChunkStream, OpenStreamError> {
        let mut charge = self.charge.empty_sibling();
        charge.resize(size_of::<OpenBytes<P::Reader>>())?;
        let (bytes, reason) = self.partial.reader(offset, length);
        let source: Arc<dyn DynReadAt> = Arc::new(OpenBytes {
            bytes,
            length: self.length,
            cache_status: Some(OriginCacheStatus {
                forward: self.status.forward.or(Some(reason)),
                stored: true,
                ..self.status
            }),
            _charge: charge,
        });
        Ok(ChunkStream::new(source, offset, length)?)
    }
}
