//! The fault origin does right without faults, and each fault as it says.

use super::content::Content;
use super::fault_origin::FaultOrigin;
use super::gate::Gate;
use super::gzip::gzip;
use super::object::{Fault, MakeContentRange, Object, Requests};
use crate::client::{Response, request};
use crate::host::noise;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use std::time::Instant;
use tokio::net::TcpStream;

const PATH: &str = "/a.bin";

/// An origin with one object.
fn with(object: Object) -> FaultOrigin {
    let origin = FaultOrigin::start();
    origin.put(PATH, object);
    origin
}

async fn get(origin: &FaultOrigin, fields: &[(&str, &str)]) -> Response {
    request(origin.address, "GET", PATH, fields).await
}

/// Requests the object on a connection of its own. `None` if the connection ends without a response.
async fn try_get(origin: &FaultOrigin) -> Option<http::Response<hyper::body::Incoming>> {
    let stream = TcpStream::connect(origin.address).await.ok()?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(PATH).header("host", "a");
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    sender.send_request(request).await.ok()
}

#[tokio::test]
async fn an_object_is_served_whole_and_in_ranges() {
    let content = noise(100_000);
    let origin = with(Object::new(content.clone()).field("cache-control", "max-age=60"));
    let whole = get(&origin, &[]).await;
    assert_eq!((whole.status, whole.whole), (200, true));
    assert_eq!(whole.body, content);
    assert_eq!(whole.field("content-length"), Some("100000"));
    assert_eq!(whole.field("cache-control"), Some("max-age=60"));
    assert_eq!(
        whole.field("last-modified"),
        Some("Tue, 14 Nov 2023 22:13:20 GMT")
    );
    for (range, first, end) in [
        ("bytes=0-", 0, 100_000),
        ("bytes=50000-50099", 50_000, 50_100),
        ("bytes=99990-200000", 99_990, 100_000),
        ("bytes=-10", 99_990, 100_000),
        ("bytes=-200000", 0, 100_000),
    ] {
        let part = get(&origin, &[("range", range)]).await;
        assert_eq!((part.status, part.whole), (206, true), "{range}");
        let content_range = format!("bytes {first}-{}/100000", end - 1);
        assert_eq!(part.field("content-range"), Some(&*content_range));
        assert_eq!(part.body, content[first..end], "{range}");
    }
    for range in ["bytes=100000-", "bytes=-0"] {
        let part = get(&origin, &[("range", range)]).await;
        assert_eq!(part.status, 416, "{range}");
        assert_eq!(part.field("content-range"), Some("bytes */100000"));
    }
    for range in ["bytes=5-4", "bytes=0-1,3-4", "lines=0-1"] {
        assert_eq!(get(&origin, &[("range", range)]).await.status, 200);
    }
    let head = request(origin.address, "HEAD", PATH, &[("range", "bytes=0-9")]).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.field("content-length"), Some("100000"));
    assert_eq!(head.body, b"");
    origin.remove(PATH);
    assert_eq!(get(&origin, &[]).await.status, 404);
}

#[tokio::test]
async fn conditions_are_evaluated() {
    let origin = with(Object::new("hello").tagged("\"a\""));
    let (same, before) = (
        "Tue, 14 Nov 2023 22:13:20 GMT",
        "Tue, 14 Nov 2023 22:13:19 GMT",
    );
    for (name, value, status) in [
        ("if-match", "\"a\"", 200),
        ("if-match", "*", 200),
        ("if-match", "\"b\", \"a\"", 200),
        ("if-match", "\"b\"", 412),
        ("if-match", "W/\"a\"", 412),
        ("if-none-match", "\"a\"", 304),
        ("if-none-match", "W/\"a\"", 304),
        ("if-none-match", "\"b\"", 200),
        ("if-modified-since", same, 304),
        ("if-modified-since", before, 200),
        ("if-unmodified-since", same, 200),
        ("if-unmodified-since", before, 412),
    ] {
        let response = get(&origin, &[(name, value)]).await;
        assert_eq!(response.status, status, "{name}: {value}");
        assert_eq!(response.field("etag"), Some("\"a\""));
    }
    for (value, status) in [
        ("\"a\"", 206),
        ("W/\"a\"", 200),
        ("\"b\"", 200),
        (same, 206),
        (before, 200),
    ] {
        let fields = [("range", "bytes=1-2"), ("if-range", value)];
        assert_eq!(get(&origin, &fields).await.status, status, "{value}");
    }
}

#[tokio::test]
async fn validators_are_as_the_test_wants_them() {
    let origin = with(Object::new("hello").tagged("W/\"a\""));
    let weak = get(&origin, &[("if-match", "W/\"a\"")]).await;
    assert_eq!((weak.status, weak.field("etag")), (412, Some("W/\"a\"")));
    origin.put(PATH, Object::new("hello").untagged().undated());
    let none = get(&origin, &[("if-none-match", "\"a\"")]).await;
    assert_eq!(none.status, 200);
    assert_eq!(
        (none.field("etag"), none.field("last-modified")),
        (None, None)
    );
}

#[tokio::test]
async fn an_object_of_ten_gigabytes_takes_no_memory() {
    const LENGTH: u64 = 10_000_000_000;
    let origin = with(Object::computed(1, LENGTH));
    let part = get(&origin, &[("range", "bytes=5000000001-5000000100")]).await;
    assert_eq!(
        part.field("content-range"),
        Some("bytes 5000000001-5000000100/10000000000")
    );
    let content = Content::Computed {
        seed: 1,
        length: LENGTH,
    };
    assert_eq!(part.body, content.read(5_000_000_001..5_000_000_101));
    origin.wait_until(|requests| requests[0].is_over());
    assert_eq!(origin.requests()[0].sent_bytes(), 100);
}

#[tokio::test]
async fn a_client_that_leaves_is_seen() {
    let origin = with(Object::computed(1, 10_000_000_000));
    let mut response = try_get(&origin).await.unwrap();
    response.frame().await.unwrap().unwrap();
    drop(response);
    origin_has_ended(&origin, 0).await;
    let sent = origin.requests()[0].sent_bytes();
    assert!(sent > 0 && sent < 10_000_000_000, "{sent}");
}

#[tokio::test]
async fn requests_are_recorded() {
    let before = Instant::now();
    let origin = with(Object::new("hello"));
    let fields = [
        ("range", "bytes=1-2"),
        ("if-match", "\"a\""),
        ("if-none-match", "\"b\""),
    ];
    get(&origin, &fields).await;
    request(origin.address, "HEAD", "/b.bin?c", &[]).await;
    let requests = origin.requests();
    let list: Vec<(&str, &str)> = requests
        .iter()
        .map(|request| (&*request.method, &*request.path))
        .collect();
    assert_eq!(list, [("GET", PATH), ("HEAD", "/b.bin?c")]);
    for (name, value) in fields {
        assert_eq!(requests[0].field(name), Some(value));
        assert_eq!(requests[1].field(name), None);
    }
    assert_eq!((requests[0].connection, requests[1].connection), (0, 1));
    assert!(before < requests[0].at && requests[0].at < requests[1].at);
    assert_eq!(origin.requests_for(PATH).len(), 1);
}

#[tokio::test]
async fn a_slow_response_waits_for_its_gate() {
    let (head, body) = (Gate::new(), Gate::new());
    let object = Object::new("hello");
    let origin = with(
        object
            .with(Fault::SlowHead(head.clone()))
            .with(Fault::Slow(body.clone())),
    );
    let mut awaited = std::pin::pin!(try_get(&origin));
    tokio::select! {
        biased;
        _ = &mut awaited => panic!("the gate is shut"),
        () = async { origin_has(&origin, 1).await } => {}
    }
    head.open();
    let mut response = awaited.await.unwrap();
    for (allowed, bytes) in [(2, "he"), (3, "l")] {
        body.allow(allowed);
        let frame = response.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), bytes);
        assert_eq!(origin.requests()[0].sent_bytes(), allowed);
    }
    body.open();
    let rest = response.collect().await.unwrap().to_bytes();
    assert_eq!(rest, "lo");
}

/// Waits for so many requests, without blocking the thread.
async fn origin_has(origin: &FaultOrigin, requests: usize) {
    while origin.requests().len() < requests {
        tokio::task::yield_now().await;
    }
}

/// Waits for the end of the response to a request, without blocking the thread.
async fn origin_has_ended(origin: &FaultOrigin, request: usize) {
    while !origin.requests()[request].is_over() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_silent_response_does_not_come_and_a_stalled_one_stops() {
    let object = Object::new("hello");
    let origin = with(
        object
            .with_in(Requests::Only(1), Fault::Silent)
            .with_in(Requests::Only(2), Fault::Stalled(2)),
    );
    tokio::select! {
        biased;
        _ = try_get(&origin) => panic!("the origin is silent"),
        () = origin_has(&origin, 1) => {}
    }
    origin_has_ended(&origin, 0).await;
    let mut response = try_get(&origin).await.unwrap();
    let frame = response.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "he");
    assert_eq!(origin.requests()[1].sent_bytes(), 2);
    assert!(!origin.requests()[1].is_over());
    drop(response);
    origin_has_ended(&origin, 1).await;
    assert_eq!(get(&origin, &[]).await.body, b"hello");
}

#[tokio::test]
async fn a_cut_response_ends_at_its_byte_in_the_requests_named() {
    let content = noise(100_000);
    for cut in [0, 1, 16_383, 16_384, 99_999] {
        let object = Object::new(content.clone());
        let origin = with(object.with_in(Requests::Only(2), Fault::Cut(cut)));
        for (number, length) in [(1, 100_000), (2, cut), (3, 100_000)] {
            // It has no body, so it is not counted.
            request(origin.address, "HEAD", PATH, &[]).await;
            let response = get(&origin, &[]).await;
            assert_eq!(response.status, 200);
            assert_eq!(response.whole, number != 2, "{cut}");
            assert_eq!(response.body, content[..usize::try_from(length).unwrap()]);
        }
        let ranged = get(&origin, &[("range", "bytes=10-")]).await;
        assert_eq!(ranged.body, content[10..]);
    }
}

#[tokio::test]
async fn a_closed_connection_has_no_response() {
    let object = Object::new("hello").with_in(Requests::First(2), Fault::Closed);
    let origin = with(object);
    assert!(try_get(&origin).await.is_none());
    assert!(try_get(&origin).await.is_none());
    assert!(try_get(&origin).await.is_some());
}

#[tokio::test]
async fn errors_and_redirects_come_for_the_requests_named() {
    let object = Object::new("hello");
    let origin = with(
        object
            .with_in(Requests::First(2), Fault::Status(503))
            .with_in(Requests::Only(3), Fault::Status(500))
            .with_in(Requests::From(5), Fault::Redirect(302, "/b.bin".to_owned())),
    );
    for status in [503, 503, 500, 200, 302, 302] {
        assert_eq!(get(&origin, &[]).await.status, status);
    }
    let elsewhere = with(Object::new("elsewhere"));
    origin.put(
        PATH,
        Object::new("").with(Fault::Redirect(307, elsewhere.url(PATH))),
    );
    let redirect = get(&origin, &[]).await;
    assert_eq!(redirect.field("location"), Some(&*elsewhere.url(PATH)));
    origin.put(
        PATH,
        Object::new("").with(Fault::Redirect(302, "/b.bin".to_owned())),
    );
    let redirect = get(&origin, &[("range", "bytes=0-1")]).await;
    assert_eq!(redirect.field("location"), Some("/b.bin"));
    assert_eq!(redirect.field("content-range"), None);
}

#[tokio::test]
async fn lengths_and_ranges_are_as_wrong_as_the_test_wants() {
    let range = [("range", "bytes=10-19")];
    let content = noise(1000);
    let object = || Object::new(content.clone());

    let origin = with(object().with(Fault::WrongLength(5)));
    let longer = get(&origin, &range).await;
    assert_eq!(longer.field("content-length"), Some("15"));
    assert_eq!((longer.body.len(), longer.whole), (10, false));
    let head = request(origin.address, "HEAD", PATH, &[]).await;
    assert_eq!(head.field("content-length"), Some("1000"));

    origin.put(PATH, object().with(Fault::WrongLength(-5)));
    let shorter = get(&origin, &range).await;
    assert_eq!(shorter.field("content-length"), Some("5"));
    assert_eq!(shorter.field("content-range"), Some("bytes 10-19/1000"));
    assert_eq!((&shorter.body[..], shorter.whole), (&content[10..15], true));

    let wrong: [(MakeContentRange, &str); 5] = [
        (
            |first, last, length| format!("bytes {}-{last}/{length}", first + 1),
            "bytes 11-19/1000",
        ),
        (
            |first, last, length| format!("bytes {first}-{}/{length}", last + 1),
            "bytes 10-20/1000",
        ),
        (
            |first, last, length| format!("bytes {first}-{last}/{}", length + 1),
            "bytes 10-19/1001",
        ),
        (
            |first, last, _| format!("bytes {first}-{last}/*"),
            "bytes 10-19/*",
        ),
        (|_, _, length| format!("bytes */{length}"), "bytes */1000"),
    ];
    for (value, expected) in wrong {
        origin.put(PATH, object().with(Fault::WrongRange(value)));
        let part = get(&origin, &range).await;
        assert_eq!(
            (part.status, part.field("content-range")),
            (206, Some(expected))
        );
        assert_eq!(part.body, content[10..20]);
        assert_eq!(get(&origin, &[]).await.field("content-range"), None);
    }

    origin.put(PATH, object().with(Fault::RangeBeyond(7)));
    let beyond = get(&origin, &range).await;
    assert_eq!(beyond.field("content-range"), Some("bytes 10-26/1000"));
    assert_eq!(beyond.body, content[10..27]);

    origin.put(PATH, object().with(Fault::IgnoredRange));
    let whole = get(&origin, &range).await;
    assert_eq!((whole.status, whole.body), (200, content));
}

#[tokio::test]
async fn conditions_are_ignored_if_the_test_wants_that() {
    let object = Object::new("hello").tagged("\"a\"");
    let origin = with(object.with(Fault::IgnoredConditions));
    for condition in [
        ("if-match", "\"b\""),
        ("if-none-match", "\"a\""),
        ("if-range", "\"b\""),
    ] {
        let response = get(&origin, &[condition, ("range", "bytes=0-1")]).await;
        assert_eq!(response.status, 206, "{condition:?}");
    }
}

#[tokio::test]
async fn a_flipped_byte_is_wrong_in_each_range_that_has_it() {
    let content = noise(100_000);
    let object = Object::new(content.clone());
    let origin = with(object.with(Fault::Flipped(50_000)));
    let mut expected = content.clone();
    expected[50_000] ^= 0xff;
    assert_eq!(get(&origin, &[]).await.body, expected);
    let part = get(&origin, &[("range", "bytes=40000-60000")]).await;
    assert_eq!(part.body, expected[40_000..=60_000]);
    let other = get(&origin, &[("range", "bytes=0-49999")]).await;
    assert_eq!(other.body, content[..50_000]);
}

#[tokio::test]
async fn an_object_is_replaced_by_another_one_or_gets_another_tag() {
    let third = Object::new("third");
    let second = Object::new("first").tagged("\"again\"");
    let origin = with(Object::new("first").replaced_from(2, second.replaced_from(3, third)));
    let mut tags = Vec::new();
    for body in ["first", "first", "third", "third"] {
        let response = get(&origin, &[]).await;
        assert_eq!(response.body, body.as_bytes());
        tags.push(response.field("etag").unwrap().to_owned());
    }
    assert_ne!(tags[0], tags[1]);
    assert_eq!(tags[1], "\"again\"");
    assert_eq!(tags[2], tags[3]);
}

#[tokio::test]
async fn a_chunked_response_has_no_length() {
    let content = noise(50_000);
    let origin = with(Object::new(content.clone()).with(Fault::Chunked));
    let response = get(&origin, &[]).await;
    assert_eq!(response.field("content-length"), None);
    assert_eq!(response.field("transfer-encoding"), Some("chunked"));
    assert_eq!((response.body, response.whole), (content, true));
}

#[tokio::test]
async fn a_coded_response_is_in_gzip_whatever_was_accepted() {
    let content = noise(70_000);
    let origin = with(Object::new(content.clone()).with(Fault::Gzip));
    let response = get(&origin, &[("accept-encoding", "identity")]).await;
    assert_eq!(response.field("content-encoding"), Some("gzip"));
    assert_eq!((response.body, response.whole), (gzip(&content), true));
}

#[tokio::test]
async fn an_origin_that_is_down_refuses_connections_until_it_is_up() {
    let gate = Gate::new();
    let origin = with(Object::new("hello").with(Fault::Slow(gate.clone())));
    let mut response = try_get(&origin).await.unwrap();
    origin.down();
    assert!(response.frame().await.unwrap().is_err());
    let refused = TcpStream::connect(origin.address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    origin.up();
    gate.open();
    assert_eq!(get(&origin, &[]).await.body, b"hello");
}
