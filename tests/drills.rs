//! Drills: something fails under a running server and comes back. A message says what it was, and the server recovers
//! whole. `docs/deploy.md` lists them with those of other files.

use crate::server::{Server, exchange_by};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

const TOKEN: &str = "0123456789abcdef-upload";

/// Returns status and content of the response to an upload.
fn put(server: &Server, target: &str, content: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let head = format!(
        "PUT {target} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        content.len()
    );
    // The server may respond and close before it has read everything.
    let _ = stream.write_all(&[head.as_bytes(), content].concat());
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    let status = crate::client::status(&response).unwrap();
    let text = String::from_utf8_lossy(&response);
    let (_, content) = text.split_once("\r\n\r\n").unwrap();
    (status, content.to_owned())
}

/// A server whose folder is a file system of its own, in a mount namespace. `None`, with a line that says so, where this
/// machine does not allow that.
fn on_its_own_file_system(folder: &Path) -> Option<Server> {
    let script = "mount -t tmpfs -o size=4m tmpfs \"$1\" && echo hello >\"$1/a.txt\" && shift && exec \"$@\"";
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs \"$1\"", "sh"]);
    let probed = probe.arg(folder).output();
    if !probed.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(folder);
    command.args([env!("CARGO_BIN_EXE_millpond"), "serve"]);
    command.arg(folder).env("MILLPOND_UPLOAD_TOKEN", TOKEN);
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--uploads",
        "on",
    ];
    Some(Server::started_by(&mut command, &arguments))
}

/// Runs a command in the mount namespace of the server.
fn in_namespace(server: &Server, command: &[&str]) {
    let target = format!("--target={}", server.process_id());
    let mut entered = Command::new("nsenter");
    let output = entered.args([&target, "--mount"]).args(command).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

#[test]
fn a_read_only_store_refuses_uploads_and_takes_them_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = on_its_own_file_system(folder.path()) else {
        return;
    };
    let path = folder.path().to_str().unwrap();
    assert_eq!(put(&server, "/media/b.txt", b"before").0, 201);
    in_namespace(&server, &["mount", "-o", "remount,ro", path]);
    for target in ["/media/c.txt", "/api/media"] {
        let (status, content) = put(&server, target, b"meanwhile");
        assert_eq!(status, 500, "{target}: {content}");
        assert!(
            content.contains("The upload could not be stored"),
            "{content}"
        );
    }
    let line = server.wait_for_log("Read-only file system");
    assert!(line.contains("/media/c.txt"), "{line}");
    assert_eq!(server.answer("/media/b.txt"), (200, b"before".to_vec()));
    in_namespace(&server, &["mount", "-o", "remount,rw", path]);
    for target in ["/media/c.txt", "/api/media"] {
        assert_eq!(put(&server, target, b"afterwards").0, 201, "{target}");
    }
    assert_eq!(server.answer("/media/c.txt"), (200, b"afterwards".to_vec()));
    stops_well(server);
}

#[test]
fn a_full_disk_refuses_uploads_and_takes_them_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = on_its_own_file_system(folder.path()) else {
        return;
    };
    for target in ["/media/large.bin", "/api/media"] {
        let (status, content) = put(&server, target, &vec![7; 6 << 20]);
        assert_eq!(status, 507, "{target}: {content}");
        assert!(
            content.contains("No space is left for the upload"),
            "{content}"
        );
    }
    server.wait_for_log("No space left on device");
    assert_eq!(server.answer("/media/a.txt"), (200, b"hello\n".to_vec()));
    // The server has removed what it received, so there is room again.
    let content = vec![7; 3 << 20];
    assert_eq!(put(&server, "/media/fits.bin", &content).0, 201);
    assert_eq!(server.answer("/media/fits.bin"), (200, content));
    stops_well(server);
}

/// Sends a request on an open connection, and returns status and content.
fn ask(connection: &mut TcpStream, target: &str) -> (u16, String) {
    let head = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
    connection.write_all(head.as_bytes()).unwrap();
    read(connection)
}

/// Reads one response with `Content-Length`.
fn read(connection: &mut TcpStream) -> (u16, String) {
    let mut response = Vec::new();
    let mut byte = [0];
    while !response.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte).unwrap();
        response.push(byte[0]);
    }
    let head = String::from_utf8(response).unwrap().to_lowercase();
    let mut fields = head.split("\r\n");
    let length = fields.find_map(|field| field.strip_prefix("content-length: "));
    let mut content = vec![0; length.unwrap().parse().unwrap()];
    connection.read_exact(&mut content).unwrap();
    let status = crate::client::status(head.to_uppercase().as_bytes()).unwrap();
    (status, String::from_utf8(content).unwrap())
}

#[test]
fn out_of_open_files_media_is_busy_and_new_connections_wait() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    fs::write(folder.path().join("b.txt"), "other").unwrap();
    let server = Server::start(folder.path(), &["--admin", "off"]);
    let mut connection = TcpStream::connect(&server.address).unwrap();
    assert_eq!(ask(&mut connection, "/media/a.txt").0, 200);

    let process = Pid::from_raw(i32::try_from(server.process_id()).unwrap());
    // The server inherited it, and has raised the soft limit to it.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = |current| {
        let limit = Rlimit { current, maximum };
        prlimit(process, Resource::Nofile, limit).unwrap();
    };
    // No descriptor above 2 can be opened now.
    limit(Some(3));
    let (status, content) = ask(&mut connection, "/media/b.txt");
    assert_eq!(status, 503, "{content}");
    assert_eq!(content, "{\"error\":\"Store is busy\"}");
    let mut waiting = TcpStream::connect(&server.address).unwrap();
    let head = "GET /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n";
    waiting.write_all(head.as_bytes()).unwrap();
    let line = server.wait_for_log("cannot accept connections");
    assert!(line.contains("Too many open files"), "{line}");

    limit(maximum);
    assert_eq!(read(&mut waiting), (200, "hello".to_owned()));
    server.wait_for_log("accepting connections again");
    assert_eq!(ask(&mut connection, "/media/b.txt").0, 200);
    let log = stops_well(server);
    assert_eq!(log.matches("cannot accept connections").count(), 1, "{log}");
}

/// Library that changes the time of day of one process.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

#[test]
#[ignore = "needs libfaketime"]
fn a_clock_that_jumps_changes_dates_and_signatures_and_nothing_else() {
    const KEY: &str = "k1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.txt");
    fs::write(&file, "hello").unwrap();
    let media = folder.path().join("media");
    fs::create_dir(&media).unwrap();
    fs::copy(&file, media.join("a.txt")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.env("MILLPOND_SIGNING_KEYS", KEY);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (folder_path, file) = (media.to_str().unwrap(), file.to_str().unwrap());
    let added = run(&["add", "--private", "--store", folder_path, file]);
    let path = added
        .split_whitespace()
        .find(|word| word.starts_with("/api/media/"));
    let signed = run(&["sign", path.unwrap(), "--expires", "1h"]);
    let signed = signed.trim();

    let offset = folder.path().join("offset");
    let jump = |by: &str| fs::write(&offset, by).unwrap();
    jump("+0");
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command
        .args(["serve", folder_path])
        .env("MILLPOND_SIGNING_KEYS", KEY)
        .env("LD_PRELOAD", FAKETIME)
        .env("FAKETIME_TIMESTAMP_FILE", &offset)
        .env("FAKETIME_NO_CACHE", "1")
        // The kernel's monotonic clock does not jump.
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let arguments = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let server = Server::started_by(&mut command, &arguments);
    let year = |response: &str| {
        let mut fields = response.lines();
        let date = fields.find_map(|line| line.strip_prefix("date: ")).unwrap();
        let date = httpdate::parse_http_date(date).unwrap();
        let years = date.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        years.as_secs() / (365 * 24 * 60 * 60)
    };
    let now = year(&server.get("/media/a.txt"));
    assert!(server.get(signed).starts_with("HTTP/1.1 200"));
    for (by, years, status) in [("+3y", 3, 403), ("-3y", -3, 200), ("+0", 0, 200)] {
        jump(by);
        let response = server.get("/media/a.txt");
        assert!(response.ends_with("hello"), "{by}: {response}");
        assert_eq!(
            year(&response),
            now.checked_add_signed(years).unwrap(),
            "{by}"
        );
        let response = server.get(signed);
        let wanted = format!("HTTP/1.1 {status}");
        assert!(response.starts_with(&wanted), "{by}: {response}");
    }
    let ready = exchange_by("GET", &server.admin, "/readyz", &[]);
    assert_eq!(crate::client::status(&ready), Some(200));
    stops_well(server);
}

/// Stops a server. It has panicked at no time, and exits with success.
fn stops_well(server: Server) -> String {
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log
}
