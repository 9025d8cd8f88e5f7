//! HTTP/1.1 (RFC 9112) on one connection: one request after the other.

use crate::connection::direct::Direct;
use crate::connection::plaintext::Plaintext;
use crate::connection::{Connection, Exchange};
use crate::limits::HEAD_BYTES;
use crate::request::Millpond;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

/// Serves a connection to its end. When `stopping` says so, the answer in progress is its last.
pub(crate) async fn serve(
    connection: &Arc<Connection>,
    io: Plaintext,
    millpond: &Millpond,
    stopping: impl Future<Output = ()>,
) -> hyper::Result<()> {
    let service = service_fn(|mut request: Request<Incoming>| {
        let exchange = Exchange::Alone(Arc::clone(connection));
        request.extensions_mut().insert(exchange);
        let answered = millpond.serve(request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    // The connection's clock sees to time, for the head as for the rest. A client that has sent its last request may
    // close its end and still gets every answer (RFC 9112 section 9.6); one that is gone ends the connection by itself.
    http.header_read_timeout(None)
        .max_buf_size(HEAD_BYTES)
        .half_close(true);
    let io = Direct::new(io, Arc::clone(connection), millpond.clone());
    let mut served = pin!(http.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        biased;
        ended = served.as_mut() => return ended,
        () = stopping => served.as_mut().graceful_shutdown(),
    }
    served.await
}
