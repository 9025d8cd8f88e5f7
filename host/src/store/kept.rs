//! Objects of a folder that stay open between requests, each looked at again before it is given.
//!
//! A look asks the file system what lies at the paths that the object was made of, and compares. It is made anew
//! when the last one is older than the folder's [`Recheck`](Kept::recheck), so for that long a change may go unseen. For
//! as long it is remembered that there was nothing.

use super::object::{Key, ObjectInfo};
use super::slice::MediaFile;
use crate::watch::process;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) use platform::{Look, Root, is_settled};

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
    pub(super) seen: Vec<(PathBuf, Look)>,
    /// When that was compared last, in nanoseconds of [`Kept::since`].
    checked_ns: AtomicU64,
}

impl KeptObject {
    pub(super) fn new(
        file: Arc<MediaFile>,
        info: Arc<ObjectInfo>,
        seen: Vec<(PathBuf, Look)>,
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
        let seen = self.seen.capacity() * size_of::<(PathBuf, Look)>() + paths.sum::<usize>();
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
        let is_as_seen = |(path, look): &(PathBuf, Look)| root.look(path).as_ref() == Some(look);
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

#[cfg(target_os = "linux")]
mod platform {
    use cap_std::fs::Dir;
    use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2};
    use rustix::io::Errno;
    use std::fs::File;
    use std::io;
    use std::os::fd::{AsFd, OwnedFd};
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    /// What the file system tells of a file or folder: if that is the same, so is what it holds.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(in crate::store) struct Look {
        device: u64,
        inode: u64,
        length: u64,
        modified: (i64, u64),
        changed: (i64, u64),
    }

    impl Look {
        pub(in crate::store) fn of(file: &impl AsFd) -> Option<Self> {
            fstat(file).ok().map(|stat| Look::from(&stat))
        }
    }

    impl From<&Stat> for Look {
        #[allow(clippy::unnecessary_cast, reason = "the types differ by architecture")]
        fn from(stat: &Stat) -> Self {
            Look {
                device: stat.st_dev as u64,
                inode: stat.st_ino as u64,
                length: stat.st_size as u64,
                modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
                changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u64),
            }
        }
    }

    /// Whether a further change would be told from this one. File systems have the time of a clock that ticks, so two
    /// changes within a tick look alike.
    pub(in crate::store) fn is_settled(look: &Look) -> bool {
        /// The longest tick in use is of 10 ms.
        const TICKS: Duration = Duration::from_millis(20);
        let seconds = u64::try_from(look.changed.0).unwrap_or(0);
        let nanos = u32::try_from(look.changed.1).unwrap_or(0);
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        changed.elapsed().is_ok_and(|since| since > TICKS)
    }

    /// The folder's handle, and what can be found beneath it without waiting for the disk.
    #[derive(Debug)]
    pub(in crate::store) struct Root<'a>(pub(in crate::store) &'a Dir);

    impl Root<'_> {
        /// What lies at a path beneath the root, where the kernel knows without asking the disk. Never anything outside
        /// of the root.
        pub(in crate::store) fn look(&self, path: &Path) -> Option<Look> {
            let is_root = path.as_os_str().is_empty();
            let path = if is_root { Path::new(".") } else { path };
            Look::of(&self.open(path, OFlags::PATH).ok()?)
        }

        /// Opens a file beneath the root for reading.
        ///
        /// # Errors
        /// As the system's; some of them say only that it would have to wait.
        pub(in crate::store) fn file(&self, path: &Path) -> io::Result<File> {
            // Opening a named pipe would else wait for a writer, for ever.
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            let file = self.open(path, flags)?;
            Ok(file.into())
        }

        /// Whether there is a regular file.
        ///
        /// # Errors
        /// As [`Root::file`].
        pub(in crate::store) fn has_file(&self, path: &Path) -> io::Result<bool> {
            match self.open(path, OFlags::PATH) {
                Ok(found) => {
                    let mode = fstat(found)?.st_mode;
                    Ok(FileType::from_raw_mode(mode) == FileType::RegularFile)
                }
                Err(Errno::NOENT) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }

        fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
            let beneath =
                ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::CACHED;
            openat2(
                self.0,
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                beneath,
            )
        }
    }
}

/// No other system tells what it knows without waiting, so nothing is kept.
#[cfg(not(target_os = "linux"))]
mod platform {
    use cap_std::fs::Dir;
    use std::fs::File;
    use std::io;
    use std::path::Path;

    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(in crate::store) enum Look {}

    impl Look {
        pub(in crate::store) fn of<F>(_file: &F) -> Option<Self> {
            None
        }
    }

    pub(in crate::store) fn is_settled(look: &Look) -> bool {
        match *look {}
    }

    #[derive(Debug)]
    pub(in crate::store) struct Root<'a>(pub(in crate::store) &'a Dir);

    impl Root<'_> {
        pub(in crate::store) fn look(&self, _path: &Path) -> Option<Look> {
            None
        }

        pub(in crate::store) fn file(&self, _path: &Path) -> io::Result<File> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        pub(in crate::store) fn has_file(&self, _path: &Path) -> io::Result<bool> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::Access;
    use cap_std::ambient_authority;
    use cap_std::fs::Dir;
    use std::fs::{self, File};
    use std::path::Path;

    fn object(folder: &Path, name: &str) -> KeptObject {
        let file = File::open(folder.join(name)).unwrap();
        let look = Look::of(&file).unwrap();
        KeptObject::new(
            Arc::new(MediaFile::new(file, 1)),
            Arc::new(ObjectInfo::new(1, "image/gif", Access::Public)),
            vec![(name.into(), look)],
        )
    }

    #[test]
    fn an_object_is_given_for_as_long_as_the_same_lies_at_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        let root = Root(&root);
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
