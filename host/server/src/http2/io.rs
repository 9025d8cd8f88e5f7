//! The byte stream of HTTP/2: inspects the frames that come, and collects those that leave.

use crate::http1::head::HEAD_BYTES;
use crate::http2::field_section::Frames;
use crate::protocol::HttpIo;
use crate::transport::connection::Connection;
use millpond::ledger::{Charge, Reservation};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The byte stream of a connection of HTTP/2.
pub(crate) struct Http2Io {
    io: HttpIo,
    inspector: FrameInspector,
    flush_hold: FlushHold,
}

impl Http2Io {
    /// Returns the byte stream of a connection, from its first byte on. Kernel memory is charged to the connection, since
    /// it belongs to no single stream.
    pub(crate) fn new(mut io: HttpIo, connection: &Arc<Connection>) -> Self {
        io.socket().charge_to(&connection.ledger.handle());
        Http2Io {
            io,
            inspector: FrameInspector {
                frames: Frames::new(),
                large_section: None,
                connection: Arc::clone(connection),
            },
            flush_hold: FlushHold::default(),
        }
    }

    /// The hold on flushes of this stream.
    pub(crate) fn flush_hold(&self) -> FlushHold {
        self.flush_hold.clone()
    }
}

/// Holds flushes back while the responses of several streams are collected. With TLS they then share writes to the
/// socket, up to the size of its buffer.
#[derive(Debug, Clone, Default)]
pub(crate) struct FlushHold(Arc<AtomicBool>);

impl FlushHold {
    /// Starts or ends the hold. The end flushes nothing by itself.
    pub(crate) fn set(&self, is_held: bool) {
        self.0.store(is_held, Ordering::Relaxed);
    }

    fn is_held(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bounds the field sections of HTTP/2, which the parser buffers until it can decode them.
struct FrameInspector {
    frames: Frames,
    /// The reservation for a field section that exceeds the connection's buffer.
    large_section: Option<(Reservation, Charge)>,
    connection: Arc<Connection>,
}

/// Size of a field section that fits into a connection's buffer, in bytes.
const SMALL_SECTION_BYTES: usize = 8 * 1024;

impl FrameInspector {
    fn read(&mut self, bytes: &[u8]) -> io::Result<()> {
        let section_bytes = self.frames.read(bytes).map_err(io::Error::other)?;
        if section_bytes < SMALL_SECTION_BYTES {
            self.large_section = None;
        } else if self.large_section.is_none() {
            // The capacity of the parser's buffer may be twice its content.
            let room = self.connection.try_reserve(2 * HEAD_BYTES);
            self.large_section = Some(room.ok_or_else(|| {
                let message = "there is no room for a large request head";
                io::Error::new(io::ErrorKind::OutOfMemory, message)
            })?);
        }
        Ok(())
    }
}

impl AsyncRead for Http2Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        if let Some(bytes @ [_, ..]) = buffer.filled().get(before..) {
            this.inspector.read(bytes)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().io.poll_buffer(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flush_hold.is_held() {
            return Poll::Ready(Ok(()));
        }
        this.io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().io.poll_shutdown(cx)
    }
}
