//! A part of an object that is read from its beginning to its end.

/// Bytes of an object that are not read yet: the next one's place, and how many there are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    offset: u64,
    remaining: u64,
}

/// A part would reach past the end of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the slice reaches past the end of the object")]
pub(crate) struct OutOfBounds;

impl Cursor {
    /// The part of an object from `offset` on, with `length` bytes.
    ///
    /// # Errors
    /// [`OutOfBounds`], when the object has fewer bytes.
    pub(super) fn new(object_bytes: u64, offset: u64, length: u64) -> Result<Self, OutOfBounds> {
        match offset.checked_add(length) {
            Some(end) if end <= object_bytes => Ok(Cursor {
                offset,
                remaining: length,
            }),
            _ => Err(OutOfBounds),
        }
    }

    /// Where in the object the next byte lies.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes not yet read.
    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Length of the next chunk, in bytes, where it may have `most`.
    pub(super) fn chunk_bytes(&self, most: usize) -> usize {
        usize::try_from(self.remaining).map_or(most, |remaining| remaining.min(most))
    }

    /// Leaves out what lies beyond the next `length` bytes.
    pub(super) fn truncate(&mut self, length: u64) {
        self.remaining = self.remaining.min(length);
    }

    /// Leaves out the next `count` bytes.
    pub(super) fn skip(&mut self, count: u64) {
        let count = count.min(self.remaining);
        self.offset += count;
        self.remaining -= count;
    }
}
