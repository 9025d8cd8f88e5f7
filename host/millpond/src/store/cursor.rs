//! Cursor over a part of an object.

/// Unread bytes of an object: the offset of the next one, and their number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    offset: u64,
    remaining: u64,
}

/// The error of a part that exceeds its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the range exceeds the object")]
pub(crate) struct OutOfBounds;

impl Cursor {
    /// Returns the part of `length` bytes from `offset` on.
    ///
    /// # Errors
    /// [`OutOfBounds`], if the object has fewer bytes.
    pub(super) fn new(object_bytes: u64, offset: u64, length: u64) -> Result<Self, OutOfBounds> {
        match offset.checked_add(length) {
            Some(end) if end <= object_bytes => Ok(Cursor {
                offset,
                remaining: length,
            }),
            _ => Err(OutOfBounds),
        }
    }

    /// Offset of the next byte in the object.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of unread bytes.
    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Length of the next chunk, in bytes, `most` at most.
    pub(super) fn chunk_bytes(&self, most: usize) -> usize {
        usize::try_from(self.remaining).map_or(most, |remaining| remaining.min(most))
    }

    /// Drops the bytes beyond the next `length`.
    pub(super) fn truncate(&mut self, length: u64) {
        self.remaining = self.remaining.min(length);
    }

    /// Skips the next `count` bytes.
    pub(super) fn skip(&mut self, count: u64) {
        let count = count.min(self.remaining);
        self.offset += count;
        self.remaining -= count;
    }
}
