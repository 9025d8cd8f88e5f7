//! Body of a response. Reads its parts in order, one chunk at a time, as the client takes them.
//!
//! It holds open files and one chunk at most. It holds no instance of `media-serve`, because the service frees that
//! before the head is sent. Dropping the body closes its files and releases its memory at once.

use crate::downstream::{CHUNK_BYTES, Downstream};
use crate::error::RequestError;
use crate::rate_limit::RateLimiter;
use crate::response_body::{ResponseBody, Segment, SegmentLimits};
use crate::store::{
    BlockingTask, FileRange, FileSlice, MediaStream, OriginCacheStatus, PartialStream, ReadChunk,
    TryRead, WaitForBytes,
};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use millpond_ledger::{AccessLogEntry, Charge, Kind, LimitExceeded, Outcome};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The body of a millpond response.
///
/// millpond's own server takes segments ([`ResponseBody`]), one at a time. Other servers take frames and decide how many
/// they keep. Each frame is charged to the request until it is dropped. A caller that collects the body needs a
/// [`Limits::request_memory_bytes`](crate::Limits::request_memory_bytes) that the body fits into.
///
/// # Errors
/// A frame is an error if the store cannot read, a file has shrunk, or the held frames exceed the memory of the
/// request. The server has to abort the connection then, as hyper does. A short body must never look complete.
#[derive(Debug)]
pub struct MediaBody {
    parts: VecDeque<BodyPart>,
    /// Bytes that have not been returned yet, if the length is known.
    remaining: Option<u64>,
    pending: Option<PendingRead>,
    buffer: BytesMut,
    buffer_charge: Charge,
    /// The connection's part in the response, on millpond's own server.
    downstream: Option<Box<dyn Downstream>>,
    rate_limiter: Option<RateLimiter>,
    /// The server reports the bytes that it has sent ([`ResponseBody`]). Else a byte counts as sent once a frame has it.
    is_reported: bool,
    _response: Charge,
    log_entry: AccessLogEntry,
}

impl Drop for MediaBody {
    fn drop(&mut self) {
        // A response without a body, to `HEAD` or with status 304, is never polled.
        if self.remaining == Some(0) && !self.is_reported {
            self.log_entry.finish(Outcome::Completed);
        }
        let downstream = self.downstream.as_ref();
        if let Some(reason) = downstream.and_then(|downstream| downstream.abort_reason()) {
            self.log_entry.finish_with(Outcome::Aborted, reason);
        }
    }
}

/// A part of a body: `variant part` of `wit/media-serve.wit`, with the stream taken out of the instance.
#[derive(Debug)]
pub(crate) enum BodyPart {
    /// Bytes that the guest or the host made.
    Bytes(Bytes),
    /// Bytes of the media store.
    Stream(MediaStream),
    /// Bytes that an instance of `wasi:http` writes itself.
    StreamingInstance {
        /// The instance.
        instance: Box<dyn ChunkSource>,
        /// `Content-Length` of the response, if it has one.
        length: Option<u64>,
    },
}

/// An instance that writes the bytes of a body itself.
pub(crate) trait ChunkSource: std::fmt::Debug + Send {
    /// Returns the next chunk. An instance that traps, or returns nothing for too long, ends the body with an error.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RequestError>>>;

    /// Maximum memory of the instance so far, in bytes.
    fn peak_guest_bytes(&self) -> usize;
}

impl BodyPart {
    /// Length in bytes, if it is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            BodyPart::Bytes(bytes) => Some(bytes.len() as u64),
            BodyPart::Stream(stream) => Some(stream.remaining()),
            BodyPart::StreamingInstance { length, .. } => *length,
        }
    }
}

/// Returns the cache status of a response. It is that of its first object, or of the first one that came from the origin.
pub(crate) fn cache_status(parts: &[BodyPart]) -> Option<OriginCacheStatus> {
    let statuses = || {
        let streams = parts.iter().filter_map(|part| match part {
            BodyPart::Stream(stream) => Some(stream),
            BodyPart::Bytes(_) | BodyPart::StreamingInstance { .. } => None,
        });
        streams.filter_map(MediaStream::cache_status)
    };
    let forwarded = statuses().find(|status| status.forward.is_some());
    forwarded.or_else(|| statuses().next())
}

/// Returns a wait for the first byte of the store in a response, if the store may lack it.
pub(crate) fn wait_for_first_byte(parts: &[BodyPart]) -> Option<WaitForBytes> {
    let mut streams = parts.iter().filter_map(|part| match part {
        BodyPart::Stream(stream) => Some(stream),
        BodyPart::Bytes(_) | BodyPart::StreamingInstance { .. } => None,
    });
    match streams.next() {
        Some(MediaStream::Partial(partial)) => Some(partial.wait()),
        _ => None,
    }
}

/// Read of the next chunk that did not complete at once.
#[derive(Debug)]
enum PendingRead {
    /// Read on a thread that may block on its file system.
    File(BlockingTask<io::Result<(FileSlice, BytesMut)>>),
    /// Read of a program's own store.
    ChunkStream(ReadChunk),
    /// Wait for bytes that the store fetches.
    Partial(WaitForBytes),
}

/// Bytes of a frame with the charge of their buffer.
struct ChargedBytes {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for ChargedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl MediaBody {
    /// Returns a body of these parts. It finishes `log_entry` at its end. `downstream` is absent on other servers than
    /// millpond's own.
    pub(crate) fn new(
        parts: Vec<BodyPart>,
        response: Charge,
        downstream: Option<Box<dyn Downstream>>,
        log_entry: AccessLogEntry,
    ) -> Self {
        MediaBody {
            rate_limiter: downstream
                .as_ref()
                .and_then(|downstream| downstream.rate_limit())
                .map(RateLimiter::new),
            remaining: parts.iter().map(BodyPart::length).sum(),
            parts: parts.into(),
            pending: None,
            buffer: BytesMut::new(),
            buffer_charge: log_entry.ledger().empty_charge(Kind::Buffers),
            downstream,
            is_reported: false,
            _response: response,
            log_entry,
        }
    }

    /// Returns the next chunk.
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        limits: SegmentLimits,
    ) -> Poll<Option<io::Result<Chunk>>> {
        loop {
            if let Some(pending) = &mut self.pending {
                let read = match pending {
                    PendingRead::Partial(wait) => {
                        let waited = ready!(Pin::new(wait).poll(cx));
                        self.pending = None;
                        match waited {
                            Ok(()) => continue,
                            Err(error) => return Poll::Ready(Some(Err(error))),
                        }
                    }
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
                    return Poll::Ready(Some(Ok(Chunk::Made(bytes))));
                }
                Some(BodyPart::Stream(_) | BodyPart::StreamingInstance { .. }) => {
                    // Waits before the read, so that no memory is held meanwhile.
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
            if let MediaStream::Partial(partial) = stream {
                if let Err(exceeded) = self.split_partial(partial) {
                    return Poll::Ready(Some(Err(io::Error::other(exceeded))));
                }
                continue;
            }
            if let Some(range) = self.take_file_range(&mut stream, limits) {
                self.requeue(stream);
                return Poll::Ready(Some(Ok(Chunk::File(range))));
            }
            let chunk_bytes = match self.reserve_chunk(&stream, limits) {
                Ok(chunk_bytes) => chunk_bytes,
                Err(exceeded) => return Poll::Ready(Some(Err(io::Error::other(exceeded)))),
            };
            let mut slice = match stream {
                MediaStream::File(slice) => slice,
                // It was split above.
                MediaStream::Partial(partial) => {
                    self.requeue(MediaStream::Partial(partial));
                    continue;
                }
                MediaStream::ChunkStream(chunks) => {
                    // The charge is for one chunk, and the store allocates this one.
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

    /// Requeues a stream with missing bytes, behind those that its file has. If there are none, it waits for them, and holds
    /// no buffer meanwhile.
    fn split_partial(&mut self, mut partial: PartialStream) -> Result<(), LimitExceeded> {
        match partial.take_available()? {
            Some(slice) => {
                self.requeue(MediaStream::Partial(partial));
                self.requeue(MediaStream::File(slice));
            }
            None => {
                self.buffer = BytesMut::new();
                // Shrinking a charge never fails.
                let _ = self.buffer_charge.resize(0);
                self.pending = Some(PendingRead::Partial(partial.wait()));
                self.requeue(MediaStream::Partial(partial));
            }
        }
        Ok(())
    }

    /// Returns the next bytes of a file for `sendfile(2)`, if the server can send them so. They stay in the page cache, so
    /// nothing is charged and the range may be large.
    fn take_file_range(
        &mut self,
        stream: &mut MediaStream,
        limits: SegmentLimits,
    ) -> Option<FileRange> {
        let MediaStream::File(slice) = stream else {
            return None;
        };
        let most = limits.file_bytes?;
        let rate_limit_bytes = self
            .rate_limiter
            .as_ref()
            .map_or(usize::MAX, RateLimiter::chunk_bytes);
        let range = slice.take_sendfile_range(most.min(rate_limit_bytes))?;
        self.buffer = BytesMut::new();
        // Shrinking a charge never fails.
        let _ = self.buffer_charge.resize(0);
        self.on_read(range.length);
        Some(range)
    }

    /// Handles a chunk of an instance, which the instance's store has charged already, or its end.
    fn on_instance_chunk(
        &mut self,
        chunk: Option<Result<Bytes, RequestError>>,
    ) -> io::Result<Option<Chunk>> {
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
        self.on_read(bytes.len());
        Ok(Some(Chunk::Instance(bytes)))
    }

    /// Charges the next chunk, and returns its maximum length. The last chunk's buffer is reused.
    fn reserve_chunk(
        &mut self,
        stream: &MediaStream,
        limits: SegmentLimits,
    ) -> Result<usize, LimitExceeded> {
        let rate_limit_bytes = self
            .rate_limiter
            .as_ref()
            .map_or(usize::MAX, RateLimiter::chunk_bytes);
        let wanted = |chunk_bytes: usize| {
            let most = chunk_bytes.min(rate_limit_bytes);
            usize::try_from(stream.remaining()).map_or(most, |bytes| bytes.min(most))
        };
        let mut chunk_bytes = wanted(limits.memory_bytes);
        if chunk_bytes > self.buffer_charge.bytes()
            && self.buffer_charge.resize(chunk_bytes).is_err()
        {
            chunk_bytes = wanted(CHUNK_BYTES);
            self.buffer_charge.resize(chunk_bytes)?;
            self.buffer = BytesMut::new();
        }
        Ok(chunk_bytes)
    }

    /// Handles a chunk that was read, and requeues the rest of its stream.
    fn on_file_chunk(&mut self, rest: MediaStream, bytes: Bytes) -> Chunk {
        self.requeue(rest);
        self.on_read(bytes.len());
        Chunk::Buffered(bytes)
    }

    fn requeue(&mut self, rest: MediaStream) {
        if rest.remaining() > 0 {
            self.parts.push_front(BodyPart::Stream(rest));
        }
    }

    fn on_read(&mut self, bytes: usize) {
        if let Some(rate_limiter) = &mut self.rate_limiter {
            rate_limiter.on_read(bytes);
        }
    }

    /// Returns the chunk as a frame. A frame owns its buffer.
    fn make_frame(&mut self, chunk: Chunk) -> Bytes {
        match chunk {
            Chunk::Made(bytes) | Chunk::Instance(bytes) => bytes,
            // The limits of a frame allow no file.
            Chunk::File(_) => Bytes::new(),
            Chunk::Buffered(bytes) => {
                let empty = self.buffer_charge.empty_sibling();
                Bytes::from_owner(ChargedBytes {
                    bytes,
                    _charge: std::mem::replace(&mut self.buffer_charge, empty),
                })
            }
        }
    }

    fn count(&mut self, bytes: usize) {
        self.remaining = self
            .remaining
            .map(|remaining| remaining.saturating_sub(bytes as u64));
        self.log_entry.add_body_bytes(bytes);
    }
}

/// Bytes of a body, by the charge that they have until they have been sent.
enum Chunk {
    /// Bytes that the guest or the host made, charged with the response.
    Made(Bytes),
    /// Bytes of an instance that moves its body itself, charged by its store.
    Instance(Bytes),
    /// Bytes that are charged as the body's buffer.
    Buffered(Bytes),
    /// Bytes in their file.
    File(FileRange),
}

impl Body for MediaBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        let downstream = body.downstream.as_ref();
        let limits = SegmentLimits {
            memory_bytes: downstream.map_or(CHUNK_BYTES, |downstream| downstream.chunk_bytes()),
            file_bytes: None,
        };
        match ready!(body.poll_chunk(cx, limits)) {
            None => {
                body.remaining = Some(0);
                Poll::Ready(None)
            }
            Some(Ok(chunk)) => {
                let frame = body.make_frame(chunk);
                body.count(frame.len());
                Poll::Ready(Some(Ok(Frame::data(frame))))
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

impl ResponseBody for MediaBody {
    fn poll_segment(
        &mut self,
        cx: &mut Context<'_>,
        limits: SegmentLimits,
    ) -> Poll<Option<io::Result<Segment>>> {
        let chunk = ready!(self.poll_chunk(cx, limits));
        Poll::Ready(chunk.map(|chunk| {
            chunk.map(|chunk| match chunk {
                Chunk::Made(bytes) | Chunk::Instance(bytes) | Chunk::Buffered(bytes) => {
                    Segment::Memory(bytes)
                }
                Chunk::File(range) => Segment::File(range),
            })
        }))
    }

    fn begin_send(&mut self) {
        self.is_reported = true;
    }

    fn on_sent(&mut self, bytes: usize) {
        self.count(bytes);
    }

    fn end_send(&mut self, result: Result<(), &io::Error>) {
        match result {
            Ok(()) => self.log_entry.finish(Outcome::Completed),
            Err(error) => self
                .log_entry
                .finish_with(Outcome::Failed, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::{Folder, ObjectKey};
    use http_body_util::BodyExt;
    use millpond_ledger::{LedgerRegistry, LoggedHead};
    use std::num::NonZeroU32;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn the_pieces_of_a_paced_body_are_no_larger_than_its_pace_allows() {
        const LENGTH: usize = 100_000;
        let registry: Arc<LedgerRegistry> = Arc::default();
        let log_entry = AccessLogEntry::new(
            &http::Method::GET,
            &LoggedHead::new("/"),
            &registry,
            1 << 20,
        );
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
