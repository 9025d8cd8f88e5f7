//! Clients that close their own end when they have sent their last request, and read on (RFC 9112 section 9.6): `nc -N`,
//! scripts, some proxies. Once, most of them got nothing.

use crate::client::status;
use crate::host::{Host, Setup, noise};
use crate::server::Server;
use crate::tls::Identity;
use std::io::{Read, Write};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes, closes this end, and returns all that comes back until the host closes.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, requests: &str) -> Vec<u8> {
    stream.write_all(requests.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

/// Those that are small enough are answered at once when they are asked for again, and larger ones in other ways.
const LENGTHS: [usize; 5] = [0, 100, 12_000, 500_000, 20_000_000];

fn requests() -> Vec<(String, usize)> {
    let heads = ["HTTP/1.0\r\n", "HTTP/1.1\r\nhost: a\r\n"];
    let all = LENGTHS.iter().flat_map(|length| {
        heads.map(|head| (format!("GET /media/{length}.gif {head}\r\n"), *length))
    });
    all.collect()
}

async fn host(identity: Option<&Identity>) -> Host {
    let host = Host::start_with(Setup {
        certificate: identity.map(Identity::certificate),
        ..Setup::default()
    })
    .await;
    for length in LENGTHS {
        host.write(&format!("{length}.gif"), &noise(length));
    }
    host
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_closed_its_end_gets_the_whole_answer() {
    let host = host(None).await;
    for _ in 0..4 {
        for (request, length) in requests() {
            let stream = TcpStream::connect(host.address).await.unwrap();
            let answer = ask(stream, &request).await;
            assert_eq!(status(&answer), Some(200), "{request}");
            assert!(answer.ends_with(&noise(length)), "{request}");
        }
    }
    host.registry().idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_asked_for_before_the_end_is_answered() {
    let host = host(None).await;
    let head = |length: &usize| format!("GET /media/{length}.gif HTTP/1.1\r\nhost: a\r\n\r\n");
    // Also the largest first, so that the end has come long before the last is looked at.
    for lengths in [LENGTHS.to_vec(), LENGTHS.iter().copied().rev().collect()] {
        let stream = TcpStream::connect(host.address).await.unwrap();
        let requests: String = lengths.iter().map(head).collect();
        let answers = ask(stream, &requests).await;
        let mut rest = &answers[..];
        for length in lengths {
            assert_eq!(status(rest), Some(200), "{length}");
            let end = rest.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            assert!(rest[end..][..length] == noise(length), "{length}");
            rest = &rest[end + length..];
        }
        assert!(rest.is_empty());
    }
    host.registry().idle().await;
}

#[test]
fn the_admin_listener_answers_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--admin", "127.0.0.1:0"]);
    for _ in 0..20 {
        let mut stream = std::net::TcpStream::connect(&server.admin).unwrap();
        let head = b"GET /metrics HTTP/1.0\r\naccept: application/openmetrics-text\r\n\r\n";
        stream.write_all(head).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(status(&answer), Some(200));
        assert!(answer.ends_with(b"# EOF\n"));
    }
}

/// RFC 8446 section 6.1: a close_notify closes one way only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_in_tls() {
    let identity = Identity::new();
    let host = host(Some(&identity)).await;
    for (request, length) in requests() {
        let stream = identity.connect(host.address, &[b"http/1.1"]).await;
        let answer = ask(stream.unwrap(), &request).await;
        assert_eq!(status(&answer), Some(200), "{request}");
        assert!(answer.ends_with(&noise(length)), "{request}");
    }
    host.registry().idle().await;
}
