//! Inventory of a store: the media that it serves, in the order of the ids.

use super::record::read_record;
use super::verify::{Corruption, VerifiedEntry};
use millpond_format::{ContentId, Record};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::vec;

/// Media of a store, with its record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredMedia {
    /// Content id.
    pub id: ContentId,
    /// Record.
    pub record: Record,
}

impl StoredMedia {
    /// Returns media with its record, for a store that is no folder.
    #[must_use]
    pub fn new(id: ContentId, record: Record) -> Self {
        StoredMedia { id, record }
    }
}

/// Iterator over the media of a store. It holds the ids of one folder of 256, so the memory stays small.
#[derive(Debug)]
pub struct Inventory {
    root: PathBuf,
    /// First byte of the ids in the next folder.
    folders: std::ops::RangeInclusive<u8>,
    ids: vec::IntoIter<ContentId>,
}

impl Inventory {
    /// Opens the store in a folder.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn open(root: &Path) -> io::Result<Self> {
        drop(fs::read_dir(root)?);
        Ok(Inventory {
            root: root.to_owned(),
            folders: 0..=u8::MAX,
            ids: Vec::new().into_iter(),
        })
    }

    /// Returns the media of a record. The content is not read.
    fn look_up(&self, id: ContentId) -> Result<StoredMedia, Corruption> {
        let record = match read_record(&self.root, &id) {
            Ok(Some(record)) => record,
            Ok(None) => return Err(Corruption::Record),
            Err(error) => return Err(Corruption::Read(error)),
        };
        match fs::metadata(self.root.join(id.path())) {
            Ok(found) if found.is_file() && found.len() == record.size => {
                Ok(StoredMedia { id, record })
            }
            Ok(_) => Err(Corruption::Record),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Corruption::NoContent),
            Err(error) => Err(Corruption::Read(error)),
        }
    }
}

impl Iterator for Inventory {
    /// Media that is served, or an entry that is not.
    type Item = Result<StoredMedia, VerifiedEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(id) = self.ids.next() {
                let media = self.look_up(id);
                // Media that was removed meanwhile is no fault.
                if let Err(Corruption::Read(error)) = &media
                    && error.kind() == io::ErrorKind::NotFound
                {
                    continue;
                }
                return Some(media.map_err(|corruption| VerifiedEntry {
                    path: id.record_path(),
                    size: 0,
                    corruption: Some(corruption),
                }));
            }
            let folder = PathBuf::from(format!("{:02x}", self.folders.next()?));
            match ids_with_record(&self.root.join(&folder)) {
                Ok(ids) => self.ids = ids.into_iter(),
                Err(error) if is_no_folder(&error) => {}
                Err(error) => {
                    return Some(Err(VerifiedEntry {
                        path: folder,
                        size: 0,
                        corruption: Some(Corruption::Read(error)),
                    }));
                }
            }
        }
    }
}

/// Returns the ids that have a record in a folder, in order.
fn ids_with_record(folder: &Path) -> io::Result<Vec<ContentId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".json"));
        ids.extend(id.and_then(|id| id.parse::<ContentId>().ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Returns whether there is no such folder. A named file may have the name of one.
fn is_no_folder(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::Importer;

    #[test]
    fn media_is_listed_in_the_order_of_its_ids_and_the_rest_is_told() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("store");
        let importer = Importer::open(&store).unwrap();
        let mut ids = Vec::new();
        for number in 0..20 {
            let source = root.path().join("source");
            fs::write(&source, format!("media {number}")).unwrap();
            ids.push(importer.add(&source, |_| ()).unwrap().id);
        }
        ids.sort_unstable();
        fs::write(store.join(ids[3].record_path()), "{").unwrap();
        fs::remove_file(store.join(ids[5].path())).unwrap();
        fs::write(store.join(ids[7].path()), "").unwrap();
        fs::write(store.join("named.gif"), "").unwrap();
        let listed: Vec<_> = Inventory::open(&store).unwrap().collect();
        for (place, media) in listed.iter().enumerate() {
            match media {
                Ok(media) => assert_eq!(media.id, ids[place]),
                Err(entry) => assert!([3, 5, 7].contains(&place), "{entry:?}"),
            }
        }
        assert_eq!(listed.len(), ids.len());
        assert_eq!(listed.iter().filter(|media| media.is_err()).count(), 3);
    }
}
