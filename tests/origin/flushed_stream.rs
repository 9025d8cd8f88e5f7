//! A connection that tells when all bytes given to it have gone to the kernel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Counts the flushes of a connection. The server flushes it each time that it has written all that it had.
#[derive(Clone, Default)]
pub(crate) struct Flushes(watch::Sender<u64>);

impl Flushes {
    /// Waits for the next flush. A body that waits for it has the bytes before it sent.
    pub(crate) async fn next(&self) {
        let mut flushes = self.0.subscribe();
        // The sender is `self`, so the channel is open.
        flushes.changed().await.unwrap();
    }
}

/// A TCP connection whose flushes are counted.
pub(crate) struct FlushedStream {
    pub(crate) stream: TcpStream,
    pub(crate) flushes: Flushes,
}

impl AsyncRead for FlushedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for FlushedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes.0.send_modify(|count| *count += 1);
        // A TCP connection keeps nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
