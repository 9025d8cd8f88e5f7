//! One stream of HTTP/2: its memory reservation, its timer, and the bytes of its response that are in flight.

use crate::client_limits::InFlight;
use crate::transport::connection::Connection;
use crate::transport::send_window::{MIN_WINDOW, Window};
use crate::transport::timeouts::{ConnectionTimer, StreamGuard};
use atomic_waker::AtomicWaker;
use bytes::{Buf, Bytes};
use http::request::Parts;
use millpond::CachedResponse;
use millpond::head_size::FIELD_OVERHEAD_BYTES;
use millpond::ledger::{Charge, Kind, Outcome, Reservation};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
    transfer: Transfer,
    /// Why the server resets the stream.
    end_reason: OnceLock<&'static str>,
}

/// The bytes of a response between its body and the connection. One chunk at a time is in flight.
#[derive(Debug, Default)]
struct Transfer {
    is_in_flight: AtomicBool,
    /// Bytes that the connection has taken and the response has not counted yet.
    sent_bytes: AtomicUsize,
    /// Wakes the response when its chunk has been sent.
    freed: AtomicWaker,
}

impl Stream {
    /// Opens a stream for a request with this head. Returns `None` if the budget has no room, and the client may retry.
    pub(crate) fn begin(connection: &Arc<Connection>, head: &Parts) -> Option<Arc<Self>> {
        let bytes = STREAM_BYTES + held_by_head(head).saturating_sub(STREAM_HEAD_BYTES);
        let room = connection.budget.try_reserve(bytes)?;
        Some(Arc::new(Stream {
            connection: Arc::clone(connection),
            // Starts before the stream's timer, so that the connection is closed when both time out.
            _streaming: StreamGuard::begin(connection.timer(), || connection.left_bytes()),
            timer: Arc::new(ConnectionTimer::of_stream(connection.limits())),
            // A connection's ledger has no limit.
            _state: connection.ledger.charge(Kind::Connection, bytes).ok()?,
            _room: room,
            spare: OnceLock::new(),
            transfer: Transfer::default(),
            end_reason: OnceLock::new(),
        }))
    }

    /// Timer of the stream.
    pub(crate) fn timer(&self) -> &Arc<ConnectionTimer> {
        &self.timer
    }

    /// Waits until the client takes too little of this stream, independently of other streams. Records and logs that.
    pub(crate) async fn timed_out(&self) {
        let reason = self.timer.stream_timed_out().await;
        // A stream times out once.
        let _ = self.end_reason.set(reason.name());
        let client = self.connection.peer();
        tracing::info!(%reason, %client, "stream reset");
    }

    /// Returns why the server resets the stream.
    pub(crate) fn end_reason(&self) -> Option<&'static str> {
        self.end_reason.get().copied()
    }

    /// Waits until no bytes of this stream are in flight.
    pub(crate) fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let transfer = &self.transfer;
        if transfer.is_in_flight.load(Ordering::Acquire) {
            transfer.freed.register(cx.waker());
            // The bytes may have been sent before the waker was registered.
            if transfer.is_in_flight.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Returns the bytes that the connection has taken since the last call.
    pub(crate) fn take_sent_bytes(&self) -> usize {
        self.transfer.sent_bytes.swap(0, Ordering::AcqRel)
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

/// Memory of a request's head, in bytes.
pub(crate) fn held_by_head(head: &Parts) -> usize {
    let target = head.uri.path().len() + head.uri.query().map_or(0, str::len);
    let fields = head.headers.iter();
    let fields =
        fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD_BYTES);
    target + fields.sum::<usize>()
}

/// Bytes of a response on their way to the socket. They keep the stream alive, and count as sent once the connection
/// takes them.
#[derive(Debug)]
pub(crate) struct StreamBytes {
    bytes: Bytes,
    stream: Arc<Stream>,
    /// The response, if it came from the cache. These bytes are its content then.
    cached: Option<Box<CachedTransfer>>,
}

/// A response from the cache, until its content is sent.
#[derive(Debug)]
pub(crate) struct CachedTransfer {
    response: CachedResponse,
    _in_flight: Option<InFlight>,
}

impl CachedTransfer {
    /// Returns the transfer of a response, for which its client was admitted.
    pub(crate) fn new(response: CachedResponse, in_flight: Option<InFlight>) -> Box<Self> {
        Box::new(CachedTransfer {
            response,
            _in_flight: in_flight,
        })
    }
}

impl StreamBytes {
    /// Returns bytes of a stream, which has no others in flight.
    pub(crate) fn new(
        bytes: Bytes,
        stream: &Arc<Stream>,
        cached: Option<Box<CachedTransfer>>,
    ) -> Self {
        stream.transfer.is_in_flight.store(true, Ordering::Release);
        StreamBytes {
            bytes,
            stream: Arc::clone(stream),
            cached,
        }
    }
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
        let sent = &self.stream.transfer.sent_bytes;
        sent.fetch_add(count, Ordering::AcqRel);
        if let Some(cached) = &mut self.cached {
            cached.response.log_entry.add_body_bytes(count);
        }
    }
}

impl Drop for StreamBytes {
    fn drop(&mut self) {
        if self.bytes.is_empty()
            && let Some(cached) = &mut self.cached
        {
            cached.response.log_entry.finish(Outcome::Completed);
        }
        // Releases the memory before the next chunk is read.
        self.bytes.clear();
        let transfer = &self.stream.transfer;
        transfer.is_in_flight.store(false, Ordering::Release);
        transfer.freed.wake();
    }
}
