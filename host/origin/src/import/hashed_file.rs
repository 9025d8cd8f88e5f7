//! A file that was hashed, and is ready to be sent in parts.

use crate::import::error::OriginImportError;
use bytes::Bytes;
use millpond::store::{ContentId, ImportError, check_source, detect_media_type, open_source};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum length of content that is sent, in bytes. A server's cache takes no larger object.
pub const CONTENT_MAX_BYTES: u64 = 1 << 40;

/// Minimum size of a part, in bytes. S3 takes no smaller part than 5 MiB, unless it is the last.
const PART_MIN_BYTES: u64 = 8 * MIB;

/// Maximum number of parts of one upload, as S3 has it.
const PARTS: u64 = 10_000;

/// Bytes hashed at a time.
const HASH_BYTES: usize = 256 * 1024;

const MIB: u64 = 1024 * 1024;

/// A file that was hashed. It is read again part by part, and each part has to be as it was.
///
/// It holds the file open, and 32 bytes for each part.
#[derive(Debug, Clone)]
pub struct HashedFile {
    file: Arc<File>,
    name: PathBuf,
    id: ContentId,
    length: u64,
    media_type: String,
    part_digests: Arc<[[u8; 32]]>,
}

impl HashedFile {
    /// Opens and hashes a file. A pipe is read to its end first, into an unnamed file in the folder `spool`, which is
    /// made. Blocks on the file system.
    ///
    /// # Errors
    /// [`OriginImportError::Import`] if the file cannot be read, or is of another kind;
    /// [`OriginImportError::FileChanged`], [`OriginImportError::TooLarge`], [`OriginImportError::Journal`].
    pub fn read(path: &Path, spool: &Path) -> Result<Self, OriginImportError> {
        let file = open_source(path)?;
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => HashedFile::hash(file, path),
            _ => HashedFile::read_open_file(file, path, spool),
        }
    }

    /// Hashes an open file, pipe or socket from its current position to its end, as [`read`](Self::read) does with a pipe.
    /// `name` appears in errors.
    ///
    /// # Errors
    /// The same as of [`read`](Self::read).
    pub fn read_open_file(
        mut source: File,
        name: &Path,
        spool: &Path,
    ) -> Result<Self, OriginImportError> {
        check_source(&source, name)?;
        let spool_error = |source| OriginImportError::Journal {
            path: spool.to_owned(),
            source,
        };
        let file = fs::create_dir_all(spool).and_then(|()| tempfile::tempfile_in(spool));
        let mut file = file.map_err(spool_error)?;
        let mut limited = (&mut source).take(CONTENT_MAX_BYTES + 1);
        io::copy(&mut limited, &mut file).map_err(spool_error)?;
        HashedFile::hash(file, name)
    }

    fn hash(file: File, name: &Path) -> Result<Self, OriginImportError> {
        let read_error = |source| ImportError::Read {
            path: name.to_owned(),
            source,
        };
        let length = file.metadata().map_err(read_error)?.len();
        if length > CONTENT_MAX_BYTES {
            return Err(OriginImportError::TooLarge {
                path: name.to_owned(),
                max_bytes: CONTENT_MAX_BYTES,
            });
        }
        let media_type = detect_media_type(&file).map_err(read_error)?;
        let (mut whole, mut part_digests) = (Sha256::new(), Vec::new());
        let mut buffer = vec![0; HASH_BYTES];
        let mut reader = &file;
        reader.rewind().map_err(read_error)?;
        let mut remaining = length;
        while remaining > 0 {
            let mut part = Sha256::new();
            let mut in_part = remaining.min(part_bytes(length));
            remaining -= in_part;
            while in_part > 0 {
                let count = in_part.min(HASH_BYTES as u64);
                let bytes = &mut buffer[..usize::try_from(count).unwrap_or(HASH_BYTES)];
                match reader.read_exact(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(OriginImportError::FileChanged(name.to_owned()));
                    }
                    read => read.map_err(read_error)?,
                }
                part.update(&*bytes);
                whole.update(&*bytes);
                in_part -= count;
            }
            part_digests.push(part.finalize().into());
        }
        Ok(HashedFile {
            file: Arc::new(file),
            name: name.to_owned(),
            id: ContentId::from_digest(whole.finalize().into()),
            length,
            media_type,
            part_digests: part_digests.into(),
        })
    }

    /// Id of the content.
    #[must_use]
    pub fn id(&self) -> ContentId {
        self.id
    }

    /// Length, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Media type, by the content.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Number of parts. An empty file has none.
    pub(super) fn part_count(&self) -> usize {
        self.part_digests.len()
    }

    /// Size of each part but the last, in bytes. It depends on the length alone, so that a later upload has the same.
    pub(super) fn part_bytes(&self) -> u64 {
        part_bytes(self.length)
    }

    /// Size of one part, in bytes.
    pub(super) fn bytes_of_part(&self, index: usize) -> u64 {
        let start = index as u64 * self.part_bytes();
        self.length.saturating_sub(start).min(self.part_bytes())
    }

    /// Reads a part on another thread. A part that has changed since it was hashed is an error.
    ///
    /// # Errors
    /// [`OriginImportError::Import`], [`OriginImportError::FileChanged`].
    pub(super) async fn read_part(&self, index: usize) -> Result<Bytes, OriginImportError> {
        let file = self.clone();
        let read = tokio::task::spawn_blocking(move || file.read_part_now(index)).await;
        read.unwrap_or_else(|error| {
            let path = self.name.clone();
            let source = io::Error::other(error);
            Err(ImportError::Read { path, source }.into())
        })
    }

    fn read_part_now(&self, index: usize) -> Result<Bytes, OriginImportError> {
        let changed = || OriginImportError::FileChanged(self.name.clone());
        let count = usize::try_from(self.bytes_of_part(index)).map_err(|_| changed())?;
        let mut bytes = vec![0; count];
        let offset = index as u64 * self.part_bytes();
        match read_exact_at(&self.file, &mut bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(changed()),
            Err(source) => {
                let path = self.name.clone();
                return Err(ImportError::Read { path, source }.into());
            }
            Ok(()) => {}
        }
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        match self.part_digests.get(index) {
            Some(expected) if *expected == digest => Ok(bytes.into()),
            _ => Err(changed()),
        }
    }
}

/// Returns the size of a part, so that the parts of the whole are not too many.
fn part_bytes(length: u64) -> u64 {
    let least = length.div_ceil(PARTS);
    least.next_multiple_of(MIB).max(PART_MIN_BYTES)
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    let (mut rest, mut offset) = (bytes, offset);
    while !rest.is_empty() {
        let count = file.seek_read(rest, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rest = &mut rest[count..];
        offset += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_largest_content_fits_into_the_parts() {
        for (length, bytes) in [
            (0, 8 * MIB),
            (80_000 * MIB, 8 * MIB),
            (80_000 * MIB + 1, 9 * MIB),
            (CONTENT_MAX_BYTES, 105 * MIB),
        ] {
            assert_eq!(part_bytes(length), bytes, "{length}");
            assert!(length.div_ceil(part_bytes(length)) <= PARTS, "{length}");
        }
    }

    #[tokio::test]
    async fn a_file_that_changes_after_it_was_hashed_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "content").unwrap();
        let hashed = HashedFile::read(&path, folder.path()).unwrap();
        assert_eq!(hashed.media_type(), "text/plain; charset=utf-8");
        assert_eq!(hashed.read_part(0).await.unwrap(), "content");
        for changed in ["Content", "conten"] {
            fs::write(&path, changed).unwrap();
            let error = hashed.read_part(0).await.unwrap_err();
            assert!(
                matches!(error, OriginImportError::FileChanged(_)),
                "{error}"
            );
        }
    }
}
