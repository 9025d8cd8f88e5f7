//! Memory that the kernel holds for a server's sockets: bytes that were written and that the client has not read yet. No
//! figure of the process shows it.

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};

/// Maximum number of messages of the kernel's response. One holds some hundred sockets.
const MAX_MESSAGES: usize = 10_000;

/// The kernel's memory for all TCP sockets (IPv4) with this local port. They are a server's connections, and those that it
/// has closed while the kernel still sends their last bytes.
pub(crate) fn socket_bytes(port: u16) -> Result<u64> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).context("the kernel tells of no sockets")?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(port), 0)?;
    let mut total = 0;
    for _ in 0..MAX_MESSAGES {
        let (piece, _) = socket.recv_from_full()?;
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    total += bytes_of(&response);
                }
                NetlinkPayload::Done(_) => return Ok(total),
                NetlinkPayload::Error(error) => bail!("the kernel tells of no sockets: {error}"),
                _ => {}
            }
            let length = message.header.length as usize;
            // A length of zero would go round for ever.
            rest = rest.get(length.max(1)..).unwrap_or_default();
        }
    }
    bail!("the kernel tells of sockets without end")
}

fn request(port: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family: AF_INET,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::SKMEMINFO,
        // Those that are closed, or only wait for late packets, hold nothing.
        states: StateFlags::all() - StateFlags::TIME_WAIT - StateFlags::CLOSE,
        socket_id: SocketId {
            source_port: port,
            ..SocketId::new_v4()
        },
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Bytes that are charged to a socket: both queues, memory reserved for them, options and backlog.
fn bytes_of(response: &InetResponse) -> u64 {
    let memory = response.nlas.iter().find_map(|nla| match nla {
        Nla::MemInfo(memory) => Some(memory),
        _ => None,
    });
    memory.map_or(0, |memory| {
        [
            memory.receive_queue,
            memory.send_queue,
            memory.cache,
            memory.options,
            memory.backlog_queue_length,
        ]
        .into_iter()
        .map(u64::from)
        .sum()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_nobody_reads_is_the_kernels() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let before = socket_bytes(address.port()).unwrap();
        server.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(count) = server.write(&[0; 64 * 1024]) {
            written += count;
            assert!(written < 1 << 30);
        }
        let held = socket_bytes(address.port()).unwrap() - before;
        // The client's own receive queue has the rest, and is not the server's.
        assert!(
            held > 64 * 1024 && held < 4 * written as u64,
            "{held} of {written}"
        );
        drop(client);
    }
}
