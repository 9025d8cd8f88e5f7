//! Watches the frames of HTTP/2 as they come, for a field section that is longer than a request's head may be.
//!
//! A field section may go over several frames, HEADERS and then CONTINUATION (RFC 9113 section 4.3), and the parser
//! keeps what it cannot decode yet. It counts those frames; here their bytes are counted.

/// Where a request's head ends at the latest, in bytes; it lies well above [`millpond::head_size::TARGET_BYTES`], so that the usual
/// too long target gets a 414.
pub(crate) const HEAD_BYTES: usize = 32 * 1024;

/// Reads along, frame after frame, from the connection's first byte on.
#[derive(Debug)]
pub(crate) struct Frames {
    /// The head of a frame, of which so many bytes have come.
    head: [u8; HEAD_LENGTH],
    have: usize,
    /// Bytes of the present frame, or of the preface, that are still to come.
    left: usize,
    /// Bytes of the field section that is coming, or came last.
    section_bytes: usize,
}

/// The connection preface (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A field section is longer than [`HEAD_BYTES`] as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a field section of more than {HEAD_BYTES} bytes")]
pub(crate) struct SectionTooLong;

/// RFC 9113 section 4.1.
const HEAD_LENGTH: usize = 9;

impl Frames {
    pub(crate) fn new() -> Self {
        Frames {
            head: [0; HEAD_LENGTH],
            have: 0,
            left: PREFACE.len(),
            section_bytes: 0,
        }
    }

    /// Takes these bytes into account, which may begin and end anywhere. Says how many bytes the field section has that
    /// is coming, or the one that has just ended; zero when another frame has come since.
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
            // Whether it may come here is for the parser to say.
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

    /// What is said at the end of those frames, however they are cut.
    fn read(frames: &[Vec<u8>]) -> Result<usize, SectionTooLong> {
        let bytes = [PREFACE, &frames.concat()].concat();
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
    fn one_that_goes_on_and_on_is_told() {
        let half = HEAD_BYTES / 2;
        assert_eq!(read(&[frame(1, half), frame(9, half)]), Ok(HEAD_BYTES));
        let too_long = [frame(1, half), frame(9, half), frame(9, 1)];
        assert_eq!(read(&too_long), Err(SectionTooLong));
    }
}
