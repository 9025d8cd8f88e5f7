//! File slices: a range of an open file, read one chunk at a time.

use super::cache_status::OriginCacheStatus;
use super::cursor::{Cursor, OutOfBounds};
use super::thread_pool::{BlockingTask, ThreadPool};
use bytes::{Bytes, BytesMut};
use millpond_ledger::{Charge, LimitExceeded};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// An open file of the media store, with its length when it was opened. Several requests may share it.
#[derive(Debug)]
pub(crate) struct MediaFile {
    /// `None` while it is being closed.
    file: Option<File>,
    length: u64,
    /// Threads that read and close it, if its file system may not answer.
    threads: Option<ThreadPool>,
    /// All of its bytes, if it is small and was cached.
    bytes: Option<Bytes>,
}

/// Memory of an open file in the kernel and in the process, in bytes.
pub(crate) const FILE_BYTES: usize = 1024;

/// Maximum length of a file whose bytes are cached, in bytes. Every response has room for as much.
pub(crate) const SMALL_BYTES: usize = 12 * 1024;

/// Maximum length of a slice that is sent with `sendfile(2)`. On loopback a copy is faster for longer ones: they are
/// not in the processor's cache, and the copy then is.
const SENDFILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// An open file of a request, charged to it.
#[derive(Debug)]
pub struct OpenFile {
    file: Arc<MediaFile>,
    /// Cache status of its object, if the store caches an origin.
    cache_status: Option<OriginCacheStatus>,
    charge: Charge,
}

/// A range of an open file. It holds the file open, and no bytes.
#[derive(Debug, Clone)]
pub(crate) struct FileSlice {
    file: Arc<OpenFile>,
    pub(super) cursor: Cursor,
    /// Whether it is short enough for `sendfile(2)`.
    is_short: bool,
}

/// A range of an open file, for `sendfile(2)`.
#[derive(Debug)]
pub struct FileRange {
    /// The file, open and charged to its request.
    pub file: Arc<OpenFile>,
    /// Offset of the first byte.
    pub offset: u64,
    /// Length, in bytes.
    pub length: usize,
}

/// Result of a read that does not block.
#[derive(Debug)]
pub(crate) enum TryRead {
    /// Bytes were appended: at least one, unless none remain.
    Read,
    /// The bytes are not in memory, so the read would wait for the disk.
    WouldBlock,
}

impl MediaFile {
    /// Returns a file of this length in bytes, without cached bytes.
    pub(crate) fn new(file: File, length: u64) -> Self {
        MediaFile {
            file: Some(file),
            length,
            threads: None,
            bytes: None,
        }
    }

    /// Sets the threads that read and close the file.
    pub(super) fn on(self, threads: Option<ThreadPool>) -> Self {
        let mut file = self;
        file.threads = threads;
        file
    }

    /// Caches the file's bytes, if there are [`SMALL_BYTES`] at most and they can be read without blocking.
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

    /// Memory of the file while it is cached, in bytes.
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

/// Closing a file calls its file system, which may not answer (`FUSE_FLUSH`).
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
            cache_status: None,
            charge,
        }
    }

    /// Sets the cache status of the object.
    pub(super) fn with_cache_status(self, cache_status: Option<OriginCacheStatus>) -> Self {
        OpenFile {
            cache_status,
            ..self
        }
    }

    /// Returns another file of the same object, charged to the same request.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the request's memory does not suffice.
    pub(super) fn sibling(&self, file: Arc<MediaFile>) -> Result<Self, LimitExceeded> {
        let mut charge = self.charge.empty_sibling();
        charge.resize(self.charge.bytes())?;
        Ok(OpenFile {
            file,
            cache_status: self.cache_status,
            charge,
        })
    }

    /// Returns a file of this length in bytes. `charge` lasts as long as the file is open.
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

    /// Cache status of the object.
    pub(super) fn cache_status(&self) -> Option<OriginCacheStatus> {
        self.file.cache_status
    }

    /// Returns the next bytes, `most` at most, if they are cached.
    pub(crate) fn take_cached(&mut self, most: usize) -> Option<Bytes> {
        let bytes = self.file.file.bytes.as_ref()?;
        let start = usize::try_from(self.cursor.offset()).ok()?;
        let wanted = self.cursor.chunk_bytes(most);
        let taken = bytes.slice(start..start + wanted);
        self.cursor.skip(wanted as u64);
        Some(taken)
    }

    /// Returns the next bytes as a range for `sendfile(2)`, `most` at most. `None` if they have to be read.
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
        self.cursor.skip(length as u64);
        Some(range)
    }

    /// Appends the next bytes to the buffer, `most` at most. Waits for the disk.
    ///
    /// # Errors
    /// Errors of reading a file, and [`io::ErrorKind::UnexpectedEof`] if the file has shrunk since it was opened.
    pub(crate) fn read(&mut self, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
        self.append(buffer, most, |file, into, offset| {
            read_at(file, into, offset)
        })
    }

    /// Appends the next bytes to the buffer as [`FileSlice::read`] does, without waiting for the disk.
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

    /// Runs `work`, which reads the slice, on a thread that may block.
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

/// Returns the error of a file that is shorter than when it was opened.
#[must_use]
pub fn has_shrunk() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the file has shrunk since it was opened",
    )
}

/// Reads at an offset, and ignores the handle's position.
pub(crate) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, into, offset);
    #[cfg(windows)]
    return std::os::windows::fs::FileExt::seek_read(file, into, offset);
}

pub(crate) use nonblocking::read_at as try_read_at;

/// Reads of pages in memory (`RWF_NOWAIT`). A popular file is in memory, and needs no other thread.
#[cfg(target_os = "linux")]
mod nonblocking {
    use rustix::io::{ReadWriteFlags, preadv2};
    use std::fs::File;
    use std::io::{self, IoSliceMut};

    pub(crate) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut into = [IoSliceMut::new(into)];
        preadv2(file, &mut into, offset, ReadWriteFlags::NOWAIT).map_err(|error| {
            // The file system does not support it, so the blocking read is used.
            if error == rustix::io::Errno::OPNOTSUPP {
                io::ErrorKind::WouldBlock.into()
            } else {
                error.into()
            }
        })
    }

    /// Returns whether all pages of a range are in memory (`cachestat`, Linux 6.5). `false` if the kernel is older, or
    /// allows the call to the file's writers only.
    pub(super) fn is_in_memory(file: &File, offset: u64, count: usize) -> bool {
        let page_bytes = rustix::param::page_size() as u64;
        let cached = crate::sys::cached_pages(file, offset, count as u64);
        let last = (offset + count as u64 - 1) / page_bytes;
        cached.is_some_and(|cached| cached > last - offset / page_bytes)
    }
}

/// Other systems do not report whether a read would block, so it always may.
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
            while slice.cursor.remaining() > 0 {
                match slice.try_read(&mut buffer, most).unwrap() {
                    TryRead::Read if now => {}
                    _ => { slice.read(&mut buffer, most).unwrap(); }
                }
            }
            prop_assert_eq!(&buffer[..], &content[start..end]);
        }
    }
}
