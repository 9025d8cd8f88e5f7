//! One connection: its socket, its ledger, its clock, what its heads are, and the window that follows its reader.

mod address;
pub mod clients;
pub(crate) mod clock;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod pace;
pub(crate) mod socket;
pub(crate) mod window;

use crate::connection::clients::{Clients, InFlight, TooMany};
use crate::connection::clock::{Answering, Clock};
use crate::connection::framing::{Framing, Scan};
use crate::connection::pace::Pacer;
use crate::connection::window::{Advice, Reader, SMALLEST, Window};
use crate::ledger::accounts::Accounts;
use crate::ledger::budget::{Budget, Reservation};
use crate::ledger::route::Route;
use crate::ledger::{Charge, Kind, Ledger, LedgerHandle, Owner};
use crate::limits::{CONNECTION_STATE_BYTES, CONTENT_BYTES, HEAD_BYTES, LINGER, RECEIVE_BYTES};
use crate::watch::heap::Tally;
use http::HeaderMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An open connection, shared by its task, by the body that is being sent on it, and by whoever watches.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    client: IpAddr,
    clients: Arc<Clients>,
    clock: Arc<Clock>,
    tally: Arc<Tally>,
    budget: Arc<Budget>,
    /// While it is open: the connection's own ledger, which ends with it.
    ledger: Ledger,
    _state: Charge,
    flow: Mutex<Flow>,
    /// The kernel was given pages of a file's that are not there any more.
    has_lost_pages: AtomicBool,
}

/// What the two ways have to do with each other.
#[derive(Debug)]
struct Flow {
    reader: Reader,
    /// Kernel memory of both ways, on the connection's ledger or on that of the answer being sent.
    kernel: Charge,
    /// The ledger of the answer being sent.
    answer: Option<LedgerHandle>,
    /// What a larger window takes beyond the smallest, which is part of every answer's own reservation.
    extra: Option<Reservation>,
    /// Reads along with the parser.
    scan: Scan,
    /// Head bytes received since the last answer began.
    head_bytes: usize,
    /// Room for a head that is larger than the buffer that a connection keeps.
    large_head: Option<(Reservation, Charge)>,
}

impl Connection {
    /// Takes a connection in: its socket bounded, its memory charged.
    ///
    /// # Errors
    /// When the connection is gone already.
    pub(crate) fn open(
        stream: TcpStream,
        clients: &Arc<Clients>,
        accounts: &Arc<Accounts>,
        budget: &Arc<Budget>,
    ) -> io::Result<Arc<Self>> {
        // Answers are written whole; waiting to fill a packet would only delay the last one.
        stream.set_nodelay(true)?;
        socket::set_send_window(&stream, SMALLEST.kernel_bytes)?;
        let client = stream.peer_addr()?.ip().to_canonical();
        let ledger = Ledger::new(accounts, Owner::Connection, usize::MAX);
        let charge = |kind, bytes| ledger.charge(kind, bytes).map_err(io::Error::other);
        Ok(Arc::new(Connection {
            stream,
            client,
            clients: Arc::clone(clients),
            clock: Arc::new(Clock::new()),
            tally: Arc::default(),
            budget: Arc::clone(budget),
            _state: charge(Kind::Connection, CONNECTION_STATE_BYTES)?,
            flow: Mutex::new(Flow {
                reader: Reader::new(),
                kernel: charge(Kind::Socket, RECEIVE_BYTES)?,
                answer: None,
                extra: None,
                scan: Scan::default(),
                head_bytes: 0,
                large_head: None,
            }),
            ledger,
            has_lost_pages: AtomicBool::new(false),
        }))
    }

    pub(crate) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// A request of that route is being served from now on.
    pub(crate) fn serve(&self, route: &Arc<Route>) {
        self.tally.serve(route);
    }

    /// What the kernel holds for the connection now, in bytes.
    pub(crate) fn kernel_bytes(&self) -> usize {
        socket::held_bytes(&self.stream).unwrap_or(0)
    }

    /// An answer begins, and lasts until the guard is dropped: meanwhile its ledger carries what the kernel keeps.
    pub(crate) fn answer(self: &Arc<Self>, ledger: &LedgerHandle) -> Answer {
        let framing = self.begin(ledger);
        Answer {
            framing,
            in_flight: None,
            _clock: Answering::begin(&self.clock),
            connection: Arc::clone(self),
        }
    }

    fn begin(&self, ledger: &LedgerHandle) -> Framing {
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

    /// The connection is over, and so is what was answered on it, whoever may still hold it.
    pub(crate) fn close(&self) {
        if let Some(answer) = &self.flow().answer {
            answer.end();
        }
    }

    /// An answer has ended: what the kernel still keeps of it is the connection's again.
    fn end(&self) {
        let mut flow = self.flow();
        flow.answer = None;
        flow.head_bytes = 0;
        flow.large_head = None;
        flow.carry(&self.ledger.handle());
    }

    /// Gives back a large window of which nothing is in use. The reader may earn it again.
    pub(crate) fn settle(&self) {
        let mut flow = self.flow();
        if flow.answer.is_none()
            && flow.extra.is_some()
            && self.kernel_bytes() < SMALLEST.kernel_bytes
        {
            self.shrink(&mut flow);
            flow.extra = None;
        }
    }

    fn wrote(&self, bytes: usize) {
        self.clock.sent(bytes);
        let mut flow = self.flow();
        match flow.reader.took(bytes, Instant::now) {
            Advice::Stay if flow.extra.is_none() || flow.reader.window() != SMALLEST => {}
            // Of what a larger window left, the kernel has sent all but what fits the smallest.
            Advice::Stay => {
                if self.kernel_bytes() <= SMALLEST.kernel_bytes {
                    flow.extra = None;
                }
            }
            Advice::Grow(window) => self.grow(&mut flow, window),
            Advice::Shrink => self.shrink(&mut flow),
        }
    }

    /// Gives the reader a larger window, if the budget and the answer's own limit have room for it.
    fn grow(&self, flow: &mut Flow, window: Window) {
        let beyond = window.bytes() - SMALLEST.bytes();
        let have = flow.extra.as_ref().map_or(0, Reservation::bytes);
        let Some(more) = self.budget.try_reserve_spare(beyond.saturating_sub(have)) else {
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
        if socket::set_send_window(&self.stream, window.kernel_bytes).is_ok() {
            flow.reader.grew();
        }
    }

    /// Puts the reader back to the smallest window. What was reserved for the larger one stays so until the kernel
    /// has sent what it holds: [`Connection::settle`].
    fn shrink(&self, flow: &mut Flow) {
        let _ = socket::set_send_window(&self.stream, SMALLEST.kernel_bytes);
        flow.reader.shrank();
        // Less is never too much.
        let _ = flow.kernel.resize(RECEIVE_BYTES + SMALLEST.kernel_bytes);
    }

    /// Takes bytes that came into account, most often those of a head.
    ///
    /// # Errors
    /// When a large head comes and there is no room for one.
    fn received(&self, bytes: &[u8]) -> io::Result<()> {
        /// A head that fits into what a connection keeps anyway.
        const SMALL_HEAD_BYTES: usize = 8 * 1024;
        self.clock.received();
        let mut flow = self.flow();
        flow.scan.read(bytes);
        if flow.answer.is_some() {
            return Ok(());
        }
        flow.head_bytes += bytes.len();
        if flow.head_bytes >= SMALL_HEAD_BYTES && flow.large_head.is_none() {
            let room = self.budget.try_reserve(HEAD_BYTES);
            let charge = self.ledger.charge(Kind::Connection, HEAD_BYTES).ok();
            flow.large_head = room.zip(charge);
            if flow.large_head.is_none() {
                return Err(io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    "there is no room for a large request head",
                ));
            }
        }
        Ok(())
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
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

    /// The connections that are open now.
    pub(crate) fn live(&self) -> Vec<Arc<Connection>> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|connection| connection.strong_count() > 0);
        live.iter().filter_map(Weak::upgrade).collect()
    }
}

/// An answer on its way through a connection, from the request's head to the last byte.
#[derive(Debug)]
pub(crate) struct Answer {
    connection: Arc<Connection>,
    framing: Framing,
    in_flight: Option<InFlight>,
    _clock: Answering,
}

impl Answer {
    /// What the head of the request says about where it ends and what follows.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// Counts the request as one of its client's, for as long as the answer lasts.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(crate) fn admit(&mut self, fields: &HeaderMap) -> Result<(), TooMany> {
        let Connection {
            clients, client, ..
        } = &*self.connection;
        self.in_flight = clients.admit(*client, fields)?;
        Ok(())
    }

    /// The address of the client that a request with those fields comes from.
    pub(crate) fn client(&self, fields: &HeaderMap) -> IpAddr {
        let Connection {
            clients, client, ..
        } = &*self.connection;
        clients.client(*client, fields)
    }

    /// What holds the answer back, where something does.
    pub(crate) fn pacer(&self) -> Option<Pacer> {
        self.connection.clients.pace().map(Pacer::new)
    }

    /// Whether the bytes of the answer go to the kernel as they are, and nobody looks at them on the way.
    pub(crate) fn is_sent_by_kernel(&self) -> bool {
        true
    }

    /// Whether the file has shrunk of which the kernel was given pages to send.
    pub(crate) fn has_lost_pages(&self) -> bool {
        self.connection.has_lost_pages.load(Ordering::Relaxed)
    }

    /// How much may lie between the file and this reader.
    pub(crate) fn window(&self) -> Window {
        self.connection.flow().reader.window()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.end();
    }
}

/// The connection's socket, as hyper reads and writes it.
#[derive(Debug)]
pub(crate) struct Socket(pub(crate) Arc<Connection>);

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = &self.0;
        loop {
            ready!(connection.stream.poll_read_ready(cx))?;
            match socket::receive(&connection.stream, buffer) {
                Ok(received) => {
                    if !received.is_empty() {
                        connection.received(received)?;
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Socket {
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let connection = &self.0;
        loop {
            let Poll::Ready(is_ready) = connection.stream.poll_write_ready(cx) else {
                connection.flow().reader.blocked(Instant::now);
                return Poll::Pending;
            };
            is_ready?;
            let stream = &connection.stream;
            match stream.try_io(Interest::WRITABLE, || socket::send(stream, pieces)) {
                Ok(count) => {
                    connection.wrote(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    if socket::is_of_lost_pages(&error) {
                        connection.has_lost_pages.store(true, Ordering::Relaxed);
                    }
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = socket2::SockRef::from(&self.0.stream);
        match stream.shutdown(std::net::Shutdown::Write) {
            // The client was first.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}
