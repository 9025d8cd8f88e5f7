//! The configurations of `deploy/nginx` and `deploy/caddy`, in the proxies themselves.
//!
//! They need nginx, Caddy and curl, so they are ignored unless asked for, as the tests of players are.

use crate::host::noise;
use crate::server::Server;
use crate::tls::Identity;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const KEY: &str = "k1:000102030405060708090a0b0c0d0e0f";

/// A proxy in front of a server, both with a folder of their own.
struct Proxied {
    proxy: Child,
    port: u16,
    _server: Server,
    folder: tempfile::TempDir,
    _identity: Identity,
}

impl Drop for Proxied {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

/// Places that the configuration of a proxy names.
struct Places {
    folder: PathBuf,
    port: u16,
    socket: String,
    certificate: String,
    key: String,
}

impl Proxied {
    /// Starts a server that listens on a UNIX domain socket, and the proxy that the command describes.
    fn start(command: impl Fn(&Places) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let media = folder.path().join("media");
        fs::create_dir(&media).unwrap();
        fs::write(media.join("film.bin"), noise(3_000_000)).unwrap();
        let socket = folder.path().join("millpond.sock");
        let socket = socket.to_str().unwrap().to_owned();
        let unix = format!("unix:{socket}");
        let server = Server::listening_as_told(
            &media,
            &[("MILLPOND_SIGNING_KEYS", KEY)],
            &[
                "--admin",
                "off",
                "--listen",
                "127.0.0.1:0",
                "--listen",
                &unix,
                "--trusted-proxy",
                "127.0.0.1",
            ],
        );
        let identity = Identity::new();
        let [_, certificate, _, key] = identity.arguments();
        let mut places = Places {
            folder: folder.path().to_owned(),
            port: 0,
            socket,
            certificate,
            key,
        };
        let proxy = started(|port| {
            places.port = port;
            command(&places)
        });
        let (proxy, port) = proxy;
        Proxied {
            proxy,
            port,
            _server: server,
            folder,
            _identity: identity,
        }
    }

    /// Requests a path with curl over TLS. Returns what `--write-out` says, and the content.
    fn curl(&self, path: &str, arguments: &[&str]) -> (String, Vec<u8>) {
        let content = self.folder.path().join("content");
        fs::write(&content, "").unwrap();
        let output = Command::new("curl")
            .args(["-sS", "-k", "--http2", "--write-out"])
            .arg("%{http_code} HTTP/%{http_version}")
            .args(["--resolve", &format!("localhost:{}:127.0.0.1", self.port)])
            .arg("-o")
            .arg(&content)
            .args(arguments)
            .arg(format!("https://localhost:{}{path}", self.port))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let told = String::from_utf8(output.stdout).unwrap();
        (told, fs::read(content).unwrap())
    }

    fn millpond(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_millpond"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("MILLPOND_SIGNING_KEYS", KEY)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Checks ranges, conditions and HTTP/2.
    fn assert_passes_on_what_the_server_says(&self) {
        let film = noise(3_000_000);
        let (told, content) = self.curl("/media/film.bin", &[]);
        assert_eq!(told, "200 HTTP/2");
        assert!(content == film);
        let (told, content) = self.curl("/media/film.bin", &["-r", "1000000-2000000"]);
        assert_eq!(told, "206 HTTP/2");
        assert!(content == film[1_000_000..=2_000_000]);
        let (told, content) = self.curl("/media/film.bin", &["-r", "-5"]);
        assert_eq!(told, "206 HTTP/2");
        assert!(content == film[film.len() - 5..]);
        let (told, content) = self.curl("/media/film.bin", &["-r", "0-1,2000000-2000001"]);
        assert_eq!(told, "206 HTTP/2");
        assert!(String::from_utf8_lossy(&content).contains("bytes 2000000-2000001/3000000"));
        let (told, _) = self.curl("/media/film.bin", &["-r", "3000000-"]);
        assert_eq!(told, "416 HTTP/2");

        let (_, head) = self.curl("/media/film.bin", &["-I"]);
        let head = String::from_utf8(head).unwrap();
        let tag = head.lines().find_map(|line| line.strip_prefix("etag: "));
        let condition = format!("If-None-Match: {}", tag.unwrap());
        let (told, content) = self.curl("/media/film.bin", &["-H", &condition]);
        assert_eq!((told.as_str(), content.len()), ("304 HTTP/2", 0));
    }

    /// Checks that the server knows the client's address, and none that a client claims. Private media that is signed
    /// for one address shows it.
    fn assert_tells_the_address_of_the_client(&self) {
        fs::write(self.folder.path().join("secret.txt"), "secret").unwrap();
        let added = self.millpond(&[
            "add",
            "secret.txt",
            "--store",
            "media",
            "--private",
            "--json",
        ]);
        let added: serde_json::Value = serde_json::from_str(&added).unwrap();
        let path = added["path"].as_str().unwrap();
        let url = self.millpond(&["sign", path, "--client", "127.0.0.5"]);
        let claims = [
            "-H",
            "X-Forwarded-For: 127.0.0.5",
            "-H",
            "Forwarded: for=127.0.0.5",
            "-H",
            "X-Real-IP: 127.0.0.5",
        ];
        for (client, claims, expected) in [
            ("127.0.0.5", &[][..], "200 HTTP/2"),
            ("127.0.0.6", &[], "403 HTTP/2"),
            ("127.0.0.6", &claims[..2], "403 HTTP/2"),
            ("127.0.0.6", &claims[2..4], "403 HTTP/2"),
            ("127.0.0.6", &claims, "403 HTTP/2"),
            // A claim that reached the server would make the proxy the client.
            (
                "127.0.0.5",
                &["-H", "Forwarded: for=127.0.0.9"],
                "200 HTTP/2",
            ),
            (
                "127.0.0.5",
                &["-H", "X-Forwarded-For: 127.0.0.9"],
                "200 HTTP/2",
            ),
        ] {
            let arguments = [&["--interface", client][..], claims].concat();
            let (told, _) = self.curl(&url, &arguments);
            assert_eq!(told, expected, "{arguments:?}");
        }
    }
}

/// Starts a proxy on a free port, and waits until it accepts connections. Another program may take the port in between,
/// so it tries again.
pub(crate) fn started(mut command: impl FnMut(u16) -> Command) -> (Child, u16) {
    for _ in 0..5 {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut command = command(port);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        while child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return (child, port);
            }
            std::thread::yield_now();
        }
    }
    panic!("the proxy does not start");
}

/// Reads a configuration, and replaces each of these texts. Each has to occur.
pub(crate) fn configuration(path: &str, replaced: &[(&str, &str)]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut text = fs::read_to_string(root.join("deploy").join(path)).unwrap();
    for (from, to) in replaced {
        assert!(text.contains(from), "{path} has no {from}");
        text = text.replace(from, to);
    }
    text
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs nginx and curl"]
fn nginx_passes_on_ranges_http_2_and_the_address_of_the_client() {
    let proxied = Proxied::start(|places| {
        let site = configuration(
            "nginx/millpond.conf",
            &[
                ("443", &format!("127.0.0.1:{}", places.port)),
                ("/run/millpond.sock", &places.socket),
                (
                    "/etc/letsencrypt/live/MEDIA.EXAMPLE/fullchain.pem",
                    &places.certificate,
                ),
                (
                    "/etc/letsencrypt/live/MEDIA.EXAMPLE/privkey.pem",
                    &places.key,
                ),
                ("MEDIA.EXAMPLE", "localhost"),
            ],
        );
        // One process, so that its end is the end of nginx.
        let folder = places.folder.display();
        let whole = format!(
            "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr warn;\n\
             events {{}}\n\
             http {{\n\
             access_log off; client_body_temp_path {folder}/1; proxy_temp_path {folder}/2;\n\
             fastcgi_temp_path {folder}/3; uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;\n\
             {site}}}\n"
        );
        let file = places.folder.join("nginx.conf");
        fs::write(&file, whole).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-c"]).arg(file);
        command
    });
    proxied.assert_passes_on_what_the_server_says();
    proxied.assert_tells_the_address_of_the_client();
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs caddy and curl"]
fn caddy_passes_on_ranges_http_2_and_the_address_of_the_client() {
    let proxied = Proxied::start(|places| {
        let site = configuration(
            "caddy/Caddyfile",
            &[
                ("/run/millpond.sock", &places.socket),
                // Its own certificate needs a name on the internet.
                (
                    "MEDIA.EXAMPLE {",
                    &format!(
                        "https://localhost:{} {{\n\tbind 127.0.0.1\n\ttls {} {}",
                        places.port, places.certificate, places.key
                    ),
                ),
            ],
        );
        let options = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n";
        let file = places.folder.join("Caddyfile");
        fs::write(&file, format!("{options}{site}")).unwrap();
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]);
        command.arg(file).stderr(Stdio::null());
        for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            command.env(variable, &places.folder);
        }
        command
    });
    proxied.assert_passes_on_what_the_server_says();
    proxied.assert_tells_the_address_of_the_client();
}
