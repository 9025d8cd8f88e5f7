//! A slice of an open file, read piece by piece: what a body part is until it becomes bytes.

use super::cursor::{Cursor, OutOfBounds};
use super::thread_pool::{BlockingTask, ThreadPool};
use bytes::{Bytes, BytesMut};
use millpond_ledger::Charge;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// A file of the store's, open, and as long as it was when it was opened. Several requests may have the same one.
#[derive(Debug)]
pub(crate) struct MediaFile {
    /// None once it is being closed.
    file: Option<File>,
    length: u64,
    /// Where it is read and closed, if its file system may not answer.
    threads: Option<ThreadPool>,
    /// All of its bytes, where they are few and were read when it was opened.
    bytes: Option<Bytes>,
}

/// Bytes that an open file takes in the kernel and here.
pub(crate) const FILE_BYTES: usize = 1024;

/// Most bytes of a file that are kept beside it, in bytes: what an answer has room for anyway.
pub(crate) const SMALL_BYTES: usize = 12 * 1024;

/// Longest slice that the kernel takes pieces out of without a copy. On loopback a longer one is sent faster copied, since
/// it is not in the processor's cache, where its reader then finds the copy.
const SENDFILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// An open file that a request holds, charged to it for as long.
#[derive(Debug)]
pub struct OpenFile {
    file: Arc<MediaFile>,
    _charge: Charge,
}

/// The bytes of an open file from an offset on, to an exact length. It holds the file open and no bytes.
#[derive(Debug, Clone)]
pub(crate) struct FileSlice {
    file: Arc<OpenFile>,
    cursor: Cursor,
    /// Whether it is short enough to be lent.
    is_short: bool,
}

/// Bytes of an open file that a connection may have the kernel send (`sendfile(2)`).
#[derive(Debug)]
pub struct FileRange {
    /// The file, held open and charged to its request.
    pub file: Arc<OpenFile>,
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub length: usize,
}

/// What reading without waiting came to.
#[derive(Debug)]
pub(crate) enum TryRead {
    /// Bytes were appended: one at least, unless none are left.
    Read,
    /// The bytes are not in memory: reading them would wait for the disk.
    WouldBlock,
}

impl MediaFile {
    /// A file of that length in bytes, of which nothing is kept.
    pub(crate) fn new(file: File, length: u64) -> Self {
        MediaFile {
            file: Some(file),
            length,
            threads: None,
            bytes: None,
        }
    }

    /// The same file, which is read and closed on those threads.
    pub(super) fn on(self, threads: Option<ThreadPool>) -> Self {
        let mut file = self;
        file.threads = threads;
        file
    }

    /// The same file with its bytes, where they are [`SMALL_BYTES`] at most and can be had without waiting.
    pub(crate) fn with_bytes(mut self) -> Self {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        if length <= SMALL_BYTES && self.threads.is_none() {
            let mut buffer = BytesMut::zeroed(length);
            if nonblocking::read_at(self.file(), &mut buffer, 0).is_ok_and(|count| count == length)
            {
                self.bytes = Some(buffer.freeze());
            }
        }
        self
    }

    /// What it holds in memory while it is kept open, in bytes: the kernel's part and its own bytes.
    pub(crate) fn cached_bytes(&self) -> usize {
        FILE_BYTES + self.bytes.as_ref().map_or(0, Bytes::len)
    }

    #[allow(clippy::expect_used, reason = "only its end takes the file away")]
    pub(crate) fn file(&self) -> &File {
        self.file
            .as_ref()
            .expect("the file is open until it is dropped")
    }
}

/// Closing a file asks some file systems, which may not answer (`FUSE_FLUSH`).
impl Drop for MediaFile {
    fn drop(&mut self) {
        if let (Some(threads), Some(file)) = (&self.threads, self.file.take()) {
            threads.detach(move || drop(file));
        }
    }
}

impl OpenFile {
    pub(crate) fn new(file: Arc<MediaFile>, charge: Charge) -> Self {
        OpenFile {
            file,
            _charge: charge,
        }
    }

    /// A file of that length in bytes, charged with that for as long as it is open.
    #[must_use]
    pub fn from_file(file: File, length: u64, charge: Charge) -> Self {
        OpenFile::new(Arc::new(MediaFile::new(file, length)), charge)
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        self.file.file()
    }
}

impl FileSlice {
    pub(crate) fn new(file: Arc<OpenFile>, offset: u64, length: u64) -> Result<Self, OutOfBounds> {
        Ok(FileSlice {
            cursor: Cursor::new(file.file.length, offset, length)?,
            file,
            is_short: length <= SENDFILE_MAX_BYTES,
        })
    }

    /// Where in its object the next byte lies.
    pub(crate) fn offset(&self) -> u64 {
        self.cursor.offset()
    }

    /// Bytes not yet read.
    pub(crate) fn remaining(&self) -> u64 {
        self.cursor.remaining()
    }

    /// The same slice, without what lies beyond its next `length` bytes.
    pub(crate) fn truncated(mut self, length: u64) -> Self {
        self.cursor.truncate(length);
        self
    }

    /// Leaves out the next `count` bytes.
    pub(crate) fn skip(&mut self, count: u64) {
        self.cursor.skip(count);
    }

    /// At most `most` of the next bytes, where the file has them in memory.
    pub(crate) fn take_cached(&mut self, most: usize) -> Option<Bytes> {
        let bytes = self.file.file.bytes.as_ref()?;
        let start = usize::try_from(self.cursor.offset()).ok()?;
        let wanted = self.cursor.chunk_bytes(most);
        let taken = bytes.slice(start..start + wanted);
        self.skip(wanted as u64);
        Some(taken)
    }

    /// Some of the next bytes, for the kernel to take out of the file when it sends them. `None` where they are to be had in
    /// another way.
    pub(crate) fn take_sendfile_range(&mut self, most: usize) -> Option<FileRange> {
        let length = self.cursor.chunk_bytes(most);
        if !self.is_short
            || self.file.file.threads.is_some()
            || length <= SMALL_BYTES
            || !nonblocking::is_in_memory(self.file.file(), self.cursor.offset(), length)
        {
            return None;
        }
        let range = FileRange {
            file: Arc::clone(&self.file),
            offset: self.cursor.offset(),
            length,
        };
        self.skip(length as u64);
        Some(range)
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
    pub(crate) fn try_read(&mut self, buffer: &mut BytesMut, most: usize) -> io::Result<TryRead> {
        if self.file.file.threads.is_some() {
            return Ok(TryRead::WouldBlock);
        }
        match self.append(buffer, most, nonblocking::read_at) {
            Ok(_) => Ok(TryRead::Read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(TryRead::WouldBlock),
            Err(error) => Err(error),
        }
    }

    /// Does what reads the slice, on a thread that may wait for it.
    pub(crate) fn spawn<T: Send + 'static>(
        self,
        work: impl FnOnce(FileSlice) -> T + Send + 'static,
    ) -> BlockingTask<T> {
        match self.file.file.threads.clone() {
            Some(threads) => threads.spawn(move || work(self)),
            None => BlockingTask::Runtime(tokio::task::spawn_blocking(move || work(self))),
        }
    }

    fn append(
        &mut self,
        buffer: &mut BytesMut,
        most: usize,
        read: impl Fn(&File, &mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let wanted = self.cursor.chunk_bytes(most);
        if wanted == 0 {
            return Ok(0);
        }
        let start = buffer.len();
        buffer.resize(start + wanted, 0);
        let result = loop {
            match read(self.file.file(), &mut buffer[start..], self.cursor.offset()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        let count = *result.as_ref().unwrap_or(&0);
        buffer.truncate(start + count);
        match result {
            Ok(0) => Err(has_shrunk()),
            Ok(count) => {
                self.cursor.skip(count as u64);
                Ok(count)
            }
            Err(error) => Err(error),
        }
    }
}

/// A file has fewer bytes than it had when it was opened.
#[must_use]
pub fn has_shrunk() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the file has shrunk since it was opened",
    )
}

/// Reads at a place, whatever the handle's own position is.
pub(crate) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, into, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, into, offset);
}

pub(crate) use nonblocking::read_at as try_read_at;

/// Reads what the kernel has in memory and nothing else (`RWF_NOWAIT`): a media file that is asked for often
/// is, and then no thread has to be changed for it.
#[cfg(target_os = "linux")]
mod nonblocking {
    use rustix::io::{ReadWriteFlags, preadv2};
    use std::fs::File;
    use std::io::{self, IoSliceMut};

    pub(crate) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
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

    /// Whether the kernel has all of that part of the file in memory (`cachestat`, Linux 6.5). Older systems, and those
    /// that tell only who may write the file, do not say so.
    pub(super) fn is_in_memory(file: &File, offset: u64, count: usize) -> bool {
        let page_bytes = rustix::param::page_size() as u64;
        let cached = crate::sys::cached_pages(file, offset, count as u64);
        let last = (offset + count as u64 - 1) / page_bytes;
        cached.is_some_and(|cached| cached > last - offset / page_bytes)
    }
}

/// No other system tells whether a read would wait; so it always might.
#[cfg(not(target_os = "linux"))]
mod nonblocking {
    use std::fs::File;
    use std::io;

    pub(crate) fn read_at(_file: &File, _into: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    pub(super) fn is_in_memory(_file: &File, _offset: u64, _count: usize) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use millpond_ledger::{Kind, Ledger, Owner};
    use proptest::prelude::*;
    use std::io::Write;

    fn open(content: &[u8]) -> (tempfile::NamedTempFile, Arc<OpenFile>) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let ledger = Ledger::new(&Arc::default(), Owner::Connection, usize::MAX);
        let charge = ledger.charge(Kind::Files, 1).unwrap();
        let media = MediaFile::new(file.reopen().unwrap(), content.len() as u64);
        let open = OpenFile::new(Arc::new(media), charge);
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
                match slice.try_read(&mut buffer, most).unwrap() {
                    TryRead::Read if now => {}
                    _ => { slice.read(&mut buffer, most).unwrap(); }
                }
            }
            prop_assert_eq!(&buffer[..], &content[start..end]);
        }
    }
}
