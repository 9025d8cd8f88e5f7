//! The original system's behaviour, row by row: what its users rely on, and its mistakes, not copied.

use crate::host::{Host, noise};
use std::fs;

#[tokio::test]
async fn s3_both_routes_serve_full_and_range_answers() {
    let host = Host::start().await;
    let content = noise(300_000);
    let id = host.add(&content);
    host.write("a.gif", &content);
    for target in [
        format!("/api/media/{id}"),
        "/media/a.gif".into(),
        "/media?id=a.gif".into(),
    ] {
        let full = host.get(&target).await;
        assert_eq!((full.status, full.whole), (200, true), "{target}");
        assert_eq!(full.body, content);
        let range = [("range", "bytes=100000-199999")];
        let part = host.request("GET", &target, &range).await;
        assert_eq!((part.status, part.whole), (206, true), "{target}");
        assert_eq!(part.body, content[100_000..200_000]);
    }
    host.registry().idle().await;
}

#[tokio::test]
async fn r1_media_by_id_with_validators() {
    let host = Host::start().await;
    let id = host.add(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;");
    let target = format!("/api/media/{id}");
    let etag = format!("\"{id}\"");
    let full = host.get(&target).await;
    for (name, value) in [
        ("content-type", "image/gif"),
        ("content-length", "14"),
        ("accept-ranges", "bytes"),
        ("etag", &etag),
        ("cache-control", "public, max-age=31536000, immutable"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(full.field(name), Some(value), "{name}");
    }
    assert!(full.field("date").is_some());
    let head = host.request("HEAD", &target, &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.field("content-length"), Some("14"));
    let cached = [("if-none-match", etag.as_str())];
    let not_modified = host.request("GET", &target, &cached).await;
    assert_eq!((not_modified.status, not_modified.body.len()), (304, 0));
    assert_eq!(not_modified.field("etag"), Some(etag.as_str()));

    let missing = host.get(&format!("/api/media/{}", "0".repeat(64))).await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.error(), "Media not found");
    for no_id in [
        "x",
        "..%2f..%2fetc%2fpasswd",
        &id.to_string().to_uppercase(),
    ] {
        let response = host.get(&format!("/api/media/{no_id}")).await;
        assert_eq!(response.status, 404, "{no_id}");
    }
}

#[tokio::test]
async fn r2_not_media_without_a_sound_record_is_served_to_nobody() {
    let host = Host::start_looking_each_time().await;
    let id = host.add(b"private");
    let target = format!("/api/media/{id}");
    let record = host.folder.path().join(id.record_path());
    assert_eq!(host.get(&target).await.status, 200);
    fs::write(&record, "{").unwrap();
    assert_eq!(host.get(&target).await.status, 404);
    fs::remove_file(&record).unwrap();
    assert_eq!(host.get(&target).await.status, 404);
    assert_eq!(host.get(&format!("{target}/info")).await.status, 404);
}

#[tokio::test]
async fn r3_info_tells_public_fields_only() {
    let host = Host::start().await;
    let id = host.add(b"\x89PNG\r\n\x1a\n");
    let info = host.get(&format!("/api/media/{id}/info")).await;
    assert_eq!(info.field("content-type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_slice(&info.body).unwrap();
    let mut names: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    names.sort_unstable();
    assert_eq!(names, ["created", "id", "size", "type"]);
    assert_eq!(json["id"], id.to_string());
    assert_eq!(json["type"], "image/png");
    assert_eq!(json["size"], 8);
    humantime::parse_rfc3339(json["created"].as_str().unwrap()).unwrap();
}

#[tokio::test]
async fn r5_not_a_path_that_leaves_the_folder() {
    let host = Host::start().await;
    let outside = host.folder.path().parent().unwrap().join("outside.txt");
    let outside_name = outside.file_name().unwrap().to_str().unwrap();
    host.write("a.txt", b"inside");
    host.write(".hidden", b"hidden");
    #[cfg(unix)]
    std::os::unix::fs::symlink("/etc/passwd", host.folder.path().join("link.txt")).unwrap();
    for target in [
        "/media?id=../../../../etc/passwd",
        "/media?id=..%2f..%2f..%2fetc%2fpasswd",
        "/media/../../../../etc/passwd",
        "/media/%2e%2e/%2e%2e/etc/passwd",
        "/media/..%2f..%2fetc/passwd",
        "/media/..%5c..%5cetc/passwd",
        "/media//etc/passwd",
        "/media/%2fetc%2fpasswd",
        &format!("/media/../{outside_name}"),
        "/media/link.txt",
        "/media/.hidden",
        "/media/a.txt/",
        "/media/a.txt/../a.txt",
        "/media/../",
    ] {
        let response = host.get(target).await;
        assert_eq!(response.status, 404, "{target}");
        assert_eq!(response.error(), "Media not found", "{target}");
    }
    for target in ["/media/a%00.txt", "/media/%ff", "/media/%zz", "/media/a%"] {
        assert_eq!(host.get(target).await.status, 400, "{target}");
    }
}

#[tokio::test]
async fn r6_images_by_name_were_kept_for_a_year_and_so_were_errors() {
    let host = Host::start().await;
    host.write("a.gif", b"GIF89a");
    host.write("a.mp4", b"");
    let cache_control = async |target: &str, range: &str| {
        let fields = [("range", range)];
        let response = host.request("GET", target, &fields).await;
        let value = response.field("cache-control").map(str::to_owned);
        (response.status, value.unwrap())
    };
    for (target, range, status, expected) in [
        ("/media/a.gif", "bytes=0-", 206, "public, no-cache"),
        ("/media/a.mp4", "none", 200, "public, no-cache"),
        ("/media/a.gif", "bytes=6-", 416, "no-store"),
        // Known to be missing for a moment (row S10).
        ("/media/b.gif", "bytes=0-", 404, "public, max-age=5"),
        ("/media/%zz", "bytes=0-", 400, "no-store"),
    ] {
        let got = cache_control(target, range).await;
        assert_eq!(got, (status, expected.to_owned()), "{target} {range}");
    }
}

/// The table of section 4: what the original answered is in the seed, what is right stands here.
#[tokio::test]
async fn ranges_of_a_thousand_bytes() {
    let host = Host::start().await;
    let content = noise(1000);
    host.write("a.bin", &content);
    host.write("empty.bin", b"");
    host.write("dir/a.bin", b"");
    let id = host.add(&content);
    for target in ["/media/a.bin".to_owned(), format!("/api/media/{id}")] {
        for (range, status, content_range, body) in [
            ("bytes=0-99", 206, "bytes 0-99/1000", &content[..100]),
            ("bytes=500-", 206, "bytes 500-999/1000", &content[500..]),
            ("bytes=-100", 206, "bytes 900-999/1000", &content[900..]),
            ("bytes=0-1999", 206, "bytes 0-999/1000", &content[..]),
            ("BYTES=0-5", 206, "bytes 0-5/1000", &content[..6]),
            ("bytes=1000-", 416, "bytes */1000", &[]),
            ("bytes=-0", 416, "bytes */1000", &[]),
            ("bytes=50-10", 416, "bytes */1000", &[]),
            ("bytes=abc", 416, "bytes */1000", &[]),
            ("bytes=-", 416, "bytes */1000", &[]),
            ("bytes=0-5x", 416, "bytes */1000", &[]),
            ("bytes=1e2-200", 416, "bytes */1000", &[]),
            ("items=0-5", 200, "", &content[..]),
        ] {
            let response = host.request("GET", &target, &[("range", range)]).await;
            assert_eq!(response.status, status, "{range}");
            assert!(response.whole, "{range}");
            assert_eq!(response.field("content-range").unwrap_or(""), content_range);
            if status == 416 {
                assert_eq!(response.error(), "Range not satisfiable", "{range}");
            } else {
                assert_eq!(response.body, body, "{range}");
            }
        }
        let head = host.request("HEAD", &target, &[("range", "bytes=0-99")]);
        assert_eq!(head.await.status, 200, "HEAD");
        let changed = [("range", "bytes=0-99"), ("if-range", "\"other\"")];
        let response = host.request("GET", &target, &changed).await;
        assert_eq!((response.status, response.body), (200, content.clone()));
    }
    let empty = [("range", "bytes=0-")];
    let response = host.request("GET", "/media/empty.bin", &empty).await;
    assert_eq!((response.status, response.body.len()), (200, 0));
    assert_eq!(response.field("content-range"), None);
    assert_eq!(host.get("/media/dir").await.status, 308);
    assert_eq!(host.get("/media/%zz").await.status, 400);
}

#[tokio::test]
async fn s4_a_read_error_is_told_or_seen() {
    let host = Host::start().await;
    // Far more than the sockets between hold, so that it shrinks while it is being sent.
    host.write("big.bin", &vec![7; 64 << 20]);
    let path = host.folder.path().join("big.bin");
    let mut client = tokio::net::TcpStream::connect(host.address).await.unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    client
        .write_all(b"GET /media/big.bin HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut first = vec![0; 100_000];
    client.read_exact(&mut first).await.unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(1_000_000).unwrap();
    let mut rest = Vec::new();
    let ended = client.read_to_end(&mut rest).await;
    let received = first.len() + rest.len();
    assert!(ended.is_err() || received < 64 << 20, "{received} bytes");
    host.registry().idle().await;
    assert_eq!(host.registry().ended_requests(millpond::Outcome::Failed), 1);
}

#[tokio::test]
async fn s6_not_an_open_file_for_each_disconnect() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const CLIENTS: usize = 1000;
    let host = Host::start().await;
    // Too large to be read for its digest, which would hold it open meanwhile.
    host.write("clip.mp4", b"");
    let clip = host.folder.path().join("clip.mp4");
    let clip = fs::OpenOptions::new().write(true).open(clip).unwrap();
    clip.set_len(65 << 20).unwrap();
    drop(clip);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let address = host.address;
        clients.spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let range = if client % 2 == 0 {
                ""
            } else {
                "range: bytes=5-\r\n"
            };
            let head = format!("GET /media/clip.mp4 HTTP/1.1\r\nhost: a\r\n{range}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            // Anything from one byte of the head to some of the body, then gone.
            let mut some = vec![0; 1 + client * 97 % 50_000];
            stream.read_exact(&mut some).await.unwrap();
        });
        if clients.len() >= 200 {
            clients.join_next().await.unwrap().unwrap();
        }
    }
    clients.join_all().await;
    host.registry().idle().await;
    let registry = host.registry();
    assert_eq!(
        registry.ended_requests(millpond::Outcome::Aborted),
        CLIENTS as u64
    );
    // The file that is cached for the next request.
    assert!(open_files_in(host.folder.path()) <= 1);
    assert_eq!(
        host.request("GET", "/media/clip.mp4", &[("range", "bytes=0-9")])
            .await
            .status,
        206
    );
}

/// Number of open files by the kernel's account, to compare with the host's count.
fn open_files_in(folder: &std::path::Path) -> usize {
    let Ok(open) = fs::read_dir("/proc/self/fd") else {
        return 0;
    };
    open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|path| path.starts_with(folder) && path.is_file())
        .count()
}
