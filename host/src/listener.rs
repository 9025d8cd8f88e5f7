//! Accepts connections, speaks HTTP/1.1 on them through hyper, and ends those that make no progress.

use crate::body::MediaBody;
use crate::limits::CONNECTION_BUFFER_BYTES;
use crate::request::Millpond;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a connection may take over what, and how many there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// From the first byte of a request's head to its last.
    pub head: Duration,
    /// Between an answer's end and the next request's first byte.
    pub idle: Duration,
    /// Between two steps forward while an answer is being sent: a client that takes nothing for so long is
    /// gone, whatever its kernel says.
    pub stall: Duration,
    /// From a request's first byte to its answer's end.
    pub total: Duration,
    /// From the wish to stop until connections that are still busy are cut.
    pub drain: Duration,
    /// Connections at one time; further ones wait in the kernel's queue.
    pub connections: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        ConnectionLimits {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            stall: Duration::from_secs(30),
            total: Duration::from_secs(3600),
            drain: Duration::from_secs(10),
            connections: 10_000,
        }
    }
}

/// Serves until `stop` is cancelled; then lets running answers end, for as long as
/// [`ConnectionLimits::drain`], and returns.
pub async fn serve(
    listener: TcpListener,
    millpond: Millpond,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    while let Some((stream, place)) = accept(&listener, &places, &stop).await {
        let connection = serve_connection(stream, millpond.clone(), limits.clone(), stop.clone());
        let cut = cut.clone();
        connections.spawn(async move {
            let _place = place;
            tokio::select! {
                () = connection => {}
                () = cut.cancelled() => {}
            }
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
    stream: TcpStream,
    millpond: Millpond,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    // Answers are written whole; waiting to fill a packet would only delay the last one.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection is gone already");
        return;
    }
    let clock = Arc::new(Clock::new());
    let io = TokioIo::new(Watched {
        stream,
        clock: Arc::clone(&clock),
    });
    let service = service_fn(|request| {
        let answering = Answering::begin(&clock);
        let answered = millpond.serve(request);
        async {
            let response = answered.await;
            Ok::<_, Infallible>(response.map(|body| TimedBody { body, answering }))
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    // The clock below sees to time, for the head as for the rest.
    http.header_read_timeout(None)
        .max_buf_size(CONNECTION_BUFFER_BYTES);
    let mut connection = pin!(http.serve_connection(io, service));
    let mut overdue = pin!(clock.overdue(&limits));
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            reason = overdue.as_mut() => {
                tracing::info!(reason, "a connection was closed");
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        // Each answer that was cut short has its own line in the log; this is for heads that were none.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// What a connection is doing, and since when.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Waiting for a request. A connection that has brought none yet counts as one whose head is late.
    Idle { since: Instant },
    /// Reading a request's head.
    Head { since: Instant },
    /// Answering: since the request's head was complete, and with the last step forward.
    Answer { since: Instant, progress: Instant },
}

/// Measures one connection's progress.
#[derive(Debug)]
struct Clock {
    phase: Mutex<Phase>,
}

impl Clock {
    fn new() -> Self {
        let since = Instant::now();
        Clock {
            phase: Mutex::new(Phase::Head { since }),
        }
    }

    fn update(&self, next: impl FnOnce(Phase, Instant) -> Phase) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        *phase = next(*phase, Instant::now());
    }

    fn received(&self) {
        self.update(|phase, now| match phase {
            Phase::Idle { .. } => Phase::Head { since: now },
            other => other,
        });
    }

    fn sent(&self) {
        self.update(|phase, now| match phase {
            Phase::Answer { since, .. } => Phase::Answer {
                since,
                progress: now,
            },
            Phase::Idle { .. } => Phase::Idle { since: now },
            other @ Phase::Head { .. } => other,
        });
    }

    /// Ends when the connection has taken too long, with the reason.
    async fn overdue(&self, limits: &ConnectionLimits) -> &'static str {
        loop {
            let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
            let (deadline, reason) = match phase {
                Phase::Idle { since } => (since + limits.idle, "idle"),
                Phase::Head { since } => (since + limits.head, "no whole request head in time"),
                Phase::Answer { since, progress } => {
                    let stall = (progress + limits.stall, "the client takes nothing");
                    let total = (since + limits.total, "the answer took too long");
                    if stall.0 < total.0 { stall } else { total }
                }
            };
            if Instant::now() >= deadline {
                return reason;
            }
            sleep_until(deadline).await;
        }
    }
}

/// While it lives, an answer is made and sent.
struct Answering {
    clock: Arc<Clock>,
}

impl Answering {
    fn begin(clock: &Arc<Clock>) -> Self {
        clock.update(|_, now| Phase::Answer {
            since: now,
            progress: now,
        });
        Answering {
            clock: Arc::clone(clock),
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.clock.update(|_, now| Phase::Idle { since: now });
    }
}

/// A body that tells the clock when it ends, by whatever end.
struct TimedBody {
    body: MediaBody,
    #[expect(dead_code, reason = "held for its drop")]
    answering: Answering,
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket whose reads and writes the clock sees.
struct Watched {
    stream: TcpStream,
    clock: Arc<Clock>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.clock.received();
        }
        read
    }
}

impl Watched {
    fn saw(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = written {
            self.clock.sent();
        }
        written
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.saw(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.saw(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
