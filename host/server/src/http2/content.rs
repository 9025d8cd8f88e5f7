//! Content of a request on a stream of HTTP/2, for a service that reads it.

use crate::http2::stream::Stream;
use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;

/// Content of a stream. The client may send more once the service has taken a chunk.
pub(super) struct StreamContent {
    content: RecvStream,
    stream: Arc<Stream>,
    /// Reports the first poll, if the client waits for `100 Continue`.
    on_first_poll: Option<oneshot::Sender<()>>,
    has_ended: bool,
}

impl StreamContent {
    /// Returns the content of a stream, whose client is timed by its rate from now on. `on_first_poll` learns that the
    /// service reads it.
    pub(super) fn new(
        content: RecvStream,
        stream: &Arc<Stream>,
        on_first_poll: Option<oneshot::Sender<()>>,
    ) -> Self {
        stream.timer().begin_content();
        StreamContent {
            content,
            stream: Arc::clone(stream),
            on_first_poll,
            has_ended: false,
        }
    }

    fn end(&mut self) {
        if !self.has_ended {
            self.has_ended = true;
            self.stream.timer().end_content();
        }
    }
}

impl Drop for StreamContent {
    fn drop(&mut self) {
        self.end();
    }
}

impl Body for StreamContent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.has_ended {
            return Poll::Ready(None);
        }
        if let Some(on_first_poll) = this.on_first_poll.take() {
            // A response in progress is enough without it.
            let _ = on_first_poll.send(());
        }
        match ready!(this.content.poll_data(cx)) {
            Some(Ok(bytes)) => {
                for timer in [this.stream.timer(), this.stream.connection.timer()] {
                    timer.content_received(bytes.len());
                }
                let released = this.content.flow_control().release_capacity(bytes.len());
                Poll::Ready(Some(released.map_err(cut).map(|()| Frame::data(bytes))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(cut(error)))),
            None => {
                // The trailer section is ignored, but has to be well-formed.
                let trailers = ready!(this.content.poll_trailers(cx));
                this.end();
                Poll::Ready(trailers.err().map(|error| Err(cut(error))))
            }
        }
    }
}

/// Returns the error of content that its client has not sent whole.
fn cut(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, error)
}
