//! A response's body: its parts in order, read piece by piece as the client takes them.
//!
//! It holds open files and at most one piece at a time, and no instance: that was freed before the head left.
//! Dropped at any moment, it closes its files and gives back its memory at once.

use crate::accounts::Token;
use crate::limits::CHUNK_BYTES;
use crate::record::{End, Record};
use crate::store::{FileSlice, ReadNow};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// The body of a millpond response.
///
/// # Errors
/// A frame is an error when a file cannot be read or has shrunk. The server has to abort the connection then,
/// as hyper does: a short body must never look whole.
#[derive(Debug)]
pub struct MediaBody {
    parts: VecDeque<Part>,
    remaining: u64,
    reading: Option<JoinHandle<io::Result<(FileSlice, BytesMut)>>>,
    buffer: BytesMut,
    record: Option<Record>,
    _alive: Token,
}

/// One piece of a body: `variant part` of `wit/media-serve.wit`, with the handle taken out of the instance.
#[derive(Debug)]
pub(crate) enum Part {
    /// Bytes made by the guest or the host.
    Bytes(Bytes),
    /// Bytes of a file.
    File(FileSlice),
}

impl Part {
    pub(crate) fn length(&self) -> u64 {
        match self {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::File(slice) => slice.remaining(),
        }
    }
}

impl MediaBody {
    /// A body of these parts, which ends its record when it ends.
    pub(crate) fn new(parts: Vec<Part>, record: Record, alive: Token) -> Self {
        let mut body = MediaBody {
            remaining: parts.iter().map(Part::length).sum(),
            parts: parts.into(),
            reading: None,
            buffer: BytesMut::new(),
            record: Some(record),
            _alive: alive,
        };
        body.end_if_done();
        body
    }

    /// The next piece, or what is wrong with it.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                let (slice, buffer) = match read.map_err(io::Error::other) {
                    Ok(Ok(read)) => read,
                    Ok(Err(error)) | Err(error) => return Poll::Ready(Some(Err(error))),
                };
                self.buffer = buffer;
                return Poll::Ready(Some(Ok(self.take_piece(slice))));
            }
            let mut slice = match self.parts.pop_front() {
                None => return Poll::Ready(None),
                Some(part) if part.length() == 0 => continue,
                Some(Part::Bytes(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(Part::File(slice)) => slice,
            };
            // The last piece's buffer serves again once the connection has sent it.
            self.buffer.reserve(piece_bytes(&slice));
            match slice.read_now(&mut self.buffer, CHUNK_BYTES) {
                Ok(ReadNow::Read) => return Poll::Ready(Some(Ok(self.take_piece(slice)))),
                Ok(ReadNow::WouldBlock) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            self.reading = Some(tokio::task::spawn_blocking(move || {
                slice.read(&mut buffer, CHUNK_BYTES)?;
                Ok((slice, buffer))
            }));
        }
    }

    /// What was read, with the rest of its slice put back in line.
    fn take_piece(&mut self, rest: FileSlice) -> Bytes {
        if rest.remaining() > 0 {
            self.parts.push_front(Part::File(rest));
        }
        self.buffer.split().freeze()
    }

    fn end_if_done(&mut self) {
        if self.remaining == 0
            && let Some(mut record) = self.record.take()
        {
            record.ended(End::Completed);
        }
    }
}

fn piece_bytes(slice: &FileSlice) -> usize {
    usize::try_from(slice.remaining()).map_or(CHUNK_BYTES, |bytes| bytes.min(CHUNK_BYTES))
}

impl Body for MediaBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        match ready!(body.poll_piece(cx)) {
            None => Poll::Ready(None),
            Some(Ok(piece)) => {
                body.remaining -= piece.len() as u64;
                if let Some(record) = &mut body.record {
                    record.sent(piece.len());
                }
                body.end_if_done();
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Some(Err(error)) => {
                if let Some(mut record) = body.record.take() {
                    record.ended_because(End::Failed, error.to_string());
                }
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
