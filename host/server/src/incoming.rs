//! Accepts connections from any number of TCP and UNIX domain sockets.

use crate::transport::sockopt;
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
    /// A UNIX domain socket. Its clients count as one client of this machine, `127.0.0.1`.
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
}

/// Sockets that accept connections. They share one limit of connections and the limits per client.
#[derive(Debug)]
pub struct Listeners {
    listeners: Vec<Listener>,
    /// The socket that is polled first next time, so that a busy socket does not starve the others.
    next: AtomicUsize,
    is_shared: bool,
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
            is_shared: false,
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) stream: TcpStream,
    /// The address of the peer.
    pub(crate) peer: IpAddr,
}

impl Listeners {
    /// Marks the sockets as open in another process too, such as the service manager that passed them. At a shutdown,
    /// the connections in their queues are left to the next process.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Whether another process has the sockets too.
    pub(crate) fn are_shared(&self) -> bool {
        self.is_shared
    }

    /// Turns new clients away from sockets with `SO_REUSEPORT`, so that the kernel gives them to another process that
    /// listens on the same port. Returns whether there are such sockets.
    pub(crate) fn turn_away(&self) -> bool {
        let mut turned_away = false;
        for listener in &self.listeners {
            match sockopt::turn_away(listener) {
                Ok(is_done) => turned_away |= is_done,
                Err(error) => tracing::warn!(%error, "cannot turn new clients away"),
            }
        }
        turned_away
    }

    /// Returns the connections that wait in the queues, whether the runtime has noticed them or not.
    pub(crate) fn queued(&self) -> impl Iterator<Item = Incoming> + '_ {
        self.listeners.iter().flat_map(Listener::queued)
    }

    pub(crate) fn all(&self) -> &[Listener] {
        &self.listeners
    }

    /// Accepts the next connection from any of the sockets. Without sockets it waits forever.
    ///
    /// # Errors
    /// As `accept(2)`.
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
    /// Accepts what waits in the queue, without waiting for more.
    fn queued(&self) -> impl Iterator<Item = Incoming> + '_ {
        let accept = move || {
            let accepted = socket2::SockRef::from(self).accept();
            let (socket, peer) = accepted.ok()?;
            socket.set_nonblocking(true).ok()?;
            let peer = peer
                .as_socket()
                .map_or(Ipv4Addr::LOCALHOST.into(), |peer| peer.ip().to_canonical());
            let stream = TcpStream::from_std(socket.into()).ok()?;
            Some(Incoming { stream, peer })
        };
        std::iter::from_fn(accept)
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Incoming>> {
        match self {
            Listener::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, peer)| Incoming {
                stream,
                peer: peer.ip().to_canonical(),
            }),
            #[cfg(unix)]
            Listener::Unix(listener) => listener.poll_accept(cx).map(|accepted| {
                let (stream, _) = accepted?;
                // A UNIX domain socket is read, written and closed by the same calls as a TCP socket. Options that only
                // TCP has are set in `socket`, which tolerates other families.
                let stream = std::os::fd::OwnedFd::from(stream.into_std()?);
                Ok(Incoming {
                    stream: TcpStream::from_std(stream.into())?,
                    peer: Ipv4Addr::LOCALHOST.into(),
                })
            }),
        }
    }
}

#[cfg(windows)]
impl std::os::windows::io::AsSocket for Listener {
    fn as_socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_socket(),
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
