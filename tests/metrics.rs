//! The metrics: their names and types, and the counts of requests.

use crate::client::{raw, reset, status};
use crate::host::{Host, noise};
use crate::server::{Server, exchange};
use millpond::Outcome;
use millpond::ledger::RequestCount;
use std::collections::BTreeMap;
use std::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Every metric of the command, by its name without the suffix that its type adds.
const METRICS: [(&str, &str); 27] = [
    ("millpond_admission_queue_length", "gauge"),
    ("millpond_build_info", "gauge"),
    ("millpond_cache_bytes", "gauge"),
    ("millpond_heap_allocated_bytes", "gauge"),
    ("millpond_heap_resident_bytes", "gauge"),
    ("millpond_heap_unattributed_bytes", "gauge"),
    ("millpond_in_use", "gauge"),
    ("millpond_leaked_bytes", "gauge"),
    ("millpond_ledger_bytes", "gauge"),
    ("millpond_log_dropped_lines", "counter"),
    ("millpond_memory_limit_bytes", "gauge"),
    ("millpond_memory_reservable_bytes", "gauge"),
    ("millpond_memory_reserved_bytes", "gauge"),
    ("millpond_process_anonymous_bytes", "gauge"),
    ("millpond_process_file_bytes", "gauge"),
    ("millpond_request_duration_seconds", "histogram"),
    ("millpond_request_peak_bytes", "histogram"),
    ("millpond_requests", "counter"),
    ("millpond_response_body_bytes", "counter"),
    ("millpond_response_cache_hits", "counter"),
    ("millpond_sockets_bytes", "gauge"),
    ("process_cpu_seconds", "counter"),
    ("process_max_fds", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
];

/// The page of the metrics.
const PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/reference/metrics.md"
);

/// The text of `/metrics`.
fn metrics(server: &Server) -> String {
    let answer = String::from_utf8(exchange(&server.admin, "/metrics")).unwrap();
    let (head, metrics) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    metrics.to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn every_metric_has_its_name_and_type_and_stands_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    let server = Server::start(folder.path(), &["--admin", "127.0.0.1:0"]);
    assert!(server.get("/media/a.txt").starts_with("HTTP/1.1 200"));
    let text = metrics(&server);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut found: Vec<_> = types.map(|line| line.split_once(' ').unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, METRICS, "{text}");

    let page = fs::read_to_string(PAGE).unwrap();
    for (name, of_type) in METRICS {
        let name = match of_type {
            "counter" => format!("{name}_total"),
            _ => name.to_owned(),
        };
        assert!(
            page.contains(&format!("`{name}")),
            "{name} is not on the page"
        );
        let line = text.lines().find(|line| line.starts_with(&name));
        assert!(line.is_some(), "{name} has no series: {text}");
    }
    for line in text.lines().filter(|line| line.starts_with("# HELP ")) {
        assert!(line.ends_with('.') && !line.ends_with(".."), "{line}");
    }
}

/// The counts above zero, by outcome, method and class.
fn counts(host: &Host) -> BTreeMap<String, u64> {
    let counts = host.registry().request_counts();
    let counts = counts.filter(|count: &RequestCount| count.count > 0);
    counts
        .map(|count| {
            let RequestCount {
                outcome,
                method,
                code,
                count,
                ..
            } = count;
            (format!("{outcome} {method} {code}"), count)
        })
        .collect()
}

#[tokio::test]
async fn requests_are_counted_by_outcome_method_and_status_class() {
    let host = Host::start().await;
    host.write("a.txt", b"hello");
    host.write("big.bin", &noise(32 << 20));
    let tag = host.strong_tag("/media/a.txt").await;
    host.registry().idle().await;
    let heads = counts(&host)["completed HEAD 2xx"];
    let target = "/media/a.txt";
    for (method, target, fields, expected) in [
        ("GET", target, &[][..], 200),
        ("GET", target, &[("range", "bytes=1-2")], 206),
        ("GET", target, &[("if-none-match", tag.as_str())], 304),
        ("GET", "/media/none", &[], 404),
        ("GET", target, &[("range", "bytes=9-")], 416),
        ("HEAD", target, &[], 200),
        ("HEAD", "/media/none", &[], 404),
        ("OPTIONS", target, &[], 204),
        ("POST", target, &[], 405),
        ("BREW", target, &[], 405),
        ("MOVE", target, &[], 405),
    ] {
        let response = host.request(method, target, fields).await;
        assert_eq!(response.status, expected, "{method} {target} {fields:?}");
    }
    // Heads that the host rejects, and one that the parser does.
    for head in [
        "GET /media/a.txt HTTP/1.1\r\n\r\n",
        "HEAD /media/a.txt HTTP/1.1\r\n\r\n",
        "BREW /media/a.txt HTTP/9.9\r\n\r\n",
    ] {
        let answer = raw(host.address, head.as_bytes()).await;
        assert_eq!(status(&answer), Some(400), "{head}");
    }
    // A client that leaves in the middle of a response.
    let bytes = host.registry().response_body_bytes();
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    let head = b"GET /media/big.bin HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(head).await.unwrap();
    stream.read_exact(&mut [0; 1000]).await.unwrap();
    reset(stream);
    host.registry().idle().await;
    let expected = [
        ("completed GET 2xx", 2),
        ("completed GET 3xx", 1),
        ("completed GET 4xx", 2),
        ("completed HEAD 2xx", heads + 1),
        ("completed HEAD 4xx", 1),
        ("completed OPTIONS 2xx", 1),
        ("completed POST 4xx", 1),
        ("completed other 4xx", 2),
        ("rejected GET 4xx", 1),
        ("rejected HEAD 4xx", 1),
        ("rejected other 4xx", 1),
        ("aborted GET 2xx", 1),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(key, count)| (key.to_owned(), count)).into();
    assert_eq!(counts(&host), expected);
    assert_eq!(
        host.registry().ended_requests(Outcome::Completed),
        10 + heads + 1
    );
    let aborted = host.registry().response_body_bytes() - bytes;
    assert!((1..32 << 20).contains(&aborted), "{aborted}");
}

#[tokio::test]
async fn bytes_of_bodies_are_counted_and_those_of_heads_are_not() {
    let host = Host::start().await;
    host.write("a.bin", &noise(100_000));
    assert_eq!(host.get("/media/a.bin").await.body.len(), 100_000);
    let part = [("range", "bytes=0-999")];
    host.request("GET", "/media/a.bin", &part).await;
    host.request("HEAD", "/media/a.bin", &[]).await;
    host.registry().idle().await;
    assert_eq!(host.registry().response_body_bytes(), 101_000);
}
