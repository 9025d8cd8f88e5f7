//! Listening sockets that a service manager has passed: socket activation (sd_listen_fds(3)).

use crate::listen::{BoundAddress, BoundListener};
use anyhow::Result;
use tokio::net::TcpListener;

/// Name of the sockets of the admin listener, as in `FileDescriptorName=admin` of a systemd socket.
#[cfg(unix)]
const ADMIN: &str = "admin";

/// Listening sockets that were open when the program started.
#[derive(Debug, Default)]
pub(crate) struct PassedSockets {
    #[cfg(unix)]
    listeners: Vec<platform::PassedListener>,
    #[cfg(unix)]
    admin: Vec<std::net::TcpListener>,
}

impl PassedSockets {
    /// Takes the sockets of `LISTEN_FDS`. Those named `admin` in `LISTEN_FDNAMES` are for the admin listener. Has to be
    /// called before the program starts a thread, because it removes the variables.
    ///
    /// # Errors
    /// A descriptor is no listening socket, or one that this program cannot use.
    pub(crate) fn take() -> Result<Self> {
        #[cfg(unix)]
        return platform::take();
        #[cfg(not(unix))]
        Ok(PassedSockets::default())
    }

    /// Returns the sockets that take the place of `--listen`.
    ///
    /// # Errors
    /// The runtime cannot register a socket.
    pub(crate) fn listeners(&mut self) -> Result<Vec<BoundListener>> {
        #[cfg(unix)]
        return self.listeners.drain(..).map(platform::listener).collect();
        #[cfg(not(unix))]
        Ok(Vec::new())
    }

    /// Returns the sockets that take the place of `--admin`.
    ///
    /// # Errors
    /// The runtime cannot register a socket.
    pub(crate) fn admin(&mut self) -> Result<Vec<TcpListener>> {
        #[cfg(unix)]
        return self
            .admin
            .drain(..)
            .map(|listener| Ok(TcpListener::from_std(listener)?))
            .collect();
        #[cfg(not(unix))]
        Ok(Vec::new())
    }
}

#[cfg(unix)]
mod platform {
    use super::{ADMIN, BoundAddress, BoundListener, PassedSockets, TcpListener};
    use anyhow::{Context, Result, bail, ensure};
    use listenfd::ListenFd;
    use millpond_server::Listener;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    #[derive(Debug)]
    pub(super) enum PassedListener {
        Tcp(std::net::TcpListener),
        Unix(UnixListener),
    }

    pub(super) fn take() -> Result<PassedSockets> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut descriptors = ListenFd::from_env();
        let mut sockets = PassedSockets::default();
        for index in 0..descriptors.len() {
            let name = names.get(index).copied().unwrap_or_default();
            let context = || format!("LISTEN_FDS: socket {} ({name:?})", index + 1);
            if let Ok(Some(listener)) = descriptors.take_tcp_listener(index) {
                check(&listener).with_context(context)?;
                listener.set_nonblocking(true)?;
                if name == ADMIN {
                    sockets.admin.push(listener);
                } else {
                    sockets.listeners.push(PassedListener::Tcp(listener));
                }
                continue;
            }
            let listener = descriptors
                .take_unix_listener(index)
                .with_context(context)?;
            let listener = listener.with_context(context)?;
            check(&listener).with_context(context)?;
            if name == ADMIN {
                bail!("{}: the admin listener needs a TCP socket", context());
            }
            listener.set_nonblocking(true)?;
            sockets.listeners.push(PassedListener::Unix(listener));
        }
        Ok(sockets)
    }

    fn check(socket: &impl AsFd) -> Result<()> {
        let listens = rustix::net::sockopt::socket_acceptconn(socket)?;
        ensure!(
            listens,
            "the socket does not listen (`Accept=no` is needed)"
        );
        Ok(())
    }

    pub(super) fn listener(passed: PassedListener) -> Result<BoundListener> {
        Ok(match passed {
            PassedListener::Tcp(listener) => BoundListener {
                address: BoundAddress::Tcp(listener.local_addr()?),
                listener: Listener::Tcp(TcpListener::from_std(listener)?),
            },
            PassedListener::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().unwrap_or("(unnamed)".as_ref());
                BoundListener {
                    address: BoundAddress::PassedUnix(path.to_owned()),
                    listener: Listener::Unix(tokio::net::UnixListener::from_std(listener)?),
                }
            }
        })
    }
}
