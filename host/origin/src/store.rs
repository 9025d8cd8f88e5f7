//! The media store over an origin.

use crate::cache::object::CachedObject;
use crate::cache::{CacheLimits, ChunkCache};
use crate::fetch::FetchError;
use crate::fill::Filler;
use crate::fill::progress::FillError;
use crate::fill::range_reader::PartialObject;
use crate::freshness::{FreshnessDefaults, FreshnessState};
use crate::listing;
use crate::lookup::{LookupError, Lookups, MISSING_BYTES};
use crate::origin::Origin;
use millpond::ledger::LedgerHandle;
use millpond::store::{
    CacheUsage, ForwardReason, ListQuery, Listing, MediaObject, MediaStore, ObjectKey, OpenError,
    OriginCacheStatus, SharedFile,
};
use millpond_format::names;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Media in object storage or at an HTTP origin, with a cache on disk.
///
/// Objects have the paths of a folder: media by name at its name, and media by content at `<ab>/<id>` with its record at
/// `<ab>/<id>.json`. The cache fetches the chunks of 1 MiB that a response needs. Requests for the same chunk share one
/// request to the origin. An object whose bytes are in the cache is served as a file of a folder is.
///
/// Named objects have no variants here. To look for them would take further requests to the origin.
///
/// Clones share the cache.
#[derive(Clone)]
pub struct OriginStore(Arc<OriginStoreState>);

pub(crate) struct OriginStoreState {
    pub(crate) origin: Origin,
    pub(crate) cache: Arc<ChunkCache>,
    pub(crate) filler: Arc<Filler>,
    pub(crate) lookups: Arc<Lookups>,
    /// Objects that are being warmed, by key, with the error of a fill that failed.
    pub(crate) warmed: Mutex<BTreeMap<String, Option<FillError>>>,
    limits: OriginLimits,
    listings: Semaphore,
    /// Number of opens and listings that wait for the origin.
    waiting: AtomicUsize,
    /// Maximum number of them. Each occupies an instance.
    max_waiting: AtomicUsize,
}

/// Limits of a store over an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginLimits {
    /// Bounds of the cache on disk.
    pub cache: CacheLimits,
    /// Maximum number of fills at a time, each with a connection to the origin.
    pub fills: usize,
}

/// Memory of a fill, in bytes: the buffers of its connection, in the process and in the kernel, and of its writes.
const FILL_BYTES: usize = 1024 * 1024;

/// Memory of a request for metadata, in bytes: its head, and a connection's buffers.
const LOOKUP_BYTES: usize = 192 * 1024;

/// Maximum time that a request waits for a revalidation if a stale object may be served.
const STALE_WAIT: Duration = Duration::from_secs(1);

/// Time after a failed revalidation in which a stale object is served without another one.
const REVALIDATION_PAUSE: Duration = Duration::from_secs(5);

/// Maximum number of folders that are listed at the same time.
const LISTINGS: usize = 2;

impl OriginStore {
    /// Opens the cache in `folder`, for media at `origin`. Reads the record of each cached file, and blocks on the disk.
    ///
    /// # Errors
    /// The system's; others can write to the folder.
    pub fn open(
        origin: Origin,
        folder: &Path,
        limits: OriginLimits,
        defaults: FreshnessDefaults,
    ) -> io::Result<Self> {
        let cache = Arc::new(ChunkCache::open(folder, limits.cache, &defaults)?);
        let filler = Filler::new(origin.clone(), Arc::clone(&cache), limits.fills);
        let lookups = Lookups::new(origin.clone(), Arc::clone(&cache), defaults);
        Ok(OriginStore(Arc::new(OriginStoreState {
            origin,
            cache,
            filler,
            lookups,
            warmed: Mutex::default(),
            limits,
            listings: Semaphore::new(LISTINGS),
            waiting: AtomicUsize::new(0),
            max_waiting: AtomicUsize::new(usize::MAX),
        })))
    }

    pub(crate) fn state(&self) -> &Arc<OriginStoreState> {
        &self.0
    }
}

impl OriginStoreState {
    /// Counts an open or a listing that is about to wait for the origin. An origin that hangs must leave instances to other
    /// requests.
    ///
    /// # Errors
    /// [`OpenError::Busy`], if as many wait as may.
    fn begin_wait(&self) -> Result<OriginWait<'_>, OpenError> {
        let wait = OriginWait(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.max_waiting.load(Ordering::Relaxed)
        {
            return Err(OpenError::Busy(io::Error::other(
                "too many requests wait for the origin",
            )));
        }
        Ok(wait)
    }

    /// Returns an object that may be served, and its file.
    pub(crate) async fn find(
        &self,
        key: &ObjectKey,
    ) -> Result<(Arc<CachedObject>, SharedFile), LookupError> {
        if !is_served(key) {
            return Err(FetchError::NotFound.into());
        }
        let known = self.cache.get(key);
        if let Some(object) = known.as_ref().filter(|object| is_usable(self, object))
            && let Ok(file) = self.file(object).await
        {
            return Ok((Arc::clone(object), file));
        }
        let (found, _) = self.lookups.look_up(key, known.as_ref()).await;
        found.map(|found| (found.object, found.file))
    }

    /// Opens the file of an object in the cache, which may block on the disk.
    async fn file(&self, object: &Arc<CachedObject>) -> io::Result<SharedFile> {
        if let Some(file) = self.cache.try_file(object) {
            return Ok(file);
        }
        let (cache, opened) = (Arc::clone(&self.cache), Arc::clone(object));
        let file = tokio::task::spawn_blocking(move || cache.file(&opened));
        file.await.map_err(io::Error::other).flatten()
    }

    /// Returns a stale object to a request, because the origin fails. It is revalidated again after a while.
    async fn stale_object(
        &self,
        stale: Option<&Arc<CachedObject>>,
        ledger: &LedgerHandle,
    ) -> Result<MediaObject, OpenError> {
        let object = stale.ok_or(OpenError::NotFound)?;
        object.defer_revalidation(REVALIDATION_PAUSE);
        let file = self.file(object).await.map_err(OpenError::Failed)?;
        self.object((object, &file), (None, false), ledger)
    }

    /// Returns an object to a request.
    fn object(
        &self,
        (object, file): (&Arc<CachedObject>, &SharedFile),
        (forward, is_collapsed): (Option<ForwardReason>, bool),
        ledger: &LedgerHandle,
    ) -> Result<MediaObject, OpenError> {
        let age_and_ttl = object.age_and_ttl();
        let status = OriginCacheStatus {
            forward,
            collapsed: is_collapsed,
            stored: forward.is_some() && object.is_storable(),
            ttl_seconds: age_and_ttl.map(|(_, ttl)| ttl),
            age: age_and_ttl.map(|(age, _)| age),
        };
        if object.chunks().is_whole() {
            return Ok(MediaObject::from_shared_file(file, Some(status), ledger)?);
        }
        let partial = PartialObject {
            filler: Arc::clone(&self.filler),
            object: Arc::clone(object),
            file: file.clone(),
        };
        Ok(MediaObject::from_partial_file(
            file, partial, status, ledger,
        )?)
    }
}

impl MediaStore for OriginStore {
    async fn open(&self, key: &ObjectKey, ledger: &LedgerHandle) -> Result<MediaObject, OpenError> {
        let state = &*self.0;
        if !is_served(key) || state.lookups.is_known_missing(key) {
            return Err(OpenError::NotFound);
        }
        let known = state.cache.get(key);
        if let Some(object) = &known
            && is_usable(state, object)
            && let Ok(file) = state.file(object).await
        {
            return state.object((object, &file), (None, false), ledger);
        }
        let known = known.filter(|object| !object.is_discarded());
        let may_be_stale = |object: &&Arc<CachedObject>| {
            let state = object.freshness_state();
            matches!(state, FreshnessState::Stale { if_error: true, .. })
        };
        let stale = known.as_ref().filter(may_be_stale);
        let _wait = match (state.begin_wait(), stale) {
            (Ok(wait), _) => wait,
            (Err(_), Some(_)) => return state.stale_object(stale, ledger).await,
            (Err(busy), None) => return Err(busy),
        };
        let looked_up = state.lookups.look_up(key, known.as_ref());
        let looked_up = match stale {
            None => Some(looked_up.await),
            Some(_) => timeout(STALE_WAIT, looked_up).await.ok(),
        };
        let Some((found, is_collapsed)) = looked_up else {
            return state.stale_object(stale, ledger).await;
        };
        match found {
            Ok(found) => {
                let forward = match (&known, found.is_revalidated) {
                    (Some(_), true) => ForwardReason::Stale,
                    (Some(_), false) => ForwardReason::Miss,
                    (None, _) => ForwardReason::UriMiss,
                };
                let forwarded = (Some(forward), is_collapsed);
                state.object((&found.object, &found.file), forwarded, ledger)
            }
            Err(error) if stale.is_some() && is_failure(&error) => {
                state.stale_object(stale, ledger).await
            }
            Err(error) => Err(open_error(error)),
        }
    }

    fn try_open(
        &self,
        key: &ObjectKey,
        ledger: &LedgerHandle,
    ) -> Option<Result<MediaObject, OpenError>> {
        let state = &*self.0;
        if !is_served(key) || state.lookups.is_known_missing(key) {
            return Some(Err(OpenError::NotFound));
        }
        let object = state.cache.get(key)?;
        if !is_usable(state, &object) {
            return None;
        }
        let file = state.cache.try_file(&object)?;
        Some(state.object((&object, &file), (None, false), ledger))
    }

    async fn list(
        &self,
        folder: &str,
        query: &ListQuery,
        ledger: &LedgerHandle,
    ) -> Result<Listing, OpenError> {
        if !folder.is_empty() && !names::is_served(folder) {
            return Err(OpenError::NotFound);
        }
        let state = &*self.0;
        let _wait = state.begin_wait()?;
        let permit = state.listings.acquire().await;
        let _permit = permit.map_err(|closed| OpenError::Failed(io::Error::other(closed)))?;
        listing::list(&state.origin, folder, query, ledger).await
    }

    fn cache_usage(&self) -> CacheUsage {
        let state = &*self.0;
        let mut usage = CacheUsage::default();
        let work_bytes = state.filler.active() * FILL_BYTES;
        usage.used_bytes = state.cache.memory_bytes() + state.lookups.memory_bytes() + work_bytes;
        usage.max_bytes = OriginStore::memory_bytes(state.limits);
        usage
    }

    fn limit_waiting(&self, opens: usize) {
        self.0.max_waiting.store(opens, Ordering::Relaxed);
    }
}

/// Counts one wait for the origin until it is dropped.
struct OriginWait<'a>(&'a AtomicUsize);

impl Drop for OriginWait<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl OriginStore {
    /// Returns the maximum memory of a store with these limits, in bytes: the index of the cache, the open files, and all
    /// fills and lookups.
    #[must_use]
    pub fn memory_bytes(limits: OriginLimits) -> usize {
        ChunkCache::max_memory_bytes(limits.cache)
            + limits.fills * FILL_BYTES
            + crate::lookup::LOOKUPS * LOOKUP_BYTES
            + MISSING_BYTES
    }
}

impl std::fmt::Debug for OriginStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OriginStore")
            .field("origin", &self.0.origin)
            .field("cache", &self.0.cache)
            .finish_non_exhaustive()
    }
}

/// Whether an object may be served without its origin. Revalidates it beside if it is stale.
fn is_usable(state: &OriginStoreState, object: &Arc<CachedObject>) -> bool {
    match object.freshness_state() {
        FreshnessState::Fresh => true,
        FreshnessState::Stale { if_error, .. } if if_error && object.is_revalidation_deferred() => {
            true
        }
        FreshnessState::Stale {
            while_revalidate, ..
        } => {
            if while_revalidate {
                state.lookups.revalidate(object);
            }
            while_revalidate
        }
    }
}

/// Whether a key is one that a folder would serve.
fn is_served(key: &ObjectKey) -> bool {
    match key {
        ObjectKey::Content(_) => true,
        ObjectKey::Named(name) => names::is_served(name),
    }
}

/// Whether the origin failed, so that it says nothing of the object.
fn is_failure(error: &LookupError) -> bool {
    match error {
        LookupError::Fetch(error) => !matches!(error, FetchError::NotFound),
        LookupError::Cache(_) | LookupError::Busy => true,
    }
}

fn open_error(error: LookupError) -> OpenError {
    match error {
        LookupError::Fetch(FetchError::NotFound) => OpenError::NotFound,
        // A client may try again.
        LookupError::Fetch(FetchError::Unavailable(_)) | LookupError::Busy => {
            OpenError::Busy(io::Error::other(error))
        }
        LookupError::Fetch(_) | LookupError::Cache(_) => OpenError::Failed(io::Error::other(error)),
    }
}
