//! The byte stream of HTTP on a connection, with or without TLS, and the detection of its HTTP version.

use crate::http2::field_section::{Frames, HEAD_BYTES, PREFACE};
use crate::tls::Certificate;
use crate::transport::connection::Connection;
use crate::transport::socket::Socket;
use bytes::{Buf, Bytes, BytesMut};
use millpond::ledger::{Charge, Reservation};
use millpond::store::FileRange;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// A connection that is ready for HTTP.
pub(crate) struct HttpIo {
    transport: Transport,
    /// Bytes that were read to detect the version.
    first: Bytes,
    /// The inspector of frames, in HTTP/2.
    inspector: Option<FrameInspector>,
}

/// The version of HTTP that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// HTTP/1 without TLS on a listener with a certificate. Each request is refused, since its client expects
    /// encryption.
    PlaintextHttp1,
    Http2,
}

enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl HttpIo {
    /// Performs the TLS handshake if there is a certificate, and detects the version of HTTP. With TLS, ALPN selects
    /// it. Without TLS, clients with prior knowledge send the connection preface of HTTP/2 (RFC 9113 section 3.3).
    ///
    /// # Errors
    /// When the client disconnects, or the handshake fails.
    pub(crate) async fn open(
        connection: &Arc<Connection>,
        certificate: Option<&Certificate>,
    ) -> io::Result<(Self, Protocol)> {
        let mut socket = Socket::new(connection)?;
        let (transport, protocol, first) = match certificate {
            Some(_) if connection.begins_with_letter().await? => (
                Transport::Plain(socket),
                Protocol::PlaintextHttp1,
                Bytes::new(),
            ),
            Some(certificate) => {
                socket.state.expect_ciphertext();
                let stream = certificate.accept(socket).await?;
                let protocol = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Protocol::Http2,
                    _ => Protocol::Http1,
                };
                (Transport::Tls(Box::new(stream)), protocol, Bytes::new())
            }
            None => {
                let (protocol, first) = protocol_of(&mut socket).await?;
                (Transport::Plain(socket), protocol, first)
            }
        };
        let mut io = HttpIo {
            transport,
            first,
            inspector: None,
        };
        if protocol == Protocol::Http2 {
            io.inspector = Some(FrameInspector {
                frames: Frames::new(),
                large_section: None,
                connection: Arc::clone(connection),
            });
            // Kernel memory is charged to the connection, since it belongs to no single stream.
            io.socket().charge_to(&connection.ledger.handle());
        }
        Ok((io, protocol))
    }

    /// The underlying socket.
    pub(crate) fn socket(&mut self) -> &mut Socket {
        match &mut self.transport {
            Transport::Plain(socket) => socket,
            Transport::Tls(stream) => stream.get_mut().0,
        }
    }

    /// Whether the connection is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// Sends bytes from memory, as many as fit. `is_more` says that more follow at once.
    ///
    /// # Errors
    /// As the socket's, and when TLS fails.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        is_more: bool,
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(socket) => socket.poll_send(cx, slices, is_more),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    /// Sends bytes of a file by `sendfile(2)`, as many as fit. TLS does not support it.
    ///
    /// # Errors
    /// As `sendfile(2)`; [`io::ErrorKind::UnexpectedEof`] when the file has shrunk since it was opened;
    /// [`io::ErrorKind::Unsupported`] with TLS.
    pub(crate) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        range: &FileRange,
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(socket) => socket.poll_send_file(cx, range),
            Transport::Tls(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }
}

/// Reads until the bytes match the preface, or differ from it. Returns the version and the bytes.
async fn protocol_of(socket: &mut Socket) -> io::Result<(Protocol, Bytes)> {
    /// Size of the first read, in bytes. Most heads fit.
    const FIRST_BYTES: usize = 2048;
    let mut first = BytesMut::with_capacity(FIRST_BYTES);
    let protocol = loop {
        let known = first.len().min(PREFACE.len());
        if first[..known] != PREFACE[..known] {
            break Protocol::Http1;
        }
        if known == PREFACE.len() {
            break Protocol::Http2;
        }
        if socket.read_buf(&mut first).await? == 0 {
            break Protocol::Http1;
        }
    };
    Ok((protocol, first.freeze()))
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

impl AsyncRead for HttpIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if this.first.is_empty() {
            match &mut this.transport {
                Transport::Plain(socket) => ready!(Pin::new(socket).poll_read(cx, buffer))?,
                Transport::Tls(stream) => {
                    ready!(Pin::new(&mut *stream).poll_read(cx, buffer))?;
                    stream.get_mut().0.state.on_plaintext();
                }
            }
        } else {
            let count = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first[..count]);
            this.first.advance(count);
            if this.first.is_empty() {
                this.first = Bytes::new();
            }
        }
        if let (Some(bytes @ [_, ..]), Some(inspector)) =
            (buffer.filled().get(before..), &mut this.inspector)
        {
            inspector.read(bytes)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl HttpIo {
    fn writer(self: Pin<&mut Self>) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        match &mut self.get_mut().transport {
            Transport::Plain(socket) => Pin::new(socket),
            Transport::Tls(stream) => Pin::new(stream),
        }
    }
}

impl AsyncWrite for HttpIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writer().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writer().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_shutdown(cx)
    }
}
