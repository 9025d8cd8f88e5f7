//! Store that a command changes: a folder, or object storage.

use crate::media_location::MediaLocation;
#[cfg(feature = "origin")]
use crate::origin_session::OriginSession;
use anyhow::{Result, ensure};
use millpond::store::{ContentId, Importer, PublishedMedia, RemovedMedia, UnpublishedMedia};
use std::collections::HashSet;

/// Store that a command changes.
pub(crate) enum StoreWriter {
    Folder(Importer),
    #[cfg(feature = "origin")]
    Origin(OriginSession),
}

impl StoreWriter {
    /// Opens a store that exists.
    pub(crate) fn open(location: &MediaLocation) -> Result<Self> {
        match location {
            MediaLocation::Folder(folder) => {
                ensure!(folder.is_dir(), "no store in {}", folder.display());
                Ok(StoreWriter::Folder(Importer::open(folder)?))
            }
            #[cfg(feature = "origin")]
            MediaLocation::Origin(url) => Ok(StoreWriter::Origin(OriginSession::open(url)?)),
        }
    }

    /// Makes media public.
    pub(crate) fn publish(&self, id: &ContentId) -> Result<PublishedMedia> {
        match self {
            StoreWriter::Folder(importer) => Ok(importer.publish(id)?),
            #[cfg(feature = "origin")]
            StoreWriter::Origin(session) => Ok(session.wait(session.importer().publish(id))?),
        }
    }

    /// Makes media private, with its variants and theirs.
    pub(crate) fn unpublish(&self, id: &ContentId) -> Result<UnpublishedMedia> {
        match self {
            StoreWriter::Folder(importer) => Ok(importer.unpublish(id)?),
            #[cfg(feature = "origin")]
            StoreWriter::Origin(session) => Ok(session.wait(session.importer().unpublish(id))?),
        }
    }

    /// Removes media from the variants of other media, and passes both to `found`.
    pub(crate) fn remove_references(
        &self,
        ids: &HashSet<ContentId>,
        found: impl FnMut(ContentId, ContentId),
    ) -> Result<()> {
        match self {
            StoreWriter::Folder(importer) => Ok(importer.remove_references(ids, found)?),
            #[cfg(feature = "origin")]
            StoreWriter::Origin(session) => {
                Ok(session.wait(session.importer().remove_references(ids, found))?)
            }
        }
    }

    /// Removes media.
    pub(crate) fn remove(&self, id: &ContentId) -> Result<RemovedMedia> {
        match self {
            StoreWriter::Folder(importer) => Ok(importer.remove(id)?),
            #[cfg(feature = "origin")]
            StoreWriter::Origin(session) => Ok(session.wait(session.importer().remove(id))?),
        }
    }
}
