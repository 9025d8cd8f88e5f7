//! Changes of a running server: settings, certificate and component, and a restart without downtime. Load runs through
//! each of them, and no request of it may fail.

use crate::load::{Clients, Load};
use crate::server::Server;
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A folder of media, and a configuration file beside it.
struct Setup {
    folder: tempfile::TempDir,
    beside: tempfile::TempDir,
}

/// Content of the media.
const HELLO: &[u8] = b"hello";

impl Setup {
    fn new(config: &str) -> Self {
        let setup = Setup {
            folder: tempfile::tempdir().unwrap(),
            beside: tempfile::tempdir().unwrap(),
        };
        fs::write(setup.folder.path().join("a.txt"), HELLO).unwrap();
        setup.configure(config);
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.beside.path().join(name)
    }

    /// Replaces a file from one moment to the next.
    fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let new = self.path("new");
        fs::write(&new, content).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    fn configure(&self, config: &str) {
        self.replace("millpond.toml", config);
    }

    fn start(&self, arguments: &[&str]) -> Server {
        let config = self.path("millpond.toml");
        let config = ["--config", config.to_str().unwrap()];
        Server::start(
            self.folder.path(),
            &[&["--admin", "127.0.0.1:0"], &config[..], arguments].concat(),
        )
    }
}

/// A component of this repository that serves the same media as the embedded one.
fn component(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read(root.join(name)).unwrap()
}

const P2: &str = "components/millpond-http-p2.wasm";
const EMBEDDED: &str = "host/millpond/component/media-serve.wasm";

/// A component that fits the interface, and traps at each request.
fn trapping() -> Vec<u8> {
    let wat = r#"(module
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (func (export "millpond:media/media-serve@0.2.0#handle")
            (param i32 i32 i32 i32 i32 i32 i64 i64 i32 i32 i32) (result i32)
            unreachable))"#;
    crate::hostile_guests::guest_of_wat(wat).bytes().to_vec()
}

#[test]
fn what_can_change_changes_at_once_and_the_log_says_what() {
    let setup = Setup::new("[signing-keys]\nk1 = \"000102030405060708090a0b0c0d0e0f\"\n");
    let server = setup.start(&["--client-rate", "1000"]);
    assert!(server.get("/media/a.txt").contains("public, no-cache"));
    // It is in the response cache now, and must not be served from there afterwards.
    assert!(server.get("/media/a.txt").contains("public, no-cache"));
    setup.configure(
        "limit-rate = \"1MiB\"\nclient-rate = 7\nresponse-cache = \"1MiB\"\nlog-format = \"json\"\n\
         trusted-proxy = [\"10.0.0.0/8\"]\n[cache]\nfiles = \"max-age=7\"\n\
         [signing-keys]\nk1 = \"ffffff030405060708090a0b0c0d0e0f\"\n",
    );
    server.signal(Signal::HUP);
    let line = server.wait_for_log("SIGHUP: reloaded");
    for change in [
        "limit-rate unset → 1MiB",
        "trusted-proxy unset → 10.0.0.0/8",
        "cache.files unset → max-age=7",
        "signing-keys.k1 (hidden) → (hidden)",
    ] {
        assert!(line.contains(change), "{line}");
    }
    assert!(
        !line.contains("client-rate"),
        "the option takes precedence: {line}"
    );
    let waiting = server.wait_for_log("SIGHUP: these settings need a restart");
    assert!(waiting.contains("log-format text → json"), "{waiting}");
    assert!(waiting.contains("response-cache 4MiB → 1MiB"), "{waiting}");
    assert!(server.get("/media/a.txt").contains("max-age=7"));

    let (status, answer) = server.post_admin("/reload", &[]);
    assert_eq!(status, 200);
    assert_eq!(answer["changed"], json!([]));
    assert_eq!(
        answer["needs_restart"].as_array().unwrap().len(),
        2,
        "{answer}"
    );

    setup.configure("mount-path = \"/files\"\nlog-level = \"warn\"\n");
    let (status, answer) = server.post_admin("/reload", &[]);
    assert_eq!(status, 200);
    let changed = answer["changed"].to_string();
    assert!(
        changed.contains(r#"{"new":"/files","old":"unset","setting":"mount-path"}"#),
        "{changed}"
    );
    assert!(
        changed.contains(r#""new":"unset","old":"(hidden)""#),
        "{changed}"
    );
    assert!(server.get("/files/a.txt").starts_with("HTTP/1.1 200"));
    assert!(server.get("/media/a.txt").starts_with("HTTP/1.1 404"));
    let (_, log) = server.stop();
    assert!(
        !log.contains("target=/files/a.txt"),
        "the log level has changed: {log}"
    );
    assert!(
        !log.contains("ffffff03") && !log.contains("000102"),
        "{log}"
    );
}

#[test]
fn a_wrong_file_changes_nothing_and_is_named_with_its_line() {
    let setup = Setup::new("mount-path = \"/one\"\n");
    let server = setup.start(&[]);
    for (config, line, field, message) in [
        (
            "mount-path = \"/two\"\nlimit-rate = \"fast\"",
            2,
            "limit-rate",
            "a size is needed",
        ),
        (
            "mount-path = \"/two\"\n\nlog-level = \"loud\"",
            3,
            "log-level",
            "is no level",
        ),
        (
            "mount-path = \"/two\"\n[cache]\nnegative-ttl = 5",
            3,
            "negative-ttl",
            "invalid type",
        ),
        (
            "mount-path = \"/two\"\nspeed = 5",
            2,
            "speed",
            "expected one of access-log, ",
        ),
        (
            "mount-path = \"/two\"\nlimit-rate = 1",
            2,
            "limit-rate",
            "has to be 2048 at least",
        ),
        (
            "mount-path = \"/two\"\nclient-burst = 1",
            2,
            "client-burst",
            "--client-rate is needed too",
        ),
    ] {
        setup.configure(config);
        let (status, answer) = server.post_admin("/reload", &[]);
        assert_eq!(status, 400, "{answer}");
        assert_eq!(answer["line"], line, "{answer}");
        assert_eq!(answer["field"], field, "{answer}");
        assert!(answer["file"].as_str().unwrap().ends_with("millpond.toml"));
        assert!(
            answer["message"].as_str().unwrap().contains(message),
            "{answer}"
        );
        let place = format!("millpond.toml:{line}: {field}: ");
        assert!(
            answer["error"].as_str().unwrap().contains(&place),
            "{answer}"
        );
    }
    server.signal(Signal::HUP);
    let line = server.wait_for_log("SIGHUP: cannot reload");
    assert!(line.contains("millpond.toml:2: client-burst"), "{line}");
    assert!(server.get("/one/a.txt").starts_with("HTTP/1.1 200"));
    assert!(server.get("/two/a.txt").starts_with("HTTP/1.1 404"));
    // Methods and pages of others do nothing.
    let (status, _) = server.post_admin("/reload", &[("origin", "http://a.example")]);
    assert_eq!(status, 403);
    setup.configure("mount-path = \"/two\"\n");
    let own = format!("http://{}", server.admin);
    let (status, _) = server.post_admin("/reload", &[("origin", &own)]);
    assert_eq!(status, 200);
}

#[test]
fn a_response_in_progress_ends_as_it_began() {
    let setup = Setup::new("");
    let file = fs::File::create(setup.folder.path().join("large.bin")).unwrap();
    file.set_len(64 << 20).unwrap();
    let server = setup.start(&[]);
    let mut reader = TcpStream::connect(&server.address).unwrap();
    reader
        .write_all(b"GET /media/large.bin HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .unwrap();
    reader.read_exact(&mut [0; 1024]).unwrap();
    setup.replace("component.wasm", component(P2));
    let path = setup.path("component.wasm");
    setup.configure(&format!("mount-path = \"/files\"\ncomponent = {path:?}\n"));
    let (status, answer) = server.post_admin("/reload", &[]);
    assert_eq!(status, 200, "{answer}");
    assert!(server.get("/files/a.txt").ends_with("\r\n\r\nhello"));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > (64 << 20) - 1024, "{}", rest.len());
}

#[test]
fn a_component_is_rolled_in_and_a_bad_one_is_rolled_back() {
    let setup = Setup::new("");
    setup.replace("component.wasm", component(EMBEDDED));
    let path = setup.path("component.wasm");
    setup.configure(&format!("component = {path:?}\n"));
    let server = setup.start(&[]);
    let sha256 = |server: &Server| {
        let metrics = server.get_admin("/metrics");
        let info = metrics.split("component_sha256=\"").nth(1).unwrap();
        info[..64].to_owned()
    };
    let first = sha256(&server);

    for bad in [
        b"garbage".to_vec(),
        component(EMBEDDED)[..1000].to_vec(),
        trapping(),
    ] {
        setup.replace("component.wasm", &bad);
        let (status, answer) = server.post_admin("/reload", &[]);
        assert_eq!(status, 400, "{answer}");
        assert!(
            answer["error"].as_str().unwrap().contains("component.wasm"),
            "{answer}"
        );
        assert_eq!(sha256(&server), first);
        assert!(server.get("/media/a.txt").ends_with("\r\n\r\nhello"));
    }
    let line =
        server.wait_for_log("cannot reload; the previous settings and component stay in use");
    assert!(line.contains("component.wasm"), "{line}");

    setup.replace("component.wasm", component(P2));
    let (status, answer) = server.post_admin("/reload", &[]);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["changed"][0]["setting"], "component", "{answer}");
    let second = sha256(&server);
    assert_ne!(first, second);
    let line = server.wait_for_log("POST /reload: reloaded component ");
    assert!(
        line.contains(&first[..12]) && line.contains(&second[..12]),
        "{line}"
    );
    assert!(server.get("/media/a.txt").ends_with("\r\n\r\nhello"));
}

/// Reloads of settings, and components that are swapped, under load.
#[test]
fn no_request_fails_while_settings_and_components_are_replaced() {
    const ROUNDS: usize = 6;
    let setup = Setup::new("");
    let path = setup.path("component.wasm");
    setup.replace("component.wasm", component(EMBEDDED));
    setup.configure(&format!("component = {path:?}\n"));
    let server = setup.start(&["--log-level", "warn"]);
    let load = Load::start(&server.address, "/media/a.txt", HELLO, Clients::default());
    for round in 0..ROUNDS {
        let (bytes, files) = [
            (component(P2), "max-age=1"),
            (component(EMBEDDED), "max-age=2"),
        ][round % 2]
            .clone();
        setup.replace("component.wasm", bytes);
        let (status, answer) = server.post_admin("/reload", &[]);
        assert_eq!(status, 200, "{answer}");
        load.wait_for_requests(200);
        setup.configure(&format!(
            "component = {path:?}\nclient-rate = 100000\n[cache]\nfiles = {files:?}\n"
        ));
        server.signal(Signal::HUP);
        load.wait_for_requests(200);
        setup.configure("limit-rate = \"fast\"\n");
        assert_eq!(server.post_admin("/reload", &[]).0, 400);
        load.wait_for_requests(200);
        setup.configure(&format!("component = {path:?}\n"));
    }
    let counts = load.stop();
    println!("{counts}");
    assert_eq!((counts.failed, counts.retried), (0, 0), "{counts}");
}

/// The next process starts on the same port, and the first one ends when that is ready.
#[test]
fn no_request_fails_while_one_process_takes_over_from_another() {
    const ROUNDS: usize = 4;
    let setup = Setup::new("reuse-port = true\nlog-level = \"warn\"\n");
    let mut server = setup.start(&[]);
    let address = server.address.clone();
    let load = Load::start(&address, "/media/a.txt", HELLO, Clients::default());
    for _ in 0..ROUNDS {
        load.wait_for_requests(200);
        // The last of several addresses counts, so the free port of `start` is overridden by a list.
        let next = Server::listening_as_told(
            setup.folder.path(),
            &[],
            &[
                "--listen",
                &address,
                "--admin",
                "127.0.0.1:0",
                "--reuse-port",
                "--log-level",
                "warn",
            ],
        );
        load.wait_for_requests(200);
        let (code, log) = std::mem::replace(&mut server, next).stop();
        assert_eq!(code, Some(0), "{log}");
        load.wait_for_requests(200);
    }
    let counts = load.stop();
    println!("{counts}");
    assert_eq!(counts.failed, 0, "{counts}");
}

#[test]
fn a_unix_socket_is_taken_over_too() {
    let setup = Setup::new("");
    let path = setup.path("a.sock");
    let address = format!("unix:{}", path.display());
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--listen",
        &address,
        "--admin",
        "off",
        "--reuse-port",
    ];
    let get = || {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stream
            .write_all(b"GET /media/a.txt HTTP/1.0\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    };
    let listen =
        |arguments: &[&str]| Server::listening_as_told(setup.folder.path(), &[], arguments);
    let first = listen(&arguments);
    get();
    let second = listen(&arguments);
    get();
    assert_eq!(first.stop().0, Some(0));
    get();
    assert_eq!(second.stop().0, Some(0));
    assert!(!path.exists());
}

/// Starts the program with a listening socket as a service manager does.
fn activate(setup: &Setup, socket: OwnedFd, name: &str, arguments: &[&str]) -> Server {
    let mut command = Command::new("sh");
    // The shell's own process becomes the program, so the number of the process is the same.
    command.args([
        "-c",
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve \"$@\"",
        env!("CARGO_BIN_EXE_millpond"),
        setup.folder.path().to_str().unwrap(),
    ]);
    command
        .stdin(Stdio::from(socket))
        .env("LISTEN_FDNAMES", name);
    Server::started_by(&mut command, arguments)
}

/// The socket stays open in the service manager, so its queue is there for the next process.
#[test]
fn no_request_fails_while_a_service_with_a_passed_socket_restarts() {
    const ROUNDS: usize = 4;
    let setup = Setup::new("");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let arguments = ["--admin", "off", "--log-level", "warn"];
    let start = || {
        let socket = socket.try_clone().unwrap();
        activate(&setup, socket.into(), "millpond.socket", &arguments)
    };
    let mut server = Some(start());
    assert_eq!(server.as_ref().unwrap().address, address);
    let load = Load::start(&address, "/media/a.txt", HELLO, Clients::default());
    for _ in 0..ROUNDS {
        load.wait_for_requests(200);
        // For a while, no process accepts.
        let (code, log) = server.take().unwrap().stop();
        assert_eq!(code, Some(0), "{log}");
        server = Some(start());
    }
    load.wait_for_requests(200);
    let counts = load.stop();
    println!("{counts}");
    assert_eq!(counts.failed, 0, "{counts}");
}

#[test]
fn passed_sockets_go_where_their_names_say() {
    let setup = Setup::new("");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let server = activate(&setup, socket.into(), "admin", &["--listen", "127.0.0.1:0"]);
    assert_eq!(server.admin, address);
    assert!(server.get_admin("/healthz").ends_with("ok\n"));
    assert!(server.get("/media/a.txt").ends_with("\r\n\r\nhello"));

    // A socket of a file is the service manager's, who removes it.
    let path = setup.path("passed.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let server = activate(&setup, socket.into(), "", &["--admin", "off"]);
    assert!(
        server
            .announced
            .contains(&format!("unix:{}", path.display())),
        "{}",
        server.announced
    );
    assert_eq!(server.stop().0, Some(0));
    assert!(path.exists());
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_stop() {
    let setup = Setup::new("");
    let path = setup.path("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    // A message that never comes fails the test, and does not hang it.
    let patience = Duration::from_secs(60);
    manager.set_read_timeout(Some(patience)).unwrap();
    let told = || {
        let mut text = [0; 256];
        let count = manager.recv(&mut text).unwrap();
        String::from_utf8(text[..count].to_vec()).unwrap()
    };
    let notify = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let arguments = ["--listen", "127.0.0.1:0", "--admin", "off"];
    let server = Server::listening_as_told(setup.folder.path(), &notify, &arguments);
    assert_eq!(told(), "READY=1\n");
    server.signal(Signal::HUP);
    let reloading = told();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(told(), "READY=1\n");
    assert_eq!(server.stop().0, Some(0));
    assert_eq!(told(), "STOPPING=1\n");
}
