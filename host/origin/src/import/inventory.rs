//! Inventory of object storage: the media that it has, in the order of the listing.

use crate::fetch::FetchError;
use crate::import::error::OriginImportError;
use crate::import::importer::OriginImporter;
use crate::import::listed_media::{ListedMedia, listed_media};
use crate::import::records::{self, FoundRecord};
use crate::object_path::record_path;
use futures_util::stream::{BoxStream, StreamExt};
use millpond::store::{Corruption, StoredMedia, VerifiedEntry};
use std::io;

/// Maximum number of records that are read at the same time.
pub(super) const RECORDS_AT_A_TIME: usize = 16;

impl OriginImporter {
    /// Passes the media, and entries that are not served, to `found`, until that fails. The contents are not read. It holds a
    /// page of the listing and a few records at a time. Services list in the order of the ids.
    ///
    /// # Errors
    /// Errors of `found`; [`FetchError`] if the origin cannot be listed.
    pub async fn list<E: From<FetchError>>(
        &self,
        mut found: impl FnMut(Result<StoredMedia, VerifiedEntry>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut media = self.media();
        while let Some(media) = media.next().await {
            found(media?)?;
        }
        Ok(())
    }

    /// Media, or entries that are not served. The listing may end with an error.
    pub(super) fn media(
        &self,
    ) -> BoxStream<'_, Result<Result<StoredMedia, VerifiedEntry>, FetchError>> {
        let media = listed_media(&self.origin).map(move |listed| async move {
            match listed {
                Ok(listed) if listed.has_record => self.look_up(listed).await.map(Ok),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            }
        });
        let media = media.buffered(RECORDS_AT_A_TIME);
        media.filter_map(|media| async { media }).boxed()
    }

    /// Returns the media of a record. `None` if it was removed meanwhile.
    async fn look_up(&self, listed: ListedMedia) -> Option<Result<StoredMedia, VerifiedEntry>> {
        let id = listed.id;
        let found = match records::find(&self.origin, &id).await {
            Ok(FoundRecord::Missing) => return None,
            Ok(FoundRecord::Corrupt(_)) => Err(Corruption::Record),
            Ok(FoundRecord::Valid(record, _)) => Ok(record),
            Err(error) => Err(unreadable(error)),
        };
        let media = match found {
            Err(corruption) => Err(corruption),
            Ok(record) => match self.bytes_of(listed).await {
                Err(error) => Err(unreadable(error)),
                Ok(None) => Err(Corruption::NoContent),
                Ok(Some(bytes)) if bytes == record.size => Ok(StoredMedia::new(id, record)),
                Ok(Some(_)) => Err(Corruption::Record),
            },
        };
        Some(
            media.map_err(|corruption| {
                VerifiedEntry::new(record_path(&id).into(), 0, Some(corruption))
            }),
        )
    }

    async fn bytes_of(&self, listed: ListedMedia) -> Result<Option<u64>, OriginImportError> {
        match listed.content_bytes {
            Some(bytes) => Ok(Some(bytes)),
            None => self.content_bytes(&listed.id).await,
        }
    }
}

/// Returns the corruption of an object that cannot be read.
pub(super) fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Corruption {
    Corruption::Read(io::Error::other(error))
}
