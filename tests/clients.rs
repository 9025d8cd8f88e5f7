//! Limits of one client: concurrent requests, requests over time, bytes a second.

use crate::client::Response;
use crate::host::{Host, Setup, noise, with};
use millpond::Outcome;
use millpond_server::{ClientLimits, ConnectionLimits, LimitRateTooLow, Rate};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

fn limited(clients: ClientLimits) -> Setup {
    Setup {
        connections: with(|limits: &mut ConnectionLimits| limits.clients = clients),
        ..Setup::default()
    }
}

/// Asks for more than a window holds, takes the first byte, and holds on to the rest.
async fn hold(stream: &mut TcpStream, fields: &str) {
    let head = format!("GET /media/big.bin HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
}

fn assert_refused(response: &Response) {
    assert_eq!(response.status, 429);
    assert_eq!(response.error(), "Too many requests");
    let seconds: u64 = response.field("retry-after").unwrap().parse().unwrap();
    assert!(seconds >= 1);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_has_so_many_requests_in_flight_and_others_have_their_own() {
    let host = Host::start_with(limited(with(|limits: &mut ClientLimits| {
        limits.concurrency = NonZeroU32::new(3)
    })))
    .await;
    host.write("big.bin", &vec![7; 16 << 20]);
    host.write("a.txt", b"a");
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        hold(&mut stream, "").await;
        held.push(stream);
    }
    assert_refused(&host.get("/media/a.txt").await);
    assert_eq!(host.registry().ended_requests(Outcome::Rejected), 1);
    // Without a trusted proxy, a client's word for itself is no way round.
    let told = [("x-forwarded-for", "192.0.2.1")];
    assert_refused(&host.request("GET", "/media/a.txt", &told).await);

    let mut other = connect_from("127.0.0.2:0", host.address).await;
    hold(&mut other, "").await;

    drop((held, other));
    host.registry().idle().await;
    // The last chunk may be released a moment after the rest.
    while host.get("/media/a.txt").await.status == 429 {}
}

#[cfg(target_os = "linux")]
async fn connect_from(local: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(local.parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own() {
    let host = Host::start_with(limited(with(|limits: &mut ClientLimits| {
        limits.concurrency = NonZeroU32::new(1);
        limits.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })))
    .await;
    host.write("big.bin", &vec![7; 16 << 20]);
    host.write("a.txt", b"a");
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    hold(&mut stream, "x-forwarded-for: 1.1.1.1, 192.0.2.1\r\n").await;
    for (client, status) in [
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
        ("192.0.2.2, 192.0.2.1", 429),
    ] {
        let told = [("x-forwarded-for", client)];
        let response = host.request("GET", "/media/a.txt", &told).await;
        assert_eq!(response.status, status, "{client}");
    }
    drop(stream);
    host.registry().idle().await;
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_again() {
    let host = Host::start_with(limited(with(|limits: &mut ClientLimits| {
        limits.rate = Some(Rate {
            per_second: NonZeroU32::MIN,
            burst: NonZeroU32::new(2).unwrap(),
        })
    })))
    .await;
    host.write("a.txt", b"a");
    // The connection stays open, so that a client that waits need not begin anew. However slow this machine is, it
    // is faster than a request a second.
    let mut requests = "GET /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n".repeat(50);
    requests += "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = crate::client::raw(host.address, requests.as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    let statuses: Vec<&str> = answer
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|head| &head[..3])
        .collect();
    assert_eq!(statuses.len(), 51);
    assert_eq!(statuses[..2], ["200", "200"]);
    assert!(statuses.contains(&"429"));
    let refused = host.registry().ended_requests(Outcome::Rejected);
    assert_eq!(refused, answer.matches("retry-after: ").count() as u64);
    host.registry().idle().await;
}

fn paced(bytes_per_second: u32) -> ClientLimits {
    let pace = NonZeroU32::new(bytes_per_second);
    with(|limits: &mut ClientLimits| limits.limit_rate_bytes_per_second = pace)
}

#[tokio::test]
async fn a_paced_answer_arrives_whole() {
    let host = Host::start_with(limited(paced(4 << 20))).await;
    let content = noise(2_000_001);
    host.write("a.bin", &content);
    let response = host.get("/media/a.bin").await;
    assert!(response.whole);
    assert!(response.body == content);
    let part = [("range", "bytes=1000-700000")];
    let response = host.request("GET", "/media/a.bin", &part).await;
    assert_eq!(response.status, 206);
    assert!(response.body == content[1000..=700_000]);
    host.registry().idle().await;
}

#[tokio::test]
async fn a_paced_answer_that_nobody_waits_for_gives_everything_back() {
    // A byte a second: the response waits for its second chunk when the client leaves.
    let host = Host::start_with(limited(paced(1))).await;
    host.write("a.bin", &noise(100));
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    let head = b"GET /media/a.bin HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(head).await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    drop(stream);
    host.registry().idle().await;
    assert_eq!(host.registry().ended_requests(Outcome::Aborted), 1);
}

#[test]
fn a_pace_below_what_clients_have_to_take_is_refused() {
    let limits = |pace| with(|limits: &mut ConnectionLimits| limits.clients = paced(pace));
    let too_low = LimitRateTooLow::Rate {
        limit_rate: 2047,
        minimum: 2048,
    };
    assert_eq!(limits(2047).check(), Err(too_low));
    assert_eq!(limits(2048).check(), Ok(()));
    assert_eq!(ConnectionLimits::default().check(), Ok(()));
}
