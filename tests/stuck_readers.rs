//! Readers of the program's output that are stuck or have left: the program continues to serve, and ends on a signal.

use crate::server::{Server, exchange};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

/// A pipe that takes no further byte until its reader reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(b".").is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// A file with so long a path that the lines about 2,000 requests are more than the log's queue holds.
fn write_deep(folder: &Path) -> String {
    let path = ["n".repeat(240), "m".repeat(240), "l".repeat(240)].join("/");
    let file = folder.join(&path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, "hello").unwrap();
    format!("/media/{path}")
}

fn serves_two_thousand(server: &Server, target: &str) {
    for _ in 0..2000 {
        assert_eq!(server.answer(target), (200, b"hello".to_vec()));
    }
}

fn dropped_lines(server: &Server) -> u64 {
    let metrics = String::from_utf8(exchange(&server.admin, "/metrics")).unwrap();
    let mut lines = metrics.lines();
    const NAME: &str = "millpond_log_dropped_lines_total{destination=\"stderr\"} ";
    let count = lines.find_map(|line| line.strip_prefix(NAME));
    count.unwrap().parse().unwrap()
}

/// Once, it answered some 400 requests, and then neither requests nor SIGTERM.
#[test]
fn a_log_that_nobody_reads_does_not_stop_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let target = write_deep(folder.path());
    let (mut reader, writer) = full_pipe();
    let arguments = ["--admin", "127.0.0.1:0"];
    let server = Server::start_logging_to(writer.into(), folder.path(), &arguments);
    serves_two_thousand(&server, &target);
    assert!(dropped_lines(&server) > 0);
    assert_eq!(server.stop().0, Some(0));
    // The log had no room in the pipe, whose content is unchanged.
    let mut left = Vec::new();
    reader.read_to_end(&mut left).unwrap();
    assert!(left.iter().all(|byte| *byte == b'.'));
}

/// Once, the next answer was cut, and so were all after it.
#[test]
fn a_log_whose_reader_has_gone_cuts_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let target = write_deep(folder.path());
    let (reader, writer) = pipe().unwrap();
    let arguments = ["--admin", "127.0.0.1:0"];
    let server = Server::start_logging_to(writer.into(), folder.path(), &arguments);
    assert_eq!(server.answer(&target).0, 200);
    drop(reader);
    serves_two_thousand(&server, &target);
    // Each of them is counted, as soon as it was its turn to be written.
    while dropped_lines(&server) < 2000 {}
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn an_announcement_that_nobody_reads_does_not_keep_it_from_serving() {
    let (full_reader, full_writer) = full_pipe();
    let (gone, writer) = pipe().unwrap();
    drop(gone);
    for stdout in [Stdio::from(full_writer), Stdio::from(writer)] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "hello").unwrap();
        // It cannot tell where it listens, so a place is chosen that was free a moment ago.
        let place = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = place.local_addr().unwrap().to_string();
        drop(place);
        let mut child = Command::new(env!("CARGO_BIN_EXE_millpond"))
            .args(["serve", folder.path().to_str().unwrap()])
            .args(["--listen", &address, "--admin", "off"])
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while TcpStream::connect(&address).is_err() {
            assert_eq!(child.try_wait().unwrap(), None, "it ended");
        }
        assert!(exchange(&address, "/media/a.txt").ends_with(b"\r\n\r\nhello"));
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    drop(full_reader);
}

/// The last lines are written although the process ends at once.
#[test]
fn a_second_signal_ends_it_at_once_and_the_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large"), vec![0; 20_000_000]).unwrap();
    let server = Server::start(folder.path(), &["--admin", "off"]);
    let mut busy = TcpStream::connect(&server.address).unwrap();
    busy.write_all(b"GET /media/large HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    busy.read_exact(&mut [0]).unwrap();
    server.signal(Signal::TERM);
    server.wait_for_log("waiting for in-flight responses");
    server.signal(Signal::TERM);
    let (code, log) = server.wait();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("shutting down now"), "{log}");
}
