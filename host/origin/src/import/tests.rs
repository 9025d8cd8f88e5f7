//! Tests of the import, over a store in memory.

#![allow(clippy::unwrap_used)]

use super::{HashedFile, OriginImportError, OriginImporter, UploadJournals};
use crate::fetch::FetchError;
use crate::origin::Origin;
use async_trait::async_trait;
use bytes::Bytes;
use millpond::store::{Access, ContentId, ImportError, VerifiedEntry};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as ObjectPath;
use object_store::{MultipartId, ObjectStore, ObjectStoreExt, PutPayload, PutResult};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Content of four parts.
fn long() -> Vec<u8> {
    (0..32 << 20_u32)
        .map(|n| (n >> 8) as u8 ^ n as u8)
        .collect()
}

/// Uploads in parts, of which some fail.
#[derive(Default)]
struct FaultyParts {
    store: Arc<InMemory>,
    sent: Mutex<Vec<usize>>,
    /// Number of parts that are taken before the connection is lost.
    taken: AtomicUsize,
    lost: Mutex<Option<MultipartId>>,
}

#[async_trait]
impl MultipartStore for FaultyParts {
    async fn create_multipart(&self, path: &ObjectPath) -> object_store::Result<MultipartId> {
        self.store.create_multipart(path).await
    }

    async fn put_part(
        &self,
        path: &ObjectPath,
        id: &MultipartId,
        index: usize,
        data: PutPayload,
    ) -> object_store::Result<PartId> {
        if self.lost.lock().as_ref() == Some(id) {
            return Err(object_store::Error::NotFound {
                path: path.to_string(),
                source: "NoSuchUpload".into(),
            });
        }
        self.sent.lock().push(index);
        let take = |taken: usize| taken.checked_sub(1);
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if taken.is_err() {
            return Err(object_store::Error::Generic {
                store: "test",
                source: "connection reset".into(),
            });
        }
        self.store.put_part(path, id, index, data).await
    }

    async fn complete_multipart(
        &self,
        path: &ObjectPath,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> object_store::Result<PutResult> {
        self.store.complete_multipart(path, id, parts).await
    }

    async fn abort_multipart(
        &self,
        path: &ObjectPath,
        id: &MultipartId,
    ) -> object_store::Result<()> {
        self.store.abort_multipart(path, id).await
    }
}

struct Bucket {
    store: Arc<InMemory>,
    parts: Arc<FaultyParts>,
    importer: OriginImporter,
    folder: TempDir,
}

impl Bucket {
    fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let parts = Arc::new(FaultyParts {
            store: Arc::clone(&store),
            taken: usize::MAX.into(),
            ..FaultyParts::default()
        });
        let origin =
            Origin::from_writable_store(Arc::clone(&store) as _, Arc::clone(&parts) as _, "a/b");
        let folder = tempfile::tempdir().unwrap();
        let journals = UploadJournals::new(folder.path(), &"s3://bucket/a/b".parse().unwrap());
        let importer = OriginImporter::new(origin).unwrap().with_journals(journals);
        Bucket {
            store,
            parts,
            importer,
            folder,
        }
    }

    fn file(&self, content: &[u8]) -> HashedFile {
        let path = self.folder.path().join("source");
        fs::write(&path, content).unwrap();
        HashedFile::read(&path, self.folder.path()).unwrap()
    }

    async fn add(&self, content: &[u8]) -> super::UploadedMedia {
        self.importer
            .add(&self.file(content), &|_| ())
            .await
            .unwrap()
    }

    async fn content(&self, id: &ContentId) -> Option<Bytes> {
        let path = format!("a/b/{}", id.path().display());
        let result = self.store.get(&path.into()).await.ok()?;
        Some(result.bytes().await.unwrap())
    }

    async fn put(&self, path: impl AsRef<std::path::Path>, content: &[u8]) {
        let path = format!("a/b/{}", path.as_ref().display());
        self.store
            .put(&path.into(), content.to_vec().into())
            .await
            .unwrap();
    }

    async fn delete(&self, path: std::path::PathBuf) {
        let path = format!("a/b/{}", path.display());
        self.store.delete(&path.into()).await.unwrap();
    }

    async fn listed(&self) -> Vec<Result<ContentId, String>> {
        let mut listed = Vec::new();
        let found = |media: Result<millpond::store::StoredMedia, VerifiedEntry>| {
            listed.push(match media {
                Ok(media) => Ok(media.id),
                Err(entry) => Err(entry.corruption.unwrap().to_string()),
            });
            Ok::<_, FetchError>(())
        };
        self.importer.list(found).await.unwrap();
        listed
    }

    async fn access(&self, id: &ContentId) -> Access {
        self.importer.access_of_original(id).await.unwrap()
    }
}

#[tokio::test]
async fn added_media_has_the_layout_of_a_folder_and_its_content() {
    let bucket = Bucket::new();
    for content in [b"".to_vec(), PNG.to_vec(), long()] {
        let total = std::sync::atomic::AtomicU64::new(0);
        let progress = |bytes| {
            total.fetch_add(bytes, Ordering::Relaxed);
        };
        let file = bucket.file(&content);
        let added = bucket.importer.add(&file, &progress).await.unwrap();
        assert_eq!(total.into_inner(), content.len() as u64);
        assert!(!added.media.already_present);
        assert_eq!(added.media.record.size, content.len() as u64);
        assert_eq!(bucket.content(&added.media.id).await.unwrap(), content);
        let again = bucket.add(&content).await;
        assert!(again.media.already_present);
        assert_eq!(again.media.record, added.media.record);
    }
    assert_eq!(bucket.parts.sent.lock().len(), 4);
    let names = bucket.listed().await;
    assert_eq!(names.len(), 3);
    assert!(names.iter().all(Result::is_ok), "{names:?}");
    // A folder's command reads the same store.
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let id = name.unwrap();
        for path in [id.path(), id.record_path()] {
            let target = folder.path().join(&path);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            let object = format!("a/b/{}", path.display()).into();
            let bytes = bucket
                .store
                .get(&object)
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
            fs::write(target, bytes).unwrap();
        }
    }
    let mut ok = 0;
    let count = |entry: VerifiedEntry| {
        assert!(entry.corruption.is_none(), "{entry:?}");
        ok += 1;
    };
    millpond::store::verify(folder.path(), |_| (), count).unwrap();
    assert_eq!(ok, 3);
}

#[tokio::test]
async fn an_interrupted_upload_sends_the_missing_parts_only() {
    let bucket = Bucket::new();
    let content = long();
    bucket.parts.taken.store(2, Ordering::Relaxed);
    let file = bucket.file(&content);
    let error = bucket.importer.add(&file, &|_| ()).await.unwrap_err();
    assert!(matches!(error, OriginImportError::Fetch { .. }), "{error}");
    assert_eq!(bucket.content(&file.id()).await, None);
    assert!(bucket.listed().await.is_empty());

    bucket.parts.taken.store(usize::MAX, Ordering::Relaxed);
    bucket.parts.sent.lock().clear();
    let added = bucket.add(&content).await;
    assert_eq!(bucket.parts.sent.lock().len(), 2);
    assert_eq!(added.resumed_bytes, 16 * 1024 * 1024);
    assert_eq!(bucket.content(&added.media.id).await.unwrap(), content);
}

#[tokio::test]
async fn an_upload_that_the_store_has_no_more_begins_anew() {
    let bucket = Bucket::new();
    let content = long();
    bucket.parts.taken.store(2, Ordering::Relaxed);
    let file = bucket.file(&content);
    bucket.importer.add(&file, &|_| ()).await.unwrap_err();
    let journals = UploadJournals::new(bucket.folder.path(), &"s3://bucket/a/b".parse().unwrap());
    let lost = journals
        .journal(&file)
        .unwrap()
        .upload_id()
        .map(str::to_owned);
    *bucket.parts.lost.lock() = Some(lost.unwrap());
    bucket.parts.taken.store(usize::MAX, Ordering::Relaxed);
    let added = bucket.add(&content).await;
    assert_eq!(added.resumed_bytes, 0);
    assert_eq!(bucket.content(&added.media.id).await.unwrap(), content);
    assert_eq!(fs::read_dir(journals.folder()).unwrap().count(), 0);
}

#[tokio::test]
async fn content_of_an_add_that_was_killed_before_its_record_is_not_sent_again() {
    let bucket = Bucket::new();
    let content = long();
    let id = bucket.add(&content).await.media.id;
    bucket.delete(id.record_path()).await;
    let file = bucket.file(&content);
    let journals = UploadJournals::new(bucket.folder.path(), &"s3://bucket/a/b".parse().unwrap());
    let mut journal = journals.journal(&file).unwrap();
    journal.begin("upload").unwrap();
    for index in 0..4 {
        journal.add_part(index, "tag".into()).unwrap();
    }
    journal.complete().unwrap();
    drop(journal);
    bucket.parts.sent.lock().clear();
    assert_eq!(bucket.add(&content).await.media.id, id);
    assert!(bucket.parts.sent.lock().is_empty());
    assert_eq!(bucket.listed().await, [Ok(id)]);
}

#[tokio::test]
async fn content_that_is_not_whole_is_sent_again_and_stays_private() {
    let bucket = Bucket::new();
    let id = bucket.add(PNG).await.media.id;
    bucket.importer.unpublish(&id).await.unwrap();
    for (path, damage) in [(id.path(), &b"x"[..]), (id.record_path(), b"{")] {
        bucket.put(path, damage).await;
        let added = bucket.add(PNG).await.media;
        assert!(!added.already_present);
        assert_eq!(added.access_before, Some(Access::Private));
        assert_eq!(bucket.access(&id).await, Access::Private);
        assert_eq!(bucket.content(&id).await.unwrap(), PNG);
    }
}

#[tokio::test]
async fn content_that_another_program_changes_meanwhile_does_not_become_visible() {
    let bucket = Bucket::new();
    let importer = bucket.importer.clone().reading_back();
    let content = long();
    let file = bucket.file(&content);
    // The parts that an interrupted upload is said to have sent are others.
    let journals = UploadJournals::new(bucket.folder.path(), &"s3://bucket/a/b".parse().unwrap());
    let object = ObjectPath::from("a/b/other");
    let upload_id = bucket.store.create_multipart(&object).await.unwrap();
    let mut journal = journals.journal(&file).unwrap();
    journal.begin(&upload_id).unwrap();
    for index in 0..4 {
        let bytes = usize::try_from(file.bytes_of_part(index)).unwrap();
        let part = vec![0; bytes].into();
        bucket
            .store
            .put_part(&object, &upload_id, index, part)
            .await
            .unwrap();
        journal.add_part(index, String::new()).unwrap();
    }
    drop(journal);
    let error = importer.add(&file, &|_| ()).await.unwrap_err();
    assert!(
        matches!(error, OriginImportError::OtherContent(_)),
        "{error}"
    );
    assert!(bucket.listed().await.is_empty());
    // The next run sends it anew.
    importer.add(&file, &|_| ()).await.unwrap();
    assert_eq!(bucket.content(&file.id()).await.unwrap(), content);
}

#[tokio::test]
async fn variants_of_private_media_are_private_and_nothing_points_to_removed_media() {
    let bucket = Bucket::new();
    let (original, variant) = (bucket.add(b"original").await, bucket.add(b"variant").await);
    let (original, variant) = (original.media, variant.media);
    let importer = &bucket.importer;
    let narrowed = importer
        .add_variant(&original.id, &variant, Some("br"))
        .await
        .unwrap();
    assert_eq!(narrowed, []);
    let unpublished = importer.unpublish(&original.id).await.unwrap();
    assert_eq!(unpublished.narrowed_variants, [variant.id]);
    assert_eq!(bucket.access(&variant.id).await, Access::Private);
    let published = importer.publish(&original.id).await.unwrap();
    assert_eq!(published.access_before, Access::Private);
    assert_eq!(published.private_variants, [variant.id]);
    let private = importer.clone().private();
    let again = private
        .add(&bucket.file(b"original"), &|_| ())
        .await
        .unwrap();
    assert_eq!(again.media.access_before, Some(Access::Public));
    assert_eq!(again.media.record.access, Access::Private);

    let mut told = Vec::new();
    let ids = HashSet::from([variant.id]);
    let tell = |original, variant| told.push((original, variant));
    importer.remove_references(&ids, tell).await.unwrap();
    assert_eq!(told, [(original.id, variant.id)]);
    assert_eq!(importer.remove(&variant.id).await.unwrap().size, 7);
    assert_eq!(bucket.content(&variant.id).await, None);
    let error = importer.remove(&variant.id).await.unwrap_err();
    assert!(
        matches!(error, OriginImportError::Import(ImportError::NotFound(_))),
        "{error}"
    );
    assert_eq!(bucket.listed().await, [Ok(original.id)]);
}

#[tokio::test]
async fn every_kind_of_corruption_is_found() {
    let bucket = Bucket::new();
    bucket.put("named.gif", b"").await;
    bucket.put("films/named.json", b"").await;
    let valid = bucket.add(b"valid").await.media.id;
    let changed = bucket.add(b"changed").await.media.id;
    bucket.put(changed.path(), b"Changed").await;
    let unrecorded = bucket.add(b"unrecorded").await.media.id;
    bucket.delete(unrecorded.record_path()).await;
    let garbled = bucket.add(b"garbled").await.media.id;
    bucket.put(garbled.record_path(), &[b' '; 20_000]).await;
    let lost = bucket.add(b"lost").await.media.id;
    bucket.delete(lost.path()).await;
    let original = bucket.add(b"original").await.media.id;
    let variant = bucket.add(b"variant").await.media;
    bucket
        .importer
        .add_variant(&original, &variant, None)
        .await
        .unwrap();
    bucket.importer.remove(&variant.id).await.unwrap();

    let (mut whole, mut corruptions) = (HashSet::new(), Vec::new());
    let found = |entry: VerifiedEntry| match entry.corruption {
        None => drop(whole.insert(entry.path)),
        Some(corruption) => corruptions.push((entry.path, corruption.to_string())),
    };
    bucket
        .importer
        .verify(&|_| (), &|_| (), found)
        .await
        .unwrap();
    assert_eq!(whole, HashSet::from([valid.path(), original.path()]));
    for (path, message) in [
        (changed.path(), "another digest"),
        (unrecorded.path(), "record is missing"),
        (garbled.path(), "record is corrupt"),
        (lost.record_path(), "content of the record is missing"),
        (original.record_path(), "the variant"),
    ] {
        let position = corruptions
            .iter()
            .position(|(found, text)| *found == path && text.contains(message));
        assert!(position.is_some(), "{message} in {corruptions:?}");
        corruptions.remove(position.unwrap());
    }
    assert!(corruptions.is_empty(), "{corruptions:?}");
    let listed = bucket.listed().await;
    assert_eq!(
        listed.iter().filter(|media| media.is_err()).count(),
        2,
        "{listed:?}"
    );
}

#[tokio::test]
async fn changes_of_one_record_at_the_same_time_are_all_kept() {
    let bucket = Bucket::new();
    let original = bucket.add(b"original").await.media.id;
    let mut variants = Vec::new();
    for number in 0..8 {
        variants.push(
            bucket
                .add(format!("variant {number}").as_bytes())
                .await
                .media,
        );
    }
    let add = |variant| bucket.importer.add_variant(&original, variant, None);
    let added = futures_util::future::try_join_all(variants.iter().map(add)).await;
    added.unwrap();
    let found = super::records::find(&bucket.importer.origin, &original)
        .await
        .unwrap();
    assert_eq!(found.record().unwrap().variants.len(), 8);
}

#[test]
fn an_origin_without_uploads_is_refused() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let refused = OriginImporter::new(Origin::from_object_store(store, ""));
    assert!(matches!(refused, Err(OriginImportError::NotWritable)));
}
