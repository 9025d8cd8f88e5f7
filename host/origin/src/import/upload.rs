//! Upload of content: small content by one request, other content in parts, several at a time.

use crate::fetch::FetchError;
use crate::import::error::{OriginImportError, failed};
use crate::import::hashed_file::HashedFile;
use crate::import::upload_journal::{UploadJournal, UploadJournals};
use crate::object_path::object_path;
use crate::origin::{Origin, fetch_error};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use millpond::store::ObjectKey;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as ObjectPath;
use object_store::{Attribute, Attributes, PutMultipartOptions, PutOptions, PutPayload};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Maximum memory of parts that are sent at the same time, of all files together, in mebibytes. It has room for the largest
/// part.
const PARTS_MEMORY_MIB: u32 = 128;

/// Maximum number of parts of one file that are sent at the same time.
const PARTS_AT_A_TIME: usize = 8;

/// Sends content to a store.
#[derive(Debug, Clone)]
pub(super) struct Uploader {
    origin: Origin,
    journals: Option<Arc<UploadJournals>>,
    memory: Arc<Semaphore>,
}

/// Content that was sent.
#[derive(Debug)]
pub(super) struct SentContent {
    /// Journal, which is removed when the media is visible. `None` for content of one part.
    pub(super) journal: Option<UploadJournal>,
    /// Bytes that an interrupted upload had sent.
    pub(super) resumed_bytes: u64,
}

/// The error of a try.
enum UploadFailure {
    /// The store has the interrupted upload no more.
    Stale,
    Other(OriginImportError),
}

impl Uploader {
    pub(super) fn new(origin: Origin) -> Self {
        Uploader {
            origin,
            journals: None,
            memory: Arc::new(Semaphore::new(PARTS_MEMORY_MIB as usize)),
        }
    }

    pub(super) fn with_journals(self, journals: UploadJournals) -> Self {
        Uploader {
            journals: Some(Arc::new(journals)),
            ..self
        }
    }

    /// Sends the content of a file. `progress` receives the number of bytes of each step, those of an interrupted upload
    /// too.
    ///
    /// # Errors
    /// [`OriginImportError`].
    pub(super) async fn send(
        &self,
        file: &HashedFile,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<SentContent, OriginImportError> {
        let path = object_path(&ObjectKey::Content(file.id()));
        if file.part_count() <= 1 {
            self.send_whole(file, &path).await?;
            progress(file.length());
            return Ok(SentContent {
                journal: None,
                resumed_bytes: 0,
            });
        }
        let mut journal = match &self.journals {
            Some(journals) => journals.journal(file)?,
            None => UploadJournal::unwritten(file),
        };
        let is_resumed = journal.upload_id().is_some();
        match self.send_parts(file, &path, &mut journal, progress).await {
            Ok(resumed_bytes) => Ok(SentContent {
                journal: Some(journal),
                resumed_bytes,
            }),
            Err(UploadFailure::Stale) if is_resumed => {
                journal.forget()?;
                // The bytes of the interrupted upload were counted, and are sent again.
                let sent = self.send_parts(file, &path, &mut journal, &|_| ()).await;
                sent.map_err(|failure| failure.error(&path))?;
                Ok(SentContent {
                    journal: Some(journal),
                    resumed_bytes: 0,
                })
            }
            Err(failure) => Err(failure.error(&path)),
        }
    }

    /// Sends content of one part.
    async fn send_whole(&self, file: &HashedFile, path: &str) -> Result<(), OriginImportError> {
        let _permit = self.memory(file, 0).await;
        let bytes = match file.part_count() {
            0 => Bytes::new(),
            _ => file.read_part(0).await?,
        };
        let object = self.origin.path(path).map_err(failed(path))?;
        let options = PutOptions {
            attributes: attributes(file),
            ..PutOptions::default()
        };
        let store = self.origin.object_store();
        let put = store.put_opts(&object, bytes.into(), options).await;
        put.map_err(fetch_error).map_err(failed(path))?;
        Ok(())
    }

    /// Sends the parts that the store lacks, and has them put together. Returns the number of bytes that it had.
    async fn send_parts(
        &self,
        file: &HashedFile,
        path: &str,
        journal: &mut UploadJournal,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, UploadFailure> {
        let store = self.origin.multipart_store();
        let store = store.ok_or(OriginImportError::NotWritable)?;
        let object = self.origin.path(path).map_err(failed(path))?;
        let upload_id = match journal.upload_id() {
            Some(upload_id) => upload_id.to_owned(),
            None => {
                let upload_id = create(store, &object, file).await;
                let upload_id = upload_id.map_err(fetch_error).map_err(failed(path))?;
                journal.begin(&upload_id)?;
                upload_id
            }
        };
        let sent = journal.parts().keys();
        let resumed_bytes = sent.map(|index| file.bytes_of_part(*index)).sum();
        progress(resumed_bytes);
        if journal.is_complete() {
            return Ok(resumed_bytes);
        }
        let missing = (0..file.part_count()).filter(|index| !journal.parts().contains_key(index));
        let missing: Vec<usize> = missing.collect();
        let (object, upload_id) = (&object, &upload_id);
        let has_failed = &AtomicBool::new(false);
        let mut sending = stream::iter(missing)
            .map(|index| async move {
                let _permit = self.memory(file, index).await;
                if has_failed.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let payload = PutPayload::from(file.read_part(index).await?);
                let part = store.put_part(object, upload_id, index, payload).await;
                let part = part.map_err(|error| UploadFailure::of(error, path))?;
                Ok::<_, UploadFailure>(Some((index, part)))
            })
            .buffer_unordered(PARTS_AT_A_TIME);
        let mut failure = None;
        // After a failure the parts on their way are waited for, so that the next run does not send them again.
        while let Some(sent) = sending.next().await {
            match sent {
                Ok(Some((index, part))) => {
                    journal.add_part(index, part.content_id)?;
                    progress(file.bytes_of_part(index));
                }
                Ok(None) => {}
                Err(error) => {
                    has_failed.store(true, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
        }
        drop(sending);
        if let Some(failure) = failure {
            return Err(failure);
        }
        let parts = part_ids(journal.parts());
        let completed = store.complete_multipart(object, upload_id, parts).await;
        completed.map_err(|error| UploadFailure::of(error, path))?;
        journal.complete()?;
        Ok(resumed_bytes)
    }

    /// Waits for the memory of a part.
    async fn memory(&self, file: &HashedFile, index: usize) -> Option<SemaphorePermit<'_>> {
        let mebibytes = file.bytes_of_part(index).div_ceil(1024 * 1024);
        let mebibytes = u32::try_from(mebibytes).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let permits = self.memory.acquire_many(mebibytes.min(PARTS_MEMORY_MIB));
        permits.await.ok()
    }
}

impl UploadFailure {
    fn of(error: object_store::Error, path: &str) -> Self {
        match is_stale(&error) {
            true => UploadFailure::Stale,
            false => UploadFailure::Other(failed(path)(fetch_error(error))),
        }
    }

    fn error(self, path: &str) -> OriginImportError {
        match self {
            UploadFailure::Stale => {
                let text = "the store has the upload no more".to_owned();
                failed(path)(FetchError::Unavailable(text))
            }
            UploadFailure::Other(error) => error,
        }
    }
}

impl From<OriginImportError> for UploadFailure {
    fn from(error: OriginImportError) -> Self {
        UploadFailure::Other(error)
    }
}

/// Returns whether the store has the upload, or a part of it, no more. S3 says 404 (`NoSuchUpload`) or 400 (`InvalidPart`),
/// and Azure 400 (`InvalidBlockList`).
fn is_stale(error: &object_store::Error) -> bool {
    let text = || error.to_string();
    matches!(error, object_store::Error::NotFound { .. })
        || ["NoSuchUpload", "InvalidPart", "InvalidBlockList"]
            .iter()
            .any(|code| text().contains(code))
}

/// Begins an upload. A store that takes no media type for it, as Azure, has none for the object; the record has it.
async fn create(
    store: &dyn MultipartStore,
    object: &ObjectPath,
    file: &HashedFile,
) -> object_store::Result<String> {
    let options = PutMultipartOptions {
        attributes: attributes(file),
        ..PutMultipartOptions::default()
    };
    match store.create_multipart_opts(object, options).await {
        Err(object_store::Error::NotSupported { .. }) => store.create_multipart(object).await,
        created => created,
    }
}

fn attributes(file: &HashedFile) -> Attributes {
    let media_type = file.media_type().to_owned();
    Attributes::from_iter([(Attribute::ContentType, media_type)])
}

fn part_ids(parts: &BTreeMap<usize, String>) -> Vec<PartId> {
    let parts = parts.values();
    let part_id = |content_id: &String| PartId {
        content_id: content_id.clone(),
    };
    parts.map(part_id).collect()
}
