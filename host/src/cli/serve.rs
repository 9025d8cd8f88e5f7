//! `millpond serve`.

use super::readable;
use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use millpond::listener::{self, ConnectionLimits};
use millpond::store::Folder;
use millpond::{FilesAt, Limits, Millpond, Source};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The folder: files are served by their names, and what `millpond add` put there by its content.
    #[arg(value_name = "DIR", default_value = ".", env = "MILLPOND_DIR")]
    dir: PathBuf,

    /// Address and port to listen on; port 0 takes a free one, which is then printed.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        env = "MILLPOND_LISTEN"
    )]
    listen: SocketAddr,

    /// Path under which named files are served; `/` for the root.
    #[arg(long, value_name = "PATH", default_value = "/media", env = "MILLPOND_FILES_AT", value_parser = parse_files_at)]
    files_at: FilesAt,

    /// A component to serve from, in place of the embedded one.
    #[arg(long, value_name = "FILE", env = "MILLPOND_COMPONENT")]
    component: Option<PathBuf>,

    /// The most memory that one request's instance may take.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "1MiB",
        env = "MILLPOND_REQUEST_MEMORY"
    )]
    request_memory: ByteSize,

    /// How the log is written, to standard error.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        env = "MILLPOND_LOG"
    )]
    log: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

fn parse_files_at(text: &str) -> Result<FilesAt, String> {
    text.parse()
        .map_err(|error: millpond::NotAPath| error.to_string())
}

impl Serve {
    pub(crate) fn run(self) -> Result<ExitCode> {
        start_log(self.log);
        let source = match &self.component {
            Some(path) => Source::from_file(path)?,
            None => Source::embedded(),
        };
        let folder = Folder::open(&self.dir)
            .with_context(|| format!("cannot serve the folder {}", self.dir.display()))?;
        let limits = Limits {
            request_memory_bytes: usize::try_from(self.request_memory.as_u64())
                .context("--request-memory is more than this machine can address")?,
            ..Limits::default()
        };
        let millpond = Millpond::new(&source, folder, &self.files_at, limits)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(self.serve(millpond))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(&self, millpond: Millpond) -> Result<()> {
        let limits = ConnectionLimits {
            connections: connections_within_open_files(),
            ..ConnectionLimits::default()
        };
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}", self.listen))?;
        millpond.probe().await?;
        let stop = stop_on_signal()?;
        let announcement = self.announcement(&millpond, listener.local_addr()?);
        // Whoever reads it may have gone; that is no reason not to serve.
        let _ = std::io::stdout().write_all(announcement.as_bytes());
        listener::serve(listener, millpond, limits, stop).await;
        Ok(())
    }

    /// Says what is served, where, by what and within which limits.
    fn announcement(&self, millpond: &Millpond, address: SocketAddr) -> String {
        let url = format!("http://{address}");
        let component = millpond.component();
        let files_at = self.files_at.as_str().trim_end_matches('/');
        let mut lines = vec![
            format!("millpond {}", env!("CARGO_PKG_VERSION")),
            format!("  serving    {}", self.dir.display()),
            format!("  listening  {url}"),
            format!("  files      {url}{files_at}/<path>"),
            format!("  media      {url}/api/media/<id>"),
            format!(
                "  component  {} ({}, sha256 {}…)",
                component.name,
                readable(component.size_bytes as u64),
                &component.sha256[..12],
            ),
            format!("  request    {}", millpond.limits()),
        ];
        if let Some(file) = file_to_try(&self.dir) {
            lines.push(format!("  try        {url}{files_at}/{file}"));
        }
        lines.join("\n") + "\n"
    }
}

fn start_log(format: LogFormat) {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(tracing::Level::INFO);
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// A page, or else the first file that a URL can name as it is.
fn file_to_try(dir: &Path) -> Option<String> {
    let plain = |name: &String| {
        !name.starts_with('.')
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let is_file = entry.file_type().ok()?.is_file();
            is_file.then(|| entry.file_name().into_string().ok())?
        })
        .filter(plain)
        .take(1000)
        .collect();
    names.sort_unstable();
    let index = names.iter().position(|name| name == "index.html");
    (!names.is_empty()).then(|| names.swap_remove(index.unwrap_or(0)))
}

/// A token that is cancelled by the first Ctrl-C or SIGTERM. The second ends the process as it would without
/// us.
fn stop_on_signal() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let token = stop.clone();
    let mut signals = Signals::new().context("cannot wait for signals")?;
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("stopping: running answers are let end");
        token.cancel();
        signals.next().await;
        tracing::warn!("stopping at once");
        std::process::exit(1);
    });
    Ok(stop)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals)
    }

    async fn next(&mut self) {
        // Without a Ctrl-C to wait for, there is none to come.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Raises the limit of open files as far as it goes, and says how many connections then fit: each takes a
/// socket, and its answer most often one file.
fn connections_within_open_files() -> usize {
    let most = ConnectionLimits::default().connections;
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        /// The program's own: standard streams, the listener, the poller, the folder.
        const OWN_FILES: u64 = 64;
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: maximum,
            maximum,
        };
        let files = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => maximum,
            Err(_) => current,
        };
        if let Some(files) = files {
            let connections = files.saturating_sub(OWN_FILES) / 2;
            return usize::try_from(connections).map_or(most, |fit| fit.clamp(1, most));
        }
    }
    most
}
