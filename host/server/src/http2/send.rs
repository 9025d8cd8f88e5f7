//! Sends a response on a stream: the fields that its head gets, and its body chunk by chunk.

use crate::http2::stream::{Stream, StreamBytes};
use crate::request_id::RequestId;
use crate::transport::send_error::{RemainingLength, SendError, body_error};
use bytes::Bytes;
use h2::{Reason, SendStream};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use httpdate::HttpDate;
use millpond::downstream::X_REQUEST_ID;
use millpond::{ResponseBody, Segment, SegmentLimits};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

/// Sends a body of that length, if it is known: chunk by chunk, each of which the connection has taken before the next is
/// read.
pub(super) async fn send_body(
    body: &mut impl ResponseBody,
    length: Option<u64>,
    stream: &Arc<Stream>,
    send: &mut SendStream<StreamBytes>,
) -> Result<(), SendError> {
    let mut remaining = RemainingLength(length);
    while !remaining.is_zero() {
        let segment = poll_fn(|cx| poll_segment(body, stream, send, cx)).await?;
        let bytes = match segment {
            // A segment of a file is larger than HTTP/2 sends at a time, and is not asked for.
            Some(Segment::File(_)) => {
                return Err(body_error("a file was returned where bytes were asked for"));
            }
            Some(Segment::Memory(bytes)) if bytes.is_empty() => continue,
            Some(Segment::Memory(bytes)) => bytes,
            None => {
                remaining.end()?;
                let end = StreamBytes::new(Bytes::new(), stream, None);
                send.send_data(end, true).map_err(client_error)?;
                break;
            }
        };
        remaining.take(bytes.len())?;
        let chunk = StreamBytes::new(bytes, stream, None);
        let sent = send.send_data(chunk, remaining.is_zero());
        sent.map_err(client_error)?;
    }
    // The response is complete once the connection has taken its last chunk.
    poll_fn(|cx| {
        let taken = stream.poll_taken(cx);
        body.on_sent(stream.take_sent_bytes());
        if taken.is_pending()
            && let Poll::Ready(reset) = poll_reset(send, cx)
        {
            return Poll::Ready(Err(reset));
        }
        taken.map(Ok)
    })
    .await
}

/// Reads the next segment, once the last has been sent and the client's flow control has room.
fn poll_segment(
    body: &mut impl ResponseBody,
    stream: &Arc<Stream>,
    send: &mut SendStream<StreamBytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Segment>, SendError>> {
    let taken = stream.poll_taken(cx);
    body.on_sent(stream.take_sent_bytes());
    if let Poll::Ready(reset) = poll_reset(send, cx) {
        return Poll::Ready(Err(reset));
    }
    ready!(taken);
    // The connection assigns the rest when it has the chunk.
    send.reserve_capacity(1);
    while send.capacity() == 0 {
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(client_error(error))),
            None => return Poll::Ready(Err(client_error(Reason::CANCEL.into()))),
        }
    }
    let limits = SegmentLimits {
        memory_bytes: stream.window().chunk_bytes,
        file_bytes: None,
    };
    let segment = ready!(body.poll_segment(cx, limits));
    Poll::Ready(segment.transpose().map_err(SendError::Body))
}

/// Waits for the client to reset the stream, or for the end of the connection.
fn poll_reset(send: &mut SendStream<StreamBytes>, cx: &mut Context<'_>) -> Poll<SendError> {
    let reset = ready!(send.poll_reset(cx));
    Poll::Ready(client_error(
        reset.map_or_else(|error| error, h2::Error::from),
    ))
}

fn client_error(error: h2::Error) -> SendError {
    SendError::Client(io::Error::other(error))
}

/// Fields that this server adds to a response.
pub(super) struct ResponseFields {
    pub(super) date: HeaderValue,
    pub(super) request_id: RequestId,
}

impl ResponseFields {
    /// Completes the fields of a response: adds the length if it is known, the date, and the request id. Removes the
    /// fields about a connection of HTTP/1.1, which are not allowed (RFC 9113 section 8.2.2).
    pub(super) fn finish(self, fields: &mut HeaderMap, length: Option<u64>) {
        for name in [
            header::CONNECTION,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
            HeaderName::from_static("keep-alive"),
            HeaderName::from_static("proxy-connection"),
        ] {
            fields.remove(name);
        }
        if let Some(length) = length
            && !fields.contains_key(header::CONTENT_LENGTH)
        {
            fields.insert(header::CONTENT_LENGTH, length.into());
        }
        if !fields.contains_key(header::DATE) {
            fields.insert(header::DATE, self.date);
        }
        fields.insert(X_REQUEST_ID, (&self.request_id).into());
    }
}

/// The value of `Date`, made anew each second (RFC 9110 section 6.6.1).
#[derive(Debug, Default)]
pub(super) struct DateField(Option<(u64, HeaderValue)>);

impl DateField {
    pub(super) fn now(&mut self) -> HeaderValue {
        let now = SystemTime::now();
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let second = since.unwrap_or_default().as_secs();
        match &self.0 {
            Some((made, value)) if *made == second => value.clone(),
            _ => {
                let text = HttpDate::from(now).to_string();
                // A date is ASCII, so it is a field value.
                let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
                self.0.insert((second, value)).1.clone()
            }
        }
    }
}
