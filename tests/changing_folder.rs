//! A folder whose files are edited, replaced and deleted while it is served, and that is made anew itself.

use crate::client::Response;
use crate::host::Host;
use crate::server::{Server, exchange};
use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

fn sha256_field(content: &[u8]) -> String {
    format!(
        "sha-256=:{}:",
        Base64::encode_string(&Sha256::digest(content))
    )
}

/// Writes a file in place, and puts its modification time to the same as always.
fn write_at_1970(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
}

/// The answer once it has a strong tag and a digest: neither is told of a file that was changed within the last tick.
async fn settled(host: &Host, target: &str) -> Response {
    loop {
        let answer = host.get(target).await;
        let tag = answer.field("etag").unwrap();
        if !tag.starts_with("W/") && answer.field("repr-digest").is_some() {
            return answer;
        }
    }
}

/// Tag editors and deployments by rename do this. The entity tag and the key of the cached digest were made of length and
/// modification time.
#[tokio::test]
async fn contents_of_one_length_and_modification_time_had_one_tag_and_the_first_ones_digest() {
    let host = Host::start_looking_each_time().await;
    let path = host.folder.path().join("a.bin");
    for length in [6, 100_000] {
        let contents = [b'a', b'b', b'c'].map(|byte| vec![byte; length]);
        let other = host.folder.path().join("other.bin");
        write_at_1970(&other, &contents[2]);
        let mut tags: Vec<String> = Vec::new();
        for (place, content) in contents.iter().enumerate() {
            if place < 2 {
                write_at_1970(&path, content);
            } else {
                fs::rename(&other, &path).unwrap();
            }
            let answer = settled(&host, "/media/a.bin").await;
            assert!(answer.body == *content, "{length} {place}");
            let digest = sha256_field(content);
            assert_eq!(
                answer.field("repr-digest"),
                Some(&*digest),
                "{length} {place}"
            );
            for tag in &tags {
                let range = [("range", "bytes=1-"), ("if-range", tag)];
                let resumed = host.request("GET", "/media/a.bin", &range).await;
                assert_eq!((resumed.status, resumed.body.len()), (200, length));
                let has_it = [("if-none-match", &**tag)];
                let asked = host.request("GET", "/media/a.bin", &has_it).await;
                assert_eq!(asked.status, 200);
            }
            let tag = answer.field("etag").unwrap().to_owned();
            let range = [("range", "bytes=1-"), ("if-range", &*tag)];
            let resumed = host.request("GET", "/media/a.bin", &range).await;
            assert_eq!((resumed.status, resumed.body.len()), (206, length - 1));
            tags.push(tag);
        }
    }
}

/// A digest that became known while a client had the first half changed nothing of the tag, so that it got the second.
#[tokio::test]
async fn the_tag_stays_when_the_digest_comes_to_be_known() {
    let host = Host::start().await;
    host.write("a.bin", &vec![7; 200_000]);
    let tag = host.strong_tag("/media/a.bin").await;
    let later = settled(&host, "/media/a.bin").await;
    assert_eq!(later.field("etag"), Some(&*tag));
}

#[cfg(unix)]
fn is_ready(server: &Server) -> (bool, String) {
    let answer = String::from_utf8(exchange(&server.admin, "/readyz")).unwrap();
    (answer.starts_with("HTTP/1.1 200"), answer)
}

#[cfg(unix)]
#[test]
fn a_folder_that_was_made_anew_was_not_found_for_ever_and_the_server_ready() {
    let folder = tempfile::tempdir().unwrap();
    let (media, admin) = (folder.path().join("media"), ["--admin", "127.0.0.1:0"]);
    let release = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a.txt"), name).unwrap();
        path
    };
    let (first, second) = (release("first"), release("second"));
    std::os::unix::fs::symlink(first, &media).unwrap();
    let server = Server::start(&media, &admin);
    let serves = |content: &str| server.answer("/media/a.txt") == (200, content.into());
    assert!(serves("first") && is_ready(&server).0);

    // As deploys switch.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(second, &link).unwrap();
    fs::rename(&link, &media).unwrap();
    while !serves("second") {}

    fs::remove_file(&media).unwrap();
    let said = loop {
        if let (false, said) = is_ready(&server) {
            break said;
        }
    };
    assert!(said.contains("cannot open the media folder"), "{said}");
    release("media");
    while !serves("media") {}
    while !is_ready(&server).0 {}
    fs::remove_dir_all(&media).unwrap();
    fs::create_dir(&media).unwrap();
    fs::write(media.join("a.txt"), "once more").unwrap();
    while !serves("once more") {}
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_was_deleted_stayed_open_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "deleted").unwrap();
    let server = Server::start(folder.path(), &[]);
    let files = format!("/proc/{}/fd", server.process_id());
    let is_open = |name: &str| {
        let files = fs::read_dir(&files).unwrap().filter_map(Result::ok);
        let mut paths = files.filter_map(|file| fs::read_link(file.path()).ok());
        paths.any(|path| path.to_string_lossy().contains(name))
    };
    // Kept from when a change would be told.
    while !is_open("/a.txt") {
        assert_eq!(server.answer("/media/a.txt").0, 200);
    }
    fs::remove_file(folder.path().join("a.txt")).unwrap();
    while is_open("/a.txt") {}
}
