//! Import of files into a store. Media becomes visible when its content and its record are complete.

use super::file_slice::read_at;
use super::markup;
use super::record::read_record;
use super::temporary_files::{StoreLock, TemporaryFile, TemporaryFiles, make_folder};
use file_format::FileFormat;
use millpond_format::charset::with_charset;
use millpond_format::{Access, ContentId, MAX_VARIANTS, Record, Variant};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub use super::temporary_files::AbandonGuard;

/// Imports files into one store. Threads and processes may import into the same store at the same time.
#[derive(Debug)]
pub struct Importer {
    pub(super) root: PathBuf,
    pub(super) temporary_files: Arc<TemporaryFiles>,
    pub(super) access: Access,
}

/// Import in progress: content that is written to a temporary file, and hashed. Dropping it removes the file, and
/// blocks on the file system.
#[derive(Debug)]
pub struct PendingImport {
    pub(super) content: TemporaryFile,
    hash: Sha256,
    size: u64,
}

impl PendingImport {
    /// Appends bytes. Blocks on the file system.
    ///
    /// # Errors
    /// The system's, such as [`io::ErrorKind::StorageFull`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.content.as_file().write_all(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Number of bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Id of the bytes so far.
    #[must_use]
    pub fn id(&self) -> ContentId {
        ContentId::from_digest(self.hash.clone().finalize().into())
    }
}

/// Media that was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportedMedia {
    /// Content id.
    pub id: ContentId,
    /// Record. Content that was in the store before keeps its first record.
    pub record: Record,
    /// Whether the content was in the store before.
    pub already_present: bool,
    /// Access in the record before the import. `None` if there was no record. An unreadable record counts as private.
    pub access_before: Option<Access>,
    /// Variants that were public and became private, because the media is private.
    pub narrowed_variants: Vec<ContentId>,
}

impl ImportedMedia {
    /// Returns media that was not in the store before, for a store that is no folder.
    #[must_use]
    pub fn new(id: ContentId, record: Record) -> Self {
        ImportedMedia {
            id,
            record,
            already_present: false,
            access_before: None,
            narrowed_variants: Vec::new(),
        }
    }
}

/// Media that was made public.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishedMedia {
    /// Record.
    pub record: Record,
    /// Access before.
    pub access_before: Access,
    /// Variants that stay private.
    pub private_variants: Vec<ContentId>,
}

impl PublishedMedia {
    /// Returns media without private variants, for a store that is no folder.
    #[must_use]
    pub fn new(record: Record, access_before: Access) -> Self {
        PublishedMedia {
            record,
            access_before,
            private_variants: Vec::new(),
        }
    }
}

/// Media that was made private.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnpublishedMedia {
    /// Record.
    pub record: Record,
    /// Access before.
    pub access_before: Access,
    /// Variants that were public, and are private now.
    pub narrowed_variants: Vec<ContentId>,
}

impl UnpublishedMedia {
    /// Returns media without narrowed variants, for a store that is no folder.
    #[must_use]
    pub fn new(record: Record, access_before: Access) -> Self {
        UnpublishedMedia {
            record,
            access_before,
            narrowed_variants: Vec::new(),
        }
    }
}

/// The error of an import.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The path is not a regular file, a pipe, or an open socket.
    #[error("cannot add {}: it is {kind}", path.display())]
    NotAFile {
        /// Path that was given.
        path: PathBuf,
        /// Kind of file at that path, as in "a block device".
        kind: &'static str,
    },
    /// The store cannot be written.
    #[error("cannot write to the store {}", path.display())]
    Write {
        /// Root of the store, or a file in it.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The original of a variant is not in the store.
    #[error("there is no media {0} in the store; add it first")]
    NoOriginal(ContentId),
    /// The media is not in the store, or its record is unreadable.
    #[error("there is no media {0} in the store")]
    NotFound(ContentId),
    /// The media has the maximum number of variants.
    #[error("the media {0} has {MAX_VARIANTS} variants already")]
    TooManyVariants(ContentId),
}

/// Bytes copied and hashed at a time.
const COPY_BYTES: usize = 256 * 1024;

impl Importer {
    /// Opens a store for imports. Creates the folder if it does not exist, and removes the temporary files of
    /// interrupted imports.
    ///
    /// # Errors
    /// [`ImportError::Write`].
    pub fn open(root: &Path) -> Result<Self, ImportError> {
        let root = root.to_owned();
        let temporary_files = TemporaryFiles::open(&root).map_err(write_error(&root))?;
        Ok(Importer {
            root,
            temporary_files,
            access: Access::Public,
        })
    }

    /// Makes the imported media private. Media that is in the store already becomes private too, with its variants.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.access = Access::Private;
        self
    }

    /// Imports a file, or everything from a named pipe.
    ///
    /// The content is copied to a temporary file, hashed, synced, and renamed to its path. The record is written last,
    /// so that no incomplete media is visible. Content that is in the store keeps its first record. Its access may
    /// become private, but never public. `progress` receives the number of bytes of each step.
    ///
    /// # Errors
    /// [`ImportError::Read`], [`ImportError::NotAFile`], [`ImportError::Write`].
    pub fn add(
        &self,
        path: &Path,
        progress: impl FnMut(u64),
    ) -> Result<ImportedMedia, ImportError> {
        self.add_open_file(open_source(path)?, path, progress)
    }

    /// Imports an open file, pipe or socket from its current position to its end, as [`add`](Self::add) does. `name`
    /// appears in errors.
    ///
    /// # Errors
    /// [`ImportError::Read`], [`ImportError::NotAFile`], [`ImportError::Write`].
    pub fn add_open_file(
        &self,
        mut source: File,
        name: &Path,
        mut progress: impl FnMut(u64),
    ) -> Result<ImportedMedia, ImportError> {
        check_source(&source, name)?;
        let not_written = write_error(&self.root);
        let mut import = self.begin()?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read_error(name)(error)),
            };
            import.write(&buffer[..count]).map_err(&not_written)?;
            progress(count as u64);
        }
        self.finish(import)
    }

    /// Begins to import content that the caller writes. Blocks on the file system.
    ///
    /// # Errors
    /// [`ImportError::Write`].
    pub fn begin(&self) -> Result<PendingImport, ImportError> {
        let lock = self.lock()?;
        let content = self.temporary_files.create(&lock);
        Ok(PendingImport {
            content: content.map_err(write_error(&self.root))?,
            hash: Sha256::new(),
            size: 0,
        })
    }

    /// Finishes an import: makes the content visible under its id, as [`add`](Self::add) does. Blocks on the file
    /// system.
    ///
    /// # Errors
    /// [`ImportError::Read`], [`ImportError::Write`].
    pub fn finish(&self, import: PendingImport) -> Result<ImportedMedia, ImportError> {
        let id = import.id();
        let PendingImport { content, size, .. } = import;
        if !self.has_content(&id, size) {
            // Synced without the lock, because a disk may take minutes.
            let synced = content.as_file().sync_all();
            synced.map_err(write_error(&self.root))?;
        }
        let lock = self.lock()?;
        let found = self.find(&id)?;
        let access_before = match &found {
            StoredRecord::Missing => None,
            StoredRecord::Corrupt => Some(Access::Private),
            StoredRecord::Record(record) => Some(record.access),
        };
        let (mut record, already_present) = match found {
            StoredRecord::Record(record) if record.size == size && self.has_content(&id, size) => {
                (record, true)
            }
            found => {
                let record = Record {
                    media_type: sniff(content.path()).map_err(read_error(content.path()))?,
                    size,
                    created: SystemTime::now(),
                    // Private media stays private; only `publish` makes it public.
                    access: match (self.access, access_before) {
                        (Access::Private, _) | (_, Some(Access::Private)) => Access::Private,
                        (Access::Public, _) => Access::Public,
                    },
                    variants: match found {
                        StoredRecord::Record(record) => record.variants,
                        StoredRecord::Missing | StoredRecord::Corrupt => Vec::new(),
                    },
                };
                let path = self.root.join(id.path());
                make_folder(path.parent().unwrap_or(&self.root))
                    .and_then(|()| content.as_file().sync_all())
                    .and_then(|()| self.write(&lock, &id, &record, Some(content)))
                    .map_err(write_error(&path))?;
                (record, false)
            }
        };
        let narrowed_variants = self.narrow_added(&lock, id, &mut record)?;
        Ok(ImportedMedia {
            id,
            record,
            already_present,
            access_before,
            narrowed_variants,
        })
    }

    /// Records that `variant` is a variant of `original`: the same media in another format, or compressed.
    ///
    /// A variant of private media becomes private, with its own variants. Returns the media that was public before.
    ///
    /// # Errors
    /// [`ImportError::NoOriginal`], [`ImportError::TooManyVariants`], [`ImportError::Read`], [`ImportError::Write`].
    pub fn add_variant(
        &self,
        original: &ContentId,
        variant: &ImportedMedia,
        content_coding: Option<String>,
    ) -> Result<Vec<ContentId>, ImportError> {
        let lock = self.lock()?;
        let StoredRecord::Record(mut record) = self.find(original)? else {
            return Err(ImportError::NoOriginal(*original));
        };
        record.variants.retain(|other| other.id != variant.id);
        if record.variants.len() == MAX_VARIANTS {
            return Err(ImportError::TooManyVariants(*original));
        }
        record.variants.push(Variant {
            id: variant.id,
            // A compressed variant has the media type of the original.
            media_type: match content_coding {
                Some(_) => record.media_type.clone(),
                None => variant.record.media_type.clone(),
            },
            content_coding,
        });
        let narrowed = match record.access {
            Access::Private => self.narrow(&lock, variant.id)?,
            Access::Public => Vec::new(),
        };
        self.change(&lock, original, &record)?;
        Ok(narrowed)
    }

    /// Returns the access of an original, before a variant is added.
    ///
    /// # Errors
    /// [`ImportError::NoOriginal`], [`ImportError::Read`].
    pub fn access_of_original(&self, id: &ContentId) -> Result<Access, ImportError> {
        match self.find(id)? {
            StoredRecord::Record(record) => Ok(record.access),
            StoredRecord::Missing | StoredRecord::Corrupt => Err(ImportError::NoOriginal(*id)),
        }
    }

    /// Makes media public. Its variants keep their access, and need a call each.
    ///
    /// # Errors
    /// [`ImportError::NotFound`], [`ImportError::Read`], [`ImportError::Write`].
    pub fn publish(&self, id: &ContentId) -> Result<PublishedMedia, ImportError> {
        let lock = self.lock()?;
        let mut record = match self.find(id)? {
            StoredRecord::Record(record) if self.has_content(id, record.size) => record,
            _ => return Err(ImportError::NotFound(*id)),
        };
        let access_before = record.access;
        if access_before == Access::Private {
            record.access = Access::Public;
            self.change(&lock, id, &record)?;
        }
        let mut private_variants = Vec::new();
        for variant in &record.variants {
            if let StoredRecord::Record(found) = self.find(&variant.id)?
                && found.access == Access::Private
            {
                private_variants.push(variant.id);
            }
        }
        Ok(PublishedMedia {
            record,
            access_before,
            private_variants,
        })
    }

    /// Makes media private, with its variants and theirs.
    ///
    /// # Errors
    /// [`ImportError::NotFound`], [`ImportError::Read`], [`ImportError::Write`].
    pub fn unpublish(&self, id: &ContentId) -> Result<UnpublishedMedia, ImportError> {
        let lock = self.lock()?;
        let StoredRecord::Record(mut record) = self.find(id)? else {
            return Err(ImportError::NotFound(*id));
        };
        let access_before = record.access;
        let mut narrowed_variants = self.narrow(&lock, *id)?;
        narrowed_variants.retain(|narrowed| narrowed != id);
        record.access = Access::Private;
        Ok(UnpublishedMedia {
            record,
            access_before,
            narrowed_variants,
        })
    }

    /// Adds media again that is known to be in the store, without reading its content. Returns `None` if it is not
    /// there, or not whole.
    ///
    /// # Errors
    /// [`ImportError::Read`], [`ImportError::Write`].
    pub fn add_known(&self, id: &ContentId) -> Result<Option<ImportedMedia>, ImportError> {
        let lock = self.lock()?;
        let mut record = match self.find(id)? {
            StoredRecord::Record(record) if self.has_content(id, record.size) => record,
            _ => return Ok(None),
        };
        let access_before = Some(record.access);
        let narrowed_variants = self.narrow_added(&lock, *id, &mut record)?;
        Ok(Some(ImportedMedia {
            id: *id,
            record,
            already_present: true,
            access_before,
            narrowed_variants,
        }))
    }

    /// Removes the temporary files of the imports in progress, before the program exits on a signal. No import
    /// continues while the guard is held.
    pub fn abandon(&self) -> AbandonGuard<'_> {
        self.temporary_files.abandon()
    }

    /// Makes added media private if the importer does so. Returns its variants that were public before.
    fn narrow_added(
        &self,
        lock: &StoreLock,
        id: ContentId,
        record: &mut Record,
    ) -> Result<Vec<ContentId>, ImportError> {
        if self.access == Access::Public {
            return Ok(Vec::new());
        }
        let mut narrowed = self.narrow(lock, id)?;
        narrowed.retain(|narrowed| *narrowed != id);
        record.access = Access::Private;
        Ok(narrowed)
    }

    /// Makes media private, with its variants and theirs. Returns the media that was public before.
    fn narrow(&self, lock: &StoreLock, id: ContentId) -> Result<Vec<ContentId>, ImportError> {
        let mut narrowed = Vec::new();
        // Variants may refer to each other.
        let mut reached = HashSet::from([id]);
        let mut stale = vec![id];
        while let Some(id) = stale.pop() {
            // Media without a valid record is not served.
            let StoredRecord::Record(mut record) = self.find(&id)? else {
                continue;
            };
            let variants = record.variants.iter().map(|variant| variant.id);
            stale.extend(variants.filter(|variant| reached.insert(*variant)));
            if record.access == Access::Public {
                record.access = Access::Private;
                self.change(lock, &id, &record)?;
                narrowed.push(id);
            }
        }
        Ok(narrowed)
    }

    pub(super) fn lock(&self) -> Result<StoreLock, ImportError> {
        self.temporary_files.lock().map_err(write_error(&self.root))
    }

    /// Returns whether the content exists with this length.
    pub(super) fn has_content(&self, id: &ContentId, size: u64) -> bool {
        let metadata = fs::metadata(self.root.join(id.path()));
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    pub(super) fn find(&self, id: &ContentId) -> Result<StoredRecord, ImportError> {
        match read_record(&self.root, id) {
            Ok(Some(record)) => Ok(StoredRecord::Record(record)),
            Ok(None) => Ok(StoredRecord::Corrupt),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(StoredRecord::Missing),
            Err(error) => Err(read_error(&self.root.join(id.record_path()))(error)),
        }
    }

    /// Replaces a record.
    pub(super) fn change(
        &self,
        lock: &StoreLock,
        id: &ContentId,
        record: &Record,
    ) -> Result<(), ImportError> {
        let changed = self.write(lock, id, record, None);
        changed.map_err(write_error(&self.root.join(id.record_path())))
    }

    /// Writes a record, after its content if there is any.
    fn write(
        &self,
        lock: &StoreLock,
        id: &ContentId,
        record: &Record,
        content: Option<TemporaryFile>,
    ) -> io::Result<()> {
        let (path, record_path) = (self.root.join(id.path()), self.root.join(id.record_path()));
        let record_file = self.temporary_files.create(lock)?;
        serde_json::to_writer(record_file.as_file(), record)?;
        record_file.as_file().sync_all()?;
        match content {
            Some(content) => {
                let files = [(content, &*path), (record_file, &*record_path)];
                self.temporary_files.place(lock, files)?;
            }
            None => self
                .temporary_files
                .place(lock, [(record_file, &*record_path)])?,
        }
        sync_folder(path.parent().unwrap_or(&self.root))
    }
}

/// Record of an id in the store.
pub(super) enum StoredRecord {
    Missing,
    /// A record that is unreadable.
    Corrupt,
    Record(Record),
}

/// Whether a file is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IsOpen {
    Yes,
    No,
}

/// Returns the kind of a file that has no end or cannot be opened. `None` for regular files, pipes, and open sockets.
fn kind_without_end(metadata: &fs::Metadata, is_open: IsOpen) -> Option<&'static str> {
    let file_type = metadata.file_type();
    if file_type.is_dir() {
        return Some("a folder");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if file_type.is_char_device() {
            return Some("a character device");
        }
        if file_type.is_block_device() {
            return Some("a block device");
        }
        if file_type.is_socket() && is_open == IsOpen::No {
            return Some("a socket");
        }
    }
    #[cfg(not(unix))]
    let _ = is_open;
    None
}

/// Opens a file to import. Opening a named pipe waits for a writer.
///
/// # Errors
/// [`ImportError::Read`], [`ImportError::NotAFile`].
pub fn open_source(path: &Path) -> Result<File, ImportError> {
    let metadata = fs::metadata(path).map_err(read_error(path))?;
    // Checked before opening: opening a device may have an effect, and a socket cannot be opened.
    if let Some(kind) = kind_without_end(&metadata, IsOpen::No) {
        let path = path.to_owned();
        return Err(ImportError::NotAFile { path, kind });
    }
    File::open(path).map_err(read_error(path))
}

/// Checks that an open file has an end, as a regular file, a pipe or a socket has. `name` appears in errors.
///
/// # Errors
/// [`ImportError::Read`], [`ImportError::NotAFile`].
pub fn check_source(file: &File, name: &Path) -> Result<(), ImportError> {
    let metadata = file.metadata().map_err(read_error(name))?;
    match kind_without_end(&metadata, IsOpen::Yes) {
        Some(kind) => {
            let path = name.to_owned();
            Err(ImportError::NotAFile { path, kind })
        }
        None => Ok(()),
    }
}

/// Returns the media type of a regular file, by its content and not by its name. Moves the position of the file.
///
/// # Errors
/// The system's.
pub fn detect_media_type(mut file: &File) -> io::Result<String> {
    let mut beginning = Vec::new();
    file.rewind()?;
    file.take(markup::LOOKED_AT_BYTES)
        .read_to_end(&mut beginning)?;
    file.rewind()?;
    let format = FileFormat::from_reader(file)?;
    let media_type = markup::media_type(&beginning).unwrap_or_else(|| format.media_type());
    let length = file.metadata()?.len();
    with_charset(media_type, length, |offset, into| {
        read_at(file, into, offset)
    })
}

/// Returns the media type of the file at a path.
pub(super) fn sniff(path: &Path) -> io::Result<String> {
    detect_media_type(&File::open(path)?)
}

/// Makes a rename durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

pub(super) fn read_error(path: &Path) -> impl Fn(io::Error) -> ImportError {
    let path = path.to_owned();
    move |source| ImportError::Read {
        path: path.clone(),
        source,
    }
}

pub(super) fn write_error(path: &Path) -> impl Fn(io::Error) -> ImportError {
    let path = path.to_owned();
    move |source| ImportError::Write {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::{Folder, ObjectKey};
    use millpond_ledger::{Ledger, Owner};
    use std::sync::Arc;

    fn ledger() -> Ledger {
        Ledger::new(&Arc::default(), Owner::Connection, usize::MAX)
    }

    fn store_with(content: &[u8], name: &str) -> (tempfile::TempDir, PathBuf, Importer) {
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join(name);
        fs::write(&source, content).unwrap();
        let importer = Importer::open(&root.path().join("store")).unwrap();
        (root, source, importer)
    }

    fn stale_files(importer: &Importer) -> Vec<std::ffi::OsString> {
        let entries = fs::read_dir(importer.root.join(".incoming")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names.filter(|name| name != "lock").collect()
    }

    #[test]
    fn what_is_added_is_served_under_its_digest() {
        let (_root, source, importer) = store_with(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "x.bin");
        let mut progress_bytes = 0;
        let imported = importer
            .add(&source, |bytes| progress_bytes += bytes)
            .unwrap();
        assert_eq!(
            (
                progress_bytes,
                imported.record.size,
                imported.already_present
            ),
            (14, 14, false)
        );
        assert_eq!(imported.record.media_type, "image/gif");
        let folder = Folder::open(&importer.root).unwrap();
        let object = folder
            .open_object(&ObjectKey::Content(imported.id), &ledger().handle())
            .unwrap();
        assert_eq!(object.info().media_type, "image/gif");
        let stale = stale_files(&importer);
        assert!(stale.is_empty(), "{stale:?}");
    }

    #[test]
    fn the_type_is_sniffed_not_taken_from_the_name() {
        let (_root, source, importer) = store_with(b"<!DOCTYPE html><html></html>", "cat.gif");
        let imported = importer.add(&source, |_| ()).unwrap();
        assert_eq!(imported.record.media_type, "text/html; charset=utf-8");
    }

    #[test]
    fn svg_behind_a_comment_was_stored_as_text() {
        let svg = b"\n<!-- by hand -->\n<svg xmlns='http://www.w3.org/2000/svg'/>";
        let (_root, source, importer) = store_with(svg, "x.bin");
        let imported = importer.add(&source, |_| ()).unwrap();
        assert_eq!(imported.record.media_type, "image/svg+xml");
    }

    #[test]
    fn seed_r4_the_same_content_again_keeps_its_first_record() {
        let (_root, source, importer) = store_with(b"\x89PNG\r\n\x1a\n", "x.png");
        let first = importer.add(&source, |_| ()).unwrap();
        let second = importer.add(&source, |_| ()).unwrap();
        assert!(second.already_present);
        assert_eq!(second.record, first.record);
    }

    #[test]
    fn damaged_content_is_put_right_by_adding_it_again() {
        let (_root, source, importer) = store_with(b"\x89PNG\r\n\x1a\n", "x.png");
        let imported = importer.add(&source, |_| ()).unwrap();
        for path in [imported.id.path(), imported.id.record_path()] {
            fs::write(importer.root.join(path), "").unwrap();
            assert!(!importer.add(&source, |_| ()).unwrap().already_present);
            let folder = Folder::open(&importer.root).unwrap();
            assert!(
                folder
                    .open_object(&ObjectKey::Content(imported.id), &ledger().handle())
                    .is_ok()
            );
        }
    }

    #[test]
    fn of_two_that_add_the_same_at_once_the_one_that_adds_it_as_private_counts() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("store");
        for round in 0..50 {
            let source = root.path().join("source");
            fs::write(&source, format!("round {round}")).unwrap();
            let importers = [
                Importer::open(&store).unwrap(),
                Importer::open(&store).unwrap().private(),
            ];
            let ids = std::thread::scope(|scope| {
                let add = |importer: &Importer| importer.add(&source, |_| ()).unwrap().id;
                let threads = importers
                    .each_ref()
                    .map(|importer| scope.spawn(move || add(importer)));
                threads.map(|thread| thread.join().unwrap())
            });
            let record = read_record(&store, &ids[0]).unwrap().unwrap();
            assert_eq!(record.access, Access::Private, "round {round}");
        }
    }

    #[test]
    fn media_that_are_variants_of_each_other_become_private_together() {
        let (_root, source, importer) = store_with(b"first", "x");
        let first = importer.add(&source, |_| ()).unwrap();
        fs::write(&source, "second").unwrap();
        let second = importer.add(&source, |_| ()).unwrap();
        for (original, variant) in [(&first, &second), (&second, &first)] {
            let narrowed = importer.add_variant(&original.id, variant, None).unwrap();
            assert_eq!(narrowed, []);
        }
        let narrowed = importer.private().add(&source, |_| ()).unwrap();
        assert_eq!(narrowed.access_before, Some(Access::Public));
        assert_eq!(narrowed.record.access, Access::Private);
        assert_eq!(narrowed.narrowed_variants, [first.id]);
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_nothing() {
        let (root, _source, importer) = store_with(b"", "x");
        let error = importer.add(&root.path().join("none"), |_| ()).unwrap_err();
        assert!(matches!(error, ImportError::Read { .. }));
        assert!(stale_files(&importer).is_empty());
    }
}
