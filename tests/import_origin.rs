//! `millpond add` and the other commands for object storage, with an S3 server in this process.

use crate::server::Server;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Store below the bucket.
const URL: &str = "s3://media/store";

const KEY_ID: &str = "AKIAMILLPONDTEST";
const SECRET: &str = "millpond/test/secret";

/// Size of a part, in bytes.
const PART: usize = 8 * 1024 * 1024;

/// An S3 server with one bucket, and a home for the journals of uploads.
struct Bucket {
    address: SocketAddr,
    folder: tempfile::TempDir,
    requests: Arc<Requests>,
    runtime: Option<Runtime>,
}

/// Requests so far, and how many parts are taken.
struct Requests {
    lines: Mutex<Vec<String>>,
    /// Number of parts that are taken yet. Others wait without end.
    parts: AtomicUsize,
}

impl Bucket {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("s3/media")).unwrap();
        let files = FileSystem::new(folder.path().join("s3")).unwrap();
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let requests = Arc::new(Requests {
            lines: Mutex::default(),
            parts: AtomicUsize::new(usize::MAX),
        });
        let address = listener.local_addr().unwrap();
        runtime.spawn(accept(listener, builder.build(), Arc::clone(&requests)));
        Bucket {
            address,
            folder,
            requests,
            runtime: Some(runtime),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn object(&self, path: &Path) -> PathBuf {
        self.path("s3/media/store").join(path)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command
            .arg(name)
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address))
            .env("AWS_ACCESS_KEY_ID", KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("AWS_REGION", "us-east-1")
            .env("XDG_STATE_HOME", self.path("state"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments[0]);
        command.args(&arguments[1..]).output().unwrap()
    }

    fn add(&self, file: &Path, arguments: &[&str]) -> serde_json::Value {
        let file = file.to_str().unwrap();
        let output = self.run(&[&["add", "--json", "--to", URL, file], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Returns the number of requests that begin so.
    fn count(&self, beginning: &str) -> usize {
        let lines = self.requests.lines.lock().unwrap();
        let lines = lines.iter().filter(|line| line.starts_with(beginning));
        lines.count()
    }

    /// Returns the number of parts that were sent.
    fn sent_parts(&self) -> usize {
        let lines = self.requests.lines.lock().unwrap();
        lines.iter().filter(|line| is_part(line)).count()
    }

    fn journals(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.path("state/millpond/uploads"));
        let folders = folders.into_iter().flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        files.map(|file| file.unwrap().path()).collect()
    }

    fn serve(&self, arguments: &[&str]) -> Server {
        let cache = self.path("cache");
        let mut command = self.command("serve");
        command.args([URL, "--listen", "127.0.0.1:0", "--cache-dir"]);
        Server::started_by(command.arg(cache), arguments)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn is_part(line: &str) -> bool {
    line.starts_with("PUT ") && line.contains("partNumber=")
}

async fn accept(listener: std::net::TcpListener, service: S3Service, requests: Arc<Requests>) {
    let listener = TcpListener::from_std(listener).unwrap();
    // A client may leave before it is accepted.
    while let Ok((stream, _)) = listener.accept().await {
        let (service, requests) = (service.clone(), Arc::clone(&requests));
        tokio::spawn(async move {
            let recorded = service_fn(move |request: Request<Incoming>| {
                let (service, requests) = (service.clone(), Arc::clone(&requests));
                async move {
                    let line = format!("{} {}", request.method(), request.uri());
                    let is_part = is_part(&line);
                    requests.lines.lock().unwrap().push(line);
                    let take = |parts: usize| parts.checked_sub(1);
                    let ordering = Ordering::Relaxed;
                    if is_part
                        && requests
                            .parts
                            .fetch_update(ordering, ordering, take)
                            .is_err()
                    {
                        std::future::pending::<()>().await;
                    }
                    let (parts, body) = request.into_parts();
                    service.call(Request::from_parts(parts, body.into())).await
                }
            });
            // A client that leaves ends it with an error.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), recorded)
                .await;
        });
    }
}

fn text<'a>(line: &'a serde_json::Value, name: &str) -> &'a str {
    line[name].as_str().unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Waits until the journal of the upload has this many parts. Returns nothing if `add` ends before.
fn wait_for_parts(bucket: &Bucket, child: &mut Child, parts: usize) {
    loop {
        let journal = bucket.journals().pop();
        let journal = journal.and_then(|journal| fs::read_to_string(journal).ok());
        let count = |text: String| {
            text.lines()
                .filter(|line| line.contains("part\":{"))
                .count()
        };
        if journal.map(count) == Some(parts) {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "add has ended");
        std::thread::yield_now();
    }
}

#[test]
fn added_media_is_listed_served_checked_and_removed() {
    let bucket = Bucket::start();
    let content = crate::host::noise(2 * PART + 1000);
    let file = bucket.write("long.bin", &content);
    let added = bucket.add(&file, &["--read-back"]);
    assert_eq!(added["added"], true);
    assert_eq!(added["size"], content.len());
    assert_eq!(bucket.sent_parts(), 3);
    assert!(bucket.journals().is_empty());
    let id = text(&added, "id").to_owned();
    let image = bucket.add(&bucket.write("x.png", PNG), &[]);
    assert_eq!(text(&image, "type"), "image/png");

    // Content that is there is not sent again.
    assert_eq!(bucket.add(&file, &[])["added"], false);
    assert_eq!(bucket.sent_parts(), 3);

    let listed = bucket.run(&["ls", URL, "--json"]);
    assert!(listed.status.success(), "{listed:?}");
    let mut listed: Vec<String> = std::str::from_utf8(&listed.stdout)
        .unwrap()
        .lines()
        .map(|line| text(&serde_json::from_str(line).unwrap(), "id").to_owned())
        .collect();
    listed.sort_unstable();
    let mut ids = vec![id.clone(), text(&image, "id").to_owned()];
    ids.sort_unstable();
    assert_eq!(listed, ids);

    let server = bucket.serve(&[]);
    assert_eq!(server.answer(&format!("/api/media/{id}")), (200, content));
    drop(server);

    let checked = bucket.run(&["check", URL]);
    assert!(checked.status.success(), "{checked:?}");
    assert!(checked.stdout.starts_with(b"2 ok ("), "{checked:?}");
    let parsed: millpond::store::ContentId = id.parse().unwrap();
    let object = bucket.object(&parsed.path());
    let mut flipped = fs::read(&object).unwrap();
    flipped[PART] ^= 1;
    fs::write(&object, flipped).unwrap();
    let checked = bucket.run(&["check", URL]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(stderr(&checked).contains("another digest"), "{checked:?}");

    let removed = bucket.run(&["rm", "--store", URL, &id]);
    assert!(removed.status.success(), "{removed:?}");
    assert!(!object.exists() && !bucket.object(&parsed.record_path()).exists());
    let again = bucket.run(&["rm", "--store", URL, &id]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("there is no media"), "{again:?}");
}

#[test]
fn an_add_that_was_killed_sends_the_missing_parts_only() {
    let bucket = Bucket::start();
    let content = crate::host::noise(4 * PART);
    let file = bucket.write("long.bin", &content);
    bucket.requests.parts.store(2, Ordering::Relaxed);
    let mut child = bucket.command("add");
    let child = child.args(["--json", "--to", URL]).arg(&file);
    let mut child = child.spawn().unwrap();
    wait_for_parts(&bucket, &mut child, 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let listed = bucket.run(&["ls", URL]);
    assert!(
        listed.status.success() && listed.stdout.is_empty(),
        "{listed:?}"
    );

    bucket.requests.parts.store(usize::MAX, Ordering::Relaxed);
    bucket.requests.lines.lock().unwrap().clear();
    let output = bucket.run(&["add", "--to", URL, file.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(line.contains("(16.0 MiB were sent before)"), "{line}");
    assert_eq!(bucket.sent_parts(), 2);
    assert_eq!(bucket.count("POST /media/store/"), 1, "an upload was begun");
    let id = line.split_whitespace().next().unwrap();
    let id: millpond::store::ContentId = id.parse().unwrap();
    assert_eq!(fs::read(bucket.object(&id.path())).unwrap(), content);
    assert!(bucket.journals().is_empty());
}

#[cfg(unix)]
#[test]
fn an_interrupted_add_ends_with_the_code_of_the_signal() {
    let bucket = Bucket::start();
    bucket.requests.parts.store(1, Ordering::Relaxed);
    let file = bucket.write("long.bin", &crate::host::noise(3 * PART));
    let mut child = bucket.command("add");
    let mut child = child.args(["--to", URL]).arg(&file).spawn().unwrap();
    wait_for_parts(&bucket, &mut child, 1);
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(bucket.journals().len(), 1);
}

#[test]
fn private_media_at_an_origin_needs_a_signature() {
    let bucket = Bucket::start();
    let original = bucket.add(&bucket.write("x.png", PNG), &["--private"]);
    let id = text(&original, "id");
    let path = text(&original, "path");
    let other = bucket.write("y.txt", b"a variant");
    let variant = bucket.add(&other, &["--variant-of", id]);
    assert_eq!(text(&variant, "access"), "private");

    let keys = format!("test:{}", "ab".repeat(32));
    let mut sign = bucket.command("sign");
    let signed = sign.env("MILLPOND_SIGNING_KEYS", &keys).arg(path);
    let signed = signed.output().unwrap();
    assert!(signed.status.success(), "{signed:?}");
    let signed = String::from_utf8(signed.stdout).unwrap();
    let mut command = bucket.command("serve");
    command.env("MILLPOND_SIGNING_KEYS", &keys);
    command.args([URL, "--listen", "127.0.0.1:0", "--cache-dir"]);
    let server = Server::started_by(command.arg(bucket.path("cache")), &[]);
    assert_ne!(server.answer(path).0, 200);
    assert_eq!(server.answer(signed.trim()), (200, PNG.to_vec()));
    drop(server);

    let published = bucket.run(&["publish", "--store", URL, id]);
    assert!(published.status.success(), "{published:?}");
    assert!(
        stderr(&published).contains("stays private"),
        "{published:?}"
    );
    let unpublished = bucket.run(&["unpublish", "--store", URL, id]);
    let line = String::from_utf8(unpublished.stdout).unwrap();
    assert!(line.contains("private  (was public)"), "{line}");
}

#[test]
fn a_pipe_is_added_to_an_origin() {
    let bucket = Bucket::start();
    let mut child = bucket.command("add");
    let child = child.args(["--json", "--to", URL, "-"]);
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(PNG).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (text(&line, "type"), &line["size"]),
        ("image/png", &8.into())
    );
    assert!(bucket.journals().is_empty());
}

#[test]
fn a_wrong_secret_is_told_and_adds_nothing() {
    let bucket = Bucket::start();
    let mut other = bucket.command("add");
    other
        .env("AWS_SECRET_ACCESS_KEY", "other")
        .args(["--to", URL]);
    let refused = other.arg(bucket.write("y.png", b"y")).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("refuses access"), "{refused:?}");
    assert!(bucket.run(&["ls", URL]).stdout.is_empty());
}

#[test]
fn an_http_origin_takes_no_media() {
    let bucket = Bucket::start();
    let file = bucket.write("x.png", PNG);
    for arguments in [
        &[
            "add",
            "--to",
            "http://127.0.0.1:1/a",
            file.to_str().unwrap(),
        ][..],
        &["ls", "http://127.0.0.1:1/a"],
        &["check", "http://127.0.0.1:1/a"],
        &["rm", "--store", "http://127.0.0.1:1/a", &"0".repeat(64)],
    ] {
        let refused = bucket.run(arguments);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(
            stderr(&refused).contains("object storage is needed"),
            "{refused:?}"
        );
    }
    let repaired = bucket.run(&["check", "--repair", URL]);
    assert!(
        stderr(&repaired).contains("--repair is for folders"),
        "{repaired:?}"
    );
}

/// A second opinion on the requests.
#[test]
#[ignore = "needs moto_server"]
fn moto_takes_media_in_parts() {
    let moto = crate::origin::moto::Moto::start();
    moto.put("/media", b"");
    let mut bucket = Bucket::start();
    bucket.address = moto.address;
    let file = bucket.write("long.bin", &crate::host::noise(2 * PART + 1000));
    let added = bucket.add(&file, &["--read-back"]);
    let image = bucket.add(&bucket.write("x.png", PNG), &["--private"]);
    assert_eq!(bucket.add(&file, &[])["added"], false);
    let checked = bucket.run(&["check", URL]);
    assert!(checked.stdout.starts_with(b"2 ok ("), "{checked:?}");
    for media in [added, image] {
        let published = bucket.run(&["publish", "--store", URL, text(&media, "id")]);
        assert!(published.status.success(), "{published:?}");
        let removed = bucket.run(&["rm", "--store", URL, text(&media, "id")]);
        assert!(removed.status.success(), "{removed:?}");
    }
    assert!(bucket.run(&["ls", URL]).stdout.is_empty());
}
