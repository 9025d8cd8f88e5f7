//! The connection's bytes as they come and go: read for HTTP or TLS, and sent from memory or from their file.

use crate::transport::connection::Connection;
use crate::transport::sendfile::Next;
use crate::transport::sockopt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// The connection's socket, as HTTP or TLS reads and writes it.
#[derive(Debug)]
pub(crate) struct Socket(pub(crate) Arc<Connection>);

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = &self.0;
        loop {
            ready!(connection.stream.poll_read_ready(cx))?;
            match receive(&connection.stream, buffer) {
                Ok(received) => {
                    if !received.is_empty() {
                        connection.received(received.len())?;
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Socket {
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let connection = &self.0;
        let next = match &connection.flow().lent {
            Some(lent) => lent.next(pieces),
            None => Next::Memory {
                pieces,
                is_more: false,
            },
        };
        loop {
            let Poll::Ready(is_ready) = connection.stream.poll_write_ready(cx) else {
                connection.flow().reader.blocked(Instant::now);
                return Poll::Pending;
            };
            is_ready?;
            let stream = &connection.stream;
            let sent = stream.try_io(Interest::WRITABLE, || match &next {
                Next::Memory { pieces, is_more } => sockopt::send(stream, pieces, *is_more),
                Next::File(range) => sockopt::send_file(stream, range),
            });
            match sent {
                Ok(count) => {
                    connection.wrote(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    if sockopt::is_of_shrunk_file(&error) {
                        connection.has_shrunk_file.store(true, Ordering::Relaxed);
                    }
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = socket2::SockRef::from(&self.0.stream);
        match stream.shutdown(std::net::Shutdown::Write) {
            // The client was first.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

/// Reads what has come, behind what is in the buffer already: no bytes at the end of the stream.
///
/// Fewer than there is room for are all that there were: no further call is made to be told so, and the next bytes are
/// told of by the system.
///
/// # Errors
/// As the system's; [`io::ErrorKind::WouldBlock`] when nothing has come.
fn receive<'a>(stream: &TcpStream, buffer: &'a mut ReadBuf<'_>) -> io::Result<&'a [u8]> {
    let start = buffer.filled().len();
    let mut received = None;
    let read = stream.try_io(Interest::READABLE, || {
        let room = buffer.remaining();
        let count = crate::sys::receive(stream, buffer)?;
        received = Some(count);
        if (1..room).contains(&count) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    match (received, read) {
        (Some(count), _) => {
            debug_assert_eq!(buffer.filled().len(), start + count);
            Ok(&buffer.filled()[start..])
        }
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(io::ErrorKind::WouldBlock.into()),
    }
}
