//! Body of an origin's response: with a time for each part, and a maximum size where it is read whole.

use super::counts::TransferCounts;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use object_store::client::{HttpError, HttpErrorKind};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

/// Maximum time without a byte of a response.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Body of a response. It holds the permit of its connection.
pub(super) struct ResponseContent {
    body: Incoming,
    remaining_bytes: u64,
    /// Wakes the reader when nothing has come for too long. The mutex is never locked; it makes the body `Sync`.
    timer: Mutex<Pin<Box<Sleep>>>,
    counts: Arc<TransferCounts>,
    _permit: OwnedSemaphorePermit,
}

/// The error of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum ContentError {
    /// Nothing came for too long.
    #[error("no byte of the response within {READ_TIMEOUT:?}")]
    Timeout,
    /// It is larger than may be read whole.
    #[error("the response is too large")]
    TooLarge,
}

impl ResponseContent {
    pub(super) fn new(
        body: Incoming,
        max_bytes: u64,
        counts: Arc<TransferCounts>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        ResponseContent {
            body,
            remaining_bytes: max_bytes,
            timer: Mutex::new(Box::pin(sleep(READ_TIMEOUT))),
            counts,
            _permit: permit,
        }
    }
}

impl Body for ResponseContent {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let content = &mut *self;
        let polled = Pin::new(&mut content.body).poll_frame(cx);
        let timer = content.timer.get_mut();
        let frame = match polled {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                return timer.as_mut().poll(cx).map(|()| {
                    Some(Err(HttpError::new(
                        HttpErrorKind::Interrupted,
                        ContentError::Timeout,
                    )))
                });
            }
        };
        timer.as_mut().reset(Instant::now() + READ_TIMEOUT);
        let frame = frame.map(|frame| {
            let frame = frame.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            let rest = content.remaining_bytes.checked_sub(bytes);
            let too_large = || HttpError::new(HttpErrorKind::Unknown, ContentError::TooLarge);
            content.remaining_bytes = rest.ok_or_else(too_large)?;
            content
                .counts
                .received_bytes
                .fetch_add(bytes, Ordering::Relaxed);
            Ok(frame)
        });
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
