//! Content of a request between a driver and the service. The driver reads the next chunk when the service polls for it.

use bytes::Bytes;
use http_body::{Body, Frame};
use millpond::RequestContent;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::{mpsc, oneshot};

/// A chunk, an error, or `None` at the end.
type ReceivedChunk = Option<io::Result<Bytes>>;

/// The driver's end: a reply for each chunk that the service waits for.
#[derive(Debug)]
pub(crate) struct ChunkRequests(mpsc::Receiver<oneshot::Sender<ReceivedChunk>>);

/// The service's end.
struct ChunkReceiver {
    requests: mpsc::Sender<oneshot::Sender<ReceivedChunk>>,
    reply: Option<oneshot::Receiver<ReceivedChunk>>,
}

/// Returns both ends.
pub(crate) fn content() -> (ChunkRequests, RequestContent) {
    // The service waits for one chunk at a time.
    let (requests, of_driver) = mpsc::channel(1);
    let receiver = ChunkReceiver {
        requests,
        reply: None,
    };
    (ChunkRequests(of_driver), RequestContent::new(receiver))
}

impl ChunkRequests {
    /// Waits until the service polls for a chunk. `None` if it has dropped the content.
    pub(crate) async fn next(&mut self) -> Option<oneshot::Sender<ReceivedChunk>> {
        self.0.recv().await
    }
}

impl Body for ChunkReceiver {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.reply.is_none() {
            let (sender, receiver) = oneshot::channel();
            // The driver is gone after the end.
            if self.requests.try_send(sender).is_err() {
                return Poll::Ready(None);
            }
            self.reply = Some(receiver);
        }
        let Some(reply) = &mut self.reply else {
            return Poll::Ready(None);
        };
        let chunk = ready!(Pin::new(reply).poll(cx));
        self.reply = None;
        // The driver drops a reply if the connection ends.
        let chunk = chunk.unwrap_or_else(|_| Some(Err(io::ErrorKind::UnexpectedEof.into())));
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }
}
