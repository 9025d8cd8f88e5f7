//! Chunk cache: a folder of cache files, with a bound in bytes and in files.
//!
//! | file | purpose |
//! | --- | --- |
//! | `chunk_map` | chunks that a file has |
//! | `object_record`, `cache_file` | format on disk |
//! | `object` | one version of an object |
//! | `disk_usage` | bytes of all files |
//! | `index` | objects by key, evicted by use |
//! | `open_files` | files that stay open |

pub(crate) mod cache_file;
pub(crate) mod chunk_map;
mod disk_usage;
mod index;
mod limits;
pub(crate) mod object;
pub(crate) mod object_record;
mod open_files;

use crate::freshness::{Freshness, FreshnessDefaults};
use chunk_map::{CHUNK_BYTES, ChunkMap};
use disk_usage::DiskUsage;
use index::{Index, Unlinker};
pub use limits::{CACHE_MIN_BYTES, CacheLimits};
use millpond::store::{ObjectKey, SharedFile};
use object::{CachedObject, fixed_disk_bytes};
use object_record::ObjectRecord;
use open_files::OpenFiles;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

pub(crate) use open_files::OPEN_FILES_BYTES;

/// Memory of an object in the index, in bytes. Names and entity tags are a hundred bytes at most as a rule.
pub(crate) const OBJECT_BYTES: usize = 1024;

/// Chunk cache of one origin.
#[derive(Debug)]
pub(crate) struct ChunkCache {
    folder: PathBuf,
    limits: CacheLimits,
    index: Index,
    open_files: OpenFiles,
    usage: Arc<DiskUsage>,
    next_id: AtomicU64,
}

/// Bytes on disk that a fill has reserved.
#[derive(Debug)]
pub(crate) struct DiskReservation {
    object: Arc<CachedObject>,
    bytes: u64,
}

/// Figures of a chunk cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct DiskCacheUsage {
    /// Bytes on disk, with those that fills have reserved.
    pub bytes: u64,
    /// Maximum bytes on disk.
    pub max_bytes: u64,
    /// Number of objects.
    pub objects: usize,
    /// Maximum number of objects.
    pub max_objects: usize,
}

impl ChunkCache {
    /// Opens the cache in a folder, and makes the folder if there is none. Reads the record of each file. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// The system's; the folder is not ours alone.
    pub(crate) fn open(
        folder: &Path,
        limits: CacheLimits,
        defaults: &FreshnessDefaults,
    ) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        check_owner(folder)?;
        let open_files = OpenFiles::new();
        let unlinker = Unlinker::new(folder, open_files.clone());
        let cache = ChunkCache {
            folder: folder.to_owned(),
            limits,
            index: Index::new(limits, unlinker),
            open_files,
            usage: Arc::default(),
            next_id: AtomicU64::new(0),
        };
        cache.load(defaults)?;
        Ok(cache)
    }

    /// Returns the object of a key.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<CachedObject>> {
        self.index.get(key)
    }

    /// Creates the file of an object, which takes the place of any other with its key. An object that must not be stored
    /// gets a file without a name. Blocks on the disk.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn create(
        &self,
        record: ObjectRecord,
        freshness: Freshness,
    ) -> io::Result<(Arc<CachedObject>, SharedFile)> {
        let key = record.object_key();
        let file_name = file_name(&key);
        let path = self.folder.join(&file_name);
        if let Some(parent) = path.parent() {
            match DirBuilder::new().mode(0o700).create(parent) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let file = cache_file::create(&path, &record)?;
        let chunks = ChunkMap::new(record.length);
        let object = Arc::new(CachedObject::new(
            self.next_id.fetch_add(1, Ordering::Relaxed),
            file_name,
            record,
            chunks,
            freshness,
            &self.usage,
        ));
        let shared = SharedFile::new(file, Arc::clone(object.info()));
        if freshness.is_storable {
            self.open_files.insert(object.id(), shared.clone());
            self.index.replace(&object);
            self.make_room();
        } else {
            // Its readers hold the file as long as they need it.
            fs::remove_file(&path)?;
            object.mark_discarded();
        }
        Ok((object, shared))
    }

    /// Returns the file of an object if it is open.
    pub(crate) fn try_file(&self, object: &CachedObject) -> Option<SharedFile> {
        self.open_files.get(object.id())
    }

    /// Returns the file of an object. Blocks on the disk if it is not open.
    ///
    /// # Errors
    /// The system's. The object is discarded then.
    pub(crate) fn file(&self, object: &Arc<CachedObject>) -> io::Result<SharedFile> {
        if let Some(file) = self.try_file(object) {
            return Ok(file);
        }
        let opened = cache_file::open(&self.folder.join(object.file_name()));
        let file = match opened {
            Ok((file, record, _)) if record.object_key() == *object.key() => file,
            Ok(_) => {
                self.discard(object);
                return Err(io::ErrorKind::InvalidData.into());
            }
            Err(error) => {
                self.discard(object);
                return Err(error);
            }
        };
        let shared = SharedFile::new(file, Arc::clone(object.info()));
        let shared = match object.chunks().is_whole() {
            true => shared.with_bytes(),
            false => shared,
        };
        self.open_files.insert(object.id(), shared.clone());
        Ok(shared)
    }

    /// Writes the bitmap of an object, after its chunks are on disk. Keeps the bytes of a small object in memory, once its
    /// file has all of them. Blocks on the disk.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn persist(&self, object: &Arc<CachedObject>, file: &SharedFile) -> io::Result<()> {
        /// Maximum length of an object whose file is opened again, so that it has its bytes in memory.
        const SMALL_BYTES: u64 = 16 * 1024;
        cache_file::persist(file.file(), object.chunks(), object.length())?;
        if object.chunks().is_whole() && object.length() <= SMALL_BYTES && !object.is_discarded() {
            let again = SharedFile::new(file.file().try_clone()?, Arc::clone(object.info()));
            self.open_files.insert(object.id(), again.with_bytes());
        }
        Ok(())
    }

    /// Returns the object that has taken the place of one that was evicted, and makes one if there is none. Returns `None`
    /// if the origin has another version meanwhile. Blocks on the disk.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn renew(
        &self,
        evicted: &CachedObject,
    ) -> io::Result<Option<(Arc<CachedObject>, SharedFile)>> {
        match self.get(evicted.key()) {
            Some(object) if object.record().is_same_version(evicted.record()) => {
                let file = self.file(&object)?;
                Ok(Some((object, file)))
            }
            Some(_) => Ok(None),
            None => {
                let created = self.create(evicted.record().clone(), evicted.freshness());
                created.map(Some)
            }
        }
    }

    /// Reserves bytes on disk for a fill of an object, and evicts others for them.
    ///
    /// Returns `None` if files in use take the room.
    pub(crate) fn try_reserve(
        &self,
        object: &Arc<CachedObject>,
        bytes: u64,
    ) -> Option<DiskReservation> {
        object.used().add(bytes);
        self.index.reweigh(object);
        self.make_room();
        if self.usage.bytes() > self.limits.max_bytes {
            object.used().take_back(bytes);
            self.index.reweigh(object);
            return None;
        }
        Some(DiskReservation {
            object: Arc::clone(object),
            bytes,
        })
    }

    /// Reserves bytes on disk as [`ChunkCache::try_reserve`] does, and waits for files in use to be closed.
    pub(crate) async fn reserve(&self, object: &Arc<CachedObject>, bytes: u64) -> DiskReservation {
        loop {
            let freed = self.usage.freed();
            if let Some(reservation) = self.try_reserve(object, bytes) {
                return reservation;
            }
            freed.await;
        }
    }

    /// Records the bytes on disk of an object, after a fill has ended.
    pub(crate) fn settle(&self, object: &Arc<CachedObject>) {
        self.index.reweigh(object);
    }

    /// Whether an object of this many bytes on disk leaves room for others.
    pub(crate) fn is_small_part(&self, bytes: u64) -> bool {
        bytes <= self.limits.max_bytes / 2
    }

    /// Maximum number of chunks of a fill.
    pub(crate) fn max_run(&self) -> u64 {
        /// Maximum bytes of a fill. They may be fetched for a reader that leaves.
        const RUN_BYTES: u64 = 64 * 1024 * 1024;
        (RUN_BYTES.min(self.limits.max_bytes / 16) / CHUNK_BYTES).max(1)
    }

    /// Removes an object. Its file lasts until its readers end.
    pub(crate) fn discard(&self, object: &Arc<CachedObject>) {
        self.index.remove(object);
    }

    /// Removes the objects for which `is_purged` returns true. Returns their number.
    pub(crate) fn purge(&self, is_purged: impl Fn(&ObjectKey) -> bool) -> usize {
        self.index.purge(is_purged)
    }

    /// Returns all objects.
    pub(crate) fn objects(&self) -> Vec<Arc<CachedObject>> {
        self.index.objects()
    }

    /// Returns the figures.
    pub(crate) fn usage(&self) -> DiskCacheUsage {
        DiskCacheUsage {
            bytes: self.usage.bytes(),
            max_bytes: self.limits.max_bytes,
            objects: self.index.len(),
            max_objects: self.limits.max_files,
        }
    }

    /// Memory of the index and of the open files, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.index.len() * OBJECT_BYTES + self.open_files.bytes()
    }

    /// Maximum memory of the index and of the open files, in bytes: also that of the bitmaps, at an eighth of a byte a chunk.
    pub(crate) fn max_memory_bytes(limits: CacheLimits) -> usize {
        let bitmaps = usize::try_from(limits.max_bytes / CHUNK_BYTES / 8).unwrap_or(usize::MAX);
        (limits.max_files * OBJECT_BYTES)
            .saturating_add(bitmaps)
            .saturating_add(OPEN_FILES_BYTES)
    }

    /// Evicts objects until the files without a name have room too.
    fn make_room(&self) {
        let discarded = self.usage.bytes().saturating_sub(self.index.bytes());
        self.index
            .set_max_bytes(self.limits.max_bytes.saturating_sub(discarded));
    }

    /// Loads the objects of an earlier process, the oldest first. Removes files that are no whole cache files.
    fn load(&self, defaults: &FreshnessDefaults) -> io::Result<()> {
        let mut found: Vec<(SystemTime, Arc<CachedObject>)> = Vec::new();
        for folder in fs::read_dir(&self.folder)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                let file = file?;
                let (path, name) = (file.path(), file.file_name());
                let name = Path::new(&folder.file_name()).join(name);
                match (cache_file::open(&path), name.to_str()) {
                    (Ok((_, record, chunks)), Some(name)) => {
                        let used = file.metadata()?.modified()?;
                        found.push((used, Arc::new(self.loaded(name, record, chunks, defaults))));
                    }
                    _ => fs::remove_file(&path)?,
                }
            }
        }
        found.sort_by_key(|(used, _)| *used);
        for (_, object) in found {
            self.index.replace(&object);
        }
        self.make_room();
        Ok(())
    }

    fn loaded(
        &self,
        file_name: &str,
        record: ObjectRecord,
        chunks: ChunkMap,
        defaults: &FreshnessDefaults,
    ) -> CachedObject {
        let freshness = match record.content {
            Some(_) => Freshness::immutable(),
            None => Freshness::of(&record.head().freshness, defaults),
        };
        CachedObject::new(
            self.next_id.fetch_add(1, Ordering::Relaxed),
            file_name.to_owned(),
            record,
            chunks,
            freshness,
            &self.usage,
        )
    }
}

impl DiskReservation {
    /// Returns bytes that were not written.
    pub(crate) fn release(mut self, unwritten_bytes: u64) {
        self.bytes = unwritten_bytes.min(self.bytes);
    }
}

impl Drop for DiskReservation {
    fn drop(&mut self) {
        self.object.used().subtract(self.bytes);
    }
}

/// Returns the name of a new file of a key: a folder, the digest of the key, and a random number.
fn file_name(key: &ObjectKey) -> String {
    let digest = match key {
        ObjectKey::Content(id) => Sha256::new().chain_update(b"c").chain_update(id.digest()),
        ObjectKey::Named(name) => Sha256::new().chain_update(b"n").chain_update(name),
    };
    let digest = hex::encode(&digest.finalize()[..16]);
    let number: u64 = rand::random();
    format!("{}/{digest}-{number:016x}", &digest[..2])
}

/// Checks that nobody else can write to the folder. Files in it are served.
fn check_owner(folder: &Path) -> io::Result<()> {
    let metadata = fs::metadata(folder)?;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if is_ours && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "others can write to the folder: it has to belong to this user, with mode 700",
    ))
}

/// Bytes on disk of an object with all chunks.
pub(crate) fn whole_disk_bytes(length: u64) -> u64 {
    fixed_disk_bytes(length).saturating_add(length)
}

#[cfg(test)]
mod tests;
