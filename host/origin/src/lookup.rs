//! Lookups: requests for the metadata of objects. Equal ones at the same time share one.

use crate::cache::ChunkCache;
use crate::cache::object::CachedObject;
use crate::cache::object_record::{FIELD_BYTES, ObjectRecord};
use crate::fetch::{FetchError, HeadResponse, ObjectHead};
use crate::freshness::{Freshness, FreshnessDefaults};
use crate::object_path::{object_path, record_path};
use crate::origin::Origin;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use millpond::store::{ObjectKey, SharedFile};
use millpond_format::{RECORD_BYTES, Record};
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Looks up objects at the origin.
pub(crate) struct Lookups {
    origin: Origin,
    cache: Arc<ChunkCache>,
    defaults: FreshnessDefaults,
    /// Lookups in progress, one a key.
    in_progress: Mutex<HashMap<ObjectKey, SharedLookup>>,
    missing: Cache<ObjectKey, Instant, MissingWeighter>,
    permits: Arc<Semaphore>,
    failed: AtomicU64,
}

/// Maximum number of requests for metadata at the same time. They have no content, so that they are short.
pub(crate) const LOOKUPS: usize = 16;

/// Maximum number of lookups that run or wait. Each has a request that waits, which counts among the instances.
const WAITING_LOOKUPS: usize = 1024;

/// Maximum time of a lookup. It is shorter than that of a response, so that the client learns the reason.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(8);

/// Maximum memory of the keys of missing objects, in bytes.
pub(crate) const MISSING_BYTES: usize = 64 * 1024;

/// Object that a lookup has found.
#[derive(Debug, Clone)]
pub(crate) struct FetchedObject {
    pub(crate) object: Arc<CachedObject>,
    pub(crate) file: SharedFile,
    /// Whether the object is the one that was revalidated.
    pub(crate) is_revalidated: bool,
}

/// The error of a lookup.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LookupError {
    /// The origin failed, or has no such object.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The cache could not be written.
    #[error("cannot write the cache: {0}")]
    Cache(Arc<io::Error>),
    /// Too many lookups run.
    #[error("too many lookups at the origin")]
    Busy,
}

type LookupResult = Result<FetchedObject, LookupError>;
type SharedLookup = Shared<BoxFuture<'static, LookupResult>>;

impl Lookups {
    pub(crate) fn new(
        origin: Origin,
        cache: Arc<ChunkCache>,
        defaults: FreshnessDefaults,
    ) -> Arc<Self> {
        /// Expected number of keys, at 128 bytes each.
        const MISSING: usize = MISSING_BYTES / 128;
        Arc::new(Lookups {
            origin,
            cache,
            defaults,
            in_progress: Mutex::default(),
            missing: Cache::with_weighter(MISSING, MISSING_BYTES as u64, MissingWeighter),
            permits: Arc::new(Semaphore::new(LOOKUPS)),
            failed: AtomicU64::new(0),
        })
    }

    /// Returns whether the origin had no such object a short while ago.
    pub(crate) fn is_known_missing(&self, key: &ObjectKey) -> bool {
        let missing = self.missing.get(key);
        missing.is_some_and(|since| since.elapsed() < self.defaults.negative_ttl)
    }

    /// Number of lookups that the origin failed, since the start.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Forgets the keys of missing objects.
    pub(crate) fn forget_missing(&self) {
        self.missing.clear();
    }

    /// Memory of the keys of missing objects, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        usize::try_from(self.missing.weight()).unwrap_or(usize::MAX)
    }

    /// Looks up an object, or revalidates `known`. Returns whether another request began the lookup, too. It goes on if all
    /// who wait for it leave.
    ///
    /// # Errors
    /// [`LookupError`].
    pub(crate) async fn look_up(
        self: &Arc<Self>,
        key: &ObjectKey,
        known: Option<&Arc<CachedObject>>,
    ) -> (LookupResult, bool) {
        let (lookup, is_collapsed) = match self.begin(key, known) {
            Ok(begun) => begun,
            Err(error) => return (Err(error), false),
        };
        (lookup.await, is_collapsed)
    }

    /// Revalidates an object, and does not wait for the result.
    pub(crate) fn revalidate(self: &Arc<Self>, known: &Arc<CachedObject>) {
        // An object that cannot be revalidated now is so at its next use.
        let _ = self.begin(known.key(), Some(known));
    }

    fn begin(
        self: &Arc<Self>,
        key: &ObjectKey,
        known: Option<&Arc<CachedObject>>,
    ) -> Result<(SharedLookup, bool), LookupError> {
        let mut in_progress = self.in_progress.lock();
        if let Some(lookup) = in_progress.get(key) {
            return Ok((lookup.clone(), true));
        }
        if in_progress.len() >= WAITING_LOOKUPS {
            return Err(LookupError::Busy);
        }
        let (lookups, key_of_task, known) = (Arc::clone(self), key.clone(), known.cloned());
        let lookup = tokio::spawn(async move {
            let _in_progress = LookupInProgress {
                lookups: &lookups,
                key: &key_of_task,
            };
            lookups.run(&key_of_task, known).await
        });
        let lookup = lookup.map(|joined| {
            let failed = |error| LookupError::Cache(Arc::new(io::Error::other(error)));
            joined.map_err(failed)?
        });
        let lookup = lookup.boxed().shared();
        in_progress.insert(key.clone(), lookup.clone());
        Ok((lookup, false))
    }

    async fn run(&self, key: &ObjectKey, known: Option<Arc<CachedObject>>) -> LookupResult {
        let found = timeout(LOOKUP_TIMEOUT, async {
            // The semaphore is never closed.
            let _permit = self
                .permits
                .acquire()
                .await
                .map_err(|_| LookupError::Busy)?;
            match key {
                ObjectKey::Content(_) => self.content(key).await,
                ObjectKey::Named(_) => self.named(key, known.as_ref()).await,
            }
        });
        let found = found.await.unwrap_or_else(|_| {
            let late = format!("no metadata within {LOOKUP_TIMEOUT:?}");
            Err(FetchError::Unavailable(late).into())
        });
        if let Err(LookupError::Fetch(error)) = &found
            && !matches!(error, FetchError::NotFound)
        {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(LookupError::Fetch(FetchError::NotFound)) = &found {
            self.missing.insert(key.clone(), Instant::now());
            if let Some(known) = &known {
                known.mark_changed();
                self.cache.discard(known);
            }
        }
        found
    }

    async fn named(&self, key: &ObjectKey, known: Option<&Arc<CachedObject>>) -> LookupResult {
        let path = object_path(key);
        let validators = known
            .filter(|known| known.has_validator())
            .map(|known| known.record().head().validators);
        let head = match self.origin.head(&path, validators.as_ref()).await? {
            HeadResponse::Found(head) => head,
            HeadResponse::NotModified(fields) => {
                let Some(known) = known else {
                    return Err(FetchError::Invalid("304 without a condition".into()).into());
                };
                known.freshen(&fields, &self.defaults);
                return self.opened(known).await;
            }
        };
        check_head(&head)?;
        if let Some(known) = known
            && known.has_validator()
            && known
                .record()
                .is_same_version(&ObjectRecord::new(key, &head, None))
        {
            known.freshen(&head.freshness, &self.defaults);
            return self.opened(known).await;
        }
        let freshness = Freshness::of(&head.freshness, &self.defaults);
        self.created(ObjectRecord::new(key, &head, None), freshness)
            .await
    }

    /// Looks up media by content. Its record and its content are requested at the same time.
    async fn content(&self, key: &ObjectKey) -> LookupResult {
        let ObjectKey::Content(id) = key else {
            return Err(FetchError::NotFound.into());
        };
        let (record_path, path) = (record_path(id), object_path(key));
        let record = self.origin.read(&record_path, RECORD_BYTES);
        let head = self.origin.head(&path, None);
        let (record, head) = futures_util::future::try_join(record, head).await?;
        let HeadResponse::Found(head) = head else {
            return Err(FetchError::Invalid("304 without a condition".into()).into());
        };
        check_head(&head)?;
        // A corrupt record is as none, as in a folder.
        let record = Record::parse(&record).ok_or(FetchError::NotFound)?;
        if record.size != head.length {
            return Err(FetchError::NotFound.into());
        }
        let record = ObjectRecord::new(key, &head, Some(record));
        self.created(record, Freshness::immutable()).await
    }

    async fn created(&self, record: ObjectRecord, freshness: Freshness) -> LookupResult {
        let cache = Arc::clone(&self.cache);
        let created = tokio::task::spawn_blocking(move || cache.create(record, freshness));
        let created = created.await.map_err(io::Error::other).flatten();
        let (object, file) = created.map_err(|error| LookupError::Cache(Arc::new(error)))?;
        Ok(FetchedObject {
            object,
            file,
            is_revalidated: false,
        })
    }

    async fn opened(&self, object: &Arc<CachedObject>) -> LookupResult {
        let (cache, opened) = (Arc::clone(&self.cache), Arc::clone(object));
        let file = tokio::task::spawn_blocking(move || cache.file(&opened));
        let file = file.await.map_err(io::Error::other).flatten();
        let file = file.map_err(|error| LookupError::Cache(Arc::new(error)))?;
        Ok(FetchedObject {
            object: Arc::clone(object),
            file,
            is_revalidated: true,
        })
    }
}

/// Entry of a lookup, which is removed at its end, also if that is a panic.
struct LookupInProgress<'a> {
    lookups: &'a Lookups,
    key: &'a ObjectKey,
}

impl Drop for LookupInProgress<'_> {
    fn drop(&mut self) {
        self.lookups.in_progress.lock().remove(self.key);
    }
}

/// Checks that the metadata fit into the cache.
///
/// # Errors
/// [`FetchError::Invalid`].
fn check_head(head: &ObjectHead) -> Result<(), FetchError> {
    /// Maximum length of an object, in bytes: a bitmap of 128 KiB.
    const OBJECT_MAX_BYTES: u64 = 1 << 40;
    if head.length > OBJECT_MAX_BYTES {
        return Err(FetchError::Invalid(format!(
            "{} bytes are too many",
            head.length
        )));
    }
    let entity_tag = head.validators.entity_tag.as_ref();
    if entity_tag.is_some_and(|entity_tag| entity_tag.len() > FIELD_BYTES) {
        return Err(FetchError::Invalid("the entity tag is too long".into()));
    }
    Ok(())
}

#[derive(Clone)]
struct MissingWeighter;

impl Weighter<ObjectKey, Instant> for MissingWeighter {
    fn weight(&self, key: &ObjectKey, _since: &Instant) -> u64 {
        let name = match key {
            ObjectKey::Content(_) => 0,
            ObjectKey::Named(name) => name.capacity(),
        };
        // Includes the entry of the cache.
        (3 * size_of::<ObjectKey>() + name) as u64
    }
}
