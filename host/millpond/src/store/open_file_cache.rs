//! Open file cache: objects of a folder that stay open between requests.
//!
//! A cached object is validated before use: the versions of its files and folders must be the same as when it was
//! opened. A validation is valid for a configured time, in which a change may go unnoticed. Keys of missing objects are
//! cached for the same time.

use super::beneath_dir::BeneathDir;
use super::file_slice::MediaFile;
use super::object_info::{ObjectInfo, ObjectKey};
use super::version::FileVersion;
use millpond_ledger::process;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Maximum memory of the cached objects, in bytes.
pub(super) const OPEN_FILE_CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Maximum memory of the cached keys of missing objects, in bytes.
pub(super) const NEGATIVE_CACHE_BYTES: usize = 64 * 1024;

/// Maximum number of cached objects, each with an open file. A low limit of open files lowers it.
const OPEN_FILE_CACHE_FILES: usize = 1024;

/// Reciprocal of the share of the process's open files that the cache may take.
pub(crate) const OPEN_FILE_CACHE_SHARE: usize = 8;

/// Open file cache of one folder.
pub(super) struct OpenFileCache {
    objects: Cache<ObjectKey, Arc<CachedFile>, FileWeighter>,
    /// Keys of missing objects, with the time of the lookup in nanoseconds since `since`.
    missing: Cache<ObjectKey, u64, NegativeWeighter>,
    /// Time for which a validation is valid, in nanoseconds.
    valid_ns: AtomicU64,
    since: Instant,
}

/// A cached object, with the versions that it depends on.
#[derive(Debug)]
pub(super) struct CachedFile {
    pub(super) file: Arc<MediaFile>,
    pub(super) info: Arc<ObjectInfo>,
    /// Paths and their versions when the object was opened.
    pub(super) versions: Vec<(PathBuf, FileVersion)>,
    /// Time of the last validation, in nanoseconds since [`OpenFileCache::since`].
    checked_ns: AtomicU64,
}

impl CachedFile {
    pub(super) fn new(
        file: Arc<MediaFile>,
        info: Arc<ObjectInfo>,
        versions: Vec<(PathBuf, FileVersion)>,
    ) -> Self {
        CachedFile {
            file,
            info,
            versions,
            checked_ns: AtomicU64::new(0),
        }
    }

    /// Returns whether every path still has its version.
    fn is_unchanged(&self, root: &BeneathDir) -> bool {
        let mut versions = self.versions.iter();
        versions.all(|(path, version)| root.try_version(path).as_ref() == Some(version))
    }

    fn bytes(&self) -> usize {
        let paths = self.versions.iter().map(|(path, _)| path.capacity());
        let versions =
            self.versions.capacity() * size_of::<(PathBuf, FileVersion)>() + paths.sum::<usize>();
        size_of::<Self>() + self.file.cached_bytes() + self.info.held_bytes() + versions
    }
}

/// Weigher of cached files. Each weighs at least its part of the cache, so that the limit by memory is also one by
/// number.
#[derive(Clone)]
struct FileWeighter {
    least: u64,
}

impl Weighter<ObjectKey, Arc<CachedFile>> for FileWeighter {
    fn weight(&self, key: &ObjectKey, object: &Arc<CachedFile>) -> u64 {
        // Includes the entry of the cache.
        let bytes = 2 * size_of::<ObjectKey>() + key.held_bytes() + object.bytes();
        self.least.max(bytes as u64)
    }
}

#[derive(Clone)]
struct NegativeWeighter;

impl Weighter<ObjectKey, u64> for NegativeWeighter {
    fn weight(&self, key: &ObjectKey, _looked_ns: &u64) -> u64 {
        // Includes the entry of the cache.
        (3 * size_of::<ObjectKey>() + key.held_bytes()) as u64
    }
}

impl std::fmt::Debug for OpenFileCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFileCache")
            .field("objects", &self.objects.len())
            .field("recheck_ns", &self.valid_ns)
            .finish_non_exhaustive()
    }
}

impl OpenFileCache {
    pub(super) fn new(valid: Duration) -> Self {
        /// Expected number of keys, at 128 bytes each.
        const MISSING: usize = NEGATIVE_CACHE_BYTES / 128;
        let objects =
            OPEN_FILE_CACHE_FILES.min(process::open_files_limit() / OPEN_FILE_CACHE_SHARE);
        let objects = objects.max(1);
        let weighter = FileWeighter {
            least: (OPEN_FILE_CACHE_BYTES / objects) as u64,
        };
        OpenFileCache {
            objects: Cache::with_weighter(objects, OPEN_FILE_CACHE_BYTES as u64, weighter),
            missing: Cache::with_weighter(MISSING, NEGATIVE_CACHE_BYTES as u64, NegativeWeighter),
            valid_ns: AtomicU64::new(nanoseconds(valid)),
            since: Instant::now(),
        }
    }

    /// Sets the time for which a validation is valid.
    pub(super) fn set_valid(&self, valid: Duration) {
        let valid_ns = nanoseconds(valid);
        self.valid_ns.store(valid_ns, Ordering::Relaxed);
    }

    /// Memory of the cache, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let bytes = self.objects.weight() + self.missing.weight();
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Time on the cache's own clock, in nanoseconds.
    pub(super) fn now_ns(&self) -> u64 {
        nanoseconds(self.since.elapsed())
    }

    /// Returns whether a validation of that time is still valid.
    fn is_recent(&self, looked_up_ns: u64) -> bool {
        let age_ns = self.now_ns().saturating_sub(looked_up_ns);
        age_ns < self.valid_ns.load(Ordering::Relaxed)
    }

    /// Returns whether the key is known to be missing.
    pub(super) fn is_known_missing(&self, key: &ObjectKey) -> bool {
        let looked_up_ns = self.missing.get(key);
        looked_up_ns.is_some_and(|looked_up_ns| self.is_recent(looked_up_ns))
    }

    /// Records that the key was missing at that time.
    pub(super) fn insert_negative(&self, key: &ObjectKey, looked_up_ns: u64) {
        self.missing.insert(key.clone(), looked_up_ns);
    }

    /// Returns the object of a key, if it is cached and valid. Does not wait for the disk.
    pub(super) fn get(&self, root: &BeneathDir, key: &ObjectKey) -> Option<Arc<CachedFile>> {
        let object = self.objects.get(key)?;
        if self.is_recent(object.checked_ns.load(Ordering::Relaxed)) {
            return Some(object);
        }
        let now_ns = self.now_ns();
        if object.is_unchanged(root) {
            object.checked_ns.store(now_ns, Ordering::Relaxed);
            return Some(object);
        }
        self.objects.remove(key);
        None
    }

    /// Closes objects that have changed, or were not used for this time.
    pub(super) fn close_unneeded(&self, root: &BeneathDir, unused: Duration) {
        // A use within the valid time leaves no trace, so the time is added.
        let valid_ns = self.valid_ns.load(Ordering::Relaxed);
        let longest_ns = nanoseconds(unused).saturating_add(valid_ns);
        let now_ns = self.now_ns();
        for (key, object) in self.objects.iter() {
            let checked_ns = object.checked_ns.load(Ordering::Relaxed);
            let is_unused = now_ns.saturating_sub(checked_ns) > longest_ns;
            if is_unused || !object.is_unchanged(root) {
                let is_it = |cache: &Arc<CachedFile>| Arc::ptr_eq(cache, &object);
                self.objects.remove_if(&key, is_it);
            }
        }
    }

    /// Removes the entries of a key, which has changed.
    #[cfg(feature = "uploads")]
    pub(super) fn remove(&self, key: &ObjectKey) {
        self.objects.remove(key);
        self.missing.remove(key);
    }

    /// Removes all entries.
    pub(super) fn clear(&self) {
        self.objects.clear();
        self.missing.clear();
    }

    /// Adds an object that was just opened.
    pub(super) fn insert(&self, key: ObjectKey, object: CachedFile) {
        let now_ns = self.now_ns();
        object.checked_ns.store(now_ns, Ordering::Relaxed);
        self.objects.insert(key, Arc::new(object));
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::Access;
    use crate::store::thread_pool::ThreadPools;
    use std::fs::{self, File};
    use std::path::Path;

    fn object(folder: &Path, name: &str) -> CachedFile {
        let file = File::open(folder.join(name)).unwrap();
        let version = FileVersion::of(&file.metadata().unwrap()).unwrap();
        CachedFile::new(
            Arc::new(MediaFile::new(file, 1)),
            Arc::new(ObjectInfo::new(1, "image/gif", Access::Public)),
            vec![(name.into(), version)],
        )
    }

    #[test]
    fn an_object_is_given_for_as_long_as_the_same_lies_at_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = BeneathDir::open(folder.path(), &ThreadPools::new()).unwrap();
        for change in [
            (|path| fs::write(path, "longer").unwrap()) as fn(&Path),
            |path| fs::remove_file(path).unwrap(),
            |path| fs::rename(path.with_extension("other"), path).unwrap(),
        ] {
            let path = folder.path().join("a.gif");
            fs::write(&path, "1").unwrap();
            fs::write(path.with_extension("other"), "1").unwrap();
            let key = ObjectKey::Named("a.gif".into());
            let (always_checked, rarely_checked) = (
                OpenFileCache::new(Duration::ZERO),
                OpenFileCache::new(Duration::from_secs(3600)),
            );
            for cache in [&always_checked, &rarely_checked] {
                cache.insert(key.clone(), object(folder.path(), "a.gif"));
                assert!(cache.get(&root, &key).is_some());
            }
            change(&path);
            assert!(always_checked.get(&root, &key).is_none());
            assert_eq!(always_checked.bytes(), 0);
            assert!(rarely_checked.get(&root, &key).is_some());
        }
    }

    /// Deleted files took space, and their file systems stayed busy, until the next request.
    #[test]
    fn deleted_files_and_ones_that_nobody_asked_for_stayed_open() {
        const LONG: Duration = Duration::from_secs(3600);
        let folder = tempfile::tempdir().unwrap();
        let root = BeneathDir::open(folder.path(), &ThreadPools::new()).unwrap();
        let cache = OpenFileCache::new(Duration::ZERO);
        let files = ["stays.gif", "deleted.gif", "replaced.gif"];
        let files = files.map(|name| {
            fs::write(folder.path().join(name), "1").unwrap();
            let object = object(folder.path(), name);
            let file = Arc::downgrade(&object.file);
            cache.insert(ObjectKey::Named(name.into()), object);
            file
        });
        let is_open = || files.each_ref().map(|file| file.strong_count() > 0);
        cache.close_unneeded(&root, LONG);
        assert_eq!(is_open(), [true, true, true]);
        fs::remove_file(folder.path().join("deleted.gif")).unwrap();
        fs::write(folder.path().join("new"), "1").unwrap();
        fs::rename(
            folder.path().join("new"),
            folder.path().join("replaced.gif"),
        )
        .unwrap();
        cache.close_unneeded(&root, LONG);
        assert_eq!(is_open(), [true, false, false]);
        cache.close_unneeded(&root, Duration::ZERO);
        assert_eq!(is_open(), [false, false, false]);
    }

    #[test]
    fn that_there_is_nothing_is_remembered_for_as_long_as_a_change_may_go_unseen() {
        let (always_checked, rarely_checked) = (
            OpenFileCache::new(Duration::ZERO),
            OpenFileCache::new(Duration::from_secs(3600)),
        );
        let key = |turn: usize| ObjectKey::Named(format!("{turn}.gif"));
        for cache in [&always_checked, &rarely_checked] {
            assert!(!cache.is_known_missing(&key(0)));
            cache.insert_negative(&key(0), cache.now_ns());
        }
        assert!(!always_checked.is_known_missing(&key(0)));
        assert!(
            rarely_checked.is_known_missing(&key(0)) && !rarely_checked.is_known_missing(&key(1))
        );
        for turn in 0..10_000 {
            rarely_checked.insert_negative(&key(turn), rarely_checked.now_ns());
        }
        assert!(
            rarely_checked.bytes() <= NEGATIVE_CACHE_BYTES,
            "{}",
            rarely_checked.bytes()
        );
    }

    #[test]
    fn what_is_kept_has_a_bound_by_count_and_by_bytes() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.gif"), "1").unwrap();
        let cache = OpenFileCache::new(Duration::ZERO);
        let most = OPEN_FILE_CACHE_FILES.min(process::open_files_limit() / OPEN_FILE_CACHE_SHARE);
        for turn in 0..most + 100 {
            let key = ObjectKey::Named(turn.to_string());
            cache.insert(key, object(folder.path(), "a.gif"));
        }
        assert!(
            cache.objects.len() <= most,
            "{} of {most}",
            cache.objects.len()
        );
        assert!(cache.bytes() <= OPEN_FILE_CACHE_BYTES);
    }
}
