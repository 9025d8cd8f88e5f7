//! HTTP/2 (RFC 9113) on one connection: its limits, and its streams, which run in the connection's own task.
//!
//! So nothing outlives its connection: when the task is dropped, every request on it is. A client that closes its end
//! ends it, since it could open no window any more.

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

/// Bytes that may wait to be sent on a stream when the next piece is read: the pieces are the real bound.
const STREAM_SEND_BYTES: usize = 16 * 1024;

/// Content that a client may send on all streams together before it is told that some was read: the least that there can
/// be (RFC 9113 section 6.9.2). It is thrown away as it comes.
const WINDOW_BYTES: u32 = 65_535;

/// The same on one stream.
const STREAM_WINDOW_BYTES: u32 = 16 * 1024;

/// Serves a connection to its end. When `stopping` says so, no new streams are taken, and those that are there are let
/// end.
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
        // No content is ever used; what has come of it is dropped here, and what comes is ignored.
        let (head, _) = request.into_parts();
        let stream = Stream::begin(connection, &head);
        streams.set_next_timer(stream.as_deref());
        let service = service.clone();
        async move {
            let stream = stream.ok_or_else(|| h2::Error::from(h2::Reason::REFUSED_STREAM))?;
            Ok::<_, h2::Error>(answer(&service, head, stream).await)
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

async fn answer<S: MediaService>(
    service: &S,
    mut head: Parts,
    stream: Arc<Stream>,
) -> Response<StreamBody<S::Body>> {
    name_host(&mut head);
    head.extensions.insert(Exchange(Arc::clone(&stream) as _));
    let mut response = service.serve(Request::from_parts(head, ())).await;
    // It is about the connection, of which nothing is said here (RFC 9113 section 8.2.2).
    response.headers_mut().remove(header::CONNECTION);
    response.map(|body| StreamBody { body, stream })
}

/// Gives a request the `Host` that it would have in HTTP/1.1. One that names another host than `:authority` stays
/// beside it (RFC 9113 section 8.3.1), and two make a request malformed.
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

/// The streams of one connection, from when hyper gives one away to when its connection's task takes it.
#[derive(Clone)]
struct Streams {
    limits: Arc<ConnectionLimits>,
    /// Weak, since each stream has its executor: one that begins when its connection ends would keep itself for ever.
    pending: Weak<Mutex<PendingStreams>>,
}

#[derive(Default)]
struct PendingStreams {
    /// The timer of the stream whose request is being handed over.
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

    /// What is executed next is that stream's. hyper calls its service and executes what comes of it one after the
    /// other.
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
        // Where the connection has ended, its streams have.
        let Some(pending) = self.pending.upgrade() else {
            return;
        };
        let mut pending = lock(&pending);
        let Some(timer) = pending.timer.take() else {
            // One that was refused ends at once.
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
            // Dropped, it is reset.
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
