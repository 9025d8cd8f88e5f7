//! Partial files: files that lack some bytes of their object.

use super::cache_status::{ForwardReason, OriginCacheStatus};
use super::cursor::{Cursor, OutOfBounds};
use super::file_slice::{FileSlice, OpenFile};
use super::shared_file::SharedFile;
use millpond_ledger::{Charge, LimitExceeded};
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A file that lacks some bytes of its object, which its store fetches.
pub trait PartialFile: Send + Sync + 'static {
    /// Reader of a range with missing bytes.
    type Reader: PartialReader;

    /// Returns whether the file has all bytes of a range. They must stay in the file as long as it is open.
    fn has(&self, offset: u64, length: u64) -> bool;

    /// Returns a reader of a range with missing bytes, and the reason for which the store fetches them.
    fn reader(&self, offset: u64, length: u64) -> (Self::Reader, ForwardReason);
}

/// Reader of a range with missing bytes. It follows its store as that fetches them.
pub trait PartialReader: Send + Sync + 'static {
    /// Returns the number of bytes from `offset` on that the file has, `most` at most. Zero if the first one is missing. If
    /// the bytes are in another file of the same object by now, it returns that as well.
    fn available(&self, offset: u64, most: u64) -> (u64, Option<SharedFile>);

    /// Waits until the file has the byte at `offset`.
    ///
    /// # Errors
    /// The bytes cannot be fetched. The host aborts the response then, so that a short body never looks complete.
    fn wait(&self, offset: u64) -> impl Future<Output = io::Result<()>> + Send;
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

/// Maximum bytes that a stream takes of the file at a time. The next ones may be there by then.
const SLICE_BYTES: u64 = 1024 * 1024;

/// Unread bytes of a range, some of which are missing.
#[derive(Clone)]
pub(crate) struct PartialStream {
    source: Arc<dyn DynPartialReader>,
    file: Arc<OpenFile>,
    pub(super) cursor: Cursor,
}

impl PartialStream {
    /// Takes the next bytes that the file has. Returns `None` if the first one is missing.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the bytes are in another file, for which the request's memory does not suffice.
    pub(crate) fn take_available(&mut self) -> Result<Option<FileSlice>, LimitExceeded> {
        let most = self.cursor.remaining().min(SLICE_BYTES);
        let offset = self.cursor.offset();
        let (count, file) = self.source.available(offset, most);
        if let Some(file) = file {
            self.file = Arc::new(self.file.sibling(Arc::clone(file.media_file()))?);
        }
        if count == 0 {
            return Ok(None);
        }
        self.cursor.skip(count);
        // The file is as long as the object, which has these bytes.
        Ok(FileSlice::new(Arc::clone(&self.file), offset, count).ok())
    }

    /// Returns a future that waits until the file has the next byte.
    pub(crate) fn wait(&self) -> WaitForBytes {
        let wait = Arc::clone(&self.source).wait(self.cursor.offset());
        WaitForBytes(Mutex::new(wait))
    }

    /// Cache status of the object.
    pub(super) fn cache_status(&self) -> OriginCacheStatus {
        self.source.cache_status()
    }
}

impl fmt::Debug for PartialStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartialStream")
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

/// Wait for the next byte of a partial file. Dropping it ends the wait. The mutex is never locked; it makes a body `Sync`
/// although the future is not.
pub(crate) struct WaitForBytes(Mutex<BoxedWait>);

type BoxedWait = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

impl Future for WaitForBytes {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.get_mut().as_mut().poll(cx)
    }
}

impl fmt::Debug for WaitForBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitForBytes")
    }
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
    fn stream(&self, offset: u64, length: u64) -> Result<PartialStream, OpenStreamError>;
}

impl<P: PartialFile> DynPartialFile for PartialMedia<P> {
    fn file_with(&self, offset: u64, length: u64) -> Option<&Arc<OpenFile>> {
        self.partial.has(offset, length).then_some(&self.file)
    }

    fn stream(&self, offset: u64, length: u64) -> Result<PartialStream, OpenStreamError> {
        let cursor = Cursor::new(self.length, offset, length)?;
        let mut charge = self.charge.empty_sibling();
        charge.resize(size_of::<OpenPartial<P::Reader>>())?;
        let (reader, reason) = self.partial.reader(offset, length);
        let cache_status = OriginCacheStatus {
            forward: self.status.forward.or(Some(reason)),
            stored: true,
            ..self.status
        };
        Ok(PartialStream {
            source: Arc::new(OpenPartial {
                reader,
                cache_status,
                _charge: charge,
            }),
            file: Arc::clone(&self.file),
            cursor,
        })
    }
}

/// A reader of any type, charged while it is open.
struct OpenPartial<R> {
    reader: R,
    cache_status: OriginCacheStatus,
    _charge: Charge,
}

/// [`OpenPartial`] of any type.
trait DynPartialReader: Send + Sync {
    fn cache_status(&self) -> OriginCacheStatus;
    fn available(&self, offset: u64, most: u64) -> (u64, Option<SharedFile>);
    fn wait(self: Arc<Self>, offset: u64) -> BoxedWait;
}

impl<R: PartialReader> DynPartialReader for OpenPartial<R> {
    fn cache_status(&self) -> OriginCacheStatus {
        self.cache_status
    }

    fn available(&self, offset: u64, most: u64) -> (u64, Option<SharedFile>) {
        self.reader.available(offset, most)
    }

    fn wait(self: Arc<Self>, offset: u64) -> BoxedWait {
        Box::pin(async move { self.reader.wait(offset).await })
    }
}
