//! Bounds the field sections of HTTP/2 to the size of a request head, frame by frame as they arrive.
//!
//! A field section may span several frames, HEADERS and then CONTINUATION (RFC 9113 section 4.3). The parser buffers
//! them until it can decode them. It limits the number of frames; this module limits their bytes.

use crate::http1::head::{HEAD_BYTES, HTTP2_PREFACE};

/// Follows the frames from the connection's first byte on.
#[derive(Debug)]
pub(crate) struct Frames {
    /// The header of the current frame, of which `have` bytes have arrived.
    head: [u8; HEAD_LENGTH],
    have: usize,
    /// Remaining bytes of the current frame, or of the preface.
    left: usize,
    /// Bytes of the current or last field section.
    section_bytes: usize,
}

/// A field section exceeds [`HEAD_BYTES`] in its encoded form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a field section of more than {HEAD_BYTES} bytes")]
pub(crate) struct SectionTooLong;

/// Size of a frame header (RFC 9113 section 4.1).
const HEAD_LENGTH: usize = 9;

impl Frames {
    pub(crate) fn new() -> Self {
        Frames {
            head: [0; HEAD_LENGTH],
            have: 0,
            left: HTTP2_PREFACE.len(),
            section_bytes: 0,
        }
    }

    /// Reads the next bytes, which may begin and end anywhere in a frame. Returns the size of the current field
    /// section, or of the one that has just ended. Returns zero if another frame came since.
    ///
    /// # Errors
    /// [`SectionTooLong`].
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<usize, SectionTooLong> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len());
                self.left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let wanted = HEAD_LENGTH - self.have;
            let (head, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.head[self.have..self.have + head.len()].copy_from_slice(head);
            self.have += head.len();
            bytes = rest;
            if self.have == HEAD_LENGTH {
                self.have = 0;
                self.begin_frame()?;
            }
        }
        Ok(self.section_bytes)
    }

    fn begin_frame(&mut self) -> Result<(), SectionTooLong> {
        const HEADERS: u8 = 1;
        const PUSH_PROMISE: u8 = 5;
        const CONTINUATION: u8 = 9;
        let [a, b, c, kind, ..] = self.head;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.section_bytes = match kind {
            HEADERS | PUSH_PROMISE => self.left,
            // The parser checks whether CONTINUATION is allowed here.
            CONTINUATION => self.section_bytes + self.left,
            _ => 0,
        };
        (self.section_bytes <= HEAD_BYTES)
            .then_some(())
            .ok_or(SectionTooLong)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let length_bytes = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = length_bytes[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.resize(HEAD_LENGTH + length, 1);
        frame
    }

    /// Returns the result for these frames. It must be the same for any split into reads.
    fn read(frames: &[Vec<u8>]) -> Result<usize, SectionTooLong> {
        let bytes = [HTTP2_PREFACE, &frames.concat()].concat();
        let whole = Frames::new().read(&bytes);
        let mut by_byte = Frames::new();
        let cut = bytes.iter().try_fold(0, |_, byte| by_byte.read(&[*byte]));
        assert_eq!(whole, cut);
        whole
    }

    #[test]
    fn a_field_section_is_the_sum_of_its_frames() {
        let [settings, data] = [frame(4, 6), frame(0, 16_384)];
        assert_eq!(read(&[settings.clone(), frame(1, 100)]), Ok(100));
        assert_eq!(read(&[frame(1, 100), frame(9, 50), frame(9, 0)]), Ok(150));
        assert_eq!(read(&[frame(1, 100), data.clone()]), Ok(0));
        assert_eq!(read(&[data, settings, frame(1, 7), frame(1, 8)]), Ok(8));
    }

    #[test]
    fn a_section_over_several_frames_is_bounded() {
        let half = HEAD_BYTES / 2;
        assert_eq!(read(&[frame(1, half), frame(9, half)]), Ok(HEAD_BYTES));
        let too_long = [frame(1, half), frame(9, half), frame(9, 1)];
        assert_eq!(read(&too_long), Err(SectionTooLong));
    }
}
