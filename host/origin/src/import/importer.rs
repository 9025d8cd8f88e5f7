//! Importer: adds media to object storage, and changes its access and its variants.

use crate::fetch::{FetchError, HeadResponse};
use crate::import::content_digest::digest;
use crate::import::error::{OriginImportError, failed};
use crate::import::hashed_file::HashedFile;
use crate::import::records::{self, FoundRecord};
use crate::import::upload::Uploader;
use crate::import::upload_journal::UploadJournals;
use crate::object_path::object_path;
use crate::origin::Origin;
use millpond::store::{
    Access, ContentId, ImportError, ImportedMedia, ObjectKey, PublishedMedia, UnpublishedMedia,
};
use millpond_format::{MAX_VARIANTS, Record, Variant};
use std::collections::HashSet;
use std::time::SystemTime;

/// Imports files into object storage, and changes what is there. Clones share their memory for parts.
///
/// Object storage has no lock. A record is replaced on the condition that it is the one that was read. So several programs
/// may change the same store, if the service knows `If-Match` and `If-None-Match` for `PUT`.
#[derive(Debug, Clone)]
pub struct OriginImporter {
    pub(super) origin: Origin,
    uploader: Uploader,
    access: Access,
    reads_back: bool,
}

/// Media that was added to object storage.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadedMedia {
    /// The media.
    pub media: ImportedMedia,
    /// Bytes that an interrupted upload had sent, and that were not sent again.
    pub resumed_bytes: u64,
}

impl OriginImporter {
    /// Returns an importer into an origin. Nothing is sent yet.
    ///
    /// # Errors
    /// [`OriginImportError::NotWritable`] if it is no object storage.
    pub fn new(origin: Origin) -> Result<Self, OriginImportError> {
        if origin.multipart_store().is_none() {
            return Err(OriginImportError::NotWritable);
        }
        Ok(OriginImporter {
            uploader: Uploader::new(origin.clone()),
            origin,
            access: Access::Public,
            reads_back: false,
        })
    }

    /// Keeps journals, by which an interrupted upload is resumed. Without them it begins anew.
    #[must_use]
    pub fn with_journals(mut self, journals: UploadJournals) -> Self {
        self.uploader = self.uploader.with_journals(journals);
        self
    }

    /// Makes the imported media private. Media that is in the store already becomes private too, with its variants.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.access = Access::Private;
        self
    }

    /// Reads content back after it was sent, and compares its digest, before it becomes visible.
    #[must_use]
    pub fn reading_back(mut self) -> Self {
        self.reads_back = true;
        self
    }

    /// Adds a file. Content that is in the store with this length and a valid record is not sent, and keeps its record. Its
    /// access may become private, but never public.
    ///
    /// The content goes first, the record last. The service compares each part with its signed SHA-256, if the origin is S3
    /// and the requests are signed. Then the length is compared, and with [`reading_back`](Self::reading_back) the digest.
    /// `progress` receives the number of bytes of each step.
    ///
    /// # Errors
    /// [`OriginImportError`]. No media has become visible then. Parts that were sent are known to the journal.
    pub async fn add(
        &self,
        file: &HashedFile,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<UploadedMedia, OriginImportError> {
        let (id, size) = (file.id(), file.length());
        let found = records::find(&self.origin, &id).await?;
        let mut uploaded = match found {
            FoundRecord::Valid(record, _)
                if record.size == size && self.content_bytes(&id).await? == Some(size) =>
            {
                progress(size);
                let mut media = ImportedMedia::new(id, record);
                media.access_before = Some(media.record.access);
                media.already_present = true;
                UploadedMedia {
                    media,
                    resumed_bytes: 0,
                }
            }
            _ => self.send(file, progress).await?,
        };
        let media = &mut uploaded.media;
        if self.access == Access::Private {
            media.narrowed_variants = self.narrow(id).await?;
            media.narrowed_variants.retain(|narrowed| *narrowed != id);
            media.record.access = Access::Private;
        }
        Ok(uploaded)
    }

    async fn send(
        &self,
        file: &HashedFile,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<UploadedMedia, OriginImportError> {
        let (id, size) = (file.id(), file.length());
        let upload = self.uploader.send(file, progress).await?;
        let sent = self.check_content(&id, size).await;
        if let Err(error) = sent {
            // The next run sends the content anew.
            if let Some(journal) = upload.journal {
                journal.finish()?;
            }
            return Err(error);
        }
        let mut new = None;
        let found = records::change(&self.origin, &id, |found| {
            let record = match found {
                FoundRecord::Valid(record, _) if record.size == size => {
                    new = Some(record.clone());
                    return None;
                }
                found => Record {
                    media_type: file.media_type().to_owned(),
                    size,
                    created: SystemTime::now(),
                    // Private media stays private; only `publish` makes it public.
                    access: match (self.access, access_before(found)) {
                        (Access::Private, _) | (_, Some(Access::Private)) => Access::Private,
                        (Access::Public, _) => Access::Public,
                    },
                    variants: found
                        .record()
                        .map_or(Vec::new(), |old| old.variants.clone()),
                },
            };
            new = Some(record.clone());
            Some(record)
        });
        let found = found.await?;
        if let Some(journal) = upload.journal {
            journal.finish()?;
        }
        let path = object_path(&ObjectKey::Content(id));
        let record = new.ok_or(FetchError::Changed).map_err(failed(&path))?;
        let mut media = ImportedMedia::new(id, record);
        media.access_before = access_before(&found);
        Ok(UploadedMedia {
            media,
            resumed_bytes: upload.resumed_bytes,
        })
    }

    /// Records that `variant` is a variant of `original`: the same media in another format, or compressed.
    ///
    /// A variant of private media becomes private, with its own variants. Returns the media that was public before.
    ///
    /// # Errors
    /// [`ImportError::NoOriginal`], [`ImportError::TooManyVariants`]; [`OriginImportError::Fetch`].
    pub async fn add_variant(
        &self,
        original: &ContentId,
        variant: &ImportedMedia,
        content_coding: Option<&str>,
    ) -> Result<Vec<ContentId>, OriginImportError> {
        let mut narrowed = match self.access_of_original(original).await? {
            Access::Private => self.narrow(variant.id).await?,
            Access::Public => Vec::new(),
        };
        let (mut is_full, mut access) = (false, Access::Public);
        let found = records::change(&self.origin, original, |found| {
            let mut record = found.record().cloned()?;
            record.variants.retain(|other| other.id != variant.id);
            is_full = record.variants.len() >= MAX_VARIANTS;
            access = record.access;
            record.variants.push(Variant {
                id: variant.id,
                // A compressed variant has the media type of the original.
                media_type: match content_coding {
                    Some(_) => record.media_type.clone(),
                    None => variant.record.media_type.clone(),
                },
                content_coding: content_coding.map(str::to_owned),
            });
            (!is_full).then_some(record)
        });
        if found.await?.record().is_none() {
            return Err(ImportError::NoOriginal(*original).into());
        }
        if is_full {
            return Err(ImportError::TooManyVariants(*original).into());
        }
        if access == Access::Private && narrowed.is_empty() {
            // The original may have become private meanwhile.
            narrowed = self.narrow(variant.id).await?;
        }
        Ok(narrowed)
    }

    /// Returns the access of an original, before a variant is added.
    ///
    /// # Errors
    /// [`ImportError::NoOriginal`], [`OriginImportError::Fetch`].
    pub async fn access_of_original(&self, id: &ContentId) -> Result<Access, OriginImportError> {
        let found = records::find(&self.origin, id).await?;
        match found.record() {
            Some(record) => Ok(record.access),
            None => Err(ImportError::NoOriginal(*id).into()),
        }
    }

    /// Makes media public. Its variants keep their access, and need a call each.
    ///
    /// # Errors
    /// [`ImportError::NotFound`], [`OriginImportError::Fetch`].
    pub async fn publish(&self, id: &ContentId) -> Result<PublishedMedia, OriginImportError> {
        let size = self.content_bytes(id).await?;
        let found = records::change(&self.origin, id, |found| {
            let mut record = found.record().cloned()?;
            let is_whole = size == Some(record.size);
            (record.access == Access::Private && is_whole).then(|| {
                record.access = Access::Public;
                record
            })
        });
        let FoundRecord::Valid(mut record, _) = found.await? else {
            return Err(ImportError::NotFound(*id).into());
        };
        if size != Some(record.size) {
            return Err(ImportError::NotFound(*id).into());
        }
        let access_before = record.access;
        record.access = Access::Public;
        let mut published = PublishedMedia::new(record, access_before);
        for variant in &published.record.variants {
            let found = records::find(&self.origin, &variant.id).await?;
            if found
                .record()
                .is_some_and(|record| record.access == Access::Private)
            {
                published.private_variants.push(variant.id);
            }
        }
        Ok(published)
    }

    /// Makes media private, with its variants and theirs.
    ///
    /// # Errors
    /// [`ImportError::NotFound`], [`OriginImportError::Fetch`].
    pub async fn unpublish(&self, id: &ContentId) -> Result<UnpublishedMedia, OriginImportError> {
        let found = records::find(&self.origin, id).await?;
        let Some(mut record) = found.record().cloned() else {
            return Err(ImportError::NotFound(*id).into());
        };
        let access_before = record.access;
        record.access = Access::Private;
        let mut unpublished = UnpublishedMedia::new(record, access_before);
        unpublished.narrowed_variants = self.narrow(*id).await?;
        unpublished
            .narrowed_variants
            .retain(|narrowed| narrowed != id);
        Ok(unpublished)
    }

    /// Makes media private, with its variants and theirs. Returns the media that was public before.
    async fn narrow(&self, id: ContentId) -> Result<Vec<ContentId>, OriginImportError> {
        let mut narrowed = Vec::new();
        // Variants may refer to each other.
        let mut reached = HashSet::from([id]);
        let mut stale = vec![id];
        while let Some(id) = stale.pop() {
            let found = records::change(&self.origin, &id, |found| {
                let mut record = found.record().cloned()?;
                (record.access == Access::Public).then(|| {
                    record.access = Access::Private;
                    record
                })
            });
            // Media without a valid record is not served.
            let FoundRecord::Valid(record, _) = found.await? else {
                continue;
            };
            let variants = record.variants.iter().map(|variant| variant.id);
            stale.extend(variants.filter(|variant| reached.insert(*variant)));
            if record.access == Access::Public {
                narrowed.push(id);
            }
        }
        Ok(narrowed)
    }

    /// Returns the length of content. `None` if there is none.
    pub(super) async fn content_bytes(
        &self,
        id: &ContentId,
    ) -> Result<Option<u64>, OriginImportError> {
        let path = object_path(&ObjectKey::Content(*id));
        match self.origin.head(&path, None).await {
            Ok(HeadResponse::Found(head)) => Ok(Some(head.length)),
            Ok(HeadResponse::NotModified(_)) | Err(FetchError::NotFound) => Ok(None),
            Err(error) => Err(failed(&path)(error)),
        }
    }

    /// Checks that the store has what was sent.
    async fn check_content(&self, id: &ContentId, size: u64) -> Result<(), OriginImportError> {
        let is_same = match self.content_bytes(id).await? {
            Some(found) if found == size && self.reads_back => {
                let path = object_path(&ObjectKey::Content(*id));
                let read = digest(&self.origin, &path, &|_| ()).await;
                read.map_err(failed(&path))? == (size, *id)
            }
            found => found == Some(size),
        };
        match is_same {
            true => Ok(()),
            false => Err(OriginImportError::OtherContent(*id)),
        }
    }
}

/// Returns the access of a record. An unreadable record counts as private.
fn access_before(found: &FoundRecord) -> Option<Access> {
    match found {
        FoundRecord::Missing => None,
        FoundRecord::Corrupt(_) => Some(Access::Private),
        FoundRecord::Valid(record, _) => Some(record.access),
    }
}
