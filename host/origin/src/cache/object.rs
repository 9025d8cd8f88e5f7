//! A cached object: the metadata of one version of an object, and the chunks that its file has.

use super::cache_file::FILE_OVERHEAD_BYTES;
use super::chunk_map::{CHUNK_BYTES, ChunkMap};
use super::disk_usage::{DiskUsage, UsedBytes};
use super::object_record::ObjectRecord;
use crate::fetch::FreshnessFields;
use crate::fill::progress::Fills;
use crate::freshness::{Freshness, FreshnessDefaults, FreshnessState};
use millpond::store::{ContentId, ObjectInfo, ObjectKey};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One version of an object. Another version is another value, with a file of its own.
#[derive(Debug)]
pub(crate) struct CachedObject {
    id: u64,
    key: ObjectKey,
    /// Name of the file in the cache's folder.
    file_name: String,
    record: ObjectRecord,
    info: Arc<ObjectInfo>,
    chunks: ChunkMap,
    /// Chunks that take room on disk: those that the file has, and those that a fill has begun.
    on_disk: ChunkMap,
    /// Held while a chunk is completed.
    completing: Mutex<()>,
    freshness: Mutex<StoredFreshness>,
    fills: Fills,
    used: UsedBytes,
    digest: Option<Mutex<DigestProgress>>,
    /// Whether the origin has a new version, or the content is not that of the digest.
    is_changed: AtomicBool,
    /// Whether the index has let go of the object. Its file has no name then, and lasts until its readers end.
    is_discarded: AtomicBool,
    /// Whether the origin serves no ranges of the object.
    is_whole_only: AtomicBool,
}

/// Freshness from a point in time on.
#[derive(Debug, Clone, Copy)]
struct StoredFreshness {
    freshness: Freshness,
    since: Instant,
    /// Time until which a stale object is served without a revalidation, because the last one failed.
    deferred_until: Option<Instant>,
}

/// SHA-256 of the first bytes of an object.
#[derive(Debug)]
struct DigestProgress {
    hasher: Sha256,
    /// Number of bytes that the hasher has.
    offset: u64,
}

impl CachedObject {
    pub(super) fn new(
        id: u64,
        file_name: String,
        record: ObjectRecord,
        chunks: ChunkMap,
        freshness: Freshness,
        usage: &Arc<DiskUsage>,
    ) -> Self {
        let key = record.object_key();
        let is_content = matches!(key, ObjectKey::Content(_));
        let bytes = fixed_disk_bytes(record.length) + chunks.present_bytes();
        let on_disk = ChunkMap::from_bytes(record.length, &chunks.to_bytes());
        CachedObject {
            id,
            key,
            file_name,
            info: Arc::new(record.info()),
            record,
            chunks,
            on_disk,
            completing: Mutex::new(()),
            freshness: Mutex::new(StoredFreshness {
                freshness,
                since: Instant::now(),
                deferred_until: None,
            }),
            fills: Fills::default(),
            used: UsedBytes::new(usage, bytes),
            digest: is_content.then(|| {
                Mutex::new(DigestProgress {
                    hasher: Sha256::new(),
                    offset: 0,
                })
            }),
            is_changed: AtomicBool::new(false),
            is_discarded: AtomicBool::new(false),
            is_whole_only: AtomicBool::new(false),
        }
    }

    /// Number of the object, unique in the process.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Key of the object.
    pub(crate) fn key(&self) -> &ObjectKey {
        &self.key
    }

    pub(super) fn file_name(&self) -> &str {
        &self.file_name
    }

    /// Record of the object.
    pub(crate) fn record(&self) -> &ObjectRecord {
        &self.record
    }

    /// Information for a component.
    pub(crate) fn info(&self) -> &Arc<ObjectInfo> {
        &self.info
    }

    /// Chunks that the file has.
    pub(crate) fn chunks(&self) -> &ChunkMap {
        &self.chunks
    }

    /// Chunks that take room on disk.
    pub(crate) fn on_disk(&self) -> &ChunkMap {
        &self.on_disk
    }

    /// Records that the file has a chunk. Returns `false` instead if it is the last one that is missing, and the content has
    /// to be verified first.
    pub(crate) fn try_complete(&self, chunk: u64) -> bool {
        let _completing = self.completing.lock();
        let is_last = !self.chunks.has(chunk) && self.chunks.present() + 1 == self.chunks.chunks();
        let may_complete = !(is_last && self.digest.is_some());
        if may_complete {
            self.chunks.insert(chunk);
        }
        may_complete
    }

    /// Fills in progress.
    pub(crate) fn fills(&self) -> &Fills {
        &self.fills
    }

    /// Bytes on disk.
    pub(crate) fn used(&self) -> &UsedBytes {
        &self.used
    }

    /// Length of the object, in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.record.length
    }

    /// Whether the origin has a validator by which bytes of two responses can be told to belong together.
    pub(crate) fn has_validator(&self) -> bool {
        self.record.entity_tag.is_some() || self.record.modified.is_some()
    }

    /// Whether a cache may store the object.
    pub(crate) fn is_storable(&self) -> bool {
        self.freshness.lock().freshness.is_storable
    }

    /// Returns the freshness of the object from now on.
    pub(crate) fn freshness(&self) -> Freshness {
        let stored = *self.freshness.lock();
        Freshness {
            age: stored.since.elapsed().saturating_add(stored.freshness.age),
            ..stored.freshness
        }
    }

    /// Returns the state of the object's freshness.
    pub(crate) fn freshness_state(&self) -> FreshnessState {
        let stored = *self.freshness.lock();
        stored.freshness.state(stored.since.elapsed())
    }

    /// Returns the age of the object, and the rest of its freshness lifetime in seconds. `None` if it never goes stale.
    pub(crate) fn age_and_ttl(&self) -> Option<(Duration, i64)> {
        let stored = *self.freshness.lock();
        if stored.freshness.is_immutable() {
            return None;
        }
        let age = stored.since.elapsed().saturating_add(stored.freshness.age);
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Some((age, seconds(stored.freshness.lifetime) - seconds(age)))
    }

    /// Sets the freshness that the origin has stated now. It keeps the old one's terms if the response has none.
    pub(crate) fn freshen(&self, fields: &FreshnessFields, defaults: &FreshnessDefaults) {
        let fields = FreshnessFields {
            cache_control: fields
                .cache_control
                .clone()
                .or_else(|| self.record.cache_control.clone()),
            age: fields.age,
        };
        let freshness = Freshness::of(&fields, defaults);
        *self.freshness.lock() = StoredFreshness {
            freshness,
            since: Instant::now(),
            deferred_until: None,
        };
    }

    /// Puts off the next revalidation, because the last one failed.
    pub(crate) fn defer_revalidation(&self, pause: Duration) {
        self.freshness.lock().deferred_until = Some(Instant::now() + pause);
    }

    /// Whether the next revalidation was put off.
    pub(crate) fn is_revalidation_deferred(&self) -> bool {
        let until = self.freshness.lock().deferred_until;
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether another version has taken the object's place. Its readers abort.
    pub(crate) fn is_changed(&self) -> bool {
        self.is_changed.load(Ordering::Acquire)
    }

    /// Records that another version has taken the object's place.
    pub(crate) fn mark_changed(&self) {
        self.is_changed.store(true, Ordering::Release);
    }

    /// Whether the index has let go of the object.
    pub(crate) fn is_discarded(&self) -> bool {
        self.is_discarded.load(Ordering::Acquire)
    }

    /// Records that the index has let go of the object. Returns whether it had not before.
    pub(super) fn mark_discarded(&self) -> bool {
        !self.is_discarded.swap(true, Ordering::AcqRel)
    }

    /// Whether the origin serves no ranges of the object.
    pub(crate) fn is_whole_only(&self) -> bool {
        self.is_whole_only.load(Ordering::Acquire)
    }

    /// Records that the origin serves no ranges of the object.
    pub(crate) fn mark_whole_only(&self) {
        self.is_whole_only.store(true, Ordering::Release);
    }

    /// Adds bytes that were just written at `offset` to the digest, if they come next.
    pub(crate) fn hash(&self, bytes: &[u8], offset: u64) {
        if let Some(digest) = &self.digest {
            let mut digest = digest.lock();
            if digest.offset == offset {
                digest.hasher.update(bytes);
                digest.offset += bytes.len() as u64;
            }
        }
    }

    /// Returns whether the content has its digest, if it has to have one. Reads all bytes that were not added yet. Blocks
    /// on the disk. The file has to have all bytes.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn verify(&self, file: &File) -> io::Result<bool> {
        const READ_BYTES: usize = 256 * 1024;
        let (Some(digest), Some(expected)) = (&self.digest, self.content_id()) else {
            return Ok(true);
        };
        let mut digest = digest.lock();
        let mut buffer = vec![0; READ_BYTES];
        while digest.offset < self.length() {
            let rest = usize::try_from(self.length() - digest.offset).unwrap_or(READ_BYTES);
            let part = &mut buffer[..rest.min(READ_BYTES)];
            file.read_exact_at(part, digest.offset)?;
            digest.hasher.update(&*part);
            digest.offset += part.len() as u64;
        }
        let found: [u8; 32] = digest.hasher.clone().finalize().into();
        Ok(found == *expected.digest())
    }

    fn content_id(&self) -> Option<ContentId> {
        match &self.key {
            ObjectKey::Content(id) => Some(*id),
            ObjectKey::Named(_) => None,
        }
    }

    /// Returns the offset after the last byte of a chunk.
    pub(crate) fn chunk_end(&self, chunk: u64) -> u64 {
        ((chunk + 1) * CHUNK_BYTES).min(self.length())
    }
}

/// Bytes on disk of an object without chunks.
pub(super) fn fixed_disk_bytes(length: u64) -> u64 {
    FILE_OVERHEAD_BYTES + ChunkMap::bytes_for(length)
}
