//! Operations on a cache: figures, a list of its objects, purging and warming.

use crate::cache::DiskCacheUsage;
use crate::cache::object::CachedObject;
use crate::fill::progress::FillError;
use crate::freshness::FreshnessState;
use crate::lookup::LookupError;
use crate::store::{OriginStore, OriginStoreState};
use millpond::store::{ObjectKey, SharedFile};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

/// Objects to remove from a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// The object of a key.
    Key(ObjectKey),
    /// All named objects whose names begin with a text.
    Prefix(String),
    /// All objects.
    All,
}

/// Figures of an origin and its cache, since the start where they are counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OriginFigures {
    /// The cache on disk.
    #[serde(flatten)]
    pub usage: DiskCacheUsage,
    /// Requests for metadata that the origin failed.
    pub lookups_failed: u64,
    /// Fills in progress.
    pub fills_in_progress: usize,
    /// Fills that were started.
    pub fills_started: u64,
    /// Fills that failed.
    pub fills_failed: u64,
    /// Fills that ended because no reader was left.
    pub fills_abandoned: u64,
    /// Bytes that were written to the cache.
    pub written_bytes: u64,
    /// Requests to the origin.
    pub origin_requests: u64,
    /// Bytes of content that the origin sent.
    pub origin_bytes: u64,
}

/// An object of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CachedObjectInfo {
    /// Name, or content id.
    pub key: String,
    /// Length, in bytes.
    pub length: u64,
    /// Bytes of it that the cache has.
    pub cached_bytes: u64,
    /// Entity tag at the origin.
    pub entity_tag: Option<String>,
    /// Whether it is fresh.
    pub is_fresh: bool,
    /// Remaining freshness lifetime, in seconds. `None` if it never goes stale.
    pub ttl_seconds: Option<i64>,
    /// Time of its arrival, in seconds since the epoch.
    pub stored_at: u64,
}

/// Maximum number of objects that are warmed at the same time.
const WARMED_OBJECTS: usize = 4;

/// State of warming an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WarmState {
    /// Length of the object, in bytes.
    pub length: u64,
    /// Bytes that the cache lacks. With some, they are being fetched.
    pub missing_bytes: u64,
}

/// The error of warming an object.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WarmError {
    /// The origin has no such object.
    #[error("the origin has no such object")]
    NotFound,
    /// As many objects are warmed as may be at a time.
    #[error("{WARMED_OBJECTS} objects are being fetched already")]
    Busy,
    /// The origin or the cache failed.
    #[error("{0}")]
    Failed(String),
}

impl OriginStore {
    /// Returns the figures of the origin and its cache.
    #[must_use]
    pub fn figures(&self) -> OriginFigures {
        let state = self.state();
        let counts = state.filler.counts();
        let origin = state.origin.counts();
        OriginFigures {
            usage: state.cache.usage(),
            lookups_failed: state.lookups.failed(),
            fills_in_progress: state.filler.active(),
            fills_started: counts.started.load(Ordering::Relaxed),
            fills_failed: counts.failed.load(Ordering::Relaxed),
            fills_abandoned: counts.abandoned.load(Ordering::Relaxed),
            written_bytes: counts.written_bytes.load(Ordering::Relaxed),
            origin_requests: origin.requests,
            origin_bytes: origin.received_bytes,
        }
    }

    /// Returns objects of the cache whose keys begin with `prefix` and come after `after`, in order of their keys: `max` at
    /// most.
    #[must_use]
    pub fn objects(&self, prefix: &str, after: Option<&str>, max: usize) -> Vec<CachedObjectInfo> {
        let mut found = BTreeMap::new();
        for object in self.state().cache.objects() {
            let key = key_text(object.key());
            if key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after) {
                found.insert(key, object);
                if found.len() > max {
                    found.pop_last();
                }
            }
        }
        found
            .into_iter()
            .map(|(key, object)| described(key, &object))
            .collect()
    }

    /// Removes objects from the cache. Responses in progress go on. Returns their number.
    pub fn purge(&self, purge: &Purge) -> usize {
        let state = self.state();
        state.lookups.forget_missing();
        state.cache.purge(|key| match purge {
            Purge::Key(purged) => key == purged,
            Purge::Prefix(prefix) => {
                matches!(key, ObjectKey::Named(name) if name.starts_with(prefix.as_str()))
            }
            Purge::All => true,
        })
    }

    /// Fetches all bytes of an object that the cache lacks, without waiting for them.
    ///
    /// # Errors
    /// [`WarmError`].
    pub async fn warm(&self, key: &ObjectKey) -> Result<WarmState, WarmError> {
        let state = Arc::clone(self.state());
        let text = key_text(key);
        let (object, file) = state.find(key).await.map_err(|error| match error {
            LookupError::Fetch(crate::fetch::FetchError::NotFound) => WarmError::NotFound,
            LookupError::Busy => WarmError::Busy,
            error => WarmError::Failed(error.to_string()),
        })?;
        let warm_state = WarmState {
            length: object.length(),
            missing_bytes: object.length() - object.chunks().present_bytes(),
        };
        {
            let mut warmed = state.warmed.lock();
            if warmed.len() >= WARMED_OBJECTS && !warmed.contains_key(&text) {
                // Nobody has asked for these errors.
                warmed.retain(|_, error| error.is_none());
            }
            match warmed.get(&text) {
                Some(None) => return Ok(warm_state),
                Some(Some(error)) => {
                    let error = error.to_string();
                    warmed.remove(&text);
                    return Err(WarmError::Failed(error));
                }
                None if warm_state.missing_bytes == 0 => return Ok(warm_state),
                None if warmed.len() >= WARMED_OBJECTS => return Err(WarmError::Busy),
                None => warmed.insert(text.clone(), None),
            };
        }
        tokio::spawn(async move {
            let filled = fill_all(&state, &object, &file).await;
            let mut warmed = state.warmed.lock();
            match filled {
                Ok(()) => drop(warmed.remove(&text)),
                // The next request for the object tells it.
                Err(error) => drop(warmed.insert(text, Some(error))),
            }
        });
        Ok(warm_state)
    }
}

/// Fetches all missing chunks of an object, run by run.
async fn fill_all(
    state: &OriginStoreState,
    object: &Arc<CachedObject>,
    file: &SharedFile,
) -> Result<(), FillError> {
    for chunk in 0..object.chunks().chunks() {
        while !object.chunks().has(chunk) {
            let end = object.length();
            let Some(fill) = state.filler.follow(object, file, chunk, end) else {
                continue;
            };
            fill.ended().await?;
        }
    }
    Ok(())
}

fn described(key: String, object: &CachedObject) -> CachedObjectInfo {
    let record = object.record();
    let stored_at = record.stored.duration_since(UNIX_EPOCH).unwrap_or_default();
    CachedObjectInfo {
        key,
        length: object.length(),
        cached_bytes: object.chunks().present_bytes(),
        entity_tag: record.entity_tag.clone(),
        is_fresh: object.freshness_state() == FreshnessState::Fresh,
        ttl_seconds: object.age_and_ttl().map(|(_, ttl)| ttl),
        stored_at: stored_at.as_secs(),
    }
}

fn key_text(key: &ObjectKey) -> String {
    match key {
        ObjectKey::Content(id) => id.to_string(),
        ObjectKey::Named(name) => name.clone(),
    }
}
