//! A client that sends frames of HTTP/2 (RFC 9113) as it is told to, and reads what comes back.

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The types of frames that the tests know.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Frame {
            kind,
            flags,
            stream,
            payload: payload.to_vec(),
        }
    }

    pub(crate) fn settings(settings: &[(u16, u32)]) -> Self {
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        Frame::new(kind::SETTINGS, 0, 0, &payload)
    }

    /// A whole request for that path.
    pub(crate) fn get(stream: u32, path: &str) -> Self {
        let flags = END_STREAM | END_HEADERS;
        Frame::new(kind::HEADERS, flags, stream, &fields(path, &[]))
    }

    pub(crate) fn reset(stream: u32) -> Self {
        const CANCEL: u32 = 8;
        Frame::new(kind::RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
    }

    pub(crate) fn window_update(stream: u32, bytes: u32) -> Self {
        Frame::new(kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// The field section of a request (RFC 7541), nothing of which goes into a table.
pub(crate) fn fields(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    const GET: u8 = 0x82;
    const HTTP: u8 = 0x86;
    const AUTHORITY: u8 = 1;
    const PATH: u8 = 4;
    let mut section = vec![GET, HTTP, AUTHORITY];
    text("millpond.test", &mut section);
    section.push(PATH);
    text(path, &mut section);
    for (name, value) in fields {
        section.push(0);
        text(name, &mut section);
        text(value, &mut section);
    }
    section
}

fn text(text: &str, section: &mut Vec<u8>) {
    // An integer with a prefix of seven bits (RFC 7541 section 5.1).
    match text.len() {
        short @ ..127 => section.push(short as u8),
        long => {
            section.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                section.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            section.push(rest as u8);
        }
    }
    section.extend_from_slice(text.as_bytes());
}

/// A connection of HTTP/2.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    /// Connects, and says what its settings are.
    pub(crate) async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let first = [PREFACE, &Frame::settings(settings).bytes()].concat();
        stream.write_all(&first).await.unwrap();
        Client { stream }
    }

    /// Sends frames in one write; false when the host has closed.
    pub(crate) async fn send(&mut self, frames: &[Frame]) -> bool {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        self.stream.write_all(&bytes).await.is_ok()
    }

    /// The next frame; none when the host has closed. Settings are acknowledged on the way.
    pub(crate) async fn read(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.ok()?;
            let frame = Frame {
                kind,
                flags,
                stream: u32::from_be_bytes(stream),
                payload,
            };
            if (frame.kind, frame.flags) != (kind::SETTINGS, 0) {
                return Some(frame);
            }
            self.send(&[Frame::new(kind::SETTINGS, ACK, 0, &[])]).await;
        }
    }

    /// The next frame for which that holds; none when the host closes before.
    pub(crate) async fn read_until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }
}
