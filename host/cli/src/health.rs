//! `millpond health`.

use crate::listen::{Host, ListenAddress};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Maximum time to connect and to read the response.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum bytes of the response that are read. A reason is one line.
const RESPONSE_BYTES: usize = 4096;

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Address of the server's admin listener, as in its option --admin.
    #[arg(
        value_name = "ADDR",
        default_value = "127.0.0.1:8079",
        env = "MILLPOND_ADMIN"
    )]
    admin: ListenAddress,
}

impl Health {
    /// Prints `ready`, or the reason why the server is not.
    ///
    /// The exit code is never 2: a health check of Docker must not use it.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match readiness(&self.admin) {
            Ok(()) => {
                writeln!(io::stdout(), "ready")?;
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => {
                writeln!(io::stderr(), "millpond: {}: {error:#}", self.admin)?;
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

/// Requests `/readyz`.
///
/// # Errors
/// The server cannot be reached, is not ready, or is another one.
fn readiness(admin: &ListenAddress) -> Result<()> {
    let mut failure = None;
    for address in addresses(admin)? {
        match response(address) {
            Ok(response) => return judge(&response),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.context("the name has no address")?)
}

/// Returns the addresses to try. A server that listens on all addresses listens on the loopback addresses too.
fn addresses(admin: &ListenAddress) -> Result<Vec<SocketAddr>> {
    let ListenAddress::Tcp { host, port } = admin else {
        bail!("a TCP port is needed, as in 127.0.0.1:8079");
    };
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let at = |address: &IpAddr| SocketAddr::new(*address, *port);
    match host {
        Host::Any => Ok(loopback.iter().map(at).collect()),
        Host::One(address) if address.is_unspecified() => Ok(loopback.iter().map(at).collect()),
        Host::One(address) => Ok(vec![at(address)]),
        Host::Named(name) => Ok((name.as_str(), *port).to_socket_addrs()?.collect()),
    }
}

/// Returns the first bytes of the response.
fn response(address: SocketAddr) -> Result<Vec<u8>> {
    let end = Instant::now() + TIMEOUT;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context("cannot connect")?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut response = Vec::new();
    let mut chunk = [0; 1024];
    while response.len() < RESPONSE_BYTES {
        let rest = end.saturating_duration_since(Instant::now());
        ensure!(!rest.is_zero(), "no response within {TIMEOUT:?}");
        stream.set_read_timeout(Some(rest))?;
        match stream.read(&mut chunk).context("no response")? {
            0 => break,
            read => response.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(response)
}

/// Reads a response: the status, and the first line of the content as the reason.
fn judge(response: &[u8]) -> Result<()> {
    let response = String::from_utf8_lossy(response);
    let (head, content) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let mut status_line = head.lines().next().unwrap_or_default().split(' ');
    let is_http = status_line
        .next()
        .is_some_and(|version| version.starts_with("HTTP/1."));
    let status = status_line.next().filter(|_| is_http);
    let status = status.context("the response is not HTTP")?;
    let reason = content.lines().next().unwrap_or_default().escape_debug();
    match status {
        "200" => Ok(()),
        "503" => bail!("not ready: {reason}"),
        _ => bail!("status {status}: this is not millpond's admin listener"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_response_is_ready_or_says_why_not() {
        assert!(judge(b"HTTP/1.1 200 OK\r\n\r\nready\n").is_ok());
        for (response, reason) in [
            (
                &b"HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nshutting down\n"[..],
                "not ready: shutting down",
            ),
            (b"HTTP/1.1 503 x\r\n\r\n\x1b[2J\n", "not ready: \\u{1b}[2J"),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "is not HTTP"),
            (b"\xff 200", "is not HTTP"),
            (b"", "is not HTTP"),
        ] {
            let error = judge(response).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_server_on_all_addresses_is_asked_on_this_machine() {
        for text in [":80", "0.0.0.0:80", "[::]:80"] {
            let addresses = addresses(&text.parse().unwrap()).unwrap();
            assert!(addresses.iter().all(|address| address.ip().is_loopback()));
            assert_eq!(addresses.len(), 2);
        }
        assert!(addresses(&"unix:/a".parse().unwrap()).is_err());
    }
}
