//! Content of objects: bytes in memory, or bytes that are a function of their offset.

use bytes::Bytes;
use std::ops::Range;

/// The bytes of an object.
#[derive(Clone)]
pub(crate) enum Content {
    /// Bytes in memory.
    Memory(Bytes),
    /// So many bytes that are a function of the seed and of their offset. They take no memory, so an object can be larger
    /// than the disk.
    Computed { seed: u64, length: u64 },
}

impl Content {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Computed { length, .. } => *length,
        }
    }

    /// Returns the bytes from the first offset to the one before the last. They have to be within the length.
    pub(crate) fn read(&self, range: Range<u64>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.length());
        match self {
            Content::Memory(bytes) => bytes
                .slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()),
            Content::Computed { seed, .. } => computed(*seed, range).into(),
        }
    }
}

/// Length of the blocks of computed content, in bytes.
const BLOCK: u64 = 8;

fn computed(seed: u64, range: Range<u64>) -> Vec<u8> {
    let first = range.start / BLOCK;
    let last = range.end.div_ceil(BLOCK);
    let mut bytes: Vec<u8> = (first..last)
        .flat_map(|index| hash(seed ^ index).to_le_bytes())
        .collect();
    let wanted = usize::try_from(range.end - range.start).unwrap();
    bytes.drain(..usize::try_from(range.start % BLOCK).unwrap());
    bytes.truncate(wanted);
    bytes
}

/// The finalizer of SplitMix64, which differs for each argument.
fn hash(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[test]
fn computed_content_is_the_same_from_every_offset() {
    let content = Content::Computed {
        seed: 7,
        length: 1001,
    };
    let whole = content.read(0..1001);
    assert_eq!(whole.len(), 1001);
    for start in 0..30 {
        for end in [start, start + 1, start + 7, start + 8, start + 100, 1001] {
            let part = content.read(start..end);
            assert_eq!(
                part,
                whole[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()]
            );
        }
    }
}

#[test]
fn computed_content_differs_by_block_and_by_seed() {
    let content = |seed| Content::Computed {
        seed,
        length: 10_000_000_000,
    };
    let at = |seed, offset| content(seed).read(offset..offset + 8);
    assert_ne!(at(1, 5_000_000_000), at(1, 5_000_000_008));
    assert_ne!(at(1, 5_000_000_000), at(2, 5_000_000_000));
}
