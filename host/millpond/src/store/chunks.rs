//! Bytes that a program gives piece by piece, from wherever it has them: what a body part is that is no file.

use super::cursor::{Cursor, OutOfBounds};
use bytes::Bytes;
use millpond_ledger::Charge;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

/// The bytes of one open object, read at any place.
///
/// It lives for as long as the object or a stream of it does, so it may hold what that takes: a connection to a
/// database, a [`Charge`] for what it keeps. The host reads one piece at a time, and no piece before there is room for
/// it between the store and the client; while a client takes nothing, nothing is read. When the client goes away,
/// the future that reads is dropped.
pub trait ReadAt: Send + Sync + 'static {
    /// Reads some of the bytes from `offset` on: one at least, and `max_bytes` at most. The host never asks for bytes
    /// past the object's length, nor for none.
    ///
    /// The host charges `max_bytes` to the request until the client has them. A piece that is a slice of something
    /// larger keeps all of that alive, which the host cannot see.
    ///
    /// # Errors
    /// When the bytes cannot be read. The answer is then aborted, as it is by a piece of no bytes, or of more than
    /// `max_bytes`: a short body never looks whole.
    fn read_at(
        &self,
        offset: u64,
        max_bytes: usize,
    ) -> impl Future<Output = io::Result<Bytes>> + Send;
}

/// An object that is in memory as a whole. Its pieces are slices of it, and nothing is copied.
impl ReadAt for Bytes {
    async fn read_at(&self, offset: u64, max_bytes: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).map_or(self.len(), |start| start.min(self.len()));
        let end = start.saturating_add(max_bytes).min(self.len());
        Ok(self.slice(start..end))
    }
}

/// The bytes of an open object from an offset on, to an exact length. It holds the object open and no bytes.
#[derive(Clone)]
pub(crate) struct ChunkStream {
    source: Arc<dyn DynReadAt>,
    cursor: Cursor,
}

/// Open bytes of whatever type, charged while they are open.
pub(super) struct OpenBytes<R> {
    pub(super) bytes: R,
    /// Length when they were opened, in bytes.
    pub(super) length: u64,
    pub(super) _charge: Charge,
}

/// [`OpenBytes`] without their type.
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

    /// Where in its object the next byte lies.
    pub(crate) fn offset(&self) -> u64 {
        self.cursor.offset()
    }

    /// Bytes not yet read.
    pub(crate) fn remaining(&self) -> u64 {
        self.cursor.remaining()
    }

    /// The same, without what lies beyond the next `length` bytes.
    pub(super) fn truncated(mut self, length: u64) -> Self {
        self.cursor.truncate(length);
        self
    }

    /// Leaves out the next `count` bytes.
    pub(crate) fn skip(&mut self, count: u64) {
        self.cursor.skip(count);
    }

    /// Begins to read at most `most` of the next bytes, of which there has to be one.
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

/// One piece on its way from its store: the piece, and what comes after it. Dropped, it is read no further.
pub(crate) struct ReadChunk {
    rest: ChunkStream,
    wanted: usize,
    /// Never locked: in a mutex, a future that is not `Sync` can be part of a body that is.
    read: Mutex<BoxedRead>,
}

impl Future for ReadChunk {
    type Output = io::Result<(ChunkStream, Bytes)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let read = self.read.get_mut().unwrap_or_else(PoisonError::into_inner);
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
        rest.skip(given as u64);
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
