//! One connection: its socket, its client, its ledger and its timeouts, shared by its task and by all that look at it.

use crate::client_limits::{Clients, InFlight, TooManyRequests};
use crate::http1::head::CONTENT_BYTES;
use crate::incoming::Incoming;
use crate::limits::LiveLimits;
use crate::transport::send_window::{MIN_WINDOW, Window};
use crate::transport::slot_waiters::SlotWaiters;
use crate::transport::sockopt;
use crate::transport::timeouts::ConnectionTimer;
use arc_swap::Guard;
use http::HeaderMap;
use millpond::downstream::CHUNK_BYTES;
use millpond::ledger::heap::AllocTracker;
use millpond::ledger::{Budget, Charge, Kind, Ledger, LedgerRegistry, Owner, Reservation};
use millpond::memory_plan::{CONNECTION_BYTES, RECEIVE_BYTES, SEND_WINDOW_BYTES};
use parking_lot::Mutex;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Memory of a connection's own state, in bytes: its task, with the buffer for a head of 8 KiB and one for the response's.
/// A test measures that it is less.
const CONNECTION_STATE_BYTES: usize = 20 * 1024;

/// Memory that HTTP/2 takes for a connection, in bytes. It has buffers for a frame each way, two tables of 4 KiB for
/// fields, and all streams with the heads of responses that wait. A test measures that it is less.
pub(crate) const HTTP2_BYTES: usize = 96 * 1024;

// The memory plan sets aside what a connection takes.
const _: () = assert!(CONNECTION_STATE_BYTES + RECEIVE_BYTES == CONNECTION_BYTES);
const _: () = assert!(MIN_WINDOW.bytes() == SEND_WINDOW_BYTES);
const _: () = assert!(MIN_WINDOW.chunk_bytes == CHUNK_BYTES);

/// Time for which a closed connection is read on, for bytes that the client was still sending: some round trips.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Maximum bytes of a refused upload that are read on, so that its client sees the response. A client that has more
/// should wait for `100 Continue`.
const REFUSED_UPLOAD_BYTES: usize = 4 * 1024 * 1024;

/// An open connection, shared by its task, by the body that is being sent on it, and by the monitor.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    client: IpAddr,
    limits: LiveLimits,
    timer: Arc<ConnectionTimer>,
    tracker: Arc<AllocTracker>,
    pub(crate) budget: Arc<Budget>,
    /// While it is open: the connection's own ledger, which ends with it.
    pub(crate) ledger: Ledger,
    _state: Charge,
    send_window: SharedWindow,
    /// Whether the client may still send content that nobody reads.
    has_unread_content: AtomicBool,
    end_reason: OnceLock<&'static str>,
}

/// The send window as the connection's socket has set it last, for the streams of HTTP/2.
#[derive(Debug, Default)]
struct SharedWindow {
    level: AtomicUsize,
    /// More is reserved than for the smallest window.
    is_reserved: AtomicBool,
}

impl Connection {
    /// Takes a connection in: its socket bounded, its memory charged.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub(crate) fn open(
        incoming: Incoming,
        limits: &LiveLimits,
        registry: &Arc<LedgerRegistry>,
        budget: &Arc<Budget>,
        slot_waiters: &Arc<SlotWaiters>,
    ) -> io::Result<Arc<Self>> {
        let Incoming { stream, peer } = incoming;
        // Responses are written whole; waiting to fill a packet would only delay the last one.
        sockopt::of_tcp(stream.set_nodelay(true))?;
        sockopt::set_send_window(&stream, MIN_WINDOW.kernel_bytes)?;
        let ledger = Ledger::new(registry, Owner::Connection, usize::MAX);
        let state = ledger.charge(Kind::Connection, CONNECTION_STATE_BYTES);
        Ok(Arc::new(Connection {
            stream,
            client: peer,
            limits: limits.clone(),
            timer: Arc::new(ConnectionTimer::new(slot_waiters, limits)),
            tracker: Arc::default(),
            budget: Arc::clone(budget),
            _state: state.map_err(io::Error::other)?,
            ledger,
            send_window: SharedWindow::default(),
            has_unread_content: AtomicBool::new(false),
            end_reason: OnceLock::new(),
        }))
    }

    /// Whether bytes have come that nobody has read.
    pub(crate) fn has_unread(&self) -> bool {
        let socket = socket2::SockRef::from(&self.stream);
        let mut first = [std::mem::MaybeUninit::uninit()];
        socket.peek(&mut first).is_ok_and(|count| count > 0)
    }

    /// Whether the first byte is a letter, which no handshake of TLS begins with (RFC 8446 section 5.1), and each method
    /// of HTTP. It stays to be read.
    ///
    /// # Errors
    /// When the client has gone.
    pub(crate) async fn begins_with_letter(&self) -> io::Result<bool> {
        let mut first = [0];
        let count = self.stream.peek(&mut first).await?;
        Ok(count > 0 && first[0].is_ascii_alphabetic())
    }

    /// Charges the connection with so many bytes more of its own state, until the charge is dropped.
    ///
    /// # Errors
    /// Never, as things are: a connection's ledger has no limit.
    pub(crate) fn charge_state(&self, bytes: usize) -> io::Result<Charge> {
        let charge = self.ledger.charge(Kind::Connection, bytes);
        charge.map_err(io::Error::other)
    }

    /// Reserves and charges memory that only some connections take. `None` when there is no room for it now.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<(Reservation, Charge)> {
        let room = self.budget.try_reserve(bytes)?;
        let charge = self.ledger.charge(Kind::Connection, bytes).ok()?;
        Some((room, charge))
    }

    /// Limits in use for this connection.
    #[cfg(feature = "http2")]
    pub(crate) fn limits(&self) -> &LiveLimits {
        &self.limits
    }

    /// The clients of this connection's listener, under the limits in use.
    pub(crate) fn clients(&self) -> Guard<Arc<Clients>> {
        self.limits.clients()
    }

    /// Counts a request as one of its client's, until what is returned is dropped.
    ///
    /// # Errors
    /// [`TooManyRequests`].
    pub(crate) fn admit(&self, fields: &HeaderMap) -> Result<Option<InFlight>, TooManyRequests> {
        self.clients().admit(self.client, fields)
    }

    /// The address of the client that a request with those fields comes from.
    pub(crate) fn client(&self, fields: &HeaderMap) -> IpAddr {
        self.clients().client(self.client, fields)
    }

    /// The address of the client, where `fields` returns the fields that a proxy sends about it.
    pub(crate) fn client_by(&self, fields: impl FnOnce() -> HeaderMap) -> IpAddr {
        if self.clients().is_trusted(self.client) {
            self.client(&fields())
        } else {
            self.client
        }
    }

    /// The address of the other end: the client, or its proxy.
    pub(crate) fn peer(&self) -> IpAddr {
        self.client
    }

    /// Records why the server ends the connection, for the log line of the response in progress.
    pub(crate) fn set_end_reason(&self, reason: &'static str) {
        // The first reason is the cause.
        let _ = self.end_reason.set(reason);
    }

    /// Returns why the server ends the connection.
    pub(crate) fn end_reason(&self) -> Option<&'static str> {
        self.end_reason.get().copied()
    }

    /// The send window.
    pub(crate) fn window(&self) -> Window {
        Window::at_level(self.send_window.level.load(Ordering::Relaxed))
    }

    /// Publishes the send window's level, and whether more is reserved than for the smallest.
    pub(crate) fn set_window(&self, level: usize, is_reserved: bool) {
        self.send_window.level.store(level, Ordering::Relaxed);
        let reserved = &self.send_window.is_reserved;
        reserved.store(is_reserved, Ordering::Relaxed);
    }

    pub(crate) fn timer(&self) -> &Arc<ConnectionTimer> {
        &self.timer
    }

    pub(crate) fn tracker(&self) -> &Arc<AllocTracker> {
        &self.tracker
    }

    /// Memory that the kernel holds for the connection now, in bytes.
    pub(crate) fn kernel_bytes(&self) -> usize {
        sockopt::held_bytes(&self.stream).unwrap_or(0)
    }

    /// Bytes that were sent and that the client has not taken yet, where the system tells. Bytes in the client's own system
    /// count as taken.
    pub(crate) fn unacknowledged_bytes(&self) -> u64 {
        sockopt::unacknowledged_bytes(&self.stream).unwrap_or(0)
    }

    /// The same as a response begins, of those before it. The smallest window holds too little to ask for.
    pub(crate) fn left_bytes(&self) -> u64 {
        if self.send_window.is_reserved.load(Ordering::Relaxed) {
            self.unacknowledged_bytes()
        } else {
            0
        }
    }

    /// Returns when the client is gone for good: it has reset the connection, or the network has. A client
    /// that has closed its own end only (FIN) may still read. Only sending something tells whether it does.
    pub(crate) async fn lost(&self) {
        // The system tells of it once, and nothing here takes it back. It fails where the runtime ends.
        while let Ok(ready) = self.stream.ready(Interest::ERROR).await {
            if ready.is_error() {
                return;
            }
        }
    }

    /// Records that the client may still send the content of an upload that was refused.
    #[cfg(feature = "uploads")]
    pub(crate) fn leave_content(&self) {
        self.has_unread_content.store(true, Ordering::Relaxed);
    }

    /// Closes our end of the connection, and reads on for a moment. Were it closed altogether while the client still
    /// sends, the client's system would throw away the response (RFC 9112 section 9.6).
    pub(crate) async fn linger(&self) {
        const READ_BYTES: usize = 1024;
        // The client may have been first.
        let _ = socket2::SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write);
        let read_on = async {
            let mut left_bytes = match self.has_unread_content.load(Ordering::Relaxed) {
                true => REFUSED_UPLOAD_BYTES,
                false => CONTENT_BYTES,
            };
            while left_bytes > 0 && self.stream.readable().await.is_ok() {
                match self.stream.try_read(&mut [0; READ_BYTES]) {
                    Ok(0) => return,
                    Ok(count) => left_bytes = left_bytes.saturating_sub(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        // A client that still sends after that has had the time to read.
        let _ = timeout(LINGER, read_on).await;
    }

    /// The connection is over.
    pub(crate) fn close(&self) {
        self.timer.close();
    }
}

/// The open connections of one host, for those who look at all of them.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    live: Mutex<Vec<Weak<Connection>>>,
}

impl Connections {
    pub(crate) fn enter(&self, connection: &Arc<Connection>) {
        let mut live = self.live.lock();
        if live.len() == live.capacity() {
            live.retain(|connection| connection.strong_count() > 0);
        }
        live.push(Arc::downgrade(connection));
    }

    /// Ends the connections that have been idle longest, of those for whose places others wait there. It ends an eighth of
    /// them and no more than thirty-two, so that looking at all is not for one alone. Returns those.
    pub(crate) fn dismiss_idle(&self, slot_waiters: &Arc<SlotWaiters>) -> Vec<Weak<Connection>> {
        const PART: usize = 8;
        const MOST: usize = 32;
        let mut idle: Vec<_> = {
            let live = self.live.lock();
            let live = live.iter().filter_map(Weak::upgrade);
            let live = live.filter(|connection| connection.timer.is_of(slot_waiters));
            live.filter_map(|connection| Some((connection.timer.idle_since()?, connection)))
                .collect()
        };
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate((idle.len() / PART).clamp(1, MOST));
        let dismissed = idle.iter().map(|(_, connection)| {
            connection.timer.dismiss();
            Arc::downgrade(connection)
        });
        dismissed.collect()
    }

    /// The connections that are open now.
    pub(crate) fn live(&self) -> Vec<Arc<Connection>> {
        let mut live = self.live.lock();
        live.retain(|connection| connection.strong_count() > 0);
        live.iter().filter_map(Weak::upgrade).collect()
    }
}
