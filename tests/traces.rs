//! Traces: the span of a request as a collector gets it, and collectors that are slow, wrong or gone.

use crate::client::reset;
use crate::server::Server;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream as AsyncTcpStream;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A span, with the attributes of its process.
struct Received {
    span: Span,
    process: Vec<KeyValue>,
}

/// A collector that keeps what it gets.
struct Collector {
    url: String,
    received: Receiver<Received>,
}

impl Collector {
    fn start() -> Self {
        Collector::answering(Vec::new())
    }

    /// One whose first responses have these statuses. The others are 200.
    fn answering(statuses: Vec<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, received) = channel();
        std::thread::spawn(move || {
            let mut statuses = statuses.into_iter();
            for stream in listener.incoming() {
                collect(stream.unwrap(), &sender, &mut statuses);
            }
        });
        Collector { url, received }
    }

    /// The next span. A test fails if there is none.
    fn next(&self) -> Received {
        self.received.recv_timeout(Duration::from_secs(60)).unwrap()
    }
}

/// Answers the requests of one connection.
fn collect(stream: TcpStream, sender: &Sender<Received>, statuses: &mut impl Iterator<Item = u16>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.to_lowercase());
        }
        assert_eq!(head[0], "post /v1/traces http/1.1\r\n");
        assert!(head.contains(&"content-type: application/x-protobuf\r\n".to_owned()));
        let length = head
            .iter()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut content = vec![0; length.unwrap().trim().parse().unwrap()];
        reader.read_exact(&mut content).unwrap();
        let request = ExportTraceServiceRequest::decode(&content[..]).unwrap();
        for of_process in request.resource_spans {
            let process = of_process.resource.unwrap().attributes;
            let spans = of_process.scope_spans.into_iter();
            for span in spans.flat_map(|of_scope| of_scope.spans) {
                let process = process.clone();
                // A test may have ended.
                let _ = sender.send(Received { span, process });
            }
        }
        let status = statuses.next().unwrap_or(200);
        let response = format!("HTTP/1.1 {status} -\r\ncontent-length: 0\r\n\r\n");
        reader.get_mut().write_all(response.as_bytes()).unwrap();
    }
}

fn value<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match &found.value {
        Some(AnyValue { value }) => value.as_ref(),
        None => None,
    }
}

fn text(span: &Span, name: &str) -> Option<String> {
    match value(&span.attributes, name)? {
        Value::StringValue(text) => Some(text.clone()),
        other => panic!("{name} is {other:?}"),
    }
}

fn number(span: &Span, name: &str) -> Option<i64> {
    match value(&span.attributes, name)? {
        Value::IntValue(number) => Some(*number),
        other => panic!("{name} is {other:?}"),
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    folder
}

/// A server that sends its spans to this URL, at once.
fn server(folder: &tempfile::TempDir, url: &str, arguments: &[&str]) -> Server {
    let soon = [("OTEL_BSP_SCHEDULE_DELAY", "10")];
    server_with(folder, url, &soon, arguments)
}

fn server_with(
    folder: &tempfile::TempDir,
    url: &str,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> Server {
    let mut all = vec!["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    all.extend(["--otlp-endpoint", url, "--log-format", "json"]);
    all.extend(arguments);
    Server::listening_as_told(folder.path(), variables, &all)
}

/// Count of `millpond_dropped_spans_total` with this reason.
fn dropped(server: &Server, reason: &str) -> u64 {
    let metrics = server.get_admin("/metrics");
    let name = format!("millpond_dropped_spans_total{{reason=\"{reason}\"}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
    count.unwrap().parse().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// Checks what the span of a request for `a.txt` has, whatever the version of HTTP.
fn is_of_the_file(span: &Span, address: &str, version: &str) {
    assert_eq!(span.name, "GET /media/*.txt");
    assert_eq!(span.kind, SpanKind::Server as i32);
    assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    let (host, port) = address.rsplit_once(':').unwrap();
    for (name, expected) in [
        ("http.request.method", "GET"),
        ("url.path", "/media/a.txt"),
        ("url.scheme", "http"),
        ("http.route", "/media/*.txt"),
        ("network.protocol.version", version),
        ("server.address", host),
        ("client.address", "127.0.0.1"),
        ("user_agent.original", "test/1"),
        ("millpond.outcome", "completed"),
        ("millpond.request_id", "id-1"),
    ] {
        assert_eq!(text(span, name).as_deref(), Some(expected), "{name}");
    }
    assert_eq!(number(span, "server.port"), port.parse().ok());
    assert_eq!(number(span, "http.response.status_code"), Some(200));
    assert_eq!(number(span, "millpond.body_bytes_sent"), Some(5));
    assert!(number(span, "millpond.peak_bytes").unwrap() > 0);
    assert_eq!(value(&span.attributes, "error.type"), None);
    assert!(span.status.as_ref().is_none_or(|status| status.code == 0));
    assert_eq!(hex(&span.trace_id), TRACE);
    assert_eq!(hex(&span.parent_span_id), PARENT);
    assert_eq!(span.trace_state, "a=1");
}

#[test]
fn a_request_makes_one_span_with_its_parent_and_its_facts() {
    let (folder, collector) = (folder(), Collector::start());
    let server = server(&folder, &collector.url, &[]);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let mut caches = Vec::new();
    // The first responses come from the component, and the others from the cache.
    while caches.len() < 4 {
        let fields = [
            ("user-agent", "test/1"),
            ("x-request-id", "id-1"),
            ("traceparent", &parent),
            ("tracestate", "a=1"),
        ];
        let response = server.ask_with("GET", "/media/a.txt", &fields);
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        let Received { span, process } = collector.next();
        is_of_the_file(&span, &server.address, "1.1");
        caches.push(text(&span, "millpond.cache").unwrap());
        let name = value(&process, "service.name");
        assert_eq!(name, Some(&Value::StringValue("millpond".into())));
        let line = server.wait_for_log(&hex(&span.span_id));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["trace.id"], TRACE);
        assert_eq!(line["span.id"], hex(&span.span_id));
    }
    assert_eq!((&*caches[0], &*caches[3]), ("miss", "hit"));
    assert_eq!(server.stop().0, Some(0));
    assert!(
        collector.received.try_recv().is_err(),
        "a request made two spans"
    );
}

#[tokio::test]
async fn a_request_of_http_2_makes_the_same_span() {
    let (folder, collector) = (folder(), Collector::start());
    let server = server(&folder, &collector.url, &[]);
    let stream = AsyncTcpStream::connect(&server.address).await.unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..4 {
        let request = Request::get(format!("http://{}/media/a.txt", server.address))
            .header("user-agent", "test/1")
            .header("x-request-id", "id-1")
            .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
            .header("tracestate", "a=1")
            .body(Empty::<Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        let content = response.into_body().collect().await.unwrap();
        assert_eq!(content.to_bytes(), "hello");
        is_of_the_file(&collector.next().span, &server.address, "2");
    }
}

#[test]
fn a_wrong_parent_begins_a_trace_and_a_parent_that_is_not_sampled_has_no_span() {
    let (folder, collector) = (folder(), Collector::start());
    let server = server(&folder, &collector.url, &[]);
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let [short, upper] = [&sampled[..54], &sampled.to_uppercase()].map(str::to_owned);
    for fields in [
        &[][..],
        &[("traceparent", "")],
        &[("traceparent", &short)],
        &[("traceparent", &upper)],
        &[("traceparent", &sampled), ("traceparent", &sampled)],
        &[("tracestate", "a=1")],
    ] {
        server.ask_with("GET", "/media/a.txt", &[("traceparent", &*unsampled)]);
        server.ask_with("GET", "/media/a.txt", fields);
        let span = collector.next().span;
        assert!(span.parent_span_id.is_empty(), "{fields:?}");
        assert_ne!(hex(&span.trace_id), TRACE);
        assert_eq!(span.trace_state, "");
    }
    // A long state is dropped. Its parent stays.
    for (length, is_kept) in [(512, true), (513, false)] {
        let members = ["a=", &"x".repeat(254), ",b=", &"y".repeat(length - 259)].concat();
        assert_eq!(members.len(), length);
        let fields = [("traceparent", &*sampled), ("tracestate", &members)];
        server.ask_with("GET", "/media/a.txt", &fields);
        let span = collector.next().span;
        assert_eq!(hex(&span.parent_span_id), PARENT);
        assert_eq!(span.trace_state, if is_kept { &*members } else { "" });
    }
    assert_eq!(server.stop().0, Some(0));
    assert!(collector.received.try_recv().is_err());
}

#[test]
fn a_span_has_no_secret_and_no_name_of_a_clients_making() {
    let (folder, collector) = (folder(), Collector::start());
    let server = server(&folder, &collector.url, &[]);
    server.ask_with("BREW", "/media/none?w=1&sig=c2VjcmV0", &[]);
    let span = collector.next().span;
    assert_eq!(span.name, "HTTP /media/none");
    assert_eq!(text(&span, "url.query").unwrap(), "w=1&sig=[redacted]");
    assert_eq!(text(&span, "http.request.method").unwrap(), "_OTHER");
    assert_eq!(text(&span, "http.request.method_original").unwrap(), "BREW");
    assert!(!format!("{span:?}").contains("c2VjcmV0"));
}

#[tokio::test]
async fn a_response_that_its_client_leaves_is_marked() {
    let (folder, collector) = (folder(), Collector::start());
    let large = fs::File::create(folder.path().join("large.bin")).unwrap();
    large.set_len(256 << 20).unwrap();
    let server = server(&folder, &collector.url, &[]);
    let mut stream = AsyncTcpStream::connect(&server.address).await.unwrap();
    let request = b"GET /media/large.bin HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream.read_exact(&mut [0; 1000]).await.unwrap();
    reset(stream);
    let span = collector.next().span;
    assert_eq!(text(&span, "millpond.outcome").unwrap(), "aborted");
    assert_eq!(text(&span, "error.type").unwrap(), "aborted");
    assert_eq!(number(&span, "http.response.status_code"), Some(200));
    assert!(number(&span, "millpond.body_bytes_sent").unwrap() < 256 << 20);
    assert_eq!(span.status.unwrap().code, StatusCode::Error as i32);
}

#[test]
fn a_collector_that_never_answers_delays_no_request_and_the_rest_is_dropped_and_counted() {
    /// More than the queue holds, by number.
    const REQUESTS: u64 = 2300;
    let folder = folder();
    // The kernel accepts connections for it, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let patient = [
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000"),
    ];
    let server = server_with(&folder, &url, &patient, &["--access-log", "off"]);
    for _ in 0..REQUESTS {
        assert_eq!(server.answer("/media/a.txt"), (200, b"hello".to_vec()));
    }
    let full = dropped(&server, "full");
    assert!((REQUESTS - 2048..REQUESTS).contains(&full), "{full}");
    assert_eq!(dropped(&server, "failed"), 0);
    let (code, log) = server.stop();
    assert_eq!(code, Some(0));
    assert!(log.contains("did not take all traces"), "{log}");
}

#[test]
fn spans_that_wait_are_sent_at_the_end() {
    let (folder, collector) = (folder(), Collector::start());
    let never = [("OTEL_BSP_SCHEDULE_DELAY", "3600000")];
    let server = server_with(&folder, &collector.url, &never, &[]);
    for _ in 0..3 {
        server.get("/media/a.txt");
    }
    assert!(collector.received.try_recv().is_err());
    assert_eq!(server.stop().0, Some(0));
    assert_eq!(collector.received.try_iter().count(), 3);
}

#[test]
fn a_collector_that_refuses_spans_is_logged_once_and_once_more_when_it_takes_them() {
    let (folder, collector) = (folder(), Collector::answering(vec![400, 400, 400]));
    let server = server(&folder, &collector.url, &[]);
    for _ in 0..5 {
        server.get("/media/a.txt");
        // Each is a batch of its own.
        collector.next();
    }
    let (refused, again) = ("does not take traces", "takes traces again");
    server.wait_for_log(again);
    assert_eq!(dropped(&server, "failed"), 3);
    let (_, log) = server.stop();
    for line in [refused, again] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
}

#[test]
fn without_a_collector_there_are_no_spans() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--admin", "127.0.0.1:0"]);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    server.ask_with("GET", "/media/a.txt", &[("traceparent", &parent)]);
    assert!(!server.get_admin("/metrics").contains("dropped_spans"));
    let (_, log) = server.stop();
    assert!(
        log.contains("outcome=completed") && !log.contains("trace_id"),
        "{log}"
    );
}

#[test]
fn a_variable_of_opentelemetry_turns_traces_on_and_sampling_off() {
    let (folder, collector) = (folder(), Collector::start());
    let arguments = ["--listen", "127.0.0.1:0"];
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.url),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ("OTEL_SERVICE_NAME", "media"),
    ];
    let server = Server::listening_as_told(folder.path(), &variables, &arguments);
    server.get("/media/a.txt");
    let name = value(&collector.next().process, "service.name").cloned();
    assert_eq!(name, Some(Value::StringValue("media".into())));
    drop(server);
    let never = [&variables[..], &[("OTEL_TRACES_SAMPLER", "always_off")]].concat();
    let server = Server::listening_as_told(folder.path(), &never, &arguments);
    server.get("/media/a.txt");
    let (code, log) = server.stop();
    assert!(code == Some(0) && !log.contains("trace_id"), "{log}");
    assert!(collector.received.try_recv().is_err());
}

#[test]
fn a_collector_that_is_no_url_is_one_line_and_no_start() {
    let folder = folder();
    let file = folder.path().join("millpond.toml");
    fs::write(
        &file,
        "listen = \"127.0.0.1:0\"\notlp-endpoint = \"localhost:4317\"\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let said = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        let output = command.args(arguments).envs(variables.iter().copied());
        let output = output.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let needed = "a URL of http or https is needed, as in http://127.0.0.1:4318\n";
    let of_file = format!("millpond: {file}:2: otlp-endpoint: {needed}");
    assert_eq!(said(&["config", "check", file], &[]), of_file);
    let serve = ["serve", folder.path().to_str().unwrap()];
    assert_eq!(
        said(&[&serve[..], &["--config", file]].concat(), &[]),
        of_file
    );
    let variable = ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317");
    let of_variable = format!("millpond: OTEL_EXPORTER_OTLP_ENDPOINT: {needed}");
    assert_eq!(said(&serve, &[variable]), of_variable);
    let of_option = said(&[&serve[..], &["--otlp-endpoint", "ftp://a"]].concat(), &[]);
    assert!(of_option.contains(needed.trim_end()), "{of_option}");
}
