//! Uploads over HTTP/1.1 and HTTP/2: what is stored, what is refused, and what is left behind.

use crate::client::{self, Response};
use crate::frames::{self, END_HEADERS, END_STREAM, Frame, fields, kind};
use crate::host::{Host, Setup, let_pass, noise, stop_time, with};
use crate::server::Server;
use crate::tls::Identity;
use base64ct::{Base64, Encoding};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use millpond::Outcome;
use millpond::ledger::Kind;
use millpond_server::{ClientLimits, ConnectionLimits};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::Command;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const TOKEN: &str = "a-token-for-the-tests";
pub(crate) const AUTHORIZATION: &str = "authorization: Bearer a-token-for-the-tests\r\n";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Accepts uploads of up to that many bytes.
pub(crate) fn uploads(max_bytes: u64) -> Setup {
    Setup {
        uploads: Some(max_bytes),
        ..Setup::default()
    }
}

pub(crate) async fn host() -> Host {
    Host::start_with(uploads(8 << 20)).await
}

fn put(target: &str, fields: &str, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head =
        format!("PUT {target} HTTP/1.1\r\nhost: a\r\n{fields}content-length: {length}\r\n\r\n");
    [head.as_bytes(), content].concat()
}

/// The response among bytes that came back, after which the host has closed.
pub(crate) fn response(answer: &[u8]) -> Response {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no response: {answer:?}"));
    let head = str::from_utf8(&answer[..end]).unwrap();
    let mut fields = http::HeaderMap::new();
    for line in head.split("\r\n").skip(1) {
        let (name, value) = line.split_once(": ").unwrap();
        let name: http::HeaderName = name.parse().unwrap();
        fields.append(name, value.parse().unwrap());
    }
    Response {
        status: client::status(answer).unwrap(),
        fields,
        body: answer[end + 4..].to_vec(),
        whole: true,
    }
}

/// Uploads with the token and these field lines.
async fn upload(host: &Host, target: &str, fields: &str, content: &[u8]) -> Response {
    let fields = format!("{AUTHORIZATION}{fields}");
    response(&client::raw(host.address, &put(target, &fields, content)).await)
}

pub(crate) fn json(response: &Response) -> serde_json::Value {
    assert_eq!(response.field("content-type"), Some("application/json"));
    serde_json::from_slice(&response.body).unwrap()
}

/// Memory that requests hold, with those that have ended.
pub(crate) fn held_bytes(host: &Host) -> usize {
    let snapshot = host.registry().snapshot();
    snapshot.requests.total() + snapshot.leaked.total()
}

/// Files in the folder of the host, but for the lock of the store, once no request holds anything.
pub(crate) async fn files(host: &Host) -> Vec<PathBuf> {
    host.registry().idle().await;
    let mut files = Vec::new();
    let mut folders = vec![host.folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.retain(|path| !path.ends_with(".incoming/lock"));
    files.sort_unstable();
    files
}

#[tokio::test]
async fn media_is_stored_by_its_content_and_served_at_once() {
    let host = host().await;
    let content = [PNG, &noise(300_000)].concat();
    let id = hex::encode(Sha256::digest(&content));
    let path = format!("/api/media/{id}");
    assert_eq!(host.get(&path).await.status, 404);
    let created = upload(&host, "/api/media", "", &content).await;
    assert_eq!(created.status, 201, "{created:?}");
    // The driver that reads content lost it.
    assert!(created.field("x-request-id").is_some(), "{created:?}");
    assert_eq!(created.field("location"), Some(&*path));
    let described = json(&created);
    assert_eq!(described["id"], id);
    assert_eq!(described["type"], "image/png");
    assert_eq!(described["size"], content.len());
    assert_eq!(described["access"], "public");
    let got = host.get(&path).await;
    assert_eq!((got.status, got.body == content), (200, true));
    assert_eq!(got.field("content-type"), Some("image/png"));
    // The same again creates nothing.
    let again = upload(&host, "/api/media", "", &content).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.field("location"), Some(&*path));
    assert_eq!(files(&host).await.len(), 2, "content and record");
    assert_eq!(held_bytes(&host), 0);
}

#[tokio::test]
async fn a_named_file_is_created_and_replaced_whole() {
    let host = host().await;
    let target = "/media/films/a%20b/clip%C3%A9.txt";
    assert_eq!(host.get(target).await.status, 404);
    let created = upload(&host, target, "", b"first").await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.field("location"), Some(target));
    assert_eq!(json(&created)["size"], 5);
    for content in ["second", "3", ""] {
        let before = host.get(target).await;
        assert_eq!(before.status, 200);
        let replaced = upload(&host, target, "", content.as_bytes()).await;
        assert_eq!((replaced.status, replaced.body), (204, Vec::new()));
        // Nothing of the old file is served from a cache.
        assert_eq!(host.get(target).await.body, content.as_bytes());
    }
    let path = host.folder.path().join("films/a b/clip\u{e9}.txt");
    assert_eq!(files(&host).await, [path]);
}

#[tokio::test]
async fn chunked_content_is_stored_and_malformed_chunks_are_not() {
    let host = host().await;
    let head = format!(
        "PUT /media/a.txt HTTP/1.1\r\nhost: a\r\n{AUTHORIZATION}transfer-encoding: chunked\r\n\r\n"
    );
    let sent = format!("{head}5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nx: y\r\n\r\n");
    let answer = client::raw(host.address, sent.as_bytes()).await;
    assert_eq!(client::status(&answer), Some(201));
    assert_eq!(host.get("/media/a.txt").await.body, b"hello world");
    for chunks in ["5\r\nhello!", "x\r\n", "-1\r\n", "5\r\nhello\r\n0\r\n\r"] {
        let sent = format!("{head}{chunks}");
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(client::status(&answer), Some(400), "{chunks:?}");
    }
    assert_eq!(host.get("/media/a.txt").await.body, b"hello world");
    assert_eq!(files(&host).await.len(), 1);
}

/// The bytes behind content are no request, whatever they look like.
#[tokio::test]
async fn an_upload_is_the_last_request_of_its_connection() {
    let host = host().await;
    host.write("a.txt", b"smuggled");
    let mut sent = put("/media/b.txt", AUTHORIZATION, b"content");
    sent.extend_from_slice(b"GET /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = client::raw(host.address, &sent).await;
    assert_eq!(client::status(&answer), Some(201));
    let text = String::from_utf8(answer).unwrap();
    assert!(
        text.contains("connection: close\r\n") && !text.contains("smuggled"),
        "{text}"
    );
}

#[tokio::test]
async fn without_the_token_nothing_is_read_and_nothing_told() {
    let host = host().await;
    host.write("there.txt", b"there");
    for target in [
        "/api/media",
        "/media/there.txt",
        "/media/not.txt",
        "/media/.env",
    ] {
        for (fields, status) in [
            ("", 401),
            ("authorization: Basic YTpi\r\n", 401),
            ("authorization: Bearer\r\n", 401),
            ("authorization: Bearer \r\n", 401),
            ("authorization: Bearer a-token-for-the-test\r\n", 403),
            ("authorization: Bearer another-token-altogether\r\n", 403),
        ] {
            // The client waits with its content, and gets no leave to send it.
            let fields = format!("{fields}expect: 100-continue\r\ncontent-length: 5\r\n");
            let head = format!("PUT {target} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
            let answered = response(&client::raw(host.address, head.as_bytes()).await);
            assert_eq!(answered.status, status, "{target} {fields:?}");
            let challenge = answered.field("www-authenticate");
            assert_eq!(challenge, (status == 401).then_some("Bearer"));
            assert!(!answered.error().is_empty());
        }
    }
    // The scheme is case-insensitive.
    let lower = "authorization: bearer a-token-for-the-tests\r\n";
    let answer = client::raw(host.address, &put("/media/b.txt", lower, b"b")).await;
    assert_eq!(client::status(&answer), Some(201));
    assert_eq!(files(&host).await.len(), 2);
    assert_eq!(host.get("/media/there.txt").await.body, b"there");
}

#[tokio::test]
async fn uploads_are_off_unless_they_are_allowed() {
    let host = Host::start().await;
    let refused = upload(&host, "/media/a.txt", "", b"a").await;
    assert_eq!(refused.status, 405);
    // Content of other requests is skipped as before, and bounded.
    let host = self::host().await;
    for (method, target) in [
        ("POST", "/media/a.txt"),
        ("PUT", "/other"),
        ("DELETE", "/api/media"),
    ] {
        let head = format!("{method} {target} HTTP/1.1\r\nhost: a\r\n{AUTHORIZATION}");
        let small = format!("{head}content-length: 1\r\n\r\na");
        let answer = client::raw(host.address, small.as_bytes()).await;
        assert!(
            [404, 405].contains(&client::status(&answer).unwrap()),
            "{method} {target}"
        );
        let large = format!("{head}content-length: 65537\r\n\r\n");
        let answer = client::raw(host.address, large.as_bytes()).await;
        assert_eq!(client::status(&answer), Some(413));
    }
    assert!(files(&host).await.is_empty());
}

#[tokio::test]
async fn too_much_is_refused_as_early_as_it_is_known() {
    const MAX_BYTES: u64 = 100_000;
    let host = Host::start_with(uploads(MAX_BYTES)).await;
    // By its length, before any of it is sent.
    let length = MAX_BYTES + 1;
    let head = format!(
        "PUT /api/media HTTP/1.1\r\nhost: a\r\n{AUTHORIZATION}expect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    );
    let refused = response(&client::raw(host.address, head.as_bytes()).await);
    assert_eq!(
        (refused.status, &*refused.error()),
        (413, "Content too large")
    );
    // By its count.
    let chunk = format!("{length:x}\r\n{}\r\n0\r\n\r\n", "a".repeat(length as usize));
    let head = format!(
        "PUT /media/a.txt HTTP/1.1\r\nhost: a\r\n{AUTHORIZATION}transfer-encoding: chunked\r\n\r\n"
    );
    let answer = client::raw(host.address, format!("{head}{chunk}").as_bytes()).await;
    assert_eq!(client::status(&answer), Some(413));
    assert!(files(&host).await.is_empty());
    // As much as is allowed, however it is sent.
    let content = vec![b'a'; MAX_BYTES as usize];
    assert_eq!(upload(&host, "/api/media", "", &content).await.status, 201);
    assert_eq!(host.registry().ended_requests(Outcome::Rejected), 2);
    host.registry().idle().await;
    assert_eq!(held_bytes(&host), 0);
}

#[tokio::test]
async fn a_cut_upload_leaves_nothing() {
    let host = host().await;
    host.write("a.txt", b"old");
    let content = noise(400_000);
    for target in ["/api/media", "/media/a.txt", "/media/new/b.txt"] {
        for is_reset in [false, true] {
            let head = format!(
                "PUT {target} HTTP/1.1\r\nhost: a\r\n{AUTHORIZATION}expect: 100-continue\r\ncontent-length: 400000\r\n\r\n"
            );
            let stream = client::begin_upload(host.address, &head, &content[..300_000]).await;
            match is_reset {
                true => client::reset(stream),
                false => drop(stream),
            }
            assert_eq!(files(&host).await, [host.folder.path().join("a.txt")]);
        }
    }
    assert_eq!(host.get("/media/a.txt").await.body, b"old");
    host.registry().idle().await;
    assert_eq!(host.registry().ended_requests(Outcome::Aborted), 6);
    assert_eq!(held_bytes(&host), 0);
    while host.reserved_bytes() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn content_with_another_digest_is_not_stored() {
    let host = host().await;
    let digest = Base64::encode_string(&Sha256::digest(b"content"));
    let other = Base64::encode_string(&Sha256::digest(b"other"));
    for name in ["repr-digest", "content-digest"] {
        for (value, status) in [
            (format!("sha-256=:{digest}:"), 201),
            (format!("sha-256=:{other}:"), 422),
            (format!("sha-256={digest}"), 400),
            ("sha-256=:YQ==:".into(), 400),
        ] {
            let target = format!("/media/{name}.txt");
            let answered =
                upload(&host, &target, &format!("{name}: {value}\r\n"), b"content").await;
            assert_eq!(answered.status, status, "{value}");
            assert_eq!(
                files(&host).await.len(),
                usize::from(status == 201),
                "{value}"
            );
            let _ = fs::remove_file(host.folder.path().join(format!("{name}.txt")));
        }
    }
}

#[tokio::test]
async fn coded_and_partial_content_is_refused() {
    let host = host().await;
    for (fields, status) in [
        ("content-encoding: gzip\r\n", 415),
        ("content-range: bytes 0-0/2\r\n", 400),
        ("if-match: a\r\n", 400),
    ] {
        let refused = upload(&host, "/media/a.txt", fields, b"a").await;
        assert_eq!(refused.status, status, "{fields}");
    }
    assert!(files(&host).await.is_empty());
}

#[tokio::test]
async fn no_name_leads_out_or_into_the_store() {
    let host = host().await;
    let id = "ab".repeat(32);
    for target in [
        "/media/.env",
        "/media/.incoming/lock",
        "/media/a/.hidden/b",
        "/media/../b.txt",
        "/media/%2e%2e/b.txt",
        "/media/a%2f..%2f..%2fb.txt",
        "/media//etc/passwd",
        "/media/a/",
        "/media/ab",
        &format!("/media/ab/{id}"),
        &format!("/media/films/ab/{id}.json"),
    ] {
        assert_eq!(
            upload(&host, target, "", b"x").await.status,
            403,
            "{target}"
        );
    }
    for target in ["/media/a%00", "/media/%ff", "/media/a%2"] {
        assert_eq!(
            upload(&host, target, "", b"x").await.status,
            400,
            "{target}"
        );
    }
    assert!(files(&host).await.is_empty());
    host.write("folder/a.txt", b"a");
    for target in ["/media/folder", "/media/folder/a.txt/b"] {
        assert_eq!(
            upload(&host, target, "", b"x").await.status,
            409,
            "{target}"
        );
    }
    let long = format!("/media/{}", "a".repeat(300));
    assert_eq!(upload(&host, &long, "", b"x").await.status, 403);
    #[cfg(unix)]
    {
        let outside = tempfile::tempdir().unwrap();
        let link = host.folder.path().join("out");
        std::os::unix::fs::symlink(outside.path(), link).unwrap();
        assert_eq!(
            upload(&host, "/media/out/b.txt", "", b"x").await.status,
            403
        );
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn preconditions_protect_a_file_from_a_second_writer() {
    let host = host().await;
    let target = "/media/a.txt";
    let only_new = "if-none-match: *\r\n";
    assert_eq!(upload(&host, target, only_new, b"first").await.status, 201);
    assert_eq!(upload(&host, target, only_new, b"second").await.status, 412);
    assert_eq!(host.get(target).await.body, b"first");
    let tag = host.strong_tag(target).await;
    let if_match = format!("if-match: {tag}\r\n");
    assert_eq!(
        upload(&host, target, &if_match, b"second").await.status,
        204
    );
    assert_eq!(upload(&host, target, &if_match, b"third").await.status, 412);
    assert_eq!(host.get(target).await.body, b"second");
    let missing = upload(&host, "/media/none.txt", "if-match: *\r\n", b"x").await;
    assert_eq!(missing.status, 412);
    assert_eq!(files(&host).await.len(), 1);
}

/// A client that waits for `100 Continue` learns of a failed precondition before it sends anything.
#[tokio::test]
async fn a_failed_precondition_is_told_before_the_content() {
    let host = host().await;
    host.write("a.txt", b"a");
    let head = format!(
        "PUT /media/a.txt HTTP/1.1\r\nhost: a\r\n{AUTHORIZATION}if-none-match: *\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    );
    let refused = response(&client::raw(host.address, head.as_bytes()).await);
    assert_eq!(refused.status, 412);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_bytes_at_once_are_stored_once() {
    const CLIENTS: usize = 12;
    let host = host().await;
    let sent = put("/api/media", AUTHORIZATION, &noise(200_000));
    let uploads: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (address, sent) = (host.address, sent.clone());
            tokio::spawn(async move { client::status(&client::raw(address, &sent).await) })
        })
        .collect();
    let mut created = 0;
    for upload in uploads {
        match upload.await.unwrap() {
            Some(201) => created += 1,
            status => assert_eq!(status, Some(200)),
        }
    }
    assert_eq!(created, 1);
    assert_eq!(files(&host).await.len(), 2, "content and record");
    assert_eq!(held_bytes(&host), 0);
}

/// Begins an upload, and waits until the host asks for the content.
pub(crate) async fn begun(host: &Host, target: &str) -> TcpStream {
    let head = format!(
        "PUT {target} HTTP/1.1\r\nhost: a\r\n{AUTHORIZATION}expect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    );
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 25]).await.unwrap();
    stream
}

#[tokio::test]
async fn an_upload_is_charged_while_it_lasts_and_invisible_until_its_end() {
    let host = host().await;
    let mut stream = begun(&host, "/media/a.txt").await;
    stream.write_all(b"hell").await.unwrap();
    let requests = host.registry().snapshot().requests;
    assert!(requests.of(Kind::Buffers) > 0, "{requests:?}");
    assert!(requests.of(Kind::Files) > 0);
    assert!(requests.total() <= host.millpond().limits().request_memory_bytes);
    assert!(host.reserved_bytes() > 0);
    assert_eq!(host.get("/media/a.txt").await.status, 404);
    stream.write_all(b"o").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(client::status(&answer), Some(201));
    assert_eq!(host.get("/media/a.txt").await.body, b"hello");
    host.registry().idle().await;
    assert_eq!(held_bytes(&host), 0);
}

#[tokio::test]
async fn the_limits_of_a_client_are_those_of_its_uploads_too() {
    let mut setup = uploads(1 << 20);
    let clients = with(|limits: &mut ClientLimits| limits.concurrency = NonZeroU32::new(1));
    setup.connections = with(|limits: &mut ConnectionLimits| limits.clients = clients);
    let host = Host::start_with(setup).await;
    let stream = begun(&host, "/media/a.txt").await;
    assert_eq!(host.get("/media/a.txt").await.status, 429);
    let refused = upload(&host, "/media/b.txt", "", b"b").await;
    assert_eq!(refused.status, 429);
    drop(stream);
    while host.get("/media/a.txt").await.status == 429 {}
    assert!(files(&host).await.is_empty());
}

#[tokio::test]
async fn a_client_that_sends_too_slowly_is_disconnected() {
    let host = host().await;
    stop_time();
    let mut stream = begun(&host, "/media/a.txt").await;
    stream.write_all(b"hell").await.unwrap();
    let_pass(ConnectionLimits::default().send_timeout).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{answer:?}");
    assert!(files(&host).await.is_empty());
    assert_eq!(host.registry().ended_requests(Outcome::Aborted), 1);
}

#[tokio::test]
async fn uploads_are_encrypted_as_all_else_is() {
    let identity = Identity::new();
    let mut setup = uploads(8 << 20);
    setup.certificate = Some(identity.certificate());
    let host = Host::start_with(setup).await;
    let content = noise(300_000);
    let mut stream = identity
        .connect(host.address, &[b"http/1.1"])
        .await
        .unwrap();
    let sent = put("/media/a.bin", AUTHORIZATION, &content);
    stream.write_all(&sent).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(client::status(&answer), Some(201));
    assert!(fs::read(host.folder.path().join("a.bin")).unwrap() == content);
}

pub(crate) async fn http2(host: &Host) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(host.address).await.unwrap();
    let io = TokioIo::new(stream);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn http2_put(target: &str, token: &str, content: &[u8]) -> http::Request<Full<Bytes>> {
    http::Request::put(format!("http://millpond.test{target}"))
        .header("authorization", format!("Bearer {token}"))
        .body(Full::new(Bytes::copy_from_slice(content)))
        .unwrap()
}

#[tokio::test]
async fn uploads_share_a_connection_of_http2() {
    let host = Host::start_with(uploads(1_000_000)).await;
    let mut sender = http2(&host).await;
    let content = noise(1_000_000);
    let id = hex::encode(Sha256::digest(&content));
    let media = sender.send_request(http2_put("/api/media", TOKEN, &content));
    let named = sender
        .clone()
        .send_request(http2_put("/media/a.bin", TOKEN, &content[..500_000]));
    let (media, named) = tokio::join!(media, named);
    let (media, named) = (media.unwrap(), named.unwrap());
    assert_eq!(
        (media.status(), named.status()),
        (201.try_into().unwrap(), 201.try_into().unwrap())
    );
    assert_eq!(media.headers()["location"], format!("/api/media/{id}"));
    let body = media.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()["id"],
        id
    );
    assert!(host.get(&format!("/api/media/{id}")).await.body == content);
    assert!(host.get("/media/a.bin").await.body == content[..500_000]);
    for (target, token, content, status) in [
        ("/api/media", "another-token-altogether", &content[..], 403),
        ("/media/.env", TOKEN, &content[..10], 403),
        (
            "/media/b.bin",
            TOKEN,
            &[content.as_slice(), b"x"].concat(),
            413,
        ),
        ("/media/b.bin", TOKEN, b"", 201),
    ] {
        let answered = sender
            .send_request(http2_put(target, token, content))
            .await
            .unwrap();
        assert_eq!(answered.status(), status, "{target}");
    }
    assert_eq!(files(&host).await.len(), 4);
    drop(sender);
    host.registry().idle().await;
    assert_eq!(held_bytes(&host), 0);
}

/// The field section of an upload with the token.
fn put_section(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    /// A literal whose name is `:method`, in place of the indexed `GET`.
    const METHOD: &[u8] = b"\x02\x03PUT";
    let authorization = format!("Bearer {TOKEN}");
    let of_token = [("authorization", &*authorization)];
    let section = fields(path, &[&of_token, more].concat());
    [METHOD, &section[1..]].concat()
}

#[tokio::test]
async fn a_client_of_http2_waits_for_leave_to_send() {
    let host = host().await;
    let mut client = frames::Client::connect(host.address, &[]).await;
    let section = put_section("/media/a.txt", &[("expect", "100-continue")]);
    client
        .send(&[Frame::new(kind::HEADERS, END_HEADERS, 1, &section)])
        .await;
    let is_head = |frame: &Frame| frame.kind == kind::HEADERS;
    let interim = client.read_until(is_head).await.unwrap();
    assert_eq!(interim.flags & END_STREAM, 0);
    client
        .send(&[Frame::new(kind::DATA, END_STREAM, 1, b"hello")])
        .await;
    client.read_until(is_head).await.unwrap();
    assert_eq!(host.get("/media/a.txt").await.body, b"hello");
}

#[tokio::test]
async fn a_stream_that_is_cut_leaves_nothing_and_the_others_go_on() {
    let host = host().await;
    let mut client = frames::Client::connect(host.address, &[]).await;
    let head =
        |stream, path| Frame::new(kind::HEADERS, END_HEADERS, stream, &put_section(path, &[]));
    let data = |stream, flags, content: &[u8]| Frame::new(kind::DATA, flags, stream, content);
    client
        .send(&[
            head(1, "/media/a.txt"),
            data(1, 0, &noise(10_000)),
            head(3, "/media/b.txt"),
            Frame::reset(1),
            data(3, END_STREAM, b"hello"),
        ])
        .await;
    client
        .read_until(|frame| frame.kind == kind::HEADERS && frame.stream == 3)
        .await
        .unwrap();
    // Less than was announced is a violation, which the host reports.
    let section = put_section("/media/c.txt", &[("content-length", "10")]);
    client
        .send(&[
            Frame::new(kind::HEADERS, END_HEADERS, 5, &section),
            data(5, END_STREAM, b"short"),
        ])
        .await;
    let reset = client.read_until(|frame| frame.kind == kind::RST_STREAM && frame.stream == 5);
    reset.await.unwrap();
    drop(client);
    assert_eq!(files(&host).await, [host.folder.path().join("b.txt")]);
    assert_eq!(held_bytes(&host), 0);
}

/// Starts the program with uploads, under a limit of file sizes, which acts as a full disk does.
#[cfg(unix)]
#[test]
fn a_full_disk_is_told_and_the_server_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "there").unwrap();
    // 20,480 blocks of 512 bytes are 10 MiB. Beyond them the system sends SIGXFSZ, which ends most programs.
    let script = r#"ulimit -f 20480; exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_millpond"), "serve"]);
    command
        .arg(folder.path())
        .env("MILLPOND_UPLOAD_TOKEN", TOKEN);
    let server = Server::started_by(
        &mut command,
        &["--listen", "127.0.0.1:0", "--uploads", "on"],
    );
    for target in ["/api/media", "/media/a.txt"] {
        let mut stream = std::net::TcpStream::connect(&server.address).unwrap();
        // The host answers before it has read everything.
        let _ = stream.write_all(&put(target, AUTHORIZATION, &vec![7; 12 << 20]));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let full = response(&answer);
        assert_eq!(full.status, 507, "{target}");
        assert_eq!(full.error(), "No space is left for the upload");
    }
    let got = server.get("/media/a.txt");
    assert!(got.ends_with("there"), "{got}");
    let mut stream = std::net::TcpStream::connect(&server.address).unwrap();
    stream
        .write_all(&put("/media/a.txt", AUTHORIZATION, b"new"))
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(client::status(&answer), Some(204));
    let left = fs::read_dir(folder.path().join(".incoming")).unwrap();
    assert_eq!(left.count(), 1, "the lock alone");
}

#[test]
fn uploads_without_a_token_are_no_way_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let start = |arguments: &[&str], token: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.args(["serve", folder.path().to_str().unwrap(), "--uploads", "on"]);
        command
            .args(arguments)
            .envs(token.map(|token| ("MILLPOND_UPLOAD_TOKEN", token)));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let error = start(&[], None);
    assert!(
        error.contains("set MILLPOND_UPLOAD_TOKEN or --upload-token-file"),
        "{error}"
    );
    let error = start(&[], Some("short"));
    assert!(
        error.contains("MILLPOND_UPLOAD_TOKEN: an upload token has 16"),
        "{error}"
    );
    let of_file = ["--upload-token-file", file.to_str().unwrap()];
    assert!(start(&of_file, None).contains("No such file"));
    // It was read without an end, since it has no length.
    let endless = ["--upload-token-file", "/dev/zero"];
    assert!(start(&endless, None).contains("the file is too large for a token"));
    fs::write(&file, "secret with spaces in it").unwrap();
    let error = start(&of_file, None);
    assert!(
        error.contains("an upload token has 16") && !error.contains("secret"),
        "{error}"
    );
}

#[test]
fn the_token_may_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), format!("{TOKEN}\n")).unwrap();
    let file = secret.path().to_str().unwrap();
    let arguments = [
        "--uploads",
        "on",
        "--upload-token-file",
        file,
        "--upload-max-size",
        "3B",
    ];
    let server = Server::start(folder.path(), &arguments);
    for (content, status) in [("abc", 201), ("abcd", 413)] {
        let mut stream = std::net::TcpStream::connect(&server.address).unwrap();
        let sent = put("/media/a.txt", AUTHORIZATION, content.as_bytes());
        stream.write_all(&sent).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(client::status(&answer), Some(status));
    }
}
