//! Index of the cached objects by key, with a bound in bytes and in files. It evicts the least used objects.

use super::limits::CacheLimits;
use super::object::CachedObject;
use super::open_files::OpenFiles;
use millpond::store::ObjectKey;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Index of a chunk cache.
pub(super) struct Index {
    objects: Cache<ObjectKey, IndexEntry, EntryWeighter, DefaultHashBuilder, Unlinker>,
    unlinker: Unlinker,
    /// Held while an entry changes, so that an object that was removed is not inserted again.
    changing: Mutex<()>,
    /// Reserve of the index: an entry that weighs as much as a file at least.
    least_bytes: u64,
    max_bytes: Mutex<u64>,
}

/// An object with its weight. The weight of an entry must not change while the index has it.
#[derive(Debug, Clone)]
struct IndexEntry {
    object: Arc<CachedObject>,
    weight: u64,
}

impl Index {
    pub(super) fn new(limits: CacheLimits, unlinker: Unlinker) -> Self {
        // One shard, because an object may take half of the cache.
        let mut options = OptionsBuilder::new();
        let options = options
            .shards(1)
            .estimated_items_capacity(limits.max_files)
            .weight_capacity(limits.max_bytes)
            .hot_allocation(0.97)
            .build();
        let objects = match options {
            Ok(options) => Cache::with_options(
                options,
                EntryWeighter,
                DefaultHashBuilder::default(),
                unlinker.clone(),
            ),
            // Both capacities are set, which is all that the builder checks.
            Err(_) => Cache::with(
                limits.max_files,
                limits.max_bytes,
                EntryWeighter,
                DefaultHashBuilder::default(),
                unlinker.clone(),
            ),
        };
        Index {
            objects,
            unlinker,
            changing: Mutex::new(()),
            least_bytes: limits.max_bytes / (limits.max_files as u64).max(1),
            max_bytes: Mutex::new(limits.max_bytes),
        }
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<CachedObject>> {
        self.objects.get(key).map(|entry| entry.object)
    }

    /// Number of objects.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Bytes on disk of the objects.
    pub(super) fn bytes(&self) -> u64 {
        self.objects.weight()
    }

    /// Inserts an object in place of any other with its key.
    pub(super) fn replace(&self, object: &Arc<CachedObject>) {
        let _changing = self.changing.lock();
        if let Some((_, old)) = self.objects.remove(object.key()) {
            self.unlinker.unlink(&old.object);
        }
        self.insert(object, true);
    }

    /// Weighs an object anew, if the index has it.
    pub(super) fn reweigh(&self, object: &Arc<CachedObject>) {
        let _changing = self.changing.lock();
        if !object.is_discarded() {
            self.insert(object, false);
        }
    }

    /// Removes an object, if the index has it.
    pub(super) fn remove(&self, object: &Arc<CachedObject>) {
        let _changing = self.changing.lock();
        let is_it = |entry: &IndexEntry| Arc::ptr_eq(&entry.object, object);
        self.objects.remove_if(object.key(), is_it);
        self.unlinker.unlink(object);
    }

    /// Removes the objects for which `is_purged` returns true. Returns their number.
    pub(super) fn purge(&self, is_purged: impl Fn(&ObjectKey) -> bool) -> usize {
        let objects = self.objects();
        let purged = objects.iter().filter(|object| is_purged(object.key()));
        purged.map(|object| self.remove(object)).count()
    }

    pub(super) fn objects(&self) -> Vec<Arc<CachedObject>> {
        self.objects.iter().map(|(_, entry)| entry.object).collect()
    }

    /// Sets the maximum bytes of the objects, and evicts those beyond.
    pub(super) fn set_max_bytes(&self, max_bytes: u64) {
        let mut current = self.max_bytes.lock();
        if *current != max_bytes {
            *current = max_bytes;
            self.objects.set_capacity(max_bytes.max(1));
        }
    }

    fn insert(&self, object: &Arc<CachedObject>, is_new: bool) {
        let entry = IndexEntry {
            object: Arc::clone(object),
            weight: object.used().bytes().max(self.least_bytes),
        };
        let key = object.key();
        let evicted = match is_new {
            true => self.objects.insert_with_lifecycle(key.clone(), entry),
            // A fill is no use of the object.
            false => match self
                .objects
                .replace_with_lifecycle(key.clone(), entry, true)
            {
                Ok(evicted) => evicted,
                // It was evicted, or takes too large a part of the cache.
                Err(_) => return self.unlinker.unlink(object),
            },
        };
        // The cache reports the entry that the new one replaces, too.
        let is_kept = self
            .objects
            .peek(key)
            .is_some_and(|entry| Arc::ptr_eq(&entry.object, object));
        for evicted in evicted {
            if !(is_kept && Arc::ptr_eq(&evicted, object)) {
                self.unlinker.unlink(&evicted);
            }
        }
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("objects", &self.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct EntryWeighter;

impl Weighter<ObjectKey, IndexEntry> for EntryWeighter {
    fn weight(&self, _key: &ObjectKey, entry: &IndexEntry) -> u64 {
        entry.weight
    }
}

/// Removes the files of objects that the index has let go of.
#[derive(Debug, Clone)]
pub(super) struct Unlinker {
    folder: Arc<Path>,
    open_files: OpenFiles,
}

impl Unlinker {
    pub(super) fn new(folder: &Path, open_files: OpenFiles) -> Self {
        Unlinker {
            folder: folder.into(),
            open_files,
        }
    }

    /// Removes the file of an object, once. Readers that have it open keep it.
    fn unlink(&self, object: &CachedObject) {
        if !object.mark_discarded() {
            return;
        }
        self.open_files.remove(object.id());
        let path: PathBuf = self.folder.join(object.file_name());
        let unlink = move || match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::error!(path = %path.display(), %error, "cannot remove a file of the cache");
            }
            _ => {}
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(unlink)),
            Err(_) => unlink(),
        }
    }
}

impl Lifecycle<ObjectKey, IndexEntry> for Unlinker {
    type RequestState = Vec<Arc<CachedObject>>;

    fn begin_request(&self) -> Self::RequestState {
        Vec::new()
    }

    /// An object that is being filled stays, since its bytes would be fetched again.
    fn is_pinned(&self, _key: &ObjectKey, entry: &IndexEntry) -> bool {
        entry.object.fills().are_active()
    }

    fn on_evict(&self, state: &mut Self::RequestState, _key: ObjectKey, entry: IndexEntry) {
        state.push(entry.object);
    }

    fn end_request(&self, state: Self::RequestState) {
        for object in state {
            self.unlink(&object);
        }
    }
}
