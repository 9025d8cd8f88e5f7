//! Where connections come in: TCP and UNIX domain sockets, any number of them.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};

/// A socket that accepts connections.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A UNIX domain socket. A client on it counts as one on this machine: `127.0.0.1`.
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
}

/// Sockets that accept connections, which share what is set aside for connections and what one client may ask for.
#[derive(Debug)]
pub struct Listeners {
    listeners: Vec<Listener>,
    /// Where the next look begins, so that a busy socket leaves the others their turn.
    next: AtomicUsize,
}

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Self {
        vec![Listener::Tcp(listener)].into()
    }
}

impl From<Vec<Listener>> for Listeners {
    fn from(listeners: Vec<Listener>) -> Self {
        Listeners {
            listeners,
            next: AtomicUsize::new(0),
        }
    }
}

/// A connection that has come in.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) stream: TcpStream,
    /// Who is at the other end.
    pub(crate) peer: IpAddr,
}

impl Listeners {
    pub(crate) fn all(&self) -> &[Listener] {
        &self.listeners
    }

    /// The next connection of any of them. Where there are none, none comes.
    ///
    /// # Errors
    /// As the system's.
    pub(crate) async fn accept(&self) -> io::Result<Incoming> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Incoming>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.listeners.len();
        for turn in 0..count {
            let listener = &self.listeners[first.wrapping_add(turn) % count];
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

impl Listener {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Incoming>> {
        match self {
            Listener::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, peer)| Incoming {
                stream,
                peer: peer.ip().to_canonical(),
            }),
            #[cfg(unix)]
            Listener::Unix(listener) => listener.poll_accept(cx).map(|accepted| {
                let (stream, _) = accepted?;
                // A stream socket is read, written and closed in the same way whatever its family is, and all that is
                // done here is that; what TCP alone has is asked for in `socket`, which knows.
                let stream = std::os::fd::OwnedFd::from(stream.into_std()?);
                Ok(Incoming {
                    stream: TcpStream::from_std(stream.into())?,
                    peer: Ipv4Addr::LOCALHOST.into(),
                })
            }),
        }
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        }
    }
}
