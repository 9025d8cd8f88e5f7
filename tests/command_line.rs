//! The program itself, as it is run by hand.

use crate::server::{Server, exchange};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn millpond(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millpond"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[cfg(unix)]
#[test]
fn serve_announces_answers_logs_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    let server = Server::start(folder.path(), &["--log-format", "json"]);
    for expected in [
        text(folder.path()),
        "/media/<path>",
        "embedded",
        "memory 1.0 MiB",
    ] {
        assert!(server.announced.contains(expected), "{}", server.announced);
    }
    assert!(server.get("/media/a.txt").ends_with("\r\n\r\nhello"));
    assert!(server.get("/media/none\"\u{7f}").starts_with("HTTP/1.1 4"));
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    let access: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["event.dataset"] == "millpond.access")
        .collect();
    let first = &access[0];
    assert_eq!(first["http.request.method"], "GET");
    assert_eq!(first["url.original"], "/media/a.txt");
    assert_eq!(first["http.response.status_code"], 200);
    assert_eq!(first["http.response.body.bytes"], 5);
    assert_eq!(first["millpond.outcome"], "completed");
    assert_eq!(first["millpond.cache"], "miss");
    assert!(first["millpond.guest_peak_bytes"].as_u64().unwrap() > 0);
    assert!(first["event.duration"].is_u64());
}

#[test]
fn serve_mounts_files_at_the_root_and_a_component_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    let server = Server::start(folder.path(), &["--mount-path", "/"]);
    assert!(server.get("/a.txt").starts_with("HTTP/1.1 200"));
    let component = folder.path().join("own.wasm");
    fs::write(&component, include_bytes!("guests/hostile.wasm")).unwrap();
    let arguments = [
        "--component",
        text(&component),
        "--request-memory-limit",
        "2MiB",
    ];
    let server = Server::start(folder.path(), &arguments);
    assert!(
        server.announced.contains("own.wasm"),
        "{}",
        server.announced
    );
    assert!(server.announced.contains("memory 2.0 MiB"));
    assert!(server.get("/hostile/trap").starts_with("HTTP/1.1 500"));
    assert!(server.get("/a.txt").starts_with("HTTP/1.1 200"));
}

#[test]
fn what_cannot_be_served_is_one_clear_line_and_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("text.wasm"), "no component").unwrap();
    fs::write(at("module.wasm"), b"\0asm\x01\0\0\0").unwrap();
    fs::write(at("empty.wasm"), b"\0asm\x0d\0\x01\0").unwrap();
    fs::write(at("file"), "").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let listener = std::net::TcpListener::bind(&taken);
    let (text_wasm, module, empty) = (at("text.wasm"), at("module.wasm"), at("empty.wasm"));
    let (none, file, here) = (at("none"), at("file"), at(""));
    for (arguments, message) in [
        (&["serve", &none][..], "cannot serve the folder"),
        (&["serve", &file], "cannot serve the folder"),
        (
            &["serve", &here, "--component", &none],
            "cannot read the component",
        ),
        (
            &["serve", &here, "--component", &text_wasm],
            "is not a WebAssembly component",
        ),
        (
            &["serve", &here, "--component", &module],
            "is a core WebAssembly module",
        ),
        (
            &["serve", &here, "--component", &empty],
            "fits neither the world",
        ),
        (&["serve", &here, "--listen", &taken], "cannot listen on"),
        (
            &["serve", &here, "--request-memory-limit", "64KiB"],
            "raise --request-memory-limit",
        ),
        (
            &["serve", &here, "--access-log", &at("none/a.log")],
            "cannot open the access log",
        ),
        (
            &["serve", &here, "--limit-rate", "2KB"],
            "raise --limit-rate to 2048",
        ),
        (&["inspect", &text_wasm], "is not a WebAssembly component"),
        (&["inspect", &none], "cannot read the component"),
        (
            &["inspect", "--request-memory-limit", "64KiB"],
            "raise --request-memory-limit",
        ),
        (
            &["serve", &here, "--config", &none],
            "cannot read the configuration",
        ),
        (
            &["add", &file, "--store", &file],
            "cannot write to the store",
        ),
        (&["inspect", &empty], "fits neither the world"),
        (&["check", &none], "cannot check the folder"),
    ] {
        let output = millpond(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        // Once, the system's reason stood there twice.
        let reasons = stderr.matches("No such file or directory").count();
        assert!(reasons <= 1, "{arguments:?}: {stderr}");
    }
    drop(listener);
}

#[test]
fn add_stores_by_content_once_and_check_finds_damage() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let store = folder.path().join("store");
    fs::create_dir_all(source.join("deep")).unwrap();
    fs::write(
        source.join("cat.txt"),
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
    )
    .unwrap();
    fs::write(
        source.join("deep/cat-again.gif"),
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
    )
    .unwrap();
    fs::write(source.join(".hidden"), "hidden").unwrap();
    let add = |to: &Path| {
        let output = millpond(&["add", text(&source), "--store", text(to), "--json"]);
        assert!(output.status.success(), "{output:?}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        let lines = stdout.lines().map(serde_json::from_str);
        lines
            .collect::<Result<Vec<serde_json::Value>, _>>()
            .unwrap()
    };
    let added = add(&store);
    assert_eq!(added.len(), 2, "{added:?}");
    assert_eq!(added[0]["type"], "image/gif");
    assert_eq!(added[0]["id"], added[1]["id"]);
    // Both are read at a time, and either may be first.
    let first = added.iter().filter(|line| line["added"] == true);
    assert_eq!(first.count(), 1, "{added:?}");
    let id = added[0]["id"].as_str().unwrap();
    let stored = store.join(&id[..2]).join(id);
    assert_eq!(
        fs::read(&stored).unwrap(),
        fs::read(source.join("cat.txt")).unwrap()
    );

    // Into the folder itself, again: what is stored is not added as a file of its own.
    assert_eq!(add(&source).len(), 2);
    assert_eq!(add(&source).len(), 2);

    let server = Server::start(&store, &[]);
    let answer = server.get(added[0]["path"].as_str().unwrap());
    assert!(answer.contains("content-type: image/gif"), "{answer}");

    let check = millpond(&["check", text(&store)]);
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    fs::write(&stored, "damaged").unwrap();
    let check = millpond(&["check", text(&store)]);
    assert_eq!(check.status.code(), Some(1));
    let stderr = String::from_utf8(check.stderr).unwrap();
    assert!(
        stderr.contains(id) && stderr.contains("another digest"),
        "{stderr}"
    );
    assert_eq!(check.stdout, b"0 ok (0 B), 1 corrupt\n");
}

#[test]
fn add_says_what_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    let store = folder.path().join("store");
    let output = millpond(&["add", text(&none), "--store", text(&store)]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("cannot read") && stderr.contains("none"),
        "{stderr}"
    );
}

#[test]
fn inspect_tells_imports_exports_and_limits() {
    let output = millpond(&["inspect"]);
    assert!(output.status.success());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let imports: Vec<_> = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("imports"))
        .map(|import| import.trim().split('@').next().unwrap())
        .collect();
    assert_eq!(
        imports,
        [
            "millpond:media/settings",
            "wasi:io/streams",
            "millpond:media/media-store"
        ],
        "least authority"
    );
    assert!(stdout.contains("exports    millpond:media/media-serve@0.2.0"));
    assert!(stdout.contains("1.0 MiB"));
    let output = millpond(&["inspect", "--request-memory-limit", "8MiB"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("limits     memory 8.0 MiB"), "{stdout}");
}

/// Every argument, option and variable of a command, as its help has them, with its default.
fn options(command: &str) -> Vec<(String, Option<String>)> {
    let help = String::from_utf8(millpond(&[command, "--help"]).stdout).unwrap();
    let words: Vec<&str> = help.split_whitespace().collect();
    let mut options: Vec<(String, Option<String>)> = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let next = || words[place + 1].trim_end_matches([']', ',']).to_owned();
        match *word {
            "[env:" => options.push((next().trim_end_matches('=').to_owned(), None)),
            "[default:" if options.is_empty() => {}
            "[default:" => {
                let (name, _) = options.pop().unwrap();
                options.push((name, Some(next())));
            }
            _ if word.starts_with("--") && !word.starts_with("--help") => {
                let option = word.trim_end_matches(['.', ',', ']']);
                options.push((option.to_owned(), None));
            }
            _ => {}
        }
    }
    options
}

/// The page is written by hand, so it may be more than the help, but not less.
#[test]
fn every_option_of_every_command_stands_on_the_page() {
    let page = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/command-line.md"
    );
    let page = fs::read_to_string(page).unwrap();
    let of_serve = options("serve");
    for command in [
        "serve",
        "add",
        "ls",
        "rm",
        "publish",
        "unpublish",
        "check",
        "sign",
        "inspect",
        "new",
        "doctor",
    ] {
        let section = page.split("\n## ").find(|section| {
            let title = section.lines().next().unwrap();
            title == command
        });
        let section = section.unwrap_or_else(|| panic!("{command} is not on the page"));
        let mut options = options(command);
        if command == "doctor" {
            // It takes those of `serve`, and the page says so.
            options.retain(|option| !of_serve.contains(option));
        }
        assert!(!options.is_empty(), "{command}");
        for (name, default) in options {
            let mut rows = section.lines().filter(|line| line.starts_with('|'));
            let named = |row: &&str| {
                let cells = row.split(['|', ' ', '`', '\\']);
                cells.into_iter().any(|cell| cell == name)
            };
            let row = rows.find(named);
            let row = row.unwrap_or_else(|| panic!("{command} {name} is not on the page"));
            let is_told = default.as_ref().is_none_or(|default| row.contains(default));
            assert!(
                is_told,
                "{command} {name} has the default {default:?}: {row}"
            );
        }
    }
    // An option of the page that is gone from the help would mislead.
    let serve = String::from_utf8(millpond(&["serve", "--help"]).stdout).unwrap();
    let section = page.split("\n## ").nth(1).unwrap();
    for row in section.lines().filter(|line| line.starts_with("| `--")) {
        let option = row[3..].split([' ', '`']).next().unwrap();
        assert!(serve.contains(option), "{option} is not in the help");
    }
}

/// A reader that has the head of an answer of 64 MB, and takes no more.
fn stuck_reader(server: &Server) -> TcpStream {
    let mut reader = TcpStream::connect(&server.address).unwrap();
    let head = b"GET /media/large.bin HTTP/1.1\r\nhost: a\r\n\r\n";
    reader.write_all(head).unwrap();
    reader.read_exact(&mut [0; 1024]).unwrap();
    reader
}

fn folder_with_a_large_file() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = fs::File::create(folder.path().join("large.bin")).unwrap();
    file.set_len(64 << 20).unwrap();
    folder
}

/// Once, each of them ended a server without TLS at once, its downloads cut and nothing logged.
#[cfg(unix)]
#[test]
fn a_signal_that_asks_for_no_end_ends_nothing() {
    use rustix::process::Signal;
    let folder = folder_with_a_large_file();
    let server = Server::start(folder.path(), &["--admin", "off"]);
    let mut reader = stuck_reader(&server);
    for (signal, said) in [
        (Signal::HUP, "SIGHUP: no setting has changed"),
        (
            Signal::USR1,
            "SIGUSR1 ignored: the log goes to standard error",
        ),
        (Signal::USR2, "report written"),
        (Signal::PIPE, ""),
        (Signal::HUP, ""),
    ] {
        server.signal(signal);
        server.wait_for_log(said);
    }
    let answer = exchange(&server.address, "/media/large.bin");
    assert!(answer.len() > 64 << 20);
    reader.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(
        rest.len() > (64 << 20) - 1024,
        "the download went on: {}",
        rest.len()
    );
    assert_eq!(server.stop().0, Some(0));
}

#[cfg(unix)]
#[test]
fn a_second_signal_during_the_drain_ends_it_at_once() {
    use rustix::process::Signal;
    let folder = folder_with_a_large_file();
    for signals in [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::QUIT]] {
        let server = Server::start(folder.path(), &["--shutdown-grace", "1h"]);
        let _reader = stuck_reader(&server);
        server.signal(signals[0]);
        server.wait_for_log("shutting down: waiting for in-flight responses");
        server.signal(signals[1]);
        let (code, log) = server.wait();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("shutting down now"), "{log}");
    }
}

#[cfg(unix)]
#[test]
fn a_drain_takes_no_longer_than_it_may() {
    let folder = folder_with_a_large_file();
    let server = Server::start(folder.path(), &["--shutdown-grace", "1ms"]);
    let _reader = stuck_reader(&server);
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("closing busy connections"), "{log}");
}

/// A component in a pipe: it is ready when we say so.
#[cfg(unix)]
#[test]
fn a_signal_before_it_is_ready_is_none_that_kills() {
    use rustix::process::Signal;
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("component.wasm");
    for is_ended in [false, true] {
        let _ = fs::remove_file(&pipe);
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        let listen = ["--listen", "127.0.0.1:0", "--admin", "off"];
        let arguments = [&listen[..], &["--component", text(&pipe)]].concat();
        let server = Server::spawn(Stdio::piped(), folder.path(), &arguments);
        // It returns when the server reads, which takes its signals before that.
        let mut component = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        server.signal(Signal::HUP);
        server.signal(Signal::USR1);
        server.wait_for_log("SIGUSR1");
        if is_ended {
            server.signal(Signal::TERM);
            let (code, log) = server.wait();
            assert_eq!(code, Some(0), "{log}");
            continue;
        }
        component
            .write_all(include_bytes!(
                "../host/millpond/component/media-serve.wasm"
            ))
            .unwrap();
        drop(component);
        server.wait_for_log("SIGHUP");
        assert_eq!(server.stop().0, Some(0));
    }
}

/// A reader of the log could use a valid signature in it.
#[cfg(unix)]
#[test]
fn a_signature_is_logged_by_no_format() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    for format in ["text", "json", "common", "combined"] {
        let admin = ["--admin", "127.0.0.1:0"];
        let server = Server::start(
            folder.path(),
            &[&admin[..], &["--log-format", format]].concat(),
        );
        // The second response is from the cache, and the last one is the host's.
        for target in ["/media/a.txt", "/media/a.txt", "/api/media/x", "/a%00"] {
            let target = format!("{target}?exp=1&sig=c2VjcmV0&key=k1");
            // Its page has a signature too.
            let referrer = format!("http://a{target}");
            server.ask_with("GET", &target, &[("referer", &referrer)]);
        }
        let requests = server.ask("/requests").to_string();
        server.signal(rustix::process::Signal::USR2);
        let line = server.wait_for_log("report written");
        let report = line.split_once('/').unwrap().1;
        let report = format!("/{}.json", report.split_once(".json").unwrap().0);
        let reported = fs::read_to_string(&report).unwrap();
        fs::remove_file(&report).unwrap();
        let (_, log) = server.stop();
        let count = if format == "common" { 4 } else { 8 };
        assert_eq!(
            log.matches("exp=1&sig=[redacted]&key=k1").count(),
            count,
            "{log}"
        );
        for text in [log, requests, reported] {
            assert!(!text.contains("c2Vj"), "{text}");
        }
    }
}

#[cfg(unix)]
#[test]
fn it_listens_on_several_addresses_of_every_kind_and_leaves_no_socket_behind() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), vec![b'x'; 1_000_000]).unwrap();
    let socket = folder.path().join("a.sock");
    // One that a server left which was killed.
    drop(UnixListener::bind(&socket).unwrap());
    let unix = format!("unix:{}", text(&socket));
    let list = format!("localhost:0,{unix}");
    let server = Server::listening_as_told(folder.path(), &[("MILLPOND_LISTEN", &list)], &[]);
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    for _ in 0..2 {
        let mut client = UnixStream::connect(&socket).unwrap();
        let head = b"GET /media/a.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        client.write_all(head).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.len() > 1_000_000);
        assert!(server.get("/media/a.txt").len() > 1_000_000);
    }
    // Where a server answers, and where there is something else, nothing is taken away.
    for (taken, said) in [
        (&unix, "another server listens there"),
        (
            &format!("unix:{}/a.txt", text(folder.path())),
            "not a socket",
        ),
    ] {
        let output = millpond(&["serve", text(folder.path()), "--listen", taken]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
    assert!(UnixStream::connect(&socket).is_ok());
    let (code, log) = server.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!socket.exists());
}

#[test]
fn a_port_alone_is_of_this_machine_and_one_behind_a_colon_of_all() {
    let folder = tempfile::tempdir().unwrap();
    for (listen, host) in [
        ("0", "127.0.0.1:"),
        ("localhost:0", ""),
        (":0", "[::]:"),
        ("0.0.0.0:0", "0.0.0.0:"),
    ] {
        let server = Server::listening_as_told(folder.path(), &[], &["--listen", listen]);
        let address = &server.address;
        let has_no_ipv6 = address.starts_with("0.0.0.0:") && host == "[::]:";
        assert!(
            address.starts_with(host) || has_no_ipv6,
            "{listen}: {address}"
        );
    }
}

#[test]
fn lists_in_variables_of_the_environment_may_have_commas() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    let secret = "000102030405060708090a0b0c0d0e0f";
    let keys = format!("a:{secret},b:{secret}");
    let server = Server::listening_as_told(
        folder.path(),
        &[
            (
                "MILLPOND_CORS_ORIGIN",
                "https://a.example, https://b.example",
            ),
            ("MILLPOND_TRUSTED_PROXY", "10.0.0.0/8, 127.0.0.1"),
            ("MILLPOND_SIGNING_KEYS", &keys),
        ],
        &["--listen", "0"],
    );
    for origin in ["https://a.example", "https://b.example"] {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        let head = "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\norigin: ";
        stream
            .write_all(format!("{head}{origin}\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let allowed = format!("access-control-allow-origin: {origin}");
        assert!(answer.contains(&allowed), "{answer}");
    }
}

#[test]
fn an_option_that_cannot_be_meant_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let here = text(folder.path());
    let none = folder.path().join("none");
    let short = folder.path().join("short");
    fs::write(&short, "short").unwrap();
    for (option, value, said) in [
        ("--send-timeout", "0s", "a time above zero"),
        ("--response-timeout", "0s", "a time above zero"),
        ("--mount-path", "/api/media", "neither `/api/media`"),
        ("--mount-path", "/api/media/films", "neither `/api/media`"),
        ("--report-dir", text(&none), "cannot write reports to"),
        ("--listen", "here", "an address is HOST:PORT"),
        ("--listen", "no-such-host.invalid:80", "cannot listen on"),
        ("--admin", "unix:/a", "an address and port"),
        (
            "--admin",
            "0.0.0.0:0",
            "so it needs a token; set --admin-token-file",
        ),
        (
            "--admin-token-file",
            text(&none),
            "cannot read the admin token",
        ),
        ("--admin-token-file", text(&short), "16 to 256 characters"),
        ("--cors-origin", "https://a.example,*", "an origin is"),
        (
            "--trusted-proxy",
            "10.0.0.0/8 here",
            "an address or a network",
        ),
        ("--tls-cert", "none.pem", "--tls-key"),
    ] {
        let output = millpond(&["serve", here, "--listen", "0", option, value]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{option} {value}: {stderr}");
        assert!(stderr.contains(said), "{option} {value}: {stderr}");
    }
}

#[test]
fn config_check_names_the_line_the_field_and_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millpond.toml");
    let check = |config: &str| {
        fs::write(&file, config).unwrap();
        let output = millpond(&["config", "check", text(&file)]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) =
        check("listen = \":80\"\nmemory-limit = \"64MiB\"\n[cache]\nfiles = \"no-cache\"\n");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("millpond.toml is valid\n"), "{said}");
    for (config, message) in [
        (
            "listen = \"here\"",
            "1: listen: here: an address is HOST:PORT",
        ),
        ("listen = []", "1: listen: at least one value is needed"),
        (
            "\nadmin = true",
            "2: admin: an address and port is needed, as in 127.0.0.1:8079, or off",
        ),
        (
            "reuse-port = \"yes\"",
            "1: reuse-port: true or false is needed",
        ),
        (
            "log-format = \"xml\"",
            "1: log-format: the value is one of text, json",
        ),
        ("client-rate = 0", "1: client-rate: "),
        (
            "config = \"other.toml\"",
            "1: config: unknown field, expected one of access-log, ",
        ),
        (
            "cors-origin = \"https://a.example\"",
            "1: cors-origin: unknown field",
        ),
        (
            "tls-cert = \"a.pem\"",
            "1: tls-cert: --tls-key is needed too",
        ),
        (
            "mount-path = \"media\"",
            "1: mount-path: a mount path begins with `/`",
        ),
        (
            "[signing-keys]\nk1 = \"5ec2e7\"",
            "1: [signing-keys]: a signing key",
        ),
    ] {
        let (code, said) = check(config);
        assert_eq!(code, Some(2), "{config}: {said}");
        assert!(
            said.contains(&format!("millpond.toml:{message}")),
            "{config}: {said}"
        );
        assert!(
            said.lines().count() == 1 && !said.contains("5ec2e7"),
            "{said}"
        );
    }
}

#[test]
fn config_show_tells_where_each_setting_comes_from_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("millpond.toml");
    let secret = "000102030405060708090a0b0c0d0e0f";
    fs::write(
        &file,
        format!(
            "limit-rate = \"2MiB\"\n[cors]\nmax-age = \"1h\"\n[signing-keys]\nk1 = \"{secret}\"\n"
        ),
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_millpond"))
        .args(["config", "show", "--config", text(&file), "--listen", ":80"])
        .env("MILLPOND_LOG_LEVEL", "warn")
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let file = file.display();
    for (line, source) in [
        ("listen = [\":80\"]", "--listen".to_owned()),
        ("limit-rate = \"2MiB\"", format!("{file}:1")),
        ("log-level = \"warn\"", "MILLPOND_LOG_LEVEL".into()),
        ("send-timeout = \"2m\"", "default".into()),
        ("# tls-cert = unset", "default".into()),
        ("max-age = \"1h\"", format!("{file}:3")),
        ("# k1 = (hidden)", format!("{file}:5")),
    ] {
        let mut lines = shown.lines();
        let found = lines.find(|shown| shown.starts_with(line));
        let found = found.unwrap_or_else(|| panic!("{line}: {shown}"));
        assert!(found.ends_with(&format!(" # {source}")), "{found}");
    }
    assert!(!shown.contains(secret), "{shown}");
    // The output is a valid file itself.
    let again = folder.path().join("again.toml");
    fs::write(&again, &shown).unwrap();
    let output = millpond(&["config", "check", text(&again)]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    let here = text(folder.path());
    let doctor = |arguments: &[&str]| {
        let output = millpond(&[&["doctor", here, "--json", "--admin", "off"], arguments].concat());
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), json)
    };
    let level = |json: &serde_json::Value, check: &str| {
        let findings = json["findings"].as_array().unwrap();
        let mut of_check = findings.iter().filter(|finding| finding["check"] == check);
        let finding = of_check.find(|finding| finding["level"] != "ok");
        finding.map(|finding| {
            assert!(finding["remedy"].is_string(), "{finding}");
            finding["level"].as_str().unwrap().to_owned()
        })
    };
    let (code, json) = doctor(&["--listen", "0"]);
    assert_eq!(code, Some(0), "{json}");
    for check in ["settings", "folder", "address", "component", "clock"] {
        assert_eq!(level(&json, check), None, "{json}");
    }
    let garbage = folder.path().join("garbage.wasm");
    fs::write(&garbage, "garbage").unwrap();
    let none = folder.path().join("none");
    for (check, arguments) in [
        (
            "component",
            &["--listen", "0", "--component", text(&garbage)][..],
        ),
        (
            "certificate",
            &[
                "--listen",
                "0",
                "--tls-cert",
                text(&none),
                "--tls-key",
                text(&none),
            ],
        ),
        ("reports", &["--listen", "0", "--report-dir", text(&none)]),
        ("memory", &["--listen", "0", "--memory-limit", "1PiB"]),
        ("settings", &["--listen", "0", "--config", text(&none)]),
    ] {
        let (code, json) = doctor(arguments);
        assert_eq!(code, Some(1), "{json}");
        assert_eq!(level(&json, check).as_deref(), Some("fail"), "{json}");
    }
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = held
        .local_addr()
        .map(|address| (held, address.to_string()))
        .unwrap();
    let (code, json) = doctor(&["--listen", &held.1]);
    assert_eq!(
        (code, level(&json, "address").as_deref()),
        (Some(1), Some("fail")),
        "{json}"
    );
    let output = millpond(&["doctor", text(&none), "--listen", "0"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("fail  folder        cannot serve"), "{said}");
    assert!(said.contains("→ name a folder"), "{said}");
}

#[test]
fn what_the_system_says_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let here = text(folder.path());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let none = at("none");
    fs::write(at("file"), "").unwrap();
    for arguments in [
        &["serve", &none][..],
        &["serve", here, "--config", &none],
        &["serve", here, "--component", &none],
        &["serve", here, "--tls-cert", &none, "--tls-key", &none],
        &["serve", here, "--report-dir", &none],
        &["serve", here, "--listen", &format!("unix:{none}/a")],
        &["check", &none],
        &["add", &none, "--store", here],
        &["inspect", &none],
        &["sign", "/a", "--config", &none],
        &["new", &format!("{none}/deep/er"), "--lang", "rust"],
    ] {
        let output = millpond(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap().to_lowercase();
        for reason in ["no such file", "not found", "os error"] {
            assert!(
                stderr.matches(reason).count() <= 1,
                "{arguments:?}: {stderr}"
            );
        }
        assert!(stderr.lines().count() <= 1, "{arguments:?}: {stderr}");
    }
}

/// A 404 for an existing file puzzles the operator, so the log says why.
#[cfg(unix)]
#[test]
fn why_a_file_that_is_there_is_not_served_stands_in_the_log() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    let name = if rustix::process::geteuid().is_root() {
        // Root may read everything, but no link leads anybody out of the folder.
        std::os::unix::fs::symlink(outside.path(), folder.path().join("a.txt")).unwrap();
        "a.txt"
    } else {
        fs::write(folder.path().join("b.txt"), "hello").unwrap();
        let mode = fs::Permissions::from_mode(0o000);
        fs::set_permissions(folder.path().join("b.txt"), mode).unwrap();
        "b.txt"
    };
    let server = Server::start(folder.path(), &[]);
    let answer = server.get(&format!("/media/{name}"));
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    let line = server.wait_for_log("cannot read a file");
    assert!(line.contains(name) && line.contains("error="), "{line}");
}

#[test]
fn private_media_that_nobody_can_have_is_told_at_the_start_and_when_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let add = |name: &str| {
        let file = folder.path().join(name);
        fs::write(&file, name).unwrap();
        let arguments = [
            "add",
            text(&file),
            "--store",
            text(&store),
            "--private",
            "--json",
        ];
        let output = millpond(&arguments);
        assert!(output.status.success(), "{output:?}");
        let added: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        added["path"].as_str().unwrap().to_owned()
    };
    fs::create_dir(&store).unwrap();
    let server = Server::start(&store, &[]);
    let path = add("a");
    let answer = server.get(&path);
    assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
    let line = server.wait_for_log("private media was requested");
    assert!(line.contains("no signing keys"), "{line}");
    let server = Server::start(&store, &[]);
    let line = server.wait_for_log("private media such as");
    assert!(line.contains("MILLPOND_SIGNING_KEYS"), "{line}");
    let keys = "a:000102030405060708090a0b0c0d0e0f";
    let variables = [("MILLPOND_SIGNING_KEYS", keys)];
    let server = Server::listening_as_told(&store, &variables, &["--listen", "0"]);
    assert!(server.get(&path).starts_with("HTTP/1.1 401"));
    assert!(
        !server.logged().contains("private media"),
        "{}",
        server.logged()
    );
}

#[test]
fn the_least_memory_that_is_asked_for_is_enough_the_first_time() {
    let folder = tempfile::tempdir().unwrap();
    for request_memory in ["1MiB", "16MiB"] {
        let arguments = ["--request-memory-limit", request_memory, "--memory-limit"];
        let serve = ["serve", text(folder.path()), "--listen", "0"];
        let output = millpond(&[&serve[..], &arguments, &["1MiB"]].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        let least = stderr.split("raise --memory-limit to ").nth(1).unwrap();
        let least = least.split(' ').next().unwrap();
        let server = Server::start(folder.path(), &[&arguments[..], &[least]].concat());
        assert!(server.get("/media/none").starts_with("HTTP/1.1 404"));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn limits_that_contradict_each_other_are_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--memory-limit", "1PiB"]);
    let line = server.wait_for_log("--memory-limit");
    assert!(
        line.contains("more than the machine or the control group has"),
        "{line}"
    );
    let server = Server::start(folder.path(), &["--memory-limit", "512MiB"]);
    assert!(server.get("/media/none").starts_with("HTTP/1.1 404"));
    assert!(
        !server.logged().contains("WARN  --memory-limit"),
        "{}",
        server.logged()
    );

    let program = env!("CARGO_BIN_EXE_millpond");
    let with_few_files = format!("ulimit -n 64; exec {program} \"$@\"");
    let server = Server::started_by(
        Command::new("sh").args(["-c", &with_few_files, "sh", "serve", text(folder.path())]),
        &["--listen", "0"],
    );
    let line = server.wait_for_log("limit of open files is 64");
    assert!(line.contains("ulimit -n"), "{line}");
    assert!(server.get("/media/none").starts_with("HTTP/1.1 404"));
}

/// systemd's `MemoryDenyWriteExecute=` denies what a compiler lives by.
#[cfg(target_os = "linux")]
#[test]
fn a_system_that_lets_no_compiled_code_run_is_named() {
    use std::os::unix::process::CommandExt;
    const PR_SET_MDWE: libc::c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.args(["serve", text(folder.path()), "--listen", "0"]);
    let deny = || {
        // SAFETY: it is a call of the system without pointers.
        match unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec there is nothing but that call.
    unsafe { command.pre_exec(deny) };
    let output = match command.output() {
        Ok(output) => output,
        // Linux has it since 6.3.
        Err(error) => return println!("not tested here: {error}"),
    };
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("MemoryDenyWriteExecute"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
