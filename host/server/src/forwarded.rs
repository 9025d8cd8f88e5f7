//! The address of a request's client, also behind proxies.
//!
//! Only trusted proxies are believed, hop by hop from the nearest on. The client is the first address on that path that
//! is no trusted proxy. The client may have forged all addresses further left.

use http::header::{self, HeaderMap, HeaderName};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr};

/// The key that identifies a client in limits: its IPv4 address, or the first 64 bits of its IPv6 address. A subscriber
/// gets at least 64 bits (RFC 6177 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClientAddress(IpAddr);

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        const SUBSCRIBER: u128 = !(u64::MAX as u128);
        ClientAddress(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & SUBSCRIBER).into(),
            ipv4 @ IpAddr::V4(_) => ipv4,
        })
    }
}

/// Returns the address of the client behind a peer.
///
/// A proxy usually writes one of `Forwarded` and `X-Forwarded-For`, and passes on the client's value of the other. If
/// both are present, they have to agree. Otherwise the request counts as the proxy's.
pub(crate) fn client(peer: IpAddr, fields: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| is_trusted(address, trusted);
    if !is_trusted(peer) {
        return peer;
    }
    let forwarded = followed(fields, header::FORWARDED, forwarded_hops, is_trusted);
    let forwarded_for = followed(fields, X_FORWARDED_FOR, forwarded_for_hops, is_trusted);
    let client = match (forwarded, forwarded_for) {
        (Some(one), Some(other)) if one != other => None,
        (one, other) => one.or(other).flatten(),
    };
    client.unwrap_or(peer)
}

/// Whether an address is one of a trusted proxy.
pub(crate) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// An address on the path, or `None` if the proxy hides it.
type Hop = Option<IpAddr>;

/// The field is malformed, so no part of it is believed.
#[derive(Debug)]
struct Unreadable;

/// Follows the hops of a field to the client's address. Returns `None` if the field is absent, and `Some(None)` if it
/// yields no address.
fn followed<'a, Hops: Iterator<Item = Result<Hop, Unreadable>>>(
    fields: &'a HeaderMap,
    name: HeaderName,
    hops: impl Fn(&'a str) -> Hops,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<Hop> {
    let mut client = None;
    let mut is_there = false;
    for line in fields.get_all(name) {
        is_there = true;
        let Ok(line) = line.to_str() else {
            return Some(None);
        };
        for hop in hops(line) {
            match hop {
                Err(Unreadable) => return Some(None),
                // An unknown hop hides its client, so the next hop counts as the client.
                Ok(None) => client = None,
                Ok(Some(address)) => {
                    let address = address.to_canonical();
                    if client.is_none() || !is_trusted(address) {
                        client = Some(address);
                    }
                }
            }
        }
    }
    is_there.then_some(client)
}

/// Parses the hops of an `X-Forwarded-For` line, the client's end first.
fn forwarded_for_hops(line: &str) -> impl Iterator<Item = Result<Hop, Unreadable>> {
    let nodes = line.split(',').map(str::trim);
    nodes
        .filter(|node| !node.is_empty())
        .map(|text| Ok(node(text)))
}

/// Parses the hops of a `Forwarded` line (RFC 7239 section 4), the client's end first.
fn forwarded_hops(line: &str) -> impl Iterator<Item = Result<Hop, Unreadable>> {
    let elements = split_unquoted(line, ',').map(str::trim);
    elements
        .filter(|element| !element.is_empty())
        .map(|element| {
            let mut hop = None;
            for pair in split_unquoted(element, ';') {
                let (name, value) = pair.trim().split_once('=').ok_or(Unreadable)?;
                let value = unquoted(value)?;
                if name.eq_ignore_ascii_case("for") && hop.replace(node(value)).is_some() {
                    return Err(Unreadable);
                }
            }
            Ok(hop.flatten())
        })
}

fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    text.split(move |c| {
        if std::mem::take(&mut is_escaped) {
            return false;
        }
        match c {
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        c == separator && !is_quoted
    })
}

/// Parses a token, or a quoted string. Escapes are refused, since no address needs them.
fn unquoted(value: &str) -> Result<&str, Unreadable> {
    let inside = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').ok_or(Unreadable)?,
        None => value,
    };
    let is_plain = !inside.contains(['"', '\\']);
    is_plain.then_some(inside).ok_or(Unreadable)
}

/// Parses an address with or without a port (RFC 7239 section 6). Returns `None` for `unknown` and for obfuscated
/// names.
fn node(text: &str) -> Hop {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let is_port = port.is_empty() || port.starts_with(':');
        return is_port.then(|| address.parse::<Ipv6Addr>().ok().map(IpAddr::V6))?;
    }
    let alone = text.parse();
    let with_port = || text.split_once(':')?.0.parse().ok();
    alone.ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;

    fn client(peer: &str, lines: &[(&str, &str)]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            fields.append(name, HeaderValue::from_str(value).unwrap());
        }
        let client = ClientAddress::from(super::client(peer.parse().unwrap(), &fields, &trusted));
        client.0.to_string()
    }

    #[test]
    fn a_client_is_the_nearest_address_that_is_no_trusted_proxy() {
        for (peer, lines, expected) in [
            // No proxy.
            ("192.0.2.1", &[][..], "192.0.2.1"),
            ("::ffff:192.0.2.1", &[], "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", &[], "2001:db8:1:2::"),
            // A field that the client sets itself.
            (
                "192.0.2.1",
                &[("x-forwarded-for", "192.0.2.9")],
                "192.0.2.1",
            ),
            ("192.0.2.1", &[("forwarded", "for=192.0.2.9")], "192.0.2.1"),
            // One proxy.
            ("10.0.0.1", &[("x-forwarded-for", "192.0.2.9")], "192.0.2.9"),
            (
                "::ffff:10.0.0.1",
                &[("x-forwarded-for", "192.0.2.9")],
                "192.0.2.9",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "192.0.2.9:1234")],
                "192.0.2.9",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "2001:db8:1:2:3::9")],
                "2001:db8:1:2::",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "[2001:db8::9]:80")],
                "2001:db8::",
            ),
            ("10.0.0.1", &[("forwarded", "for=192.0.2.9")], "192.0.2.9"),
            (
                "10.0.0.1",
                &[("forwarded", "For=\"192.0.2.9:80\";proto=https")],
                "192.0.2.9",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "by=_a;for=\"[2001:db8::9]:80\"")],
                "2001:db8::",
            ),
            // The client's own values are further left.
            (
                "10.0.0.1",
                &[("x-forwarded-for", "1.1.1.1, 192.0.2.9")],
                "192.0.2.9",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "x, , ,192.0.2.9")],
                "192.0.2.9",
            ),
            (
                "10.0.0.1",
                &[
                    ("x-forwarded-for", "1.1.1.1"),
                    ("x-forwarded-for", "192.0.2.9"),
                ],
                "192.0.2.9",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1, for=192.0.2.9")],
                "192.0.2.9",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=\"a,for=1.1.1.1\", for=192.0.2.9")],
                "192.0.2.9",
            ),
            // Several proxies.
            (
                "10.0.0.1",
                &[("x-forwarded-for", "1.1.1.1, 192.0.2.9, fd00::2, 10.0.0.2")],
                "192.0.2.9",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")],
                "10.0.0.3",
            ),
            // A hop is unknown, so the next proxy counts as the client.
            (
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1, for=unknown, for=10.0.0.2")],
                "10.0.0.2",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1, for=_hidden")],
                "10.0.0.1",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1, proto=https")],
                "10.0.0.1",
            ),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "1.1.1.1, what?")],
                "10.0.0.1",
            ),
            // An unclosed quote does not hide the proxy's part.
            (
                "10.0.0.1",
                &[("forwarded", "for=\"1.1.1.1, for=192.0.2.9")],
                "10.0.0.1",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=\"1.1.1.1, for=\"[2001:db8::9]\"")],
                "10.0.0.1",
            ),
            (
                "10.0.0.1",
                &[("forwarded", "for=1.1.1.1;for=192.0.2.9")],
                "10.0.0.1",
            ),
            ("10.0.0.1", &[("forwarded", "nonsense")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "")], "10.0.0.1"),
            // Both fields are present, and the client may have set one of them.
            (
                "10.0.0.1",
                &[
                    ("forwarded", "for=1.1.1.1"),
                    ("x-forwarded-for", "192.0.2.9"),
                ],
                "10.0.0.1",
            ),
            (
                "10.0.0.1",
                &[
                    ("forwarded", "for=192.0.2.9"),
                    ("x-forwarded-for", "192.0.2.9"),
                ],
                "192.0.2.9",
            ),
        ] {
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
    }
}
