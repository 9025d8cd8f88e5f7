//! HTTP/2 (RFC 9113) on one connection: limits, and streams that run in the connection's task.
//!
//! No stream outlives its connection: dropping the task drops every request on it. A client that closes its sending
//! side ends the connection, since it can no longer send WINDOW_UPDATE.

pub(crate) mod field_section;
pub(crate) mod stream;

use crate::http2::field_section::HEAD_BYTES;
use crate::http2::stream::{Stream, StreamBody};
use crate::limits::ConnectionLimits;
use crate::protocol::HttpIo;
use crate::transport::connection::Connection;
use crate::transport::timeouts::STREAMS;
use crate::transport::timeouts::{ConnectionTimer, TimeoutReason};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use millpond::MediaService;
use millpond::downstream::Exchange;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;

/// Bytes that may wait on a stream before the next chunk is read. The size of a chunk is the real bound.
const STREAM_SEND_BYTES: usize = 16 * 1024;

/// Flow-control window of a connection for request content, in bytes: the minimum of HTTP/2 (RFC 9113 section 6.9.2).
/// The content is discarded on arrival.
const WINDOW_BYTES: u32 = 65_535;

/// Flow-control window of one stream for request content, in bytes.
const STREAM_WINDOW_BYTES: u32 = 16 * 1024;

/// Serves a connection to its end. Once `stopping` completes, the connection takes no new streams and finishes those in
/// progress.
pub(crate) async fn serve<S: MediaService>(
    connection: &Arc<Connection>,
    io: HttpIo,
    service: &S,
    limits: &Arc<ConnectionLimits>,
    stopping: impl Future<Output = ()>,
) -> hyper::Result<()> {
    let pending: Arc<Mutex<PendingStreams>> = Arc::default();
    let streams = Streams::new(limits, &pending);
    let on_stream = service_fn(|request: Request<Incoming>| {
        // Request content is never used. Dropping the body discards received content and ignores the rest.
        let (head, _) = request.into_parts();
        let stream = Stream::begin(connection, &head);
        streams.set_next_timer(stream.as_deref());
        let service = service.clone();
        async move {
            let stream = stream.ok_or_else(|| h2::Error::from(h2::Reason::REFUSED_STREAM))?;
            Ok::<_, h2::Error>(respond(&service, head, stream).await)
        }
    });
    let mut http = http2::Builder::new(streams.clone());
    http.max_concurrent_streams(STREAMS)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_header_list_size(HEAD_BYTES as u32)
        .max_send_buf_size(STREAM_SEND_BYTES)
        .max_pending_accept_reset_streams(Some(STREAMS as usize))
        .max_local_error_reset_streams(Some(STREAMS as usize));
    let mut served = pin!(http.serve_connection(TokioIo::new(io), on_stream));
    let mut stopping = pin!(stopping);
    let mut is_stopping = false;
    let mut running = FuturesUnordered::new();
    poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            served.as_mut().graceful_shutdown();
        }
        loop {
            if let Poll::Ready(ended) = served.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            running.extend(std::mem::take(&mut lock(&pending).streams));
            match running.poll_next_unpin(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

async fn respond<S: MediaService>(
    service: &S,
    mut head: Parts,
    stream: Arc<Stream>,
) -> Response<StreamBody<S::Body>> {
    name_host(&mut head);
    head.extensions.insert(Exchange(Arc::clone(&stream) as _));
    let mut response = service.serve(Request::from_parts(head, ())).await;
    // `Connection` is not allowed in HTTP/2 (RFC 9113 section 8.2.2).
    response.headers_mut().remove(header::CONNECTION);
    response.map(|body| StreamBody { body, stream })
}

/// Adds the `Host` that the request would have in HTTP/1.1. A `Host` that differs from `:authority` stays beside it
/// (RFC 9113 section 8.3.1). Two hosts make a request malformed.
fn name_host(head: &mut Parts) {
    let Some(authority) = head.uri.authority() else {
        return;
    };
    let Ok(host) = HeaderValue::from_str(authority.as_str()) else {
        return;
    };
    let is_named = |named: &HeaderValue| named.as_bytes().eq_ignore_ascii_case(host.as_bytes());
    if !head.headers.get(header::HOST).is_some_and(is_named) {
        head.headers.append(header::HOST, host);
    }
}

/// Collects the streams that hyper spawns, until the connection's task takes them.
#[derive(Clone)]
struct Streams {
    limits: Arc<ConnectionLimits>,
    /// Weak, since each stream owns its executor. A stream that is spawned as its connection ends would otherwise own
    /// itself.
    pending: Weak<Mutex<PendingStreams>>,
}

#[derive(Default)]
struct PendingStreams {
    /// The timer of the stream that hyper spawns next.
    timer: Option<Arc<ConnectionTimer>>,
    streams: Vec<StreamFuture>,
}

type StreamFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Streams {
    fn new(limits: &Arc<ConnectionLimits>, pending: &Arc<Mutex<PendingStreams>>) -> Self {
        Streams {
            limits: Arc::clone(limits),
            pending: Arc::downgrade(pending),
        }
    }

    /// Sets the timer of the stream that hyper spawns next. hyper calls the service and then spawns its future, one
    /// request at a time.
    fn set_next_timer(&self, stream: Option<&Stream>) {
        if let Some(pending) = self.pending.upgrade() {
            lock(&pending).timer = stream.map(|stream| Arc::clone(stream.timer()));
        }
    }
}

fn lock(pending: &Mutex<PendingStreams>) -> MutexGuard<'_, PendingStreams> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        // The connection has ended, and its streams with it.
        let Some(pending) = self.pending.upgrade() else {
            return;
        };
        let mut pending = lock(&pending);
        let Some(timer) = pending.timer.take() else {
            // A refused stream has no timer, and ends at once.
            pending.streams.push(Box::pin(stream));
            return;
        };
        let limits = Arc::clone(&self.limits);
        pending.streams.push(Box::pin(async move {
            let timed_out: TimeoutReason = tokio::select! {
                biased;
                () = stream => return,
                timed_out = timer.stream_timed_out(&limits) => timed_out,
            };
            // Dropping the future resets the stream.
            tracing::info!(reason = %timed_out, "stream reset");
        }));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_stream_that_begins_as_its_connection_ends_leaves_nothing() {
        let pending = Arc::default();
        let streams = Streams::new(&Arc::default(), &pending);
        let held = Arc::new(());
        let is_held = Arc::downgrade(&held);
        let of_stream = (streams.clone(), held);
        streams.execute(async move {
            let _of_stream = of_stream;
            std::future::pending().await
        });
        assert!(is_held.upgrade().is_some());
        drop(pending);
        assert!(is_held.upgrade().is_none());
    }

    #[test]
    fn hosts() {
        for (target, host, expected) in [
            ("http://a:80/", None, vec!["a:80"]),
            ("http://a/", Some("A"), vec!["A"]),
            ("http://a/", Some("b"), vec!["b", "a"]),
            ("/", Some("b"), vec!["b"]),
            ("/", None, vec![]),
        ] {
            let mut request = Request::get(target);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            name_host(&mut head);
            let hosts: Vec<_> = head.headers.get_all("host").iter().collect();
            assert_eq!(hosts, expected, "{target} {host:?}");
        }
    }
}
