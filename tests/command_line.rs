//! The program itself, as it is run by hand.

use crate::server::Server;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

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
    let server = Server::start(folder.path(), &["--log", "json"]);
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
        .filter(|line: &serde_json::Value| line["target"] == "millpond::access")
        .collect();
    let first = &access[0];
    assert_eq!(first["method"], "GET");
    assert_eq!(first["path"], "/media/a.txt");
    assert_eq!(first["status"], 200);
    assert_eq!(first["bytes"], 5);
    assert_eq!(first["end"], "completed");
    assert!(first["guest_peak_bytes"].as_u64().unwrap() > 0);
    assert!(first["duration_us"].is_u64());
}

#[test]
fn serve_takes_files_at_the_root_and_a_component_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    let server = Server::start(folder.path(), &["--files-at", "/"]);
    assert!(server.get("/a.txt").starts_with("HTTP/1.1 200"));
    let component = folder.path().join("own.wasm");
    fs::write(&component, include_bytes!("guests/hostile.wasm")).unwrap();
    let arguments = ["--component", text(&component), "--request-memory", "2MiB"];
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
            &["serve", &here, "--request-memory", "64KiB"],
            "raise --request-memory",
        ),
        (&["serve", &here, "--pace", "2KB"], "raise --pace to 2048"),
        (&["inspect", &text_wasm], "is not a WebAssembly component"),
        (&["inspect", &none], "cannot read the component"),
        (
            &["inspect", "--request-memory", "64KiB"],
            "raise --request-memory",
        ),
        (
            &["serve", &here, "--config", &none],
            "cannot read the configuration",
        ),
        (&["add", &file, "--to", &file], "cannot write to the store"),
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
        let output = millpond(&["add", text(&source), "--to", text(to), "--json"]);
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
    assert_eq!(
        (&added[0]["added"], &added[1]["added"]),
        (&true.into(), &false.into())
    );
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
    assert_eq!(check.stdout, b"0 sound (0 B), 1 damaged\n");
}

#[test]
fn add_says_what_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    let store = folder.path().join("store");
    let output = millpond(&["add", text(&none), "--to", text(&store)]);
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
            "wasi:config/store",
            "wasi:io/streams",
            "millpond:media/media-store"
        ],
        "least authority"
    );
    assert!(stdout.contains("exports    millpond:media/media-serve@0.1.0"));
    assert!(stdout.contains("1.0 MiB"));
    let output = millpond(&["inspect", "--request-memory", "8MiB"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("allowed    memory 8.0 MiB"), "{stdout}");
}

#[test]
fn help_names_every_option_and_its_environment_variable() {
    let stdout = String::from_utf8(millpond(&["serve", "--help"]).stdout).unwrap();
    for name in [
        "LISTEN",
        "FILES_AT",
        "COMPONENT",
        "REQUEST_MEMORY",
        "CLIENT_RATE",
        "PACE",
        "TRUSTED_PROXY",
        "LOG",
    ] {
        let option = format!("--{}", name.to_lowercase().replace('_', "-"));
        let variable = format!("MILLPOND_{name}");
        assert!(
            stdout.contains(&option) && stdout.contains(&variable),
            "{name}"
        );
    }
}
