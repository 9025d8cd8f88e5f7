//! One connection: its socket, its ledger, its clock, what its heads are, and the window that follows its reader.

use crate::client_limits::{Clients, InFlight, TooManyRequests};
use crate::http1::framing::{Framing, FramingError, FramingScanner};
use crate::http1::head::CONTENT_BYTES;
use crate::http2::field_section::{Frames, HEAD_BYTES};
use crate::incoming::Incoming;
use crate::limits::ConnectionLimits;
use crate::transport::send_window::{Reader, SMALLEST, Window, WindowChange};
use crate::transport::sendfile::Lent;
use crate::transport::sockopt;
use crate::transport::timeouts::{Clock, TimeoutReason};
use crate::transport::wanted::SlotWaiters;
use http::HeaderMap;
use millpond::downstream::CHUNK_BYTES;
use millpond::ledger::heap::AllocTracker;
use millpond::ledger::{
    Budget, Charge, Kind, Ledger, LedgerHandle, LedgerRegistry, Owner, Reservation,
};
use millpond::memory_plan::{CONNECTION_BYTES, RECEIVE_BYTES, SEND_WINDOW_BYTES};
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// A connection's own state, in bytes: its task with hyper's parser and the buffers that it keeps for reading
/// a head and writing one, 8 KiB each to begin with. A test measures that it is less.
const CONNECTION_STATE_BYTES: usize = 24 * 1024;

/// Bytes that TLS takes for a connection: its buffer to be sent, its keys and its state, and a buffer in which a record of
/// 4 KiB fits. A test measures that it is less.
pub(crate) const TLS_BYTES: usize = 40 * 1024;

/// Most that comes encrypted and gives no plaintext, in bytes: one record of 16 KiB, with something over. A handshake is
/// smaller; what is larger is made to fill buffers.
pub(crate) const TLS_UNREAD_BYTES: usize = 24 * 1024;

/// Bytes that a large record takes until its plaintext was read: as it came, and deciphered.
pub(crate) const TLS_RECORD_BYTES: usize = TLS_UNREAD_BYTES + 24 * 1024;

/// Bytes that HTTP/2 takes for a connection: buffers for a frame each way, two tables of 4 KiB for fields, room for
/// as many streams as there may be, with the heads of answers that wait to be sent. A test measures that it is less.
pub(crate) const HTTP2_BYTES: usize = 96 * 1024;

// The memory plan sets aside what a connection takes.
const _: () = assert!(CONNECTION_STATE_BYTES + RECEIVE_BYTES == CONNECTION_BYTES);
const _: () = assert!(SMALLEST.bytes() == SEND_WINDOW_BYTES && SMALLEST.piece_bytes == CHUNK_BYTES);

/// How long a closed connection is read on, for what the client was still sending: some round trips.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// How long a large window is kept for the next answer on its connection: a page's requests come closer together.
const WINDOW_REST: Duration = Duration::from_secs(1);

/// An open connection, shared by its task, by the body that is being sent on it, and by whoever watches.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    client: IpAddr,
    clients: Arc<Clients>,
    clock: Arc<Clock>,
    tracker: Arc<AllocTracker>,
    pub(crate) budget: Arc<Budget>,
    /// While it is open: the connection's own ledger, which ends with it.
    pub(crate) ledger: Ledger,
    _state: Charge,
    flow: Mutex<SendState>,
    /// The kernel was given bytes of a file's to send that are not there any more.
    pub(crate) has_shrunk_file: AtomicBool,
    /// An answer has ended and left a large window.
    window_left: Notify,
}

/// What the two ways have to do with each other.
#[derive(Debug)]
pub(crate) struct SendState {
    pub(crate) reader: Reader,
    /// Kernel memory of both ways, on the connection's ledger or on that of the answer being sent.
    kernel: Charge,
    /// The ledger of the answer being sent.
    answer: Option<LedgerHandle>,
    /// What a larger window takes beyond the smallest, which is part of every answer's own reservation.
    extra: Option<Reservation>,
    /// Reads along with the parser.
    scan: FramingScanner,
    /// Head bytes received since the last answer began.
    head_bytes: usize,
    /// Room for a head that is larger than the buffer that a connection keeps.
    large_head: Option<(Reservation, Charge)>,
    /// The piece on its way, where the kernel takes it from its file.
    pub(crate) lent: Option<Lent>,
    /// Where the connection is encrypted.
    ciphertext: Option<Ciphertext>,
}

/// What has come encrypted and given no plaintext yet.
#[derive(Debug, Default)]
struct Ciphertext {
    bytes: usize,
    /// Room for a record that is larger than the buffer that a connection keeps.
    large_record: Option<(Reservation, Charge)>,
}

impl Connection {
    /// Takes a connection in: its socket bounded, its memory charged.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub(crate) fn open(
        incoming: Incoming,
        clients: &Arc<Clients>,
        registry: &Arc<LedgerRegistry>,
        budget: &Arc<Budget>,
        wanted: &Arc<SlotWaiters>,
    ) -> io::Result<Arc<Self>> {
        let Incoming { stream, peer } = incoming;
        // Answers are written whole; waiting to fill a packet would only delay the last one.
        sockopt::of_tcp(stream.set_nodelay(true))?;
        sockopt::set_send_window(&stream, SMALLEST.kernel_bytes)?;
        let ledger = Ledger::new(registry.live_ledgers(), Owner::Connection, usize::MAX);
        let charge = |kind, bytes| ledger.charge(kind, bytes).map_err(io::Error::other);
        Ok(Arc::new(Connection {
            stream,
            client: peer,
            clients: Arc::clone(clients),
            clock: Arc::new(Clock::new(wanted)),
            tracker: Arc::default(),
            budget: Arc::clone(budget),
            _state: charge(Kind::Connection, CONNECTION_STATE_BYTES)?,
            flow: Mutex::new(SendState {
                reader: Reader::new(),
                kernel: charge(Kind::Socket, RECEIVE_BYTES)?,
                answer: None,
                extra: None,
                scan: FramingScanner::default(),
                head_bytes: 0,
                large_head: None,
                lent: None,
                ciphertext: None,
            }),
            ledger,
            has_shrunk_file: AtomicBool::new(false),
            window_left: Notify::new(),
        }))
    }

    /// The connection is encrypted from now on; it holds so much more until the charge is dropped.
    ///
    /// # Errors
    /// Never, as things are: a connection's ledger has no limit.
    pub(crate) fn encrypt(&self) -> io::Result<Charge> {
        self.flow().ciphertext = Some(Ciphertext::default());
        let charge = self.ledger.charge(Kind::Connection, TLS_BYTES);
        charge.map_err(io::Error::other)
    }

    /// Whether what comes first is a letter, which no handshake of TLS begins with (RFC 8446 section 5.1), and each method
    /// of HTTP. It stays to be read.
    ///
    /// # Errors
    /// When the client has gone.
    pub(crate) async fn begins_with_letter(&self) -> io::Result<bool> {
        let mut first = [0];
        let count = self.stream.peek(&mut first).await?;
        Ok(count > 0 && first[0].is_ascii_alphabetic())
    }

    /// The connection is not encrypted, as it should be, and each request on it is refused.
    pub(crate) fn refuse_plaintext(&self) {
        let mut flow = self.flow();
        flow.ciphertext = None;
        flow.scan.refuse(FramingError::Plain);
    }

    /// The connection has streams from now on; it holds so much more until the charge is dropped. What the kernel keeps
    /// is the connection's own, since it belongs to no one stream.
    ///
    /// # Errors
    /// As [`Connection::encrypt`].
    pub(crate) fn multiplex(&self) -> io::Result<Charge> {
        self.flow().carry(&self.ledger.handle());
        let charge = self.ledger.charge(Kind::Connection, HTTP2_BYTES);
        charge.map_err(io::Error::other)
    }

    /// Limits of the clients of this connection's listener.
    pub(crate) fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Counts a request as one of its client's, until what is returned is dropped.
    ///
    /// # Errors
    /// [`TooManyRequests`].
    pub(crate) fn admit(&self, fields: &HeaderMap) -> Result<Option<InFlight>, TooManyRequests> {
        self.clients.admit(self.client, fields)
    }

    /// The address of the client that a request with those fields comes from.
    pub(crate) fn client(&self, fields: &HeaderMap) -> IpAddr {
        self.clients.client(self.client, fields)
    }

    /// Whether the connection is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.flow().ciphertext.is_some()
    }

    /// The reader's window.
    pub(crate) fn window(&self) -> Window {
        self.flow().reader.window()
    }

    /// The range of a file that the kernel sends next, or none.
    pub(crate) fn set_lent(&self, lent: Option<Lent>) {
        self.flow().lent = lent;
    }

    pub(crate) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    pub(crate) fn tracker(&self) -> &Arc<AllocTracker> {
        &self.tracker
    }

    /// What the kernel holds for the connection now, in bytes.
    pub(crate) fn kernel_bytes(&self) -> usize {
        sockopt::held_bytes(&self.stream).unwrap_or(0)
    }

    /// What was sent and the client has not taken yet, in bytes, where the system tells: what its own system holds
    /// for it counts as taken.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        sockopt::unacknowledged_bytes(&self.stream).unwrap_or(0)
    }

    /// The same as an answer begins, of those before it. What the smallest window holds is too little to ask for.
    pub(crate) fn left_bytes(&self) -> u64 {
        let has_more = self.flow().extra.is_some();
        if has_more { self.waiting_bytes() } else { 0 }
    }

    pub(crate) fn begin(&self, ledger: &LedgerHandle) -> Framing {
        let mut flow = self.flow();
        // Answers follow each other: whoever still holds the last one holds it beyond its end.
        if let Some(last) = flow.answer.replace(ledger.clone()) {
            last.end();
        }
        if !flow.carry(ledger) {
            // The answer has no room for the window that the last one left; what the kernel still holds of that
            // is reserved until it has gone.
            self.shrink(&mut flow);
        }
        flow.scan.next()
    }

    /// Ends when the client is gone for good: it has reset the connection, or the network has. One that has closed its
    /// own end only (FIN) may still read, and cannot be told from one that does not until something is sent to it.
    pub(crate) async fn lost(&self) {
        // The system tells of it once, and nothing here takes it back. It fails where the runtime ends.
        while let Ok(ready) = self.stream.ready(Interest::ERROR).await {
            if ready.is_error() {
                return;
            }
        }
    }

    /// Closes our end of the connection, and reads on for a moment. Were it closed altogether while the client still
    /// sends, the client's system would throw away the answer (RFC 9112 section 9.6).
    pub(crate) async fn linger(&self) {
        const PIECE_BYTES: usize = 1024;
        // Where the parser has not done so itself. The client may have been first.
        let _ = socket2::SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write);
        let read_on = async {
            let mut left_bytes = CONTENT_BYTES;
            while left_bytes > 0 && self.stream.readable().await.is_ok() {
                match self.stream.try_read(&mut [0; PIECE_BYTES]) {
                    Ok(0) => return,
                    Ok(count) => left_bytes = left_bytes.saturating_sub(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        // Whoever still sends after that has had the time to read.
        let _ = timeout(LINGER, read_on).await;
    }

    /// Whether the head that has come is sound, and is all that has come since the last answer ended.
    pub(crate) fn has_one_request(&self) -> bool {
        let flow = self.flow();
        flow.answer.is_none() && flow.scan.has_one_head()
    }

    /// Whether each request that has come has been answered, and another may come.
    pub(crate) fn is_between_requests(&self) -> bool {
        let flow = self.flow();
        flow.answer.is_none() && flow.scan.is_between_heads()
    }

    /// Whether clients may ask for as much as they like.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.clients.are_unlimited()
    }

    /// The connection is over, and so is what was answered on it, whoever may still hold it.
    pub(crate) fn close(&self) {
        self.clock.close();
        if let Some(answer) = &self.flow().answer {
            answer.end();
        }
    }

    /// An answer has ended: what the kernel still keeps of it is the connection's again.
    pub(crate) fn end(&self) {
        let mut flow = self.flow();
        flow.answer = None;
        flow.head_bytes = 0;
        flow.large_head = None;
        flow.carry(&self.ledger.handle());
        drop(flow);
        self.leave_window();
    }

    /// An answer has ended, and the window that it has left may be given back in a while.
    pub(crate) fn leave_window(&self) {
        if self.flow().extra.is_some() {
            self.window_left.notify_one();
        }
    }

    /// Ends when the connection has taken too long, with the reason. Until then it sees to it that a large window is given
    /// back of which nothing is in use.
    pub(crate) async fn overdue(&self, limits: &ConnectionLimits) -> TimeoutReason {
        let overdue = self.clock.overdue(limits, || self.waiting_bytes());
        tokio::select! {
            biased;
            reason = overdue => reason,
            never = self.settle() => match never {},
        }
    }

    async fn settle(&self) -> Infallible {
        loop {
            self.window_left.notified().await;
            loop {
                sleep(WINDOW_REST).await;
                if self.is_settled() {
                    break;
                }
            }
        }
    }

    /// Gives back a large window if nothing of it is in use. The reader may earn it again. Whether there is nothing left
    /// to give back, or an answer is in progress, which will leave it in its turn.
    fn is_settled(&self) -> bool {
        let mut flow = self.flow();
        if flow.extra.is_none() || flow.answer.is_some() || self.clock.has_streams() {
            return true;
        }
        if self.kernel_bytes() >= SMALLEST.kernel_bytes {
            return false;
        }
        self.shrink(&mut flow);
        flow.extra = None;
        true
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.clock.sent(bytes);
        let mut flow = self.flow();
        match flow.reader.took(bytes, Instant::now) {
            WindowChange::Stay if flow.extra.is_none() || flow.reader.window() != SMALLEST => {}
            // Of what a larger window left, the kernel has sent all but what fits the smallest.
            WindowChange::Stay => {
                if self.kernel_bytes() <= SMALLEST.kernel_bytes {
                    flow.extra = None;
                }
            }
            WindowChange::Grow(window) => self.grow(&mut flow, window),
            WindowChange::Shrink => self.shrink(&mut flow),
        }
    }

    /// Gives the reader a larger window, if the budget and the answer's own limit have room for it.
    fn grow(&self, flow: &mut SendState, window: Window) {
        let beyond = window.bytes() - SMALLEST.bytes();
        let have = flow.extra.as_ref().map_or(0, Reservation::bytes);
        let Some(more) = self
            .budget
            .try_reserve_opportunistic(beyond.saturating_sub(have))
        else {
            return;
        };
        if flow
            .kernel
            .resize(RECEIVE_BYTES + window.kernel_bytes)
            .is_err()
        {
            return;
        }
        match &mut flow.extra {
            Some(extra) => extra.merge(more),
            None => flow.extra = Some(more),
        }
        // A socket that is gone says so at the next write.
        if sockopt::set_send_window(&self.stream, window.kernel_bytes).is_ok() {
            flow.reader.grew();
        }
    }

    /// Puts the reader back to the smallest window. What was reserved for the larger one stays so until the kernel
    /// has sent what it holds: [`Connection::is_settled`].
    fn shrink(&self, flow: &mut SendState) {
        let _ = sockopt::set_send_window(&self.stream, SMALLEST.kernel_bytes);
        flow.reader.shrank();
        // Less is never too much.
        let _ = flow.kernel.resize(RECEIVE_BYTES + SMALLEST.kernel_bytes);
    }

    /// Takes bytes that came into account.
    ///
    /// # Errors
    /// When they are encrypted and give no plaintext, or there is no room for a large record.
    pub(crate) fn received(&self, count: usize) -> io::Result<()> {
        /// A record that fits into what a connection keeps anyway.
        const SMALL_RECORD_BYTES: usize = 4 * 1024;
        self.clock.received();
        let mut flow = self.flow();
        let Some(ciphertext) = &mut flow.ciphertext else {
            return Ok(());
        };
        ciphertext.bytes += count;
        if ciphertext.bytes > TLS_UNREAD_BYTES {
            return Err(io::Error::other("what comes encrypted makes no sense"));
        }
        if ciphertext.bytes > SMALL_RECORD_BYTES && ciphertext.large_record.is_none() {
            ciphertext.large_record = Some(self.room_for(TLS_RECORD_BYTES)?);
        }
        Ok(())
    }

    /// What came encrypted has given plaintext.
    pub(crate) fn deciphered(&self) {
        if let Some(ciphertext) = &mut self.flow().ciphertext {
            *ciphertext = Ciphertext::default();
        }
    }

    /// Takes bytes of HTTP/1.1 into account, most often those of a head.
    ///
    /// # Errors
    /// When a large head comes and there is no room for one.
    pub(crate) fn read_heads(&self, bytes: &[u8]) -> io::Result<()> {
        let mut flow = self.flow();
        flow.scan.read(bytes);
        if flow.answer.is_some() {
            return Ok(());
        }
        flow.head_bytes += bytes.len();
        if flow.head_bytes >= SMALL_HEAD_BYTES && flow.large_head.is_none() {
            flow.large_head = Some(self.room_for(HEAD_BYTES)?);
        }
        Ok(())
    }

    /// Takes bytes of HTTP/2 into account.
    ///
    /// # Errors
    /// When a field section is too long, or there is no room for a large one.
    pub(crate) fn read_frames(&self, frames: &mut Frames, bytes: &[u8]) -> io::Result<()> {
        let section_bytes = frames.read(bytes).map_err(io::Error::other)?;
        let mut flow = self.flow();
        if section_bytes < SMALL_HEAD_BYTES {
            flow.large_head = None;
        } else if flow.large_head.is_none() {
            // The parser's buffer may be twice as large as what is in it.
            flow.large_head = Some(self.room_for(2 * HEAD_BYTES)?);
        }
        Ok(())
    }

    pub(crate) fn room_for(&self, bytes: usize) -> io::Result<(Reservation, Charge)> {
        let room = self.budget.try_reserve(bytes);
        let charge = self.ledger.charge(Kind::Connection, bytes).ok();
        room.zip(charge).ok_or_else(|| {
            let message = "there is no room for a large request head";
            io::Error::new(io::ErrorKind::OutOfMemory, message)
        })
    }

    pub(crate) fn flow(&self) -> MutexGuard<'_, SendState> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A head that fits into what a connection keeps anyway.
pub(crate) const SMALL_HEAD_BYTES: usize = 8 * 1024;

impl SendState {
    /// Puts the kernel's part on that ledger. Whether there was room for it.
    fn carry(&mut self, ledger: &LedgerHandle) -> bool {
        let bytes = RECEIVE_BYTES + self.reader.window().kernel_bytes;
        match ledger.charge(Kind::Socket, bytes) {
            Ok(charge) => {
                self.kernel = charge;
                true
            }
            Err(_) => false,
        }
    }
}

/// The open connections of one host, for those who look at all of them.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    live: Mutex<Vec<Weak<Connection>>>,
}

impl Connections {
    pub(crate) fn enter(&self, connection: &Arc<Connection>) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.len() == live.capacity() {
            live.retain(|connection| connection.strong_count() > 0);
        }
        live.push(Arc::downgrade(connection));
    }

    /// Has those end that have been idle longest, of those for whose places others wait there: an eighth of them, and
    /// no more than thirty-two, so that looking at all is not for one alone. Gives those back.
    pub(crate) fn dismiss_idle(&self, wanted: &Arc<SlotWaiters>) -> Vec<Weak<Connection>> {
        const PART: usize = 8;
        const MOST: usize = 32;
        let mut idle: Vec<_> = {
            let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            let live = live.iter().filter_map(Weak::upgrade);
            let live = live.filter(|connection| connection.clock.is_of(wanted));
            live.filter_map(|connection| Some((connection.clock.idle_since()?, connection)))
                .collect()
        };
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate((idle.len() / PART).clamp(1, MOST));
        let dismissed = idle.iter().map(|(_, connection)| {
            connection.clock.dismiss();
            Arc::downgrade(connection)
        });
        dismissed.collect()
    }

    /// The connections that are open now.
    pub(crate) fn live(&self) -> Vec<Arc<Connection>> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|connection| connection.strong_count() > 0);
        live.iter().filter_map(Weak::upgrade).collect()
    }
}
