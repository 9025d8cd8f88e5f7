//! The byte stream of HTTP on a connection, with or without TLS, and the detection of its HTTP version.

#[cfg(feature = "http2")]
use crate::http1::head::HTTP2_PREFACE;
use crate::tls::Certificate;
use crate::transport::connection::Connection;
use crate::transport::socket::Socket;
use bytes::{Buf, Bytes};
use millpond::store::FileRange;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(feature = "tls")]
use tokio_rustls::server::TlsStream;

/// A connection that is ready for HTTP.
pub(crate) struct HttpIo {
    transport: Transport,
    /// Bytes that were read to detect the version.
    first: Bytes,
}

/// The version of HTTP that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// HTTP/1 without TLS on a listener with a certificate. Each request is refused, since its client expects
    /// encryption.
    PlaintextHttp1,
    #[cfg(feature = "http2")]
    Http2,
}

enum Transport {
    Plain(Socket),
    #[cfg(feature = "tls")]
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
            #[cfg(feature = "tls")]
            Some(certificate) => {
                socket.state.expect_ciphertext();
                let stream = certificate.accept(socket).await?;
                let protocol = match stream.get_ref().1.alpn_protocol() {
                    #[cfg(feature = "http2")]
                    Some(b"h2") => Protocol::Http2,
                    _ => Protocol::Http1,
                };
                (Transport::Tls(Box::new(stream)), protocol, Bytes::new())
            }
            #[cfg(not(feature = "tls"))]
            Some(certificate) => match *certificate {},
            None => {
                let (protocol, first) = protocol_of(&mut socket).await?;
                (Transport::Plain(socket), protocol, first)
            }
        };
        Ok((HttpIo { transport, first }, protocol))
    }

    /// The underlying socket.
    pub(crate) fn socket(&mut self) -> &mut Socket {
        match &mut self.transport {
            Transport::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => stream.get_mut().0,
        }
    }

    /// Whether the connection is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        !matches!(self.transport, Transport::Plain(_))
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
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    /// Encrypts bytes into the buffer of TLS. They are sent when it is full, or by a flush. Without TLS they are sent at
    /// once.
    ///
    /// # Errors
    /// As the socket's, and when TLS fails.
    #[cfg(feature = "http2")]
    pub(crate) fn poll_buffer(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(socket) => socket.poll_send(cx, slices, false),
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => loop {
                let (_, session) = stream.get_mut();
                let count = io::Write::write_vectored(&mut session.writer(), slices)?;
                if count > 0 || slices.iter().all(|slice| slice.is_empty()) {
                    return Poll::Ready(Ok(count));
                }
                std::task::ready!(Pin::new(&mut *stream).poll_flush(cx))?;
            },
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
            #[cfg(feature = "tls")]
            Transport::Tls(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Sends what TLS has buffered.
    ///
    /// # Errors
    /// As the socket's.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(_) => Poll::Ready(Ok(())),
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Closes the sending side, with TLS after its `close_notify`.
    ///
    /// # Errors
    /// As the socket's.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Reads until the bytes match the preface, or differ from it. Returns the version and the bytes.
#[cfg(feature = "http2")]
async fn protocol_of(socket: &mut Socket) -> io::Result<(Protocol, Bytes)> {
    use tokio::io::AsyncReadExt;
    /// Size of the first read, in bytes. Most heads fit.
    const FIRST_BYTES: usize = 2048;
    let mut first = bytes::BytesMut::with_capacity(FIRST_BYTES);
    let protocol = loop {
        let known = first.len().min(HTTP2_PREFACE.len());
        if first[..known] != HTTP2_PREFACE[..known] {
            break Protocol::Http1;
        }
        if known == HTTP2_PREFACE.len() {
            break Protocol::Http2;
        }
        if socket.read_buf(&mut first).await? == 0 {
            break Protocol::Http1;
        }
    };
    Ok((protocol, first.freeze()))
}

#[cfg(not(feature = "http2"))]
async fn protocol_of(_socket: &mut Socket) -> io::Result<(Protocol, Bytes)> {
    Ok((Protocol::Http1, Bytes::new()))
}

impl AsyncRead for HttpIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let count = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first[..count]);
            this.first.advance(count);
            if this.first.is_empty() {
                this.first = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut this.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => {
                let read = Pin::new(&mut *stream).poll_read(cx, buffer);
                if let Poll::Ready(Ok(())) = &read {
                    stream.get_mut().0.state.on_plaintext();
                }
                read
            }
        }
    }
}
