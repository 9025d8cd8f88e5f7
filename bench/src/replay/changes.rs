//! Changes of a running millpond while it is loaded: settings, component, log, uploads, readers of its admin listener, and
//! a collector of its traces.

use crate::replay::servers::Server;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// Token of the uploads.
const TOKEN: &str = "replay-0123456789abcdef";

/// Bytes of one upload.
const UPLOAD_BYTES: usize = 1_000_000;

/// Names that uploads replace in turn.
const NAMES: u64 = 8;

/// Maximum time of one change.
const LONGEST_CHANGE: Duration = Duration::from_secs(30);

/// Largest response that is read, in bytes.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Files that the changes need.
pub(crate) struct Files {
    /// Configuration of the server.
    config: PathBuf,
    access_log: PathBuf,
    reports: PathBuf,
    /// Components that serve the same media, which replace each other.
    components: [PathBuf; 2],
    /// Socket of the collector of traces.
    collector: std::net::TcpListener,
}

impl Files {
    /// Makes the files in a folder. The components are those of the workspace.
    pub(crate) fn make(folder: &Path, workspace: &Path) -> Result<Self> {
        let files = Files {
            config: folder.join("millpond.toml"),
            access_log: folder.join("access.log"),
            reports: folder.join("reports"),
            components: [folder.join("a.wasm"), folder.join("b.wasm")],
            collector: std::net::TcpListener::bind("127.0.0.1:0")?,
        };
        files.collector.set_nonblocking(true)?;
        let built = [
            "host/millpond/component/media-serve.wasm",
            "components/millpond-http-p2.wasm",
        ];
        // The server's sandbox lets it read components of one folder.
        for (built, component) in built.iter().zip(&files.components) {
            let copied = fs::copy(workspace.join(built), component);
            copied.with_context(|| format!("cannot copy {built}"))?;
        }
        fs::create_dir_all(&files.reports)?;
        files.configure(0)?;
        Ok(files)
    }

    /// Has a server use the files.
    pub(crate) fn apply(&self, command: &mut Command) -> Result<()> {
        let collector = self.collector.local_addr()?;
        command.args(["--otlp-endpoint", &format!("http://{collector}")]);
        command.arg("--config").arg(&self.config);
        command.arg("--access-log").arg(&self.access_log);
        command.arg("--report-dir").arg(&self.reports);
        command.args(["--uploads", "on"]);
        // The component for wasi:http needs it.
        command.args(["--request-memory-limit", "3MiB"]);
        command.env("MILLPOND_UPLOAD_TOKEN", TOKEN);
        Ok(())
    }

    /// Writes the configuration of the change with that number.
    fn configure(&self, number: u64) -> Result<()> {
        let component = &self.components[usize::try_from(number / COMPONENT_SECONDS % 2)?];
        let text = format!(
            "component = \"{}\"\nlog-level = \"{}\"\n[cache]\nfiles = \"public, max-age={}\"\n",
            component.display(),
            ["info", "warn,millpond::access=info"][usize::try_from(number / RELOAD_SECONDS % 2)?],
            number % 1000,
        );
        let new = self.config.with_extension("new");
        fs::write(&new, text).context("cannot write the configuration")?;
        fs::rename(new, &self.config).context("cannot replace the configuration")
    }
}

/// Seconds between two changes of each kind.
const UPLOAD_SECONDS: u64 = 3;
const RELOAD_SECONDS: u64 = 10;
const COMPONENT_SECONDS: u64 = 30;
const SIGNAL_SECONDS: u64 = 20;
const LOG_SECONDS: u64 = 60;
const REPORT_SECONDS: u64 = 300;

/// Number of changes of each kind.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Changed {
    /// Reloads that changed a setting, on the admin listener.
    pub(crate) reloads: u64,
    /// Reloads that changed the component.
    pub(crate) components: u64,
    /// SIGHUP without a change, USR1 with a log that was moved, and USR2.
    pub(crate) signals: u64,
    pub(crate) uploads: u64,
    /// Uploads whose client left in the middle.
    pub(crate) cut_uploads: u64,
    /// Reads of the admin listener's pages and of the listing of a folder.
    pub(crate) reads: u64,
    /// Batches of spans that the collector has got.
    pub(crate) batches: u64,
    /// Messages of changes that failed, and the number of each.
    pub(crate) failures: BTreeMap<String, u64>,
}

/// Makes changes of one server.
pub(crate) struct Changer<'a> {
    files: &'a Files,
    process: Pid,
    address: SocketAddr,
    admin: SocketAddr,
    client: legacy::Client<HttpConnector, Full<Bytes>>,
    collector: TcpListener,
    /// Batches of spans that the collector has got.
    batches: AtomicU64,
}

impl<'a> Changer<'a> {
    pub(crate) fn new(server: &Server, files: &'a Files) -> Result<Self> {
        let process = i32::try_from(server.process_id())
            .ok()
            .and_then(Pid::from_raw);
        Ok(Changer {
            files,
            process: process.context("no process id")?,
            address: server.address,
            admin: server
                .admin
                .context("this millpond has no admin listener")?,
            // Each request has a connection of its own, so none meets the end of an idle one.
            client: legacy::Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build_http(),
            collector: TcpListener::from_std(files.collector.try_clone()?)?,
            batches: AtomicU64::new(0),
        })
    }

    /// Number of batches of spans that the collector has got.
    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Makes changes until it is dropped, and counts them.
    pub(crate) async fn keep_changing(&self, changed: &mut Changed) -> Infallible {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let changes = async {
            for second in 1u64.. {
                seconds.tick().await;
                let made = timeout(LONGEST_CHANGE, self.change(second, changed)).await;
                let made = made.unwrap_or_else(|_| bail!("a change takes too long"));
                if let Err(error) = made {
                    *changed.failures.entry(format!("{error:#}")).or_default() += 1;
                }
            }
        };
        tokio::join!(changes, self.read_events(), self.collect()).1
    }

    /// Makes the changes of a second.
    async fn change(&self, second: u64, changed: &mut Changed) -> Result<()> {
        let is_due = |every: u64| second.is_multiple_of(every);
        if is_due(UPLOAD_SECONDS) {
            self.upload(second).await?;
            changed.uploads += 1;
            self.cut_upload().await?;
            changed.cut_uploads += 1;
        }
        if is_due(RELOAD_SECONDS) {
            self.files.configure(second)?;
            self.reload().await?;
            changed.reloads += 1;
            changed.components += u64::from(is_due(COMPONENT_SECONDS));
        }
        if is_due(SIGNAL_SECONDS) {
            self.signal(Signal::HUP)?;
            changed.signals += 1;
        }
        if is_due(LOG_SECONDS) {
            fs::rename(
                &self.files.access_log,
                self.files.access_log.with_extension("1"),
            )?;
            self.signal(Signal::USR1)?;
            changed.signals += 1;
        }
        if is_due(REPORT_SECONDS) {
            self.signal(Signal::USR2)?;
            changed.signals += 1;
        }
        let pages = ["/", "/metrics", "/memory", "/requests", "/readyz"];
        let page = pages[usize::try_from(second)? % pages.len()];
        self.get(self.admin, page).await?;
        self.get(self.address, "/media/?q=up&sort=-size").await?;
        changed.reads += 2;
        Ok(())
    }

    /// Uploads a file by name or by content. The content differs from that of each other upload.
    async fn upload(&self, second: u64) -> Result<()> {
        let mut content = vec![0; UPLOAD_BYTES];
        content[..8].copy_from_slice(&second.to_le_bytes());
        let upload = second / UPLOAD_SECONDS;
        let target = match upload % 4 {
            // The store grows by these.
            0 => "/api/media".to_owned(),
            _ => format!("/media/upload-{}.bin", upload % NAMES),
        };
        let request = Request::put(format!("http://{}{target}", self.address))
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .body(Full::from(content))?;
        self.send(request).await.map(drop)
    }

    /// Sends half of an upload, and leaves.
    async fn cut_upload(&self) -> Result<()> {
        let mut stream = TcpStream::connect(self.address).await?;
        let head = format!(
            "PUT /media/upload-cut.bin HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\n\
             content-length: {UPLOAD_BYTES}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![0; UPLOAD_BYTES / 2]).await?;
        Ok(())
    }

    async fn reload(&self) -> Result<()> {
        let request = Request::post(format!("http://{}/reload", self.admin));
        let text = self.send(request.body(Full::default())?).await?;
        let reloaded: serde_json::Value = serde_json::from_slice(&text)?;
        let changed = reloaded["changed"].as_array().map_or(0, Vec::len);
        ensure!(changed > 0, "a reload changed nothing");
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.process, signal).context("cannot signal the server")
    }

    async fn get(&self, address: SocketAddr, target: &str) -> Result<()> {
        let request = Request::get(format!("http://{address}{target}"));
        self.send(request.body(Full::default())?).await.map(drop)
    }

    /// Sends a request. A status other than 2xx is an error.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Bytes> {
        let what = format!("{} {}", request.method(), request.uri().path());
        let response = self.client.request(request).await;
        let response = response.with_context(|| what.clone())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST_BYTES)
            .collect()
            .await;
        let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
        ensure!(
            status.is_success(),
            "{what}: {status} {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }

    /// Takes the spans, as a collector of traces does. The server has one connection at a time.
    async fn collect(&self) {
        let take = |request: Request<Incoming>| async {
            let taken = Limited::new(request.into_body(), MOST_BYTES)
                .collect()
                .await;
            self.batches
                .fetch_add(u64::from(taken.is_ok()), Ordering::Relaxed);
            anyhow::Ok(Response::new(Empty::<Bytes>::new()))
        };
        loop {
            if let Ok((stream, _)) = self.collector.accept().await {
                let stream = TokioIo::new(stream);
                // The server connects again after an error.
                let _ = http1::Builder::new()
                    .serve_connection(stream, service_fn(take))
                    .await;
            }
        }
    }

    /// Reads the events of the dashboard, as an open page does.
    async fn read_events(&self) -> Infallible {
        loop {
            let read = async {
                let mut stream = TcpStream::connect(self.admin).await?;
                let head = format!("GET /events HTTP/1.1\r\nhost: {}\r\n\r\n", self.admin);
                stream.write_all(head.as_bytes()).await?;
                let mut piece = [0; 4096];
                while stream.read(&mut piece).await? > 0 {}
                std::io::Result::Ok(())
            };
            // A browser connects again too.
            let _ = read.await;
            sleep(Duration::from_secs(1)).await;
        }
    }
}
