//! A response's body: its parts in order, read piece by piece as the client takes them.
//!
//! It holds open files and at most one piece at a time, and no instance: that was freed before the head left.
//! Dropped at any moment, it closes its files and gives back its memory at once.

use crate::downstream::{CHUNK_BYTES, Downstream};
use crate::error::RequestError;
use crate::rate_limit::RateLimiter;
use crate::store::{BlockingTask, FileSlice, MediaStream, ReadChunk, TryRead, has_shrunk};
use atomic_waker::AtomicWaker;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use millpond_ledger::{AccessLogEntry, Charge, Kind, LimitExceeded, Outcome};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

/// The body of a millpond response.
///
/// On a connection of millpond's own server one piece is on its way at a time. Elsewhere whoever polls says how many
/// they keep: each is charged to the request until it is dropped, so that whoever collects a body needs a
/// [`crate::Limits::request_memory_bytes`] that it fits into.
///
/// # Errors
/// A frame is an error when the store cannot read, when a file has shrunk, or when the pieces that are kept come to more than
/// the request may hold. The server has to abort the connection then, as hyper does: a short body must never look
/// whole.
#[derive(Debug)]
pub struct MediaBody {
    parts: VecDeque<BodyPart>,
    /// Bytes not yet given out, where that is known.
    remaining: Option<u64>,
    pending: Option<PendingRead>,
    buffer: BytesMut,
    buffer_charge: Charge,
    slot: Arc<InFlightSlot>,
    rate_limiter: Option<RateLimiter>,
    _response: Charge,
    log_entry: AccessLogEntry,
}

impl Drop for MediaBody {
    fn drop(&mut self) {
        let downstream = self.slot.downstream.as_ref();
        if downstream.is_some_and(|downstream| downstream.has_shrunk_file()) {
            self.log_entry
                .finish_with(Outcome::Failed, has_shrunk().to_string());
        }
    }
}

/// One piece of a body: `variant part` of `wit/media-serve.wit`, with the handle taken out of the instance.
#[derive(Debug)]
pub(crate) enum BodyPart {
    /// Bytes made by the guest or the host.
    Bytes(Bytes),
    /// Bytes of the store's.
    Stream(MediaStream),
    /// Bytes that an instance for `wasi:http` moves itself.
    StreamingInstance {
        /// The instance.
        instance: Box<dyn ChunkSource>,
        /// How many it has promised, where it has.
        length: Option<u64>,
    },
}

/// An instance that moves the bytes of a body itself.
pub(crate) trait ChunkSource: std::fmt::Debug + Send {
    /// The next chunk. An instance that traps, or gives nothing for too long, ends the body with an error.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RequestError>>>;

    /// The most memory that the instance took so far.
    fn peak_guest_bytes(&self) -> usize;
}

impl BodyPart {
    /// Length in bytes, where it is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            BodyPart::Bytes(bytes) => Some(bytes.len() as u64),
            BodyPart::Stream(stream) => Some(stream.remaining()),
            BodyPart::StreamingInstance { length, .. } => *length,
        }
    }
}

/// The next piece, which was not there at once.
#[derive(Debug)]
enum PendingRead {
    /// On a thread that may wait for its file system.
    File(BlockingTask<io::Result<(FileSlice, BytesMut)>>),
    /// From a store of the program's.
    ChunkStream(ReadChunk),
}

/// The way to the socket, on which one piece is at a time. The answer lasts for as long as the body or a piece of
/// it does.
#[derive(Debug)]
struct InFlightSlot {
    is_taken: AtomicBool,
    freed: AtomicWaker,
    downstream: Option<Box<dyn Downstream>>,
}

impl InFlightSlot {
    /// How much may lie between file and socket.
    fn chunk_bytes(&self) -> usize {
        let downstream = self.downstream.as_ref();
        downstream.map_or(CHUNK_BYTES, |downstream| downstream.chunk_bytes())
    }

    fn poll_free(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Whoever keeps pieces, as for collecting a body, would wait for ever for one to be dropped.
        if self.downstream.is_none() {
            return Poll::Ready(());
        }
        if self.is_taken.load(Ordering::Acquire) {
            self.freed.register(cx.waker());
            // It may have been freed between the two.
            if self.is_taken.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

/// Bytes on their way, which free the lane once the socket has taken them, or will not.
struct InFlightChunk {
    bytes: Bytes,
    /// It stands for bytes of a file, which the connection holds open until the piece has gone.
    is_sendfile: bool,
    slot: Arc<InFlightSlot>,
    /// That of the buffer, where the piece takes it along.
    _charge: Option<Charge>,
}

impl AsRef<[u8]> for InFlightChunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for InFlightChunk {
    fn drop(&mut self) {
        if let Some(downstream) = self.slot.downstream.as_ref().filter(|_| self.is_sendfile) {
            downstream.end_sendfile();
        }
        self.bytes.clear();
        self.slot.is_taken.store(false, Ordering::Release);
        self.slot.freed.wake();
    }
}

impl MediaBody {
    /// A body of these parts, which ends its record when it ends. `downstream` is the connection's part in it, where
    /// there is a connection of ours.
    pub(crate) fn new(
        parts: Vec<BodyPart>,
        response: Charge,
        downstream: Option<Box<dyn Downstream>>,
        log_entry: AccessLogEntry,
    ) -> Self {
        let mut body = MediaBody {
            rate_limiter: downstream
                .as_ref()
                .and_then(|downstream| downstream.rate_limit())
                .map(RateLimiter::new),
            remaining: parts.iter().map(BodyPart::length).sum(),
            parts: parts.into(),
            pending: None,
            buffer: BytesMut::new(),
            buffer_charge: log_entry.ledger().empty_charge(Kind::Buffers),
            slot: Arc::new(InFlightSlot {
                is_taken: AtomicBool::new(false),
                freed: AtomicWaker::new(),
                downstream,
            }),
            _response: response,
            log_entry,
        };
        body.finish_if_done();
        body
    }

    /// The next piece, or what is wrong with it.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(pending) = &mut self.pending {
                let read = match pending {
                    PendingRead::File(read) => {
                        ready!(Pin::new(read).poll(cx))
                            .flatten()
                            .map(|(slice, buffer)| {
                                self.buffer = buffer;
                                (MediaStream::File(slice), self.buffer.split().freeze())
                            })
                    }
                    PendingRead::ChunkStream(pending) => ready!(Pin::new(pending).poll(cx))
                        .map(|(chunks, chunk)| (MediaStream::ChunkStream(chunks), chunk)),
                };
                self.pending = None;
                return Poll::Ready(Some(
                    read.map(|(rest, bytes)| self.on_file_chunk(rest, bytes)),
                ));
            }
            match self.parts.front() {
                None => return Poll::Ready(None),
                Some(part) if part.length() == Some(0) => {
                    self.parts.pop_front();
                    continue;
                }
                Some(BodyPart::Bytes(bytes)) => {
                    let bytes = bytes.clone();
                    self.parts.pop_front();
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Some(BodyPart::Stream(_) | BodyPart::StreamingInstance { .. }) => {
                    ready!(self.slot.poll_free(cx));
                    // Before anything is read, so that nothing is held meanwhile.
                    if let Some(rate_limiter) = &mut self.rate_limiter {
                        ready!(rate_limiter.poll_ready(cx));
                    }
                }
            }
            if let Some(BodyPart::StreamingInstance { instance, .. }) = self.parts.front_mut() {
                let chunk = ready!(instance.poll_chunk(cx));
                self.log_entry
                    .set_guest_peak_bytes(instance.peak_guest_bytes());
                return Poll::Ready(self.on_instance_chunk(chunk).transpose());
            }
            let Some(BodyPart::Stream(mut stream)) = self.parts.pop_front() else {
                continue;
            };
            if let Some(bytes) = self.try_sendfile(&mut stream) {
                self.requeue(stream);
                return Poll::Ready(Some(Ok(self.issue(bytes, None, true))));
            }
            let chunk_bytes = match self.reserve_chunk(&stream) {
                Ok(chunk_bytes) => chunk_bytes,
                Err(exceeded) => return Poll::Ready(Some(Err(io::Error::other(exceeded)))),
            };
            let mut slice = match stream {
                MediaStream::File(slice) => slice,
                MediaStream::ChunkStream(chunks) => {
                    // What is charged is room for one piece, and this one is not ours.
                    self.buffer = BytesMut::new();
                    self.pending = Some(PendingRead::ChunkStream(chunks.read(chunk_bytes)));
                    continue;
                }
            };
            if let Some(bytes) = slice.take_cached(chunk_bytes) {
                let chunk = self.on_file_chunk(MediaStream::File(slice), bytes);
                return Poll::Ready(Some(Ok(chunk)));
            }
            self.buffer.reserve(chunk_bytes);
            match slice.try_read(&mut self.buffer, chunk_bytes) {
                Ok(TryRead::Read) => {
                    let bytes = self.buffer.split().freeze();
                    let chunk = self.on_file_chunk(MediaStream::File(slice), bytes);
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Ok(TryRead::WouldBlock) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = slice.spawn(move |mut slice| {
                slice.read(&mut buffer, chunk_bytes)?;
                Ok((slice, buffer))
            });
            self.pending = Some(PendingRead::File(read));
        }
    }

    /// The next bytes from their file, where the connection has the kernel take them out of it. They are in nobody's memory
    /// but the page cache, so nothing is charged, and the piece may be a large one.
    fn try_sendfile(&mut self, stream: &mut MediaStream) -> Option<Bytes> {
        let MediaStream::File(slice) = stream else {
            return None;
        };
        let downstream = self.slot.downstream.as_ref()?;
        let most = downstream.sendfile_bytes()?;
        let rate_limit_bytes = self
            .rate_limiter
            .as_ref()
            .map_or(usize::MAX, RateLimiter::chunk_bytes);
        let bytes = downstream.sendfile(slice.take_sendfile_range(most.min(rate_limit_bytes))?);
        self.buffer = BytesMut::new();
        // Less is never too much.
        let _ = self.buffer_charge.resize(0);
        Some(bytes)
    }

    /// What an instance gave, which is charged by its store already, or the end of that.
    fn on_instance_chunk(
        &mut self,
        chunk: Option<Result<Bytes, RequestError>>,
    ) -> io::Result<Option<Bytes>> {
        let bytes = match chunk {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => {
                self.log_entry
                    .finish_with(error.outcome(), error.to_string());
                return Err(io::Error::other(error));
            }
            None => {
                self.parts.pop_front();
                return match self.remaining {
                    Some(missing) if missing > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
                    _ => Ok(None),
                };
            }
        };
        let is_too_long = |remaining| bytes.len() as u64 > remaining;
        if self.remaining.is_some_and(is_too_long) {
            return Err(io::Error::other("the body is longer than declared"));
        }
        Ok(Some(self.issue(bytes, None, false)))
    }

    /// Charges the next piece, and says how large it may be. The last piece's buffer serves again, since the lane is
    /// free.
    fn reserve_chunk(&mut self, stream: &MediaStream) -> Result<usize, LimitExceeded> {
        let rate_limit_bytes = self
            .rate_limiter
            .as_ref()
            .map_or(usize::MAX, RateLimiter::chunk_bytes);
        let wanted = |chunk_bytes: usize| {
            let most = chunk_bytes.min(rate_limit_bytes);
            usize::try_from(stream.remaining()).map_or(most, |bytes| bytes.min(most))
        };
        let mut chunk_bytes = wanted(self.slot.chunk_bytes());
        if chunk_bytes > self.buffer_charge.bytes()
            && self.buffer_charge.resize(chunk_bytes).is_err()
        {
            chunk_bytes = wanted(CHUNK_BYTES);
            self.buffer_charge.resize(chunk_bytes)?;
            self.buffer = BytesMut::new();
        }
        Ok(chunk_bytes)
    }

    /// What was read, with the rest of its stream put back in line.
    fn on_file_chunk(&mut self, rest: MediaStream, bytes: Bytes) -> Bytes {
        let is_last = rest.remaining() == 0 && self.parts.is_empty();
        self.requeue(rest);
        // The buffer is the body's until the last piece takes it along; where pieces may be kept, each has its own.
        let takes_buffer = is_last || self.slot.downstream.is_none();
        let charge = takes_buffer.then(|| {
            let empty = self.buffer_charge.empty_sibling();
            std::mem::replace(&mut self.buffer_charge, empty)
        });
        self.issue(bytes, charge, false)
    }

    fn requeue(&mut self, rest: MediaStream) {
        if rest.remaining() > 0 {
            self.parts.push_front(BodyPart::Stream(rest));
        }
    }

    /// The bytes on their way, which is free again when they have gone.
    fn issue(&mut self, bytes: Bytes, charge: Option<Charge>, is_sendfile: bool) -> Bytes {
        if let Some(rate_limiter) = &mut self.rate_limiter {
            rate_limiter.on_read(bytes.len());
        }
        self.slot.is_taken.store(true, Ordering::Release);
        Bytes::from_owner(InFlightChunk {
            bytes,
            is_sendfile,
            slot: Arc::clone(&self.slot),
            _charge: charge,
        })
    }

    fn finish_if_done(&mut self) {
        if self.remaining == Some(0) {
            self.log_entry.finish(Outcome::Completed);
        }
    }
}

impl Body for MediaBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        match ready!(body.poll_chunk(cx)) {
            None => {
                body.remaining = Some(0);
                body.finish_if_done();
                Poll::Ready(None)
            }
            Some(Ok(chunk)) => {
                body.remaining = body.remaining.map(|bytes| bytes - chunk.len() as u64);
                body.log_entry.add_body_bytes(chunk.len());
                body.finish_if_done();
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Some(Err(error)) => {
                body.log_entry
                    .finish_with(Outcome::Failed, error.to_string());
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining
            .map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::{Folder, ObjectKey};
    use http_body_util::BodyExt;
    use millpond_ledger::LedgerRegistry;
    use std::num::NonZeroU32;

    #[tokio::test(start_paused = true)]
    async fn the_pieces_of_a_paced_body_are_no_larger_than_its_pace_allows() {
        const LENGTH: usize = 100_000;
        let registry: Arc<LedgerRegistry> = Arc::default();
        let log_entry = AccessLogEntry::new(&http::Method::GET, "/", registry, 1 << 20);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), [7; LENGTH]).unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        let object =
            folder.open_object(&ObjectKey::Named("a".into()), &log_entry.ledger().handle());
        let stream = object.unwrap().read(0, LENGTH as u64).unwrap();
        let charge = log_entry.ledger().empty_charge(Kind::Response);
        let mut body = MediaBody::new(vec![BodyPart::Stream(stream)], charge, None, log_entry);
        let rate_limiter = RateLimiter::new(NonZeroU32::new(33_330).unwrap());
        assert_eq!(rate_limiter.chunk_bytes(), 3333);
        body.rate_limiter = Some(rate_limiter);
        let mut chunks = Vec::new();
        while let Some(frame) = body.frame().await {
            chunks.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(chunks.iter().sum::<usize>(), LENGTH);
        assert_eq!(chunks.iter().max(), Some(&3333));
    }
}
