//! HTTP/2 as it is not meant: floods, windows that never open, resets without end; and one stalled stream of several.

use crate::frames::{self, Client, END_HEADERS, END_STREAM, Frame, fields, kind};
use crate::host::{Host, let_pass, noise, stop_time, while_time_passes};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use millpond::Outcome;
use millpond_server::ConnectionLimits;
use std::fs;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
const INITIAL_WINDOW: u16 = 4;

/// The error that a GOAWAY names.
fn error(frame: &Frame) -> u32 {
    u32::from_be_bytes(frame.payload[4..8].try_into().unwrap())
}

/// The whole content that comes on a stream, and whether it came to its end.
async fn content(client: &mut Client, stream: u32) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    while let Some(frame) = client.read().await {
        if frame.stream != stream {
            continue;
        }
        if frame.kind == kind::DATA {
            content.extend_from_slice(&frame.payload);
        }
        if [kind::DATA, kind::HEADERS].contains(&frame.kind) && frame.flags & END_STREAM != 0 {
            return (content, true);
        }
        if frame.kind == kind::RST_STREAM {
            break;
        }
    }
    (content, false)
}

#[tokio::test]
async fn streams_share_a_connection() {
    let host = Host::start().await;
    host.write("small.txt", b"hello");
    let large = noise(300_000);
    host.write("large.bin", &large);
    let mut client = Client::connect(host.address, &[(INITIAL_WINDOW, 1 << 30)]).await;
    let window = Frame::window_update(0, 1 << 30);
    client
        .send(&[window, Frame::get(1, "/media/large.bin")])
        .await;
    assert_eq!(content(&mut client, 1).await, (large, true));
    for stream in (3..50).step_by(2) {
        client.send(&[Frame::get(stream, "/media/small.txt")]).await;
        assert_eq!(
            content(&mut client, stream).await,
            (b"hello".to_vec(), true)
        );
    }
    drop(client);
    host.registry().idle().await;
    assert_eq!(host.registry().ended_requests(Outcome::Completed), 25);
}

/// Once, 30 of 453 such responses counted as aborted: the connection ended before its responses saw that they were sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_after_a_whole_response_has_aborted_nothing() {
    let host = Host::start().await;
    host.write("small.txt", b"hello");
    host.write("large.bin", &noise(60_000));
    let requests = 300;
    for _ in 0..requests / 2 {
        for (target, length) in [("/media/small.txt", 5), ("/media/large.bin", 60_000)] {
            let mut client = Client::connect(host.address, &[]).await;
            client.send(&[Frame::get(1, target)]).await;
            let (content, is_whole) = content(&mut client, 1).await;
            assert_eq!((content.len(), is_whole), (length, true));
        }
    }
    host.registry().idle().await;
    let completed = host.registry().ended_requests(Outcome::Completed);
    assert_eq!(completed, requests);
}

#[tokio::test]
async fn a_stalled_stream_ends_and_leaves_the_others_alone() {
    let host = Host::start().await;
    stop_time();
    // More than a connection has to take.
    let large = noise(300_000);
    host.write("large.bin", &large);
    let mut client = Client::connect(host.address, &[(INITIAL_WINDOW, 0)]).await;
    client
        .send(&[
            Frame::window_update(0, 1 << 30),
            Frame::get(1, "/media/large.bin"),
        ])
        .await;
    let head = client.read_until(|frame| frame.kind == kind::HEADERS).await;
    assert_eq!(head.unwrap().stream, 1);
    for stream in [3, 5] {
        let window = Frame::window_update(stream, 1 << 20);
        client
            .send(&[Frame::get(stream, "/media/large.bin"), window])
            .await;
        let whole = (large.clone(), true);
        assert!(content(&mut client, stream).await == whole, "{stream}");
        if stream == 3 {
            let_pass(ConnectionLimits::default().send_timeout).await;
            let reset = client.read_until(|frame| frame.kind != kind::WINDOW_UPDATE);
            let reset = reset.await.expect("the connection stays");
            assert_eq!((reset.kind, reset.stream), (kind::RST_STREAM, 1));
        }
    }
    assert_eq!(host.registry().ended_requests(Outcome::Aborted), 1);
}

#[tokio::test]
async fn a_connection_of_stalled_streams_is_closed() {
    let host = Host::start().await;
    stop_time();
    host.write("large.bin", &noise(100_000));
    let mut client = Client::connect(host.address, &[(INITIAL_WINDOW, 0)]).await;
    for number in 0..32 {
        client
            .send(&[Frame::get(2 * number + 1, "/media/large.bin")])
            .await;
        let head = client.read_until(|frame| frame.kind == kind::HEADERS).await;
        head.unwrap();
    }
    let_pass(ConnectionLimits::default().send_timeout).await;
    // Not one of them is reset first.
    let reset = client
        .read_until(|frame| frame.kind == kind::RST_STREAM)
        .await;
    assert!(reset.is_none(), "{reset:?}");
    host.registry().idle().await;
    assert_eq!(host.registry().ended_requests(Outcome::Aborted), 32);
}

/// A body that waits for a window must not refer to the file's pages, which may be gone by then.
#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_ends_its_stream_only() {
    let host = Host::start().await;
    host.write("large.bin", &noise(1_000_000));
    host.write("small.txt", b"hello");
    let mut client = Client::connect(host.address, &[(INITIAL_WINDOW, 0)]).await;
    client.send(&[Frame::get(1, "/media/large.bin")]).await;
    let head = client.read_until(|frame| frame.kind == kind::HEADERS).await;
    head.unwrap();
    let path = host.folder.path().join("large.bin");
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(1000).unwrap();
    let windows = [0, 1].map(|stream| Frame::window_update(stream, 1 << 30));
    client.send(&windows).await;
    let (received, is_whole) = content(&mut client, 1).await;
    assert!(!is_whole && received.len() < 1_000_000);
    let request = [
        Frame::get(3, "/media/small.txt"),
        Frame::window_update(3, 1 << 20),
    ];
    client.send(&request).await;
    assert_eq!(content(&mut client, 3).await, (b"hello".to_vec(), true));
    assert_eq!(host.registry().ended_requests(Outcome::Failed), 1);
}

#[tokio::test]
async fn nothing_behind_a_preface_is_taken_for_a_request_of_http_1_1() {
    let host = Host::start().await;
    host.write("a.txt", b"hello");
    let good = b"GET /media/a.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = crate::client::raw(host.address, &[frames::PREFACE, good].concat()).await;
    assert_eq!(answer[3], kind::SETTINGS);
    assert!(
        !answer
            .windows(5)
            .any(|bytes| bytes == b"hello" || bytes == b"HTTP/")
    );
    assert_eq!(host.registry().ended_requests(Outcome::Completed), 0);
}

#[tokio::test]
async fn an_idle_connection_is_told_before_it_is_closed() {
    let host = Host::start().await;
    stop_time();
    let mut client = Client::connect(host.address, &[]).await;
    client.send(&[Frame::get(1, "/media/none")]).await;
    assert!(content(&mut client, 1).await.1);
    let goaway = while_time_passes(client.read_until(|frame| frame.kind == kind::GOAWAY)).await;
    assert_eq!(error(&goaway.unwrap()), 0);
    while while_time_passes(client.read()).await.is_some() {}
}

#[tokio::test]
async fn one_stream_too_many_is_refused_and_the_others_go_on() {
    let host = Host::start().await;
    host.write("large.bin", &noise(100_000));
    let mut client = Client::connect(host.address, &[(INITIAL_WINDOW, 0)]).await;
    // The limit is known before it counts.
    client
        .read_until(|frame| frame.kind == kind::SETTINGS)
        .await;
    let requests: Vec<_> = (0..33)
        .map(|number| Frame::get(2 * number + 1, "/media/large.bin"))
        .collect();
    client.send(&requests).await;
    const REFUSED_STREAM: [u8; 4] = 7_u32.to_be_bytes();
    let reset = client
        .read_until(|frame| frame.kind == kind::RST_STREAM)
        .await;
    let reset = reset.unwrap();
    assert_eq!(
        (reset.stream, &reset.payload[..]),
        (65, &REFUSED_STREAM[..])
    );
    client
        .send(&[
            Frame::window_update(1, 1 << 20),
            Frame::window_update(0, 1 << 20),
        ])
        .await;
    assert!(content(&mut client, 1).await.1);
}

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_without_end_end_the_connection() {
    let host = Host::start().await;
    host.write("large.bin", &noise(1_000_000));
    let mut client = Client::connect(host.address, &[(INITIAL_WINDOW, 0)]).await;
    let mut stream = 1;
    // Some of them are answered already when they are reset, which is every client's right.
    let mut sent = 0;
    loop {
        let mut frames = Vec::new();
        for _ in 0..100 {
            frames.extend([Frame::get(stream, "/media/large.bin"), Frame::reset(stream)]);
            stream += 2;
        }
        sent += 100;
        if !client.send(&frames).await {
            break;
        }
        assert!(sent < 1_000_000, "the flood is taken");
    }
    host.registry().idle().await;
    assert_eq!(host.get("/media/large.bin").await.status, 200);
}

/// CVE-2024-27316.
#[tokio::test]
async fn a_field_section_without_end_ends_the_connection() {
    let host = Host::start().await;
    host.write("a.txt", b"hello");
    let begin = fields("/media/a.txt", &[]);
    let more = fields("/", &[("x", &"a".repeat(100))]).split_off(begin.len() - 11);
    for payload in [&[][..], &more, &[0, 127, 255, 255, 255, 1, 97]] {
        let mut client = Client::connect(host.address, &[]).await;
        client
            .send(&[Frame::new(kind::HEADERS, END_STREAM, 1, &begin)])
            .await;
        let mut sent = 0;
        while client
            .send(&[Frame::new(kind::CONTINUATION, 0, 1, payload)])
            .await
        {
            sent += 1;
            assert!(sent < 1_000_000, "the flood is taken");
        }
    }
    // One large string that goes over several frames is as long as a head may be, and no longer.
    let mut client = Client::connect(host.address, &[]).await;
    let mut section = begin.clone();
    section.extend([0, 1, b'x', 127, 255, 255, 255, 1]);
    client
        .send(&[Frame::new(kind::HEADERS, END_STREAM, 1, &section)])
        .await;
    let mut sent_bytes = 0;
    while client
        .send(&[Frame::new(kind::CONTINUATION, 0, 1, &[b'a'; 16_000])])
        .await
    {
        sent_bytes += 16_000;
        assert!(sent_bytes < 10_000_000, "the flood is taken");
    }
    host.registry().idle().await;
    assert_eq!(host.registry().snapshot().total().total(), 0);
    assert_eq!(host.get("/media/a.txt").await.status, 200);
}

/// The answers to them are not read: what is not taken stops what is read.
#[tokio::test]
async fn settings_and_pings_that_nobody_reads_the_answers_of_stop_by_themselves() {
    let host = Host::start().await;
    stop_time();
    host.write("a.txt", b"hello");
    for frame in [
        Frame::settings(&[(INITIAL_WINDOW, 1)]),
        Frame::new(kind::PING, 0, 0, &[7; 8]),
    ] {
        let mut client = Client::connect(host.address, &[]).await;
        let flood = vec![frame; 1000];
        // It ends when the host takes no more and then closes, since no request came.
        while_time_passes(async { while client.send(&flood).await {} }).await;
    }
    host.registry().idle().await;
    assert_eq!(host.get("/media/a.txt").await.status, 200);
}

#[tokio::test]
async fn heads_that_are_too_large_get_their_status_or_end_the_connection() {
    let host = Host::start().await;
    host.write("a.txt", b"hello");
    let long = "a".repeat(9_000);
    let large: Vec<_> = ["x", "y", "z"].map(|name| (name, &long[..])).into();
    let many = vec![("x", "1"); 101];
    for (path, sent, expected) in [
        (&format!("/media/{long}")[..], &[][..], "414"),
        ("/media/a.txt", &large[..2], "431"),
        ("/media/a.txt", &many, "431"),
    ] {
        let mut client = Client::connect(host.address, &[]).await;
        let section = fields(path, sent);
        let (first, rest) = section.split_at(section.len().min(16_000));
        client
            .send(&[
                Frame::new(kind::HEADERS, END_STREAM, 1, first),
                Frame::new(kind::CONTINUATION, END_HEADERS, 1, rest),
            ])
            .await;
        let head = client.read_until(|frame| frame.kind == kind::HEADERS).await;
        let head = head.unwrap().payload;
        let digits = head.windows(3).any(|digits| digits == expected.as_bytes());
        // Huffman coding has its own digits; what is told with them is in the content.
        let (content, _) = content(&mut client, 1).await;
        let content = String::from_utf8(content).unwrap();
        let told = match expected {
            "414" => "Target too long",
            _ => "Header fields too large",
        };
        assert!(digits || content.contains(told), "{content}");
    }
    host.registry().idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_is_ignored_and_its_stream_answered() {
    let host = Host::start().await;
    host.write("a.txt", b"hello");
    let mut clients = JoinSet::new();
    for _ in 0..20 {
        let address = host.address;
        clients.spawn(async move {
            let mut client = Client::connect(address, &[]).await;
            let section = fields("/media/a.txt", &[]);
            let head = Frame::new(kind::HEADERS, END_HEADERS, 1, &section);
            let data = Frame::new(kind::DATA, 0, 1, &[7; 8_000]);
            client.send(&[head, data.clone(), data]).await;
            assert_eq!(content(&mut client, 1).await, (b"hello".to_vec(), true));
            // The connection serves on.
            client.send(&[Frame::get(3, "/media/a.txt")]).await;
            assert_eq!(content(&mut client, 3).await, (b"hello".to_vec(), true));
        });
    }
    clients.join_all().await;
    host.registry().idle().await;
}

/// Small responses that are in the cache are sent by the connection itself, and others by the service.
#[tokio::test]
async fn a_response_from_the_cache_is_the_one_of_the_service() {
    let host = Host::start().await;
    host.write("a.txt", b"hello");
    host.write("empty.txt", b"");
    let first = host.get("/media/a.txt").await;
    let etag = first.field("etag").unwrap().to_owned();
    let stream = TcpStream::connect(host.address).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let conditions = [
        ("accept", "*/*"),
        ("if-none-match", etag.as_str()),
        ("range", "bytes=1-2"),
        ("range", "bytes=9-"),
    ];
    for path in ["a.txt", "empty.txt", "none"] {
        for method in ["GET", "HEAD"] {
            for (name, value) in conditions {
                let uri = format!("http://{}/media/{path}", host.address);
                let mut responses = Vec::new();
                for _ in 0..2 {
                    let request = Request::builder().method(method).uri(&uri);
                    let request = request.header(name, value).body(Empty::<Bytes>::new());
                    let response = sender.send_request(request.unwrap()).await.unwrap();
                    let (mut head, body) = response.into_parts();
                    let content = body.collect().await.unwrap().to_bytes();
                    for name in ["date", "x-request-id"] {
                        assert!(head.headers.remove(name).is_some(), "{name}");
                    }
                    responses.push((head.status, head.headers, content));
                }
                assert_eq!(
                    responses[0], responses[1],
                    "{method} {path} {name}: {value}"
                );
            }
        }
    }
    drop(sender);
    host.registry().idle().await;
    assert_eq!(host.registry().ended_requests(Outcome::Aborted), 0);
    assert!(host.registry().response_cache_hits() > 0);
}

#[tokio::test]
async fn requests_that_come_together_are_all_answered() {
    let host = Host::start().await;
    let names: Vec<_> = (0..32).map(|number| format!("{number}.bin")).collect();
    for name in &names {
        host.write(name, &noise(10_000));
        host.get(&format!("/media/{name}")).await;
    }
    let mut client = Client::connect(host.address, &[(INITIAL_WINDOW, 1 << 20)]).await;
    let mut frames = vec![Frame::window_update(0, 1 << 30)];
    for (stream, name) in (1..).step_by(2).zip(&names) {
        frames.push(Frame::get(stream, &format!("/media/{name}")));
    }
    client.send(&frames).await;
    let mut sent_bytes = 0;
    let mut ended = 0;
    while ended < names.len() {
        let frame = client.read_until(|frame| frame.kind == kind::DATA).await;
        let frame = frame.unwrap();
        sent_bytes += frame.payload.len();
        ended += usize::from(frame.flags & END_STREAM != 0);
    }
    assert_eq!(sent_bytes, names.len() * 10_000);
    host.registry().idle().await;
    assert_eq!(host.registry().ended_requests(Outcome::Completed), 64);
}

/// Its content waits in the connection, with no task of its own that would see the timeout.
#[tokio::test]
async fn a_response_from_the_cache_that_nobody_takes_is_reset() {
    let host = Host::start().await;
    host.write("small.bin", &noise(8_000));
    host.write("large.bin", &noise(300_000));
    host.get("/media/small.bin").await;
    host.registry().idle().await;
    stop_time();
    let mut client = Client::connect(host.address, &[(INITIAL_WINDOW, 0)]).await;
    client.send(&[Frame::get(1, "/media/small.bin")]).await;
    let head = client.read_until(|frame| frame.kind == kind::HEADERS).await;
    head.unwrap();
    // The connection stays, since another of its streams makes progress.
    let windows = [0, 3].map(|stream| Frame::window_update(stream, 1 << 30));
    client.send(&[Frame::get(3, "/media/large.bin")]).await;
    client.send(&windows).await;
    assert!(content(&mut client, 3).await.1);
    let_pass(ConnectionLimits::default().send_timeout).await;
    let reset = client.read_until(|frame| frame.kind == kind::RST_STREAM);
    assert_eq!(reset.await.map(|frame| frame.stream), Some(1));
    assert_eq!(host.registry().ended_requests(Outcome::Aborted), 1);
}

#[tokio::test]
async fn a_response_from_the_cache_ends_with_the_reset_of_its_stream() {
    let host = Host::start().await;
    host.write("small.bin", &noise(8_000));
    host.get("/media/small.bin").await;
    host.registry().idle().await;
    let mut client = Client::connect(host.address, &[(INITIAL_WINDOW, 0)]).await;
    client.send(&[Frame::get(1, "/media/small.bin")]).await;
    let head = client.read_until(|frame| frame.kind == kind::HEADERS).await;
    head.unwrap();
    client.send(&[Frame::reset(1)]).await;
    host.registry().idle().await;
    assert_eq!(host.registry().ended_requests(Outcome::Aborted), 1);
    // The connection serves on.
    let window = Frame::window_update(3, 1 << 20);
    client
        .send(&[Frame::get(3, "/media/small.bin"), window])
        .await;
    assert_eq!(content(&mut client, 3).await, (noise(8_000), true));
}

/// It was answered before its content had come, and its stream was closed when the violation came.
#[tokio::test]
async fn a_request_that_is_malformed_after_its_head_gets_no_response() {
    let host = Host::start().await;
    // The response waits for the content for as long as the test takes to send it.
    stop_time();
    host.write("a.txt", b"hello");
    let length = [("content-length", "1")];
    for (stream, (sent, rest)) in (1..).step_by(2).zip([
        (&length[..], Frame::new(kind::DATA, END_STREAM, 0, b"test")),
        // Trailers have to end the stream.
        (
            &[],
            Frame::new(kind::HEADERS, END_HEADERS, 0, &fields("/", &[])),
        ),
    ]) {
        let mut client = Client::connect(host.address, &[]).await;
        let section = fields("/media/a.txt", sent);
        let head = Frame::new(kind::HEADERS, END_HEADERS, stream, &section);
        client
            .send(&[head, Frame::new(kind::PING, 0, 0, &[7; 8])])
            .await;
        // The head has come, and its content has not.
        client.read_until(|frame| frame.kind == kind::PING).await;
        client.send(&[Frame { stream, ..rest }]).await;
        let of_stream = client.read_until(|frame| frame.stream == stream).await;
        assert_eq!(of_stream.map(|frame| frame.kind), Some(kind::RST_STREAM));
    }
    host.registry().idle().await;
    assert_eq!(host.registry().ended_requests(Outcome::Completed), 0);
}
