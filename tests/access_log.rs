//! The access log: what each request's line has, and the file that it is in.

use crate::client::raw;
use crate::host::Host;
use crate::server::{Server, exchange};
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use tokio::net::TcpStream as AsyncTcpStream;

/// A folder with `a.txt`, and the path of a log beside it.
fn folder() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let media = folder.path().join("media");
    fs::create_dir(&media).unwrap();
    fs::write(media.join("a.txt"), "hello").unwrap();
    let log = folder.path().join("access.log");
    (folder, media, log)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The value of a field in a response, as text.
fn field<'a>(response: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = response.split_once("\r\n\r\n")?;
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find_map(|(found, value)| found.eq_ignore_ascii_case(name).then_some(value))
}

#[test]
fn a_request_id_is_taken_or_made_logged_and_given_back() {
    let (_folder, media, _) = folder();
    let server = Server::start(&media, &["--log-format", "json"]);
    // The first comes from the component and the second from the cache.
    for target in ["/media/a.txt", "/media/a.txt", "/media/none", "/media/a%00"] {
        for (method, sent) in [
            ("GET", "id-1"),
            ("HEAD", "0192f0c1-5d2c-7c39"),
            ("POST", "x=1"),
        ] {
            let fields = [("x-request-id", sent)];
            let response = server.ask_with(method, target, &fields);
            assert_eq!(field(&response, "x-request-id"), Some(sent), "{response}");
        }
        for sent in [
            &[][..],
            &[("x-request-id", "a b")],
            &[("X-Request-Id", "a\"b")],
        ] {
            let response = server.ask_with("GET", target, sent);
            let made = field(&response, "x-request-id").unwrap();
            assert_eq!(made.len(), 32, "{response}");
            let line = server.wait_for_log(made);
            assert!(
                line.contains(&format!("\"http.request.id\":\"{made}\"")),
                "{line}"
            );
            assert_eq!(response.matches("x-request-id").count(), 1, "{response}");
        }
    }
    // A head that makes no request.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream
        .write_all(b"GET / HTTP/9.9\r\nx-request-id: forged\r\n\r\n")
        .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    server.wait_for_log(field(&response, "x-request-id").unwrap());
}

#[tokio::test]
async fn a_request_id_of_http_2_is_given_back_too() {
    let host = Host::start().await;
    host.write("a.txt", b"hello");
    let stream = AsyncTcpStream::connect(host.address).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    for path in ["a.txt", "a.txt", "none"] {
        let request = || Request::get(format!("http://{}/media/{path}", host.address));
        let with_id = request()
            .header("x-request-id", "id-1")
            .body(Empty::<Bytes>::new());
        let response = sender.send_request(with_id.unwrap()).await.unwrap();
        assert_eq!(response.headers()["x-request-id"], "id-1");
        let without = request().body(Empty::new()).unwrap();
        let response = sender.send_request(without).await.unwrap();
        assert_eq!(response.headers()["x-request-id"].len(), 32);
    }
    assert!(host.registry().response_cache_hits() > 0);
    // Two lines of HTTP/1.1 are no id.
    let two = b"GET /media/a.txt HTTP/1.1\r\nhost: a\r\nx-request-id: a\r\nx-request-id: b\r\nconnection: close\r\n\r\n";
    let response = raw(host.address, two).await;
    let response = String::from_utf8_lossy(&response);
    assert_eq!(field(&response, "x-request-id").map(str::len), Some(32));
}

#[test]
fn a_line_names_the_client_behind_trusted_proxies_and_its_agent() {
    let (_folder, media, log) = folder();
    let arguments = ["--trusted-proxy", "127.0.0.1", "--access-log", text(&log)];
    let server = Server::start(
        &media,
        &[&arguments[..], &["--log-format", "combined"]].concat(),
    );
    let mut expected = Vec::new();
    for (status, target) in [
        (200, "/media/a.txt"),
        (200, "/media/a.txt"),
        (404, "/media/none"),
    ] {
        for (forwarded, client) in [
            ("203.0.113.7", "203.0.113.7"),
            ("x, 2001:db8::1", "2001:db8::1"),
        ] {
            let fields = [
                ("x-forwarded-for", forwarded),
                ("referer", "https://a.example/?a=\"b\""),
                ("user-agent", "Mozilla/5.0 (\u{e4})"),
            ];
            let response = server.ask_with("GET", target, &fields);
            let length = response.split_once("\r\n\r\n").unwrap().1.len();
            expected.push(format!(
                "{client} \"GET {target} HTTP/1.1\" {status} {length} \
                 \"https://a.example/?a=\\\"b\\\"\" \"Mozilla/5.0 (\\xc3\\xa4)\""
            ));
        }
    }
    drop_gracefully(server);
    let lines = fs::read_to_string(&log).unwrap();
    let without_time = |line: &str| {
        let (client, rest) = line.split_once(" - - [").unwrap();
        format!("{client} {}", rest.split_once("] ").unwrap().1)
    };
    assert_eq!(
        lines.lines().map(without_time).collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn every_field_stands_on_the_page() {
    const PAGE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/metrics.md"
    );
    let page = fs::read_to_string(PAGE).unwrap();
    let (_folder, media, _) = folder();
    for format in ["text", "json"] {
        let server = Server::start(&media, &["--log-format", format]);
        let fields = [("referer", "https://a.example/"), ("user-agent", "b")];
        server.ask_with("GET", "/media/none", &fields);
        let line = server.wait_for_log("/media/none");
        let names: Vec<String> = match serde_json::from_str(&line) {
            Ok(serde_json::Value::Object(fields)) => fields.keys().cloned().collect(),
            _ => {
                let fields = line.split(' ').filter_map(|word| word.split_once('='));
                fields.map(|(name, _)| name.to_owned()).collect()
            }
        };
        assert!(names.len() >= 16, "{line}");
        for name in names {
            assert!(
                page.contains(&format!("`{name}`")),
                "{name} is not on the page"
            );
        }
    }
}

/// Ends a server, which writes its last lines.
fn drop_gracefully(server: Server) -> String {
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    log
}

#[test]
fn why_a_request_is_refused_stands_in_its_line() {
    let (_folder, media, _) = folder();
    let large = fs::File::create(media.join("large.bin")).unwrap();
    large.set_len(64 << 20).unwrap();
    let assert_reason = |server: &Server, status: &str, reason: &str| {
        let line = server.wait_for_log(&format!("status={status} "));
        assert!(line.ends_with(&format!("reason=\"{reason}\"")), "{line}");
    };
    let server = Server::start(&media, &[]);
    for (target, range, status, reason) in [
        ("/media/none", "", "404", "Media not found"),
        ("/media/a%00", "", "400", "Malformed path"),
        ("/media/a.txt", "bytes=9-", "416", "Range not satisfiable"),
    ] {
        server.ask_with("GET", target, &[("range", range)]);
        assert_reason(&server, status, reason);
    }
    let server = Server::start(&media, &["--client-concurrency", "1"]);
    let mut busy = TcpStream::connect(&server.address).unwrap();
    busy.write_all(b"GET /media/large.bin HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    busy.read_exact(&mut [0]).unwrap();
    server.get("/media/a.txt");
    let reason = "the client has 1 requests in flight, its maximum";
    assert_reason(&server, "429", reason);
}

#[cfg(unix)]
#[test]
fn a_file_takes_the_lines_and_a_signal_opens_it_again() {
    use rustix::process::Signal;
    let (folder, media, log) = folder();
    let rotated = folder.path().join("access.log.1");
    let server = Server::start(&media, &["--access-log", text(&log)]);
    server.get("/media/a.txt?before");
    // The line is written within milliseconds.
    while !fs::read_to_string(&log).unwrap().contains("?before") {}
    fs::rename(&log, &rotated).unwrap();
    server.signal(Signal::USR1);
    server.wait_for_log("reopened");
    server.get("/media/a.txt?after");
    let events = drop_gracefully(server);
    let [before, after] = [&rotated, &log].map(|path| fs::read_to_string(path).unwrap());
    assert_eq!((before.lines().count(), after.lines().count()), (1, 1));
    assert!(before.contains("target=/media/a.txt?before") && after.contains("?after"));
    assert!(!events.contains("target=/media"), "{events}");
}

#[test]
fn no_line_is_written_where_there_is_to_be_none() {
    let (_folder, media, _) = folder();
    let server = Server::start(&media, &["--access-log", "off"]);
    let response = server.get("/media/a.txt");
    assert!(field(&response, "x-request-id").is_some());
    let log = drop_gracefully(server);
    assert!(
        !log.contains("/media/a.txt") && log.contains("shutting down"),
        "{log}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_delays_nobody_and_its_lost_lines_are_counted() {
    let (_folder, media, _) = folder();
    let arguments = ["--access-log", "/dev/full", "--admin", "127.0.0.1:0"];
    let server = Server::start(&media, &arguments);
    for _ in 0..100 {
        assert_eq!(server.answer("/media/a.txt").0, 200);
    }
    let line = server.wait_for_log("cannot write access log /dev/full: No space left on device");
    assert!(line.contains("ERROR"), "{line}");
    let lost = || {
        let metrics = exchange(&server.admin, "/metrics");
        let name = "millpond_log_dropped_lines_total{destination=\"file\"} 100";
        String::from_utf8(metrics).unwrap().contains(name)
    };
    while !lost() {}
    let log = drop_gracefully(server);
    assert_eq!(log.matches("cannot write access log").count(), 1, "{log}");
}

#[test]
fn levels_are_by_target() {
    let (_folder, media, _) = folder();
    let levels = "warn,millpond::access=info";
    let server = Server::start(&media, &["--log-level", levels]);
    server.get("/media/a.txt");
    let log = drop_gracefully(server);
    assert!(log.contains("target=/media/a.txt status=200"), "{log}");
    assert!(!log.contains("shutting down"), "{log}");

    let server = Server::start(
        &media,
        &["--log-level", "millpond::access=off,millpond_server=debug"],
    );
    server.get("/media/a.txt");
    // A connection that ends in the middle of a head.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(b"GET /").unwrap();
    let log = drop_gracefully(server);
    assert!(
        !log.contains("target=/media/a.txt") && log.contains("shutting down"),
        "{log}"
    );
}

/// Once, a line said that such a request was aborted, and another one why.
#[test]
fn a_response_that_the_server_cuts_has_the_reason_in_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let large = fs::File::create(folder.path().join("large.bin")).unwrap();
    large.set_len(64 << 20).unwrap();
    for (arguments, reason) in [
        (["--shutdown-grace", "1ms"], "shutdown"),
        (["--response-timeout", "1s"], "response timeout"),
    ] {
        let server = Server::start(folder.path(), &arguments);
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream
            .write_all(b"GET /media/large.bin HTTP/1.1\r\nhost: a\r\n\r\n")
            .unwrap();
        stream.read_exact(&mut [0]).unwrap();
        if reason != "shutdown" {
            server.wait_for_log("outcome=aborted");
        }
        let log = drop_gracefully(server);
        let line = log
            .lines()
            .find(|line| line.contains("outcome=aborted"))
            .unwrap();
        assert!(line.ends_with(&format!("reason=\"{reason}\"")), "{line}");
    }
}
