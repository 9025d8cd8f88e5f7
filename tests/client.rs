//! A client that sends what it is told to, and tells what came back: whole, cut short, or nothing.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: http::HeaderMap,
    /// The content that came.
    pub(crate) body: Vec<u8>,
    /// Whether all of it came that the head promised.
    pub(crate) whole: bool,
}

impl Response {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} stands twice");
        value
    }

    /// The message of a JSON error.
    pub(crate) fn error(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/json"));
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        json["error"].as_str().unwrap().to_owned()
    }
}

/// Sends one request on a connection of its own. The target goes out as it is.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> Response {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::builder()
        .method(method)
        .uri(target)
        .header("host", "millpond.test");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let (head, mut content) = response.into_parts();
    let mut body = Vec::new();
    let mut whole = true;
    while let Some(frame) = content.frame().await {
        match frame {
            Ok(frame) => body.extend_from_slice(frame.data_ref().unwrap()),
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    Response {
        status: head.status.as_u16(),
        fields: head.headers,
        body,
        whole,
    }
}

/// Sends bytes, and returns all that comes back until the host closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The host may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

/// Leaves for good, as a client does that has something unread, or whose process ends. One that closes its end only may
/// wait for the answer.
pub(crate) fn reset(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Sends a head that expects `100 Continue`, and a part of its content after that has come.
pub(crate) async fn begin_upload(address: SocketAddr, head: &str, content: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(content).await.unwrap();
    stream
}

/// The status of the first answer among bytes that came back.
pub(crate) fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    str::from_utf8(rest.get(2..5)?).ok()?.parse().ok()
}
