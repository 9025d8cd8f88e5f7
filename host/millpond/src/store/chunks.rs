//! Chunk streams: bytes of a program's own store, read one chunk at a time.

use super::cursor::{Cursor, OutOfBounds};
use bytes::Bytes;
use millpond_ledger::Charge;
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Bytes of an open object, read at any offset.
///
/// The value lives as long as the object or a stream of it. It may hold what that takes, such as a database connection
/// or a [`Charge`] for a buffer. The host reads one chunk at a time, and only while the client takes bytes. If the
/// client leaves, the host drops the future of the read.
pub trait ReadAt: Send + Sync + 'static {
    /// Reads bytes from `offset` on: at least one, and `max_bytes` at most. The host never reads past the length of the
    /// object.
    ///
    /// The host charges `max_bytes` to the request until the client has the chunk. A chunk that is a slice keeps its
    /// whole buffer alive, which the host cannot see.
    ///
    /// # Errors
    /// The bytes cannot be read. The host aborts the response then, so that a short body never looks complete. A chunk
    /// that is empty or longer than `max_bytes` has the same effect.
    fn read_at(
        &self,
        offset: u64,
        max_bytes: usize,
    ) -> impl Future<Output = io::Result<Bytes>> + Send;
}

/// An object in memory. Its chunks are slices, so nothing is copied.
impl ReadAt for Bytes {
    async fn read_at(&self, offset: u64, max_bytes: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).map_or(self.len(), |start| start.min(self.len()));
        let end = start.saturating_add(max_bytes).min(self.len());
        Ok(self.slice(start..end))
    }
}

/// Bytes of an open object, from an offset to an exact length. The stream holds the object open, and no bytes.
#[derive(Clone)]
pub(crate) struct ChunkStream {
    source: Arc<dyn DynReadAt>,
    pub(super) cursor: Cursor,
}

/// Open bytes of any type, charged while they are open.
pub(super) struct OpenBytes<R> {
    pub(super) bytes: R,
    /// Length, in bytes.
    pub(super) length: u64,
    pub(super) _charge: Charge,
}

/// [`OpenBytes`] of any type, as a trait object.
pub(super) trait DynReadAt: Send + Sync {
    fn length(&self) -> u64;
    fn read_at(self: Arc<Self>, offset: u64, max_bytes: usize) -> BoxedRead;
}

type BoxedRead = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

impl<R: ReadAt> DynReadAt for OpenBytes<R> {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(self: Arc<Self>, offset: u64, max_bytes: usize) -> BoxedRead {
        Box::pin(async move { self.bytes.read_at(offset, max_bytes).await })
    }
}

impl ChunkStream {
    pub(super) fn new(
        source: Arc<dyn DynReadAt>,
        offset: u64,
        length: u64,
    ) -> Result<Self, OutOfBounds> {
        Ok(ChunkStream {
            cursor: Cursor::new(source.length(), offset, length)?,
            source,
        })
    }

    /// Starts to read the next `most` bytes at most. At least one byte has to remain.
    pub(crate) fn read(self, most: usize) -> ReadChunk {
        let wanted = self.cursor.chunk_bytes(most);
        let read = Arc::clone(&self.source).read_at(self.cursor.offset(), wanted);
        ReadChunk {
            rest: self,
            wanted,
            read: Mutex::new(read),
        }
    }
}

impl fmt::Debug for ChunkStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkStream")
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

/// Read of one chunk. Returns the rest of the stream and the chunk. Dropping it cancels the read.
pub(crate) struct ReadChunk {
    rest: ChunkStream,
    wanted: usize,
    /// The mutex is never locked. It makes a body `Sync` although the future is not.
    read: Mutex<BoxedRead>,
}

impl Future for ReadChunk {
    type Output = io::Result<(ChunkStream, Bytes)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let read = self.read.get_mut();
        let chunk = ready!(read.as_mut().poll(cx))?;
        let (given, wanted) = (chunk.len(), self.wanted);
        if given == 0 {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the store's object ended before its length",
            )));
        }
        if given > wanted {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the store returned {given} bytes instead of {wanted}"),
            )));
        }
        let mut rest = self.rest.clone();
        rest.cursor.skip(given as u64);
        Poll::Ready(Ok((rest, chunk)))
    }
}

impl fmt::Debug for ReadChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadChunk")
            .field("rest", &self.rest)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}
