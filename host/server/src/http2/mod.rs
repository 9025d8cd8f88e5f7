//! HTTP/2 (RFC 9113) on one connection: requests, and responses that run in the connection's task.
//!
//! No stream outlives its connection: dropping the task drops every request on it. A client that closes its sending
//! side ends the connection, since it can no longer send WINDOW_UPDATE.

#[cfg(feature = "uploads")]
mod content;
mod field_section;
mod io;
mod send;
pub(crate) mod stream;

use crate::client_limits::InFlight;
use crate::http1::head::{self, CONTENT_BYTES, HEAD_BYTES};
#[cfg(feature = "uploads")]
use crate::http2::content::StreamContent;
use crate::http2::io::{FlushHold, Http2Io};
use crate::http2::send::{DateField, ResponseFields, send_body};
use crate::http2::stream::{CachedTransfer, Stream, StreamBytes, held_by_head};
use crate::protocol::HttpIo;
use crate::request_id::RequestId;
use crate::transport::connection::Connection;
use crate::transport::exchange::{Admission, PendingRequest};
use crate::transport::send_error::SendError;
use crate::transport::timeouts::STREAMS;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
#[cfg(feature = "uploads")]
use millpond::RequestContent;
use millpond::downstream::{Exchange, Rejection, SimpleHead, X_REQUEST_ID, logged_head};
use millpond::head_size::head_memory_bytes;
use millpond::ledger::{AccessLogEntry, Outcome};
use millpond::{CachedResponse, MediaService, ResponseBody};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
#[cfg(feature = "uploads")]
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Bytes that may wait on a stream before the next chunk is read. The size of a chunk is the real bound.
const STREAM_SEND_BYTES: usize = 16 * 1024;

/// Flow-control window of a connection for request content, in bytes: the minimum of HTTP/2 (RFC 9113 section 6.9.2).
/// Content is discarded on arrival, unless it is an upload.
const WINDOW_BYTES: u32 = 65_535;

/// Flow-control window of one stream for request content, in bytes.
const STREAM_WINDOW_BYTES: u32 = 16 * 1024;

/// Maximum time that a response waits for the request's content, which no response needs.
const CONTENT_WAIT: Duration = Duration::from_secs(1);

/// Serves a connection to its end. Once `stopping` completes, the connection takes no new streams and finishes those in
/// progress.
///
/// # Errors
/// When the client has gone, or violates HTTP/2.
pub(crate) async fn serve<S: MediaService>(
    connection: &Arc<Connection>,
    io: HttpIo,
    service: &S,
    stopping: impl Future<Output = ()>,
) -> Result<(), h2::Error> {
    let io = Http2Io::new(io, connection);
    let flush_hold = io.flush_hold();
    let mut http = h2::server::Builder::new();
    http.max_concurrent_streams(STREAMS)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .max_header_list_size(HEAD_BYTES as u32)
        .max_send_buffer_size(STREAM_SEND_BYTES)
        .max_pending_accept_reset_streams(STREAMS as usize)
        .max_local_error_reset_streams(Some(STREAMS as usize));
    let mut driver = Http2Driver {
        http: http.handshake(io).await?,
        flush_hold,
        connection,
        service,
        date: DateField::default(),
        running: FuturesUnordered::new(),
        sending: Vec::new(),
    };
    let mut stopping = pin!(stopping);
    let mut is_stopping = false;
    poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            driver.http.graceful_shutdown();
        }
        driver.poll(cx)
    })
    .await
}

/// One connection of HTTP/2.
struct Http2Driver<'a, S> {
    http: h2::server::Connection<Http2Io, StreamBytes>,
    flush_hold: FlushHold,
    connection: &'a Arc<Connection>,
    service: &'a S,
    date: DateField,
    /// Responses in progress that wait for something.
    running: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Responses from the cache that were handed to the connection in this turn.
    sending: Vec<(Weak<Stream>, SendStream<StreamBytes>)>,
}

/// A request that has come, and the means to respond.
type Accepted = (Request<RecvStream>, SendResponse<StreamBytes>);

impl<S: MediaService> Http2Driver<'_, S> {
    /// Receives requests and sends responses until nothing more can be done now. Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let ended = ready!(self.poll_connection(cx));
        // Responses that were sent whole in this turn have yet to see it. Others are aborted when they are dropped.
        self.poll_responses(cx);
        Poll::Ready(ended)
    }

    /// Continues the responses in progress until each of them waits.
    fn poll_responses(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {}
    }

    /// Receives and sends by turns. Ready when the connection has ended.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let mut accepted = Vec::new();
        loop {
            // Requests that came together are responded to together.
            self.flush_hold.set(true);
            if let Poll::Ready(ended) = self.poll_accept(&mut accepted, cx) {
                return Poll::Ready(ended);
            }
            for (request, respond) in accepted.drain(..) {
                self.begin(request, respond);
            }
            self.poll_responses(cx);
            if !(self.sending.is_empty() && self.running.is_empty())
                && let Poll::Ready(ended) = self.poll_accept(&mut accepted, cx)
            {
                return Poll::Ready(ended);
            }
            // The frames of all responses are written. This flushes them.
            self.flush_hold.set(false);
            if let Poll::Ready(ended) = self.poll_accept(&mut accepted, cx) {
                return Poll::Ready(ended);
            }
            self.watch_unsent();
            // Each new response has to be polled once, so that it wakes this task.
            let is_done = self.running.poll_next_unpin(cx).is_pending() || self.running.is_empty();
            if is_done && accepted.is_empty() {
                return Poll::Pending;
            }
        }
    }

    /// Reads and writes frames, and collects the requests that have come. Ready when the connection has ended.
    fn poll_accept(
        &mut self,
        accepted: &mut Vec<Accepted>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), h2::Error>> {
        loop {
            match ready!(self.http.poll_accept(cx)) {
                Some(request) => accepted.push(request?),
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Starts the response to a request.
    fn begin(&mut self, request: Request<RecvStream>, respond: SendResponse<StreamBytes>) {
        let (mut head, content) = request.into_parts();
        name_host(&mut head);
        let ids = head.headers.get_all(X_REQUEST_ID).iter();
        let request_id = RequestId::of(ids.map(HeaderValue::as_bytes));
        let Some(stream) = Stream::begin(self.connection, &head) else {
            self.refuse(&head, &request_id, respond);
            return;
        };
        let date = self.date.now();
        let is_content_read = self.is_content_read(&head);
        let admission: Admission = head::check_parts(&head, is_content_read)
            .map_err(Rejection::from)
            .and_then(|()| Ok(self.connection.admit(&head.headers)?));
        if content.is_end_stream()
            && admission.is_ok()
            && let Some(response) = self.try_cached(&head, &request_id)
        {
            let in_flight = admission.ok().flatten();
            let fields = ResponseFields { date, request_id };
            self.send_cached(response, in_flight, &stream, respond, fields);
            return;
        }
        let pending = PendingRequest::on_stream(&stream, admission, request_id);
        head.extensions.insert(Exchange(pending));
        let service = self.service.clone();
        self.running.push(Box::pin(async move {
            let responding = async {
                let content = match is_content_read {
                    true => Some(content),
                    false => {
                        discard(&head, content).await;
                        None
                    }
                };
                let fields = ResponseFields { date, request_id };
                respond_to(&service, (head, content), &stream, respond, fields).await;
            };
            tokio::select! {
                biased;
                () = responding => {}
                // Dropping the response resets the stream.
                () = stream.timed_out() => {}
            }
        }));
    }

    /// Whether the service reads the content of a request.
    #[cfg(feature = "uploads")]
    fn is_content_read(&self, head: &Parts) -> bool {
        self.service.reads_content(&head.method, &head.uri)
    }

    #[cfg(not(feature = "uploads"))]
    fn is_content_read(&self, _head: &Parts) -> bool {
        false
    }

    /// Refuses a stream that there is no memory for. Its client may try again.
    fn refuse(&self, head: &Parts, request_id: &RequestId, mut respond: SendResponse<StreamBytes>) {
        let millpond = self.service.millpond();
        let client = self.connection.client(&head.headers);
        let limit_bytes = millpond.limits().request_memory_bytes;
        let registry = millpond.registry();
        let wanted = registry.access_log_fields();
        let logged_head = logged_head(head, Some(client), Some(request_id.as_str()), wanted);
        let mut log_entry = AccessLogEntry::new(&head.method, &logged_head, registry, limit_bytes);
        log_entry.finish_with(Outcome::Rejected, "there is no memory for another stream");
        respond.send_reset(Reason::REFUSED_STREAM);
    }

    fn try_cached(&self, head: &Parts, request_id: &RequestId) -> Option<CachedResponse> {
        /// Maximum size of a head that is responded to from the cache here, in bytes.
        const SIMPLE_HEAD_BYTES: usize = 8 * 1024;
        let is_simple = matches!(head.method, Method::GET | Method::HEAD)
            && held_by_head(head) <= SIMPLE_HEAD_BYTES
            // The body would hold its bytes back, and a cached response has none.
            && self.connection.clients().limit_rate().is_none();
        if !is_simple {
            return None;
        }
        let target = head.uri.path_and_query()?.as_str();
        self.service.try_cached(&ParsedHead {
            head,
            target,
            connection: self.connection,
            request_id,
        })
    }

    /// Sends a response from the cache. It needs no task of its own unless its client does not take it at once.
    fn send_cached(
        &mut self,
        mut response: CachedResponse,
        in_flight: Option<InFlight>,
        stream: &Arc<Stream>,
        mut respond: SendResponse<StreamBytes>,
        fields: ResponseFields,
    ) {
        let tracker = self.connection.tracker();
        tracker.begin_request(response.log_entry.route());
        let mut head = Response::new(());
        *head.status_mut() = response.status();
        *head.headers_mut() = response.headers();
        fields.finish(head.headers_mut(), None);
        let content = std::mem::take(&mut response.content);
        let is_empty = content.is_empty();
        // A stream that its client has reset takes nothing. The response is aborted then.
        let Ok(mut send) = respond.send_response(head, is_empty) else {
            return;
        };
        if is_empty {
            response.log_entry.finish(Outcome::Completed);
            return;
        }
        let cached = CachedTransfer::new(response, in_flight);
        let bytes = StreamBytes::new(content, stream, Some(cached));
        if send.send_data(bytes, true).is_ok() {
            self.sending.push((Arc::downgrade(stream), send));
        }
    }

    /// Has a timer for each response from the cache that has not been sent whole.
    fn watch_unsent(&mut self) {
        for (stream, mut send) in self.sending.drain(..) {
            let Some(stream) = stream.upgrade() else {
                continue;
            };
            self.running.push(Box::pin(async move {
                tokio::select! {
                    biased;
                    () = poll_fn(|cx| stream.poll_taken(cx)) => {}
                    () = stream.timed_out() => send.send_reset(Reason::CANCEL),
                }
            }));
        }
    }
}

/// A request's head, for the cache.
struct ParsedHead<'a> {
    head: &'a Parts,
    target: &'a str,
    connection: &'a Connection,
    request_id: &'a RequestId,
}

impl<'head> SimpleHead for ParsedHead<'head> {
    fn method(&self) -> &Method {
        &self.head.method
    }

    fn target(&self) -> &str {
        self.target
    }

    fn version(&self) -> Version {
        Version::HTTP_2
    }

    fn client(&self) -> IpAddr {
        self.connection.client(&self.head.headers)
    }

    fn request_id(&self) -> &str {
        self.request_id.as_str()
    }

    fn lines<'a>(&'a self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a, 'head> {
        let lines = self.head.headers.get_all(name).iter();
        lines.map(HeaderValue::as_bytes)
    }

    fn held_bytes(&self) -> usize {
        let fields = self.head.headers.iter();
        let fields = fields.map(|(name, value)| name.as_str().len() + value.len());
        head_memory_bytes(self.target, self.head.headers.len(), fields.sum())
    }
}

/// Reads a request's content and discards it, so that a violation in it is found before the response. It stops at the
/// end, at [`CONTENT_BYTES`] or after [`CONTENT_WAIT`]. A client that expects a response first gets it first (RFC 9110
/// section 10.1.1).
async fn discard(head: &Parts, mut content: RecvStream) {
    if content.is_end_stream() || head.headers.contains_key(header::EXPECT) {
        return;
    }
    let mut left_bytes = CONTENT_BYTES;
    let read = async {
        while let Some(Ok(bytes)) = poll_fn(|cx| content.poll_data(cx)).await {
            let released = content.flow_control().release_capacity(bytes.len());
            if released.is_err() || bytes.len() > left_bytes {
                return;
            }
            left_bytes -= bytes.len();
        }
        // The stream's error comes with the response.
        let _ = poll_fn(|cx| content.poll_trailers(cx)).await;
    };
    // The rest is ignored after that, when the content is dropped.
    let _ = timeout(CONTENT_WAIT, read).await;
}

/// Has the service respond to a request, and sends the response. The service reads the content, if there is any here.
async fn respond_to<S: MediaService>(
    service: &S,
    (head, content): (Parts, Option<RecvStream>),
    stream: &Arc<Stream>,
    mut respond: SendResponse<StreamBytes>,
    fields: ResponseFields,
) {
    let is_head = head.method == Method::HEAD;
    let response = match content {
        #[cfg(feature = "uploads")]
        Some(content) => {
            // In a box, since it is rare.
            let read = serve_with_content(service, head, content, stream, &mut respond);
            Box::pin(read).await
        }
        #[cfg(not(feature = "uploads"))]
        Some(_) => None,
        None => {
            let serving = service.serve(Request::from_parts(head, ()));
            tokio::select! {
                biased;
                // The client has reset the stream.
                _ = poll_fn(|cx| respond.poll_reset(cx)) => None,
                response = serving => Some(response),
            }
        }
    };
    let Some(response) = response else {
        return;
    };
    let (mut head, mut body) = response.into_parts();
    let has_none = matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    let is_empty = is_head || has_none || body.is_end_stream();
    let length = body.size_hint().exact();
    fields.finish(&mut head.headers, length.filter(|_| !is_empty));
    let Ok(mut send) = respond.send_response(Response::from_parts(head, ()), is_empty) else {
        return;
    };
    body.begin_send();
    if is_empty {
        body.end_send(Ok(()));
        return;
    }
    match send_body(&mut body, length, stream, &mut send).await {
        Ok(()) => body.end_send(Ok(())),
        Err(SendError::Body(error)) => {
            body.end_send(Err(&error));
            // A short body must not look whole.
            send.send_reset(Reason::INTERNAL_ERROR);
        }
        Err(SendError::Client(_)) => {}
    }
}

/// Has the service respond to a request while it reads the content. Sends `100 Continue` when it begins to, if the client
/// waits for that. `None` if the client has reset the stream.
#[cfg(feature = "uploads")]
async fn serve_with_content<S: MediaService>(
    service: &S,
    head: Parts,
    content: RecvStream,
    stream: &Arc<Stream>,
    respond: &mut SendResponse<StreamBytes>,
) -> Option<Response<S::Body>> {
    let is_continue_expected = head.headers.contains_key(header::EXPECT);
    let (on_first_poll, first_poll) = oneshot::channel();
    let content = StreamContent::new(content, stream, Some(on_first_poll));
    let request = Request::from_parts(head, RequestContent::new(content));
    let mut serving = pin!(service.serve_with_content(request));
    let mut first_poll = pin!(first_poll);
    let mut is_waiting = is_continue_expected;
    loop {
        tokio::select! {
            biased;
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return None,
            response = serving.as_mut() => return Some(response),
            polled = first_poll.as_mut(), if is_waiting => {
                is_waiting = false;
                if polled.is_ok() {
                    let mut head = Response::new(());
                    *head.status_mut() = StatusCode::CONTINUE;
                    // A stream that its client has reset takes nothing.
                    let _ = respond.send_informational(head);
                }
            }
        }
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
