//! The media store, and the objects that it opens, for implementors.

use super::cache_status::OriginCacheStatus;
use super::chunks::{ChunkStream, DynReadAt, OpenBytes, ReadAt};
use super::cursor::Cursor;
use super::file_slice::{FILE_BYTES, FileSlice, MediaFile, OpenFile};
use super::object_info::{ObjectInfo, ObjectKey};
use super::partial_file::{
    DynPartialFile, OpenStreamError, PartialFile, PartialMedia, PartialStream,
};
use super::shared_file::SharedFile;
use millpond_format::listing::{ListQuery, Listing};
use millpond_ledger::{Kind, LedgerHandle, LimitExceeded, Route, heap};
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

/// A store of media: interface `media-store` of `wit/media-store.wit`.
///
/// [`Folder`](super::Folder) is a store in a folder. A program implements this trait for media in memory, in a
/// database, or in an object store. The store opens objects by key. The component handles routes, ranges, conditional
/// requests and access. An object stays open until the end of its response, so the store should have limits of its own.
/// At a limit it returns [`OpenError::Busy`].
///
/// ```
/// use bytes::Bytes;
/// use millpond::ledger::LedgerHandle;
/// use millpond::store::{Access, MediaObject, MediaStore, ObjectInfo, ObjectKey, OpenError};
/// use millpond::{Config, Limits, Millpond, Source};
///
/// /// One greeting, by its name.
/// struct Greeting;
///
/// impl MediaStore for Greeting {
///     async fn open(&self, key: &ObjectKey, ledger: &LedgerHandle) -> Result<MediaObject, OpenError> {
///         let ObjectKey::Named(name) = key else {
///             return Err(OpenError::NotFound);
///         };
///         if name != "greeting.txt" {
///             return Err(OpenError::NotFound);
///         }
///         let bytes = Bytes::from_static(b"good day");
///         let info = ObjectInfo::new(bytes.len() as u64, "text/plain", Access::Public);
///         Ok(MediaObject::from_bytes(bytes, info, ledger)?)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http_body_util::BodyExt;
///
/// let config = Config::default();
/// let millpond = Millpond::new(&Source::embedded(), Greeting, &config, Limits::default())?;
/// let request = http::Request::get("/media/greeting.txt").header("range", "bytes=5-").body(())?;
/// let response = millpond.serve(request).await;
/// assert_eq!(response.status(), 206);
/// assert_eq!(response.into_body().collect().await?.to_bytes(), "day");
/// # Ok(())
/// # }
/// ```
pub trait MediaStore: Send + Sync + 'static {
    /// Opens the object of a key, for the request with that ledger.
    ///
    /// The request's instance waits, and counts among
    /// [`Limits::concurrent_instances`](crate::Limits::concurrent_instances). After
    /// [`Limits::wall`](crate::Limits::wall), or when the client leaves, the host drops the future. It runs in a task
    /// of its own; a panic fails the request. Do not block.
    ///
    /// [`MediaObject`] charges itself. If the store holds more memory for the request, charge it to `ledger`, and keep
    /// the [`Charge`](millpond_ledger::Charge) in your [`ReadAt`].
    ///
    /// A client chooses the name of an [`ObjectKey::Named`], so do not trust it.
    ///
    /// # Errors
    /// [`OpenError::NotFound`] if there is no such object, and [`OpenError::Busy`] at a limit of the store.
    /// [`OpenError::Exceeded`] if the request's memory does not suffice. [`OpenError::Failed`] for other errors.
    fn open(
        &self,
        key: &ObjectKey,
        ledger: &LedgerHandle,
    ) -> impl Future<Output = Result<MediaObject, OpenError>> + Send;

    /// Opens an object if that needs no waiting, and returns `None` otherwise. It runs on the guest's small stack, on a
    /// thread that serves other requests.
    ///
    /// # Errors
    /// As [`MediaStore::open`].
    fn try_open(
        &self,
        _key: &ObjectKey,
        _ledger: &LedgerHandle,
    ) -> Option<Result<MediaObject, OpenError>> {
        None
    }

    /// Lists a folder, page by page: `list` of `wit/media-store.wit`. `folder` is a path as in [`ObjectKey::Named`], or
    /// empty for the root. By default a store lists nothing.
    ///
    /// The future runs as that of [`MediaStore::open`]. A client chooses the folder and the search.
    /// [`PageSelector`](millpond_format::listing::PageSelector) selects the page with bounded memory.
    ///
    /// # Errors
    /// As [`MediaStore::open`].
    fn list(
        &self,
        _folder: &str,
        _query: &ListQuery,
        _ledger: &LedgerHandle,
    ) -> impl Future<Output = Result<Listing, OpenError>> + Send {
        std::future::ready(Err(OpenError::NotFound))
    }

    /// Returns the memory of the store's own caches. It is part of the [`MemoryPlan`](crate::MemoryPlan).
    fn cache_usage(&self) -> CacheUsage {
        CacheUsage::default()
    }

    /// Returns the folder of the store, if it is one. A component of `wasi:http` has access to that folder, and to no
    /// other store.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// Returns the reason for which the store cannot open anything now. `/readyz` reports it. Do not block.
    fn unavailable(&self) -> Option<String> {
        None
    }

    /// Whether [`MediaStore::open`] runs on other threads, and needs little stack.
    #[doc(hidden)]
    fn runs_on_fiber_stack(&self) -> bool {
        false
    }

    /// Sets the maximum number of opens that wait for one file system. Each occupies an instance.
    #[doc(hidden)]
    fn limit_waiting(&self, _opens: usize) {}
}

/// A shared store.
impl<S: MediaStore> MediaStore for Arc<S> {
    async fn open(&self, key: &ObjectKey, ledger: &LedgerHandle) -> Result<MediaObject, OpenError> {
        S::open(self, key, ledger).await
    }

    fn try_open(
        &self,
        key: &ObjectKey,
        ledger: &LedgerHandle,
    ) -> Option<Result<MediaObject, OpenError>> {
        S::try_open(self, key, ledger)
    }

    async fn list(
        &self,
        folder: &str,
        query: &ListQuery,
        ledger: &LedgerHandle,
    ) -> Result<Listing, OpenError> {
        S::list(self, folder, query, ledger).await
    }

    fn cache_usage(&self) -> CacheUsage {
        S::cache_usage(self)
    }

    fn folder(&self) -> Option<&Path> {
        S::folder(self)
    }

    fn unavailable(&self) -> Option<String> {
        S::unavailable(self)
    }

    fn runs_on_fiber_stack(&self) -> bool {
        S::runs_on_fiber_stack(self)
    }

    fn limit_waiting(&self, opens: usize) {
        S::limit_waiting(self, opens);
    }
}

/// Memory of a store's caches, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheUsage {
    /// Current memory.
    pub used_bytes: usize,
    /// Maximum memory.
    pub max_bytes: usize,
}

/// [`MediaStore`] as a trait object.
pub(crate) trait DynMediaStore: Send + Sync {
    fn open(self: Arc<Self>, key: ObjectKey, ledger: LedgerHandle) -> StoreFuture<MediaObject>;

    fn try_open(
        &self,
        key: &ObjectKey,
        ledger: &LedgerHandle,
    ) -> Option<Result<MediaObject, OpenError>>;

    fn list(
        self: Arc<Self>,
        folder: String,
        query: ListQuery,
        ledger: LedgerHandle,
    ) -> StoreFuture<Listing>;

    fn cache_usage(&self) -> CacheUsage;

    fn unavailable(&self) -> Option<String>;
}

/// Opens an object, without waiting if the store can.
pub(crate) async fn open(
    media: &Arc<dyn DynMediaStore>,
    key: &ObjectKey,
    ledger: &LedgerHandle,
) -> Result<MediaObject, OpenError> {
    match media.try_open(key, ledger) {
        Some(opened) => opened,
        None => Arc::clone(media).open(key.clone(), ledger.clone()).await,
    }
}

type StoreFuture<T> = Pin<Box<dyn Future<Output = Result<T, OpenError>> + Send>>;

impl<S: MediaStore> DynMediaStore for S {
    fn try_open(
        &self,
        key: &ObjectKey,
        ledger: &LedgerHandle,
    ) -> Option<Result<MediaObject, OpenError>> {
        MediaStore::try_open(self, key, ledger)
    }

    fn cache_usage(&self) -> CacheUsage {
        MediaStore::cache_usage(self)
    }

    fn unavailable(&self) -> Option<String> {
        MediaStore::unavailable(self)
    }

    fn open(self: Arc<Self>, key: ObjectKey, ledger: LedgerHandle) -> StoreFuture<MediaObject> {
        let runs_on_fiber_stack = self.runs_on_fiber_stack();
        let route = ledger.route().cloned();
        let open = async move { MediaStore::open(&*self, &key, &ledger).await };
        on_stack(runs_on_fiber_stack, route, open)
    }

    fn list(
        self: Arc<Self>,
        folder: String,
        query: ListQuery,
        ledger: LedgerHandle,
    ) -> StoreFuture<Listing> {
        let runs_on_fiber_stack = self.runs_on_fiber_stack();
        let route = ledger.route().cloned();
        let list = async move { MediaStore::list(&*self, &folder, &query, &ledger).await };
        on_stack(runs_on_fiber_stack, route, list)
    }
}

/// Returns a store's future, in a task of its own unless it may run on the guest's fiber stack.
fn on_stack<T: Send + 'static>(
    runs_on_fiber_stack: bool,
    route: Option<Arc<Route>>,
    work: impl Future<Output = Result<T, OpenError>> + Send + 'static,
) -> StoreFuture<T> {
    if runs_on_fiber_stack {
        return Box::pin(work);
    }
    let result = spawn_off_fiber(heap::attribute_future(route, work));
    Box::pin(async move {
        let failed = |error| OpenError::Failed(io::Error::other(error));
        result.await.map_err(failed)?
    })
}

/// Runs a program's future as a task of its own. On the guest's fiber stack it could overflow, which would abort the
/// process. Dropping the handle aborts the task.
pub(crate) fn spawn_off_fiber<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

/// The error of opening an object: `variant error-code` of `wit/media-store.wit`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The object does not exist, is not a regular file, or has no valid record.
    #[error("object not found")]
    NotFound,
    /// The store is at a limit of its own, such as open files or memory. A retry may succeed.
    #[error("the store is at its limit: {0}")]
    Busy(#[source] io::Error),
    /// The request's memory does not suffice.
    #[error(transparent)]
    Exceeded(#[from] LimitExceeded),
    /// The store failed.
    #[error("the store failed: {0}")]
    Failed(#[source] io::Error),
}

/// An open object: `resource object` of `wit/media-store.wit`.
#[derive(Debug)]
pub struct MediaObject {
    source: ObjectSource,
    info: Arc<ObjectInfo>,
}

/// Source of an object's bytes.
enum ObjectSource {
    File(Arc<OpenFile>),
    Bytes(Arc<dyn DynReadAt>),
    Partial(Arc<dyn DynPartialFile>),
}

impl MediaObject {
    /// Returns an object with the bytes of an open file. The file is charged to the ledger as long as the object or a
    /// stream of it lives.
    ///
    /// If the file is shorter than [`ObjectInfo::length`] when it is read, the host aborts the response.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the request's memory does not suffice.
    pub fn from_file(
        file: File,
        info: ObjectInfo,
        ledger: &LedgerHandle,
    ) -> Result<Self, LimitExceeded> {
        let file = Arc::new(MediaFile::new(file, info.length));
        MediaObject::of_open_file(file, Arc::new(info), ledger)
    }

    /// Returns an object with the bytes of a file that other objects may share.
    pub(super) fn of_open_file(
        file: Arc<MediaFile>,
        info: Arc<ObjectInfo>,
        ledger: &LedgerHandle,
    ) -> Result<Self, LimitExceeded> {
        let charge = ledger.charge(Kind::Files, FILE_BYTES + info.media_type.len())?;
        Ok(MediaObject {
            source: ObjectSource::File(Arc::new(OpenFile::new(file, charge))),
            info,
        })
    }

    /// Returns an object with the bytes of a file that several requests share, charged to this one. A store that caches an
    /// origin tells its handling of the request in `status`.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the request's memory does not suffice.
    pub fn from_shared_file(
        file: &SharedFile,
        status: Option<OriginCacheStatus>,
        ledger: &LedgerHandle,
    ) -> Result<Self, LimitExceeded> {
        let open_file = file.open(status, ledger)?;
        Ok(MediaObject {
            source: ObjectSource::File(Arc::new(open_file)),
            info: Arc::clone(file.info()),
        })
    }

    /// Returns an object with the bytes of a file, and with those that the file lacks, charged to the request.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the request's memory does not suffice.
    pub fn from_partial_file(
        file: &SharedFile,
        partial: impl PartialFile,
        status: OriginCacheStatus,
        ledger: &LedgerHandle,
    ) -> Result<Self, LimitExceeded> {
        let media = PartialMedia {
            file: Arc::new(file.open(Some(status), ledger)?),
            partial,
            status,
            length: file.info().length,
            charge: ledger.empty_charge(Kind::Handles),
        };
        Ok(MediaObject {
            source: ObjectSource::Partial(Arc::new(media)),
            info: Arc::clone(file.info()),
        })
    }

    /// Returns an object with bytes of the program, [`ObjectInfo::length`] of them.
    ///
    /// `info` and the size of `R` are charged to the ledger as long as the object or a stream of it lives. The store
    /// charges the other memory of `R`.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the request's memory does not suffice.
    pub fn from_bytes<R: ReadAt>(
        bytes: R,
        info: ObjectInfo,
        ledger: &LedgerHandle,
    ) -> Result<Self, LimitExceeded> {
        let held_bytes = size_of::<OpenBytes<R>>() + info.held_bytes();
        let open = OpenBytes {
            bytes,
            length: info.length,
            _charge: ledger.charge(Kind::Handles, held_bytes)?,
        };
        let source = ObjectSource::Bytes(Arc::new(open));
        let info = Arc::new(info);
        Ok(MediaObject { source, info })
    }

    /// Information about the object when it was opened.
    #[must_use]
    pub fn info(&self) -> &ObjectInfo {
        &self.info
    }

    /// Information about the object, shared.
    pub(crate) fn shared_info(&self) -> &Arc<ObjectInfo> {
        &self.info
    }

    /// Returns a stream of exactly these bytes. Nothing is read yet.
    ///
    /// # Errors
    /// [`OpenStreamError`], if the range exceeds the object, or the request's memory does not suffice.
    pub(crate) fn read(&self, offset: u64, length: u64) -> Result<MediaStream, OpenStreamError> {
        let of_file = |file: &Arc<OpenFile>| {
            let slice = FileSlice::new(Arc::clone(file), offset, length)?;
            Ok(MediaStream::File(slice))
        };
        match &self.source {
            ObjectSource::File(file) => of_file(file),
            ObjectSource::Bytes(bytes) => {
                let chunks = ChunkStream::new(Arc::clone(bytes), offset, length)?;
                Ok(MediaStream::ChunkStream(chunks))
            }
            ObjectSource::Partial(partial) => match partial.file_with(offset, length) {
                Some(file) => of_file(file),
                None => Ok(MediaStream::Partial(partial.stream(offset, length)?)),
            },
        }
    }
}

impl fmt::Debug for ObjectSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectSource::File(_) => "File",
            ObjectSource::Bytes(_) => "Bytes",
            ObjectSource::Partial(_) => "Partial",
        })
    }
}

/// Unread bytes of an object: the `input-stream` that the interface's `read` returns.
#[derive(Debug, Clone)]
pub(crate) enum MediaStream {
    /// Bytes of a file, read without a dynamic call.
    File(FileSlice),
    /// Bytes of the program.
    ChunkStream(ChunkStream),
    /// Bytes of a file, some of which are missing.
    Partial(PartialStream),
}

impl MediaStream {
    /// Number of unread bytes.
    pub(crate) fn remaining(&self) -> u64 {
        self.cursor().remaining()
    }

    /// Offset of the next byte in its object.
    pub(crate) fn offset(&self) -> u64 {
        self.cursor().offset()
    }

    /// Cache status of the object.
    pub(crate) fn cache_status(&self) -> Option<OriginCacheStatus> {
        match self {
            MediaStream::File(slice) => slice.cache_status(),
            MediaStream::ChunkStream(_) => None,
            MediaStream::Partial(partial) => Some(partial.cache_status()),
        }
    }

    /// Returns the stream without the bytes beyond the next `length`.
    pub(crate) fn truncated(mut self, length: u64) -> Self {
        self.cursor_mut().truncate(length);
        self
    }

    /// Skips the next `count` bytes.
    pub(crate) fn skip(&mut self, count: u64) {
        self.cursor_mut().skip(count);
    }

    fn cursor(&self) -> &Cursor {
        match self {
            MediaStream::File(slice) => &slice.cursor,
            MediaStream::ChunkStream(chunks) => &chunks.cursor,
            MediaStream::Partial(partial) => &partial.cursor,
        }
    }

    fn cursor_mut(&mut self) -> &mut Cursor {
        match self {
            MediaStream::File(slice) => &mut slice.cursor,
            MediaStream::ChunkStream(chunks) => &mut chunks.cursor,
            MediaStream::Partial(partial) => &mut partial.cursor,
        }
    }
}
