//! Client of a server's admin listener, for the commands that ask one.

use crate::listen::{Host, ListenAddress};
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Maximum time to connect and to read the response.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A response of the admin listener.
#[derive(Debug)]
pub(crate) struct AdminResponse {
    pub(crate) status: u16,
    pub(crate) content: String,
}

/// Sends one request to an admin listener, and returns the response. It has `max_bytes` at most.
///
/// # Errors
/// The server cannot be reached, or the response is not HTTP.
pub(crate) fn send(
    admin: &ListenAddress,
    method: &str,
    target: &str,
    token: Option<&str>,
    max_bytes: usize,
) -> Result<AdminResponse> {
    let mut failure = None;
    for address in addresses(admin)? {
        match response(address, method, target, token, max_bytes) {
            Ok(response) => return parse(&response),
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

/// Returns the bytes of the response.
fn response(
    address: SocketAddr,
    method: &str,
    target: &str,
    token: Option<&str>,
    max_bytes: usize,
) -> Result<Vec<u8>> {
    let end = Instant::now() + TIMEOUT;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).context("cannot connect")?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n"
    );
    if let Some(token) = token {
        head += &format!("Authorization: Bearer {token}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    let mut response = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while response.len() < max_bytes {
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

/// Reads the status and the content of a response.
fn parse(response: &[u8]) -> Result<AdminResponse> {
    let response = String::from_utf8_lossy(response);
    let (head, content) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let mut status_line = head.lines().next().unwrap_or_default().split(' ');
    let is_http = status_line
        .next()
        .is_some_and(|version| version.starts_with("HTTP/1."));
    let status = status_line.next().filter(|_| is_http);
    let status = status.and_then(|status| status.parse().ok());
    Ok(AdminResponse {
        status: status.context("the response is not HTTP")?,
        content: content.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_response_has_a_status() {
        let response = parse(b"HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nno\n").unwrap();
        assert_eq!((response.status, response.content.as_str()), (503, "no\n"));
        for other in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"\xff 200", b""] {
            assert!(
                parse(other)
                    .unwrap_err()
                    .to_string()
                    .contains("is not HTTP")
            );
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
