//! `moto_server`, an S3 server in Python, for a second opinion.

use crate::hosts::installed;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

/// A running `moto_server`. Dropped, it is ended.
pub(crate) struct Moto {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Moto {
    /// Starts the program that `cargo xtask hosts --install` installs.
    pub(crate) fn start() -> Self {
        let program = installed("venv/bin/moto_server");
        assert!(program.exists(), "there is no {}", program.display());
        // Another program may take the port before it does.
        for _ in 0..5 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let child = Command::new(&program)
                .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut moto = Moto { child, address };
            while moto.child.try_wait().unwrap().is_none() {
                if TcpStream::connect(address).is_ok() {
                    return moto;
                }
                std::thread::yield_now();
            }
        }
        panic!("moto_server does not start");
    }

    /// Makes a bucket, or puts an object into one: the target is `/bucket` or `/bucket/key`.
    pub(crate) fn put(&self, target: &str, content: &[u8]) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let head = format!(
            "PUT {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.address,
            content.len()
        );
        stream
            .write_all(&[head.as_bytes(), content].concat())
            .unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        let status = crate::client::status(&response);
        assert_eq!(status, Some(200), "{}", String::from_utf8_lossy(&response));
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs moto_server"]
fn moto_serves_ranges_and_conditions() {
    let moto = Moto::start();
    let content = crate::host::noise(10_000);
    moto.put("/media", b"");
    moto.put("/media/a.bin", &content);
    let get = |field| {
        let address = moto.address.to_string();
        // It checks no signature, but refuses requests without one.
        let signed = (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request",
        );
        crate::server::exchange_by("GET", &address, "/media/a.bin", &[signed, field])
    };
    let part = get(("range", "bytes=100-199"));
    assert_eq!(crate::client::status(&part), Some(206));
    assert!(part.ends_with(&content[100..200]));
    let changed = get(("if-match", "\"other\""));
    assert_eq!(crate::client::status(&changed), Some(412));
}
