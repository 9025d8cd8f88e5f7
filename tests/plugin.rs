//! millpond in other programs: the examples as a user starts them, a program with axum, and media stores of a program,
//! valid and faulty ones.

use crate::client::{Response, request, reset};
use crate::host::noise;
use bytes::Bytes;
use millpond::ledger::{Kind, LedgerHandle};
use millpond::store::{
    Access, ContentId, Folder, MediaObject, MediaStore, ObjectInfo, ObjectKey, ObjectVariant,
    OpenError, ReadAt,
};
use millpond::{Config, LedgerRegistry, Limits, Millpond, Outcome, Source};
use millpond_server::{ConnectionLimits, Server};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// An example that runs, until this is dropped.
struct Example {
    child: Child,
    address: SocketAddr,
}

impl Example {
    /// Starts what `cargo test` has built beside this program.
    fn start(name: &str, folder: &Path) -> Self {
        let tests = std::env::current_exe().unwrap();
        let built = tests.parent().unwrap().parent().unwrap();
        let program = built
            .join("examples")
            .join(name)
            .with_extension(std::env::consts::EXE_EXTENSION);
        let mut child = Command::new(&program)
            .args([folder.to_str().unwrap(), "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; cargo build --examples", program.display())
            });
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        Example {
            address: address.expect("it says where it listens").parse().unwrap(),
            child,
        }
    }

    async fn get(&self, target: &str) -> Response {
        request(self.address, "GET", target, &[]).await
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder_with(name: &str, content: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), content).unwrap();
    folder
}

#[tokio::test]
async fn the_axum_example_has_its_own_routes_beside_media() {
    let content = noise(300_000);
    let folder = folder_with("a.gif", &content);
    let example = Example::start("axum", folder.path());
    let page = example.get("/").await;
    assert_eq!(page.status, 200);
    assert!(String::from_utf8(page.body).unwrap().contains("/static/"));
    let whole = example.get("/static/a.gif").await;
    assert_eq!(
        (whole.status, whole.field("content-type")),
        (200, Some("image/gif"))
    );
    assert!(whole.whole && whole.body == content);
    let range = [("range", "bytes=10-19")];
    let part = request(example.address, "GET", "/static/a.gif", &range).await;
    assert_eq!((part.status, &part.body[..]), (206, &content[10..20]));
    assert_eq!(
        example.get("/static/b.gif").await.error(),
        "Media not found"
    );
    // The program responds to paths that are not beneath millpond's.
    let theirs = example.get("/nothing").await;
    assert_eq!((theirs.status, theirs.body.len()), (404, 0));
    let metrics = example.get("/metrics").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    for line in [
        "visits_total 1\n",
        "millpond_requests_total{outcome=\"completed\",method=\"GET\",code=\"2xx\"} 2\n",
        "millpond_requests_total{outcome=\"completed\",method=\"GET\",code=\"4xx\"} 1\n",
        "millpond_request_duration_seconds_count{outcome=\"completed\"} 3\n",
        "millpond_in_use{resource=\"files\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(!metrics.contains("millpond_process"), "there is no watch");
}

#[tokio::test]
async fn the_hyper_example_serves_a_folder() {
    let content = noise(300_000);
    let folder = folder_with("a.mp4", &content);
    let example = Example::start("hyper", folder.path());
    let whole = example.get("/media/a.mp4").await;
    assert_eq!(whole.status, 200);
    assert!(whole.whole && whole.body == content);
    let range = [("range", "bytes=-7")];
    let part = request(example.address, "GET", "/media/a.mp4", &range).await;
    assert_eq!((part.status, &part.body[..]), (206, &content[299_993..]));
    assert_eq!(example.get("/media/../a.mp4").await.status, 404);
    assert_eq!(
        request(example.address, "POST", "/media/a.mp4", &[])
            .await
            .status,
        405
    );
}

#[tokio::test]
async fn the_memory_store_example_serves_what_it_had_room_for() {
    let content = noise(300_000);
    let folder = folder_with("a.png", &content);
    let large = fs::File::create(folder.path().join("large.mp4")).unwrap();
    large.set_len(17 << 20).unwrap();
    let example = Example::start("memory_store", folder.path());
    let whole = example.get("/media/a.png").await;
    assert_eq!(
        (whole.status, whole.field("content-type")),
        (200, Some("image/png"))
    );
    assert!(whole.whole && whole.body == content);
    let id = ContentId::from_digest(Sha256::digest(&content).into());
    let by_content = example.get(&format!("/api/media/{id}")).await;
    assert!(by_content.whole && by_content.body == content);
    let has_it = [("if-none-match", whole.field("etag").unwrap())];
    let again = request(example.address, "GET", "/media/a.png", &has_it).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    // It was there before the program began, which has it in memory now.
    fs::remove_file(folder.path().join("a.png")).unwrap();
    let ranges = [("range", "bytes=0-1, 299000-")];
    let parts = request(example.address, "GET", "/media/a.png", &ranges).await;
    assert_eq!(parts.status, 206);
    let tail = &content[299_000..];
    assert!(parts.body.windows(tail.len()).any(|window| window == tail));
    assert_eq!(example.get("/media/large.mp4").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_aborted_inside_axum_leave_nothing() {
    const DOWNLOADS: usize = 200;
    let folder = folder_with("big.mp4", &noise(20 << 20));
    let millpond = Millpond::new(
        &Source::embedded(),
        Folder::open(folder.path()).unwrap(),
        &Config::default(),
        Limits::default(),
    )
    .unwrap();
    let own = axum::routing::get(|| async { "own" });
    let app = axum::Router::new()
        .route("/own", own)
        .fallback_service(millpond.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let mut clients = JoinSet::new();
    for number in 0..DOWNLOADS {
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = b"GET /media/big.mp4 HTTP/1.1\r\nhost: a\r\n\r\n";
            stream.write_all(head).await.unwrap();
            // From within the head to some chunks on.
            let mut some = vec![0; 1 + number * 500];
            stream.read_exact(&mut some).await.unwrap();
            assert!(some.starts_with(b"HTTP/1.1 200"[..some.len().min(12)].as_ref()));
        });
        if clients.len() >= 20 {
            clients.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let registry = millpond.registry();
    registry.idle().await;
    assert_eq!(registry.snapshot().total().total(), 0);
    assert_eq!(millpond.budget().reserved_bytes(), 0);
    assert_eq!(registry.ended_requests(Outcome::Aborted), DOWNLOADS as u64);
    assert_eq!(request(address, "GET", "/own", &[]).await.body, b"own");
    server.abort();
}

/// How an object is read: from which content, at which offset, at most how many bytes.
type Read = fn(&Bytes, u64, usize) -> io::Result<Bytes>;

/// A store of one object, `a.bin`, which reads as it is told to.
struct OneObject {
    content: Bytes,
    read: Read,
    seen: Arc<Seen>,
}

/// Calls of the host that a store has seen.
#[derive(Default)]
struct Seen {
    registry: OnceLock<Arc<LedgerRegistry>>,
    reads: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    most_bytes: AtomicUsize,
    /// Reads for which less was charged than was asked for.
    uncharged: AtomicUsize,
}

struct OneOpen {
    content: Bytes,
    read: Read,
    seen: Arc<Seen>,
}

impl MediaStore for OneObject {
    async fn open(&self, key: &ObjectKey, ledger: &LedgerHandle) -> Result<MediaObject, OpenError> {
        if *key != ObjectKey::Named("a.bin".into()) {
            return Err(OpenError::NotFound);
        }
        let open = OneOpen {
            content: self.content.clone(),
            read: self.read,
            seen: Arc::clone(&self.seen),
        };
        let length = self.content.len() as u64;
        let info = ObjectInfo::new(length, "application/octet-stream", Access::Public);
        Ok(MediaObject::from_bytes(open, info, ledger)?)
    }
}

impl ReadAt for OneOpen {
    async fn read_at(&self, offset: u64, most_bytes: usize) -> io::Result<Bytes> {
        let seen = &self.seen;
        seen.reads.fetch_add(1, Ordering::Relaxed);
        seen.most_bytes.fetch_max(most_bytes, Ordering::Relaxed);
        let in_flight = seen.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        seen.most_in_flight.fetch_max(in_flight, Ordering::Relaxed);
        let registry = seen.registry.get().unwrap();
        if registry.snapshot().requests.of(Kind::Buffers) < most_bytes {
            seen.uncharged.fetch_add(1, Ordering::Relaxed);
        }
        // As a database would answer: not at once.
        tokio::task::yield_now().await;
        seen.in_flight.fetch_sub(1, Ordering::Relaxed);
        (self.read)(&self.content, offset, most_bytes)
    }
}

/// A host that serves from that store, and where it listens.
async fn serve_from(store: impl MediaStore, source: Source) -> (Millpond, SocketAddr) {
    let mut config = Config::default();
    config.mount_path = Some("/".parse().unwrap());
    // Calls to the store must not depend on earlier calls.
    let mut limits = Limits::default();
    limits.response_cache_bytes = 0;
    let millpond = Millpond::new(&source, store, &config, limits).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (limits, stop) = (ConnectionLimits::default(), CancellationToken::new());
    let server = Server::new(millpond.clone());
    tokio::spawn(async move { server.serve(listener, limits, stop).await });
    (millpond, address)
}

async fn serve_one(content: &[u8], read: Read) -> (Millpond, SocketAddr, Arc<Seen>) {
    let seen: Arc<Seen> = Arc::default();
    let store = OneObject {
        content: content.to_vec().into(),
        read,
        seen: Arc::clone(&seen),
    };
    // Another service over the same store serves from it too.
    let (millpond, address) = serve_from(Arc::new(store), Source::embedded()).await;
    let registry = Arc::clone(millpond.registry());
    assert!(seen.registry.set(registry).is_ok());
    (millpond, address, seen)
}

#[tokio::test]
async fn a_store_of_ones_own_is_read_one_charged_piece_at_a_time() {
    let content = noise(2_000_000);
    // A store may give less than it is asked for.
    let (millpond, address, seen) = serve_one(&content, |content, offset, most_bytes| {
        let start = usize::try_from(offset).unwrap();
        let end = (start + most_bytes - most_bytes / 3).min(content.len());
        Ok(content.slice(start..end))
    })
    .await;
    let whole = request(address, "GET", "/a.bin", &[]).await;
    assert!(whole.whole && whole.body == content);
    let range = [("range", "bytes=123456-1234567")];
    let part = request(address, "GET", "/a.bin", &range).await;
    assert!(part.whole && part.body == content[123_456..=1_234_567]);
    millpond.registry().idle().await;
    assert_eq!(seen.most_in_flight.load(Ordering::Relaxed), 1);
    assert_eq!(seen.uncharged.load(Ordering::Relaxed), 0);
    let most_bytes = seen.most_bytes.load(Ordering::Relaxed);
    assert!(most_bytes <= 256 << 10, "{most_bytes} bytes at a time");
    let reads = seen.reads.load(Ordering::Relaxed);
    let head = request(address, "HEAD", "/a.bin", &[]).await;
    assert_eq!(head.field("content-length"), Some("2000000"));
    assert_eq!(
        seen.reads.load(Ordering::Relaxed),
        reads,
        "nothing is read for a head"
    );
}

#[tokio::test]
async fn a_store_that_gives_too_much_or_nothing_or_fails_ends_in_an_abort() {
    let content = noise(100_000);
    let odd: [(Read, &str); 3] = [
        (
            |content, _, most_bytes| Ok(content.slice(..most_bytes + 1)),
            "too much",
        ),
        (
            |content, offset, most_bytes| match offset {
                0 => Ok(content.slice(..most_bytes)),
                _ => Ok(Bytes::new()),
            },
            "nothing",
        ),
        (
            |content, offset, most_bytes| match offset {
                0 => Ok(content.slice(..most_bytes)),
                _ => Err(io::Error::other("the database is gone")),
            },
            "an error",
        ),
    ];
    for (read, what) in odd {
        let (millpond, address, _) = serve_one(&content, read).await;
        let response = request(address, "GET", "/a.bin", &[]).await;
        assert_eq!(response.status, 200, "{what}");
        assert!(!response.whole, "{what}");
        assert!(content.starts_with(&response.body), "{what}");
        millpond.registry().idle().await;
        assert_eq!(
            millpond.registry().ended_requests(Outcome::Failed),
            1,
            "{what}"
        );
        assert_eq!(millpond.budget().reserved_bytes(), 0, "{what}");
    }
}

#[tokio::test]
async fn a_guest_that_reads_is_given_the_bytes_of_any_store() {
    struct Small;
    impl MediaStore for Small {
        async fn open(
            &self,
            key: &ObjectKey,
            ledger: &LedgerHandle,
        ) -> Result<MediaObject, OpenError> {
            assert_eq!(*key, ObjectKey::Named("small.txt".into()));
            let info = ObjectInfo::new(5, "text/plain", Access::Public);
            Ok(MediaObject::from_bytes(
                Bytes::from_static(b"small"),
                info,
                ledger,
            )?)
        }
    }
    let source = Source::from_bytes("hostile", include_bytes!("guests/hostile.wasm").to_vec());
    let (millpond, address) = serve_from(Small, source).await;
    for (deed, body) in [("reads-media", "small"), ("reads-then-sends", "all")] {
        let response = request(address, "GET", &format!("/hostile/{deed}"), &[]).await;
        assert_eq!(response.status, 200, "{deed}");
        assert_eq!(response.body, body.as_bytes(), "{deed}");
    }
    millpond.registry().idle().await;
}

/// Takes as much of the stack as a client of a database may, and more than a guest has.
fn go_deep() {
    let deep = [7_u8; 512 * 1024];
    assert_eq!(std::hint::black_box(&deep)[deep.len() / 2], 7);
}

struct Deep;

impl MediaStore for Deep {
    async fn open(&self, key: &ObjectKey, ledger: &LedgerHandle) -> Result<MediaObject, OpenError> {
        go_deep();
        assert_ne!(*key, ObjectKey::Named("panic.txt".into()), "as bugs do");
        let info = ObjectInfo::new(5, "text/plain", Access::Public);
        Ok(MediaObject::from_bytes(Deep, info, ledger)?)
    }
}

impl ReadAt for Deep {
    async fn read_at(&self, offset: u64, most_bytes: usize) -> io::Result<Bytes> {
        go_deep();
        Bytes::from_static(b"small")
            .read_at(offset, most_bytes)
            .await
    }
}

#[tokio::test]
async fn what_a_store_does_is_not_done_on_the_stack_of_a_guest() {
    let (millpond, address) = serve_from(Deep, Source::embedded()).await;
    assert_eq!(request(address, "GET", "/a.txt", &[]).await.body, b"small");
    assert_eq!(request(address, "GET", "/panic.txt", &[]).await.status, 500);
    millpond.registry().idle().await;
    let source = Source::from_bytes("hostile", include_bytes!("guests/hostile.wasm").to_vec());
    let (millpond, address) = serve_from(Deep, source).await;
    let response = request(address, "GET", "/hostile/reads-media", &[]).await;
    assert_eq!(response.body, b"small");
    millpond.registry().idle().await;
}

/// A store that opens, or reads, only when it is let, and says when it is asked to.
struct Slow {
    opens: bool,
    asked: mpsc::UnboundedSender<()>,
}

impl MediaStore for Slow {
    async fn open(
        &self,
        _key: &ObjectKey,
        ledger: &LedgerHandle,
    ) -> Result<MediaObject, OpenError> {
        if !self.opens {
            self.asked.send(()).unwrap();
            std::future::pending::<()>().await;
        }
        let info = ObjectInfo::new(1000, "text/plain", Access::Public);
        Ok(MediaObject::from_bytes(
            SlowOpen(self.asked.clone()),
            info,
            ledger,
        )?)
    }
}

struct SlowOpen(mpsc::UnboundedSender<()>);

impl ReadAt for SlowOpen {
    async fn read_at(&self, _offset: u64, _most_bytes: usize) -> io::Result<Bytes> {
        self.0.send(()).unwrap();
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_a_store_is_slow_takes_its_work_along() {
    for opens in [false, true] {
        let (asked, mut is_asked) = mpsc::unbounded_channel();
        let (millpond, address) = serve_from(Slow { opens, asked }, Source::embedded()).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = b"GET /a.txt HTTP/1.1\r\nhost: a\r\n\r\n";
        // With the next one behind it, which nobody reads yet.
        client.write_all(&head.repeat(2)).await.unwrap();
        is_asked.recv().await.unwrap();
        assert_eq!(millpond.registry().in_use().requests(), 1);
        if opens {
            // The head draws a reset.
            drop(client);
        } else {
            reset(client);
        }
        millpond.registry().idle().await;
        assert_eq!(millpond.registry().ended_requests(Outcome::Aborted), 1);
        assert_eq!(millpond.budget().reserved_bytes(), 0);
    }
}

/// A store that gives what it is told to, one after the other.
struct Told(Mutex<VecDeque<Result<ObjectInfo, OpenError>>>);

impl MediaStore for Told {
    async fn open(
        &self,
        _key: &ObjectKey,
        ledger: &LedgerHandle,
    ) -> Result<MediaObject, OpenError> {
        let info = self.0.lock().unwrap().pop_front().unwrap()?;
        Ok(MediaObject::from_bytes(
            Bytes::from_static(b"12345"),
            info,
            ledger,
        )?)
    }
}

#[tokio::test]
async fn what_a_store_says_is_answered_as_of_a_folder() {
    let info = || ObjectInfo::new(5, "text/plain", Access::Public);
    let mut private = info();
    private.access = Access::Private;
    let mut split = info();
    split.media_type = "text/plain\r\nx-injected: 1".into();
    let mut endless = info();
    let variant = ObjectVariant::new(ObjectKey::Named("a".repeat(2000)), "text/plain");
    endless.variants = vec![variant; 1000];
    let error = || io::Error::other("it said so");
    let (said, statuses): (VecDeque<_>, Vec<_>) = [
        (Ok(info()), 200),
        (Err(OpenError::NotFound), 404),
        (Err(OpenError::Busy(error())), 503),
        (Err(OpenError::Failed(error())), 500),
        // By its name it would be had without a signature.
        (Ok(private), 404),
        (Ok(split), 500),
        // More than a request may hold.
        (Ok(endless), 500),
    ]
    .into_iter()
    .unzip();
    let (millpond, address) = serve_from(Told(Mutex::new(said)), Source::embedded()).await;
    for status in statuses {
        assert_eq!(request(address, "GET", "/a.txt", &[]).await.status, status);
    }
    millpond.registry().idle().await;
}
