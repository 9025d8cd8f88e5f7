//! `millpond health`, the health check of containers.

use crate::server::Server;
use std::process::{Command, Output};

fn health(admin: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millpond"))
        .arg("health")
        .env("MILLPOND_ADMIN", admin)
        .output()
        .unwrap()
}

#[cfg(unix)]
#[test]
fn a_server_is_healthy_until_its_folder_is_gone() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("media");
    std::fs::create_dir(&folder).unwrap();
    let server = Server::start(&folder, &["--admin", "127.0.0.1:0"]);
    let ready = health(&server.admin);
    assert_eq!(ready.status.code(), Some(0), "{ready:?}");
    assert_eq!(ready.stdout, b"ready\n");

    std::fs::remove_dir(&folder).unwrap();
    // The server looks for its folder now and then.
    let gone = loop {
        let gone = health(&server.admin);
        if !gone.status.success() {
            break gone;
        }
    };
    let reason = String::from_utf8(gone.stderr).unwrap();
    assert_eq!(gone.status.code(), Some(1), "{reason}");
    assert!(reason.contains("not ready: "), "{reason}");
    assert_eq!(reason.lines().count(), 1, "{reason}");

    let (admin, media) = (server.admin.clone(), server.address.clone());
    // The port of the media is another service.
    let other = health(&media);
    let reason = String::from_utf8(other.stderr).unwrap();
    assert!(reason.contains("not millpond's admin listener"), "{reason}");

    assert_eq!(server.stop().0, Some(0));
    let stopped = health(&admin);
    let reason = String::from_utf8(stopped.stderr).unwrap();
    assert_eq!(
        stopped.status.code(),
        Some(1),
        "Docker reserves 2: {reason}"
    );
    assert!(reason.contains("cannot connect"), "{reason}");
}
