//! `millpond serve`.

use super::log::{Log, LogFormat, LogLevel, announce};
use super::{bytes, readable, signing_keys};
use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::Args;
use millpond::admin::{Admin, write_report};
use millpond::clients::{IpNet, Rate};
use millpond::config::{Config, FilesAt, NotAPath, NotAnOrigin, Origin};
use millpond::listener::{self, ConnectionLimits};
use millpond::store::Folder;
use millpond::watch::Watch;
use millpond::{Leak, Limits, Millpond, Source};
use prometheus_client::registry::Registry;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
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

    /// A TOML file of how to answer: files-at, cors, browser, cache, signing-keys. Options here count before it.
    #[arg(long, value_name = "FILE", env = "MILLPOND_CONFIG")]
    config: Option<PathBuf>,

    /// Path under which named files are served; `/` for the root [default: /media].
    #[arg(long, value_name = "PATH", env = "MILLPOND_FILES_AT", value_parser = parse_files_at)]
    files_at: Option<FilesAt>,

    /// An origin whose pages may read answers, as in https://a.example; may be given several times [default: all].
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "MILLPOND_CORS_ORIGIN",
        value_delimiter = ' ',
        value_parser = parse_origin
    )]
    cors_origin: Vec<Origin>,

    /// A component to serve from, in place of the embedded one.
    #[arg(long, value_name = "FILE", env = "MILLPOND_COMPONENT")]
    component: Option<PathBuf>,

    /// The most memory that the process may take, and the kernel on its behalf [default: a quarter of the
    /// machine's or the control group's, 4GiB at most].
    #[arg(long, value_name = "SIZE", env = "MILLPOND_MEMORY")]
    memory: Option<ByteSize>,

    /// The most memory that one request may take, of whatever kind.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "1MiB",
        env = "MILLPOND_REQUEST_MEMORY"
    )]
    request_memory: ByteSize,

    /// What answers that may be given again without an instance take together; `off` for an instance for each request.
    #[arg(long, value_name = "SIZE|off", default_value = "4MiB", env = "MILLPOND_REUSE", value_parser = parse_reuse)]
    reuse: Reuse,

    /// For how long a change in the folder may go unseen; 0s looks for each request.
    #[arg(long, value_name = "TIME", default_value = "10ms", env = "MILLPOND_RECHECK", value_parser = humantime::parse_duration)]
    recheck: Duration,

    /// Address and port for those who run the process: `/metrics`, `/memory`, `/requests`, `/healthz`, `/readyz`;
    /// `off` for none [default: 127.0.0.1:9090, or none where that is taken].
    #[arg(long, value_name = "ADDR", env = "MILLPOND_ADMIN", value_parser = parse_admin)]
    admin: Option<AdminAddress>,

    /// A client that takes too little of an answer in so long is cut off.
    #[arg(long, value_name = "TIME", default_value = "30s", env = "MILLPOND_STALL", value_parser = humantime::parse_duration)]
    stall: Duration,

    /// What is too little, in bytes a second.
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "1024",
        env = "MILLPOND_LEAST_RATE"
    )]
    least_rate: u32,

    /// The longest that one answer may take.
    #[arg(long, value_name = "TIME", default_value = "1h", env = "MILLPOND_TOTAL", value_parser = humantime::parse_duration)]
    total: Duration,

    /// Requests that one client may have in flight [default: no limit].
    #[arg(long, value_name = "COUNT", env = "MILLPOND_CLIENT_REQUESTS")]
    client_requests: Option<NonZeroU32>,

    /// Requests that one client may make a second [default: no limit].
    #[arg(long, value_name = "COUNT", env = "MILLPOND_CLIENT_RATE")]
    client_rate: Option<NonZeroU32>,

    /// Requests that one client may make at once after a time of rest [default: those of a second].
    #[arg(
        long,
        value_name = "COUNT",
        env = "MILLPOND_CLIENT_BURST",
        requires = "client_rate"
    )]
    client_burst: Option<NonZeroU32>,

    /// What each answer is held back to, in bytes a second, as in 2MiB [default: no limit].
    #[arg(long, value_name = "SIZE", env = "MILLPOND_PACE", value_parser = parse_pace)]
    pace: Option<NonZeroU32>,

    /// Proxies that are believed about whom they ask for; may be given several times.
    #[arg(long, value_name = "CIDR", env = "MILLPOND_TRUSTED_PROXY", value_delimiter = ',', value_parser = parse_proxy)]
    trusted_proxy: Vec<IpNet>,

    /// Folder for the reports that SIGUSR2 asks for [default: the system's for temporary files].
    #[arg(long, value_name = "DIR", env = "MILLPOND_REPORTS")]
    reports: Option<PathBuf>,

    /// Leaks on purpose, to see the watch name it.
    #[arg(long, hide = true, value_name = "WHAT", value_parser = parse_leak)]
    leak_drill: Option<Leak>,

    /// How often the watch looks.
    #[arg(long, hide = true, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    watch_every: Duration,

    /// How the log is written, to standard error.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        env = "MILLPOND_LOG"
    )]
    log: LogFormat,

    /// Which lines are written.
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "MILLPOND_LOG_LEVEL"
    )]
    log_level: LogLevel,
}

/// Where the admin listener listens unless told otherwise: on this machine only.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Where the admin listener listens, if anywhere.
#[derive(Debug, Clone, Copy)]
struct AdminAddress(Option<SocketAddr>);

fn parse_admin(text: &str) -> Result<AdminAddress, String> {
    if text == "off" {
        return Ok(AdminAddress(None));
    }
    let address = text.parse().map(Some);
    address
        .map(AdminAddress)
        .map_err(|_| "an address and port, as in 127.0.0.1:9090, or off".into())
}

/// What answers that are given again take together, in bytes; nothing where none are.
#[derive(Debug, Clone, Copy)]
struct Reuse(usize);

fn parse_reuse(text: &str) -> Result<Reuse, String> {
    if text == "off" {
        return Ok(Reuse(0));
    }
    let size: Result<ByteSize, _> = text.parse();
    let bytes = size
        .ok()
        .and_then(|size| usize::try_from(size.as_u64()).ok());
    bytes
        .map(Reuse)
        .ok_or_else(|| "a size, as in 4MiB, or off".into())
}

fn parse_pace(text: &str) -> Result<NonZeroU32, String> {
    let size: ByteSize = text.parse()?;
    let bytes = u32::try_from(size.as_u64()).ok().and_then(NonZeroU32::new);
    bytes.ok_or_else(|| "a size below 4GiB and above nothing".into())
}

fn parse_proxy(text: &str) -> Result<IpNet, String> {
    let network = text.parse().ok();
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    network
        .or_else(alone)
        .ok_or_else(|| "an address or a network, as in 10.0.0.0/8".into())
}

fn parse_leak(text: &str) -> Result<Leak, String> {
    match text {
        "token" => Ok(Leak::Token),
        "body" => Ok(Leak::Body),
        "buffer" => Ok(Leak::Buffer),
        _ => Err("token, body or buffer".into()),
    }
}

fn parse_files_at(text: &str) -> Result<FilesAt, String> {
    text.parse().map_err(|error: NotAPath| error.to_string())
}

fn parse_origin(text: &str) -> Result<Origin, String> {
    text.parse().map_err(|error: NotAnOrigin| error.to_string())
}

impl Serve {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let log = Log::start(self.log, self.log_level).context("cannot start the log")?;
        let connection_limits = self.connection_limits();
        connection_limits.check()?;
        let source = match &self.component {
            Some(path) => Source::from_file(path)?,
            None => Source::embedded(),
        };
        raise_open_files();
        let folder = Folder::open(&self.dir)
            .with_context(|| format!("cannot serve the folder {}", self.dir.display()))?
            .with_recheck(self.recheck);
        let memory_bytes = self
            .memory
            .map(|size| bytes(size, "--memory"))
            .transpose()?;
        let mut limits = Limits::default();
        if let Some(memory_bytes) = memory_bytes {
            limits.memory_bytes = memory_bytes;
        }
        limits.request_memory_bytes = bytes(self.request_memory, "--request-memory")?;
        limits.reuse_bytes = self.reuse.0;
        limits.leak = self.leak_drill;
        let config = self.config()?;
        let millpond = Millpond::new(&source, folder, &config, limits)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let served = self.serve(millpond, config.files_at(), connection_limits, &log);
        Ok(match runtime.block_on(served)? {
            Stopped::Softly => ExitCode::SUCCESS,
            Stopped::AtOnce => {
                // What still reads from a disk ends with the process.
                runtime.shutdown_background();
                ExitCode::FAILURE
            }
        })
    }

    fn connection_limits(&self) -> ConnectionLimits {
        let rate = self.client_rate.map(|per_second| Rate {
            per_second,
            burst: self.client_burst.unwrap_or(per_second),
        });
        let mut limits = ConnectionLimits::default();
        limits.stall = self.stall;
        limits.least_bytes_per_second = self.least_rate;
        limits.total = self.total;
        limits.clients.requests = self.client_requests;
        limits.clients.rate = rate;
        limits.clients.pace_bytes_per_second = self.pace;
        limits.clients.trusted_proxies = self.trusted_proxy.clone();
        limits
    }

    async fn serve(
        &self,
        millpond: Millpond,
        files_at: &str,
        limits: ConnectionLimits,
        log: &Log,
    ) -> Result<Stopped> {
        let listener = TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {}", self.listen))?;
        millpond.probe().await?;
        let watch = Watch::start(&millpond, self.watch_every);
        let (stop, stop_at_once) = stop_on_signal()?;
        let admin_address = match self.admin {
            Some(AdminAddress(None)) => None,
            Some(AdminAddress(Some(address))) => {
                let started = self.start_admin(address, &millpond, &watch, &stop, log);
                Some(started.await?)
            }
            // Nobody asked for it, so it is no reason not to serve.
            None => match self.start_admin(ADMIN, &millpond, &watch, &stop, log).await {
                Ok(address) => Some(address),
                Err(error) => {
                    tracing::warn!("{error:#}: going without; --admin names another place");
                    None
                }
            },
        };
        self.report_on_signal(&millpond, &watch)?;
        let announcement =
            self.announcement(&millpond, files_at, listener.local_addr()?, admin_address);
        announce(announcement).context("cannot start a thread")?;
        Ok(tokio::select! {
            () = listener::serve(listener, millpond, limits, stop) => Stopped::Softly,
            () = stop_at_once.cancelled() => Stopped::AtOnce,
        })
    }

    /// The file's configuration, with what was said here put over it.
    fn config(&self) -> Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::from_file(path)?,
            None => Config::default(),
        };
        if let Some(files_at) = &self.files_at {
            config.files_at = Some(files_at.clone());
        }
        if !self.cors_origin.is_empty() {
            config.cors.origins = Some(self.cors_origin.clone());
        }
        if let Some(keys) = signing_keys()? {
            config.signing_keys = keys;
        }
        Ok(config)
    }

    async fn start_admin(
        &self,
        address: SocketAddr,
        millpond: &Millpond,
        watch: &Watch,
        stop: &CancellationToken,
        log: &Log,
    ) -> Result<SocketAddr> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for --admin"))?;
        let address = listener.local_addr()?;
        let mut metrics = Registry::default();
        metrics.register_collector(log.dropped());
        let admin = Admin::with_metrics(metrics, millpond.clone(), watch.clone(), stop.clone());
        tokio::spawn(admin.serve(listener));
        Ok(address)
    }

    /// Writes a report whenever SIGUSR2 comes.
    fn report_on_signal(&self, millpond: &Millpond, watch: &Watch) -> Result<()> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let mut asked =
                signal(SignalKind::user_defined2()).context("cannot wait for SIGUSR2")?;
            let folder = self.reports.clone().unwrap_or_else(std::env::temp_dir);
            let (millpond, watch) = (millpond.clone(), watch.clone());
            tokio::spawn(async move {
                while asked.recv().await.is_some() {
                    let (millpond, watch, folder) =
                        (millpond.clone(), watch.clone(), folder.clone());
                    let written = tokio::task::spawn_blocking(move || {
                        write_report(&millpond, &watch, &folder)
                    });
                    match written.await {
                        Ok(Ok(path)) => {
                            tracing::info!(path = %path.display(), "a report was written");
                        }
                        Ok(Err(error)) => tracing::error!(%error, "no report could be written"),
                        Err(error) => tracing::error!(%error, "no report could be written"),
                    }
                }
            });
        }
        #[cfg(not(unix))]
        let _ = (millpond, watch);
        Ok(())
    }

    /// Says what is served, where, by what and within which limits.
    fn announcement(
        &self,
        millpond: &Millpond,
        files_at: &str,
        address: SocketAddr,
        admin: Option<SocketAddr>,
    ) -> String {
        let url = format!("http://{address}");
        let component = millpond.component();
        let files_at = files_at.trim_end_matches('/');
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
            format!("  memory     {}", millpond.bound()),
            format!("  request    {}", millpond.limits()),
        ];
        if let Some(admin) = admin {
            lines.insert(3, format!("  admin      http://{admin}"));
        }
        if let Some(file) = file_to_try(&self.dir) {
            lines.push(format!("  try        {url}{files_at}/{file}"));
        }
        lines.join("\n") + "\n"
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

/// How serving came to its end.
enum Stopped {
    /// Running answers were let end.
    Softly,
    /// They were not.
    AtOnce,
}

/// Two tokens: one that is cancelled by the first Ctrl-C or SIGTERM, and one by the second.
fn stop_on_signal() -> Result<(CancellationToken, CancellationToken)> {
    let (stop, at_once) = (CancellationToken::new(), CancellationToken::new());
    let tokens = (stop.clone(), at_once.clone());
    let mut signals = Signals::new().context("cannot wait for signals")?;
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("stopping: running answers are let end");
        stop.cancel();
        signals.next().await;
        tracing::warn!("stopping at once");
        at_once.cancel();
    });
    Ok(tokens)
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

/// Raises the limit of open files as far as it goes: it is one of the things that bound connections.
fn raise_open_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // Where it may not be raised, it stays.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        );
    }
}
