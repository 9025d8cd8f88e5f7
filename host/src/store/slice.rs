//! A slice of an open file, read piece by piece: what a body part is until it becomes bytes.

use crate::ledger::Charge;
use bytes::BytesMut;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// An open file, charged while it is open.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    /// Length when it was opened, in bytes.
    length: u64,
    _charge: Charge,
}

/// The bytes of an open file from an offset on, to an exact length. It holds the file open and no bytes.
#[derive(Debug, Clone)]
pub(crate) struct FileSlice {
    file: Arc<OpenFile>,
    offset: u64,
    remaining: u64,
}

/// A slice would reach past the end of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the slice reaches past the end of the object")]
pub(crate) struct OutOfBounds;

/// What reading without waiting came to.
#[derive(Debug)]
pub(crate) enum ReadNow {
    /// Bytes were appended: one at least, unless none are left.
    Read,
    /// The bytes are not in memory: reading them would wait for the disk.
    WouldBlock,
}

impl OpenFile {
    pub(crate) fn new(file: File, length: u64, charge: Charge) -> Self {
        OpenFile {
            file,
            length,
            _charge: charge,
        }
    }
}

impl FileSlice {
    pub(crate) fn new(file: Arc<OpenFile>, offset: u64, length: u64) -> Result<Self, OutOfBounds> {
        match offset.checked_add(length) {
            Some(end) if end <= file.length => Ok(FileSlice {
                file,
                offset,
                remaining: length,
            }),
            _ => Err(OutOfBounds),
        }
    }

    /// Bytes not yet read.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The same slice, without what lies beyond its next `length` bytes.
    pub(crate) fn truncated(mut self, length: u64) -> Self {
        self.remaining = self.remaining.min(length);
        self
    }

    /// Leaves out the next `count` bytes.
    pub(crate) fn skip(&mut self, count: u64) {
        let count = count.min(self.remaining);
        self.offset += count;
        self.remaining -= count;
    }

    /// Appends at most `most` of the next bytes to the buffer, and moves on by as many; it waits for the disk
    /// where it has to.
    ///
    /// # Errors
    /// As reading a file; [`io::ErrorKind::UnexpectedEof`] when the file has shrunk since it was opened.
    pub(crate) fn read(&mut self, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
        self.append(buffer, most, |file, into, offset| {
            read_at(file, into, offset)
        })
    }

    /// The same, but without waiting for the disk.
    ///
    /// # Errors
    /// As [`FileSlice::read`].
    pub(crate) fn read_now(&mut self, buffer: &mut BytesMut, most: usize) -> io::Result<ReadNow> {
        match self.append(buffer, most, now::read_at) {
            Ok(_) => Ok(ReadNow::Read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(ReadNow::WouldBlock),
            Err(error) => Err(error),
        }
    }

    fn append(
        &mut self,
        buffer: &mut BytesMut,
        most: usize,
        read: impl Fn(&File, &mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let wanted = usize::try_from(self.remaining).map_or(most, |remaining| remaining.min(most));
        if wanted == 0 {
            return Ok(0);
        }
        let start = buffer.len();
        buffer.resize(start + wanted, 0);
        let result = loop {
            match read(&self.file.file, &mut buffer[start..], self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        let count = *result.as_ref().unwrap_or(&0);
        buffer.truncate(start + count);
        match result {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file has shrunk since it was opened",
            )),
            Ok(count) => {
                self.offset += count as u64;
                self.remaining -= count as u64;
                Ok(count)
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads at a place, whatever the handle's own position is.
pub(crate) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, into, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, into, offset);
}

/// The same, but without waiting for the disk: [`io::ErrorKind::WouldBlock`] where it would.
pub(crate) fn read_at_now(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    now::read_at(file, into, offset)
}

/// Reads what the kernel has in memory and nothing else (`RWF_NOWAIT`): a media file that is asked for often
/// is, and then no thread has to be changed for it.
#[cfg(target_os = "linux")]
mod now {
    use rustix::io::{ReadWriteFlags, preadv2};
    use std::fs::File;
    use std::io::{self, IoSliceMut};

    pub(super) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut into = [IoSliceMut::new(into)];
        preadv2(file, &mut into, offset, ReadWriteFlags::NOWAIT).map_err(|error| {
            // File systems without it say so; the plain read serves them.
            if error == rustix::io::Errno::OPNOTSUPP {
                io::ErrorKind::WouldBlock.into()
            } else {
                error.into()
            }
        })
    }
}

/// No other system tells whether a read would wait; so it always might.
#[cfg(not(target_os = "linux"))]
mod now {
    use std::fs::File;
    use std::io;

    pub(super) fn read_at(_file: &File, _into: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ledger::{Kind, Ledger, Owner};
    use proptest::prelude::*;
    use std::io::Write;

    fn open(content: &[u8]) -> (tempfile::NamedTempFile, Arc<OpenFile>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let ledger = Ledger::new(&Arc::default(), Owner::Connection, usize::MAX);
        let charge = ledger.charge(Kind::Files, 1).unwrap();
        let open = OpenFile::new(file.reopen().unwrap(), content.len() as u64, charge);
        (file, Arc::new(open))
    }

    #[test]
    fn a_file_that_shrinks_is_an_error_and_no_end() {
        let (file, open) = open(&[7; 100]);
        let mut slice = FileSlice::new(open, 0, 100).unwrap();
        let mut buffer = BytesMut::new();
        assert_eq!(slice.read(&mut buffer, 10).unwrap(), 10);
        file.as_file().set_len(10).unwrap();
        let error = slice.read(&mut buffer, 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(buffer.len(), 10, "nothing is made up for what is gone");
    }

    #[test]
    fn a_slice_that_reaches_past_the_end_is_refused() {
        let (_file, open) = open(&[0; 100]);
        for (offset, length, fits) in [
            (0, 100, true),
            (100, 0, true),
            (99, 2, false),
            (101, 0, false),
            (u64::MAX, 2, false),
        ] {
            let slice = FileSlice::new(Arc::clone(&open), offset, length);
            assert_eq!(slice.is_ok(), fits, "{offset} {length}");
        }
    }

    proptest! {
        #[test]
        fn pieces_add_up_to_the_slice(
            content in proptest::collection::vec(any::<u8>(), 1..300),
            bounds in any::<(proptest::sample::Index, proptest::sample::Index)>(),
            most in 1..40_usize,
            now: bool,
        ) {
            let (first, second) = (bounds.0.index(content.len()), bounds.1.index(content.len()));
            let (start, end) = (first.min(second), first.max(second));
            let (_file, open) = open(&content);
            let mut slice = FileSlice::new(open, start as u64, (end - start) as u64).unwrap();
            let mut buffer = BytesMut::new();
            while slice.remaining() > 0 {
                match slice.read_now(&mut buffer, most).unwrap() {
                    ReadNow::Read if now => {}
                    _ => { slice.read(&mut buffer, most).unwrap(); }
                }
            }
            prop_assert_eq!(&buffer[..], &content[start..end]);
        }
    }
}
