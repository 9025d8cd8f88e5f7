//! Accepts connections, speaks HTTP/1.1 on them through hyper, and ends those that make no progress.

use crate::connection::clients::{ClientLimits, Clients};
use crate::connection::socket;
use crate::connection::{Connection, Socket};
use crate::limits::{HEAD_BYTES, PACE_PIECE, RECEIVE_BYTES};
use crate::request::Millpond;
use crate::watch::heap::Tallied;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a connection may take over what, and how much a client may ask for on its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// From the first byte of a request's head to its last.
    pub head: Duration,
    /// Between an answer's end and the next request's first byte.
    pub idle: Duration,
    /// A client that takes too little in so long while an answer is being sent is gone, or as good as gone.
    pub stall: Duration,
    /// What is too little, in bytes a second over [`ConnectionLimits::stall`]: a client that takes a byte now and
    /// then has no more right to a place than one that takes none.
    pub least_bytes_per_second: u32,
    /// From a request's first byte to its answer's end.
    pub total: Duration,
    /// From the wish to stop until connections that are still busy are cut.
    pub drain: Duration,
    /// What one client may ask for, on all its connections.
    pub clients: ClientLimits,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            stall: Duration::from_secs(30),
            least_bytes_per_second: 1024,
            total: Duration::from_secs(3600),
            drain: Duration::from_secs(10),
            clients: ClientLimits::default(),
        }
    }
}

impl ConnectionLimits {
    /// Whether the limits allow for each other: whom we hold back ourselves must not be cut off for being slow.
    ///
    /// # Errors
    /// [`PaceTooLow`].
    pub fn check(&self) -> Result<(), PaceTooLow> {
        /// Pieces end beside the stretches that are measured, and no timer is exact.
        const MARGIN: u32 = 2;
        /// With less there would not be a byte for each piece.
        const LEAST_PACE: u32 = 10;
        let least = self.least_bytes_per_second.saturating_mul(MARGIN);
        let least = least.max(LEAST_PACE);
        match self.clients.pace_bytes_per_second {
            Some(pace) if pace.get() < least => Err(PaceTooLow::Rate {
                pace: pace.get(),
                least,
            }),
            Some(_) if self.stall < LEAST_STALL => Err(PaceTooLow::Stall { stall: self.stall }),
            _ => Ok(()),
        }
    }
}

/// The shortest stretch over which a paced answer can be measured: ten of its pieces.
const LEAST_STALL: Duration = PACE_PIECE.saturating_mul(10);

/// A pace at which answers would be cut off for being slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PaceTooLow {
    /// It is too near to what a client has to take.
    #[error(
        "--pace {pace} is too low: a client that takes less than --least-rate is cut off; \
         raise --pace to {least} at least or lower --least-rate"
    )]
    Rate {
        /// The pace, in bytes a second.
        pace: u32,
        /// The least that would do.
        least: u32,
    },
    /// Clients are measured over too short a time.
    #[error("--stall {stall:?} is too short with --pace; raise it to {LEAST_STALL:?} at least")]
    Stall {
        /// The time.
        stall: Duration,
    },
}

/// Serves until `stop` is cancelled; then lets running answers end, for as long as
/// [`ConnectionLimits::drain`], and returns. Whoever sets a pace asks [`ConnectionLimits::check`] first.
pub async fn serve(
    listener: TcpListener,
    millpond: Millpond,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    let clients = Clients::new(&limits.clients);
    let limits = Arc::new(limits);
    let places = Arc::new(Semaphore::new(millpond.bound().connections));
    // What clients send beyond their heads waits where it came from. Every connection inherits this.
    if let Err(error) = socket::set_receive_bytes(&listener, RECEIVE_BYTES) {
        tracing::warn!(%error, "what clients send is bounded by the system's default only");
    }
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    while let Some((stream, place)) = accept(&listener, &places, &stop).await {
        let opened = Connection::open(stream, &clients, millpond.accounts(), millpond.budget());
        let connection = match opened {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "the connection is gone already");
                continue;
            }
        };
        millpond.connections().enter(&connection);
        let tally = Arc::clone(connection.tally());
        let served = Tallied::new(tally, || {
            let connection = Arc::clone(&connection);
            serve_connection(
                connection,
                millpond.clone(),
                Arc::clone(&limits),
                stop.clone(),
            )
        });
        let cut = cut.clone();
        connections.spawn(async move {
            let _place = place;
            tokio::select! {
                () = served => {}
                () = cut.cancelled() => {}
            }
            connection.close();
        });
    }
    drop(listener);
    connections.close();
    if timeout(limits.drain, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "cutting connections that are still busy"
        );
        cut.cancel();
        connections.wait().await;
    }
}

/// How long to wait when the system has no more files or memory to accept a connection with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The next connection, once there is a place for it; `None` when it is time to stop.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            accepted = async {
                let place = Arc::clone(places).acquire_owned().await;
                (listener.accept().await, place)
            } => accepted,
        };
        match accepted {
            (Ok((stream, _)), Ok(place)) => return Some((stream, place)),
            // The semaphore is never closed.
            (_, Err(_)) => return None,
            (Err(error), Ok(_)) if is_about_one_connection(&error) => {}
            (Err(error), Ok(_)) => {
                tracing::warn!(%error, "cannot accept connections for now");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors of `accept` that concern the connection that was to be accepted, and no other.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn serve_connection(
    connection: Arc<Connection>,
    millpond: Millpond,
    limits: Arc<ConnectionLimits>,
    stop: CancellationToken,
) {
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&connection));
        let answered = millpond.serve(request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    // The connection's clock sees to time, for the head as for the rest.
    http.header_read_timeout(None).max_buf_size(HEAD_BYTES);
    let io = TokioIo::new(Socket(Arc::clone(&connection)));
    let mut served = pin!(http.serve_connection(io, service));
    let mut overdue = pin!(connection.clock().overdue(&limits));
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            ended = served.as_mut() => break ended,
            reason = overdue.as_mut() => {
                tracing::info!(reason, "a connection was closed");
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    };
    let is_over = match ended {
        Ok(()) => true,
        Err(error) => {
            // Each answer that was cut short has its own line in the log; this is for heads that were none.
            tracing::debug!(%error, "a connection ended early");
            error.is_parse()
        }
    };
    if is_over && !stopping {
        connection.linger().await;
    }
}
