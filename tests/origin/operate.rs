//! Operation of a node: the commands for its cache, freshness, listings, metrics and readiness.

use super::fault_origin::FaultOrigin;
use super::object::{Fault, Object};
use super::s3_server::S3Server;
use crate::client::Response;
use crate::host::noise;
use crate::server::Server;
use std::path::Path;
use std::process::{Command, Output};

/// Length of a chunk of the cache, in bytes.
const CHUNK: usize = 1024 * 1024;

/// A node over an origin, with an admin listener.
struct Node {
    origin: FaultOrigin,
    server: Server,
    folder: tempfile::TempDir,
}

impl Node {
    fn start(options: &[&str]) -> Self {
        let origin = FaultOrigin::start();
        let folder = tempfile::tempdir().unwrap();
        let server = serve(&origin.url(""), folder.path(), &[], options);
        Node {
            origin,
            server,
            folder,
        }
    }

    fn get(&self, target: &str) -> Response {
        get(&self.server, target)
    }

    /// Runs `millpond cache` with these arguments.
    fn cache(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.arg("cache").args(arguments);
        command
            .args(["--admin", &self.server.admin])
            .output()
            .unwrap()
    }

    /// Runs it, and returns the lines that it prints.
    fn printed(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.cache(arguments);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn gets(&self, path: &str) -> usize {
        let requests = self.origin.requests_for(path);
        requests
            .iter()
            .filter(|request| request.method == "GET")
            .count()
    }
}

fn serve(url: &str, cache: &Path, variables: &[(&str, String)], options: &[&str]) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.arg("serve").arg(url).arg("--cache-dir").arg(cache);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    Server::started_by(&mut command, options)
}

fn get(server: &Server, target: &str) -> Response {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let address = server.address.parse().unwrap();
    runtime.block_on(crate::client::request(address, "GET", target, &[]))
}

#[test]
fn a_cache_is_shown_purged_and_warmed() {
    let node = Node::start(&[]);
    for name in ["films/a b.mp4", "films/c.mp4", "pond.png"] {
        node.origin.put(
            &format!("/{}", name.replace(' ', "%20")),
            Object::new(noise(CHUNK + 5)),
        );
    }
    assert_eq!(node.get("/media/films/a%20b.mp4").status, 200);
    assert_eq!(node.get("/media/pond.png").status, 200);
    let names = |lines: Vec<String>| -> Vec<String> {
        let names = lines
            .iter()
            .map(|line| line.splitn(3, "  ").last().unwrap().to_owned());
        names.collect()
    };
    assert_eq!(names(node.printed(&["ls"])), ["films/a b.mp4", "pond.png"]);
    assert_eq!(names(node.printed(&["ls", "pond"])), ["pond.png"]);
    let json: serde_json::Value =
        serde_json::from_str(&node.printed(&["ls", "pond", "--json"])[0]).unwrap();
    assert_eq!(
        (&json["length"], &json["cached_bytes"]),
        (&json["cached_bytes"], &(CHUNK + 5).into())
    );

    // Warmed objects are hits at their first request.
    let list = node.folder.path().join("list");
    std::fs::write(&list, "films/c.mp4\npond.png\n\n").unwrap();
    let told = node.printed(&["warm", list.to_str().unwrap()]);
    assert_eq!(told, ["2 objects, 2.0 MiB"]);
    let warmed = node.get("/media/films/c.mp4");
    assert!(
        warmed
            .field("cache-status")
            .unwrap()
            .starts_with("millpond; hit")
    );
    assert_eq!((node.gets("/films/c.mp4"), node.gets("/pond.png")), (1, 1));
    std::fs::write(&list, "none\n").unwrap();
    let missing = node.cache(&["warm", list.to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&missing.stderr).contains("none: the origin has no such object")
    );

    // A purged object is fetched again, and no other.
    assert_eq!(node.printed(&["purge", "pond.png"]), ["purged 1"]);
    assert_eq!(node.get("/media/pond.png").status, 200);
    assert_eq!(node.gets("/pond.png"), 2);
    assert_eq!(node.printed(&["purge", "--prefix", "films/"]), ["purged 2"]);
    assert_eq!(names(node.printed(&["ls"])), ["pond.png"]);
    assert_eq!(node.printed(&["purge", "--all"]), ["purged 1"]);
    assert!(node.printed(&["ls"]).is_empty());
    let stat: serde_json::Value =
        serde_json::from_str(&node.printed(&["stat", "--json"]).join("\n")).unwrap();
    assert_eq!((&stat["objects"], &stat["bytes"]), (&0.into(), &0.into()));
    assert!(node.printed(&["stat"])[0].starts_with("size"));
}

#[test]
fn a_server_of_a_folder_has_no_cache_of_an_origin() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--admin", "127.0.0.1:0"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.args(["cache", "stat", "--admin", &server.admin]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("serves a folder"));
}

#[test]
fn an_object_is_fresh_for_as_long_as_its_origin_says() {
    let node = Node::start(&[]);
    let object = |cache_control: &str| Object::new("a").field("cache-control", cache_control);
    node.origin.put("/fresh", object("max-age=60"));
    node.origin
        .put("/old", object("max-age=60").field("age", "60"));
    node.origin.put("/shared", object("max-age=60, s-maxage=0"));
    node.origin.put("/never", object("no-store"));
    for (path, requests, gets) in [
        ("/fresh", 2, 1),
        ("/old", 3, 1),
        ("/shared", 3, 1),
        ("/never", 4, 2),
    ] {
        for _ in 0..2 {
            let response = node.get(&format!("/media{path}"));
            assert_eq!(
                (response.status, &response.body[..]),
                (200, &b"a"[..]),
                "{path}"
            );
        }
        let found = (node.origin.requests_for(path).len(), node.gets(path));
        assert_eq!(found, (requests, gets), "{path}");
    }
    let fresh = node.get("/media/fresh");
    assert_eq!(fresh.field("via"), Some("1.1 millpond"));
    assert!(fresh.field("age").unwrap().parse::<u32>().unwrap() < 60);
    assert!(
        fresh
            .field("cache-status")
            .unwrap()
            .starts_with("millpond; hit; ttl=")
    );
    let stale = node.get("/media/old");
    assert!(stale.field("cache-status").unwrap().contains("fwd=stale"));
}

#[test]
fn a_missing_object_is_looked_up_once_in_its_time_and_errors_are_not_kept() {
    let node = Node::start(&["--cache-negative-ttl", "1h"]);
    for _ in 0..3 {
        assert_eq!(node.get("/media/none").status, 404);
    }
    assert_eq!(node.origin.requests_for("/none").len(), 1);
    node.origin
        .put("/failing", Object::new("a").with(Fault::Status(500)));
    assert_eq!(node.get("/media/failing").status, 503);
    node.origin.put("/failing", Object::new("a"));
    assert_eq!(node.get("/media/failing").status, 200);
    // A purge forgets what was missing, too.
    node.origin.put("/none", Object::new("a"));
    node.printed(&["purge", "--all"]);
    assert_eq!(node.get("/media/none").status, 200);
}

#[test]
fn an_origin_that_fails_leaves_the_node_ready_and_is_counted() {
    let node = Node::start(&[]);
    node.origin.put("/a", Object::new("a"));
    node.origin.down();
    assert_eq!(node.get("/media/a").status, 503);
    assert!(node.server.get_admin("/readyz").ends_with("ready\n"));
    let metrics = node.server.get_admin("/metrics");
    assert!(
        metrics.contains("\nmillpond_origin_lookups_failed_total 1\n"),
        "{metrics}"
    );
    node.origin.up();
    assert_eq!(node.get("/media/a").status, 200);
}

#[test]
fn an_origin_that_hangs_delays_no_hit() {
    let options = ["--response-cache", "off", "--memory-limit", "256MiB"];
    let node = Node::start(&options);
    node.origin.put(
        "/hit",
        Object::new("a").field("cache-control", "max-age=3600"),
    );
    assert_eq!(node.get("/media/hit").status, 200);
    // More misses than there are instances wait for a head that never comes.
    let misses: Vec<_> = (0..64)
        .map(|number| {
            node.origin
                .put(&format!("/{number}"), Object::new("a").with(Fault::Silent));
            let mut client = std::net::TcpStream::connect(&node.server.address).unwrap();
            let head = format!("GET /media/{number} HTTP/1.1\r\nhost: a\r\n\r\n");
            std::io::Write::write_all(&mut client, head.as_bytes()).unwrap();
            client
        })
        .collect();
    node.server
        .wait_for_log("too many requests wait for the origin");
    for _ in 0..20 {
        assert_eq!(node.get("/media/hit").status, 200);
    }
    drop(misses);
}

#[test]
fn the_origin_and_its_cache_have_metrics_that_the_page_has() {
    let node = Node::start(&[]);
    node.origin.put("/a", Object::new(noise(1000)));
    assert_eq!(node.get("/media/a").status, 200);
    let metrics = node.server.get_admin("/metrics");
    let page = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/metrics.md"
    );
    let page = std::fs::read_to_string(page).unwrap();
    let mut names = 0;
    for line in metrics.lines() {
        let Some(name) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split(' ').next())
        else {
            continue;
        };
        if name.starts_with("millpond_origin") || name.starts_with("millpond_disk_cache") {
            assert!(page.contains(name), "{name}");
            names += 1;
        }
    }
    assert_eq!(names, 10);
    assert!(
        metrics.contains("\nmillpond_origin_received_bytes_total 1000\n"),
        "{metrics}"
    );
}

#[test]
fn folders_of_a_bucket_are_listed() {
    let s3 = S3Server::start();
    let folder = tempfile::tempdir().unwrap();
    for (key, length) in [
        ("films/a b.mp4", 5),
        ("films/more/c.mp4", 1),
        ("films/.hidden", 1),
    ] {
        s3.put("media", key, &noise(length));
    }
    let id = "ab".repeat(32);
    s3.put("media", &format!("films/ab/{id}"), b"content");
    let server = serve("s3://media/films", folder.path(), &s3.environment(), &[]);
    let listing = get(&server, "/media/");
    let listing: serde_json::Value = serde_json::from_slice(&listing.body).unwrap();
    let entries = listing["entries"].as_array().unwrap();
    let names: Vec<&str> = entries
        .iter()
        .map(|entry| entry["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["more", "a b.mp4"]);
    assert_eq!(get(&server, "/media/more/").status, 200);
    assert_eq!(get(&server, "/media/none/").status, 404);
}

#[test]
fn an_origin_url_that_cannot_be_is_one_clear_line() {
    for (url, reason) in [
        (
            "ftp://a.example",
            "s3://, gs://, az://, https:// or http:// is needed",
        ),
        (
            "https://user:secret@a.example",
            "credentials in the environment",
        ),
        ("https://a.example/?a", "query"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_millpond"))
            .args(["serve", url])
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(2));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(reason), "{told}");
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_millpond"))
        .args([
            "serve",
            "https://a.example",
            "--cache-size",
            "1MiB",
            "--cache-dir",
        ])
        .arg(folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("--cache-size is 1.0 MiB, and at least 64.0 MiB is needed"),
        "{told}"
    );
}
