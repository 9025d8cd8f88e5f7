//! Addresses of `--listen` and `--admin`, and their sockets.

use anyhow::{Context, Result, ensure};
use millpond_server::Listener;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use tokio::net::{TcpListener, TcpSocket, lookup_host};

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// TCP port, on one address or on all.
    Tcp { host: Host, port: u16 },
    /// UNIX domain socket.
    Unix(PathBuf),
}

/// Address of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// All addresses.
    Any,
    One(IpAddr),
    /// Addresses of a name.
    Named(String),
}

/// The text is not an address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an address is HOST:PORT, :PORT for all addresses, PORT for 127.0.0.1, or unix:PATH")]
pub(crate) struct InvalidAddress;

impl FromStr for ListenAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_path = !path.is_empty() && cfg!(unix);
            return is_path
                .then(|| ListenAddress::Unix(path.into()))
                .ok_or(InvalidAddress);
        }
        let (host, port) = match text.rsplit_once(':') {
            None => (Host::One(Ipv4Addr::LOCALHOST.into()), text),
            Some((host, port)) => (host.parse()?, port),
        };
        // Rust's parser accepts a sign.
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidAddress);
        }
        let port = port.parse().map_err(|_| InvalidAddress)?;
        Ok(ListenAddress::Tcp { host, port })
    }
}

impl FromStr for Host {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if matches!(text, "" | "*") {
            return Ok(Host::Any);
        }
        if let Some(inside) = text.strip_prefix('[') {
            let address = inside.strip_suffix(']').ok_or(InvalidAddress)?;
            let address: Ipv6Addr = address.parse().map_err(|_| InvalidAddress)?;
            return Ok(Host::One(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Host::One(address.into()));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        // A host of digits and dots alone is a malformed address, and not a name.
        let has_letter = text.contains(|c: char| c.is_ascii_alphabetic());
        if has_letter && text.chars().all(is_name) {
            Ok(Host::Named(text.to_owned()))
        } else {
            Err(InvalidAddress)
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenAddress::Tcp { host, port } => match host {
                Host::Any => write!(f, ":{port}"),
                Host::One(address) => SocketAddr::new(*address, *port).fmt(f),
                Host::Named(name) => write!(f, "{name}:{port}"),
            },
        }
    }
}

/// A listening socket, with its address.
#[derive(Debug)]
pub(crate) struct BoundListener {
    pub(crate) listener: Listener,
    pub(crate) address: BoundAddress,
}

/// Address of a listening socket.
#[derive(Debug)]
pub(crate) enum BoundAddress {
    Tcp(SocketAddr),
    /// Dropping the value removes the file.
    Unix(SocketFile),
    /// File of a socket that another process has made, and removes.
    #[cfg(unix)]
    PassedUnix(PathBuf),
}

impl ListenAddress {
    /// Binds the address. Returns one socket, or one for each address of a name.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(crate) async fn bind(&self, sharing: PortSharing) -> Result<Vec<BoundListener>> {
        match self {
            ListenAddress::Unix(path) => Ok(vec![bind_unix(path, sharing)?]),
            ListenAddress::Tcp { .. } => {
                let listeners = self.bind_tcp(sharing).await?.into_iter();
                listeners
                    .map(|listener| {
                        Ok(BoundListener {
                            address: BoundAddress::Tcp(listener.local_addr()?),
                            listener: Listener::Tcp(listener),
                        })
                    })
                    .collect()
            }
        }
    }

    /// Binds a TCP address.
    ///
    /// # Errors
    /// As [`ListenAddress::bind`], and for UNIX domain sockets.
    pub(crate) async fn bind_tcp(&self, sharing: PortSharing) -> Result<Vec<TcpListener>> {
        let ListenAddress::Tcp { host, port } = self else {
            anyhow::bail!("cannot listen on {self}: a TCP port is needed");
        };
        let addresses = match host {
            Host::One(address) => vec![(*address, *port).into()],
            // One socket for both families, if there are both.
            Host::Any => {
                let both = (Ipv6Addr::UNSPECIFIED, *port).into();
                match listen_tcp(both, sharing) {
                    Ok(listener) => return Ok(vec![listener]),
                    Err(error) if is_no_address(&error) => {
                        vec![(Ipv4Addr::UNSPECIFIED, *port).into()]
                    }
                    Err(error) => return Err(error).context(format!("cannot listen on {self}")),
                }
            }
            Host::Named(name) => addresses_of(name, *port)
                .await
                .with_context(|| format!("cannot listen on {self}"))?,
        };
        self.bind_all(addresses, sharing)
    }

    /// Binds the addresses that this machine has. At least one has to succeed.
    fn bind_all(
        &self,
        addresses: Vec<SocketAddr>,
        sharing: PortSharing,
    ) -> Result<Vec<TcpListener>> {
        let mut listeners = Vec::new();
        let mut missing = None;
        for address in addresses {
            match listen_tcp(address, sharing) {
                Ok(listener) => listeners.push(listener),
                Err(error) if is_no_address(&error) => missing = Some(error),
                Err(error) => return Err(error).context(format!("cannot listen on {self}")),
            }
        }
        match missing {
            Some(error) if listeners.is_empty() => {
                Err(error).context(format!("cannot listen on {self}"))
            }
            _ => Ok(listeners),
        }
    }
}

/// Sharing of an address with another process of this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortSharing {
    /// The address has to be free.
    Exclusive,
    /// A process that shares the address too may listen on it already (`SO_REUSEPORT`).
    ReusePort,
}

/// Maximum number of connections that wait in the queue of a listener. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: u32 = 1024;

fn listen_tcp(address: SocketAddr, sharing: PortSharing) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    #[cfg(unix)]
    {
        // Connections of a process before may still be in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(sharing == PortSharing::ReusePort)?;
    }
    #[cfg(not(unix))]
    if sharing == PortSharing::ReusePort {
        return Err(io::ErrorKind::Unsupported.into());
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Returns the addresses of a name, without duplicates. For port 0 it returns one, because each would get another port.
async fn addresses_of(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in lookup_host((name, port)).await? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if port == 0 {
        addresses.truncate(1);
    }
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    }
    Ok(addresses)
}

/// Returns whether this machine lacks the address or its family.
fn is_no_address(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || is_unsupported_family(error)
}

#[cfg(unix)]
fn is_unsupported_family(error: &io::Error) -> bool {
    let unknown = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.raw_os_error() == Some(unknown)
}

#[cfg(not(unix))]
fn is_unsupported_family(_error: &io::Error) -> bool {
    false
}

/// Binds a UNIX domain socket. With [`PortSharing::ReusePort`], the path leads to the new socket from one moment to the
/// next, and another server may still have the old one.
#[cfg(unix)]
fn bind_unix(path: &std::path::Path, sharing: PortSharing) -> Result<BoundListener> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
    use std::os::unix::net::UnixStream;
    /// Mode of the socket: owner and group can connect, such as a proxy on the same machine.
    const MODE: u32 = 0o660;
    let context = || format!("cannot listen on unix:{}", path.display());
    if let Ok(found) = path.symlink_metadata() {
        ensure!(
            found.file_type().is_socket(),
            "cannot listen on unix:{}: the path exists and is not a socket",
            path.display()
        );
        if sharing == PortSharing::Exclusive {
            // Nobody accepts connections on the socket of a server that was killed.
            let refused = UnixStream::connect(path);
            let is_stale =
                matches!(&refused, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused);
            ensure!(
                is_stale,
                "cannot listen on unix:{}: another server listens there",
                path.display()
            );
            std::fs::remove_file(path).with_context(context)?;
        }
    }
    // A client finds the old socket or the new one, and no socket that it may not open.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let listener = tokio::net::UnixListener::bind(&temporary).with_context(context)?;
    let mode = std::fs::Permissions::from_mode(MODE);
    std::fs::set_permissions(&temporary, mode)
        .and_then(|()| std::fs::rename(&temporary, path))
        .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
        .with_context(context)?;
    let metadata = path.symlink_metadata().with_context(context)?;
    let file = SocketFile {
        path: path.to_owned(),
        id: (metadata.dev(), metadata.ino()),
    };
    Ok(BoundListener {
        listener: Listener::Unix(listener),
        address: BoundAddress::Unix(file),
    })
}

#[cfg(not(unix))]
fn bind_unix(path: &std::path::Path, _sharing: PortSharing) -> Result<BoundListener> {
    anyhow::bail!(
        "cannot listen on unix:{}: this system has no UNIX domain sockets",
        path.display()
    )
}

/// File of a UNIX domain socket. Dropping it removes the file, unless another server has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    pub(crate) path: PathBuf,
    /// Device and inode of the file.
    #[cfg(unix)]
    id: (u64, u64),
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        use std::os::unix::fs::MetadataExt;
        let found = self.path.symlink_metadata();
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.id) {
            // The next start detects a stale file, and replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tcp(host: Host, port: u16) -> Result<ListenAddress, InvalidAddress> {
        Ok(ListenAddress::Tcp { host, port })
    }

    #[test]
    fn addresses_are_read_as_they_are_written_elsewhere() {
        let one = |address: &str| Host::One(address.parse().unwrap());
        let named = |name: &str| Host::Named(name.to_owned());
        for (text, expected) in [
            ("127.0.0.1:8080", tcp(one("127.0.0.1"), 8080)),
            ("[::1]:0", tcp(one("::1"), 0)),
            ("[::]:80", tcp(one("::"), 80)),
            ("localhost:8080", tcp(named("localhost"), 8080)),
            ("media-1.example:80", tcp(named("media-1.example"), 80)),
            (":8080", tcp(Host::Any, 8080)),
            ("*:8080", tcp(Host::Any, 8080)),
            ("8080", tcp(one("127.0.0.1"), 8080)),
            (
                "unix:/run/a b.sock",
                Ok(ListenAddress::Unix("/run/a b.sock".into())),
            ),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in [
            "",
            ":",
            "localhost",
            "a:",
            "::1:80",
            "[::1]",
            "[a]:80",
            "1.2.3:80",
            "a:65536",
            "a:-1",
            "a:+1",
            "a b:80",
            "http://a:80",
            "unix:",
            "a/b:80",
            "256.0.0.1:80",
        ] {
            assert_eq!(text.parse::<ListenAddress>(), Err(InvalidAddress), "{text}");
        }
    }

    #[test]
    fn an_address_is_shown_as_it_is_read() {
        for text in ["127.0.0.1:80", "[::1]:80", "localhost:80", ":80", "unix:/a"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }
}
