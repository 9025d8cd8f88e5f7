//! One stream of HTTP/2: its memory reservation, its timer, and the body of its response.

use crate::transport::connection::Connection;
use crate::transport::send_window::{MIN_WINDOW, Window};
use crate::transport::timeouts::{ConnectionTimer, StreamGuard};
use bytes::{Buf, Bytes};
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};
use millpond::head_size::FIELD_OVERHEAD_BYTES;
use millpond::ledger::{Charge, Kind, Reservation};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// Bytes that a stream takes beside the reservation of every request. They cover its future, its state, and a head of
/// [`STREAM_HEAD_BYTES`]. A test measures that it takes less.
const STREAM_BYTES: usize = 16 * 1024;

/// Size of a head that [`STREAM_BYTES`] includes, in bytes, with [`FIELD_OVERHEAD_BYTES`] for each field. A larger head
/// reserves more.
const STREAM_HEAD_BYTES: usize = 4 * 1024;

/// Chunk size of a response on a stream, in bytes, when the connection's reader is fast.
const STREAM_CHUNK_BYTES: usize = 64 * 1024;

/// A stream with a request, until the last byte of its response is sent.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) connection: Arc<Connection>,
    timer: Arc<ConnectionTimer>,
    _streaming: StreamGuard,
    _state: Charge,
    _room: Reservation,
    /// The reservation for larger chunks.
    spare: OnceLock<Reservation>,
}

impl Stream {
    /// Opens a stream for a request with this head. Returns `None` if the budget has no room, and the client may retry.
    pub(crate) fn begin(connection: &Arc<Connection>, head: &Parts) -> Option<Arc<Self>> {
        let bytes = STREAM_BYTES + held_by_head(head).saturating_sub(STREAM_HEAD_BYTES);
        let room = connection.budget.try_reserve(bytes)?;
        Some(Arc::new(Stream {
            connection: Arc::clone(connection),
            // Starts before the stream's timer, so that the connection is closed when both time out.
            _streaming: StreamGuard::begin(connection.timer(), connection.left_bytes()),
            timer: Arc::new(ConnectionTimer::of_stream()),
            // A connection's ledger has no limit.
            _state: connection.ledger.charge(Kind::Connection, bytes).ok()?,
            _room: room,
            spare: OnceLock::new(),
        }))
    }

    /// The timer that resets the stream when its client takes too little of it, independently of other streams.
    pub(crate) fn timer(&self) -> &Arc<ConnectionTimer> {
        &self.timer
    }

    /// The send window of this stream. All streams share the connection's reader, so each may use the window that it
    /// has earned. Larger chunks need room in the budget.
    pub(crate) fn window(&self) -> Window {
        let connection = self.connection.window();
        if connection == MIN_WINDOW {
            return MIN_WINDOW;
        }
        if self.spare.get().is_none() {
            let beyond = STREAM_CHUNK_BYTES - MIN_WINDOW.chunk_bytes;
            if let Some(spare) = self.connection.budget.try_reserve_opportunistic(beyond) {
                // A stream has one body, so the cell is empty.
                let _ = self.spare.set(spare);
            }
        }
        let chunk_bytes = match self.spare.get() {
            Some(_) => STREAM_CHUNK_BYTES,
            None => MIN_WINDOW.chunk_bytes,
        };
        Window {
            chunk_bytes,
            ..connection
        }
    }
}

fn held_by_head(head: &Parts) -> usize {
    let target = head.uri.path().len() + head.uri.query().map_or(0, str::len);
    let fields = head.headers.iter();
    let fields =
        fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD_BYTES);
    target + fields.sum::<usize>()
}

/// The body of a response on a stream. Bytes count as sent once the connection takes them.
#[derive(Debug)]
pub(crate) struct StreamBody<B> {
    pub(crate) body: B,
    pub(crate) stream: Arc<Stream>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for StreamBody<B> {
    type Data = StreamBytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<StreamBytes>, B::Error>>> {
        let this = self.get_mut();
        let counted = |bytes| StreamBytes {
            bytes,
            stream: Arc::clone(&this.stream),
        };
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(counted))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A chunk of a stream's response. It keeps the stream alive.
#[derive(Debug)]
pub(crate) struct StreamBytes {
    bytes: Bytes,
    stream: Arc<Stream>,
}

impl Buf for StreamBytes {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.stream.timer.sent(count);
    }
}
