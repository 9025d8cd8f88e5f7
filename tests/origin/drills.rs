//! Drills: an origin fails in each way that another cache was seen to get wrong. Responses are right, or end as failures.

use super::content::Content;
use super::fault_origin::FaultOrigin;
use super::gate::Gate;
use super::moto::Moto;
use super::object::{Fault, MakeContentRange, Object, Requests};
use super::record::RequestRecord;
use super::s3_server::S3Server;
use crate::client::Response;
use crate::host::noise;
use crate::server::Server;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rand::Rng;
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Length of a chunk of the cache, in bytes.
const CHUNK: usize = 1024 * 1024;

/// Length of an object that is larger than each cache here.
const HUGE: u64 = 10_000_000_000;

/// Path of the media at each origin.
const PREFIX: &str = "/media";

/// A server over an origin, with a cache of its own.
struct Cached {
    origin: FaultOrigin,
    folder: tempfile::TempDir,
    server: Server,
}

impl Cached {
    /// Begins with an object `a.bin`.
    fn with(object: Object) -> Self {
        Cached::with_options(object, &[])
    }

    fn with_options(object: Object, options: &[&str]) -> Self {
        let origin = FaultOrigin::start();
        origin.put("/media/a.bin", object);
        Cached::over(origin, options)
    }

    fn over(origin: FaultOrigin, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = serve(&origin.url(PREFIX), folder.path(), &[], options);
        Cached {
            origin,
            folder,
            server,
        }
    }

    fn get(&self, fields: &[(&str, &str)]) -> Response {
        get(&self.server, "/media/a.bin", fields)
    }

    fn get_range(&self, range: Range<u64>) -> Response {
        let range = format!("bytes={}-{}", range.start, range.end - 1);
        self.get(&[("range", &range)])
    }

    /// GETs of `a.bin` at the origin so far, when none is in progress. A fill may go on after the response that began it.
    fn settled_gets(&self) -> Vec<RequestRecord> {
        self.origin
            .wait_until(|requests| requests.iter().all(RequestRecord::is_over));
        self.origin_gets()
    }

    /// GETs of `a.bin` at the origin so far.
    fn origin_gets(&self) -> Vec<RequestRecord> {
        let mut requests = self.origin.requests_for("/media/a.bin");
        requests.retain(|request| request.method == "GET");
        requests
    }
}

/// Starts millpond over an origin.
fn serve(url: &str, cache: &Path, variables: &[(&str, String)], options: &[&str]) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.arg("serve").arg(url).arg("--cache-dir").arg(cache);
    command.args(["--cache-size", "256MB"]);
    command.args(["--listen", "127.0.0.1:0", "--admin", "off"]);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    Server::started_by(&mut command, options)
}

fn get(server: &Server, target: &str, fields: &[(&str, &str)]) -> Response {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let address = server.address.parse().unwrap();
    runtime.block_on(crate::client::request(address, "GET", target, fields))
}

/// Fails unless a response is the whole content.
#[track_caller]
fn assert_is_whole(response: &Response, content: &[u8]) {
    assert_eq!((response.status, response.whole), (200, true));
    assert!(response.body == content, "the content differs");
}

/// Fails unless a response is this part of the content, with the length of all of it.
#[track_caller]
fn assert_is_part(response: &Response, content: &Content, range: Range<u64>) {
    assert_eq!((response.status, response.whole), (206, true));
    let content_range = format!(
        "bytes {}-{}/{}",
        range.start,
        range.end - 1,
        content.length()
    );
    assert_eq!(response.field("content-range"), Some(&*content_range));
    assert!(response.body == content.read(range), "the content differs");
}

/// Fails unless a response is an error of the gateway, in JSON.
#[track_caller]
fn assert_is_gateway_error(response: &Response) {
    assert!((500..600).contains(&response.status), "{response:?}");
    assert!(response.whole);
    assert!(!response.error().is_empty());
}

/// Fails if a response has a byte that is not the content's, or ends as whole without all of it.
#[track_caller]
fn assert_is_right_or_fails(response: &Response, content: &[u8]) {
    match (response.status, response.whole) {
        (200, true) => assert!(response.body == content, "the content differs"),
        (200, false) => assert!(content.starts_with(&response.body), "the content differs"),
        _ => assert_is_gateway_error(response),
    }
}

/// Whether `Cache-Status` (RFC 9211) says that the response came from the cache.
fn is_hit(response: &Response) -> bool {
    let status = response.field("cache-status").unwrap();
    assert!(status.starts_with("millpond"), "{status}");
    status.split("; ").any(|parameter| parameter == "hit")
}

/// The content of a huge object.
fn huge() -> (Object, Content) {
    let object = Object::computed(1, HUGE);
    let content = object.content.clone();
    (object, content)
}

fn sent_bytes(requests: &[RequestRecord]) -> u64 {
    requests.iter().map(RequestRecord::sent_bytes).sum()
}

/// Sends a request on an open connection.
fn send(stream: &mut TcpStream, range: &str) {
    let head = format!("GET /media/a.bin HTTP/1.1\r\nhost: a\r\nrange: {range}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
}

/// Reads the head of a response, and so many bytes of its body.
fn read(stream: &mut TcpStream, bytes: usize) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let mut body = vec![0; bytes];
    stream.read_exact(&mut body).unwrap();
    (String::from_utf8(head).unwrap().to_lowercase(), body)
}

#[test]
fn the_second_request_is_a_hit() {
    let content = noise(3 * CHUNK + 5);
    let cached = Cached::with(Object::new(content.clone()));
    let first = cached.get(&[]);
    assert_is_whole(&first, &content);
    assert!(!is_hit(&first));
    let gets = cached.origin_gets().len();
    let second = cached.get(&[]);
    assert_is_whole(&second, &content);
    assert!(is_hit(&second));
    assert_eq!(cached.origin_gets().len(), gets);
}

#[test]
fn a_fill_that_is_cut_at_any_byte_never_ends_as_whole() {
    const LENGTH: usize = 2 * CHUNK + CHUNK / 2;
    let content = noise(LENGTH);
    let cached = Cached::with(Object::new(content.clone()));
    let mut runner = TestRunner::new(Config::with_cases(100));
    let mut number = 0;
    // The boundaries of chunks are the likely places.
    let offset = prop_oneof![
        0..LENGTH,
        CHUNK - 2..CHUNK + 2,
        2 * CHUNK - 2..2 * CHUNK + 2,
        LENGTH - 2..LENGTH,
        0..2_usize,
    ];
    let cut = |(offset, is_each): (usize, bool)| {
        number += 1;
        let target = format!("/media/{number}.bin");
        let cut = Fault::Cut(offset as u64);
        let requests = if is_each {
            Requests::First(3)
        } else {
            Requests::Only(1)
        };
        let object = Object::new(content.clone()).with_in(requests, cut);
        cached.origin.put(&target, object);
        let first = get(&cached.server, &target, &[]);
        assert_is_right_or_fails(&first, &content);
        cached.origin.put(&target, Object::new(content.clone()));
        assert_is_whole(&get(&cached.server, &target, &[]), &content);
        Ok(())
    };
    let cut = std::cell::RefCell::new(cut);
    let strategy = (offset, any::<bool>());
    runner
        .run(&strategy, |case| (cut.borrow_mut())(case))
        .unwrap();
}

/// Kills the server at so many moments of a fill, starts it on the same cache, and compares each byte.
fn kill_in_fills(times: u64) {
    const LENGTH: u64 = 3 * CHUNK as u64 + 77;
    let folder = tempfile::tempdir().unwrap();
    let origin = FaultOrigin::start();
    let content = |seed| Content::Computed {
        seed,
        length: LENGTH,
    };
    let mut rng = rand::rng();
    for seed in 0..times {
        let path = format!("/media/{seed}.bin");
        origin.put(&path, Object::computed(seed, LENGTH));
        let server = serve(&origin.url(PREFIX), folder.path(), &[], &[]);
        if seed > 0 {
            let before = format!("/media/{}.bin", seed - 1);
            let response = get(&server, &before, &[]);
            assert_is_whole(&response, &content(seed - 1).read(0..LENGTH));
        }
        let moment = rng.random_range(0..LENGTH);
        let mut client = TcpStream::connect(&server.address).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        client.write_all(head.as_bytes()).unwrap();
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            // The kill resets the connection.
            let _ = client.read_to_end(&mut received);
        });
        origin.wait_until(|requests| {
            let requests = requests.iter().filter(|request| request.path == path);
            requests.map(RequestRecord::sent_bytes).sum::<u64>() >= moment
        });
        server.signal(Signal::KILL);
        assert_eq!(server.wait().0, None);
        reader.join().unwrap();
    }
    // Each object again, at rest.
    let server = serve(&origin.url(PREFIX), folder.path(), &[], &[]);
    for seed in 0..times {
        let response = get(&server, &format!("/media/{seed}.bin"), &[]);
        assert_eq!(response.status, 200, "{}", server.logged());
        assert_is_whole(&response, &content(seed).read(0..LENGTH));
    }
}

#[test]
fn a_server_killed_while_it_fills_serves_no_wrong_byte_afterwards() {
    kill_in_fills(10);
}

#[test]
#[ignore = "takes minutes"]
fn a_server_killed_at_200_moments_of_fills_serves_no_wrong_byte_afterwards() {
    kill_in_fills(200);
}

#[test]
fn wrong_content_for_an_id_is_never_delivered_whole() {
    let folder = tempfile::tempdir().unwrap();
    let content = noise(2 * CHUNK + 9);
    let file = folder.path().join("a.png");
    fs::write(&file, &content).unwrap();
    let store = folder.path().join("store");
    let mut add = Command::new(env!("CARGO_BIN_EXE_millpond"));
    let output = add
        .arg("add")
        .arg(&file)
        .arg("--store")
        .arg(&store)
        .output();
    let printed = String::from_utf8(output.unwrap().stdout).unwrap();
    let mut words = printed.split_whitespace();
    let target = words.find(|word| word.starts_with("/api/media/")).unwrap();
    // Without the fault, the content of the id comes.
    for fault in [
        None,
        Some(Fault::Flipped(CHUNK as u64 + 1)),
        Some(Fault::Flipped(0)),
    ] {
        let origin = FaultOrigin::start();
        let files = walkdir::WalkDir::new(&store).into_iter().flatten();
        for entry in files.filter(|entry| entry.file_type().is_file()) {
            let bytes = fs::read(entry.path()).unwrap();
            let object = match &fault {
                Some(fault) if bytes == content => Object::new(bytes).with(fault.clone()),
                _ => Object::new(bytes),
            };
            let path = entry.path().strip_prefix(&store).unwrap();
            origin.put(&format!("{PREFIX}/{}", path.display()), object);
        }
        let cached = Cached::over(origin, &[]);
        for _ in 0..2 {
            let response = get(&cached.server, target, &[]);
            match fault {
                None => assert_is_whole(&response, &content),
                Some(_) => assert!(
                    response.status >= 500 || !response.whole,
                    "{}",
                    response.status
                ),
            }
        }
    }
}

#[test]
fn an_origin_that_is_down_leaves_stale_content() {
    let content = noise(CHUNK + 1);
    let object = || Object::new(content.clone()).field("cache-control", "max-age=0");
    let cached = Cached::with_options(object(), &["--cache-stale-if-error", "1h"]);
    assert_is_whole(&cached.get(&[]), &content);
    cached.origin.down();
    assert_is_whole(&cached.get(&[]), &content);
    assert_is_gateway_error(&get(&cached.server, "/media/other.bin", &[]));
    cached.origin.up();
    cached.origin.put("/media/a.bin", Object::new("new"));
    // A revalidation that failed is repeated after a pause.
    let end = Instant::now() + Duration::from_secs(60);
    while cached.get(&[]).body != b"new" {
        assert!(Instant::now() < end, "the stale content stays");
    }
}

#[test]
fn nginx_s3_gateway_188_a_range_of_ten_gigabytes_costs_one_chunk() {
    let (object, content) = huge();
    let cached = Cached::with(object);
    let middle = HUGE / 2..HUGE / 2 + 100;
    assert_is_part(&cached.get_range(middle.clone()), &content, middle);
    let gets = cached.settled_gets();
    assert_eq!(gets.len(), 1);
    assert!(sent_bytes(&gets) <= CHUNK as u64);
    assert!(gets[0].field("range").is_some());
}

#[test]
fn an_origin_that_ignores_ranges_gives_no_wrong_byte_and_no_whole_object_of_ten_gigabytes() {
    let content = noise(3 * CHUNK);
    let cached = Cached::with(Object::new(content.clone()).with(Fault::IgnoredRange));
    let range = CHUNK as u64 + 10..CHUNK as u64 + 20;
    let part = cached.get_range(range.clone());
    match part.status {
        206 => assert_is_part(&part, &Content::Memory(content.into()), range),
        _ => assert_is_gateway_error(&part),
    }
    let (object, content) = huge();
    cached
        .origin
        .put("/media/b.bin", object.with(Fault::IgnoredRange));
    let part = get(
        &cached.server,
        "/media/b.bin",
        &[("range", "bytes=5000000000-5000000009")],
    );
    match part.status {
        206 => assert_is_part(&part, &content, 5_000_000_000..5_000_000_010),
        _ => assert_is_gateway_error(&part),
    }
    cached.settled_gets();
    let sent = sent_bytes(&cached.origin.requests_for("/media/b.bin"));
    assert!(sent <= 8 * CHUNK as u64, "{sent}");
}

/// Options for redirects to other ports of this machine, which the sandbox denies.
const REDIRECTS: [&str; 2] = ["--origin-private-redirects", "--sandbox=off"];

#[test]
fn nginx_1611_a_redirect_keeps_the_range() {
    let (object, content) = huge();
    let elsewhere = FaultOrigin::start();
    elsewhere.put("/b.bin", object);
    for location in ["/media/b.bin".to_owned(), elsewhere.url("/b.bin")] {
        let (object, _) = huge();
        let redirected = object.clone().with(Fault::Redirect(302, location));
        let cached = Cached::with_options(redirected, &REDIRECTS);
        cached.origin.put("/media/b.bin", object);
        for start in [0, HUGE / 2, HUGE / 2 + CHUNK as u64, CHUNK as u64] {
            let range = start..start + 10;
            assert_is_part(&cached.get_range(range.clone()), &content, range);
        }
        cached.settled_gets();
        elsewhere.wait_until(|requests| requests.iter().all(RequestRecord::is_over));
        let mut requests = cached.origin.requests_for("/media/b.bin");
        requests.extend(elsewhere.requests());
        assert!(sent_bytes(&requests) <= 8 * CHUNK as u64);
        for request in requests.iter().filter(|request| request.method == "GET") {
            assert!(request.field("range").is_some());
        }
    }
}

#[test]
fn a_loop_of_redirects_is_an_error() {
    let object = Object::new("").with(Fault::Redirect(302, "/media/a.bin".to_owned()));
    let cached = Cached::with_options(object, &REDIRECTS);
    assert_is_gateway_error(&cached.get(&[]));
    assert!(cached.origin.requests().len() < 100);
}

#[test]
fn an_object_that_changes_in_a_fill_ends_the_response_and_is_served_whole_afterwards() {
    let (before, after) = (noise(4 * CHUNK), vec![7; 4 * CHUNK]);
    let gate = Gate::new();
    gate.allow(CHUNK as u64 / 2);
    let slow = Object::new(before.clone()).field("cache-control", "max-age=0");
    let cached = Cached::with(slow.with(Fault::Slow(gate.clone())));
    let response = std::thread::scope(|scope| {
        let response = scope.spawn(|| cached.get(&[]));
        cached.origin.wait_until(|requests| {
            let sent = requests.iter().map(RequestRecord::sent_bytes).sum::<u64>();
            sent >= CHUNK as u64 / 2
        });
        cached
            .origin
            .put("/media/a.bin", Object::new(after.clone()));
        gate.open();
        response.join().unwrap()
    });
    assert_is_right_or_fails(&response, &before);
    assert_is_whole(&cached.get(&[]), &after);
}

#[test]
fn another_object_at_each_request_is_never_mixed() {
    let (first, second) = (noise(3 * CHUNK), vec![7; 3 * CHUNK]);
    let stale = |content: &[u8]| Object::new(content.to_vec()).field("cache-control", "no-cache");
    let cached = Cached::with(stale(&first).replaced_from(3, stale(&second)));
    for _ in 0..4 {
        let response = cached.get(&[]);
        let is_prefix = |content: &[u8]| content.starts_with(&response.body);
        match (response.status, response.whole) {
            (200, true) => assert!(response.body == first || response.body == second),
            (200, false) => assert!(is_prefix(&first) || is_prefix(&second)),
            _ => assert_is_gateway_error(&response),
        }
    }
    assert_is_whole(&cached.get(&[]), &second);
}

#[test]
fn content_in_gzip_is_refused() {
    let cached = Cached::with(Object::new(noise(1000)).with(Fault::Gzip));
    assert_is_gateway_error(&cached.get(&[]));
    let requests = cached.origin.requests();
    assert_eq!(requests[0].field("accept-encoding"), Some("identity"));
}

#[test]
fn an_origin_that_is_silent_or_closes_is_an_error() {
    for fault in [
        Fault::Silent,
        Fault::Closed,
        Fault::Status(500),
        Fault::Status(503),
    ] {
        let cached = Cached::with(Object::new("hello").with(fault));
        assert_is_gateway_error(&cached.get(&[]));
        // Others are served.
        cached.origin.put("/media/b.bin", Object::new("other"));
        assert_is_whole(&get(&cached.server, "/media/b.bin", &[]), b"other");
    }
}

#[test]
fn a_fill_that_stalls_ends_the_response() {
    let content = noise(2 * CHUNK);
    let object = Object::new(content.clone()).with(Fault::Stalled(CHUNK as u64 / 2));
    let cached = Cached::with(object);
    assert_is_right_or_fails(&cached.get(&[]), &content);
}

#[test]
fn lengths_and_ranges_of_the_origin_that_are_wrong_give_no_wrong_byte() {
    let content = noise(2 * CHUNK + 100);
    let wrong: [MakeContentRange; 4] = [
        |first, last, length| format!("bytes {}-{last}/{length}", first + 1),
        |first, last, length| format!("bytes {first}-{}/{length}", last - 1),
        |first, last, length| format!("bytes {first}-{last}/{}", length + 1),
        |_, _, length| format!("bytes */{length}"),
    ];
    let mut faults: Vec<Fault> = wrong.into_iter().map(Fault::WrongRange).collect();
    faults.extend([
        Fault::WrongLength(5),
        Fault::WrongLength(-5),
        Fault::RangeBeyond(7),
        Fault::Chunked,
    ]);
    for fault in faults {
        let cached = Cached::with(Object::new(content.clone()).with(fault));
        assert_is_right_or_fails(&cached.get(&[]), &content);
        let range = CHUNK as u64 - 5..CHUNK as u64 + 5;
        let part = cached.get_range(range.clone());
        match (part.status, part.whole) {
            (206, true) => assert_is_part(&part, &Content::Memory(content.clone().into()), range),
            (206, false) => assert!(content[CHUNK - 5..].starts_with(&part.body)),
            _ => assert_is_gateway_error(&part),
        }
    }
}

#[test]
fn nginx_237_a_second_client_gets_the_bytes_of_a_fill_in_progress() {
    const READ: usize = CHUNK / 2;
    let content = noise(2 * CHUNK);
    let gate = Gate::new();
    gate.allow(READ as u64);
    let object = Object::new(content.clone()).with(Fault::Slow(gate.clone()));
    let cached = Cached::with(object);
    let mut clients = [(); 2].map(|()| TcpStream::connect(&cached.server.address).unwrap());
    for client in &mut clients {
        send(client, "bytes=0-");
        // The origin holds back the rest of the chunk.
        let (_, body) = read(client, READ);
        assert!(body == content[..READ]);
    }
    gate.open();
    for client in &mut clients {
        let mut rest = vec![0; content.len() - READ];
        client.read_exact(&mut rest).unwrap();
        assert!(rest == content[READ..]);
    }
    assert_eq!(sent_bytes(&cached.settled_gets()), content.len() as u64);
}

#[test]
fn nginx_1189_each_byte_of_a_fill_wakes_the_clients_that_wait() {
    let content = noise(CHUNK);
    let gate = Gate::new();
    let object = Object::new(content.clone()).with(Fault::Slow(gate.clone()));
    let cached = Cached::with(object);
    let mut clients = [(); 3].map(|()| TcpStream::connect(&cached.server.address).unwrap());
    for client in &mut clients {
        send(client, "bytes=0-");
    }
    gate.allow(1);
    for client in &mut clients {
        assert_eq!(read(client, 1).1, content[..1]);
    }
    for offset in 1..200 {
        gate.allow(offset + 1);
        for client in &mut clients {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            assert_eq!(byte[0], content[usize::try_from(offset).unwrap()]);
        }
    }
    gate.open();
}

#[test]
fn nginx_1065_a_range_across_chunks_that_are_hits_is_whole() {
    let content = noise(3 * CHUNK);
    let cached = Cached::with(Object::new(content.clone()));
    for chunk in [0, 2, 1] {
        let start = chunk * CHUNK as u64;
        cached.get_range(start..start + CHUNK as u64);
    }
    let gets = cached.origin_gets().len();
    let chunk = CHUNK as u64;
    let content = Content::Memory(content.into());
    for range in [
        chunk - 10..chunk + 10,
        10..3 * chunk - 10,
        chunk - 1..2 * chunk + 1,
    ] {
        let part = cached.get_range(range.clone());
        assert_is_part(&part, &content, range);
        assert!(is_hit(&part));
    }
    assert_eq!(cached.origin_gets().len(), gets);
}

#[test]
fn nginx_911_a_revalidation_fetches_no_byte_of_what_is_unchanged() {
    let (object, content) = huge();
    let cached = Cached::with(object.field("cache-control", "max-age=0"));
    let chunk = CHUNK as u64;
    let start = (HUGE / 2).next_multiple_of(chunk);
    let range = start..start + chunk;
    assert_is_part(&cached.get_range(range.clone()), &content, range.clone());
    let before = sent_bytes(&cached.settled_gets());
    assert_is_part(&cached.get_range(range.clone()), &content, range);
    assert_eq!(sent_bytes(&cached.settled_gets()), before);
}

#[test]
fn ats_12092_chunks_of_an_object_are_revalidated_by_one_request() {
    let content = noise(5 * CHUNK);
    let cached = Cached::with(Object::new(content.clone()).field("cache-control", "max-age=0"));
    assert_is_whole(&cached.get(&[]), &content);
    let before = cached.origin.requests().len();
    assert_is_whole(&cached.get(&[]), &content);
    assert_eq!(cached.origin.requests().len(), before + 1);
}

#[test]
fn varnish_4081_an_open_range_of_a_miss_is_206() {
    let content = noise(2 * CHUNK);
    let gate = Gate::new();
    gate.allow(1);
    let object = Object::new(content.clone()).with(Fault::Slow(gate.clone()));
    let cached = Cached::with(object);
    let mut client = TcpStream::connect(&cached.server.address).unwrap();
    send(&mut client, "bytes=0-");
    let (head, _) = read(&mut client, 1);
    assert!(head.starts_with("http/1.1 206 "), "{head}");
    let content_range = format!("content-range: bytes 0-{}/{}\r\n", 2 * CHUNK - 1, 2 * CHUNK);
    assert!(head.contains(&content_range), "{head}");
    gate.open();
}

#[test]
fn varnish_4089_a_part_without_the_length_of_the_whole_harms_nothing() {
    let content = noise(2 * CHUNK);
    let unknown = Fault::WrongRange(|first, last, _| format!("bytes {first}-{last}/*"));
    let object = Object::new(content.clone()).with_in(Requests::First(4), unknown);
    let cached = Cached::with(object);
    let range = 10..20;
    let part = cached.get_range(range.clone());
    match part.status {
        206 => assert_is_part(&part, &Content::Memory(content.clone().into()), range),
        _ => assert_is_gateway_error(&part),
    }
    cached
        .origin
        .put("/media/a.bin", Object::new(content.clone()));
    assert_is_whole(&cached.get(&[]), &content);
}

#[test]
fn varnish_2035_a_second_range_on_a_connection_does_not_wait_for_the_fill_before_it() {
    let content = noise(8 * CHUNK);
    let gate = Gate::new();
    gate.allow(10);
    let object = Object::new(content.clone()).with(Fault::Slow(gate.clone()));
    let cached = Cached::with(object);
    let mut filler = TcpStream::connect(&cached.server.address).unwrap();
    send(&mut filler, "bytes=0-");
    let mut client = TcpStream::connect(&cached.server.address).unwrap();
    for start in [0, 7 * CHUNK] {
        send(&mut client, &format!("bytes={start}-{}", start + 9));
        let (head, body) = read(&mut client, 10);
        assert!(head.starts_with("http/1.1 206 "), "{head}");
        assert_eq!(body, content[start..start + 10]);
    }
    gate.open();
}

#[test]
fn souin_667_a_part_is_not_cached_as_the_whole() {
    let content = noise(2 * CHUNK + 3);
    let cached = Cached::with(Object::new(content.clone()));
    let range = 10..20;
    let part = cached.get_range(range.clone());
    assert_is_part(&part, &Content::Memory(content.clone().into()), range);
    assert_is_whole(&cached.get(&[]), &content);
}

#[test]
fn a_herd_costs_one_get_a_chunk() {
    let content = noise(4 * CHUNK);
    let cached = Cached::with(Object::new(content.clone()));
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| assert_is_whole(&cached.get(&[]), &content));
        }
    });
    assert_eq!(sent_bytes(&cached.settled_gets()), content.len() as u64);
    assert!(cached.origin_gets().len() <= 4);
}

#[test]
fn clients_that_leave_do_not_end_a_fill_for_others() {
    let content = noise(2 * CHUNK);
    let gate = Gate::new();
    gate.allow(1);
    let object = Object::new(content.clone()).with(Fault::Slow(gate.clone()));
    let cached = Cached::with(object);
    let mut first = TcpStream::connect(&cached.server.address).unwrap();
    send(&mut first, "bytes=0-");
    read(&mut first, 1);
    let mut second = TcpStream::connect(&cached.server.address).unwrap();
    send(&mut second, "bytes=0-");
    read(&mut second, 1);
    drop(first);
    gate.open();
    let mut rest = vec![0; content.len() - 1];
    second.read_exact(&mut rest).unwrap();
    assert!(rest == content[1..]);
}

#[test]
fn the_cache_survives_a_restart() {
    let content = noise(2 * CHUNK);
    let mut cached = Cached::with(Object::new(content.clone()));
    assert_is_whole(&cached.get(&[]), &content);
    let gets = cached.origin_gets().len();
    let again = serve(&cached.origin.url(PREFIX), cached.folder.path(), &[], &[]);
    let before = std::mem::replace(&mut cached.server, again);
    assert_eq!(before.stop().0, Some(0));
    assert_is_whole(&cached.get(&[]), &content);
    assert_eq!(cached.origin_gets().len(), gets);
}

#[test]
fn validators_that_are_missing_or_weak_give_no_wrong_byte() {
    let content = noise(3 * CHUNK);
    let object = || Object::new(content.clone());
    for object in [
        object().untagged(),
        object().undated(),
        object().untagged().undated(),
        object().tagged("W/\"weak\""),
        object().with(Fault::IgnoredConditions),
        object().replaced_from(3, object().tagged("\"again\"")),
    ] {
        let cached = Cached::with(object);
        assert_is_right_or_fails(&cached.get(&[]), &content);
        assert_is_right_or_fails(&cached.get(&[]), &content);
    }
}

/// Compares media of a bucket, whole and in a part.
fn compare_bucket(variables: &[(&str, String)], content: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let server = serve("s3://media/films", folder.path(), variables, &[]);
    let range = [("range", "bytes=1048570-1048579")];
    let part = get(&server, "/media/a.bin", &range);
    let memory = Content::Memory(content.to_vec().into());
    assert_is_part(&part, &memory, 1_048_570..1_048_580);
    assert_is_whole(&get(&server, "/media/a.bin", &[]), content);
    assert!(is_hit(&get(&server, "/media/a.bin", &[])));
    assert_eq!(get(&server, "/media/none", &[]).status, 404);
}

#[test]
fn media_of_a_bucket_is_served_with_signed_requests() {
    let s3 = S3Server::start();
    let content = noise(2 * CHUNK + 1);
    s3.put("media", "films/a.bin", &content);
    compare_bucket(&s3.environment(), &content);
    assert!(
        s3.requests()
            .iter()
            .all(|request| request.field("authorization").is_some())
    );
}

#[test]
#[ignore = "needs moto_server"]
fn media_of_a_bucket_of_moto_is_served() {
    let moto = Moto::start();
    let content = noise(2 * CHUNK + 1);
    moto.put("/media", b"");
    moto.put("/media/films/a.bin", &content);
    let variables = [
        ("AWS_ENDPOINT_URL", format!("http://{}", moto.address)),
        ("AWS_ACCESS_KEY_ID", "a".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "b".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    compare_bucket(&variables, &content);
}
