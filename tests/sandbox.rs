//! The sandbox of `serve`, with the program in another process.

use crate::server::Server;
use crate::tls::Identity;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Folders of a server, each by itself. Otherwise the folder for temporary files would have all of them.
struct Setup {
    folder: tempfile::TempDir,
}

const COMPONENT: &str = "host/millpond/component/media-serve.wasm";
const TOKEN: &str = "a-token-for-the-tests";

impl Setup {
    fn new() -> Self {
        let setup = Setup {
            folder: tempfile::tempdir().unwrap(),
        };
        for name in ["media", "config", "reports", "log", "outside"] {
            fs::create_dir(setup.path(name)).unwrap();
        }
        fs::write(setup.path("media/a.txt"), "a").unwrap();
        fs::write(setup.path("config/millpond.toml"), "").unwrap();
        let component = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(COMPONENT);
        fs::copy(&component, setup.path("config/c.wasm")).unwrap();
        fs::copy(&component, setup.path("outside/c.wasm")).unwrap();
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Arguments of a server in the sandbox.
    fn arguments(&self) -> Vec<String> {
        let text = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let [config, reports, log] = ["config/millpond.toml", "reports", "log/a.log"].map(text);
        [
            ["--config", &config],
            ["--report-dir", &reports],
            ["--access-log", &log],
            ["--listen", "127.0.0.1:0"],
            ["--admin", "127.0.0.1:0"],
            ["--log-level", "debug,hyper=info,h2=info"],
        ]
        .concat()
        .iter()
        .map(|&argument| argument.to_owned())
        .collect()
    }

    fn configure(&self, config: &str) {
        fs::write(self.path("config/millpond.toml"), config).unwrap();
    }

    /// Starts a server that needs the sandbox. `None` if this kernel cannot enforce it; the server has to refuse then.
    fn start(&self, arguments: &[&str]) -> Option<Server> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
        command.arg("serve").arg(self.path("media"));
        command.args(self.arguments()).args(["--sandbox", "on"]);
        command.env("MILLPOND_UPLOAD_TOKEN", TOKEN);
        if is_whole() {
            return Some(Server::started_by(&mut command, arguments));
        }
        eprintln!("not tested: the kernel cannot enforce the sandbox");
        let output = command.args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(error(&output).starts_with("millpond: --sandbox on: the kernel"));
        None
    }
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether this kernel enforces the whole sandbox, as `millpond doctor` says.
fn is_whole() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_millpond"));
    let arguments = [
        "--json",
        "--sandbox",
        "on",
        "--listen",
        "0",
        "--admin",
        "off",
    ];
    let output = doctor
        .arg("doctor")
        .arg(folder.path())
        .args(arguments)
        .output();
    let json: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let findings = json["findings"].as_array().unwrap();
    let finding = findings
        .iter()
        .find(|finding| finding["check"] == "sandbox");
    finding.unwrap()["level"] == "ok"
}

/// Once, such a folder was out of reach by default.
#[test]
fn a_folder_that_replaces_the_media_folder_is_served_with_auto() {
    let setup = Setup::new();
    let replace = || {
        fs::rename(setup.path("media"), setup.path("old")).unwrap();
        fs::create_dir(setup.path("media")).unwrap();
        fs::write(setup.path("media/a.txt"), "new").unwrap();
    };
    let server = Server::start(&setup.path("media"), &["--admin", "127.0.0.1:0"]);
    assert_eq!(server.answer("/media/a.txt"), (200, b"a".to_vec()));
    replace();
    while server.answer("/media/a.txt") != (200, b"new".to_vec()) {}
    drop(server);

    fs::remove_dir_all(setup.path("old")).unwrap();
    let Some(server) = setup.start(&[]) else {
        return;
    };
    replace();
    while !server.get_admin("/readyz").contains("Permission denied") {}
}

#[test]
fn every_thread_of_the_server_is_in_the_sandbox() {
    let setup = Setup::new();
    let Some(server) = setup.start(&[]) else {
        return;
    };
    server.wait_for_log("the kernel enforces the sandbox");
    assert!(server.get("/media/a.txt").ends_with("\r\n\r\na"));
    let threads = fs::read_dir(format!("/proc/{}/task", server.process_id())).unwrap();
    let mut count = 0;
    for thread in threads {
        // Entering the sandbox sets this flag for a thread, and threads inherit both.
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        count += 1;
    }
    assert!(count > 3, "{count}");
}

#[test]
fn without_the_sandbox_no_thread_is_in_it() {
    let setup = Setup::new();
    let arguments = setup.arguments();
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--sandbox", "off"]);
    let server = Server::start(&setup.path("media"), &arguments);
    let status = fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let flag = |status: &str| {
        status
            .lines()
            .find(|line| line.starts_with("NoNewPrivs"))
            .map(str::to_owned)
    };
    assert_eq!(flag(&status), flag(&own));
    // Nothing keeps it from a component elsewhere.
    setup.configure(&format!("component = {:?}", setup.path("outside/c.wasm")));
    assert_eq!(server.post_admin("/reload", &[]).0, 200);
}

#[test]
fn a_reload_cannot_name_a_component_outside_the_sandbox_and_says_so() {
    let setup = Setup::new();
    let Some(server) = setup.start(&[]) else {
        return;
    };
    let outside = setup.path("outside/c.wasm");
    setup.configure(&format!("client-rate = 1\ncomponent = {outside:?}"));
    let (status, answer) = server.post_admin("/reload", &[]);
    assert_eq!(status, 400);
    let said = answer["error"].as_str().unwrap();
    assert!(said.contains("the sandbox does not let"), "{said}");
    assert!(said.contains("outside/c.wasm"), "{said}");
    // The previous settings stay in use.
    for _ in 0..3 {
        assert!(server.get("/media/a.txt").starts_with("HTTP/1.1 200"));
    }
    // The folder of the configuration file was readable from the start.
    setup.configure(&format!("component = {:?}", setup.path("config/c.wasm")));
    let (status, answer) = server.post_admin("/reload", &[]);
    assert_eq!(status, 200, "{answer}");
    assert!(server.get("/media/a.txt").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_certificate_is_renewed_in_its_folder_and_not_taken_from_outside() {
    let setup = Setup::new();
    let [mut identity, other] = [Identity::new(), Identity::new()];
    let [_, certificate, _, key] = identity.arguments();
    let configure = |[_, certificate, _, key]: [String; 4]| {
        setup.configure(&format!("tls-cert = {certificate:?}\ntls-key = {key:?}\n"));
    };
    configure(identity.arguments());
    let Some(server) = setup.start(&[]) else {
        return;
    };
    configure(other.arguments());
    server.signal(Signal::HUP);
    let said = server.wait_for_log("cannot reload");
    assert!(said.contains("the sandbox does not let"), "{said}");
    assert!(fs::exists(certificate).unwrap() && fs::exists(key).unwrap());
    configure(identity.arguments());
    identity.renew();
    server.signal(Signal::HUP);
    server.wait_for_log("certificate reloaded");
}

#[test]
fn reports_logs_and_uploads_are_written_in_the_sandbox() {
    let setup = Setup::new();
    let Some(server) = setup.start(&["--uploads", "on"]) else {
        return;
    };
    fs::rename(setup.path("log/a.log"), setup.path("log/a.log.1")).unwrap();
    server.signal(Signal::USR1);
    server.wait_for_log("a.log reopened");
    assert!(fs::exists(setup.path("log/a.log")).unwrap());
    server.signal(Signal::USR2);
    server.wait_for_log("report written");
    assert_eq!(fs::read_dir(setup.path("reports")).unwrap().count(), 1);

    let token = format!("Bearer {TOKEN}");
    for target in ["/media/new/b.txt", "/media/new/b.txt", "/api/media"] {
        let (target, fields) = (
            target,
            [("authorization", token.as_str()), ("content-length", "0")],
        );
        let answer = server.ask_with("PUT", target, &fields);
        assert!(answer.starts_with("HTTP/1.1 20"), "{target}: {answer}");
    }
    assert!(fs::exists(setup.path("media/new/b.txt")).unwrap());
    assert!(server.get("/media/new/b.txt").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_socket_file_and_a_name_are_bound_in_the_sandbox() {
    let setup = Setup::new();
    let socket = setup.path("log/s.sock");
    let listen = format!("localhost:0,unix:{}", socket.display());
    let Some(server) = setup.start(&["--listen", &listen]) else {
        return;
    };
    assert!(server.get("/media/a.txt").starts_with("HTTP/1.1 200"));
    assert!(fs::exists(&socket).unwrap());
    assert_eq!(server.stop().0, Some(0));
    assert!(
        !fs::exists(&socket).unwrap(),
        "the file of the socket is left"
    );
}
