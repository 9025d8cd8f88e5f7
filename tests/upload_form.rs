//! Uploads by the form of a folder's page: what is stored, what is refused, and what is left behind.

use crate::client::{self, Response};
use crate::host::{Host, Setup, noise, with};
use crate::players::Browser;
use crate::server::Server;
use crate::uploads::{
    AUTHORIZATION, TOKEN, begun, files, held_bytes, host, http2, json, response, uploads,
};
use bytes::Bytes;
use fantoccini::Locator;
use http_body_util::{BodyExt, Full};
use millpond::ledger::Kind;
use millpond::{Config, Outcome};
use millpond_server::{ClientLimits, ConnectionLimits};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::fs;
use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::process::Command;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BROWSER: &str = "accept: text/html,*/*;q=0.8\r\n";

/// A part: name of the field, name of the file, content.
type Part<'a> = (&'a str, Option<&'a str>, &'a [u8]);

const OF_TOKEN: Part<'_> = ("token", None, TOKEN.as_bytes());

fn file<'a>(name: &'a str, content: &'a [u8]) -> Part<'a> {
    ("file", Some(name), content)
}

/// The content of a form, as a browser sends it.
fn form(parts: &[Part<'_>]) -> Vec<u8> {
    let mut content = Vec::new();
    for (name, file, value) in parts {
        content.extend_from_slice(b"--B\r\n");
        let file = file.map(|file| format!("; filename=\"{file}\"\r\nContent-Type: image/png"));
        let head = format!(
            "Content-Disposition: form-data; name=\"{name}\"{}\r\n\r\n",
            file.unwrap_or_default()
        );
        content.extend_from_slice(head.as_bytes());
        content.extend_from_slice(value);
        content.extend_from_slice(b"\r\n");
    }
    content.extend_from_slice(b"--B--\r\n");
    content
}

fn head(target: &str, fields: &str, framing: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nhost: a\r\ncontent-type: multipart/form-data; boundary=B\r\n{fields}{framing}\r\n\r\n"
    )
}

fn post(target: &str, fields: &str, content: &[u8]) -> Vec<u8> {
    let framing = format!("content-length: {}", content.len());
    [head(target, fields, &framing).as_bytes(), content].concat()
}

/// Sends a form to a folder.
async fn send(host: &Host, target: &str, fields: &str, content: &[u8]) -> Response {
    response(&client::raw(host.address, &post(target, fields, content)).await)
}

fn read(host: &Host, name: &str) -> Vec<u8> {
    fs::read(host.folder.path().join(name)).unwrap()
}

fn html(response: &Response) -> &str {
    let media_type = response.field("content-type");
    assert_eq!(media_type, Some("text/html; charset=utf-8"), "{response:?}");
    str::from_utf8(&response.body).unwrap()
}

#[tokio::test]
async fn the_files_of_a_form_are_stored_whole_and_shown() {
    let host = host().await;
    let large = noise(300_000);
    let content = form(&[
        OF_TOKEN,
        file("a b.png", &large),
        file("", b""),
        file("empty.txt", b""),
        ("comment", None, b"ignored"),
        file("C:\\fakepath\\caf\u{e9}.txt", b"\r\n--A\r\n-\r\n--"),
    ]);
    let stored = send(&host, "/media/films/", "", &content).await;
    assert_eq!(stored.status, 201, "{stored:?}");
    assert_eq!(stored.field("location"), Some("/media/films/"));
    assert_eq!(
        json(&stored),
        serde_json::json!({ "stored": [
            { "path": "/media/films/a%20b.png", "size": 300_000 },
            { "path": "/media/films/empty.txt", "size": 0 },
            { "path": "/media/films/caf%C3%A9.txt", "size": 12 },
        ] })
    );
    assert!(read(&host, "films/a b.png") == large);
    assert_eq!(read(&host, "films/caf\u{e9}.txt"), b"\r\n--A\r\n-\r\n--");
    assert!(host.get("/media/films/a%20b.png").await.body == large);
    // A browser is led to the folder, whose page has the file and the form.
    let content = form(&[OF_TOKEN, file("b.png", b"b")]);
    let stored = send(&host, "/media/?sort=name", BROWSER, &content).await;
    assert_eq!((stored.status, stored.body.len()), (303, 0));
    assert_eq!(stored.field("location"), Some("/media/"));
    let page = host
        .request("GET", "/media/", &[("accept", "text/html")])
        .await;
    let page = html(&page);
    assert!(
        page.contains("./b.png") && page.contains("type=\"file\""),
        "{page}"
    );
    assert_eq!(files(&host).await.len(), 4);
    assert_eq!(held_bytes(&host), 0);
}

/// A page of another site can have a visitor's browser send a form, and knows no token. No cookie stands for it.
#[tokio::test]
async fn a_form_without_the_token_stores_nothing() {
    let host = host().await;
    host.write("a.txt", b"a");
    let secret = file("b.txt", b"b");
    for (parts, status) in [
        (vec![secret], 401),
        (vec![secret, OF_TOKEN], 401),
        (vec![], 401),
        (vec![("token", None, b"".as_slice()), secret], 403),
        (
            vec![("token", None, b"another-token-altogether"), secret],
            403,
        ),
        (
            vec![("token", Some("token"), TOKEN.as_bytes()), secret],
            401,
        ),
        (vec![("Token", None, TOKEN.as_bytes()), secret], 401),
        (vec![("token", None, &[b'a'; 5000]), secret], 400),
        // It tells nothing about what is there.
        (vec![file("a.txt", b"b")], 401),
    ] {
        let refused = send(&host, "/media/", "", &form(&parts)).await;
        assert_eq!(refused.status, status, "{parts:?}");
        assert!(!refused.error().is_empty());
    }
    let wrong = "authorization: Bearer another-token-altogether\r\n";
    let content = form(&[OF_TOKEN, secret]);
    assert_eq!(send(&host, "/media/", wrong, &content).await.status, 403);
    let page = send(&host, "/media/", BROWSER, &form(&[secret])).await;
    assert_eq!(page.status, 401);
    assert!(html(&page).contains("Uploads need a token"));
    assert_eq!(files(&host).await.len(), 1);
    // Another scheme is for a proxy before the host, and the field counts.
    let proxy = "authorization: Basic YTpi\r\n";
    assert_eq!(send(&host, "/media/", proxy, &content).await.status, 201);
    let bare = form(&[file("c.txt", b"c")]);
    let stored = send(&host, "/media/", AUTHORIZATION, &bare).await;
    assert_eq!(stored.status, 201);
    assert_eq!(held_bytes(&host), 0);
}

#[tokio::test]
async fn forms_are_refused_where_there_are_no_uploads() {
    let content = form(&[OF_TOKEN, file("a.txt", b"a")]);
    let off = Host::start().await;
    let refused = send(&off, "/media/", "", &content).await;
    assert_eq!(refused.status, 405);
    assert_eq!(refused.field("allow"), Some("GET, HEAD, OPTIONS"));
    let page = off
        .request("GET", "/media/", &[("accept", "text/html")])
        .await;
    assert!(!html(&page).contains("multipart"));
    let host = host().await;
    for target in [
        "/media/a.txt",
        "/api/media",
        "/api/media/",
        "/media",
        "/other/",
    ] {
        let refused = send(&host, target, "", &content).await;
        assert_eq!(refused.status, 405, "{target}");
    }
    let allowed = host.request("OPTIONS", "/media/", &[]).await;
    assert_eq!(allowed.field("allow"), Some("GET, HEAD, POST, OPTIONS"));
    let allowed = host.request("OPTIONS", "/media/a.txt", &[]).await;
    assert_eq!(allowed.field("allow"), Some("GET, HEAD, PUT, OPTIONS"));
    assert!(files(&host).await.is_empty());
}

#[tokio::test]
async fn a_name_is_taken_once_and_the_error_says_what_was_stored() {
    let host = host().await;
    host.write("there.txt", b"old");
    let content = form(&[
        OF_TOKEN,
        file("first.txt", b"1"),
        file("there.txt", b"new"),
        file("last.txt", b"3"),
    ]);
    let refused = send(&host, "/media/", "", &content).await;
    assert_eq!(refused.status, 409);
    let said = json(&refused);
    assert_eq!(said["file"], "there.txt");
    let first = serde_json::json!([{ "path": "/media/first.txt", "size": 1 }]);
    assert_eq!(said["stored"], first);
    assert_eq!(read(&host, "there.txt"), b"old");
    assert_eq!(files(&host).await.len(), 2);
    let page = send(&host, "/media/", BROWSER, &content).await;
    assert_eq!(page.status, 409);
    assert!(html(&page).contains("first.txt"), "{page:?}");
    let twice = form(&[OF_TOKEN, file("x.txt", b"1"), file("x.txt", b"2")]);
    assert_eq!(send(&host, "/media/", "", &twice).await.status, 409);
    assert_eq!(read(&host, "x.txt"), b"1");
}

#[tokio::test]
async fn names_that_cannot_be_served_are_refused() {
    let host = host().await;
    let long = "a".repeat(256);
    for (target, name, status) in [
        ("/media/", ".env", 403),
        ("/media/", "..", 403),
        ("/media/", "a/..", 403),
        ("/media/", "ab", 403),
        ("/media/", "a\u{85}b", 403),
        ("/media/", &long, 403),
        ("/media/.git/", "a", 403),
        ("/media/../", "a", 403),
        ("/media/%zz/", "a", 400),
    ] {
        let content = form(&[OF_TOKEN, file(name, b"x")]);
        let refused = send(&host, target, "", &content).await;
        assert_eq!(refused.status, status, "{target} {name:?}");
    }
    // The parser of heads refuses other control characters, and the host a name that is not UTF-8.
    for name in [b"a\x01b".as_slice(), b"a\xffb"] {
        let content = form(&[OF_TOKEN, file("NAME", b"x")]);
        let at = content
            .windows(4)
            .position(|found| found == b"NAME")
            .unwrap();
        let content = [&content[..at], name, &content[at + 4..]].concat();
        let refused = send(&host, "/media/", "", &content).await;
        assert_eq!(refused.status, 400, "{name:?}");
    }
    let nameless = form(&[OF_TOKEN, file("", b"x")]);
    assert_eq!(send(&host, "/media/", "", &nameless).await.status, 400);
    for parts in [vec![OF_TOKEN], vec![OF_TOKEN, file("", b"")]] {
        let refused = send(&host, "/media/", "", &form(&parts)).await;
        assert_eq!(
            (refused.status, &*refused.error()),
            (400, "No file was chosen")
        );
    }
    assert!(files(&host).await.is_empty());
}

#[tokio::test]
async fn content_that_is_no_form_is_refused_before_it_is_read() {
    let host = host().await;
    for (media_type, status) in [
        ("", 415),
        ("content-type: application/x-www-form-urlencoded\r\n", 415),
        ("content-type: multipart/mixed; boundary=B\r\n", 415),
        ("content-type: multipart/form-data\r\n", 400),
        ("content-type: multipart/form-data; boundary=\r\n", 400),
    ] {
        let sent = format!(
            "POST /media/ HTTP/1.1\r\nhost: a\r\n{media_type}expect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        );
        let refused = response(&client::raw(host.address, sent.as_bytes()).await);
        assert_eq!(refused.status, status, "{media_type}");
    }
    for (characters, status) in [(70, 401), (71, 400)] {
        let boundary = "b".repeat(characters);
        let content = format!("--{boundary}--");
        let sent = format!(
            "POST /media/ HTTP/1.1\r\nhost: a\r\ncontent-type: multipart/form-data; boundary={boundary}\r\ncontent-length: {}\r\n\r\n{content}",
            content.len()
        );
        let refused = response(&client::raw(host.address, sent.as_bytes()).await);
        assert_eq!(refused.status, status, "{characters}");
    }
}

/// The parser alone would keep all of it.
#[tokio::test]
async fn a_head_or_a_preamble_without_an_end_is_refused_in_bounded_memory() {
    let host = host().await;
    let token = form(&[OF_TOKEN]);
    let token = token.strip_suffix(b"--B--\r\n").unwrap();
    let part = [token, b"--B\r\nContent-Disposition: form-data; x=\""].concat();
    let padding = [token, b"--B"].concat();
    for (begin, filler) in [
        (b"".as_slice(), b'a'),
        (b"--B\r\n", b'a'),
        (&part, b'a'),
        (&part, b'\n'),
        (&padding, b' '),
    ] {
        let head = head("/media/", "", "content-length: 100000000");
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(begin).await.unwrap();
        let filler = vec![filler; 64 * 1024];
        // The host answers long before the end.
        let mut sent = 0;
        while sent < 3_000_000 && stream.write_all(&filler).await.is_ok() {
            sent += filler.len();
        }
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let status = client::status(&answer);
        assert_eq!(status, Some(400), "{begin:?}");
    }
    assert!(files(&host).await.is_empty());
    assert_eq!(held_bytes(&host), 0);
}

#[tokio::test]
async fn a_form_that_is_cut_at_any_byte_stores_whole_files_only() {
    let host = host().await;
    let whole = form(&[
        OF_TOKEN,
        file("a.txt", b"first\r\n--"),
        file("b.txt", b"second"),
    ]);
    let end = whole.len() - "--\r\n".len();
    for cut in 0..whole.len() {
        let answered = send(&host, "/media/", "", &whole[..cut]).await;
        // Only the line break behind the last boundary may be missing.
        let expected = match cut {
            _ if cut >= end + 2 => &[201][..],
            _ => &[400, 401],
        };
        assert!(expected.contains(&answered.status), "{cut}: {answered:?}");
        for path in files(&host).await {
            let name = path.file_name().unwrap().to_str().unwrap();
            let content = match name {
                "a.txt" => "first\r\n--",
                "b.txt" => "second",
                other => panic!("{cut}: {other}"),
            };
            assert_eq!(fs::read_to_string(&path).unwrap(), content, "{cut}");
            assert!(name == "a.txt" || answered.status == 201, "{cut}");
            fs::remove_file(path).unwrap();
        }
        // The connection is cut as well: nothing is left, and nothing is told.
        let framing = format!("content-length: {}", whole.len());
        let head = head("/media/", "", &framing);
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        let sent = [head.as_bytes(), &whole[..cut.min(end)]].concat();
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(
            client::status(&answer).is_none_or(|status| status == 400),
            "{cut}"
        );
        for path in files(&host).await {
            assert!(path.ends_with("a.txt"), "{cut}: {path:?}");
            fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(held_bytes(&host), 0);
}

#[test]
fn content_is_stored_as_it_was_however_it_is_sent() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let host = runtime.block_on(host());
    // Parts of a boundary are the likely ones.
    let piece = prop_oneof![
        Just(b"\r\n--".to_vec()).boxed(),
        Just(b"\r".to_vec()).boxed(),
        Just(b"\r\n".to_vec()).boxed(),
        Just(b"--".to_vec()).boxed(),
        Just(b"-B".to_vec()).boxed(),
        proptest::collection::vec(any::<u8>(), 0..40).boxed(),
    ];
    let pieces = proptest::collection::vec(piece, 0..12);
    let sizes = proptest::collection::vec(1_usize..50, 1..8);
    let config = ProptestConfig::with_cases(48);
    let mut runner = TestRunner::new(config);
    let test = |(pieces, sizes): (Vec<Vec<u8>>, Vec<usize>)| {
        let content = pieces.concat();
        let has_boundary = [b"\r\n", content.as_slice()].concat();
        if has_boundary.windows(5).any(|found| found == b"\r\n--B") {
            return Ok(());
        }
        runtime.block_on(async {
            let form = form(&[OF_TOKEN, file("a.bin", &content), file("b.bin", b"b")]);
            let mut sent = head("/media/", "", "transfer-encoding: chunked").into_bytes();
            let (mut rest, mut sizes) = (form.as_slice(), sizes.iter().cycle());
            while !rest.is_empty() {
                let size = rest.len().min(*sizes.next().unwrap());
                let (chunk, after) = rest.split_at(size);
                sent.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                sent.extend_from_slice(chunk);
                sent.extend_from_slice(b"\r\n");
                rest = after;
            }
            sent.extend_from_slice(b"0\r\n\r\n");
            let answered = client::raw(host.address, &sent).await;
            assert_eq!(client::status(&answered), Some(201));
            assert!(read(&host, "a.bin") == content, "{content:?}");
            for path in files(&host).await {
                fs::remove_file(path).unwrap();
            }
        });
        Ok(())
    };
    runner.run(&(pieces, sizes), test).unwrap();
}

#[tokio::test]
async fn content_in_single_bytes_is_stored() {
    let host = host().await;
    let content = form(&[OF_TOKEN, file("a.bin", &noise(200))]);
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let framing = format!("content-length: {}", content.len());
    stream
        .write_all(head("/media/", "", &framing).as_bytes())
        .await
        .unwrap();
    for byte in &content {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(client::status(&answer), Some(201));
    assert!(read(&host, "a.bin") == noise(200));
}

#[tokio::test]
async fn a_hundred_files_are_stored_and_a_thousand_parts_are_the_most() {
    let host = host().await;
    let names: Vec<String> = (0..1001).map(|number| format!("{number}.txt")).collect();
    let named = |names: &'_ [String]| -> Vec<u8> {
        let files = names.iter().map(|name| file(name, b"x"));
        form(&std::iter::once(OF_TOKEN).chain(files).collect::<Vec<_>>())
    };
    let stored = send(&host, "/media/", "", &named(&names[..100])).await;
    assert_eq!(stored.status, 201);
    assert_eq!(json(&stored)["stored"].as_array().unwrap().len(), 100);
    // Small parts that arrive together are not all held at once.
    let fields = vec![("comment", None, b"x".as_slice()); 1000];
    let parts: Vec<_> = std::iter::once(OF_TOKEN).chain(fields).collect();
    let refused = send(&host, "/media/", "", &form(&parts)).await;
    assert_eq!(
        (refused.status, &*refused.error()),
        (413, "Too many files in one form")
    );
    assert_eq!(files(&host).await.len(), 100);
    assert_eq!(held_bytes(&host), 0);
}

#[tokio::test]
async fn a_file_that_is_too_large_is_refused_and_the_others_stay() {
    let host = Host::start_with(uploads(1000)).await;
    let (fits, large) = (vec![1; 1000], vec![2; 1001]);
    // The maximum is of each file.
    let content = form(&[
        OF_TOKEN,
        file("a.bin", &fits),
        file("b.bin", &fits),
        file("c.bin", &large),
    ]);
    let refused = send(&host, "/media/", "", &content).await;
    assert_eq!(
        (refused.status, &*refused.error()),
        (413, "Content too large")
    );
    assert_eq!(json(&refused)["stored"].as_array().unwrap().len(), 2);
    assert_eq!(files(&host).await.len(), 2);
}

#[tokio::test]
async fn a_form_is_charged_while_it_lasts_and_a_cut_one_leaves_nothing() {
    let host = host().await;
    let content = form(&[OF_TOKEN, file("a.bin", &noise(400_000))]);
    for is_reset in [false, true] {
        let framing = format!("expect: 100-continue\r\ncontent-length: {}", content.len());
        let head = head("/media/", "", &framing);
        let stream = client::begin_upload(host.address, &head, &content[..300_000]).await;
        let requests = host.registry().snapshot().requests;
        assert!(requests.of(Kind::Buffers) > 0, "{requests:?}");
        assert!(requests.total() <= host.millpond().limits().request_memory_bytes);
        match is_reset {
            true => client::reset(stream),
            false => drop(stream),
        }
        assert!(files(&host).await.is_empty());
    }
    assert_eq!(host.registry().ended_requests(Outcome::Aborted), 2);
    assert_eq!(held_bytes(&host), 0);
    while host.reserved_bytes() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn forms_share_a_connection_of_http2() {
    let host = host().await;
    let mut sender = http2(&host).await;
    let large = noise(300_000);
    for (parts, status) in [
        (vec![OF_TOKEN, file("a.bin", &large)], 201),
        (vec![OF_TOKEN, file("a.bin", b"x")], 409),
        (vec![file("b.bin", b"x")], 401),
        (vec![OF_TOKEN, file("b.bin", b"x")], 201),
    ] {
        let request = http::Request::post("http://millpond.test/media/")
            .header("content-type", "multipart/form-data; boundary=\"B\"")
            .body(Full::new(Bytes::from(form(&parts))))
            .unwrap();
        let answered = sender.send_request(request).await.unwrap();
        assert_eq!(answered.status(), status);
        answered.into_body().collect().await.unwrap();
    }
    assert!(read(&host, "a.bin") == large);
    drop(sender);
    assert_eq!(files(&host).await.len(), 2);
    assert_eq!(held_bytes(&host), 0);
}

/// Starts the program under a limit of file sizes, which acts as a full disk does.
#[cfg(unix)]
#[test]
fn a_full_disk_is_told_in_the_format_of_the_client() {
    let folder = tempfile::tempdir().unwrap();
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
    let large = vec![7; 12 << 20];
    let content = form(&[OF_TOKEN, file("a.txt", b"a"), file("b.bin", &large)]);
    for (fields, name) in [("", "a.txt"), (BROWSER, "c.txt")] {
        let content = match name {
            "a.txt" => content.clone(),
            _ => form(&[OF_TOKEN, file(name, b"c"), file("b.bin", &large)]),
        };
        let mut stream = std::net::TcpStream::connect(&server.address).unwrap();
        // The host answers before it has read everything.
        let _ = stream.write_all(&post("/media/", fields, &content));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let full = response(&answer);
        assert_eq!(full.status, 507, "{fields}");
        match fields {
            "" => assert_eq!(json(&full)["stored"][0]["path"], "/media/a.txt"),
            _ => assert!(html(&full).contains("No space is left for the upload")),
        }
        assert!(folder.path().join(name).exists());
        assert!(!folder.path().join("b.bin").exists());
    }
    let left = fs::read_dir(folder.path().join(".incoming")).unwrap();
    assert_eq!(left.count(), 1, "the lock alone");
}

/// Errors that the host makes itself were JSON for browsers too.
#[tokio::test]
async fn errors_of_the_host_are_pages_for_browsers_only() {
    let browser = ("accept", "text/html,*/*;q=0.8");
    let long = format!("/media/{}", "a".repeat(9000));
    let host = host().await;
    let page = host.request("GET", &long, &[browser]).await;
    let json = host.request("GET", &long, &[]).await;
    assert_eq!((page.status, json.status), (414, 414));
    assert!(html(&page).contains("<b>414</b> Target too long"));
    let policy = page.field("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_eq!(json.error(), "Target too long");
    assert_eq!(json.field("content-security-policy"), None);
    let head = host.request("HEAD", &long, &[browser]).await;
    assert_eq!((head.status, head.body.len()), (414, 0));
    let large =
        format!("POST /media/a.txt HTTP/1.1\r\nhost: a\r\n{BROWSER}content-length: 65537\r\n\r\n");
    let page = response(&client::raw(host.address, large.as_bytes()).await);
    assert_eq!(page.status, 413);
    html(&page);
    // Uploads by `PUT` are no different.
    let put =
        format!("PUT /media/a.txt HTTP/1.1\r\nhost: a\r\n{BROWSER}content-length: 1\r\n\r\na");
    let page = response(&client::raw(host.address, put.as_bytes()).await);
    assert_eq!(page.status, 401);
    assert_eq!(page.field("www-authenticate"), Some("Bearer"));
    html(&page);
    // The fields of a malformed head are unknown.
    let malformed = format!("GET /media/a.txt HTTP/1.1\r\nhost: a\r\n{BROWSER} x: y\r\n\r\n");
    let json = response(&client::raw(host.address, malformed.as_bytes()).await);
    assert_eq!(json.status, 400);
    assert!(!json.error().is_empty());
    let config: Config = with(|config: &mut Config| config.browse = Some(false));
    let setup = Setup {
        config,
        ..uploads(1000)
    };
    let host = Host::start_with(setup).await;
    let json = host.request("GET", &long, &[browser]).await;
    assert_eq!(json.error(), "Target too long");
    // Without pages of folders there is none to lead a browser to.
    let content = form(&[OF_TOKEN, file("a.txt", b"a")]);
    assert_eq!(send(&host, "/media/", BROWSER, &content).await.status, 201);
}

#[tokio::test]
async fn a_browser_that_asks_too_often_gets_a_page_with_the_time_to_wait() {
    let mut setup = uploads(1000);
    let clients = with(|limits: &mut ClientLimits| limits.concurrency = NonZeroU32::new(1));
    setup.connections = with(|limits: &mut ConnectionLimits| limits.clients = clients);
    let host = Host::start_with(setup).await;
    let stream = begun(&host, "/media/a.txt").await;
    let json = host.get("/media/").await;
    let page = host
        .request("GET", "/media/", &[("accept", "text/html")])
        .await;
    assert_eq!((json.status, page.status), (429, 429));
    assert_eq!(page.field("retry-after"), json.field("retry-after"));
    assert!(page.field("retry-after").is_some());
    assert!(html(&page).contains(&json.error()), "{page:?}");
    drop(stream);
    host.registry().idle().await;
    assert_eq!(held_bytes(&host), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs chromium and chromedriver"]
async fn a_browser_uploads_a_file_by_the_form_and_shows_it() {
    let host = host().await;
    host.write("album/there.png", b"x");
    let source = tempfile::tempdir().unwrap();
    let chosen = source.path().join("My caf\u{e9}.txt");
    fs::write(&chosen, "chosen").unwrap();
    let browser = Browser::start().await;
    let client = &browser.client;
    let url = format!("http://{}/media/album/?sort=-name", host.address);
    client.goto(&url).await.unwrap();
    let find = async |selector: &str| client.find(Locator::Css(selector)).await.unwrap();
    let upload = async || {
        find("details summary").await.click().await.unwrap();
        find("input[name=token]")
            .await
            .send_keys(TOKEN)
            .await
            .unwrap();
        let input = find("input[type=file]").await;
        input.send_keys(chosen.to_str().unwrap()).await.unwrap();
        find("details button").await.click().await.unwrap();
    };
    upload().await;
    let card = Locator::Css("li[data-name='My caf\u{e9}.txt']");
    client.wait().for_element(card).await.unwrap();
    assert_eq!(read(&host, "album/My caf\u{e9}.txt"), b"chosen");
    let at = client.current_url().await.unwrap();
    assert_eq!((at.path(), at.query()), ("/media/album/", None));
    // The same again is an error, as a page.
    upload().await;
    client
        .wait()
        .for_element(Locator::Css("h1 b"))
        .await
        .unwrap();
    assert!(find("h1").await.text().await.unwrap().contains("409"));
    browser.stop().await;
}
