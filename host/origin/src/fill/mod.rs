//! Fills: missing chunks on their way from the origin into a cache file.
//!
//! A fill runs at the speed of the origin. Its readers follow it through the file, so that no reader holds it up, and none
//! holds more than a chunk of its own.

pub(crate) mod progress;
pub(crate) mod range_reader;

use crate::cache::chunk_map::CHUNK_BYTES;
use crate::cache::object::CachedObject;
use crate::cache::{ChunkCache, whole_disk_bytes};
use crate::fetch::{Fetch, FetchError};
use crate::object_path::object_path;
use crate::origin::Origin;
use bytes::BytesMut;
use futures_util::{FutureExt, StreamExt};
use millpond::store::SharedFile;
use progress::{Fill, FillError, FillInterest, Run};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes that a fill writes at a time.
const WRITE_BYTES: usize = 256 * 1024;

/// Maximum number of fills that wait for others, for each that may run. Readers of further ones fail at once.
const WAITING_FILLS: usize = 64;

/// Maximum time that a fill waits for others, and again for room on disk.
const FILL_WAIT: Duration = Duration::from_secs(10);

/// Fills the chunks of objects.
#[derive(Debug)]
pub(crate) struct Filler {
    origin: Origin,
    cache: Arc<ChunkCache>,
    permits: Arc<Semaphore>,
    max_fills: usize,
    waiting: AtomicUsize,
    counts: FillCounts,
}

/// Counts of fills since the start.
#[derive(Debug, Default)]
pub(crate) struct FillCounts {
    /// Fills that were started.
    pub(crate) started: AtomicU64,
    /// Fills that ended with an error.
    pub(crate) failed: AtomicU64,
    /// Fills that ended because no reader was left.
    pub(crate) abandoned: AtomicU64,
    /// Bytes that were written to the cache.
    pub(crate) written_bytes: AtomicU64,
}

impl Filler {
    /// Returns a filler that runs this many fills at a time.
    pub(crate) fn new(origin: Origin, cache: Arc<ChunkCache>, max_fills: usize) -> Arc<Self> {
        Arc::new(Filler {
            origin,
            cache,
            permits: Arc::new(Semaphore::new(max_fills)),
            max_fills,
            waiting: AtomicUsize::new(0),
            counts: FillCounts::default(),
        })
    }

    /// Counts since the start.
    pub(crate) fn counts(&self) -> &FillCounts {
        &self.counts
    }

    /// Number of fills in progress.
    pub(crate) fn active(&self) -> usize {
        self.max_fills - self.permits.available_permits()
    }

    /// Returns whether as many fills wait as may.
    pub(crate) fn is_busy(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= self.max_fills * WAITING_FILLS
    }

    /// Follows the fill of a missing chunk, or starts one for the run of missing chunks up to the byte at `end`. Returns
    /// `None` if the file has the chunk meanwhile.
    pub(crate) fn follow(
        self: &Arc<Self>,
        object: &Arc<CachedObject>,
        file: &SharedFile,
        chunk: u64,
        end: u64,
    ) -> Option<FillInterest> {
        let run = |fills: &[Arc<Fill>]| {
            if object.chunks().has(chunk) {
                return None;
            }
            Some(Run {
                chunks: self.run_of(object, chunk, end, fills),
                is_divisible: !must_be_whole(object),
            })
        };
        let start = |fill: Arc<Fill>| {
            let filler = Arc::clone(self);
            let (object, file) = (Arc::clone(object), file.clone());
            tokio::spawn(async move { filler.run(object, file, fill).await });
        };
        object.fills().of_chunk(chunk, run, start)
    }

    /// Returns the object that takes the place of one that was evicted, or that takes too large a part of the cache. Returns
    /// `None` if the object is in the cache.
    ///
    /// # Errors
    /// The system's; the origin has another version meanwhile.
    async fn renew(
        &self,
        object: &Arc<CachedObject>,
    ) -> io::Result<Option<(Arc<CachedObject>, SharedFile)>> {
        let run_bytes = self.cache.max_run() * CHUNK_BYTES;
        let is_small = self.cache.is_small_part(object.used().bytes() + run_bytes);
        if !object.is_storable() || must_be_whole(object) || (!object.is_discarded() && is_small) {
            return Ok(None);
        }
        if object.fills().are_active() {
            // They are bounded, and end soon.
            return Ok(None);
        }
        let (cache, object) = (Arc::clone(&self.cache), Arc::clone(object));
        let renewed = tokio::task::spawn_blocking(move || {
            cache.discard(&object);
            cache.renew(&object)
        });
        let renewed = renewed.await.map_err(io::Error::other).flatten()?;
        let renewed = renewed.ok_or_else(|| io::Error::other(FetchError::Changed))?;
        Ok(Some(renewed))
    }

    /// Returns the run of missing chunks that begins with `chunk`. Chunks of other fills end it.
    fn run_of(
        &self,
        object: &CachedObject,
        chunk: u64,
        end: u64,
        fills: &[Arc<Fill>],
    ) -> Range<u64> {
        if must_be_whole(object) {
            return 0..object.chunks().chunks();
        }
        let wanted = end.div_ceil(CHUNK_BYTES).min(chunk + self.cache.max_run());
        let is_missing = |chunk: &u64| {
            let is_filled = fills.iter().any(|fill| fill.chunks().contains(chunk));
            !is_filled && !object.chunks().has(*chunk)
        };
        let after = (chunk..wanted).find(|chunk| !is_missing(chunk));
        chunk..after.unwrap_or(wanted).max(chunk + 1)
    }

    /// Runs a fill to its end.
    async fn run(self: Arc<Self>, object: Arc<CachedObject>, file: SharedFile, fill: Arc<Fill>) {
        self.counts.started.fetch_add(1, Ordering::Relaxed);
        let mut permit = None;
        let filling = self.fill(&object, &file, &fill, &mut permit);
        // A panic is logged by the hook of the program. The readers must not wait for ever.
        let filled = AssertUnwindSafe(filling).catch_unwind().await;
        let filled = filled.unwrap_or(Err(FillError::Panicked));
        match &filled {
            Ok(()) => {}
            Err(FillError::Abandoned) => {
                self.counts.abandoned.fetch_add(1, Ordering::Relaxed);
            }
            Err(FillError::Fetch(FetchError::NoRanges)) => object.mark_whole_only(),
            Err(error) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(key = ?object.key(), %error, "cannot fetch media from the origin");
                if is_of_this_version(error) {
                    object.mark_changed();
                    self.cache.discard(&object);
                }
            }
        }
        self.cache.settle(&object);
        object.fills().end(&fill, filled);
        self.cache.settle(&object);
        let cache = Arc::clone(&self.cache);
        let persist = move || {
            if let Err(error) = cache.persist(&object, &file) {
                tracing::warn!(%error, "cannot write the map of a cached object, which will be fetched again");
            }
        };
        // The permit bounds these tasks too. A panic in one is logged by the runtime's hook.
        let _ = tokio::task::spawn_blocking(persist).await;
        drop(permit);
    }

    async fn fill(
        &self,
        object: &Arc<CachedObject>,
        file: &SharedFile,
        fill: &Arc<Fill>,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), FillError> {
        *permit = Some(self.permit(fill).await?);
        let chunks = fill.chunks();
        if !object.has_validator() && object.on_disk().present() > 0 {
            // Nothing tells whether the bytes in the file are of the same version.
            return Err(FetchError::Changed.into());
        }
        let is_whole = must_be_whole(object);
        if is_whole && !self.cache.is_small_part(whole_disk_bytes(object.length())) {
            return Err(FillError::Full);
        }
        let new_bytes = chunks.clone().filter(|chunk| !object.on_disk().has(*chunk));
        let new_bytes = new_bytes.map(|chunk| object.chunk_end(chunk) - chunk * CHUNK_BYTES);
        let reserved_bytes = new_bytes.sum();
        let reservation = tokio::select! {
            reserved = timeout(FILL_WAIT, self.cache.reserve(object, reserved_bytes)) => {
                reserved.map_err(|_| FillError::Full)?
            }
            () = fill.abandoned() => return Err(FillError::Abandoned),
        };
        let range = chunks.start * CHUNK_BYTES..object.chunk_end(chunks.end - 1);
        let path = object_path(object.key());
        let requested = (!is_whole).then(|| range.clone());
        let head = object.record().head();
        let fetch = self.origin.get(&path, requested, Some(&head));
        let fetch = tokio::select! {
            fetch = fetch => fetch?,
            () = fill.abandoned() => return Err(FillError::Abandoned),
        };
        if fetch.range != range {
            let found = format!("bytes {:?} instead of {range:?}", fetch.range);
            return Err(FetchError::Invalid(found).into());
        }
        let mut begun_bytes = 0;
        let written = self
            .write(object, file, fill, fetch, &mut begun_bytes)
            .await;
        reservation.release(reserved_bytes.saturating_sub(begun_bytes));
        written
    }

    /// Waits until the fill may run.
    async fn permit(&self, fill: &Fill) -> Result<OwnedSemaphorePermit, FillError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        if self.is_busy() {
            return Err(FillError::Busy);
        }
        let _waiting = WaitingFill::new(&self.waiting);
        let permit = timeout(FILL_WAIT, Arc::clone(&self.permits).acquire_owned());
        tokio::select! {
            // The semaphore is never closed.
            permit = permit => permit.ok().and_then(Result::ok).ok_or(FillError::Busy),
            () = fill.abandoned() => Err(FillError::Abandoned),
        }
    }

    /// Writes the bytes of a response to the file, and tells the readers. Adds the bytes of chunks that take new room on
    /// disk to `begun_bytes`.
    async fn write(
        &self,
        object: &Arc<CachedObject>,
        file: &SharedFile,
        fill: &Arc<Fill>,
        fetch: Fetch,
        begun_bytes: &mut u64,
    ) -> Result<(), FillError> {
        let Fetch {
            range, mut body, ..
        } = fetch;
        let mut at = range.start;
        let mut buffer = BytesMut::new();
        // Another fill may have taken over the end of this one. The rest of the response is not read then.
        while at < range.end && at < fill.chunks().end * CHUNK_BYTES {
            let rest = range.end - at;
            // It is less work to end the fill than to begin it anew.
            let is_nearly_done = rest <= CHUNK_BYTES.max((range.end - range.start) / 8);
            let bytes = tokio::select! {
                bytes = body.next() => bytes,
                () = fill.abandoned(), if !is_nearly_done => return Err(FillError::Abandoned),
            };
            let mut next = bytes.transpose()?;
            // Further bytes that have arrived are written with it.
            while let Some(bytes) = next {
                buffer.extend_from_slice(&bytes);
                next = match body.next().now_or_never() {
                    Some(Some(bytes)) if buffer.len() < WRITE_BYTES => Some(bytes?),
                    Some(Some(bytes)) => {
                        buffer.extend_from_slice(&bytes?);
                        None
                    }
                    _ => None,
                };
            }
            if buffer.is_empty() {
                return Err(FetchError::Unavailable("the response ended early".into()).into());
            }
            let end = at + buffer.len() as u64;
            for chunk in at / CHUNK_BYTES..end.div_ceil(CHUNK_BYTES) {
                if object.on_disk().insert(chunk) {
                    *begun_bytes += object.chunk_end(chunk) - chunk * CHUNK_BYTES;
                }
            }
            buffer = write_at(object, file, buffer, at).await?;
            self.counts
                .written_bytes
                .fetch_add(end - at, Ordering::Relaxed);
            for chunk in at / CHUNK_BYTES..end.div_ceil(CHUNK_BYTES) {
                if object.chunk_end(chunk) <= end && !object.try_complete(chunk) {
                    // Readers get the last bytes of wrong content in no case.
                    verify(object, file).await?;
                    object.chunks().insert(chunk);
                }
            }
            at = end;
            fill.written(at);
        }
        Ok(())
    }
}

/// Counts one waiting fill until it is dropped.
struct WaitingFill<'a>(&'a AtomicUsize);

impl<'a> WaitingFill<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        WaitingFill(count)
    }
}

impl Drop for WaitingFill<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether an object has to be fetched by one request, from its first byte to its last.
fn must_be_whole(object: &CachedObject) -> bool {
    object.is_whole_only() || !object.has_validator()
}

/// Whether an error says that the file has bytes of another version than the origin, or wrong ones.
fn is_of_this_version(error: &FillError) -> bool {
    matches!(
        error,
        FillError::Corrupt | FillError::Fetch(FetchError::Changed | FetchError::NotFound)
    )
}

/// Writes a buffer to the file on a thread that may block, and returns the buffer empty.
async fn write_at(
    object: &Arc<CachedObject>,
    file: &SharedFile,
    mut buffer: BytesMut,
    offset: u64,
) -> Result<BytesMut, FillError> {
    let (object, file) = (Arc::clone(object), file.clone());
    let write = move || -> io::Result<BytesMut> {
        file.file().write_all_at(&buffer, offset)?;
        object.hash(&buffer, offset);
        buffer.clear();
        Ok(buffer)
    };
    on_blocking_thread(write).await
}

/// Verifies the content on a thread that may block.
async fn verify(object: &Arc<CachedObject>, file: &SharedFile) -> Result<(), FillError> {
    let (object, file) = (Arc::clone(object), file.clone());
    let is_right = on_blocking_thread(move || object.verify(file.file())).await?;
    is_right.then_some(()).ok_or(FillError::Corrupt)
}

async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, FillError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(io::Error::other).flatten();
    done.map_err(|error| FillError::Write(error.to_string()))
}
