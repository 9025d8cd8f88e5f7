//! Removal of media from a store: references to it, its record, and then its content.

use super::import::{ImportError, Importer, StoredRecord, sync_folder, write_error};
use super::inventory::Inventory;
use millpond_format::ContentId;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

/// Media that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemovedMedia {
    /// Length of the content, in bytes.
    pub size: u64,
    /// Variants of the media, which stay in the store.
    pub variants: Vec<ContentId>,
}

impl RemovedMedia {
    /// Returns removed media, for a store that is no folder.
    #[must_use]
    pub fn new(size: u64, variants: Vec<ContentId>) -> Self {
        RemovedMedia { size, variants }
    }
}

impl Importer {
    /// Removes media from the variants of other media, so that no record points to it. Reads all records, and passes
    /// each media that had such a variant to `found`, with the variant.
    ///
    /// # Errors
    /// [`ImportError::Read`], [`ImportError::Write`].
    pub fn remove_references(
        &self,
        ids: &HashSet<ContentId>,
        mut found: impl FnMut(ContentId, ContentId),
    ) -> Result<(), ImportError> {
        let media = Inventory::open(&self.root).map_err(write_error(&self.root))?;
        for original in media.flatten() {
            let mut variants = original.record.variants.iter();
            if ids.contains(&original.id) || !variants.any(|variant| ids.contains(&variant.id)) {
                continue;
            }
            let lock = self.lock()?;
            // The record may have changed meanwhile.
            let StoredRecord::Record(mut record) = self.find(&original.id)? else {
                continue;
            };
            let (gone, left) = record
                .variants
                .into_iter()
                .partition(|variant| ids.contains(&variant.id));
            record.variants = left;
            self.change(&lock, &original.id, &record)?;
            let gone: Vec<millpond_format::Variant> = gone;
            for variant in gone {
                found(original.id, variant.id);
            }
        }
        Ok(())
    }

    /// Removes media: first the record, so that the media is never served in part, and then the content. Responses in
    /// progress are sent to their end.
    ///
    /// # Errors
    /// [`ImportError::NotFound`] if there is neither; [`ImportError::Read`], [`ImportError::Write`].
    pub fn remove(&self, id: &ContentId) -> Result<RemovedMedia, ImportError> {
        let _lock = self.lock()?;
        let variants = match self.find(id)? {
            StoredRecord::Record(record) => record.variants,
            StoredRecord::Missing | StoredRecord::Corrupt => Vec::new(),
        };
        let content = self.root.join(id.path());
        let size = fs::metadata(&content).map_or(0, |metadata| metadata.len());
        let had_record = remove_durably(&self.root.join(id.record_path()))?;
        let had_content = remove_durably(&content)?;
        if !had_record && !had_content {
            return Err(ImportError::NotFound(*id));
        }
        Ok(RemovedMedia {
            size,
            variants: variants.into_iter().map(|variant| variant.id).collect(),
        })
    }
}

/// Removes a file, so that it is gone after a crash. Returns whether it was there.
fn remove_durably(path: &Path) -> Result<bool, ImportError> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        removed => removed,
    };
    let folder = path.parent().unwrap_or(path);
    let removed = removed.and_then(|()| sync_folder(folder));
    removed.map_err(write_error(path)).map(|()| true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_points_to_media_that_was_removed() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("store");
        let importer = Importer::open(&store).unwrap();
        let add = |content: &str| {
            let source = root.path().join("source");
            fs::write(&source, content).unwrap();
            importer.add(&source, |_| ()).unwrap()
        };
        let (original, variant) = (add("original"), add("variant"));
        let own = add("variant of the variant");
        importer.add_variant(&original.id, &variant, None).unwrap();
        importer.add_variant(&variant.id, &own, None).unwrap();

        let mut told = Vec::new();
        let ids = HashSet::from([variant.id]);
        let tell = |original, variant| told.push((original, variant));
        importer.remove_references(&ids, tell).unwrap();
        assert_eq!(told, [(original.id, variant.id)]);
        let removed = importer.remove(&variant.id).unwrap();
        assert_eq!((removed.size, removed.variants), (7, vec![own.id]));
        assert!(!store.join(variant.id.path()).exists());
        assert!(!store.join(variant.id.record_path()).exists());

        let mut corruptions = 0;
        let count = |entry: crate::store::VerifiedEntry| {
            corruptions += u32::from(entry.corruption.is_some());
        };
        crate::store::verify(&store, |_| (), count).unwrap();
        assert_eq!(corruptions, 0);
        let error = importer.remove(&variant.id).unwrap_err();
        assert!(matches!(error, ImportError::NotFound(_)), "{error}");
    }

    #[test]
    fn half_of_media_can_be_removed_too() {
        let root = tempfile::tempdir().unwrap();
        let importer = Importer::open(root.path()).unwrap();
        let source = root.path().join("source");
        for half in [ContentId::path, ContentId::record_path] {
            fs::write(&source, "content").unwrap();
            let id = importer.add(&source, |_| ()).unwrap().id;
            fs::remove_file(root.path().join(half(&id))).unwrap();
            importer.remove(&id).unwrap();
        }
    }
}
