//! Cache file: a sparse file with the chunks of one object, a bitmap of them, and a record of the object.
//!
//! | part | content |
//! | --- | --- |
//! | object | its bytes at their own offsets, with holes for missing chunks |
//! | padding | up to a page |
//! | bitmap | one bit a chunk, set once the chunk is on disk |
//! | record | JSON, which never changes |
//! | footer | lengths of bitmap and record, and the digest of both lengths and the record |
//!
//! A file of another object, or of another version of it, has another name. So no byte of a file is ever written twice with
//! another value.

use super::chunk_map::ChunkMap;
use super::object_record::{OBJECT_RECORD_BYTES, ObjectRecord};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Alignment of the bitmap, in bytes. A write of the bitmap changes no page of the object.
const PAGE_BYTES: u64 = 4096;

/// Magic number of a footer, with the version of the format.
const MAGIC: &[u8; 8] = b"millpnd1";

/// Length of a footer, in bytes: the magic number, two lengths, and half a digest.
const FOOTER_BYTES: u64 = 8 + 4 + 4 + 16;

/// Bytes of a cache file beyond its object's, on disk: the pages of the bitmap, the record and the file system's own.
pub(crate) const FILE_OVERHEAD_BYTES: u64 = 3 * PAGE_BYTES;

/// Creates the file of an object, without chunks.
///
/// # Errors
/// The system's.
pub(crate) fn create(path: &Path, record: &ObjectRecord) -> io::Result<File> {
    let json = serde_json::to_vec(record)?;
    let bitmap_bytes = ChunkMap::bytes_for(record.length);
    let lengths = lengths(bitmap_bytes, json.len()).ok_or(io::ErrorKind::FileTooLarge)?;
    let mut trailer = vec![0; usize::try_from(bitmap_bytes).map_err(io::Error::other)?];
    trailer.extend_from_slice(&json);
    trailer.extend_from_slice(MAGIC);
    trailer.extend_from_slice(&lengths);
    trailer.extend_from_slice(&digest(&lengths, &json));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all_at(&trailer, bitmap_offset(record.length))?;
    Ok(file)
}

/// Opens the file of an object for reading and writing.
///
/// # Errors
/// The system's. [`io::ErrorKind::InvalidData`] if it is no whole cache file.
pub(crate) fn open(path: &Path) -> io::Result<(File, ObjectRecord, ChunkMap)> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let (record, chunks) = read(&file)?;
    Ok((file, record, chunks))
}

/// Writes the bitmap, after the chunks that it has are on disk.
///
/// # Errors
/// The system's. The bitmap on disk has fewer chunks then.
pub(crate) fn persist(file: &File, chunks: &ChunkMap, length: u64) -> io::Result<()> {
    let bitmap = chunks.to_bytes();
    file.sync_data()?;
    file.write_all_at(&bitmap, bitmap_offset(length))
}

fn read(file: &File) -> io::Result<(ObjectRecord, ChunkMap)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let file_bytes = file.metadata()?.len();
    let footer_offset = file_bytes.checked_sub(FOOTER_BYTES).ok_or_else(invalid)?;
    let mut footer = [0; FOOTER_BYTES as usize];
    file.read_exact_at(&mut footer, footer_offset)?;
    let (magic, rest) = footer.split_at(MAGIC.len());
    let (lengths, expected_digest) = rest.split_at(8);
    if magic != MAGIC {
        return Err(invalid());
    }
    let length_at = |at: usize| {
        let bytes = lengths
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes).map(u64::from)
    };
    let (bitmap_bytes, json_bytes) = length_at(0).zip(length_at(4)).ok_or_else(invalid)?;
    if json_bytes > OBJECT_RECORD_BYTES {
        return Err(invalid());
    }
    let json_offset = footer_offset.checked_sub(json_bytes).ok_or_else(invalid)?;
    let mut json = vec![0; usize::try_from(json_bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut json, json_offset)?;
    if digest(lengths, &json) != expected_digest {
        return Err(invalid());
    }
    let record: ObjectRecord = serde_json::from_slice(&json)?;
    // The record is ours, and says how long each part is.
    let is_whole = bitmap_bytes == ChunkMap::bytes_for(record.length)
        && json_offset == bitmap_offset(record.length) + bitmap_bytes;
    if !is_whole {
        return Err(invalid());
    }
    let mut bitmap = vec![0; usize::try_from(bitmap_bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut bitmap, json_offset - bitmap_bytes)?;
    let chunks = ChunkMap::from_bytes(record.length, &bitmap);
    Ok((record, chunks))
}

fn bitmap_offset(length: u64) -> u64 {
    length.next_multiple_of(PAGE_BYTES)
}

fn lengths(bitmap_bytes: u64, json_bytes: usize) -> Option<[u8; 8]> {
    let mut lengths = [0; 8];
    let mut to = &mut lengths[..];
    to.write_all(&u32::try_from(bitmap_bytes).ok()?.to_le_bytes())
        .ok()?;
    to.write_all(&u32::try_from(json_bytes).ok()?.to_le_bytes())
        .ok()?;
    Some(lengths)
}

fn digest(lengths: &[u8], json: &[u8]) -> [u8; 16] {
    let digest = Sha256::new()
        .chain_update(lengths)
        .chain_update(json)
        .finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cache::chunk_map::CHUNK_BYTES;
    use std::fs;

    fn record(length: u64) -> ObjectRecord {
        ObjectRecord::example(length)
    }

    #[test]
    fn a_file_is_opened_as_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        for (index, length) in [0, 1, 4096, CHUNK_BYTES + 1, 10 << 30]
            .into_iter()
            .enumerate()
        {
            let path = folder.path().join(index.to_string());
            let file = create(&path, &record(length)).unwrap();
            let (_, read, chunks) = open(&path).unwrap();
            assert_eq!((read, chunks.present()), (record(length), 0));
            let chunks = ChunkMap::new(length);
            if length > 0 {
                file.write_all_at(b"x", 0).unwrap();
                chunks.insert(0);
            }
            persist(&file, &chunks, length).unwrap();
            let (_, read, persisted) = open(&path).unwrap();
            assert_eq!(read, record(length));
            assert_eq!(persisted.to_bytes(), chunks.to_bytes());
            assert!(create(&path, &record(length)).is_err(), "it exists");
        }
    }

    #[test]
    fn a_torn_file_is_no_cache_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        create(&path, &record(3 * CHUNK_BYTES)).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..400.min(whole.len()) {
            fs::write(&path, &whole[..whole.len() - 1 - length]).unwrap();
            assert!(open(&path).is_err(), "{length} bytes are missing");
        }
        for at in whole.len() - 400..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 0x40;
            fs::write(&path, &torn).unwrap();
            if let Ok((_, read, _)) = open(&path) {
                assert_eq!(read, record(3 * CHUNK_BYTES), "byte {at}");
                let bitmap = bitmap_offset(3 * CHUNK_BYTES) as usize;
                assert!(
                    (bitmap - PAGE_BYTES as usize..=bitmap).contains(&at),
                    "byte {at}"
                );
            }
        }
    }
}
