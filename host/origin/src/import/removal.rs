//! Removal of media from object storage: references to it, its record, and then its content.

use crate::import::error::{OriginImportError, failed};
use crate::import::importer::OriginImporter;
use crate::import::records::{self, FoundRecord};
use crate::object_path::{object_path, record_path};
use crate::origin::fetch_error;
use futures_util::stream::StreamExt;
use millpond::store::{ContentId, ImportError, ObjectKey, RemovedMedia};
use object_store::ObjectStoreExt;
use std::collections::HashSet;

impl OriginImporter {
    /// Removes media from the variants of other media, so that no record points to it. Reads all records, and passes each
    /// media that had such a variant to `found`, with the variant.
    ///
    /// # Errors
    /// [`OriginImportError::Fetch`].
    pub async fn remove_references(
        &self,
        ids: &HashSet<ContentId>,
        mut found: impl FnMut(ContentId, ContentId),
    ) -> Result<(), OriginImportError> {
        let mut media = self.media();
        while let Some(original) = media.next().await {
            // Media that is not served is left as it is.
            let Ok(original) = original.map_err(failed(""))? else {
                continue;
            };
            let mut variants = original.record.variants.iter();
            if ids.contains(&original.id) || !variants.any(|variant| ids.contains(&variant.id)) {
                continue;
            }
            let changed = records::change(&self.origin, &original.id, |found| {
                let mut record = found.record().cloned()?;
                let before = record.variants.len();
                record.variants.retain(|variant| !ids.contains(&variant.id));
                (record.variants.len() < before).then_some(record)
            });
            let before = changed.await?;
            let variants = before.record().into_iter().flat_map(|old| &old.variants);
            for variant in variants.filter(|variant| ids.contains(&variant.id)) {
                found(original.id, variant.id);
            }
        }
        Ok(())
    }

    /// Removes media: first the record, so that the media is never served in part, and then the content. Servers that have
    /// it in their cache serve it until it leaves that.
    ///
    /// # Errors
    /// [`ImportError::NotFound`] if there is neither; [`OriginImportError::Fetch`].
    pub async fn remove(&self, id: &ContentId) -> Result<RemovedMedia, OriginImportError> {
        let found = records::find(&self.origin, id).await?;
        let size = self.content_bytes(id).await?;
        let had_record = !matches!(found, FoundRecord::Missing);
        if !had_record && size.is_none() {
            return Err(ImportError::NotFound(*id).into());
        }
        if had_record {
            self.delete(&record_path(id)).await?;
        }
        if size.is_some() {
            self.delete(&object_path(&ObjectKey::Content(*id))).await?;
        }
        let variants = found.record().into_iter().flat_map(|old| &old.variants);
        let variants = variants.map(|variant| variant.id).collect();
        Ok(RemovedMedia::new(size.unwrap_or(0), variants))
    }

    async fn delete(&self, path: &str) -> Result<(), OriginImportError> {
        let object = self.origin.path(path).map_err(failed(path))?;
        match self.origin.object_store().delete(&object).await {
            // Another program has removed it.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(path)(fetch_error(error))),
        }
    }
}
