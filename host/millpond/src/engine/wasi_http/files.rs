//! Input streams of files for components of `wasi:http`. Pages in memory are read at once.
//!
//! wasmtime's own implementation either changes threads for each chunk, or lets a slow disk block every connection of a
//! thread.

use super::state::{HTTP_CHUNK_BYTES, HttpState};
use crate::engine::resource_limiter::LimiterStatus;
use crate::store::{read_at, try_read_at};
use bytes::{Bytes, BytesMut};
use millpond_ledger::{Charge, Kind};
use std::fs::File;
use std::io;
use std::sync::Arc;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn_blocking};
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{DynInputStream, InputStream, StreamError, StreamResult};

/// Replaces `read-via-stream`. Everything else stays as it is linked.
pub(super) fn add_to_linker(linker: &mut Linker<HttpState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker
        .instance("wasi:filesystem/types@0.2.12")?
        .func_wrap("[method]descriptor.read-via-stream", read_via_stream)?;
    linker.allow_shadowing(false);
    Ok(())
}

type ReadViaStreamResult = Result<Resource<DynInputStream>, ErrorCode>;

fn read_via_stream(
    mut store: StoreContextMut<'_, HttpState>,
    (descriptor, offset): (Resource<Descriptor>, u64),
) -> wasmtime::Result<(ReadViaStreamResult,)> {
    let state = store.data_mut();
    let file = match state.table.get(&descriptor)? {
        Descriptor::File(file) => Arc::clone(&file.file),
        Descriptor::Dir(_) => return Ok((Err(ErrorCode::IsDirectory),)),
    };
    let ahead_charge = state.ledger.empty_charge(Kind::Buffers);
    let stream: DynInputStream = Box::new(FileStream {
        file,
        offset,
        read_ahead_buffer: ReadAhead::Nothing,
        ahead_charge,
        status: state.limiter.shared_status(),
    });
    Ok((Ok(state.table.push(stream)?),))
}

/// Bytes of a file from an offset on.
struct FileStream {
    file: Arc<File>,
    offset: u64,
    read_ahead_buffer: ReadAhead,
    ahead_charge: Charge,
    /// Records a read without memory. The component's error would not name the limit.
    status: Arc<LimiterStatus>,
}

/// Result of reading ahead.
enum ReadAhead {
    Nothing,
    /// A thread waits for the disk.
    Pending(AbortOnDropJoinHandle<io::Result<Bytes>>),
    Bytes(Bytes),
    Failed(io::Error),
    End,
}

impl From<io::Result<Bytes>> for ReadAhead {
    fn from(read: io::Result<Bytes>) -> Self {
        match read {
            Ok(bytes) if bytes.is_empty() => ReadAhead::End,
            Ok(bytes) => ReadAhead::Bytes(bytes),
            Err(error) => ReadAhead::Failed(error),
        }
    }
}

impl FileStream {
    /// Reads the next bytes if they are in memory. If not, a thread waits for the disk.
    fn start_read(&mut self, max_bytes: usize) {
        let offset = self.offset;
        let max_bytes = max_bytes.min(HTTP_CHUNK_BYTES);
        if let Err(exceeded) = self.ahead_charge.resize(max_bytes) {
            self.status.set_limit_hit(exceeded.into());
            self.read_ahead_buffer = ReadAhead::Failed(io::Error::other(exceeded));
            return;
        }
        // For zeroed memory the allocator would ask the kernel for new pages, which takes longer than the read.
        let mut buffer = BytesMut::new();
        buffer.resize(max_bytes, 0);
        self.read_ahead_buffer = match try_read_at(&self.file, &mut buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let file = Arc::clone(&self.file);
                ReadAhead::Pending(spawn_blocking(move || {
                    let count = read_at(&file, &mut buffer, offset)?;
                    buffer.truncate(count);
                    Ok(buffer.freeze())
                }))
            }
            read => ReadAhead::from(read.map(|count| {
                buffer.truncate(count);
                buffer.freeze()
            })),
        };
    }

    /// Waits until there are bytes, an error, or the end.
    async fn read_ahead(&mut self, max_bytes: usize) {
        if let ReadAhead::Nothing = self.read_ahead_buffer {
            self.start_read(max_bytes);
        }
        if let ReadAhead::Pending(reading) = &mut self.read_ahead_buffer {
            self.read_ahead_buffer = reading.await.into();
        }
    }
}

#[async_trait::async_trait]
impl Pollable for FileStream {
    async fn ready(&mut self) {
        self.read_ahead(HTTP_CHUNK_BYTES).await;
    }
}

#[async_trait::async_trait]
impl InputStream for FileStream {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        if let ReadAhead::Nothing = self.read_ahead_buffer {
            self.start_read(size);
        }
        match &mut self.read_ahead_buffer {
            ReadAhead::Nothing | ReadAhead::Pending(_) => Ok(Bytes::new()),
            ReadAhead::Bytes(bytes) => {
                let taken = bytes.split_to(size.min(bytes.len()));
                self.offset += taken.len() as u64;
                if bytes.is_empty() {
                    self.read_ahead_buffer = ReadAhead::Nothing;
                    // Shrinking a charge never fails.
                    let _ = self.ahead_charge.resize(0);
                }
                Ok(taken)
            }
            ReadAhead::Failed(_) => {
                match std::mem::replace(&mut self.read_ahead_buffer, ReadAhead::End) {
                    ReadAhead::Failed(error) => Err(StreamError::LastOperationFailed(error.into())),
                    _ => Err(StreamError::Closed),
                }
            }
            ReadAhead::End => Err(StreamError::Closed),
        }
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size > 0 {
            self.read_ahead(size).await;
        }
        self.read(size)
    }

    /// Waits for a read that has started, because it cannot be stopped. A component that drops streams would accumulate
    /// them.
    async fn cancel(&mut self) {
        if let ReadAhead::Pending(reading) =
            std::mem::replace(&mut self.read_ahead_buffer, ReadAhead::End)
        {
            reading.cancel().await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::limits::Limit;
    use millpond_ledger::{Ledger, Owner};
    use std::fs;

    fn stream(file: File, offset: u64) -> FileStream {
        stream_of(
            &Ledger::new(&Arc::default(), Owner::Host, 1 << 20),
            file,
            offset,
        )
    }

    fn stream_of(ledger: &Ledger, file: File, offset: u64) -> FileStream {
        FileStream {
            file: Arc::new(file),
            offset,
            read_ahead_buffer: ReadAhead::Nothing,
            ahead_charge: ledger.empty_charge(Kind::Buffers),
            status: Arc::default(),
        }
    }

    /// Reads the whole stream, `size` bytes at a time.
    async fn take(stream: &mut FileStream, size: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        loop {
            match stream.blocking_read(size).await {
                Ok(bytes) => {
                    assert!(!bytes.is_empty() && bytes.len() <= size.min(HTTP_CHUNK_BYTES));
                    taken.extend_from_slice(&bytes);
                }
                Err(StreamError::Closed) => return taken,
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[tokio::test]
    async fn a_file_is_read_from_an_offset_to_its_end_in_bounded_pieces() {
        let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &content).unwrap();
        for (offset, size) in [
            (0, 1 << 20),
            (1, 10_000),
            (799_999, 7),
            (800_000, 7),
            (900_000, 7),
        ] {
            let mut stream = stream(file.reopen().unwrap(), offset as u64);
            let rest = content.get(offset..).unwrap_or_default();
            assert!(take(&mut stream, size).await == rest, "{offset} {size}");
            assert!(matches!(stream.read(1), Err(StreamError::Closed)));
        }
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_taken_in_any_pieces() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"some bytes").unwrap();
        let mut stream = stream(file.reopen().unwrap(), 0);
        stream.ready().await;
        assert_eq!(stream.read(0).unwrap(), "");
        assert_eq!(stream.read(4).unwrap(), "some");
        assert_eq!(take(&mut stream, 100).await, b" bytes");
    }

    /// Files of `/proc` cannot be read without blocking.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_cannot_be_read_at_once_is_read_by_another_thread() {
        let whole = fs::read("/proc/version").unwrap();
        let mut polled = stream(File::open("/proc/version").unwrap(), 0);
        assert_eq!(polled.read(1000).unwrap(), "");
        assert!(matches!(polled.read_ahead_buffer, ReadAhead::Pending(_)));
        polled.ready().await;
        assert_eq!(polled.read(1000).unwrap(), whole);
        let mut blocking = stream(File::open("/proc/version").unwrap(), 0);
        assert_eq!(take(&mut blocking, 5).await, whole);
        let mut dropped = stream(File::open("/proc/version").unwrap(), 0);
        assert_eq!(dropped.read(1000).unwrap(), "");
        dropped.cancel().await;
        assert!(matches!(dropped.read(1000), Err(StreamError::Closed)));
    }

    #[tokio::test]
    async fn what_is_read_ahead_is_charged_until_it_is_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [7; 3000]).unwrap();
        let ledger = Ledger::new(&Arc::default(), Owner::Host, 2500);
        let mut first = stream_of(&ledger, file.reopen().unwrap(), 0);
        let mut second = stream_of(&ledger, file.reopen().unwrap(), 0);
        first.read_ahead(2000).await;
        let refused = second.blocking_read(2000).await;
        assert!(matches!(refused, Err(StreamError::LastOperationFailed(_))));
        assert_eq!(
            second.status.limit_hit(),
            Some(Limit::Memory(Kind::Buffers))
        );
        assert_eq!(first.read(2000).unwrap().len(), 2000);
        let mut third = stream_of(&ledger, file.reopen().unwrap(), 0);
        assert_eq!(third.blocking_read(2000).await.unwrap().len(), 2000);
    }

    #[tokio::test]
    async fn a_read_that_fails_is_an_error_and_then_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let unreadable = File::options().write(true).open(file.path()).unwrap();
        let mut stream = stream(unreadable, 0);
        let failed = stream.blocking_read(10).await;
        assert!(matches!(failed, Err(StreamError::LastOperationFailed(_))));
        assert!(matches!(stream.read(10), Err(StreamError::Closed)));
    }
}
