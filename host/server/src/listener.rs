//! Accepts connections, serves HTTP/1.1 or HTTP/2 on them with or without TLS, and closes those that time out.

use crate::http1;
use crate::http1::head::HeadError;
#[cfg(feature = "http2")]
use crate::http2;
use crate::incoming::{Incoming, Listeners};
use crate::limits::LiveLimits;
use crate::protocol::{HttpIo, Protocol};
use crate::slots::{ConnectionSlots, Slot};
use crate::tls::Certificate;
use crate::transport::connection::{Connection, Connections, HTTP2_BYTES, LINGER};
use crate::transport::send_state::TLS_BYTES;
use crate::transport::sockopt;
use crate::transport::timeouts::TimeoutReason;
use millpond::ledger::heap::TrackAllocs;
use millpond::ledger::{Charge, LedgerRegistry};
use millpond::memory_plan::{CONNECTION_BYTES, RECEIVE_BYTES};
use millpond::monitor::MemorySources;
use millpond::{MediaService, Millpond};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A server with its own listeners.
///
/// Cloning is cheap and shares everything.
#[derive(Debug, Clone)]
pub struct Server<S = Millpond> {
    service: S,
    connections: Arc<Connections>,
}

impl<S: MediaService> Server<S> {
    /// Creates a server for a service: a [`Millpond`], or a program's own service around one.
    #[must_use]
    pub fn new(service: S) -> Self {
        Server {
            service,
            connections: Arc::default(),
        }
    }

    /// The host.
    #[must_use]
    pub fn millpond(&self) -> &Millpond {
        self.service.millpond()
    }

    /// Serves connections from one or more listeners until `stop` is cancelled. Responses in progress may then finish
    /// within [`ConnectionLimits::shutdown_grace`](crate::ConnectionLimits::shutdown_grace), and connections that wait
    /// in the queue of a listener get a response first. A program that sets a rate limit calls
    /// [`ConnectionLimits::check`](crate::ConnectionLimits::check) first.
    ///
    /// `limits` are [`ConnectionLimits`](crate::ConnectionLimits), or [`LiveLimits`] that the program replaces later.
    ///
    /// A client that begins with the connection preface of HTTP/2 is served HTTP/2. Proxies with prior knowledge send
    /// it.
    pub async fn serve(
        &self,
        listeners: impl Into<Listeners>,
        limits: impl Into<LiveLimits>,
        stop: CancellationToken,
    ) {
        let listening = Listening::new(self.clone(), None, limits.into(), stop);
        listening.serve(listeners.into()).await;
    }

    /// Serves as [`Server::serve`], with TLS on every connection. ALPN selects HTTP/2 or HTTP/1.1.
    ///
    /// An encrypted connection takes more memory, so the same [`MemoryPlan`](millpond::MemoryPlan) has fewer slots.
    #[cfg(feature = "tls")]
    pub async fn serve_tls(
        &self,
        listeners: impl Into<Listeners>,
        certificate: Certificate,
        limits: impl Into<LiveLimits>,
        stop: CancellationToken,
    ) {
        let listening = Listening::new(self.clone(), Some(certificate), limits.into(), stop);
        listening.serve(listeners.into()).await;
    }
}

impl<S: MediaService> MemorySources for Server<S> {
    fn registry(&self) -> &LedgerRegistry {
        self.millpond().registry()
    }

    fn cached_bytes(&self) -> usize {
        self.millpond().cached_bytes()
    }

    fn socket_bytes(&self) -> usize {
        let connections = self.connections.live();
        let bytes = connections
            .iter()
            .map(|connection| connection.kernel_bytes());
        bytes.sum()
    }

    fn warm_up_bytes(&self) -> usize {
        self.millpond().warm_up_bytes()
    }
}

/// State that the connections of all listeners share.
struct Listening<S> {
    server: Server<S>,
    certificate: Option<Certificate>,
    limits: LiveLimits,
    slots: ConnectionSlots,
    connections: TaskTracker,
    stop: CancellationToken,
    /// Cancelled when the shutdown grace is over.
    cut: CancellationToken,
}

impl<S: MediaService> Listening<S> {
    fn new(
        server: Server<S>,
        certificate: Option<Certificate>,
        limits: LiveLimits,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let tls_bytes = certificate.as_ref().map_or(0, |_| TLS_BYTES);
        Arc::new(Listening {
            slots: ConnectionSlots::new(
                server.millpond().memory_plan(),
                CONNECTION_BYTES + tls_bytes,
                &server.connections,
            ),
            limits,
            server,
            certificate,
            connections: TaskTracker::new(),
            stop,
            cut: CancellationToken::new(),
        })
    }

    async fn serve(self: Arc<Self>, listeners: Listeners) {
        // Bounds the receive buffer, so that unread bytes stay at the client. Accepted sockets inherit it.
        for listener in listeners.all() {
            if let Err(error) = sockopt::set_receive_bytes(listener, RECEIVE_BYTES) {
                tracing::warn!(%error, "cannot set SO_RCVBUF on the listener");
            }
        }
        while let Some((incoming, slot)) = self.accept(&listeners).await {
            self.spawn(incoming, slot);
        }
        let grace = self.limits.load().shutdown_grace;
        let began = Instant::now();
        // Without a slot within the grace, a client is closed like a busy connection.
        let _ = timeout(grace, self.drain(&listeners)).await;
        drop(listeners);
        self.connections.close();
        let left = grace.saturating_sub(began.elapsed());
        if timeout(left, self.connections.wait()).await.is_err() {
            tracing::warn!(
                connections = self.connections.len(),
                "shutdown grace is over: closing busy connections"
            );
            self.cut.cancel();
            self.connections.wait().await;
        }
    }

    /// Serves a connection in a task of its own.
    fn spawn(self: &Arc<Self>, incoming: Incoming, mut slot: Slot) {
        let millpond = self.server.millpond();
        let opened = Connection::open(
            incoming,
            &self.limits,
            millpond.registry(),
            millpond.budget(),
            self.slots.slot_waiters(),
        );
        let connection = match opened {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "connection closed before it was served");
                return;
            }
        };
        self.server.connections.enter(&connection);
        let listening = Arc::clone(self);
        self.connections.spawn(async move {
            let tracker = Arc::clone(connection.tracker());
            let served = TrackAllocs::new(tracker, || listening.serve_one(&connection, &mut slot));
            let cut = async {
                listening.cut.cancelled().await;
                connection.set_end_reason("shutdown");
            };
            tokio::select! {
                biased;
                () = served => {}
                () = connection.lost() => tracing::debug!("client disconnected"),
                () = cut => {}
            }
            connection.close();
        });
    }

    /// Accepts the next connection, and waits for a slot. Returns `None` at shutdown.
    async fn accept(&self, listeners: &Listeners) -> Option<(Incoming, Slot)> {
        // Accepts first, so that no idle connection is closed without a new one.
        let accepted = async {
            let mut is_failing = false;
            loop {
                match listeners.accept().await {
                    Ok(incoming) => {
                        if is_failing {
                            tracing::info!("accepting connections again");
                        }
                        break incoming;
                    }
                    Err(error) if is_about_one_connection(&error) => {}
                    Err(error) => {
                        // One line, however long it lasts.
                        if !is_failing {
                            tracing::warn!(%error, "cannot accept connections, trying again until it works");
                        }
                        is_failing = true;
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        let incoming = tokio::select! {
            biased;
            () = self.stop.cancelled() => return None,
            incoming = accepted => incoming,
        };
        // A client that was accepted before the shutdown is served.
        let stopped = async {
            self.stop.cancelled().await;
            sleep(self.limits.load().shutdown_grace).await;
        };
        tokio::select! {
            biased;
            slot = self.slots.take() => slot.map(|slot| (incoming, slot)),
            () = stopped => None,
        }
    }

    /// Serves the connections that wait in the queues of the listeners, before these are closed. Another process has
    /// the queues of shared listeners.
    async fn drain(self: &Arc<Self>, listeners: &Listeners) {
        if listeners.are_shared() {
            return;
        }
        if listeners.turn_away() {
            // Clients in the middle of their handshake come into the queue yet.
            let handshakes = async {
                loop {
                    match listeners.accept().await {
                        Ok(incoming) => self.spawn_waiting(incoming).await,
                        Err(_) => sleep(ACCEPT_PAUSE).await,
                    }
                }
            };
            let _ = timeout(HANDSHAKE_WAIT, handshakes).await;
        }
        for incoming in listeners.queued() {
            self.spawn_waiting(incoming).await;
        }
    }

    async fn spawn_waiting(self: &Arc<Self>, incoming: Incoming) {
        if let Some(slot) = self.slots.take().await {
            self.spawn(incoming, slot);
        }
    }

    /// Serves one connection to its end.
    async fn serve_one(&self, connection: &Arc<Connection>, slot: &mut Slot) {
        let unacknowledged = || connection.unacknowledged_bytes();
        let timed_out = connection.timer().timed_out(unacknowledged);
        let mut timed_out = pin!(timed_out);
        // A new client may have sent its request already, or is about to.
        let stopped = async {
            self.stop.cancelled().await;
            sleep(LINGER).await;
        };
        let opened = tokio::select! {
            opened = self.open(connection, slot) => opened,
            reason = timed_out.as_mut() => return log_closed(connection, reason),
            () = stopped => return,
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let what = match self.certificate {
                    Some(_) => "TLS handshake failed",
                    None => "connection error",
                };
                tracing::debug!(%error, client = %connection.peer(), "{what}");
                return;
            }
        };
        let stopping = self.stop.child_token();
        let mut serving = pin!(self.serve_http(connection, opened, &stopping));
        let ended = tokio::select! {
            // Polled first: a stalled stream times out at the same moment as its connection.
            biased;
            reason = timed_out => {
                log_closed(connection, reason);
                if matches!(reason, TimeoutReason::Idle | TimeoutReason::Dismissed) {
                    // Notifies the client, so that it loses no request that it sends at this moment.
                    stopping.cancel();
                    let _ = timeout(LINGER, serving).await;
                }
                return;
            }
            ended = serving.as_mut() => ended,
        };
        match ended {
            Ok(()) if !stopping.is_cancelled() => connection.linger().await,
            Ok(()) => {}
            // Each truncated response has its own line in the log.
            Err(error) => {
                tracing::debug!(%error, client = %connection.peer(), "connection error");
            }
        }
    }

    /// Prepares a connection for HTTP, and reserves and charges the memory of TLS and HTTP/2.
    async fn open(
        &self,
        connection: &Arc<Connection>,
        slot: &mut Slot,
    ) -> io::Result<ReadyConnection> {
        let certificate = self.certificate.as_ref();
        let tls = certificate.map(|_| connection.charge_state(TLS_BYTES));
        let tls = tls.transpose()?;
        let (io, protocol) = HttpIo::open(connection, certificate).await?;
        let http2 = match protocol {
            Protocol::Http1 | Protocol::PlaintextHttp1 => None,
            #[cfg(feature = "http2")]
            Protocol::Http2 => {
                self.slots.enlarge(slot, HTTP2_BYTES).await;
                Some(connection.charge_state(HTTP2_BYTES)?)
            }
        };
        Ok(ReadyConnection {
            io,
            protocol,
            _state: [tls, http2],
        })
    }

    async fn serve_http(
        &self,
        connection: &Arc<Connection>,
        opened: ReadyConnection,
        stopping: &CancellationToken,
    ) -> Result<(), ConnectionError> {
        let (service, io) = (&self.server.service, opened.io);
        let refusal = match opened.protocol {
            Protocol::Http1 => None,
            Protocol::PlaintextHttp1 => Some(HeadError::Plaintext),
            #[cfg(feature = "http2")]
            Protocol::Http2 => {
                let stopping = stopping.cancelled();
                http2::serve(connection, io, service, stopping).await?;
                return Ok(());
            }
        };
        http1::serve(connection, io, service, refusal, stopping).await?;
        Ok(())
    }
}

/// The failure of a connection: its last response was truncated, or the client violated HTTP/2.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Http1(#[from] io::Error),
    #[cfg(feature = "http2")]
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

/// A connection that is ready for HTTP.
struct ReadyConnection {
    io: HttpIo,
    protocol: Protocol,
    /// The memory of TLS and HTTP/2, charged until the connection ends.
    _state: [Option<Charge>; 2],
}

fn log_closed(connection: &Connection, reason: TimeoutReason) {
    connection.set_end_reason(reason.name());
    tracing::info!(%reason, client = %connection.peer(), "connection closed");
}

/// Time for handshakes that clients had begun before a listener turned new ones away: a round trip.
const HANDSHAKE_WAIT: Duration = Duration::from_millis(250);

/// Pause before the next `accept` when the system is out of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether an error of `accept` concerns only the connection that was being accepted.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use millpond::store::Folder;
    use millpond::{Config, Limits, Source};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Starts a server with a number of slots.
    async fn listen(connections: usize) -> (std::net::SocketAddr, Millpond, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("big.bin"), vec![7; 16 << 20]).unwrap();
        let store = Folder::open(folder.path()).unwrap();
        let limits = Limits::default();
        let millpond = Millpond::new(&Source::embedded(), store, &Config::default(), limits);
        let millpond = millpond.unwrap();
        let stop = CancellationToken::new();
        let limits = LiveLimits::default();
        let server = Server::new(millpond.clone());
        let mut listening = Listening::new(server.clone(), None, limits, stop);
        let mut bound = *millpond.memory_plan();
        bound.connections = connections;
        Arc::get_mut(&mut listening).unwrap().slots =
            ConnectionSlots::new(&bound, CONNECTION_BYTES, &server.connections);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(listening.serve(listener.into()));
        (address, millpond, folder)
    }

    async fn ask(stream: &mut TcpStream, target: &str) {
        let head = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
    }

    /// Sends a request for a missing file and reads the response. The connection is idle afterwards.
    async fn ask_and_rest(stream: &mut TcpStream, millpond: &Millpond) {
        ask(stream, "/none").await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        millpond.registry().idle().await;
    }

    async fn is_closed(stream: &mut TcpStream) -> bool {
        stream.read(&mut [0]).await.unwrap() == 0
    }

    /// A new client once waited until the keep-alive timeout of another.
    #[tokio::test]
    async fn the_connection_that_is_idle_longest_is_closed_for_a_new_one() {
        let (address, millpond, _folder) = listen(3).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = TcpStream::connect(address).await.unwrap();
            ask_and_rest(&mut client, &millpond).await;
            clients.push(client);
        }
        ask_and_rest(&mut clients[0], &millpond).await;
        let mut new = TcpStream::connect(address).await.unwrap();
        ask_and_rest(&mut new, &millpond).await;
        assert!(is_closed(&mut clients[1]).await);
        ask_and_rest(&mut clients[0], &millpond).await;
        ask_and_rest(&mut clients[2], &millpond).await;
        ask_and_rest(&mut new, &millpond).await;
    }

    #[tokio::test]
    async fn a_busy_one_stays_and_makes_way_when_it_is_idle() {
        let (address, millpond, _folder) = listen(1).await;
        let mut busy = TcpStream::connect(address).await.unwrap();
        ask(&mut busy, "/media/big.bin").await;
        busy.read_exact(&mut [0]).await.unwrap();
        let mut new = TcpStream::connect(address).await.unwrap();
        ask(&mut new, "/none").await;
        let mut answer = Vec::new();
        busy.read_to_end(&mut answer).await.unwrap();
        assert!(answer.ends_with(&[7; 16 << 20]), "it was let end");
        new.read_exact(&mut [0; 12]).await.unwrap();
        drop((busy, new));
        millpond.registry().idle().await;
    }
}
