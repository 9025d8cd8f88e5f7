//! Verification of object storage: every content against its id, and every record against its content.

use crate::fetch::FetchError;
use crate::import::content_digest::digest;
use crate::import::importer::OriginImporter;
use crate::import::inventory::unreadable;
use crate::import::listed_media::{ListedMedia, listed_media};
use crate::import::records::{self, FoundRecord};
use crate::object_path::{object_path, record_path};
use futures_util::stream::StreamExt;
use millpond::store::{ContentId, Corruption, ObjectKey, VerifiedEntry};
use std::path::PathBuf;

/// Maximum number of contents that are read at the same time.
const CONTENTS_AT_A_TIME: usize = 8;

impl OriginImporter {
    /// Reads every content and every record, and passes each entry to `found`, as [`millpond::store::verify`] does for a
    /// folder. Named files are left out. `listed` receives the length of each content before it is read, and `progress` the
    /// number of bytes of each step.
    ///
    /// # Errors
    /// [`FetchError`] if the origin cannot be listed.
    pub async fn verify(
        &self,
        listed: &(dyn Fn(u64) + Sync),
        progress: &(dyn Fn(u64) + Sync),
        mut found: impl FnMut(VerifiedEntry),
    ) -> Result<(), FetchError> {
        let entries = listed_media(&self.origin).map(|media| async move {
            let media = media?;
            listed(media.content_bytes.unwrap_or(0));
            Ok::<_, FetchError>(self.verify_media(media, progress).await)
        });
        let mut entries = entries.buffered(CONTENTS_AT_A_TIME);
        while let Some(verified) = entries.next().await {
            verified?.into_iter().for_each(&mut found);
        }
        Ok(())
    }

    async fn verify_media(
        &self,
        media: ListedMedia,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Vec<VerifiedEntry> {
        let id = media.id;
        let record = records::find(&self.origin, &id).await;
        let of_content = match media.content_bytes {
            Some(_) => {
                let read = self.verify_content(&id, progress).await;
                read.map(|(size, digest)| {
                    let corruption = digest.or_else(|| match &record {
                        Ok(FoundRecord::Valid(record, _)) if record.size == size => None,
                        Ok(FoundRecord::Missing) => Some(Corruption::NoRecord),
                        Ok(_) => Some(Corruption::Record),
                        Err(error) => Some(unreadable(error.to_string())),
                    });
                    let path = PathBuf::from(object_path(&ObjectKey::Content(id)));
                    VerifiedEntry::new(path, size, corruption)
                })
            }
            None => None,
        };
        let of_record = match media.has_record {
            true => self.verify_record(media, record.ok().as_ref()).await,
            false => Vec::new(),
        };
        let of_record = of_record.into_iter().map(|corruption| {
            VerifiedEntry::new(PathBuf::from(record_path(&id)), 0, Some(corruption))
        });
        of_content.into_iter().chain(of_record).collect()
    }

    /// Reads content. `None` if it was removed meanwhile.
    async fn verify_content(
        &self,
        id: &ContentId,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Option<(u64, Option<Corruption>)> {
        let path = object_path(&ObjectKey::Content(*id));
        match digest(&self.origin, &path, progress).await {
            Ok((size, found)) if found == *id => Some((size, None)),
            Ok((size, found)) => Some((size, Some(Corruption::Digest(found)))),
            Err(FetchError::NotFound) => None,
            Err(error) => Some((0, Some(unreadable(error)))),
        }
    }

    /// Returns corruptions that are not visible from the content: missing content, and missing variants.
    async fn verify_record(
        &self,
        media: ListedMedia,
        record: Option<&FoundRecord>,
    ) -> Vec<Corruption> {
        if media.content_bytes.is_none() {
            match self.content_bytes(&media.id).await {
                Ok(Some(_)) => {}
                Ok(None) if matches!(record, Some(FoundRecord::Missing)) => return Vec::new(),
                Ok(None) => return vec![Corruption::NoContent],
                Err(error) => return vec![unreadable(error)],
            }
        }
        let mut corruptions = Vec::new();
        // An unreadable record is reported with its content.
        let record = record.and_then(FoundRecord::record);
        for variant in record.into_iter().flat_map(|record| &record.variants) {
            match self.content_bytes(&variant.id).await {
                Ok(Some(_)) => {}
                Ok(None) => corruptions.push(Corruption::NoVariant(variant.id)),
                Err(error) => corruptions.push(unreadable(error)),
            }
        }
        corruptions
    }
}
