//! Chunk map: which chunks of an object a cache file has.

use std::sync::atomic::{AtomicU64, Ordering};

/// Size of a chunk, in bytes. Requests to an origin are aligned to it.
pub(crate) const CHUNK_BYTES: u64 = 1024 * 1024;

/// Chunks that a cache file has whole, as a bitmap.
#[derive(Debug)]
pub(crate) struct ChunkMap {
    words: Box<[AtomicU64]>,
    /// Length of the object, in bytes.
    length: u64,
    present: AtomicU64,
}

impl ChunkMap {
    /// Returns the map of an object of this length, without chunks.
    pub(crate) fn new(length: u64) -> Self {
        let words = chunks(length).div_ceil(64);
        ChunkMap {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            length,
            present: AtomicU64::new(0),
        }
    }

    /// Returns the map that [`ChunkMap::to_bytes`] wrote. Bits beyond the last chunk are ignored.
    pub(crate) fn from_bytes(length: u64, bytes: &[u8]) -> Self {
        let map = ChunkMap::new(length);
        for chunk in 0..map.chunks() {
            let byte = usize::try_from(chunk / 8).ok();
            let byte = byte.and_then(|index| bytes.get(index)).copied();
            if byte.unwrap_or_default() & (1 << (chunk % 8)) != 0 {
                map.insert(chunk);
            }
        }
        map
    }

    /// Number of bytes of the bitmap of an object of this length.
    pub(crate) fn bytes_for(length: u64) -> u64 {
        chunks(length).div_ceil(8)
    }

    /// Returns the bitmap, one bit a chunk, the first in the lowest bit.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let words = self.words.iter().map(|word| word.load(Ordering::Acquire));
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        bytes.truncate(usize::try_from(Self::bytes_for(self.length)).unwrap_or(usize::MAX));
        bytes
    }

    /// Number of chunks of the object.
    pub(crate) fn chunks(&self) -> u64 {
        chunks(self.length)
    }

    /// Number of chunks that the file has.
    pub(crate) fn present(&self) -> u64 {
        self.present.load(Ordering::Acquire)
    }

    /// Whether the file has every chunk.
    pub(crate) fn is_whole(&self) -> bool {
        self.present() == self.chunks()
    }

    /// Number of the object's bytes that the file has.
    pub(crate) fn present_bytes(&self) -> u64 {
        let present = self.present();
        let last = self.chunks().checked_sub(1);
        let missing_of_last = match last {
            Some(last) if self.has(last) => self.chunks() * CHUNK_BYTES - self.length,
            _ => 0,
        };
        (present * CHUNK_BYTES).saturating_sub(missing_of_last)
    }

    /// Whether the file has a chunk.
    pub(crate) fn has(&self, chunk: u64) -> bool {
        let word = usize::try_from(chunk / 64).ok();
        let word = word.and_then(|index| self.words.get(index));
        word.is_some_and(|word| word.load(Ordering::Acquire) & (1 << (chunk % 64)) != 0)
    }

    /// Records that the file has a chunk. Returns whether it had not before.
    pub(crate) fn insert(&self, chunk: u64) -> bool {
        let word = usize::try_from(chunk / 64).ok();
        let Some(word) = word.and_then(|index| self.words.get(index)) else {
            return false;
        };
        let bit = 1 << (chunk % 64);
        let is_new = word.fetch_or(bit, Ordering::AcqRel) & bit == 0;
        if is_new {
            self.present.fetch_add(1, Ordering::AcqRel);
        }
        is_new
    }

    /// Returns the number of bytes from `offset` on that the file has without a gap, `most` at most.
    pub(crate) fn available(&self, offset: u64, most: u64) -> u64 {
        let end = offset.saturating_add(most).min(self.length);
        let mut at = offset;
        while at < end && self.has(at / CHUNK_BYTES) {
            at = (at / CHUNK_BYTES + 1) * CHUNK_BYTES;
        }
        at.min(end).saturating_sub(offset)
    }
}

/// Number of chunks of an object of this length.
fn chunks(length: u64) -> u64 {
    length.div_ceil(CHUNK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_object_is_whole() {
        assert!(ChunkMap::new(0).is_whole());
        assert_eq!(ChunkMap::new(0).present_bytes(), 0);
    }

    proptest! {
        #[test]
        fn a_map_is_read_as_it_was_written(length in 0..200 * CHUNK_BYTES, chunks: Vec<u8>, offset in 0..200 * CHUNK_BYTES, most in 0..4 * CHUNK_BYTES) {
            let map = ChunkMap::new(length);
            for chunk in chunks {
                map.insert(u64::from(chunk) % map.chunks().max(1));
            }
            let bytes = map.to_bytes();
            prop_assert_eq!(bytes.len() as u64, ChunkMap::bytes_for(length));
            let read = ChunkMap::from_bytes(length, &bytes);
            prop_assert_eq!(read.present(), map.present());
            prop_assert_eq!(read.present_bytes(), map.present_bytes());
            prop_assert!(read.present_bytes() <= length);
            prop_assert_eq!(read.is_whole(), (0..map.chunks()).all(|chunk| map.has(chunk)));
            let available = map.available(offset, most);
            prop_assert!(available <= most && offset.min(length) + available <= length);
            let has = |at: u64| map.has(at / CHUNK_BYTES);
            prop_assert!(available == 0 || (has(offset) && has(offset + available - 1)));
            let next = offset + available;
            prop_assert!(available == most || next >= length || !has(next));
        }
    }
}
