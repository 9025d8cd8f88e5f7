//! `millpond serve`.

use crate::admin_token::admin_token;
use crate::certificate;
use crate::common::{RequestMemory, bytes, readable, signing_keys};
use crate::hints;
use crate::listen::{BoundAddress, Host, ListenAddress};
use crate::log::{Log, LogFormat, LogLevel, announce};
use crate::memory::memory_bytes;
use crate::notices;
use crate::signals::{SignalStream, Signals};
use anyhow::{Context, Result, ensure};
use bytesize::ByteSize;
use clap::Args;
use millpond::config::{Config, MountPath, Origin};
use millpond::monitor::Monitor;
use millpond::store::Folder;
use millpond::{Limits, Millpond, Source};
use millpond_server::admin::{Admin, AdminToken, write_report};
use millpond_server::tls::Certificate;
use millpond_server::{ConnectionLimits, IpNet, Listener, Rate, Server};
use prometheus_client::registry::Registry;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Folder to serve. Files are served by name, and media added with `millpond add` by content.
    #[arg(value_name = "DIR", default_value = ".", env = "MILLPOND_DIR")]
    dir: PathBuf,

    /// Address to listen on: HOST:PORT, :PORT for all addresses, PORT for 127.0.0.1, or unix:PATH. Repeat the option
    /// or separate addresses with commas. Port 0 takes a free port, which is printed.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        env = "MILLPOND_LISTEN",
        value_parser = list(parse::<ListenAddress>)
    )]
    listen: Vec<List<ListenAddress>>,

    /// Certificate chain in PEM; turns on HTTPS. The certificate and its key are read again when they change, and on
    /// SIGHUP.
    #[arg(
        long,
        value_name = "FILE",
        env = "MILLPOND_TLS_CERT",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM.
    #[arg(
        long,
        value_name = "FILE",
        env = "MILLPOND_TLS_KEY",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,

    /// Configuration file in TOML. Options of the command line take precedence over it.
    #[arg(long, value_name = "FILE", env = "MILLPOND_CONFIG")]
    config: Option<PathBuf>,

    /// Path under which named files are served; `/` for the root [default: /media].
    #[arg(long, value_name = "PATH", env = "MILLPOND_MOUNT_PATH", value_parser = parse::<MountPath>)]
    mount_path: Option<MountPath>,

    /// Origin whose pages may read responses, as in https://a.example. Repeat the option or separate origins with
    /// commas [default: all origins].
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "MILLPOND_CORS_ORIGIN",
        value_parser = list(parse::<Origin>)
    )]
    cors_origin: Vec<List<Origin>>,

    /// Component that answers the requests [default: the embedded one].
    #[arg(long, value_name = "FILE", env = "MILLPOND_COMPONENT")]
    component: Option<PathBuf>,

    /// Maximum memory of the process, kernel included [default: a quarter of the machine or control group, half of a
    /// small one, 4GiB at most].
    #[arg(long, value_name = "SIZE", env = "MILLPOND_MEMORY_LIMIT")]
    memory_limit: Option<ByteSize>,

    #[command(flatten)]
    request_memory: RequestMemory,

    /// Maximum size of the response cache. `off` runs the component for every request.
    #[arg(
        long,
        value_name = "SIZE|off",
        default_value = "4MiB",
        env = "MILLPOND_RESPONSE_CACHE",
        value_parser = or_off(parse_size)
    )]
    response_cache: OrOff<usize>,

    /// Time for which a cached open file is used without a check for changes. 0s checks for every request.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10ms",
        env = "MILLPOND_OPEN_FILE_CACHE_VALID",
        value_parser = humantime::parse_duration
    )]
    open_file_cache_valid: Duration,

    /// Address of the admin listener, which serves the dashboard, `/metrics`, `/memory`, `/requests`, `/healthz` and
    /// `/readyz`. `off` turns it off [default: 127.0.0.1:8079, or off if that is taken].
    #[arg(long, value_name = "ADDR|off", env = "MILLPOND_ADMIN", value_parser = or_off(parse_tcp))]
    admin: Option<OrOff<ListenAddress>>,

    /// File with the token that requests to the admin listener need. An address that other machines reach requires one.
    /// MILLPOND_ADMIN_TOKEN sets the token itself.
    #[arg(long, value_name = "FILE", env = "MILLPOND_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,

    /// Interval over which a client's rate is measured. A client that takes less than --min-send-rate is disconnected.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "2m",
        env = "MILLPOND_SEND_TIMEOUT",
        value_parser = parse_time
    )]
    send_timeout: Duration,

    /// Minimum bytes per second that a client has to take of a response.
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "1024",
        env = "MILLPOND_MIN_SEND_RATE"
    )]
    min_send_rate: u32,

    /// Maximum time from the end of a request to the end of its response. `off` sets no maximum.
    #[arg(
        long,
        value_name = "TIME|off",
        default_value = "off",
        env = "MILLPOND_RESPONSE_TIMEOUT",
        value_parser = or_off(parse_time)
    )]
    response_timeout: OrOff<Duration>,

    /// Time that in-flight responses get to finish after SIGTERM or Ctrl-C. A second signal ends them at once.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        env = "MILLPOND_SHUTDOWN_GRACE",
        value_parser = humantime::parse_duration
    )]
    shutdown_grace: Duration,

    /// Maximum number of requests in flight for each client, an IPv4 address or an IPv6 /64 [default: no limit].
    #[arg(long, value_name = "COUNT", env = "MILLPOND_CLIENT_CONCURRENCY")]
    client_concurrency: Option<NonZeroU32>,

    /// Maximum requests per second for each client [default: no limit].
    #[arg(long, value_name = "COUNT", env = "MILLPOND_CLIENT_RATE")]
    client_rate: Option<NonZeroU32>,

    /// Maximum number of requests that a client may send at once after a pause [default: the client rate].
    #[arg(
        long,
        value_name = "COUNT",
        env = "MILLPOND_CLIENT_BURST",
        requires = "client_rate"
    )]
    client_burst: Option<NonZeroU32>,

    /// Maximum bytes per second for each response, as in 2MiB [default: no limit]. It has to be at least twice
    /// --min-send-rate.
    #[arg(long, value_name = "SIZE", env = "MILLPOND_LIMIT_RATE", value_parser = parse_limit_rate)]
    limit_rate: Option<NonZeroU32>,

    /// Trusted proxy, whose `Forwarded` or `X-Forwarded-For` identifies the client. Repeat the option or separate
    /// proxies with commas. A proxy on a UNIX domain socket is 127.0.0.1.
    #[arg(long, value_name = "CIDR", env = "MILLPOND_TRUSTED_PROXY", value_parser = list(parse_proxy))]
    trusted_proxy: Vec<List<IpNet>>,

    /// Directory for the reports that SIGUSR2 asks for [default: the system's directory for temporary files].
    #[arg(long, value_name = "DIR", env = "MILLPOND_REPORT_DIR")]
    report_dir: Option<PathBuf>,

    /// Interval between two samples of the memory monitor.
    #[arg(long, hide = true, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    sample_interval: Duration,

    /// Format of the log, which goes to standard error.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        env = "MILLPOND_LOG_FORMAT"
    )]
    log_format: LogFormat,

    /// Lowest level that is logged.
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "MILLPOND_LOG_LEVEL"
    )]
    log_level: LogLevel,
}

/// Default address of the admin listener: local, on a port that IANA has not assigned. Port 9090 is Prometheus's, and
/// those up to 9999 are its exporters'.
const ADMIN: ListenAddress = ListenAddress::Tcp {
    host: Host::One(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    port: 8079,
};

/// Value of an option, or `off`.
#[derive(Debug, Clone)]
struct OrOff<T>(Option<T>);

/// Parses a value, or `off`.
fn or_off<T>(
    parse: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<OrOff<T>, String> + Clone {
    move |text| match text {
        "off" => Ok(OrOff(None)),
        _ => parse(text)
            .map(|value| OrOff(Some(value)))
            .map_err(|error| format!("{error}, or off")),
    }
}

fn parse_tcp(text: &str) -> Result<ListenAddress, String> {
    match text.parse() {
        Ok(address @ ListenAddress::Tcp { .. }) => Ok(address),
        _ => Err("an address and port is needed, as in 127.0.0.1:8079".into()),
    }
}

/// Values of one option. An environment variable has to contain all of them.
#[derive(Debug, Clone)]
struct List<T>(Vec<T>);

/// Parses values separated by commas or spaces.
fn list<T>(
    parse: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<List<T>, String> + Clone {
    move |text| {
        let values = text.split(|c: char| c == ',' || c.is_ascii_whitespace());
        let values = values.filter(|value| !value.is_empty());
        let values = values.map(|value| parse(value).map_err(|error| format!("{value}: {error}")));
        values.collect::<Result<_, _>>().map(List)
    }
}

fn all<T: Clone>(lists: &[List<T>]) -> Vec<T> {
    lists.iter().flat_map(|list| list.0.clone()).collect()
}

/// Parses a time above zero.
fn parse_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() {
        return Err("it would end every response: a time above zero is needed, as in 30s".into());
    }
    Ok(time)
}

/// Parses a size, in bytes.
fn parse_size(text: &str) -> Result<usize, String> {
    let size: Option<ByteSize> = text.parse().ok();
    let bytes = size.and_then(|size| usize::try_from(size.as_u64()).ok());
    bytes.ok_or_else(|| "a size is needed, as in 4MiB".into())
}

fn parse_limit_rate(text: &str) -> Result<NonZeroU32, String> {
    let size: ByteSize = text.parse()?;
    let bytes = u32::try_from(size.as_u64()).ok().and_then(NonZeroU32::new);
    bytes.ok_or_else(|| "a size above zero and below 4GiB is needed".into())
}

fn parse_proxy(text: &str) -> Result<IpNet, String> {
    let network = text.parse().ok();
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    network
        .or_else(alone)
        .ok_or_else(|| "an address or a network is needed, as in 10.0.0.0/8".into())
}

fn parse<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

impl Serve {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let log = Log::start(self.log_format, self.log_level).context("cannot start the log")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let shutdown = runtime.block_on(Arc::new(self).start(&log));
        // The process ends a read that hangs.
        match &shutdown {
            Ok(Shutdown::Graceful) => runtime.shutdown_timeout(BLOCKING_GRACE),
            Ok(Shutdown::Immediate) | Err(_) => runtime.shutdown_background(),
        }
        Ok(match shutdown? {
            Shutdown::Graceful => ExitCode::SUCCESS,
            Shutdown::Immediate => ExitCode::FAILURE,
        })
    }

    /// Prepares the server, and serves until a signal ends it.
    async fn start(self: Arc<Self>, log: &Log) -> Result<Shutdown> {
        // Signals are handled from the beginning, because the rest of the start takes a while.
        let signals = Signals::take().context("cannot wait for signals")?;
        let serve = Arc::clone(&self);
        let prepared = tokio::task::spawn_blocking(move || serve.prepare());
        let prepared = tokio::select! {
            prepared = prepared => prepared.context("cannot start")??,
            () = signals.stop.cancelled() => return Ok(Shutdown::Graceful),
        };
        self.serve(prepared, signals, log).await
    }

    /// Reads and makes everything before the listeners. It blocks, because compiling a component may take seconds.
    fn prepare(&self) -> Result<PreparedServer> {
        let limits = self.connection_limits();
        limits.check().map_err(hints::of_limit_rate)?;
        let source = match &self.component {
            Some(path) => Source::from_file(path)?,
            None => Source::embedded(),
        };
        let certificate = self.certificate()?;
        let admin_token = admin_token(self.admin_token_file.as_deref())?;
        raise_open_files();
        let folder = Folder::open(&self.dir)
            .with_context(|| format!("cannot serve the folder {}", self.dir.display()))?
            .with_open_file_cache_valid(self.open_file_cache_valid);
        if let Some(folder) = &self.report_dir {
            check_reports(folder)?;
        }
        let config = self.config()?;
        let limits_of_requests = self.limits()?;
        notices::of_memory(limits_of_requests.memory_bytes);
        let millpond = Millpond::new(&source, folder, &config, limits_of_requests);
        let millpond = millpond.map_err(hints::of_component)?;
        notices::of_open_files(millpond.memory_plan());
        notices::of_private_media(&self.dir, &config);
        Ok(PreparedServer {
            millpond,
            mount_path: config.mount_path().to_owned(),
            certificate,
            admin_token,
            limits,
        })
    }

    fn limits(&self) -> Result<Limits> {
        let mut limits = Limits::default();
        limits.memory_bytes = match self.memory_limit {
            Some(memory) => bytes(memory, "--memory-limit")?,
            None => memory_bytes(),
        };
        limits.request_memory_bytes = self.request_memory.bytes()?;
        limits.response_cache_bytes = self.response_cache.0.unwrap_or(0);
        Ok(limits)
    }

    fn connection_limits(&self) -> ConnectionLimits {
        let rate = self.client_rate.map(|per_second| Rate {
            per_second,
            burst: self.client_burst.unwrap_or(per_second),
        });
        let mut limits = ConnectionLimits::default();
        limits.send_timeout = self.send_timeout;
        limits.min_send_bytes_per_second = self.min_send_rate;
        limits.response_timeout = self.response_timeout.0;
        limits.shutdown_grace = self.shutdown_grace;
        limits.clients.concurrency = self.client_concurrency;
        limits.clients.rate = rate;
        limits.clients.limit_rate_bytes_per_second = self.limit_rate;
        limits.clients.trusted_proxies = all(&self.trusted_proxy);
        limits
    }

    fn certificate(&self) -> Result<Option<Certificate>> {
        let files = self.tls_cert.as_deref().zip(self.tls_key.as_deref());
        let certificate = files.map(|(certificate, key)| Certificate::from_files(certificate, key));
        Ok(certificate.transpose()?)
    }

    async fn serve(
        &self,
        prepared: PreparedServer,
        signals: Signals,
        log: &Log,
    ) -> Result<Shutdown> {
        let PreparedServer {
            millpond,
            mount_path,
            certificate,
            admin_token,
            limits,
        } = prepared;
        let Signals {
            stop,
            stop_at_once,
            reload,
            report,
        } = signals;
        let (listeners, bound_addresses) = self.listen().await?;
        millpond.probe().await?;
        let server = Server::new(millpond);
        let millpond = server.millpond();
        let monitor = Monitor::start(server.clone(), self.sample_interval);
        // Without the listener nobody reads the histograms, so none are made.
        let admin = || {
            let mut metrics = Registry::default();
            metrics.register_collector(log.dropped_lines_collector());
            let mut admin = Admin::new(metrics, millpond.clone(), monitor.clone(), stop.clone());
            if let Some(token) = admin_token {
                admin = admin.with_token(token);
            }
            if let Some(certificate) = &certificate {
                admin = admin.with_certificate(certificate.clone());
            }
            admin
        };
        let admin_address = match &self.admin {
            Some(OrOff(None)) => None,
            Some(OrOff(Some(address))) => Some(start_admin(admin(), address).await?),
            // The default admin listener is optional.
            None => match start_admin(admin(), &ADMIN).await {
                Ok(address) => Some(address),
                Err(error) => {
                    tracing::warn!(
                        "{error:#}: continuing without an admin listener; --admin sets another address"
                    );
                    None
                }
            },
        };
        let announcement =
            self.announcement(millpond, &mount_path, &bound_addresses, admin_address);
        self.report_on_signal(millpond, &monitor, report);
        certificate::follow(certificate.clone(), reload);
        announce(announcement).context("cannot start a thread")?;
        let served = async {
            let stop = stop.clone();
            match certificate {
                Some(certificate) => {
                    let served = server.serve_tls(listeners, certificate, limits, stop);
                    served.await;
                }
                None => server.serve(listeners, limits, stop).await,
            }
        };
        Ok(tokio::select! {
            () = served => Shutdown::Graceful,
            () = stop_at_once.cancelled() => Shutdown::Immediate,
        })
    }

    /// Returns the configuration of the file, overridden by the options.
    fn config(&self) -> Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::from_file(path)?,
            None => Config::default(),
        };
        if let Some(mount_path) = &self.mount_path {
            config.mount_path = Some(mount_path.clone());
        }
        let origins = all(&self.cors_origin);
        if !origins.is_empty() {
            config.cors.origins = Some(origins);
        }
        if let Some(keys) = signing_keys()? {
            config.signing_keys = keys;
        }
        Ok(config)
    }

    /// Binds the listeners, and returns them with their addresses.
    async fn listen(&self) -> Result<(Vec<Listener>, Vec<BoundAddress>)> {
        let addresses = all(&self.listen);
        ensure!(!addresses.is_empty(), "--listen has no address");
        let (mut listeners, mut bound_addresses) = (Vec::new(), Vec::new());
        for address in addresses {
            for bound in address.bind().await? {
                listeners.push(bound.listener);
                bound_addresses.push(bound.address);
            }
        }
        Ok((listeners, bound_addresses))
    }

    /// Writes a report on each SIGUSR2.
    fn report_on_signal(&self, millpond: &Millpond, monitor: &Monitor, mut requests: SignalStream) {
        let folder = self.report_dir.clone().unwrap_or_else(std::env::temp_dir);
        let (millpond, monitor) = (millpond.clone(), monitor.clone());
        tokio::spawn(async move {
            loop {
                requests.next().await;
                let (millpond, monitor, folder) =
                    (millpond.clone(), monitor.clone(), folder.clone());
                let written =
                    tokio::task::spawn_blocking(move || write_report(&millpond, &monitor, &folder));
                match written.await {
                    Ok(Ok(path)) => {
                        tracing::info!(path = %path.display(), "report written");
                    }
                    Ok(Err(error)) => tracing::error!(%error, "cannot write a report"),
                    Err(error) => tracing::error!(%error, "cannot write a report"),
                }
            }
        });
    }

    /// Returns the announcement: addresses, component and limits.
    fn announcement(
        &self,
        millpond: &Millpond,
        mount_path: &str,
        bound_addresses: &[BoundAddress],
        admin: Option<SocketAddr>,
    ) -> String {
        let scheme = if self.tls_cert.is_some() {
            "https"
        } else {
            "http"
        };
        let url_of = |bound: &BoundAddress| match bound {
            BoundAddress::Tcp(address) => format!("{scheme}://{address}"),
            BoundAddress::Unix(file) => format!("unix:{}", file.path.display()),
        };
        let is_tcp = |bound: &&BoundAddress| matches!(bound, BoundAddress::Tcp(_));
        let url = bound_addresses
            .iter()
            .find(is_tcp)
            .map_or(String::new(), url_of);
        let component = millpond.component();
        let mount_path = mount_path.trim_end_matches('/');
        let mut lines = vec![
            format!("millpond {}", env!("CARGO_PKG_VERSION")),
            format!("  serving    {}", self.dir.display()),
            format!("  files      {url}{mount_path}/<path>"),
            format!("  media      {url}/api/media/<id>"),
            format!(
                "  component  {} ({}, sha256 {}…)",
                component.name,
                readable(component.size_bytes as u64),
                &component.sha256[..12],
            ),
            format!("  memory     {}", millpond.memory_plan()),
            format!("  request    {}", millpond.limits()),
        ];
        let listening = bound_addresses.iter().map(url_of);
        let listening = listening.map(|url| format!("  listening  {url}"));
        let admin = admin.map(|admin| format!("  admin      http://{admin}"));
        lines.splice(2..2, listening.chain(admin));
        if let Some(file) = file_to_try(&self.dir) {
            lines.push(format!("  try        {url}{mount_path}/{file}"));
        }
        lines.join("\n") + "\n"
    }
}

/// Binds the admin listener and serves it. Returns its first address.
async fn start_admin(admin: Admin, address: &ListenAddress) -> Result<SocketAddr> {
    let listeners = address.bind_tcp().await.context("--admin")?;
    let addresses = listeners.iter().map(TcpListener::local_addr);
    let addresses: Vec<SocketAddr> = addresses.collect::<Result<_, _>>()?;
    for address in &addresses {
        admin.check(*address).map_err(hints::of_token)?;
    }
    for listener in listeners {
        tokio::spawn(admin.clone().serve(listener));
    }
    let first = addresses.first().copied();
    first.context("--admin has no address")
}

/// Checks at the start that reports can be written.
fn check_reports(folder: &Path) -> Result<()> {
    let written = tempfile::NamedTempFile::new_in(folder);
    // The name of the temporary file would not help.
    let written = written.map_err(|error| std::io::Error::from(error.kind()));
    let written = written.map(drop);
    written.with_context(|| format!("cannot write reports to {}", folder.display()))
}

/// Returns `index.html`, or the first file that a URL can name without encoding.
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

/// Everything that is made before the listeners.
struct PreparedServer {
    millpond: Millpond,
    mount_path: String,
    certificate: Option<Certificate>,
    admin_token: Option<AdminToken>,
    limits: ConnectionLimits,
}

/// End of the server.
enum Shutdown {
    /// The in-flight responses were sent to their ends.
    Graceful,
    /// The in-flight responses were cut.
    Immediate,
}

/// Maximum time to wait for threads that read or write files, after everything else has ended.
const BLOCKING_GRACE: Duration = Duration::from_secs(1);

/// Raises the soft limit of open files to the hard limit. It limits the number of connections.
fn raise_open_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // If it cannot be raised, it stays.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        );
    }
}
