#![allow(clippy::unwrap_used)]
use super::*;
use millpond::store::SharedFile;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};

const LIMITS: CacheLimits = CacheLimits {
    max_bytes: CACHE_MIN_BYTES,
    max_files: 100,
};

fn open(folder: &Path) -> ChunkCache {
    ChunkCache::open(folder, LIMITS, &FreshnessDefaults::default()).unwrap()
}

fn record(name: &str, length: u64) -> ObjectRecord {
    let mut record = ObjectRecord::example(length);
    record.key = object_record::RecordedKey::Named(name.into());
    record.stored = SystemTime::now();
    record
}

fn fresh() -> Freshness {
    Freshness::of(
        &ObjectRecord::example(0).head().freshness,
        &FreshnessDefaults::default(),
    )
}

/// Writes chunks of an object, as a fill does.
fn fill(cache: &ChunkCache, object: &Arc<CachedObject>, file: &SharedFile, chunks: u64) {
    let end = object.chunk_end(chunks - 1);
    let reservation = cache.try_reserve(object, end).unwrap();
    for chunk in 0..chunks {
        file.file().write_all_at(&[7], chunk * CHUNK_BYTES).unwrap();
        object.on_disk().insert(chunk);
        assert!(object.try_complete(chunk));
    }
    reservation.release(0);
    cache.settle(object);
    cache.persist(object, file).unwrap();
}

fn files(folder: &Path) -> usize {
    let folders = fs::read_dir(folder).unwrap();
    let files = folders.map(|folder| fs::read_dir(folder.unwrap().path()).unwrap().count());
    files.sum()
}

#[test]
fn objects_are_there_after_a_restart_with_their_chunks() {
    let folder = tempfile::tempdir().unwrap();
    {
        let cache = open(folder.path());
        let (object, file) = cache.create(record("a", 3 * CHUNK_BYTES), fresh()).unwrap();
        fill(&cache, &object, &file, 2);
    }
    let cache = open(folder.path());
    let object = cache.get(&ObjectKey::Named("a".into())).unwrap();
    let chunks = [0, 1, 2].map(|chunk| object.chunks().has(chunk));
    assert_eq!(chunks, [true, true, false]);
    let (fixed, read) = (fixed_disk_bytes(3 * CHUNK_BYTES), object.used().bytes());
    assert_eq!(read, fixed + 2 * CHUNK_BYTES);
    assert_eq!(cache.usage().bytes, read);
}

#[test]
fn the_least_used_objects_make_room_for_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    let name = |number: u64| format!("{number}");
    for number in 0..30 {
        let (object, file) = cache
            .create(record(&name(number), 4 * CHUNK_BYTES), fresh())
            .unwrap();
        fill(&cache, &object, &file, 4);
        assert!(cache.usage().bytes <= LIMITS.max_bytes);
        // It is used all the time.
        assert!(cache.get(&ObjectKey::Named(name(0))).is_some());
    }
    assert_eq!(files(folder.path()), cache.usage().objects);
    assert!(cache.usage().objects >= 14, "{:?}", cache.usage());
}

#[test]
fn the_number_of_objects_has_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    for number in 0..300_u32 {
        cache
            .create(record(&number.to_string(), 10), fresh())
            .unwrap();
        assert!(cache.usage().objects <= LIMITS.max_files);
    }
    assert_eq!(files(folder.path()), cache.usage().objects);
}

#[test]
fn evicted_files_count_as_long_as_they_are_open() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    let (object, file) = cache.create(record("a", 8 * CHUNK_BYTES), fresh()).unwrap();
    fill(&cache, &object, &file, 8);
    let before = cache.usage().bytes;
    cache.discard(&object);
    assert_eq!((cache.usage().bytes, files(folder.path())), (before, 0));
    // The file still has its bytes for its readers.
    let mut byte = [0];
    file.file().read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [7]);
    drop((object, file));
    assert_eq!(cache.usage().bytes, 0);
}

#[test]
fn room_that_files_in_use_take_is_given_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    let mut in_use = Vec::new();
    for number in 0..15 {
        let (object, file) = cache
            .create(record(&number.to_string(), 4 * CHUNK_BYTES), fresh())
            .unwrap();
        fill(&cache, &object, &file, 4);
        cache.discard(&object);
        in_use.push((object, file));
    }
    let (object, _) = cache
        .create(record("new", 8 * CHUNK_BYTES), fresh())
        .unwrap();
    assert!(cache.try_reserve(&object, 8 * CHUNK_BYTES).is_none());
    assert!(cache.usage().bytes <= LIMITS.max_bytes);
    in_use.clear();
    assert!(cache.try_reserve(&object, 8 * CHUNK_BYTES).is_some());
}

#[test]
fn another_version_has_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    let (old, old_file) = cache.create(record("a", 1), fresh()).unwrap();
    old_file.file().write_all_at(b"1", 0).unwrap();
    let (new, new_file) = cache.create(record("a", 1), fresh()).unwrap();
    new_file.file().write_all_at(b"2", 0).unwrap();
    assert!(old.is_discarded() && !new.is_discarded());
    let found = cache.get(&ObjectKey::Named("a".into())).unwrap();
    assert!(Arc::ptr_eq(&found, &new));
    let mut byte = [0];
    old_file.file().read_exact_at(&mut byte, 0).unwrap();
    assert_eq!((&byte, files(folder.path())), (b"1", 1));
    // A fill of the old one that ends late does not bring it back.
    cache.settle(&old);
    assert!(Arc::ptr_eq(&cache.get(old.key()).unwrap(), &new));
}

#[test]
fn media_that_must_not_be_stored_has_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path());
    let freshness = Freshness {
        is_storable: false,
        ..fresh()
    };
    let (object, _file) = cache.create(record("a", 1), freshness).unwrap();
    assert!(cache.get(object.key()).is_none());
    assert_eq!(files(folder.path()), 0);
}

#[test]
fn files_of_others_are_removed_and_a_folder_of_others_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("ab")).unwrap();
    fs::write(folder.path().join("ab/torn"), "x").unwrap();
    assert_eq!(open(folder.path()).usage().objects, 0);
    assert_eq!(files(folder.path()), 0);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let defaults = FreshnessDefaults::default();
    let refused = ChunkCache::open(folder.path(), LIMITS, &defaults).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
}
