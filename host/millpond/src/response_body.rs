//! Interface between a body and millpond's own server: segments of memory and of files.

use crate::store::FileRange;
use bytes::Bytes;
use http_body::{Body, Frame};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A body that millpond's own server sends in segments. It asks for the next segment once the last has left.
///
/// A program's own body needs none of these methods. Its frames are its segments then, and whatever it wraps counts a byte
/// as sent when the server takes it.
pub trait ResponseBody: Body<Data = Bytes, Error = io::Error> + Send + Unpin + 'static {
    /// Returns the next segment, or `None` at the end.
    ///
    /// # Errors
    /// As [`Body::poll_frame`]. The server aborts the connection then.
    fn poll_segment(
        &mut self,
        cx: &mut Context<'_>,
        limits: SegmentLimits,
    ) -> Poll<Option<io::Result<Segment>>> {
        let _ = limits;
        loop {
            let Some(frame) = ready!(Pin::new(&mut *self).poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(bytes)) => return Poll::Ready(Some(Ok(Segment::Memory(bytes)))),
                // Trailers, which no client of media has asked for (RFC 9110 section 6.5.1).
                Ok(Err(_)) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Tells that the server begins to send the response, head first, and says from now on what it has sent.
    fn begin_send(&mut self) {}

    /// Tells that the socket has taken so many bytes of the body.
    fn on_sent(&mut self, bytes: usize) {
        let _ = bytes;
    }

    /// Tells that the response has been sent whole, or why it will not be. A client that has gone is no reason: the body
    /// is dropped then.
    fn end_send(&mut self, result: Result<(), &io::Error>) {
        let _ = result;
    }
}

/// Part of a body, on its way to the socket.
#[derive(Debug)]
pub enum Segment {
    /// Bytes in memory.
    Memory(Bytes),
    /// Bytes of a file, for the kernel to send (`sendfile(2)`).
    File(FileRange),
}

/// Maximum size of the next segment, by how fast the client takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLimits {
    /// Maximum bytes in memory.
    pub memory_bytes: usize,
    /// Maximum bytes of a file; `None` where the server has to read them, as under TLS.
    pub file_bytes: Option<usize>,
}
