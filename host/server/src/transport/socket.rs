//! The connection's socket: bytes received for HTTP or TLS, and bytes sent from memory or from a file.

use crate::transport::connection::Connection;
use crate::transport::send_state::SendState;
use crate::transport::sockopt;
use millpond::ledger::LedgerHandle;
use millpond::store::FileRange;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// The connection's socket, as HTTP or TLS reads and writes it.
#[derive(Debug)]
pub(crate) struct Socket {
    connection: Arc<Connection>,
    pub(crate) state: SendState,
}

impl Socket {
    /// The socket of that connection, of which there is one.
    ///
    /// # Errors
    /// As [`SendState::new`].
    pub(crate) fn new(connection: &Arc<Connection>) -> io::Result<Self> {
        Ok(Socket {
            state: SendState::new(connection)?,
            connection: Arc::clone(connection),
        })
    }

    /// A response begins. The kernel's part is charged to its ledger, if it has one, until [`Socket::end_response`].
    pub(crate) fn begin_response(&mut self, ledger: Option<LedgerHandle>) {
        if let Some(ledger) = ledger {
            self.state.begin_response(ledger, &self.connection);
        }
    }

    /// The response has ended.
    pub(crate) fn end_response(&mut self) {
        self.state.end_response(&self.connection);
    }

    /// Charges the kernel's part to that ledger from now on.
    pub(crate) fn charge_to(&mut self, ledger: &LedgerHandle) {
        self.state.charge_to(ledger, &self.connection);
    }

    /// Sends bytes in memory, as many as fit. `is_more` says that more follow at once.
    ///
    /// # Errors
    /// As `sendmsg(2)`.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
        is_more: bool,
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| sockopt::send(stream, slices, is_more))
    }

    /// Has the kernel send bytes of a file, as many as fit.
    ///
    /// # Errors
    /// As `sendfile(2)`; [`io::ErrorKind::UnexpectedEof`] when the file has shrunk since it was opened.
    pub(crate) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        range: &FileRange,
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| sockopt::send_file(stream, range))
    }

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let stream = &self.connection.stream;
        loop {
            let Poll::Ready(is_ready) = stream.poll_write_ready(cx) else {
                self.state.on_blocked();
                return Poll::Pending;
            };
            is_ready?;
            match stream.try_io(Interest::WRITABLE, || send(stream)) {
                Ok(count) => {
                    self.connection.timer().sent(count);
                    self.state.on_sent(count, &self.connection);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let connection = &this.connection;
        loop {
            let Poll::Ready(is_ready) = connection.stream.poll_read_ready(cx) else {
                let is_in_use = connection.timer().has_streams();
                this.state.poll_rest(cx, is_in_use, connection);
                return Poll::Pending;
            };
            is_ready?;
            match receive(&connection.stream, buffer) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(count) => {
                    connection.timer().received();
                    return Poll::Ready(this.state.on_received(count, connection));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
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
        self.get_mut()
            .poll_send(cx, &[io::IoSlice::new(bytes)], false)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, slices, false)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = socket2::SockRef::from(&self.connection.stream);
        match stream.shutdown(std::net::Shutdown::Write) {
            // The client was first.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

/// Reads bytes that have come into the rest of the buffer, and returns how many: none at the end of the stream.
///
/// Fewer than there is room for are all that there were. No further call is made to learn that, and the system tells of the
/// next bytes.
///
/// # Errors
/// As `recv(2)`; [`io::ErrorKind::WouldBlock`] when nothing has come.
fn receive(stream: &TcpStream, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
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
        (Some(count), _) => Ok(count),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(io::ErrorKind::WouldBlock.into()),
    }
}
