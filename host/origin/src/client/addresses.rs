//! Addresses that a client may connect to.

use hyper_util::client::legacy::connect::dns::Name;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;
use tower_service::Service;

/// Addresses that a client may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressScope {
    /// All.
    Any,
    /// Addresses of the public internet.
    Public,
}

/// Resolver of names, which returns allowed addresses only. It checks the address that is connected to, so that a name
/// cannot lead elsewhere between check and use.
#[derive(Debug, Clone, Copy)]
pub(super) struct OriginResolver(pub(super) AddressScope);

/// The error of a name whose addresses are all private.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a redirect leads to a private address")]
struct PrivateAddress;

impl Service<Name> for OriginResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let scope = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let is_allowed =
                |address: &SocketAddr| scope == AddressScope::Any || is_public(address.ip());
            let allowed: Vec<SocketAddr> = found.filter(is_allowed).collect();
            match allowed.is_empty() {
                true => Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    PrivateAddress,
                )),
                false => Ok(allowed.into_iter()),
            }
        })
    }
}

/// Whether an address is one of the public internet. Addresses of this machine, of private networks and of links are not,
/// and neither are those that embed one.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || a == 0
        // Networks of carriers, of protocols and of benchmarks, and the reserved ones (RFC 6890).
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18)
        || a >= 240;
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, ..] = address.segments();
    let embedded = |at: usize| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|byte| address.octets()[at + byte]);
        Ipv4Addr::new(a, b, c, d)
    };
    match (first, second, third) {
        // Mapped and compatible addresses, and those of NAT64.
        (0, 0, 0) => is_public_v4(embedded(12)) && address.to_ipv4().is_some(),
        (0x64, 0xff9b, 0) => is_public_v4(embedded(12)),
        (0x64, 0xff9b, _) => false,
        // 6to4 and Teredo.
        (0x2002, ..) => is_public_v4(embedded(2)),
        (0x2001, 0, _) => false,
        _ => {
            let is_unique_local = first & 0xfe00 == 0xfc00;
            let is_link_local = first & 0xffc0 == 0xfe80 || first & 0xffc0 == 0xfec0;
            !is_unique_local && !is_link_local && !address.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn private_addresses_are_not_public_in_any_form() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2001::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "8.8.8.8",
            "100.128.0.1",
            "172.32.0.1",
            "198.20.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_resolved_for_the_origin_alone() {
        let resolve = |scope| {
            let name = "localhost".parse::<Name>().unwrap();
            OriginResolver(scope).call(name)
        };
        assert!(resolve(AddressScope::Any).await.is_ok());
        let error = resolve(AddressScope::Public).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
