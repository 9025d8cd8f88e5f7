//! The memory of a whole process: bounded under a flood, given back after it, and a leak named while it is young.

use crate::client::{raw, status};
use crate::frames::{self, Frame, kind};
use crate::host::{Host, noise};
use crate::origin::fault_origin::FaultOrigin;
use crate::origin::object::Object;
use crate::server::Server;
use crate::tls::Identity;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
const INITIAL_WINDOW: u16 = 4;

/// Thousands of sockets take as many files, here too.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

fn address(server: &Server) -> SocketAddr {
    server.address.parse().unwrap()
}

fn bytes(memory: &Value, path: &str) -> u64 {
    let figure = memory.pointer(path).unwrap_or_else(|| panic!("{path}"));
    figure.as_u64().unwrap()
}

/// Asks again and again until the figures are as wanted.
async fn until(server: &Server, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let memory = server.ask("/memory");
        if wanted(&memory) {
            return memory;
        }
        tokio::task::yield_now().await;
    }
}

fn nothing_is_held(memory: &Value) -> bool {
    [
        "/ledger/total_bytes",
        "/in_use/instances",
        "/in_use/response_bodies",
        "/in_use/files",
        "/budget/reserved_bytes",
    ]
    .iter()
    .all(|path| bytes(memory, path) == 0)
}

/// A client that asks for a file, reads a little of the answer and then nothing.
async fn stalled(address: SocketAddr, target: &str) -> (TcpStream, Option<u16>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    let status = match stream.read_exact(&mut begin).await {
        Ok(_) => status(&begin),
        Err(_) => None,
    };
    (stream, status)
}

fn high_water_bytes(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kibibytes * 1024
}

/// A server with a bound that is flooded, and what was seen of it meanwhile.
struct Flooded {
    server: Server,
    bound_bytes: u64,
    most_kernel_bytes: std::cell::Cell<u64>,
    _folder: tempfile::TempDir,
    _origin: Option<FaultOrigin>,
}

impl Flooded {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("big.mp4"), vec![7; 5_000_000]).unwrap();
        fs::write(folder.path().join("small.gif"), noise(50_000)).unwrap();
        let media = folder.path().to_owned();
        Flooded::of(&media, folder, None)
    }

    /// One whose media is at an origin, and whose cache has none of it yet.
    fn start_cold() -> Self {
        let origin = FaultOrigin::start();
        origin.put("/big.mp4", Object::new(vec![7; 5_000_000]));
        origin.put("/small.gif", Object::new(noise(50_000)));
        let url = origin.url("");
        Flooded::of(Path::new(&url), tempfile::tempdir().unwrap(), Some(origin))
    }

    fn of(media: &Path, folder: tempfile::TempDir, origin: Option<FaultOrigin>) -> Self {
        raise_open_files();
        let cache = folder.path().join("cache");
        let bound = ["--memory-limit", "256MiB"];
        let cache = ["--cache-dir", cache.to_str().unwrap()];
        let server = Server::start(media, &[&ADMIN[..], &bound, &cache].concat());
        let bound_bytes = bytes(&server.ask("/memory"), "/memory_limit_bytes");
        assert_eq!(bound_bytes, 256 << 20);
        Flooded {
            server,
            bound_bytes,
            most_kernel_bytes: std::cell::Cell::default(),
            _folder: folder,
            _origin: origin,
        }
    }

    fn address(&self) -> SocketAddr {
        address(&self.server)
    }

    /// Asserts that the memory is within the bound now.
    fn look(&self) {
        let memory = self.server.ask("/memory");
        let kernel_bytes = bytes(&memory, "/kernel/socket_bytes");
        let most_kernel_bytes = &self.most_kernel_bytes;
        most_kernel_bytes.set(most_kernel_bytes.get().max(kernel_bytes));
        let resident =
            bytes(&memory, "/process/anonymous_bytes") + bytes(&memory, "/process/file_bytes");
        assert!(resident + kernel_bytes <= self.bound_bytes, "{memory}");
    }

    /// So is the most that the process ever had, with the most that the kernel had beside it.
    fn assert_bound_was_kept(&self) {
        let high_water = high_water_bytes(&self.server);
        let most_kernel_bytes = self.most_kernel_bytes.get();
        println!("{high_water} in the process, {most_kernel_bytes} in the kernel");
        assert!(
            high_water + most_kernel_bytes <= self.bound_bytes,
            "{high_water} + {most_kernel_bytes}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_passes_the_bound_neither_in_the_process_nor_in_the_kernel() {
    flood(Flooded::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_at_a_cold_cache_passes_the_bound_neither_in_the_process_nor_in_the_kernel() {
    flood(Flooded::start_cold()).await;
}

/// Lets a thousand clients take nothing of a large file, and a thousand others request a small one.
async fn flood(flooded: Flooded) {
    const CONNECTIONS: usize = 2000;
    let address = flooded.address();

    let mut slow = JoinSet::new();
    let mut fast = JoinSet::new();
    for _ in 0..CONNECTIONS / 2 {
        // Told to come again, they do: a busy machine turns away many at first.
        slow.spawn(async move {
            for _ in 0..100 {
                let client = stalled(address, "/media/big.mp4").await;
                if client.1 == Some(200) {
                    return Some(client.0);
                }
            }
            None
        });
        fast.spawn(crate::client::request(
            address,
            "GET",
            "/media/small.gif",
            &[],
        ));
    }
    let (mut served, mut refused) = (0, 0);
    while let Some(response) = fast.join_next().await {
        let response = response.unwrap();
        match response.status {
            200 => {
                assert!(response.whole && response.body.len() == 50_000);
                served += 1;
            }
            503 => {
                assert_eq!(response.field("retry-after"), Some("1"));
                refused += 1;
            }
            other => panic!("status {other}"),
        }
        flooded.look();
    }
    assert_eq!(served + refused, CONNECTIONS / 2);
    let mut held = Vec::new();
    while let Some(client) = slow.join_next().await {
        held.push(client.unwrap());
        flooded.look();
    }
    let parked = held.iter().flatten().count();
    println!("{served} served, {refused} refused, {parked} parked");
    assert!(served > 0, "nobody was served");
    // With all of them parked, who comes is served still.
    assert!(parked > 500, "{parked} parked");
    for _ in 0..20 {
        let response = crate::client::request(address, "GET", "/media/small.gif", &[]).await;
        assert_eq!((response.status, response.whole), (200, true));
        flooded.look();
    }
    flooded.assert_bound_was_kept();
    drop(held);
    until(&flooded.server, nothing_is_held).await;
}

/// In all: on the heap and in the kernel. nginx takes a hundred times as much (see `docs/memory.md`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_costs_at_most_40_kib() {
    const READERS: u64 = 200;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("big.mp4"), vec![7; 5_000_000]).unwrap();
    fs::write(folder.path().join("small.gif"), b"GIF89a").unwrap();
    let server = Server::start(folder.path(), &ADMIN);
    let address = address(&server);
    // Memory that the server keeps between requests is not a reader's.
    for _ in 0..100 {
        crate::client::request(address, "GET", "/media/small.gif", &[]).await;
    }
    let before = cost(&until(&server, nothing_is_held).await);
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(stalled(address, "/media/big.mp4").await);
    }
    let mut last = 0;
    let parked = until(&server, |memory| {
        bytes(memory, "/in_use/response_bodies") == READERS
            && bytes(memory, "/kernel/socket_bytes") > 0
    })
    .await;
    last = last.max(cost(&parked));
    let settled = until(&server, |memory| {
        let seen = bytes(memory, "/ledger/requests");
        seen == READERS
    })
    .await;
    let each = (cost(&settled).max(last) - before) / READERS;
    println!("{each} bytes a slow reader: {settled}");
    assert!(each <= 40 * 1024, "{each} bytes a slow reader");
    let ledger = bytes(&settled, "/ledger/total_bytes") / READERS;
    assert!(
        ledger >= each,
        "the ledgers say {ledger}, measured are {each}"
    );
    drop(readers);
}

/// On the heap and in the kernel.
fn cost(memory: &Value) -> u64 {
    bytes(memory, "/process/allocated_bytes") + bytes(memory, "/kernel/socket_bytes")
}

/// Returns the memory of each connection, and that in the ledgers, once the requests are in progress.
async fn measured<C>(
    arguments: &[&str],
    connections: u64,
    requests: u64,
    connect: impl AsyncFn(SocketAddr) -> C,
) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("big.mp4"), vec![7; 5_000_000]).unwrap();
    let server = Server::start(folder.path(), &[&ADMIN[..], arguments].concat());
    let seen = |connections: u64, requests: u64| {
        // Both are of the same look as what is measured.
        move |memory: &Value| {
            bytes(memory, "/ledger/connections") == connections
                && bytes(memory, "/ledger/requests") == requests
        }
    };
    // Memory that the first connection allocates for all is not a connection's.
    let first = connect(address(&server)).await;
    until(&server, seen(1, requests / connections)).await;
    drop(first);
    let before = cost(&until(&server, seen(0, 0)).await);
    let mut held = Vec::new();
    for _ in 0..connections {
        held.push(connect(address(&server)).await);
    }
    let memory = until(&server, seen(connections, requests)).await;
    let each = (cost(&memory) - before) / connections;
    let ledger = bytes(&memory, "/ledger/total_bytes") / connections;
    drop(held);
    until(&server, nothing_is_held).await;
    (each, ledger)
}

/// One that waits for a request, and one whose head has come but for its end and is as large as needs no more room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cost_less_than_is_charged_and_idle_ones_12_kib() {
    const CONNECTIONS: u64 = 200;
    const IDLE_BYTES: u64 = 12 * 1024;
    raise_open_files();
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n", "y".repeat(8000));
    for (next, most_bytes) in [("", IDLE_BYTES), (&large, u64::MAX)] {
        let connect = async |address| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = b"GET /media/none HTTP/1.1\r\nhost: a\r\n\r\n";
            stream.write_all(head).await.unwrap();
            stream.read_exact(&mut [0; 12]).await.unwrap();
            stream.write_all(next.as_bytes()).await.unwrap();
            stream
        };
        let (each, ledger) = measured(&[], CONNECTIONS, 0, connect).await;
        println!(
            "{each} bytes with {} of a head, {ledger} charged",
            next.len()
        );
        assert!(ledger >= each, "{each} bytes, {ledger} charged");
        assert!(each <= most_bytes, "{each} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_their_connections_cost_less_than_is_charged() {
    const CONNECTIONS: u64 = 50;
    raise_open_files();
    for (streams, target) in [
        (1, "/media/none"),
        (1, "/media/big.mp4"),
        (32, "/media/big.mp4"),
    ] {
        let connect = async |address| {
            // No window: each stream holds all that it may hold, and waits.
            let mut client = frames::Client::connect(address, &[(INITIAL_WINDOW, 0)]).await;
            for number in 0..streams {
                client.send(&[Frame::get(2 * number + 1, target)]).await;
                let head = client.read_until(|frame| frame.kind == kind::HEADERS).await;
                head.unwrap();
            }
            client
        };
        let requests = CONNECTIONS * u64::from(streams);
        let (each, ledger) = measured(&[], CONNECTIONS, requests, connect).await;
        println!("{each} bytes for {streams} of {target}, {ledger} charged");
        assert!(
            ledger >= each,
            "{each} bytes for {streams} of {target}, {ledger} charged"
        );
    }
    let idle = async |address| {
        let mut client = frames::Client::connect(address, &[]).await;
        client.send(&[Frame::get(1, "/media/none")]).await;
        let last = client.read_until(|frame| frame.kind == kind::DATA).await;
        last.unwrap();
        client
    };
    let (each, ledger) = measured(&[], CONNECTIONS, 0, idle).await;
    println!("{each} bytes for an idle connection of HTTP/2, {ledger} charged");
    assert!(ledger >= each, "{each} bytes, {ledger} charged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_connections_cost_less_than_is_charged() {
    const CONNECTIONS: u64 = 100;
    raise_open_files();
    let identity = Identity::new();
    let arguments = identity.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    for (target, requests) in [("/media/none", 0), ("/media/big.mp4", CONNECTIONS)] {
        let identity = &identity;
        let connect = async |address| {
            let mut stream = identity.connect(address, &[b"http/1.1"]).await.unwrap();
            let head = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.read_exact(&mut [0; 12]).await.unwrap();
            stream
        };
        let (each, ledger) = measured(&arguments, CONNECTIONS, requests, connect).await;
        println!("{each} bytes for {target} over TLS, {ledger} charged");
        assert!(
            ledger >= each,
            "{each} bytes for {target}, {ledger} charged"
        );
    }
}

/// Streams that take nothing, as many as are let, beside floods of requests that are given up at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_streams_passes_the_bound_neither_in_the_process_nor_in_the_kernel() {
    const CONNECTIONS: usize = 400;
    let flooded = Flooded::start();
    let address = flooded.address();
    let mut floods = JoinSet::new();
    for number in 0..CONNECTIONS {
        floods.spawn(async move {
            // Those with a window fill the kernel's memory too, since they never read.
            let window = if number % 2 == 0 { 0 } else { 1 << 30 };
            let mut client = frames::Client::connect(address, &[(INITIAL_WINDOW, window)]).await;
            let mut requests = vec![Frame::window_update(0, 1 << 30)];
            requests.extend((0..32).map(|number| Frame::get(2 * number + 1, "/media/big.mp4")));
            client.send(&requests).await;
            let mut stream = 65;
            for _ in 0..100 {
                let given_up = [Frame::get(stream, "/media/big.mp4"), Frame::reset(stream)];
                if !client.send(&given_up).await {
                    break;
                }
                stream += 2;
            }
            client
        });
    }
    let mut held = Vec::new();
    while let Some(client) = floods.join_next().await {
        held.push(client.unwrap());
        flooded.look();
    }
    let mut served = 0;
    while served < 20 {
        let response = crate::client::request(address, "GET", "/media/small.gif", &[]).await;
        assert!([200, 503].contains(&response.status) && response.whole);
        served += usize::from(response.status == 200);
        flooded.look();
        // Room for one more, where all of it was taken.
        if response.status == 503 {
            held.pop();
        }
    }
    flooded.assert_bound_was_kept();
    drop(held);
    until(&flooded.server, nothing_is_held).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_aborts_leave_nothing() {
    // More, where asked for: the docs quote a million.
    let requests = std::env::var("MILLPOND_TEST_ABORTS");
    let requests: usize = requests.map_or(10_000, |requests| requests.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.gif"), noise(200_000)).unwrap();
    let server = Server::start(folder.path(), &ADMIN);
    let address = address(&server);
    let mut clients = JoinSet::new();
    let bytes_read = noise(requests * 4);
    for (number, place) in bytes_read.chunks_exact(4).enumerate() {
        // One byte at least: who leaves before any has asked for nothing, as far as the host knows.
        let place = 1 + u32::from_le_bytes(place.try_into().unwrap()) as usize % 200_000;
        clients.spawn(async move {
            if number % 2 == 0 {
                let head = b"GET /media/a.gif HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
                assert_eq!(status(&raw(address, head).await), Some(200));
                return;
            }
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = b"GET /media/a.gif HTTP/1.1\r\nhost: a\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let mut some = vec![0; place];
            let _ = stream.read_exact(&mut some).await;
        });
        if clients.len() >= 100 {
            clients.join_next().await.unwrap().unwrap();
        }
    }
    clients.join_all().await;
    let memory = until(&server, nothing_is_held).await;
    assert_eq!(
        bytes(&memory, "/outcomes/failed") + bytes(&memory, "/outcomes/rejected"),
        0
    );
    let ended = bytes(&memory, "/outcomes/completed") + bytes(&memory, "/outcomes/aborted");
    assert_eq!(ended, requests as u64);
    let unexplained = memory["heap_unattributed_bytes"].as_i64().unwrap();
    println!("{unexplained} bytes unexplained after {requests} requests: {memory}");
    assert!(unexplained < 4 << 20, "{unexplained} bytes are unexplained");
    let files = fs::read_dir(format!("/proc/{}/fd", server.process_id())).unwrap();
    let media = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let open = media.filter(|path| path.starts_with(folder.path()) && path.is_file());
    // The file that is cached for the next request.
    assert!(open.count() <= 1);
}

/// Starts the example `leaks`, asks it for one file until the monitor has named the leak, and returns its words.
async fn words_on_a_leak(leak: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.gif"), noise(20_000)).unwrap();
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().unwrap().parent().unwrap();
    let mut server = tokio::process::Command::new(built.join("examples/leaks"))
        .arg(leak)
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut address = BufReader::new(server.stdout.take().unwrap()).lines();
    let address = address.next_line().await.unwrap().unwrap();
    let address = address.parse().unwrap();
    let load = async {
        loop {
            crate::client::request(address, "GET", "/media/a.gif", &[]).await;
        }
    };
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
    let words = async {
        loop {
            let line = log.next_line().await.unwrap();
            let line = line.expect("the server logs until it is killed");
            if line.contains("memory grows") {
                break line;
            }
        }
    };
    let words = tokio::select! {
        words = words => words,
        () = load => String::new(),
    };
    println!("{words}");
    words
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leak_drill_a_forgotten_token_is_named_with_its_route_and_kind() {
    let words = words_on_a_leak("token").await;
    assert!(
        words.contains("route /media/*.gif:")
            && words.contains("leaked")
            && words.contains("buffers"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leak_drill_a_kept_body_is_named_with_its_route_and_kind() {
    let words = words_on_a_leak("body").await;
    assert!(
        words.contains("route /media/*.gif:")
            && words.contains("leaked")
            && words.contains("response"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leak_drill_a_buffer_beside_the_ledger_is_named_with_its_route() {
    let words = words_on_a_leak("buffer").await;
    assert!(words.contains("100 % unattributed"), "{words}");
    assert!(words.contains("route /media/*.gif:"), "{words}");
}

#[tokio::test]
async fn the_admin_listener_tells_what_is_held_and_by_whom() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("big.mp4"), vec![7; 5_000_000]).unwrap();
    let server = Server::start(folder.path(), &ADMIN);
    let (client, status) = stalled(address(&server), "/media/big.mp4").await;
    assert_eq!(status, Some(200));
    let memory = until(&server, |memory| bytes(memory, "/kernel/socket_bytes") > 0).await;
    assert_eq!(bytes(&memory, "/in_use/response_bodies"), 1);
    assert_eq!(
        bytes(&memory, "/in_use/instances"),
        0,
        "the instance is freed before the body"
    );
    let requests = server.ask("/requests");
    let request = &requests[0];
    assert_eq!(
        (&request["method"], &request["route"]),
        (&"GET".into(), &"/media/*.mp4".into())
    );
    assert!(
        request["by_kind"]["socket"].as_u64().unwrap() > 0,
        "{requests}"
    );
    let metrics = crate::client::raw(
        server.admin.parse().unwrap(),
        b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    );
    let metrics = String::from_utf8(metrics.await).unwrap();
    for line in [
        "millpond_in_use{resource=\"response_bodies\"} 1",
        r#"millpond_requests_total{outcome="completed",method="GET",code="2xx"} 0"#,
        "millpond_memory_limit_bytes ",
        "millpond_ledger_bytes{kind=\"socket\"} ",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    drop(client);
    until(&server, nothing_is_held).await;
    // A report on request, whole, and the process goes on: the original was killed by that signal.
    server.signal(Signal::USR2);
    let line = server.wait_for_log("report written");
    let path = line.split("path=").nth(1).unwrap().trim();
    let report: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(report["allocator"].as_str().unwrap().contains("jemalloc"));
    assert_eq!(bytes(&report, "/memory/outcomes/aborted"), 1);
    fs::remove_file(Path::new(path)).unwrap();
    assert_eq!(bytes(&server.ask("/memory"), "/outcomes/aborted"), 1);
}

#[tokio::test]
async fn connections_beyond_what_memory_carries_wait_for_a_place() {
    raise_open_files();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "a").unwrap();
    let server = Server::start(
        folder.path(),
        &[&ADMIN[..], &["--memory-limit", "160MiB"]].concat(),
    );
    let places = bytes(&server.ask("/memory"), "/memory_limit/connections");
    let mut held = Vec::new();
    for _ in 0..places {
        held.push(TcpStream::connect(address(&server)).await.unwrap());
    }
    let mut next = TcpStream::connect(address(&server)).await.unwrap();
    let head = b"GET /media/a.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    next.write_all(head).await.unwrap();
    let full = until(&server, |memory| {
        bytes(memory, "/ledger/connections") == places
    })
    .await;
    assert_eq!(bytes(&full, "/requests_total"), 0);
    held.pop();
    let mut answer = Vec::new();
    next.read_to_end(&mut answer).await.unwrap();
    assert_eq!(status(&answer), Some(200));
}

/// HTTP/2 takes more than a place, and its clients are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_of_http_2_make_way_for_a_new_one() {
    /// `CONNECTION_BYTES` and `HTTP2_BYTES`.
    const EACH_BYTES: u64 = (36 + 96) * 1024;
    raise_open_files();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(
        folder.path(),
        &[&ADMIN[..], &["--memory-limit", "160MiB"]].concat(),
    );
    let places = bytes(&server.ask("/memory"), "/memory_limit/connections_bytes") / EACH_BYTES;
    let mut held = Vec::new();
    // The last ones find no room.
    for _ in 0..places + 2 {
        let mut client = frames::Client::connect(address(&server), &[]).await;
        client.send(&[Frame::get(1, "/media/none")]).await;
        let answer = client.read_until(|frame| frame.kind == kind::DATA).await;
        answer.unwrap();
        held.push(client);
    }
    let first = &mut held[0];
    let goaway = first.read_until(|frame| frame.kind == kind::GOAWAY).await;
    assert_eq!(goaway.unwrap().payload[4..8], [0; 4]);
    let last = held.last_mut().unwrap();
    last.send(&[Frame::get(3, "/media/none")]).await;
    let answer = last.read_until(|frame| frame.kind == kind::DATA).await;
    assert_eq!(answer.unwrap().stream, 3);
}

/// An embedder may have none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_window_is_given_back_without_a_watch() {
    let host = Host::start().await;
    host.write("big.bin", &noise(20_000_000));
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    let mut answer = vec![0; 20_000_000];
    // However slow this machine is, it will be fast enough once.
    loop {
        let head = b"GET /media/big.bin HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.read_exact(&mut answer).await.unwrap();
        host.registry().idle().await;
        if host.reserved_bytes() > 0 {
            break;
        }
    }
    while host.reserved_bytes() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(host.live_connections(), 1, "it is open still");
}

#[test]
fn too_little_memory_is_one_clear_line() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_millpond"))
        .args(["serve", ".", "--memory-limit", "8MiB"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), stderr.lines().count()),
        (Some(2), 1),
        "{stderr}"
    );
    assert!(stderr.contains("raise --memory-limit to"), "{stderr}");
}
