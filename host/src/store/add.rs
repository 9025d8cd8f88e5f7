//! Adds files to a store by their content: visible only when whole and described.

use file_format::FileFormat;
use millpond_store::content::{Access, ContentId, Record, VARIANTS, Variant};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Adds files to one store.
#[derive(Debug)]
pub struct Adder {
    root: PathBuf,
    access: Access,
}

/// A file that is in the store now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Added {
    /// Its address.
    pub id: ContentId,
    /// Its record: the one that it had, where it was there before.
    pub record: Record,
    /// Whether the same content was in the store already.
    pub was_there: bool,
}

/// Why a file was not added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be written.
    #[error("cannot write to the store {}", path.display())]
    Write {
        /// The store's root, or a file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A variant's original is not in the store.
    #[error("there is no media {0} in the store; add it first")]
    NoOriginal(ContentId),
    /// A media has as many variants as it may have.
    #[error("the media {0} has {VARIANTS} variants already")]
    TooManyVariants(ContentId),
}

/// Where files lie until they are whole, beneath the root; a leading dot keeps it from being served.
const INCOMING: &str = ".incoming";

/// Bytes copied and hashed at a time.
const COPY_BYTES: usize = 256 * 1024;

impl Adder {
    /// Opens a store to add to, making the folder where there is none.
    ///
    /// # Errors
    /// [`AddError::Write`].
    pub fn open(root: &Path) -> Result<Self, AddError> {
        let root = root.to_owned();
        fs::create_dir_all(root.join(INCOMING)).map_err(write_error(&root))?;
        Ok(Adder {
            root,
            access: Access::Public,
        })
    }

    /// Adds for those only who show a signature. What is in the store already keeps its access.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.access = Access::Private;
        self
    }

    /// Adds a file: copies it under a temporary name, hashing on the way, syncs it and renames it to its
    /// address; its record is written last, so that nobody is served what is not described. Content that is
    /// there already stays as it is, with its first record. `progress` is told the bytes of each step.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn add(&self, path: &Path, mut progress: impl FnMut(u64)) -> Result<Added, AddError> {
        let mut source = File::open(path).map_err(read_error(path))?;
        let mut incoming = tempfile::NamedTempFile::new_in(self.root.join(INCOMING))
            .map_err(write_error(&self.root))?;
        let mut hash = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_error(path)(error)),
            };
            let piece = &buffer[..count];
            hash.update(piece);
            incoming.write_all(piece).map_err(write_error(&self.root))?;
            size += count as u64;
            progress(count as u64);
        }
        let id = ContentId::from_digest(hash.finalize().into());
        if let Some(record) = self.find(&id, size) {
            return Ok(Added {
                id,
                record,
                was_there: true,
            });
        }
        let media_type = sniff(incoming.path()).map_err(read_error(incoming.path()))?;
        let record = Record {
            media_type,
            size,
            created: SystemTime::now(),
            access: self.access,
            variants: Vec::new(),
        };
        self.place(&id, incoming, &record)?;
        Ok(Added {
            id,
            record,
            was_there: false,
        })
    }

    /// Records that one media is another one's variant: the same in another format, or compressed.
    ///
    /// # Errors
    /// [`AddError::NoOriginal`], [`AddError::TooManyVariants`], [`AddError::Write`].
    pub fn add_variant(
        &self,
        original: &ContentId,
        variant: &Added,
        content_coding: Option<String>,
    ) -> Result<(), AddError> {
        let path = self.root.join(original.record_path());
        let mut record = fs::read(&path)
            .ok()
            .and_then(|json| Record::parse(&json))
            .ok_or(AddError::NoOriginal(*original))?;
        record.variants.retain(|other| other.id != variant.id);
        if record.variants.len() == VARIANTS {
            return Err(AddError::TooManyVariants(*original));
        }
        record.variants.push(Variant {
            id: variant.id,
            // Compressed, it is what the original is; the coding says how.
            media_type: match content_coding {
                Some(_) => record.media_type.clone(),
                None => variant.record.media_type.clone(),
            },
            content_coding,
        });
        let result = (|| {
            let mut description = tempfile::NamedTempFile::new_in(self.root.join(INCOMING))?;
            serde_json::to_writer(&mut description, &record)?;
            readable_by_the_server(description.as_file())?;
            description.as_file().sync_all()?;
            description.persist(&path)?;
            sync_folder(path.parent().unwrap_or(&self.root))
        })();
        result.map_err(write_error(&path))
    }

    /// The record of content that is in the store whole.
    fn find(&self, id: &ContentId, size: u64) -> Option<Record> {
        let length = fs::metadata(self.root.join(id.path())).ok()?.len();
        let json = fs::read(self.root.join(id.record_path())).ok()?;
        let record = Record::parse(&json)?;
        (length == size && record.size == size).then_some(record)
    }

    fn place(
        &self,
        id: &ContentId,
        content: tempfile::NamedTempFile,
        record: &Record,
    ) -> Result<(), AddError> {
        let path = self.root.join(id.path());
        let record_path = self.root.join(id.record_path());
        let folder = path.parent().unwrap_or(&self.root);
        let result = (|| {
            fs::create_dir_all(folder)?;
            let mut description = tempfile::NamedTempFile::new_in(self.root.join(INCOMING))?;
            serde_json::to_writer(&mut description, record)?;
            for (file, path) in [(content, &path), (description, &record_path)] {
                readable_by_the_server(file.as_file())?;
                file.as_file().sync_all()?;
                file.persist(path)?;
            }
            sync_folder(folder)
        })();
        result.map_err(write_error(&path))
    }
}

/// Media type by what the content is, never by what it is called.
fn sniff(path: &Path) -> io::Result<String> {
    let format = FileFormat::from_file(path)?;
    Ok(format.media_type().to_owned())
}

/// Temporary files are the owner's alone; stored ones are for whoever runs the server.
fn readable_by_the_server(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

/// Makes a rename outlast a power cut.
fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> AddError {
    let path = path.to_owned();
    move |source| AddError::Read {
        path: path.clone(),
        source,
    }
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> AddError {
    let path = path.to_owned();
    move |source| AddError::Write {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ledger::{Ledger, Owner};
    use crate::store::{Folder, Key};
    use std::sync::Arc;

    fn ledger() -> Ledger {
        Ledger::new(&Arc::default(), Owner::Connection, usize::MAX)
    }

    fn store_with(content: &[u8], name: &str) -> (tempfile::TempDir, PathBuf, Adder) {
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join(name);
        fs::write(&source, content).unwrap();
        let adder = Adder::open(&root.path().join("store")).unwrap();
        (root, source, adder)
    }

    #[test]
    fn what_is_added_is_served_under_its_digest() {
        let (_root, source, adder) = store_with(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "x.bin");
        let mut told = 0;
        let added = adder.add(&source, |bytes| told += bytes).unwrap();
        assert_eq!((told, added.record.size, added.was_there), (14, 14, false));
        assert_eq!(added.record.media_type, "image/gif");
        let folder = Folder::open(&adder.root).unwrap();
        let object = folder
            .open_object(&Key::Content(added.id), &ledger().handle())
            .unwrap();
        assert_eq!(object.info().media_type, "image/gif");
        let left: Vec<_> = fs::read_dir(adder.root.join(INCOMING)).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn the_type_is_sniffed_not_taken_from_the_name() {
        let (_root, source, adder) = store_with(b"<!DOCTYPE html><html></html>", "cat.gif");
        let added = adder.add(&source, |_| ()).unwrap();
        assert_eq!(added.record.media_type, "text/html");
    }

    #[test]
    fn seed_r4_the_same_content_again_keeps_its_first_record() {
        let (_root, source, adder) = store_with(b"\x89PNG\r\n\x1a\n", "x.png");
        let first = adder.add(&source, |_| ()).unwrap();
        let second = adder.add(&source, |_| ()).unwrap();
        assert!(second.was_there);
        assert_eq!(second.record, first.record);
    }

    #[test]
    fn damaged_content_is_put_right_by_adding_it_again() {
        let (_root, source, adder) = store_with(b"\x89PNG\r\n\x1a\n", "x.png");
        let added = adder.add(&source, |_| ()).unwrap();
        for path in [added.id.path(), added.id.record_path()] {
            fs::write(adder.root.join(path), "").unwrap();
            assert!(!adder.add(&source, |_| ()).unwrap().was_there);
            let folder = Folder::open(&adder.root).unwrap();
            assert!(
                folder
                    .open_object(&Key::Content(added.id), &ledger().handle())
                    .is_ok()
            );
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_nothing() {
        let (root, _source, adder) = store_with(b"", "x");
        let error = adder.add(&root.path().join("none"), |_| ()).unwrap_err();
        assert!(matches!(error, AddError::Read { .. }));
        assert_eq!(fs::read_dir(adder.root.join(INCOMING)).unwrap().count(), 0);
    }
}
