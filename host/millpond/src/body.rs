//! A response's body: its parts in order, read piece by piece as the client takes them.
//!
//! It holds open files and at most one piece at a time, and no instance: that was freed before the head left.
//! Dropped at any moment, it closes its files and gives back its memory at once.

use crate::downstream::{CHUNK_BYTES, Downstream};
use crate::error::RequestError;
use crate::rate_limit::Pacer;
use crate::response_body::{ResponseBody, Segment, SegmentLimits};
use crate::store::{Blocking, FileRange, FileSlice, MediaStream, ReadChunk, TryRead};
use atomic_waker::AtomicWaker;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use millpond_ledger::{AccessLogEntry, Charge, Exceeded, Kind, Outcome};
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
    parts: VecDeque<Part>,
    /// Bytes not yet given out, where that is known.
    remaining: Option<u64>,
    reading: Option<ReadAhead>,
    buffer: BytesMut,
    buffer_charge: Charge,
    lane: Arc<InFlightSlot>,
    pacer: Option<Pacer>,
    /// The server says what it has sent ([`ResponseBody`]); else a byte counts as sent once a frame has it.
    is_reported: bool,
    _response: Charge,
    record: AccessLogEntry,
}

impl Drop for MediaBody {
    fn drop(&mut self) {
        // A response without a body, to `HEAD` or with status 304, is never polled.
        if self.remaining == Some(0) && !self.is_reported {
            self.record.finish(Outcome::Completed);
        }
    }
}

/// One piece of a body: `variant part` of `wit/media-serve.wit`, with the handle taken out of the instance.
#[derive(Debug)]
pub(crate) enum Part {
    /// Bytes made by the guest or the host.
    Bytes(Bytes),
    /// Bytes of the store's.
    Stream(MediaStream),
    /// Bytes that an instance for `wasi:http` moves itself.
    StreamingInstance {
        /// The instance.
        running: Box<dyn ChunkSource>,
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

impl Part {
    /// Length in bytes, where it is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Part::Bytes(bytes) => Some(bytes.len() as u64),
            Part::Stream(stream) => Some(stream.remaining()),
            Part::StreamingInstance { length, .. } => *length,
        }
    }
}

/// The next piece, which was not there at once.
#[derive(Debug)]
enum ReadAhead {
    /// On a thread that may wait for its file system.
    File(Blocking<io::Result<(FileSlice, BytesMut)>>),
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
struct Piece {
    bytes: Bytes,
    lane: Arc<InFlightSlot>,
    /// That of the buffer, where the piece takes it along.
    _charge: Option<Charge>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.bytes.clear();
        self.lane.is_taken.store(false, Ordering::Release);
        self.lane.freed.wake();
    }
}

impl MediaBody {
    /// A body of these parts, which ends its record when it ends. `downstream` is the connection's part in it, where
    /// there is a connection of ours.
    pub(crate) fn new(
        parts: Vec<Part>,
        response: Charge,
        downstream: Option<Box<dyn Downstream>>,
        record: AccessLogEntry,
    ) -> Self {
        MediaBody {
            pacer: downstream
                .as_ref()
                .and_then(|downstream| downstream.rate_limit())
                .map(Pacer::new),
            remaining: parts.iter().map(Part::length).sum(),
            parts: parts.into(),
            reading: None,
            buffer: BytesMut::new(),
            buffer_charge: record.ledger().empty_charge(Kind::Buffers),
            lane: Arc::new(InFlightSlot {
                is_taken: AtomicBool::new(false),
                freed: AtomicWaker::new(),
                downstream,
            }),
            is_reported: false,
            _response: response,
            record,
        }
    }

    /// The next chunk, or what is wrong with it.
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        limits: SegmentLimits,
    ) -> Poll<Option<io::Result<Chunk>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = match reading {
                    ReadAhead::File(read) => {
                        ready!(Pin::new(read).poll(cx))
                            .flatten()
                            .map(|(slice, buffer)| {
                                self.buffer = buffer;
                                (MediaStream::File(slice), self.buffer.split().freeze())
                            })
                    }
                    ReadAhead::ChunkStream(reading) => ready!(Pin::new(reading).poll(cx))
                        .map(|(chunks, chunk)| (MediaStream::ChunkStream(chunks), chunk)),
                };
                self.reading = None;
                return Poll::Ready(Some(
                    read.map(|(rest, bytes)| self.take_buffered(rest, bytes)),
                ));
            }
            match self.parts.front() {
                None => return Poll::Ready(None),
                Some(part) if part.length() == Some(0) => {
                    self.parts.pop_front();
                    continue;
                }
                Some(Part::Bytes(bytes)) => {
                    let bytes = bytes.clone();
                    self.parts.pop_front();
                    return Poll::Ready(Some(Ok(Chunk::Made(bytes))));
                }
                Some(Part::Stream(_) | Part::StreamingInstance { .. }) => {
                    ready!(self.lane.poll_free(cx));
                    // Before anything is read, so that nothing is held meanwhile.
                    if let Some(pacer) = &mut self.pacer {
                        ready!(pacer.poll_ready(cx));
                    }
                }
            }
            if let Some(Part::StreamingInstance { running, .. }) = self.parts.front_mut() {
                let chunk = ready!(running.poll_chunk(cx));
                self.record.guest_took(running.peak_guest_bytes());
                return Poll::Ready(self.take_of_instance(chunk).transpose());
            }
            let Some(Part::Stream(mut stream)) = self.parts.pop_front() else {
                continue;
            };
            if let Some(range) = self.take_file_range(&mut stream, limits) {
                self.put_back(stream);
                return Poll::Ready(Some(Ok(Chunk::File(range))));
            }
            let chunk_bytes = match self.make_room(&stream, limits) {
                Ok(chunk_bytes) => chunk_bytes,
                Err(exceeded) => return Poll::Ready(Some(Err(io::Error::other(exceeded)))),
            };
            let mut slice = match stream {
                MediaStream::File(slice) => slice,
                MediaStream::ChunkStream(chunks) => {
                    // What is charged is room for one chunk, and this one is not ours.
                    self.buffer = BytesMut::new();
                    self.reading = Some(ReadAhead::ChunkStream(chunks.read(chunk_bytes)));
                    continue;
                }
            };
            if let Some(bytes) = slice.take_kept(chunk_bytes) {
                let chunk = self.take_buffered(MediaStream::File(slice), bytes);
                return Poll::Ready(Some(Ok(chunk)));
            }
            self.buffer.reserve(chunk_bytes);
            match slice.try_read(&mut self.buffer, chunk_bytes) {
                Ok(TryRead::Read) => {
                    let bytes = self.buffer.split().freeze();
                    let chunk = self.take_buffered(MediaStream::File(slice), bytes);
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
            self.reading = Some(ReadAhead::File(read));
        }
    }

    /// The next bytes of a file for the kernel to send. They are in nobody's memory but the page cache, so nothing is
    /// charged, and the range may be a large one.
    fn take_file_range(
        &mut self,
        stream: &mut MediaStream,
        limits: SegmentLimits,
    ) -> Option<FileRange> {
        let MediaStream::File(slice) = stream else {
            return None;
        };
        let most = limits.file_bytes?;
        let paced = self.pacer.as_ref().map_or(usize::MAX, Pacer::piece_bytes);
        let range = slice.lend(most.min(paced))?;
        self.buffer = BytesMut::new();
        // Less is never too much.
        let _ = self.buffer_charge.resize(0);
        self.pace(range.length);
        Some(range)
    }

    /// A chunk of an instance's, which its store has charged already, or the end of that.
    fn take_of_instance(
        &mut self,
        chunk: Option<Result<Bytes, RequestError>>,
    ) -> io::Result<Option<Chunk>> {
        let bytes = match chunk {
            Some(Ok(bytes)) => bytes,
            Some(Err(error)) => {
                self.record.finish_with(error.outcome(), error.to_string());
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
        self.pace(bytes.len());
        Ok(Some(Chunk::Instance(bytes)))
    }

    /// Charges the next chunk, and says how large it may be. The last chunk's buffer serves again.
    fn make_room(
        &mut self,
        stream: &MediaStream,
        limits: SegmentLimits,
    ) -> Result<usize, Exceeded> {
        let paced = self.pacer.as_ref().map_or(usize::MAX, Pacer::piece_bytes);
        let wanted = |chunk_bytes: usize| {
            let most = chunk_bytes.min(paced);
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

    /// A chunk that was read, with the rest of its stream put back in line.
    fn take_buffered(&mut self, rest: MediaStream, bytes: Bytes) -> Chunk {
        self.put_back(rest);
        self.pace(bytes.len());
        Chunk::Buffered(bytes)
    }

    fn put_back(&mut self, rest: MediaStream) {
        if rest.remaining() > 0 {
            self.parts.push_front(Part::Stream(rest));
        }
    }

    fn pace(&mut self, bytes: usize) {
        if let Some(pacer) = &mut self.pacer {
            pacer.took(bytes);
        }
    }

    /// The chunk as a frame, for a server that keeps frames. The next one is read once that has been dropped.
    fn make_frame(&mut self, chunk: Chunk) -> Bytes {
        let (bytes, charge) = match chunk {
            Chunk::Made(bytes) => return bytes,
            // No file is asked for where frames are.
            Chunk::File(_) => return Bytes::new(),
            Chunk::Instance(bytes) => (bytes, None),
            Chunk::Buffered(bytes) => {
                // The buffer is the body's until the last chunk takes it along; where frames may be kept, each has its own.
                let takes_buffer = self.parts.is_empty() || self.lane.downstream.is_none();
                let charge = takes_buffer.then(|| {
                    let empty = self.buffer_charge.empty_sibling();
                    std::mem::replace(&mut self.buffer_charge, empty)
                });
                (bytes, charge)
            }
        };
        self.lane.is_taken.store(true, Ordering::Release);
        Bytes::from_owner(Piece {
            bytes,
            lane: Arc::clone(&self.lane),
            _charge: charge,
        })
    }

    fn count(&mut self, bytes: usize) {
        self.remaining = self
            .remaining
            .map(|remaining| remaining.saturating_sub(bytes as u64));
        self.record.sent(bytes);
    }
}

/// Bytes of a body, by whose they are until they have been sent.
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
        let limits = SegmentLimits {
            memory_bytes: body.lane.chunk_bytes(),
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
                body.record.finish_with(Outcome::Failed, error.to_string());
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

    fn end_send(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.record.finish(Outcome::Completed),
            Err(error) => self.record.finish_with(Outcome::Failed, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::{Folder, Key};
    use http_body_util::BodyExt;
    use millpond_ledger::Accounts;
    use std::num::NonZeroU32;

    #[tokio::test(start_paused = true)]
    async fn the_pieces_of_a_paced_body_are_no_larger_than_its_pace_allows() {
        const LENGTH: usize = 100_000;
        let accounts: Arc<Accounts> = Arc::default();
        let record = AccessLogEntry::new(&http::Method::GET, "/", accounts, 1 << 20);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), [7; LENGTH]).unwrap();
        let folder = Folder::open(directory.path()).unwrap();
        let object = folder.open_object(&Key::Named("a".into()), &record.ledger().handle());
        let stream = object.unwrap().read(0, LENGTH as u64).unwrap();
        let charge = record.ledger().empty_charge(Kind::Response);
        let mut body = MediaBody::new(vec![Part::Stream(stream)], charge, None, record);
        let pacer = Pacer::new(NonZeroU32::new(33_330).unwrap());
        assert_eq!(pacer.piece_bytes(), 3333);
        body.pacer = Some(pacer);
        let mut pieces = Vec::new();
        while let Some(frame) = body.frame().await {
            pieces.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(pieces.iter().sum::<usize>(), LENGTH);
        assert_eq!(pieces.iter().max(), Some(&3333));
    }
}
