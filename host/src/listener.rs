//! Accepts connections, speaks HTTP/1.1 or HTTP/2 on them, encrypted or not, and ends those that make no progress.

use crate::connection::clients::{ClientLimits, Clients};
use crate::connection::clock::Overdue;
use crate::connection::incoming::Incoming;
pub use crate::connection::incoming::{Listener, Listeners};
use crate::connection::places::{Place, Places};
use crate::connection::plaintext::{Plaintext, Protocol};
use crate::connection::tls::Certificate;
use crate::connection::{Connection, http1, http2, socket};
use crate::ledger::Charge;
use crate::limits::{CONNECTION_BYTES, HTTP2_BYTES, LINGER, PACE_PIECE, RECEIVE_BYTES, TLS_BYTES};
use crate::request::Millpond;
use crate::watch::heap::Tallied;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Timeouts and rates of a connection, and limits per client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Maximum time from the first byte of a request's head to its last.
    pub header_timeout: Duration,
    /// Maximum time between the end of a response and the first byte of the next request.
    pub keepalive_timeout: Duration,
    /// Interval over which [`ConnectionLimits::min_send_bytes_per_second`] is measured while a response is being sent.
    /// Players take a minute's worth at a time and rest, so two minutes are the least that tells.
    pub send_timeout: Duration,
    /// Minimum rate at which a client has to take a response, in bytes per second. A slower client is disconnected.
    /// Bytes in this system's own buffers do not count as taken, where the system tells (Linux). The minimum of a
    /// stream of HTTP/2 is a fraction of it, since all streams share one client.
    pub min_send_bytes_per_second: u32,
    /// Maximum time from the end of a request's head to the end of its response. `None` sets no maximum.
    pub response_timeout: Option<Duration>,
    /// Time that in-flight responses get to finish at a shutdown. Connections that are still busy are then closed.
    pub shutdown_grace: Duration,
    /// Limits per client, over all its connections.
    pub clients: ClientLimits,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
            header_timeout: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_secs(120),
            min_send_bytes_per_second: 1024,
            response_timeout: None,
            shutdown_grace: Duration::from_secs(10),
            clients: ClientLimits::default(),
        }
    }
}

impl ConnectionLimits {
    /// Checks that no client that the limit rate holds back is disconnected for being slow.
    ///
    /// # Errors
    /// [`LimitRateTooLow`].
    pub fn check(&self) -> Result<(), LimitRateTooLow> {
        /// Pieces end beside the stretches that are measured, and no timer is exact.
        const MARGIN: u32 = 2;
        /// With less there would not be a byte for each piece.
        const LEAST_RATE: u32 = 10;
        let minimum = self.min_send_bytes_per_second.saturating_mul(MARGIN);
        let minimum = minimum.max(LEAST_RATE);
        match self.clients.limit_rate_bytes_per_second {
            Some(rate) if rate.get() < minimum => Err(LimitRateTooLow::Rate {
                limit_rate: rate.get(),
                minimum,
            }),
            Some(_) if self.send_timeout < LEAST_SEND_TIMEOUT => {
                Err(LimitRateTooLow::SendTimeout {
                    send_timeout: self.send_timeout,
                    minimum: LEAST_SEND_TIMEOUT,
                })
            }
            _ => Ok(()),
        }
    }
}

/// The shortest time over which a response with a limited rate can be measured: ten of its pieces.
const LEAST_SEND_TIMEOUT: Duration = PACE_PIECE.saturating_mul(10);

/// A limit rate at which clients would be disconnected for being slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitRateTooLow {
    /// The rate is too near to the minimum send rate.
    #[error(
        "limit_rate_bytes_per_second is {limit_rate} and has to be {minimum} at least: \
         a client that takes less than min_send_bytes_per_second is disconnected"
    )]
    Rate {
        /// The limit rate, in bytes per second.
        limit_rate: u32,
        /// The lowest rate that is accepted.
        minimum: u32,
    },
    /// Clients are measured over too short a time.
    #[error(
        "send_timeout is {send_timeout:?} and has to be {minimum:?} at least with a limit rate"
    )]
    SendTimeout {
        /// The send timeout.
        send_timeout: Duration,
        /// The shortest timeout that is accepted.
        minimum: Duration,
    },
}

/// Serves what comes in by one listener or several until `stop` is cancelled; then lets running answers end, for as long
/// as [`ConnectionLimits::shutdown_grace`], and returns. A program that sets a limit rate calls [`ConnectionLimits::check`] first.
///
/// A client that begins with the connection preface of HTTP/2 is answered in that: proxies do, which know already.
pub async fn serve(
    listeners: impl Into<Listeners>,
    millpond: Millpond,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    let listening = Listening::new(millpond, None, limits, stop);
    listening.serve(listeners.into()).await;
}

/// As [`serve`], with TLS on every connection: HTTP/2 for clients that offer it by ALPN, and else HTTP/1.1.
///
/// An encrypted connection takes more memory, so there are fewer places in the same [`Bound`](crate::Bound).
pub async fn serve_tls(
    listeners: impl Into<Listeners>,
    certificate: Certificate,
    millpond: Millpond,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    let listening = Listening::new(millpond, Some(certificate), limits, stop);
    listening.serve(listeners.into()).await;
}

/// What the connections of all listeners share.
#[derive(Debug)]
struct Listening {
    millpond: Millpond,
    certificate: Option<Certificate>,
    limits: Arc<ConnectionLimits>,
    clients: Arc<Clients>,
    places: Places,
    stop: CancellationToken,
}

impl Listening {
    fn new(
        millpond: Millpond,
        certificate: Option<Certificate>,
        limits: ConnectionLimits,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let tls_bytes = certificate.as_ref().map_or(0, |_| TLS_BYTES);
        Arc::new(Listening {
            clients: Clients::new(&limits.clients),
            places: Places::new(
                millpond.bound(),
                CONNECTION_BYTES + tls_bytes,
                millpond.connections(),
            ),
            limits: Arc::new(limits),
            millpond,
            certificate,
            stop,
        })
    }

    async fn serve(self: Arc<Self>, listeners: Listeners) {
        // What clients send beyond their heads waits where it came from. Every connection inherits this.
        for listener in listeners.all() {
            if let Err(error) = socket::set_receive_bytes(listener, RECEIVE_BYTES) {
                tracing::warn!(%error, "cannot set SO_RCVBUF on the listener");
            }
        }
        let connections = TaskTracker::new();
        let cut = CancellationToken::new();
        while let Some((incoming, mut place)) = self.accept(&listeners).await {
            let millpond = &self.millpond;
            let opened = Connection::open(
                incoming,
                &self.clients,
                millpond.accounts(),
                millpond.budget(),
                self.places.wanted(),
            );
            let connection = match opened {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(%error, "connection closed before it was served");
                    continue;
                }
            };
            millpond.connections().enter(&connection);
            let listening = Arc::clone(&self);
            let cut = cut.clone();
            connections.spawn(async move {
                let tally = Arc::clone(connection.tally());
                let served = Tallied::new(tally, || listening.serve_one(&connection, &mut place));
                tokio::select! {
                    biased;
                    () = served => {}
                    () = connection.lost() => tracing::debug!("client disconnected"),
                    () = cut.cancelled() => {}
                }
                connection.close();
            });
        }
        drop(listeners);
        connections.close();
        if timeout(self.limits.shutdown_grace, connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = connections.len(),
                "shutdown grace is over: closing busy connections"
            );
            cut.cancel();
            connections.wait().await;
        }
    }

    /// The next connection, once there is a place for it; `None` when it is time to stop.
    async fn accept(&self, listeners: &Listeners) -> Option<(Incoming, Place)> {
        // Before there is a place, so that nobody makes way for nobody.
        let accepted = async {
            loop {
                match listeners.accept().await {
                    Ok(incoming) => break incoming,
                    Err(error) if is_about_one_connection(&error) => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection, will try again");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            taken = async {
                let stream = accepted.await;
                self.places.take().await.map(|place| (stream, place))
            } => taken,
        }
    }

    /// Serves one connection to its end.
    async fn serve_one(&self, connection: &Arc<Connection>, place: &mut Place) {
        let overdue = connection.overdue(&self.limits);
        let mut overdue = pin!(overdue);
        let opened = tokio::select! {
            opened = self.open(connection, place) => opened,
            reason = overdue.as_mut() => return say_closed(reason),
            () = self.stop.cancelled() => return,
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let what = match self.certificate {
                    Some(_) => "TLS handshake failed",
                    None => "connection error",
                };
                tracing::debug!(%error, "{what}");
                return;
            }
        };
        let stopping = self.stop.child_token();
        let mut spoken = pin!(self.speak(connection, opened, &stopping));
        let ended = tokio::select! {
            // First, since a stream that stands still ends at the same moment as a connection of such streams.
            biased;
            reason = overdue => {
                say_closed(reason);
                if matches!(reason, Overdue::Idle | Overdue::Dismissed) {
                    // The client is told so that it loses no request that it sends at this moment.
                    stopping.cancel();
                    let _ = timeout(LINGER, spoken).await;
                }
                return;
            }
            ended = spoken.as_mut() => ended,
        };
        let is_over = match ended {
            Ok(()) => true,
            Err(error) => {
                // Each answer that was cut short has its own line in the log; this is for heads that were none.
                tracing::debug!(%error, "connection error");
                error.is_parse()
            }
        };
        if is_over && !stopping.is_cancelled() {
            connection.linger().await;
        }
    }

    /// Makes a connection ready for HTTP, with the memory for that set aside and charged.
    async fn open(&self, connection: &Arc<Connection>, place: &mut Place) -> io::Result<Opened> {
        let certificate = self.certificate.as_ref();
        let tls = certificate.map(|_| connection.encrypt()).transpose()?;
        let (plaintext, protocol) = Plaintext::open(connection, certificate).await?;
        let http2 = match protocol {
            Protocol::Http1 => None,
            Protocol::Http2 => {
                self.places.enlarge(place, HTTP2_BYTES).await;
                Some(connection.multiplex()?)
            }
        };
        Ok(Opened {
            plaintext,
            protocol,
            _state: [tls, http2],
        })
    }

    async fn speak(
        &self,
        connection: &Arc<Connection>,
        opened: Opened,
        stopping: &CancellationToken,
    ) -> hyper::Result<()> {
        let stopping = stopping.cancelled();
        let Self {
            millpond, limits, ..
        } = self;
        match opened.protocol {
            Protocol::Http1 => http1::serve(connection, opened.plaintext, millpond, stopping).await,
            Protocol::Http2 => {
                http2::serve(connection, opened.plaintext, millpond, limits, stopping).await
            }
        }
    }
}

/// A connection that is ready for HTTP.
struct Opened {
    plaintext: Plaintext,
    protocol: Protocol,
    /// What TLS and HTTP/2 hold until it ends.
    _state: [Option<Charge>; 2],
}

fn say_closed(reason: Overdue) {
    tracing::info!(%reason, "connection closed");
}

/// How long to wait when the system has no more files or memory to accept a connection with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Errors of `accept` that concern the connection that was to be accepted, and no other.
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
    use crate::ledger::budget::Bound;
    use crate::store::Folder;
    use crate::{Config, Limits, Source};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// A listener with so many places.
    async fn listen(connections: usize) -> (std::net::SocketAddr, Millpond, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("big.bin"), vec![7; 16 << 20]).unwrap();
        let store = Folder::open(folder.path()).unwrap();
        let limits = Limits::default();
        let millpond = Millpond::new(&Source::embedded(), store, &Config::default(), limits);
        let millpond = millpond.unwrap();
        let stop = CancellationToken::new();
        let limits = ConnectionLimits::default();
        let mut listening = Listening::new(millpond.clone(), None, limits, stop);
        let bound = Bound {
            connections,
            ..*millpond.bound()
        };
        Arc::get_mut(&mut listening).unwrap().places =
            Places::new(&bound, CONNECTION_BYTES, millpond.connections());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(listening.serve(listener.into()));
        (address, millpond, folder)
    }

    async fn ask(stream: &mut TcpStream, target: &str) {
        let head = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
    }

    /// Asks for what there is not, and reads the answer, after which the connection is idle.
    async fn ask_and_rest(stream: &mut TcpStream, millpond: &Millpond) {
        ask(stream, "/none").await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        millpond.accounts().idle().await;
    }

    async fn is_closed(stream: &mut TcpStream) -> bool {
        stream.read(&mut [0]).await.unwrap() == 0
    }

    /// Once, a new client waited until the time of the others was up.
    #[tokio::test]
    async fn the_one_that_has_been_idle_longest_makes_way_for_a_new_one() {
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
        millpond.accounts().idle().await;
    }
}
