//! Verification of a store: every content against its id, and every record against its content.

use super::record::{open_regular, read_record};
use super::temporary_files::stale_files;
use millpond_format::ContentId;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Result of verifying one entry of a store.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifiedEntry {
    /// Path of the entry, relative to the root of the store.
    pub path: PathBuf,
    /// Length, in bytes.
    pub size: u64,
    /// Corruption of the entry. `None` if it is valid.
    pub corruption: Option<Corruption>,
}

impl VerifiedEntry {
    /// Returns the result for an entry, for a store that is no folder.
    #[must_use]
    pub fn new(path: PathBuf, size: u64, corruption: Option<Corruption>) -> Self {
        VerifiedEntry {
            path,
            size,
            corruption,
        }
    }
}

/// Corruption of an entry in a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Corruption {
    /// The content has another digest than its id.
    #[error("the content has another digest: {0}")]
    Digest(ContentId),
    /// The record is missing.
    #[error("the record is missing")]
    NoRecord,
    /// The record is unreadable, or has another size.
    #[error("the record is corrupt")]
    Record,
    /// The content of a record is missing.
    #[error("the content of the record is missing")]
    NoContent,
    /// A variant of a record is missing.
    #[error("the variant {0} is not in the store")]
    NoVariant(ContentId),
    /// A temporary file of an interrupted import. It is not served, and takes space.
    #[error("orphaned temporary file of an interrupted add; the next add removes it")]
    OrphanedTemporaryFile,
    /// The entry cannot be read, so a server of the same user cannot serve it.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Verifies a store, and passes each entry to `found`. Skips named files and hidden files, except temporary files of
/// interrupted imports. `progress` receives the number of bytes of each step.
///
/// # Errors
/// The root of the store cannot be listed.
pub fn verify(
    root: &Path,
    mut progress: impl FnMut(u64),
    mut found: impl FnMut(VerifiedEntry),
) -> io::Result<()> {
    let mut report = |path: &Path, size: u64, corruption: Option<Corruption>| {
        let path = path.to_owned();
        found(VerifiedEntry {
            path,
            size,
            corruption,
        });
    };
    match stale_files(root) {
        Ok(stale) => {
            // An empty file may be in use.
            for (path, size) in stale.into_iter().filter(|(_, size)| *size > 0) {
                let path = path.strip_prefix(root).unwrap_or(&path);
                report(path, size, Some(Corruption::OrphanedTemporaryFile));
            }
        }
        // Temporary files are not served.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => return Err(error),
    }
    for folder in sorted_entries(root)? {
        if !is_content_folder(&folder) {
            continue;
        }
        let folder = Path::new(&folder);
        let names = match sorted_entries(&root.join(folder)) {
            Ok(names) => names,
            // A named file with the name of a content folder.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
            Err(error) => {
                report(folder, 0, Some(Corruption::Read(error)));
                continue;
            }
        };
        for name in names {
            let path = folder.join(&name);
            let record_of = name.strip_suffix(".json");
            let Ok(id) = record_of.unwrap_or(&name).parse::<ContentId>() else {
                continue;
            };
            if record_of.is_some() {
                for corruption in check_record(root, &id) {
                    report(&path, 0, Some(corruption));
                }
            } else {
                let (size, corruption) = check_content(root, &id, &mut progress);
                report(&path, size, corruption);
            }
        }
    }
    Ok(())
}

/// Returns corruptions that are not visible from the content: missing content, and missing variants.
fn check_record(root: &Path, id: &ContentId) -> Vec<Corruption> {
    let is_known_missing = |id: &ContentId| {
        let metadata = fs::metadata(root.join(id.path()));
        metadata.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    if is_known_missing(id) {
        // Both may have been removed meanwhile.
        let has_record = fs::exists(root.join(id.record_path())).unwrap_or(true);
        return match has_record {
            true => vec![Corruption::NoContent],
            false => Vec::new(),
        };
    }
    // An unreadable record is reported with its content.
    let Ok(Some(record)) = read_record(root, id) else {
        return Vec::new();
    };
    let variants = record.variants.iter().map(|variant| variant.id);
    variants
        .filter(is_known_missing)
        .map(Corruption::NoVariant)
        .collect()
}

fn check_content(
    root: &Path,
    id: &ContentId,
    progress: &mut impl FnMut(u64),
) -> (u64, Option<Corruption>) {
    let opened = open_regular(&root.join(id.path()));
    let (size, digest) = match opened.and_then(|file| digest(&file, progress)) {
        Ok(read) => read,
        Err(error) => return (0, Some(Corruption::Read(error))),
    };
    if digest != *id {
        return (size, Some(Corruption::Digest(digest)));
    }
    let corruption = match read_record(root, id) {
        Ok(Some(record)) if record.size == size => None,
        Ok(_) => Some(Corruption::Record),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Corruption::NoRecord),
        Err(error) => Some(Corruption::Read(error)),
    };
    (size, corruption)
}

/// Returns the number of bytes in a file from its current position on, and their id.
pub(super) fn digest(
    mut file: &File,
    progress: &mut impl FnMut(u64),
) -> io::Result<(u64, ContentId)> {
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, ContentId::from_digest(hash.finalize().into()))),
            Ok(count) => {
                hash.update(&buffer[..count]);
                size += count as u64;
                progress(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the UTF-8 names in a folder, sorted.
fn sorted_entries(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_content_folder(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::Importer;

    fn entries(root: &Path) -> Vec<(PathBuf, Option<String>)> {
        let mut entries = Vec::new();
        let found = |entry: VerifiedEntry| {
            entries.push((
                entry.path,
                entry.corruption.map(|corruption| corruption.to_string()),
            ));
        };
        verify(root, |_| (), found).unwrap();
        entries
    }

    #[test]
    fn every_kind_of_corruption_is_found() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("store");
        let importer = Importer::open(&store).unwrap();
        let source = root.path().join("source");
        let add = |content: &str| {
            fs::write(&source, content).unwrap();
            importer.add(&source, |_| ()).unwrap().id
        };
        let valid = add("valid");
        fs::write(store.join("named.gif"), "").unwrap();
        fs::create_dir_all(store.join("zz")).unwrap();
        assert_eq!(entries(&store), [(valid.path(), None)]);

        let changed = add("changed");
        fs::write(store.join(changed.path()), "Changed").unwrap();
        let unrecorded = add("unrecorded");
        fs::remove_file(store.join(unrecorded.record_path())).unwrap();
        let garbled = add("garbled");
        fs::write(store.join(garbled.record_path()), "{").unwrap();
        let lost = add("lost");
        fs::remove_file(store.join(lost.path())).unwrap();
        let original = add("original");
        fs::write(&source, "variant").unwrap();
        let variant = importer.add(&source, |_| ()).unwrap();
        importer.add_variant(&original, &variant, None).unwrap();
        fs::remove_file(store.join(variant.id.path())).unwrap();
        fs::remove_file(store.join(variant.id.record_path())).unwrap();
        let endless = add("endless");
        fs::write(store.join(endless.record_path()), [b' '; 20_000]).unwrap();
        fs::write(store.join("ad"), "a named file").unwrap();

        let mut corruptions: Vec<_> = entries(&store);
        corruptions.retain(|(_, corruption)| corruption.is_some());
        for (path, message) in [
            (changed.path(), "another digest"),
            (unrecorded.path(), "record is missing"),
            (garbled.path(), "record is corrupt"),
            (lost.record_path(), "missing"),
            (original.record_path(), "the variant"),
            (endless.path(), "record is corrupt"),
        ] {
            let position = corruptions.iter().position(|(found, corruption)| {
                *found == path && corruption.as_deref().unwrap().contains(message)
            });
            assert!(position.is_some(), "{message}");
            corruptions.remove(position.unwrap());
        }
        assert!(corruptions.is_empty(), "{corruptions:?}");
    }
}
