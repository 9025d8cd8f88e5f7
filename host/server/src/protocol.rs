//! What HTTP reads and writes on a connection, encrypted or not, and which HTTP it is. Bytes that come are read along.

use crate::http2::field_section::{Frames, PREFACE};
use crate::tls::Certificate;
use crate::transport::connection::Connection;
use crate::transport::io::Socket;
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// A connection that is ready for HTTP.
pub(crate) struct HttpIo {
    connection: Arc<Connection>,
    transport: Transport,
    /// What was read to see which HTTP it is.
    first: Bytes,
    along: Inspector,
}

/// Which HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// Who reads along.
enum Inspector {
    Heads,
    Frames(Frames),
}

impl HttpIo {
    /// Makes the handshake where there is a certificate to show, and finds out which HTTP is spoken: by ALPN there, and
    /// else by the connection preface, as those send it who know already (RFC 9113 section 3.3). Who speaks plain HTTP
    /// where there is a certificate is refused in that.
    ///
    /// # Errors
    /// When the client has gone, or there is no agreeing with it.
    pub(crate) async fn open(
        connection: &Arc<Connection>,
        certificate: Option<&Certificate>,
    ) -> io::Result<(Self, Protocol)> {
        let mut socket = Socket(Arc::clone(connection));
        let (transport, protocol, first) = match certificate {
            Some(_) if connection.begins_with_letter().await? => {
                connection.refuse_plaintext();
                (Transport::Plain(socket), Protocol::Http1, Bytes::new())
            }
            Some(certificate) => {
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
        let plaintext = HttpIo {
            connection: Arc::clone(connection),
            transport,
            first,
            along: match protocol {
                Protocol::Http1 => Inspector::Heads,
                Protocol::Http2 => Inspector::Frames(Frames::new()),
            },
        };
        Ok((plaintext, protocol))
    }
}

/// Reads until it is clear whether the connection begins with the preface, and gives what was read.
async fn protocol_of(socket: &mut Socket) -> io::Result<(Protocol, Bytes)> {
    /// Most heads fit, so that they are read at once.
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
                    ready!(Pin::new(stream).poll_read(cx, buffer))?;
                    this.connection.deciphered();
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
        if let Some(bytes @ [_, ..]) = buffer.filled().get(before..) {
            match &mut this.along {
                Inspector::Heads => this.connection.read_heads(bytes)?,
                Inspector::Frames(frames) => this.connection.read_frames(frames, bytes)?,
            }
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
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writer().poll_write_vectored(cx, pieces)
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
