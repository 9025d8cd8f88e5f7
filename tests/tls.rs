//! TLS on the listener: certificates, ALPN, renewal, and what HTTP/1.1 is refused for whether it is encrypted or not.

use crate::client::status;
use crate::host::{Host, Setup};
use crate::server::Server;
use millpond::Outcome;
use millpond_server::tls::Certificate;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A certificate for `localhost` in a folder of its own, and clients who know it.
pub(crate) struct Identity {
    folder: tempfile::TempDir,
    known: CertificateDer<'static>,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let known = write_pair(folder.path());
        Identity { folder, known }
    }

    /// Another one in the same files.
    pub(crate) fn renew(&mut self) {
        self.known = write_pair(self.folder.path());
    }

    fn certificate_file(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn key_file(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::from_files(&self.certificate_file(), &self.key_file()).unwrap()
    }

    pub(crate) fn arguments(&self) -> [String; 4] {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let [certificate, key] = [self.certificate_file(), self.key_file()].map(text);
        ["--tls-cert".into(), certificate, "--tls-key".into(), key]
    }

    /// Connects as a client that trusts this certificate and no other.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        protocols: &[&[u8]],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.known.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

fn write_pair(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

async fn host(identity: &Identity) -> Host {
    let host = Host::start_with(Setup {
        certificate: Some(identity.certificate()),
        ..Setup::default()
    });
    host.await
}

/// Sends bytes, and returns all that comes back until the host closes.
async fn raw(identity: &Identity, address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = identity.connect(address, &[b"http/1.1"]).await.unwrap();
    // The host may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn the_protocol_is_the_first_that_both_speak() {
    let identity = Identity::new();
    let host = host(&identity).await;
    for (offered, agreed) in [
        (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
        (&[b"http/1.1", b"h2"], Some(b"h2")),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let stream = identity.connect(host.address, offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
    }
    assert!(identity.connect(host.address, &[b"spdy/3"]).await.is_err());
}

#[tokio::test]
async fn whoever_offers_nothing_is_answered_in_http_1_1() {
    let identity = Identity::new();
    let host = host(&identity).await;
    host.write("a.txt", b"hello");
    let mut stream = identity.connect(host.address, &[]).await.unwrap();
    let head = b"GET /media/a.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut answer = Vec::new();
    // With a close_notify at the end: else this would be an error.
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"\r\n\r\nhello"));
}

/// The plaintext is scanned for request smuggling.
#[tokio::test]
async fn an_ambiguous_head_is_refused_and_nothing_behind_it_is_answered() {
    let identity = Identity::new();
    let host = host(&identity).await;
    host.write("a.txt", b"hello");
    let good = "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    for ambiguous in [
        "GET /media/a.txt HTTP/1.1\r\nhost: a\nx: b\r\n\r\n",
        "GET /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let sent = ambiguous.to_owned() + good;
        let answer = raw(&identity, host.address, sent.as_bytes()).await;
        assert_eq!(status(&answer), Some(400), "{ambiguous}");
        assert!(!answer.ends_with(b"hello"), "{ambiguous}");
    }
    assert_eq!(
        status(&raw(&identity, host.address, good.as_bytes()).await),
        Some(200)
    );
}

/// The bytes to encrypt must not refer to the file's pages, which may be gone by then.
#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_ends_its_answer_only() {
    const LENGTH: usize = 64 << 20;
    let identity = Identity::new();
    let host = host(&identity).await;
    // Far more than the sockets between hold, so that it shrinks while it is being sent.
    host.write("big.bin", &vec![7; LENGTH]);
    let mut stream = identity.connect(host.address, &[]).await.unwrap();
    let head = b"GET /media/big.bin HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut first = vec![0; 100_000];
    stream.read_exact(&mut first).await.unwrap();
    let path = host.folder.path().join("big.bin");
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(1_000_000).unwrap();
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest).await;
    let received = first.len() + rest.len();
    assert!(ended.is_err() || received < LENGTH, "{received} bytes");
    host.registry().idle().await;
    assert_eq!(host.registry().ended_requests(Outcome::Failed), 1);
    let good = b"GET /media/big.bin HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    assert_eq!(status(&raw(&identity, host.address, good).await), Some(200));
}

#[tokio::test]
async fn what_is_no_tls_ends_its_connection_only() {
    let identity = Identity::new();
    let host = host(&identity).await;
    host.write("a.txt", b"hello");
    let good = b"GET /media/a.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let long_hello = [&[22, 3, 1, 64, 0, 1, 0, 255, 255][..], &[0; 70_000]].concat();
    for garbage in [&crate::host::noise(50_000)[..], &long_hello] {
        let answer = crate::client::raw(host.address, garbage).await;
        assert_eq!(status(&answer), None);
    }
    assert_eq!(status(&raw(&identity, host.address, good).await), Some(200));
    host.registry().idle().await;
}

/// Once, they were given seven bytes that no browser shows.
#[tokio::test]
async fn plain_http_is_refused_in_words_and_nothing_of_it_is_answered() {
    let identity = Identity::new();
    let host = host(&identity).await;
    host.write("a.txt", b"hello");
    let head = "GET /media/a.txt HTTP/1.1\r\nhost: a\r\n";
    let long = format!("{head}x: {}\r\n\r\n", "a".repeat(14_000));
    for (number, sent) in (1..).zip([
        format!("{head}\r\n"),
        format!("{head}\r\n").repeat(3),
        "POST / HTTP/1.0\r\ncontent-length: 5\r\n\r\nhello".to_owned(),
        long,
    ]) {
        let answer = crate::client::raw(host.address, sent.as_bytes()).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1."), "{answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
        assert_eq!(status(answer.as_bytes()), Some(400));
        let told = "{\"error\":\"A plain HTTP request was sent to an HTTPS port\"}";
        assert!(answer.ends_with(told), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        host.registry().idle().await;
        assert_eq!(host.registry().ended_requests(Outcome::Rejected), number);
    }
    let good = format!("{head}connection: close\r\n\r\n");
    let answer = raw(&identity, host.address, good.as_bytes()).await;
    assert_eq!(status(&answer), Some(200));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.txt"), "hello").unwrap();
    let mut identity = Identity::new();
    let arguments = identity.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let server = Server::start(
        folder.path(),
        &[&["--admin", "off"], &arguments[..]].concat(),
    );
    assert!(
        server.announced.contains("https://"),
        "{}",
        server.announced
    );
    let address = server.address.parse().unwrap();
    let mut before = identity.connect(address, &[b"http/1.1"]).await.unwrap();

    fs::write(identity.key_file(), "no key").unwrap();
    server.signal(rustix::process::Signal::HUP);
    let line = server.wait_for_log("SIGHUP: cannot reload");
    assert!(line.contains("there is no private key in"), "{line}");
    assert!(identity.connect(address, &[]).await.is_ok());

    identity.renew();
    server.signal(rustix::process::Signal::HUP);
    server.wait_for_log("certificate reloaded");
    assert!(identity.connect(address, &[]).await.is_ok());
    // Who was connected stays so.
    let head = b"GET /media/a.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    before.write_all(head).await.unwrap();
    let mut answer = Vec::new();
    before.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"hello"));
}

#[test]
fn bad_files_are_one_clear_line_at_the_start() {
    let identity = Identity::new();
    let serve = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_millpond"))
            .args(["serve", ".", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        stderr
    };
    let [_, certificate, _, key] = &identity.arguments();
    let other = Identity::new().arguments();
    for (certificate, key, said) in [
        ("none.pem", key.as_str(), "cannot read none.pem"),
        (key, key, "there is no certificate in"),
        (certificate, certificate, "there is no private key in"),
        (certificate, &other[3], "cannot read"),
    ] {
        let stderr = serve(&["--tls-cert", certificate, "--tls-key", key]);
        assert!(
            stderr.lines().count() == 1 && stderr.contains(said),
            "{stderr}"
        );
    }
    assert!(serve(&["--tls-cert", certificate]).contains("--tls-key"));
}
