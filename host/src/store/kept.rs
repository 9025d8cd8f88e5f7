//! Objects of a folder that stay open between requests, each looked at again before it is given.
//!
//! A look asks the file system what lies at the paths that the object was made of, and compares. It is made anew
//! when the last one is older than the folder's [`Recheck`](Kept::recheck), so for that long a change may go unseen. For
//! as long it is remembered that there was nothing.

use super::object::{Key, ObjectInfo};
use super::root::Root;
use super::slice::MediaFile;
use super::version::FileVersion;
use crate::watch::process;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Most that kept objects take together, in bytes.
pub(super) const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// Most that is remembered of keys that name nothing, in bytes.
pub(super) const MISSING_BYTES: usize = 64 * 1024;

/// Most objects that are kept, since each has a file open; fewer where the process may not open many.
const KEPT_OBJECTS: usize = 1024;

/// The part of the files that a process may have open which kept ones may take.
pub(crate) const KEPT_FILES_PART: usize = 8;

/// The objects of one folder that are kept.
pub(super) struct Kept {
    objects: Cache<Key, Arc<KeptObject>, ByBytes>,
    /// Keys that named nothing, and when that was, in nanoseconds of `since`.
    missing: Cache<Key, u64, OfMissing>,
    recheck: Duration,
    since: Instant,
}

/// An open object, and what it was made of.
#[derive(Debug)]
pub(super) struct KeptObject {
    pub(super) file: Arc<MediaFile>,
    pub(super) info: Arc<ObjectInfo>,
    /// What lay at which path when it was opened.
    pub(super) seen: Vec<(PathBuf, FileVersion)>,
    /// When that was compared last, in nanoseconds of [`Kept::since`].
    checked_ns: AtomicU64,
}

impl KeptObject {
    pub(super) fn new(
        file: Arc<MediaFile>,
        info: Arc<ObjectInfo>,
        seen: Vec<(PathBuf, FileVersion)>,
    ) -> Self {
        KeptObject {
            file,
            info,
            seen,
            checked_ns: AtomicU64::new(0),
        }
    }

    fn bytes(&self) -> usize {
        let paths = self.seen.iter().map(|(path, _)| path.capacity());
        let seen =
            self.seen.capacity() * size_of::<(PathBuf, FileVersion)>() + paths.sum::<usize>();
        size_of::<Self>() + self.file.kept_bytes() + self.info.held_bytes() + seen
    }
}

/// An object weighs what it takes, and at least its part of the whole, so that the bound by weight is one by count too.
#[derive(Clone)]
struct ByBytes {
    least: u64,
}

impl Weighter<Key, Arc<KeptObject>> for ByBytes {
    fn weight(&self, key: &Key, object: &Arc<KeptObject>) -> u64 {
        // With the cache's own entry.
        let bytes = 2 * size_of::<Key>() + key.held_bytes() + object.bytes();
        self.least.max(bytes as u64)
    }
}

#[derive(Clone)]
struct OfMissing;

impl Weighter<Key, u64> for OfMissing {
    fn weight(&self, key: &Key, _looked_ns: &u64) -> u64 {
        // With the cache's own entry.
        (3 * size_of::<Key>() + key.held_bytes()) as u64
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("objects", &self.objects.len())
            .field("recheck", &self.recheck)
            .finish_non_exhaustive()
    }
}

impl Kept {
    pub(super) fn new(recheck: Duration) -> Self {
        /// A usual key takes so many bytes.
        const MISSING: usize = MISSING_BYTES / 128;
        let objects = KEPT_OBJECTS.min(process::open_files_limit() / KEPT_FILES_PART);
        let objects = objects.max(1);
        let by_bytes = ByBytes {
            least: (KEPT_BYTES / objects) as u64,
        };
        Kept {
            objects: Cache::with_weighter(objects, KEPT_BYTES as u64, by_bytes),
            missing: Cache::with_weighter(MISSING, MISSING_BYTES as u64, OfMissing),
            recheck,
            since: Instant::now(),
        }
    }

    /// What is kept now, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let bytes = self.objects.weight() + self.missing.weight();
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// The time in this folder's own nanoseconds.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether a look that was made then need not be made anew.
    fn is_recent(&self, looked_ns: u64) -> bool {
        let age_ns = self.now_ns().saturating_sub(looked_ns);
        u128::from(age_ns) < self.recheck.as_nanos()
    }

    /// Whether that key named nothing a moment ago.
    pub(super) fn is_missing(&self, key: &Key) -> bool {
        let looked_ns = self.missing.get(key);
        looked_ns.is_some_and(|looked_ns| self.is_recent(looked_ns))
    }

    /// The key named nothing when it was looked for then.
    pub(super) fn missed(&self, key: &Key, looked_ns: u64) {
        self.missing.insert(key.clone(), looked_ns);
    }

    /// The object of that key, if it is kept and still what it was. It does not wait for the disk.
    pub(super) fn get(&self, root: &Root, key: &Key) -> Option<Arc<KeptObject>> {
        let object = self.objects.get(key)?;
        if self.is_recent(object.checked_ns.load(Ordering::Relaxed)) {
            return Some(object);
        }
        let now_ns = self.now_ns();
        let is_as_seen =
            |(path, version): &(PathBuf, FileVersion)| root.look(path).as_ref() == Some(version);
        if object.seen.iter().all(is_as_seen) {
            object.checked_ns.store(now_ns, Ordering::Relaxed);
            return Some(object);
        }
        self.objects.remove(key);
        None
    }

    /// Keeps an object that was opened just now.
    pub(super) fn insert(&self, key: Key, object: KeptObject) {
        let now_ns = self.now_ns();
        object.checked_ns.store(now_ns, Ordering::Relaxed);
        self.objects.insert(key, Arc::new(object));
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::Access;
    use crate::store::thread_pool::ThreadPools;
    use std::fs::{self, File};
    use std::path::Path;

    fn object(folder: &Path, name: &str) -> KeptObject {
        let file = File::open(folder.join(name)).unwrap();
        let version = FileVersion::of(&file.metadata().unwrap()).unwrap();
        KeptObject::new(
            Arc::new(MediaFile::new(file, 1)),
            Arc::new(ObjectInfo::new(1, "image/gif", Access::Public)),
            vec![(name.into(), version)],
        )
    }

    #[test]
    fn an_object_is_given_for_as_long_as_the_same_lies_at_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path(), &ThreadPools::new()).unwrap();
        for change in [
            (|path| fs::write(path, "longer").unwrap()) as fn(&Path),
            |path| fs::remove_file(path).unwrap(),
            |path| fs::rename(path.with_extension("other"), path).unwrap(),
        ] {
            let path = folder.path().join("a.gif");
            fs::write(&path, "1").unwrap();
            fs::write(path.with_extension("other"), "1").unwrap();
            let key = Key::Named("a.gif".into());
            let (each_time, seldom) = (
                Kept::new(Duration::ZERO),
                Kept::new(Duration::from_secs(3600)),
            );
            for kept in [&each_time, &seldom] {
                kept.insert(key.clone(), object(folder.path(), "a.gif"));
                assert!(kept.get(&root, &key).is_some());
            }
            change(&path);
            assert!(each_time.get(&root, &key).is_none());
            assert_eq!(each_time.bytes(), 0);
            assert!(seldom.get(&root, &key).is_some());
        }
    }

    #[test]
    fn that_there_is_nothing_is_remembered_for_as_long_as_a_change_may_go_unseen() {
        let (each_time, seldom) = (
            Kept::new(Duration::ZERO),
            Kept::new(Duration::from_secs(3600)),
        );
        let key = |turn: usize| Key::Named(format!("{turn}.gif"));
        for kept in [&each_time, &seldom] {
            assert!(!kept.is_missing(&key(0)));
            kept.missed(&key(0), kept.now_ns());
        }
        assert!(!each_time.is_missing(&key(0)));
        assert!(seldom.is_missing(&key(0)) && !seldom.is_missing(&key(1)));
        for turn in 0..10_000 {
            seldom.missed(&key(turn), seldom.now_ns());
        }
        assert!(seldom.bytes() <= MISSING_BYTES, "{}", seldom.bytes());
    }

    #[test]
    fn what_is_kept_has_a_bound_by_count_and_by_bytes() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.gif"), "1").unwrap();
        let kept = Kept::new(Duration::ZERO);
        let most = KEPT_OBJECTS.min(process::open_files_limit() / KEPT_FILES_PART);
        for turn in 0..most + 100 {
            let key = Key::Named(turn.to_string());
            kept.insert(key, object(folder.path(), "a.gif"));
        }
        assert!(
            kept.objects.len() <= most,
            "{} of {most}",
            kept.objects.len()
        );
        assert!(kept.bytes() <= KEPT_BYTES);
    }
}
