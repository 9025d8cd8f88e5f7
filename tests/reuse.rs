//! Responses from the cache: equal to the first, and only while they are fresh and valid.

use crate::client::Response;
use crate::host::{Host, Setup, noise, with};
use millpond::Limits;
use millpond::store::Importer;
use std::fs;

/// A host that looks at its files for each request, since these tests change them.
async fn host() -> Host {
    Host::start_looking_each_time().await
}

fn same(first: &Response, second: &Response) {
    assert_eq!(first.status, second.status);
    assert_eq!(first.body, second.body);
    let fields_of_media = |response: &Response| {
        let mut fields = response.fields.clone();
        fields.remove("date");
        assert!(fields.remove("x-request-id").is_some());
        fields
    };
    assert_eq!(fields_of_media(first), fields_of_media(second));
    assert!(first.whole && second.whole);
}

#[tokio::test]
async fn an_equal_question_is_answered_alike_without_an_instance() {
    let host = host().await;
    let id = host.add(&noise(300_000));
    let media = format!("/api/media/{id}");
    let missing = format!("/api/media/{}", "ab".repeat(32));
    let etag = format!("\"{id}\"");
    for (method, target, fields) in [
        ("GET", &media, vec![]),
        ("HEAD", &media, vec![]),
        ("GET", &media, vec![("range", "bytes=5-100000")]),
        ("GET", &media, vec![("if-none-match", etag.as_str())]),
        ("GET", &missing, vec![]),
    ] {
        let first = host.request(method, target, &fields).await;
        // Once, so that the fields are known on which answers depend.
        host.request(method, target, &fields).await;
        let before = host.registry().response_cache_hits();
        let again = host.request(method, target, &fields).await;
        assert_eq!(
            host.registry().response_cache_hits(),
            before + 1,
            "{method} {target} {fields:?}"
        );
        same(&first, &again);
    }
    // Other fields make another question, and other values of one.
    let partial = host.request("GET", &media, &[("range", "bytes=0-0")]).await;
    assert_eq!((partial.status, partial.body.len()), (206, 1));
    host.registry().idle().await;
}

#[tokio::test]
async fn an_answer_holds_no_longer_than_what_it_is_made_of() {
    let host = host().await;
    let path = host.folder.path().join("a.png");
    let ask = async |accept: &str| {
        host.request("GET", "/media/a.png", &[("accept", accept)])
            .await
    };
    let any = "image/avif,*/*;q=0.5";
    assert_eq!(ask(any).await.status, 404);
    assert_eq!(ask(any).await.status, 404);
    host.write("a.png", b"first");
    for _ in 0..3 {
        assert_eq!(ask(any).await.body, b"first");
    }
    // Replaced, by another file of the same length and age.
    let other = host.folder.path().join("other");
    fs::write(&other, b"other").unwrap();
    let age = fs::metadata(&path).unwrap().modified().unwrap();
    let file = fs::File::options().write(true).open(&other).unwrap();
    file.set_modified(age).unwrap();
    fs::rename(&other, &path).unwrap();
    for _ in 0..3 {
        assert_eq!(ask(any).await.body, b"other");
    }
    // Written to.
    fs::write(&path, b"longer than before").unwrap();
    for _ in 0..3 {
        assert_eq!(ask(any).await.body, b"longer than before");
    }
    // Joined by another form of it, which leaves again.
    host.write("a.png.avif", b"avif");
    for _ in 0..3 {
        assert_eq!(ask(any).await.body, b"avif");
        assert_eq!(ask("image/png").await.body, b"longer than before");
    }
    fs::remove_file(host.folder.path().join("a.png.avif")).unwrap();
    for _ in 0..3 {
        assert_eq!(ask(any).await.body, b"longer than before");
    }
    // Moved out of the folder, and a way back to it left behind.
    let outside = tempfile::tempdir().unwrap();
    let moved = outside.path().join("a.png");
    fs::copy(&path, &moved).unwrap();
    fs::remove_file(&path).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&moved, &path).unwrap();
    for _ in 0..3 {
        assert_eq!(ask(any).await.status, 404);
    }
    host.registry().idle().await;
}

/// Public media, and a variant of it, whose answers a running server gives again; then it is made private.
#[tokio::test]
async fn what_becomes_private_is_not_given_again() {
    let host = Host::start_looking_each_time().await;
    let png = noise(3000);
    let (id, of_variant) = (host.add(&png), host.add(b"RIFF\x10\0\0\0WEBPVP8 webp"));
    let folder = host.folder.path();
    let adder = Importer::open(folder).unwrap();
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(source.path(), b"RIFF\x10\0\0\0WEBPVP8 webp").unwrap();
    let variant = adder.add(source.path(), |_| ()).unwrap();
    adder.add_variant(&id, &variant, None).unwrap();
    let (media, other) = (
        format!("/api/media/{id}"),
        format!("/api/media/{of_variant}"),
    );
    let info = format!("{media}/info");
    let tag = format!("\"{id}\"");
    let questions = [
        ("GET", &media, vec![], 200),
        ("HEAD", &media, vec![], 200),
        ("GET", &media, vec![("range", "bytes=0-9")], 206),
        ("GET", &media, vec![("if-none-match", tag.as_str())], 304),
        ("GET", &media, vec![("accept", "image/webp")], 200),
        ("GET", &info, vec![], 200),
        ("GET", &other, vec![], 200),
    ];
    for (method, target, fields, status) in &questions {
        for _ in 0..3 {
            let answer = host.request(method, target, fields).await;
            assert_eq!(answer.status, *status, "{method} {target} {fields:?}");
        }
    }
    assert!(host.registry().response_cache_hits() > 0);
    fs::write(source.path(), &png).unwrap();
    let adder = Importer::open(folder).unwrap().private();
    assert!(adder.add(source.path(), |_| ()).unwrap().already_present);
    for (method, target, fields, _) in &questions {
        for _ in 0..3 {
            let answer = host.request(method, target, fields).await;
            // There are no keys for signed URLs, so private media is nobody's.
            assert_eq!(answer.status, 404, "{method} {target} {fields:?}");
        }
    }
    for id in [id, of_variant] {
        adder.publish(&id).unwrap();
    }
    for (method, target, fields, status) in &questions {
        let answer = host.request(method, target, fields).await;
        assert_eq!(answer.status, *status, "{method} {target} {fields:?}");
    }
    host.registry().idle().await;
}

/// A server that does not look each time sees it too: as soon as a look is older than it may be.
#[tokio::test]
async fn what_becomes_private_is_private_within_the_recheck_time() {
    let host = Host::start().await;
    let content = noise(3000);
    let media = format!("/api/media/{}", host.add(&content));
    for _ in 0..3 {
        assert_eq!(host.get(&media).await.status, 200);
    }
    let source = tempfile::NamedTempFile::new().unwrap();
    fs::write(source.path(), &content).unwrap();
    let adder = Importer::open(host.folder.path()).unwrap().private();
    adder.add(source.path(), |_| ()).unwrap();
    let narrowed = std::time::Instant::now();
    loop {
        let asked = narrowed.elapsed();
        let answer = host.get(&media).await;
        if answer.status == 404 {
            break;
        }
        assert!(
            asked <= millpond::store::OPEN_FILE_CACHE_VALID,
            "public after {asked:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_questions_at_once_are_asked_once() {
    const CLIENTS: usize = 50;
    let host = host().await;
    let media = format!("/api/media/{}", host.add(&noise(1000)));
    // So that the fields are known on which answers depend.
    host.get(&media).await;
    let target = format!("{media}?burst");
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (address, target) = (host.address, target.clone());
        clients.spawn(async move { crate::client::request(address, "GET", &target, &[]).await });
    }
    for response in clients.join_all().await {
        assert_eq!(response.status, 200);
        assert_eq!(response.body, noise(1000));
    }
    assert_eq!(host.registry().response_cache_hits(), CLIENTS as u64 - 1);
    host.registry().idle().await;
}

#[tokio::test]
async fn where_it_is_off_each_request_is_asked() {
    let host = Host::start_with(Setup {
        limits: with(|limits: &mut Limits| limits.response_cache_bytes = 0),
        ..Setup::default()
    })
    .await;
    let media = format!("/api/media/{}", host.add(&noise(1000)));
    for _ in 0..3 {
        assert_eq!(host.get(&media).await.body, noise(1000));
    }
    assert_eq!(host.registry().response_cache_hits(), 0);
}

/// Memory for made-up targets is bounded, and so is the charge for it.
#[tokio::test]
async fn made_up_targets_do_not_make_it_grow() {
    let host = Host::start_with(Setup {
        limits: with(|limits: &mut Limits| limits.response_cache_bytes = 64 * 1024),
        ..Setup::default()
    })
    .await;
    for number in 0..500 {
        let response = host
            .get(&format!("/media/{number}-{}", "x".repeat(200)))
            .await;
        assert_eq!(response.status, 404);
    }
    let bound = host.memory_plan().cache_bytes;
    assert!(
        host.cache_bytes() <= bound,
        "{} of {bound}",
        host.cache_bytes()
    );
    assert!(host.cache_bytes() > 0);
}

/// Mapped, read, and kept ones are the same bytes, whichever way they take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_way_the_bytes_take_they_are_the_files() {
    let host = host().await;
    for length in [
        0, 1, 4095, 4096, 4097, 12_288, 12_289, 100_000, 3_000_000, 12_000_001,
    ] {
        let content = noise(length);
        let name = format!("{length}.bin");
        host.write(&name, &content);
        let target = format!("/media/{name}");
        for _ in 0..3 {
            let whole = host.get(&target).await;
            assert!(whole.whole && whole.body == content, "{length}");
        }
        // Of the longest file, also a range that is short enough for `sendfile`.
        for (first, last) in [(4097, length.saturating_sub(2)), (5_000_001, 8_000_000)] {
            if (first..length).contains(&last) {
                let range = format!("bytes={first}-{last}");
                let part = host.request("GET", &target, &[("range", &range)]).await;
                assert!(
                    part.whole && part.body == content[first..=last],
                    "{range} of {length}"
                );
            }
        }
    }
    host.registry().idle().await;
}
