//! Clients that misbehave: malformed and enormous heads, slow ones, ones that are gone.

use crate::client::{raw, status};
use crate::host::{Host, Setup, stop_time, while_time_passes, with};
use crate::server::{Server, exchange};
use millpond::Outcome;
use millpond_server::ConnectionLimits;
use std::io::{Read, Write};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;

#[tokio::test]
async fn heads_that_are_too_large_get_their_status() {
    let host = Host::start().await;
    host.write("a.txt", b"a");
    let target = |bytes: usize| format!("/media/{}", "a".repeat(bytes));
    assert_eq!(host.get(&target(4000)).await.status, 404);
    for bytes in [8200, 30_000] {
        let response = host.get(&target(bytes)).await;
        assert_eq!(
            (response.status, response.error()),
            (414, "Target too long".into())
        );
    }
    for (count, size) in [(1, 17_000), (40, 500), (101, 1)] {
        let mut head = "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n".to_owned();
        for field in 0..count {
            head += &format!("x-{field}: {}\r\n", "a".repeat(size));
        }
        let answer = raw(host.address, (head + "\r\n").as_bytes()).await;
        assert_eq!(status(&answer), Some(431), "{count} fields of {size} bytes");
    }
    let endless = format!("GET /media/a.txt HTTP/1.1\r\nx: {}", "a".repeat(1 << 20));
    assert_eq!(
        status(&raw(host.address, endless.as_bytes()).await),
        Some(431)
    );
    let ranges = format!("bytes={}", vec!["0-0"; 3000].join(","));
    let response = host
        .request("GET", "/media/a.txt", &[("range", &ranges)])
        .await;
    assert_eq!(response.status, 416);
    host.registry().idle().await;
    assert_eq!(host.get("/media/a.txt").await.status, 200);
}

#[tokio::test]
async fn garbage_is_refused_and_the_host_goes_on() {
    let host = Host::start().await;
    host.write("a.txt", b"a");
    let mut garbage: Vec<Vec<u8>> = [
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /media/\0 HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /media/a.txt HTTP/1.1\r\nhost : a\r\n\r\n",
        "GET /media/a.txt HTTP/1.1\r\nx: a\0b\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    garbage.push(crate::host::noise(10_000));
    garbage.push(b"GET /media/\xff\xfe HTTP/1.1\r\nhost: a\r\nconnection: close".to_vec());
    for bytes in garbage {
        let mut bytes = bytes;
        bytes.extend_from_slice(b"\r\n\r\n");
        let answer = raw(host.address, &bytes).await;
        let status = status(&answer);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert!(
            status.is_none_or(|status| (400..500).contains(&status)),
            "{shown:?}: {status:?}"
        );
    }
    // A good request, then garbage, on one connection: the first is answered.
    let pipelined = b"GET /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n\0\x01garbage\r\n\r\n";
    let answer = raw(host.address, pipelined).await;
    assert_eq!(status(&answer), Some(200));
    host.registry().idle().await;
    assert_eq!(host.get("/media/a.txt").await.status, 200);
}

/// Once, there was no line about them.
#[test]
fn what_the_parser_refuses_is_logged_and_counted_as_what_the_host_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--admin", "127.0.0.1:0"]);
    let ask = |request: &str| {
        let mut stream = std::net::TcpStream::connect(&server.address).unwrap();
        // It may be answered and closed before it has been sent.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        status(&answer)
    };
    let large = format!("GET /large HTTP/1.1\r\nx: {}", "a".repeat(40_000));
    for (request, told) in [
        (
            "GET /version HTTP/9.9\r\n\r\n",
            "method=GET target=/version status=400",
        ),
        (
            "BREW /field HTTP/1.1\r\nx y: z\r\n\r\n",
            "method=BREW target=/field status=400",
        ),
        ("\u{1} \u{1}\r\n\r\n", "method=- target=- status=400"),
        (&large, "method=GET target=/large status=431"),
        (
            "GET /host HTTP/1.1\r\n\r\n",
            "method=GET target=/host status=400",
        ),
    ] {
        let expected = told.split_once("status=").unwrap().1;
        assert_eq!(ask(request), Some(expected.parse().unwrap()), "{told}");
        let line = server.wait_for_log(told);
        assert!(
            line.contains("outcome=rejected") && line.contains("reason="),
            "{line}"
        );
    }
    let metrics = String::from_utf8(exchange(&server.admin, "/metrics")).unwrap();
    for line in [
        r#"millpond_requests_total{outcome="rejected",method="GET",code="4xx"} 3"#,
        r#"millpond_requests_total{outcome="rejected",method="other",code="4xx"} 2"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests_in_order() {
    let host = Host::start().await;
    host.write("a.txt", b"first");
    host.write("b.txt", b"second");
    let requests = b"GET /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n\
        GET /media/none HTTP/1.1\r\nhost: a\r\n\r\n\
        HEAD /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n\
        GET /media/b.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = String::from_utf8(raw(host.address, requests).await).unwrap();
    let statuses: Vec<_> = answer.matches("HTTP/1.1 ").collect();
    assert_eq!(statuses.len(), 4);
    let (first, second) = (
        answer.find("first").unwrap(),
        answer.find("second").unwrap(),
    );
    assert!(first < answer.find("404").unwrap() && first < second);
}

#[tokio::test]
async fn methods_that_are_none_of_media_are_refused() {
    let host = Host::start().await;
    host.write("a.txt", b"a");
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
        let response = host.request(method, "/media/a.txt", &[]).await;
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.field("allow"), Some("GET, HEAD, OPTIONS"));
    }
    let options = host.request("OPTIONS", "/media/a.txt", &[]).await;
    assert_eq!(options.status, 204);
    assert_eq!(options.field("allow"), Some("GET, HEAD, OPTIONS"));
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut() {
    let host = Host::start().await;
    stop_time();
    for head in ["", "GET /media/a.txt HTTP/1.1\r\nhost:"] {
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = while_time_passes(stream.read_to_end(&mut answer)).await;
        assert_eq!(answer, b"");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let host = Host::start().await;
    stop_time();
    host.write("a.txt", b"a");
    let request = b"GET /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\na") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
    }
    let more = while_time_passes(stream.read_buf(&mut answer)).await;
    assert_eq!(more.unwrap(), 0);
}

/// Also when it has closed its end, as those do that are gone, and those that only wait for the answer.
#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_and_its_file_closed() {
    let host = Host::start().await;
    stop_time();
    host.write("big.bin", &vec![7; 64 << 20]);
    for (number, closes_its_end) in [(1, false), (2, true)] {
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        stream
            .write_all(b"GET /media/big.bin HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        if closes_its_end {
            stream.shutdown().await.unwrap();
        }
        // Once nothing more goes, nothing is taken.
        while host.registry().in_use().bodies() == 0 {
            yield_now().await;
        }
        while_time_passes(host.registry().idle()).await;
        assert_eq!(host.registry().ended_requests(Outcome::Aborted), number);
        drop(stream);
    }
}

#[tokio::test]
async fn stopping_lets_a_running_answer_end() {
    let host = Host::start_with(Setup {
        connections: with(|limits: &mut ConnectionLimits| {
            limits.shutdown_grace = Duration::from_secs(3600);
        }),
        ..Setup::default()
    })
    .await;
    let content = vec![7; 32 << 20];
    host.write("big.bin", &content);
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    stream
        .write_all(b"GET /media/big.bin HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = vec![0; 1000];
    stream.read_exact(&mut answer).await.unwrap();
    let address = host.address;
    let reader = tokio::spawn(async move {
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    });
    host.stop().await;
    let answer = reader.await.unwrap();
    assert!(answer.ends_with(&content));
    assert!(TcpStream::connect(address).await.is_err());
}
