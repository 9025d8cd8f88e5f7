//! A store of media, and what it opens: `media-store` of the interface, for those who implement it.

use super::chunks::{ChunkStream, DynReadAt, OpenBytes, ReadAt};
use super::cursor::OutOfBounds;
use super::file_slice::{FILE_BYTES, FileSlice, MediaFile, OpenFile};
use millpond_format::{Access, ContentId};
use millpond_ledger::{Kind, LedgerHandle, LimitExceeded, heap};
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;
use tokio_util::task::AbortOnDropHandle;

/// Where media lies: interface `media-store` of `wit/media-store.wit`. [`Folder`](super::Folder) is one; a program
/// gives media from memory, a database or an object store by another.
///
/// It decides what there is and where its bytes lie; routes, ranges, conditions and access are the component's. What it
/// opens for a request is held for as long as the answer lasts, so it keeps to limits of its own and says
/// [`OpenError::Busy`] when it is at one.
///
/// ```
/// use bytes::Bytes;
/// use millpond::ledger::LedgerHandle;
/// use millpond::store::{Access, ObjectKey, MediaObject, MediaStore, ObjectInfo, OpenError};
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
    /// Opens the object of that key, for the request that has that ledger.
    ///
    /// The request's instance waits meanwhile, so it counts among
    /// [`Limits::concurrent_instances`](crate::Limits::concurrent_instances), and the whole takes
    /// [`Limits::wall`](crate::Limits::wall) at most; then, or when the client goes away, the future is dropped. It runs as
    /// a task of its own, whose panic is the request's failure. What blocks is no call for an async thread. What the store holds for the request beside what a [`MediaObject`] charges
    /// itself, it charges to the ledger, and keeps the [`Charge`](millpond_ledger::Charge) in its [`ReadAt`].
    ///
    /// The name of a [`ObjectKey::Named`] comes from whoever asks.
    ///
    /// # Errors
    /// [`OpenError`].
    fn open(
        &self,
        key: &ObjectKey,
        ledger: &LedgerHandle,
    ) -> impl Future<Output = Result<MediaObject, OpenError>> + Send;

    /// The same for what can be opened at once, without waiting for anything; `None` for what cannot. It runs on the
    /// guest's stack, which is small, and on a thread that others wait for.
    ///
    /// # Errors
    /// [`OpenError`].
    fn try_open(
        &self,
        _key: &ObjectKey,
        _ledger: &LedgerHandle,
    ) -> Option<Result<MediaObject, OpenError>> {
        None
    }

    /// What the store keeps in memory between requests, in bytes: now, and at most. Part of the process's bound.
    fn cache_usage(&self) -> CacheUsage {
        CacheUsage::default()
    }

    /// The folder that the store lies in, if it does. A component for `wasi:http` is given that, and knows of no other
    /// store.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// Why nothing can be opened just now, if that is so: the program is not ready then (`/readyz`). It does not wait for
    /// anything.
    fn unavailable(&self) -> Option<String> {
        None
    }

    /// Whether [`MediaStore::open`] leaves its work to other threads, and takes next to nothing of the stack itself.
    #[doc(hidden)]
    fn runs_on_fiber_stack(&self) -> bool {
        false
    }

    /// Sets how many opens may wait for one thing that does not answer. Each of them keeps an instance.
    #[doc(hidden)]
    fn limit_waiting(&self, _opens: usize) {}
}

/// A store that others have a hand on too.
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

/// What a store keeps between requests, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheUsage {
    /// Now.
    pub used_bytes: usize,
    /// Whatever is asked of it.
    pub max_bytes: usize,
}

/// [`MediaStore`] without its type, so that hosts have the same one whatever they serve from.
pub(crate) trait DynMediaStore: Send + Sync {
    fn open(self: Arc<Self>, key: ObjectKey, ledger: LedgerHandle) -> OpenFuture;

    fn try_open(
        &self,
        key: &ObjectKey,
        ledger: &LedgerHandle,
    ) -> Option<Result<MediaObject, OpenError>>;

    fn cache_usage(&self) -> CacheUsage;

    fn unavailable(&self) -> Option<String>;
}

/// Opens an object: at once where the store can, and else when it has.
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

type OpenFuture = Pin<Box<dyn Future<Output = Result<MediaObject, OpenError>> + Send>>;

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

    fn open(self: Arc<Self>, key: ObjectKey, ledger: LedgerHandle) -> OpenFuture {
        let runs_on_fiber_stack = self.runs_on_fiber_stack();
        let route = ledger.route().cloned();
        let open = async move { MediaStore::open(&*self, &key, &ledger).await };
        if runs_on_fiber_stack {
            return Box::pin(open);
        }
        let opened = spawn_off_fiber(heap::attribute_future(route, open));
        Box::pin(async move {
            let failed = |error| OpenError::Failed(io::Error::other(error));
            opened.await.map_err(failed)?
        })
    }
}

/// Runs what a program does for a guest as a task. Polled by the guest's own future it would run on the guest's stack,
/// which is small, and whose overflow is the end of the process. Dropped, the task ends.
pub(crate) fn spawn_off_fiber<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

/// What names one object: `variant key` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ObjectKey {
    /// Media by its content.
    Content(ContentId),
    /// Media by its name: a path of segments with `/` between them. From a guest, none of them is empty, `.` or `..`,
    /// and none holds U+0000. Whatever else means something to the store's system, the store refuses.
    Named(String),
}

impl ObjectKey {
    /// What it takes on the heap, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            ObjectKey::Content(_) => 0,
            ObjectKey::Named(name) => name.capacity(),
        }
    }

    /// The key of a name that a guest gave; `None` where it is no name as the interface has them.
    pub(crate) fn named(name: String) -> Option<Self> {
        let fits = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains('\0');
        name.split('/').all(fits).then_some(ObjectKey::Named(name))
    }
}

/// Why an object was not opened: `enum error` of `wit/media-store.wit`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is none, it is no regular file, or its record is missing or damaged.
    #[error("object not found")]
    NotFound,
    /// The store is at a limit of its own, as of open files or memory; the same may go well later.
    #[error("the store is at its limit: {0}")]
    Busy(#[source] io::Error),
    /// The request has no room for it.
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

/// Where an object's bytes come from.
enum ObjectSource {
    File(Arc<OpenFile>),
    Bytes(Arc<dyn DynReadAt>),
}

/// What is known of an object without reading it: `record info` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Length when it was opened, in bytes.
    pub length: u64,
    /// Media type, as it stands in a `Content-Type` field (RFC 9110 section 8.3).
    pub media_type: String,
    /// When its bytes were last modified, where that is known.
    pub modified: Option<SystemTime>,
    /// When the media was added; none for named files.
    pub created: Option<SystemTime>,
    /// The SHA-256 of all of its bytes, where that is known.
    pub digest: Option<ContentId>,
    /// Tells this state of the object's bytes from every other. Of a named object it becomes the entity tag
    /// (RFC 9110 section 8.8.3); without it that is the digest where there is one, and else weak.
    pub version: Option<ObjectVersion>,
    /// Who may have it. Private media is had by its content only: opened by a name, it is not found.
    pub access: Access,
    /// Other representations that the store has of it, in no order.
    pub variants: Vec<ObjectVariant>,
}

/// A state of an object's bytes: `variant version` of `wit/media-store.wit`. Text of visible ASCII without `"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectVersion {
    /// No two contents that a key has ever had share it. Length and modification time alone do not make it.
    Strong(String),
    /// Two contents may share it, but seldom do.
    Weak(String),
}

/// Another representation of the same resource: `record variant-info` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectVariant {
    /// Its key.
    pub key: ObjectKey,
    /// Its media type.
    pub media_type: String,
    /// Its content coding, where it has one.
    pub content_coding: Option<String>,
}

impl MediaObject {
    /// An object whose bytes are those of an open file, read without a copy of the program's own. The file and its
    /// type are charged to the ledger for as long as the object or a stream of it lives.
    ///
    /// A file that is shorter than [`ObjectInfo::length`] when it is read ends the answer with an abort.
    ///
    /// # Errors
    /// [`LimitExceeded`], when the request has no room for an open file.
    pub fn from_file(
        file: File,
        info: ObjectInfo,
        ledger: &LedgerHandle,
    ) -> Result<Self, LimitExceeded> {
        let file = Arc::new(MediaFile::new(file, info.length));
        MediaObject::of_open_file(file, Arc::new(info), ledger)
    }

    /// The same of a file that others may have open too.
    pub(super) fn of_open_file(
        file: Arc<MediaFile>,
        info: Arc<ObjectInfo>,
        ledger: &LedgerHandle,
    ) -> Result<Self, LimitExceeded> {
        let charge = ledger.charge(Kind::Files, FILE_BYTES + info.media_type.len())?;
        let source = ObjectSource::File(Arc::new(OpenFile::new(file, charge)));
        Ok(MediaObject { source, info })
    }

    /// An object whose bytes the program gives, of which there are [`ObjectInfo::length`]. What is known of it, and
    /// the size of `R` itself, are charged to the ledger for as long as the object or a stream of it lives; what `R`
    /// holds beside, the store charges.
    ///
    /// # Errors
    /// [`LimitExceeded`], when the request has no room for it.
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

    /// What was known of the object when it was opened.
    #[must_use]
    pub fn info(&self) -> &ObjectInfo {
        &self.info
    }

    /// The same, for whoever remembers it longer than the object.
    pub(crate) fn shared_info(&self) -> &Arc<ObjectInfo> {
        &self.info
    }

    /// A stream of exactly so many of the object's bytes. Nothing is read yet.
    pub(crate) fn read(&self, offset: u64, length: u64) -> Result<MediaStream, OutOfBounds> {
        match &self.source {
            ObjectSource::File(file) => {
                FileSlice::new(Arc::clone(file), offset, length).map(MediaStream::File)
            }
            ObjectSource::Bytes(bytes) => {
                ChunkStream::new(Arc::clone(bytes), offset, length).map(MediaStream::ChunkStream)
            }
        }
    }
}

impl fmt::Debug for ObjectSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectSource::File(_) => "File",
            ObjectSource::Bytes(_) => "Bytes",
        })
    }
}

impl ObjectInfo {
    /// What is known of an object of that length, in bytes, and type, that they may have; nothing else is known.
    #[must_use]
    pub fn new(length: u64, media_type: impl Into<String>, access: Access) -> Self {
        ObjectInfo {
            length,
            media_type: media_type.into(),
            modified: None,
            created: None,
            digest: None,
            version: None,
            access,
            variants: Vec::new(),
        }
    }

    /// What it takes on the heap, and itself, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        let variants = self.variants.iter().map(|variant| {
            let name = variant.key.held_bytes();
            let coding = variant.content_coding.as_ref().map_or(0, String::capacity);
            name + variant.media_type.capacity() + coding
        });
        let version = match &self.version {
            Some(ObjectVersion::Strong(text) | ObjectVersion::Weak(text)) => text.capacity(),
            None => 0,
        };
        size_of::<Self>()
            + self.media_type.capacity()
            + version
            + self.variants.capacity() * size_of::<ObjectVariant>()
            + variants.sum::<usize>()
    }
}

impl ObjectVariant {
    /// A representation of that key and media type, without a content coding.
    #[must_use]
    pub fn new(key: ObjectKey, media_type: impl Into<String>) -> Self {
        ObjectVariant {
            key,
            media_type: media_type.into(),
            content_coding: None,
        }
    }
}

/// Bytes of an object on their way to the client, not yet read: `input-stream` as the interface's `read` gives it.
#[derive(Debug, Clone)]
pub(crate) enum MediaStream {
    /// Those of a file, which is read without a dynamic call.
    File(FileSlice),
    /// Those that the program gives.
    ChunkStream(ChunkStream),
}

impl MediaStream {
    /// Bytes not yet read.
    pub(crate) fn remaining(&self) -> u64 {
        match self {
            MediaStream::File(slice) => slice.remaining(),
            MediaStream::ChunkStream(chunks) => chunks.remaining(),
        }
    }

    /// Where in its object the next byte lies.
    pub(crate) fn offset(&self) -> u64 {
        match self {
            MediaStream::File(slice) => slice.offset(),
            MediaStream::ChunkStream(chunks) => chunks.offset(),
        }
    }

    /// The same, without what lies beyond its next `length` bytes.
    pub(crate) fn truncated(self, length: u64) -> Self {
        match self {
            MediaStream::File(slice) => MediaStream::File(slice.truncated(length)),
            MediaStream::ChunkStream(chunks) => MediaStream::ChunkStream(chunks.truncated(length)),
        }
    }

    /// Leaves out the next `count` bytes.
    pub(crate) fn skip(&mut self, count: u64) {
        match self {
            MediaStream::File(slice) => slice.skip(count),
            MediaStream::ChunkStream(chunks) => chunks.skip(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_guest_climbs_nowhere() {
        for name in ["a", "a/b c.mp4", "...", "ä/.b", "a: b\\c\n"] {
            assert_eq!(
                ObjectKey::named(name.into()),
                Some(ObjectKey::Named(name.into()))
            );
        }
        for name in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0"] {
            assert_eq!(ObjectKey::named(name.into()), None, "{name:?}");
        }
    }
}
