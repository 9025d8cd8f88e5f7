//! The metrics: their names and types, and the counts of requests.

use crate::client::{raw, reset, status};
use crate::host::{Host, noise};
use crate::server::{Server, exchange_by};
use crate::tls::Identity;
use millpond::Outcome;
use millpond::ledger::RequestCount;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Every metric of the command.
const METRICS: [(&str, &str); 34] = [
    ("millpond_admission_queue_length", "gauge"),
    ("millpond_build_info", "gauge"),
    ("millpond_cache_bytes", "gauge"),
    ("millpond_certificate_expiry_timestamp_seconds", "gauge"),
    ("millpond_dropped_spans_total", "counter"),
    ("millpond_heap_allocated_bytes", "gauge"),
    ("millpond_heap_resident_bytes", "gauge"),
    ("millpond_heap_unattributed_bytes", "gauge"),
    ("millpond_in_use", "gauge"),
    ("millpond_in_use_limit", "gauge"),
    ("millpond_leaked_bytes", "gauge"),
    ("millpond_ledger_bytes", "gauge"),
    ("millpond_log_dropped_lines_total", "counter"),
    ("millpond_memory_limit_bytes", "gauge"),
    ("millpond_memory_reservable_bytes", "gauge"),
    ("millpond_memory_reserved_bytes", "gauge"),
    ("millpond_process_anonymous_bytes", "gauge"),
    ("millpond_process_file_bytes", "gauge"),
    ("millpond_ready", "gauge"),
    ("millpond_request_duration_seconds", "histogram"),
    ("millpond_request_peak_bytes", "histogram"),
    ("millpond_requests_total", "counter"),
    ("millpond_response_body_bytes_total", "counter"),
    ("millpond_response_cache_hits_total", "counter"),
    ("millpond_response_cache_misses_total", "counter"),
    ("millpond_route_requests_total", "counter"),
    ("millpond_sockets_bytes", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_max_fds", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
    ("process_threads", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
];

/// Folder of the files for Prometheus and Grafana.
const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

/// The page of the metrics.
const PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/reference/metrics.md"
);

/// The text of `/metrics` for a client that accepts these media types.
fn metrics(server: &Server, accept: &str) -> (String, String) {
    let fields = [("accept", accept)];
    let answer = exchange_by("GET", &server.admin, "/metrics", &fields);
    let answer = String::from_utf8(answer).unwrap();
    let (head, metrics) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    (head.to_owned(), metrics.to_owned())
}

/// A server with each metric: it has TLS, and has answered a request.
fn server_with_each_metric() -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::new();
    let log = folder.path().join("access.log");
    let arguments = identity.arguments();
    let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--admin", "127.0.0.1:0"]);
    arguments.extend(["--access-log", log.to_str().unwrap()]);
    // Nobody listens there.
    arguments.extend(["--otlp-endpoint", "http://127.0.0.1:9"]);
    let server = Server::start(folder.path(), &arguments);
    // A request without TLS is rejected and counted.
    assert!(server.get("/media/a.txt").starts_with("HTTP/1.1 400"));
    (server, folder)
}

#[cfg(target_os = "linux")]
#[test]
fn every_metric_has_its_name_and_type_and_stands_on_the_page() {
    let (server, _folder) = server_with_each_metric();
    let (_, text) = metrics(&server, "*/*");
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut found: Vec<_> = types.map(|line| line.split_once(' ').unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, METRICS, "{text}");

    let page = fs::read_to_string(PAGE).unwrap();
    for (name, _) in METRICS {
        assert!(
            page.contains(&format!("`{name}")),
            "{name} is not on the page"
        );
        let line = text.lines().find(|line| line.starts_with(name));
        assert!(line.is_some(), "{name} has no series: {text}");
    }
    for line in text.lines().filter(|line| line.starts_with("# HELP ")) {
        assert!(line.ends_with('.') && !line.ends_with(".."), "{line}");
    }
    let expiry = "millpond_certificate_expiry_timestamp_seconds ";
    let expiry = text.lines().find_map(|line| line.strip_prefix(expiry));
    // The certificates of `rcgen` are valid until the year 4096.
    assert_eq!(expiry.unwrap().parse::<f64>().unwrap(), 67_090_118_400.0);
    for line in [
        r#"millpond_ready 1"#,
        r#"millpond_route_requests_total{route="/media/*.txt",code="4xx"} 1"#,
        r#"millpond_log_dropped_lines_total{destination="file"} 0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

#[test]
fn the_format_is_the_one_that_the_client_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--admin", "127.0.0.1:0"]);
    for (accept, media_type, end) in [
        ("text/html", "text/plain; version=0.0.4", "\n"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0",
            "# EOF\n",
        ),
    ] {
        let (head, text) = metrics(&server, accept);
        let media_type = format!("content-type: {media_type}; charset=utf-8");
        assert!(head.contains(&media_type), "{head}");
        assert!(text.ends_with(end));
        assert_eq!(text.contains("# EOF"), end == "# EOF\n");
    }
}

/// Runs `promtool` with this standard input, and returns what it finds wrong.
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() {
        String::new()
    } else {
        format!("promtool {arguments:?}: {text}")
    }
}

#[test]
#[ignore = "needs promtool"]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let (server, _folder) = server_with_each_metric();
    let (_, text) = metrics(&server, "text/plain");
    assert_eq!(promtool(&["check", "metrics"], &text), "");
    // It does find something.
    assert_ne!(
        promtool(&["check", "metrics"], "# TYPE a counter\na 1\n"),
        ""
    );
}

#[test]
#[ignore = "needs promtool"]
fn promtool_finds_nothing_wrong_with_the_alerts() {
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "millpond.rules.yml"],
        ["test", "rules", "millpond.rules.test.yml"],
    ] {
        let [command, what, file] = arguments;
        let file = format!("{DEPLOY}/prometheus/{file}");
        assert_eq!(promtool(&[command, what, &file], ""), "");
    }
    let rules: Vec<_> = dashboard_expressions()
        .into_iter()
        .map(|expression| {
            let expression = expression.replace("$__rate_interval", "5m");
            serde_json::json!({ "record": "panel", "expr": expression })
        })
        .collect();
    let rules = serde_json::json!({ "groups": [{ "name": "panels", "rules": rules }] });
    // JSON is YAML.
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), rules.to_string()).unwrap();
    let path = file.path().to_str().unwrap();
    assert_eq!(promtool(&["check", "rules", "--lint=none", path], ""), "");
}

/// Returns the expressions of the dashboard's panels.
fn dashboard_expressions() -> Vec<String> {
    let dashboard = fs::read_to_string(format!("{DEPLOY}/grafana/millpond.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let expressions = targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap());
    expressions.map(str::to_owned).collect()
}

/// Returns the names of metrics in a text: words that begin as ours do.
fn names(text: &str) -> BTreeSet<&str> {
    // Names of recorded series have colons.
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let words = text.split(|c| !is_of_name(c));
    let is_name = |word: &&str| word.starts_with("millpond_") || word.starts_with("process_");
    words.filter(is_name).collect()
}

#[test]
fn every_metric_of_the_dashboard_and_the_alerts_exists() {
    let read = |file: &str| fs::read_to_string(format!("{DEPLOY}/{file}")).unwrap();
    let mut expressions = dashboard_expressions();
    assert!(expressions.len() > 20, "{expressions:?}");
    expressions.push(read("prometheus/millpond.rules.yml"));
    expressions.push(read("prometheus/millpond.rules.test.yml"));
    let mut unknown = BTreeSet::new();
    for expression in &expressions {
        for name in names(expression) {
            let metric = METRICS.iter().find(|(metric, of_type)| {
                let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{metric}{part}"));
                match *of_type {
                    "histogram" => parts.iter().any(|part| part == name),
                    _ => name == *metric,
                }
            });
            if metric.is_none() {
                unknown.insert(name);
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:?}");
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
