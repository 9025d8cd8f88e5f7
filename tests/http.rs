//! Fields for players, caches and pages, over a socket and through the component.

use crate::client::Response;
use crate::host::{Host, Setup, noise};
use millpond::Config;
use millpond::store::{ContentId, Importer};
use millpond_format::signature::{Grant, SigningKey};
use std::fs;
use std::process::Command;
use std::time::SystemTime;

const KEY: &str = "k1:000102030405060708090a0b0c0d0e0f";

fn config(toml: &str) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), toml).unwrap();
    Config::from_file(file.path()).unwrap()
}

async fn host_with(toml: &str) -> Host {
    Host::start_with(Setup {
        config: config(toml),
        ..Setup::default()
    })
    .await
}

/// The parts of a multipart body: what its `Content-Range` says, and the bytes.
fn parts(response: &Response) -> Vec<(String, Vec<u8>)> {
    let media_type = response.field("content-type").unwrap();
    let boundary = media_type
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let mut parts = Vec::new();
    let mut rest = &response.body[..];
    let opening = format!("--{boundary}\r\n");
    let between = format!("\r\n--{boundary}");
    rest = rest.strip_prefix(opening.as_bytes()).unwrap();
    loop {
        let head_end = find(rest, b"\r\n\r\n").unwrap();
        let head = str::from_utf8(&rest[..head_end]).unwrap();
        let range = head.split("Content-Range: bytes ").nth(1).unwrap();
        rest = &rest[head_end + 4..];
        let end = find(rest, between.as_bytes()).unwrap();
        parts.push((range.to_owned(), rest[..end].to_vec()));
        rest = &rest[end + between.len()..];
        if rest == b"--\r\n" {
            return parts;
        }
        rest = rest.strip_prefix(b"\r\n").unwrap();
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[tokio::test]
async fn several_ranges_arrive_as_parts() {
    let host = Host::start().await;
    let content = noise(100_000);
    let id = host.add(&content);
    let target = format!("/api/media/{id}");
    let range = [("range", "bytes=50000-59999, 0-99, -100")];
    let response = host.request("GET", &target, &range).await;
    assert_eq!((response.status, response.whole), (206, true));
    let expected = [
        ("50000-59999/100000", &content[50_000..60_000]),
        ("0-99/100000", &content[..100]),
        ("99900-99999/100000", &content[99_900..]),
    ];
    let parts_of = |response: &Response| -> Vec<(String, Vec<u8>)> { parts(response) };
    for ((range, bytes), (expected_range, expected_bytes)) in
        parts_of(&response).iter().zip(expected)
    {
        assert_eq!(
            (range.as_str(), &bytes[..]),
            (expected_range, expected_bytes)
        );
    }
    assert_eq!(parts(&response).len(), 3);
    // Nobody can put a boundary into media that they cannot guess.
    let again = host.request("GET", &target, &range).await;
    assert_ne!(again.field("content-type"), response.field("content-type"));
    host.registry().idle().await;
}

/// An embedder's client, or a test of theirs, collects a body as a whole: that waited for ever once.
#[tokio::test]
async fn a_body_that_is_collected_in_process_ends_or_says_that_it_is_too_large() {
    use http_body_util::BodyExt;
    let folder = tempfile::tempdir().unwrap();
    let content = noise(600_000);
    fs::write(folder.path().join("a.bin"), &content).unwrap();
    let millpond = millpond::Millpond::new(
        &millpond::Source::embedded(),
        millpond::store::Folder::open(folder.path()).unwrap(),
        &Config::default(),
        millpond::Limits::default(),
    )
    .unwrap();
    let get = || http::Request::get("/media/a.bin").body(()).unwrap();
    let response = millpond.serve(get()).await;
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        content
    );
    fs::write(folder.path().join("a.bin"), noise(3_000_000)).unwrap();
    let response = millpond.serve(get()).await;
    let error = response.into_body().collect().await.unwrap_err();
    assert!(error.to_string().contains("would hold more"), "{error}");
    millpond.registry().idle().await;
}

#[tokio::test]
async fn private_media_is_served_to_whoever_has_a_signature() {
    let host = host_with(&format!(
        "[signing-keys]\n{}",
        KEY.replace(':', " = \"") + "\""
    ))
    .await;
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(source.path(), b"\x89PNG\r\n\x1a\nsecret").unwrap();
    let adder = Importer::open(host.folder.path()).unwrap().private();
    let id = adder.add(source.path(), |_| ()).unwrap().id;
    let path = format!("/api/media/{id}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let sign = |expires, client_prefix| {
        let grant = Grant {
            path: &path,
            expires,
            client_prefix,
        };
        format!("{path}?{}", SigningKey::parse(KEY).unwrap().sign(&grant))
    };
    let missing = format!("/api/media/{}", "0".repeat(64));
    for (target, status) in [
        (path.clone(), 401),
        (missing, 401),
        (sign(now + 60, None), 200),
        (sign(now - 60, None), 403),
        (sign(now + 60, Some("127.0.0.0/8")), 200),
        (sign(now + 60, Some("192.0.2.0/24")), 403),
        (sign(now + 60, None) + "A", 403),
        (format!("{path}/info"), 401),
    ] {
        let response = host.get(&target).await;
        assert_eq!(response.status, status, "{target}");
        let cached = response.field("cache-control").unwrap();
        assert!(
            cached.starts_with("private") || cached == "no-store",
            "{cached}"
        );
    }
    // By its name it is not to be had either.
    let by_name = format!("/media/{}", id.path().display());
    assert_eq!(host.get(&by_name).await.status, 404);
}

#[tokio::test]
async fn a_picture_has_variants_and_a_text_has_codings() {
    let host = Host::start().await;
    let add = |content: &[u8]| -> millpond::store::ImportedMedia {
        let source = tempfile::NamedTempFile::new().unwrap();
        fs::write(source.path(), content).unwrap();
        let adder = Importer::open(host.folder.path()).unwrap();
        adder.add(source.path(), |_| ()).unwrap()
    };
    let png = add(b"\x89PNG\r\n\x1a\n original");
    let webp = add(b"RIFF\x10\0\0\0WEBPVP8 webp");
    let adder = Importer::open(host.folder.path()).unwrap();
    adder.add_variant(&png.id, &webp, None).unwrap();
    let target = format!("/api/media/{}", png.id);
    let tag = |id: &ContentId| format!("\"{id}\"");
    let accept = [("accept", "image/webp,*/*")];
    let chosen = host.request("GET", &target, &accept).await;
    assert_eq!(chosen.field("content-type"), Some("image/webp"));
    assert_eq!(chosen.field("etag"), Some(tag(&webp.id).as_str()));
    let original = host.get(&target).await;
    assert_eq!(original.field("content-type"), Some("image/png"));
    assert_eq!(original.field("vary"), Some("accept"));
    assert_eq!(chosen.field("vary"), Some("accept"));

    host.write("logo.svg", b"<svg/>");
    host.write("logo.svg.br", b"compressed");
    host.write("a.gif", b"GIF89a");
    let br = [("accept-encoding", "gzip, br")];
    let coded = host.request("GET", "/media/logo.svg", &br).await;
    assert_eq!(coded.body, b"compressed");
    assert_eq!(coded.field("content-encoding"), Some("br"));
    assert_eq!(coded.field("content-type"), Some("image/svg+xml"));
    assert_eq!(host.get("/media/logo.svg").await.body, b"<svg/>");
    let media = host.request("GET", "/media/a.gif", &br).await;
    assert_eq!(
        (media.field("content-encoding"), media.field("vary")),
        (None, None)
    );
}

#[tokio::test]
async fn a_named_file_s_digest_is_told_once_it_is_known_and_changes_with_the_file() {
    let host = Host::start_looking_each_time().await;
    for content in [&b"first"[..], b"second"] {
        host.write("a.mp4", content);
        let expected = {
            use base64ct::{Base64, Encoding};
            use sha2::{Digest, Sha256};
            format!(
                "sha-256=:{}:",
                Base64::encode_string(&Sha256::digest(content))
            )
        };
        // Nobody waits for it: the first answers are without.
        loop {
            let response = host.get("/media/a.mp4").await;
            assert_eq!(response.body, content);
            match response.field("repr-digest") {
                None => tokio::task::yield_now().await,
                Some(digest) => {
                    assert_eq!(digest, expected);
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn the_configuration_reaches_the_guest() {
    let host = host_with(
        "[cors]\norigins = [\"https://a.example\"]\n[cache]\nfiles = \"public, max-age=60\"\nnegative-ttl = \"0s\"\n",
    )
    .await;
    host.write("a.mp4", b"");
    let origin = [("origin", "https://a.example")];
    let response = host.request("GET", "/media/a.mp4", &origin).await;
    for (name, value) in [
        ("access-control-allow-origin", "https://a.example"),
        ("vary", "origin"),
        ("cache-control", "public, max-age=60"),
    ] {
        assert_eq!(response.field(name), Some(value));
    }
    let missing = host.get("/media/none").await;
    assert_eq!(missing.field("cache-control"), Some("no-store"));
}

#[test]
fn sign_makes_what_the_server_takes_and_wrong_settings_are_one_clear_line() {
    let millpond = |arguments: &[&str], keys: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.args(arguments).env_remove("MILLPOND_SIGNING_KEYS");
        if let Some(keys) = keys {
            command.env("MILLPOND_SIGNING_KEYS", keys);
        }
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            stderr,
        )
    };
    let (code, url, _) = millpond(&["sign", "/api/media/ab", "--expires", "5m"], Some(KEY));
    assert_eq!(code, Some(0));
    let (path, query) = url.trim().split_once('?').unwrap();
    let keys = [SigningKey::parse(KEY).unwrap()];
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let check = millpond_format::signature::check(path, Some(query), now, None, &keys);
    assert_eq!((path, check), ("/api/media/ab", Ok(())));

    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.toml");
    fs::write(&wrong, "[cache]\nnegative-ttl = \"soon\"\n").unwrap();
    let wrong = wrong.to_str().unwrap();
    for (arguments, keys, message) in [
        (
            &["serve", ".", "--config", wrong][..],
            None,
            "wrong.toml:2: negative-ttl: a time is",
        ),
        (
            &["serve", ".", "--config", "/none"],
            None,
            "cannot read the configuration",
        ),
        (
            &["serve", "."],
            Some("k1:5ec2e7"),
            "MILLPOND_SIGNING_KEYS: a signing key has",
        ),
        (&["sign", "/api/media/ab"], None, "no such signing key"),
    ] {
        let (code, _, stderr) = millpond(arguments, keys);
        assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
        assert!(
            stderr.contains(message) && !stderr.contains("5ec2e7"),
            "{stderr}"
        );
    }
}
