//! `millpond serve`.

use crate::admin_token::admin_token;
#[cfg(feature = "origin")]
use crate::cache_admin;
use crate::certificate;
use crate::common::{RequestMemory, bytes, parse_size, readable};
#[cfg(feature = "origin")]
use crate::doctor::finding::Finding;
use crate::hints;
use crate::listen::{BoundAddress, BoundListener, Host, ListenAddress, PortSharing};
use crate::log::{AccessLogDestination, Log, LogFormat, LogLevels, announce};
use crate::media_location::MediaLocation;
use crate::memory::memory_bytes;
use crate::notices;
#[cfg(feature = "origin")]
use crate::origin::CacheOptions;
use crate::passed_sockets::PassedSockets;
use crate::reload::{LiveServer, LiveSettings, Reloader, check_regular};
use crate::sandbox::{PathAccess, Sandbox, SandboxMode, SandboxRules};
use crate::service_manager;
use crate::settings::ResolvedSettings;
use crate::signals::{SignalStream, Signals};
#[cfg(feature = "otlp")]
use crate::traces::{CollectorUrl, SPAN_QUEUE_BYTES, Scheme, Traces, TracesEndpoint};
use crate::uploads::{UploadOptions, with_uploads};
use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::{ArgMatches, Args};
use millpond::config::{Config, MountPath, WebOrigin};
use millpond::ledger::AccessLog;
use millpond::monitor::Monitor;
use millpond::store::Folder;
use millpond::{Limits, Millpond, Source};
#[cfg(feature = "origin")]
use millpond_origin::OriginStore;
use millpond_server::admin::{Admin, AdminToken, register_certificate, write_report};
use millpond_server::tls::Certificate;
use millpond_server::{ConnectionLimits, IpNet, Listener, Listeners, LiveLimits, Rate, Server};
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
    /// Folder to serve, or the URL of an origin: s3://BUCKET/PREFIX, gs://, az:// or https://. Files are served by name,
    /// and media added with `millpond add` by content.
    #[arg(
        value_name = "DIR|URL",
        default_value = ".",
        env = "MILLPOND_DIR",
        value_parser = MediaLocation::parser()
    )]
    dir: MediaLocation,

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

    /// Share the addresses of --listen and --admin with another server that shares them too (SO_REUSEPORT), for a
    /// restart without downtime.
    #[arg(long, env = "MILLPOND_REUSE_PORT")]
    reuse_port: bool,

    /// Certificate chain in PEM; turns on HTTPS. The certificate and its key are read again when they change, and on
    /// SIGHUP.
    #[arg(long, value_name = "FILE", env = "MILLPOND_TLS_CERT")]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM.
    #[arg(long, value_name = "FILE", env = "MILLPOND_TLS_KEY")]
    tls_key: Option<PathBuf>,

    /// Configuration file in TOML, with any of these options and the settings of the component. Options and variables
    /// take precedence over it. It is read again on SIGHUP.
    #[arg(long, value_name = "FILE", env = "MILLPOND_CONFIG")]
    config: Option<PathBuf>,

    /// Path under which named files are served; `/` for the root [default: /media].
    #[arg(long, value_name = "PATH", env = "MILLPOND_MOUNT_PATH", value_parser = parse::<MountPath>)]
    mount_path: Option<MountPath>,

    /// Whether folders are listed: as pages for browsers, and in JSON for others [default: on].
    #[arg(long, value_name = "on|off", env = "MILLPOND_BROWSE", value_parser = parse_switch)]
    browse: Option<bool>,

    /// Origin whose pages may read responses, as in https://a.example. Repeat the option or separate origins with
    /// commas [default: all origins].
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "MILLPOND_CORS_ORIGIN",
        value_parser = list(parse::<WebOrigin>)
    )]
    cors_origin: Vec<List<WebOrigin>>,

    /// Component that answers the requests [default: the embedded one].
    #[arg(long, value_name = "FILE", env = "MILLPOND_COMPONENT")]
    component: Option<PathBuf>,

    /// Maximum memory of the process, kernel included [default: a quarter of the machine or control group, half of a
    /// small one, 4GiB at most].
    #[arg(long, value_name = "SIZE", env = "MILLPOND_MEMORY_LIMIT", value_parser = parse_size)]
    memory_limit: Option<ByteSize>,

    #[command(flatten)]
    request_memory: RequestMemory,

    /// Maximum size of the response cache. `off` runs the component for every request.
    #[arg(
        long,
        value_name = "SIZE|off",
        default_value = "4MiB",
        env = "MILLPOND_RESPONSE_CACHE",
        value_parser = or_off(parse_usize)
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
    #[arg(long, value_name = "COUNT", env = "MILLPOND_CLIENT_BURST")]
    client_burst: Option<NonZeroU32>,

    /// Maximum bytes per second for each response, as in 2MiB [default: no limit]. It has to be at least twice
    /// --min-send-rate.
    #[arg(long, value_name = "SIZE", env = "MILLPOND_LIMIT_RATE", value_parser = parse_limit_rate)]
    limit_rate: Option<NonZeroU32>,

    /// Trusted proxy, whose `Forwarded` or `X-Forwarded-For` identifies the client. Repeat the option or separate
    /// proxies with commas. A proxy on a UNIX domain socket is 127.0.0.1.
    #[arg(long, value_name = "CIDR", env = "MILLPOND_TRUSTED_PROXY", value_parser = list(parse_proxy))]
    trusted_proxy: Vec<List<IpNet>>,

    #[cfg(feature = "origin")]
    #[command(flatten)]
    cache: CacheOptions,

    #[command(flatten)]
    uploads: UploadOptions,

    /// Directory for the reports that SIGUSR2 asks for [default: the system's directory for temporary files].
    #[arg(long, value_name = "DIR", env = "MILLPOND_REPORT_DIR")]
    report_dir: Option<PathBuf>,

    /// Sandbox of the kernel (Landlock), which lets the server open and reach only what it needs. `auto` uses what the
    /// kernel has, and `on` needs all of it.
    #[arg(
        long,
        value_name = "auto|on|off",
        default_value = "auto",
        env = "MILLPOND_SANDBOX"
    )]
    sandbox: SandboxMode,

    /// Interval between two samples of the memory monitor.
    #[arg(long, hide = true, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    sample_interval: Duration,

    /// File for the lines of requests, which SIGUSR1 opens again. `off` turns them off [default: standard error, with
    /// the rest of the log].
    #[arg(
        long,
        value_name = "FILE|off",
        env = "MILLPOND_ACCESS_LOG",
        value_parser = or_off(parse::<PathBuf>)
    )]
    access_log: Option<OrOff<PathBuf>>,

    /// Format of the log, which goes to standard error.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        env = "MILLPOND_LOG_FORMAT"
    )]
    log_format: LogFormat,

    /// Lowest level that is logged: off, error, warn, info, debug or trace. Targets may have their own, as in
    /// info,millpond_server=debug.
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "MILLPOND_LOG_LEVEL",
        value_parser = parse::<LogLevels>
    )]
    log_level: LogLevels,

    /// Collector of OpenTelemetry that gets a span for each request, by OTLP over HTTP, as in http://127.0.0.1:4318.
    /// `/v1/traces` is appended. Without a URL there are no traces [default: OTEL_EXPORTER_OTLP_ENDPOINT].
    #[cfg(feature = "otlp")]
    #[arg(
        long,
        value_name = "URL",
        env = "MILLPOND_OTLP_ENDPOINT",
        value_parser = parse::<CollectorUrl>
    )]
    otlp_endpoint: Option<CollectorUrl>,
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
fn parse_usize(text: &str) -> Result<usize, String> {
    let bytes = usize::try_from(parse_size(text)?.as_u64());
    bytes.map_err(|_| "it is more than this machine can address".into())
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off is needed".into()),
    }
}

fn parse_limit_rate(text: &str) -> Result<NonZeroU32, String> {
    let size = parse_size(text)?;
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

/// Runs `millpond serve` with these arguments.
pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let passed = PassedSockets::take()?;
    let settings = ResolvedSettings::<Serve>::resolve(matches)?;
    check(&settings)?;
    let serve = &settings.options;
    // Before the first thread, and after everything that names a path is known.
    let sandbox = Sandbox::enter(serve.sandbox, &serve.sandbox_rules(settings.file())?)?;
    #[cfg(feature = "jemalloc")]
    crate::allocator::start_background_threads();
    let log = Log::start(serve.log_format, &serve.log_level, &serve.access_log())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let launch = Launch {
        settings: Arc::new(settings),
        given: matches.clone(),
        passed,
        sandbox,
    };
    launch.sandbox.log();
    #[cfg(feature = "otlp")]
    let traces = launch.settings.options.start_traces()?;
    let outputs = Outputs {
        log: &log,
        #[cfg(feature = "otlp")]
        traces: traces.as_ref(),
    };
    let shutdown = runtime.block_on(launch.start(outputs));
    // The process ends a read that hangs.
    match &shutdown {
        Ok(Shutdown::Graceful) => runtime.shutdown_timeout(BLOCKING_GRACE),
        Ok(Shutdown::Immediate) | Err(_) => runtime.shutdown_background(),
    }
    #[cfg(feature = "otlp")]
    if let (Ok(Shutdown::Graceful), Some(traces)) = (&shutdown, traces) {
        traces.flush();
    }
    Ok(match shutdown? {
        Shutdown::Graceful => ExitCode::SUCCESS,
        Shutdown::Immediate => ExitCode::FAILURE,
    })
}

/// Checks settings that depend on each other.
///
/// # Errors
/// The name of one of them, its place, and what is needed.
pub(crate) fn check(settings: &ResolvedSettings<Serve>) -> Result<()> {
    let serve = &settings.options;
    if all(&serve.listen).is_empty() {
        return Err(settings.invalid("listen", "an address is needed"));
    }
    match (&serve.tls_cert, &serve.tls_key) {
        (Some(_), None) => return Err(settings.invalid("tls-cert", "--tls-key is needed too")),
        (None, Some(_)) => return Err(settings.invalid("tls-key", "--tls-cert is needed too")),
        _ => {}
    }
    if serve.client_burst.is_some() && serve.client_rate.is_none() {
        return Err(settings.invalid("client-burst", "--client-rate is needed too"));
    }
    if serve.uploads.are_on() && serve.dir.folder().is_none() {
        return Err(settings.invalid("uploads", "the origin takes no uploads: serve a folder"));
    }
    let limits = serve.connection_limits().check();
    limits.map_err(|error| settings.invalid("limit-rate", hints::of_limit_rate(error)))?;
    serve.limits().map(drop)
}

/// Returns the settings that a running server can change.
fn live(settings: ResolvedSettings<Serve>) -> Result<LiveSettings> {
    check(&settings)?;
    let serve = settings.options;
    Ok(LiveSettings {
        connection_limits: serve.connection_limits(),
        config: serve.config(&settings.component),
        certificate: serve.tls_cert.zip(serve.tls_key),
        component: serve.component,
        log_levels: serve.log_level.clone(),
        open_file_cache_valid: serve.open_file_cache_valid,
        list: settings.list,
    })
}

/// Destinations of what the server says of its requests.
#[derive(Debug, Clone, Copy)]
struct Outputs<'a> {
    log: &'a Log,
    #[cfg(feature = "otlp")]
    traces: Option<&'a Traces>,
}

impl Outputs<'_> {
    /// Returns the access log, for the registry of a host. With traces, it makes a span of each line.
    fn access_log(&self) -> Arc<dyn AccessLog> {
        #[cfg(feature = "otlp")]
        if let Some(traces) = self.traces {
            return traces.access_log(self.log.queued_access_log());
        }
        self.log.access_log()
    }

    /// Registers the metrics of the log and of the traces.
    fn register(&self, metrics: &mut Registry) {
        metrics.register_collector(self.log.dropped_lines_collector());
        #[cfg(feature = "otlp")]
        if let Some(traces) = self.traces {
            metrics.register_collector(traces.dropped_spans_collector());
        }
    }
}

/// Everything that a server starts with.
struct Launch {
    settings: Arc<ResolvedSettings<Serve>>,
    /// Arguments, for reading the settings again.
    given: ArgMatches,
    passed: PassedSockets,
    sandbox: Sandbox,
}

impl Launch {
    /// Prepares the server, and serves until a signal ends it.
    async fn start(self, outputs: Outputs<'_>) -> Result<Shutdown> {
        // Signals are handled from the beginning, because the rest of the start takes a while.
        let signals = Signals::take(outputs.log.reopener()).context("cannot wait for signals")?;
        let settings = Arc::clone(&self.settings);
        let prepared =
            tokio::task::spawn_blocking(move || settings.options.prepare(&settings.component));
        let prepared = tokio::select! {
            prepared = prepared => prepared.context("cannot start")??,
            () = signals.stop.cancelled() => return Ok(Shutdown::Graceful),
        };
        self.serve(prepared, signals, outputs).await
    }

    async fn serve(
        mut self,
        prepared: PreparedServer,
        signals: Signals,
        outputs: Outputs<'_>,
    ) -> Result<Shutdown> {
        let PreparedServer {
            millpond,
            store,
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
        let serve = &self.settings.options;
        // The listeners come last: connections wait in their queues from then on.
        millpond.probe().await?;
        let admin_listeners = serve.bind_admin(self.passed.admin()?).await?;
        let passed = self.passed.listeners()?;
        let is_passed = !passed.is_empty();
        let bound = if is_passed {
            passed
        } else {
            serve.listen().await?
        };
        let (listeners, bound_addresses): (Vec<Listener>, Vec<BoundAddress>) = bound
            .into_iter()
            .map(|bound| (bound.listener, bound.address))
            .unzip();
        // It is a new host, which has none yet.
        let _ = millpond.registry().set_access_log(outputs.access_log());
        let server = Server::new(millpond);
        let millpond = server.millpond();
        let monitor = Monitor::start(server.clone(), serve.sample_interval);
        let live_server = LiveServer {
            millpond: millpond.clone(),
            folder: match &store {
                OpenStore::Folder(folder) => Some(folder.clone()),
                #[cfg(feature = "origin")]
                OpenStore::Origin(_) => None,
            },
            limits: limits.clone(),
            certificate: certificate.clone(),
            log_levels: outputs.log.live_levels(),
            is_sandboxed: self.sandbox.is_in_force(),
        };
        let given = self.given.clone();
        let reloader = Reloader::new(live_server, self.settings.list.clone(), move || {
            let file = given.get_one::<PathBuf>("config");
            file.map_or(Ok(()), |file| check_regular(file))?;
            live(ResolvedSettings::resolve(&given)?)
        });
        let admin_addresses = admin_listeners.iter().map(TcpListener::local_addr);
        let admin_addresses: Vec<SocketAddr> = admin_addresses.collect::<Result<_, _>>()?;
        // Without the listener nobody reads the histograms, so none are made.
        if !admin_addresses.is_empty() {
            let mut metrics = Registry::default();
            outputs.register(&mut metrics);
            if let Some(certificate) = &certificate {
                register_certificate(&mut metrics, certificate);
            }
            #[cfg(feature = "origin")]
            if let OpenStore::Origin(origin) = &store {
                millpond_origin::register_metrics(&mut metrics, origin);
            }
            let mut admin = Admin::new(metrics, millpond.clone(), monitor.clone(), stop.clone());
            if let Some(token) = admin_token {
                admin = admin.with_token(token);
            }
            if let Some(certificate) = &certificate {
                admin = admin.with_certificate(certificate.clone());
            }
            let for_admin = reloader.clone();
            let admin = admin.with_reload(move || {
                let reloader = for_admin.clone();
                async move { reloader.reload_for_admin().await }
            });
            #[cfg(feature = "origin")]
            let admin = match &store {
                OpenStore::Folder(_) => admin,
                OpenStore::Origin(origin) => {
                    let origin = origin.clone();
                    admin.with_cache(move |request| cache_admin::respond(origin.clone(), request))
                }
            };
            for address in &admin_addresses {
                admin.check(*address).map_err(hints::of_token)?;
            }
            for listener in admin_listeners {
                tokio::spawn(admin.clone().serve(listener));
            }
        }
        let admin_address = admin_addresses.first().copied();
        let announcement =
            serve.announcement(millpond, &mount_path, &bound_addresses, admin_address);
        serve.report_on_signal(millpond, &monitor, report);
        reloader.follow(reload);
        if let Some(certificate) = certificate.clone() {
            certificate::follow(certificate);
        }
        announce(announcement).context("cannot start a thread")?;
        service_manager::ready();
        let listeners = Listeners::from(listeners);
        let listeners = if is_passed {
            listeners.shared()
        } else {
            listeners
        };
        let stopping = stop.clone();
        let served = async {
            match certificate {
                Some(certificate) => {
                    let served = server.serve_tls(listeners, certificate, limits, stop);
                    served.await;
                }
                None => server.serve(listeners, limits, stop).await,
            }
        };
        let told = async {
            stopping.cancelled().await;
            service_manager::stopping();
        };
        Ok(tokio::select! {
            ((), ()) = async { tokio::join!(served, told) } => Shutdown::Graceful,
            () = stop_at_once.cancelled() => Shutdown::Immediate,
        })
    }
}

impl Serve {
    /// Reads and makes everything before the listeners. It blocks, because compiling a component may take seconds.
    fn prepare(&self, component: &Config) -> Result<PreparedServer> {
        let source = match &self.component {
            Some(path) => Source::from_file(path)?,
            None => Source::embedded(),
        };
        let certificate = self.certificate()?;
        let admin_token = admin_token(self.admin_token_file.as_deref())?;
        raise_open_files();
        let limits_of_requests = self.limits()?;
        notices::of_memory(limits_of_requests.memory_bytes);
        let store = self.open_store(limits_of_requests.memory_bytes)?;
        self.check_report_dir().transpose()?;
        let config = self.config(component);
        let millpond = match &store {
            OpenStore::Folder(folder) => {
                let uploads = self.uploads.open(folder)?;
                let millpond = Millpond::new(&source, folder.clone(), &config, limits_of_requests);
                millpond.and_then(|millpond| with_uploads(millpond, uploads))
            }
            #[cfg(feature = "origin")]
            OpenStore::Origin(origin) => {
                Millpond::new(&source, origin.clone(), &config, limits_of_requests)
            }
        };
        let millpond = millpond.map_err(hints::of_component)?;
        notices::of_open_files(millpond.memory_plan());
        if let Some(folder) = self.dir.folder() {
            notices::of_private_media(folder, &config);
        }
        Ok(PreparedServer {
            millpond,
            store,
            mount_path: config.mount_path().to_owned(),
            certificate,
            admin_token,
            limits: self.connection_limits().into(),
        })
    }

    /// Opens the store of the media.
    fn open_store(&self, _memory_bytes: usize) -> Result<OpenStore> {
        match &self.dir {
            MediaLocation::Folder(path) => {
                let folder = Folder::open(path);
                let context = || format!("cannot serve the folder {}", path.display());
                let folder = folder.with_context(context)?;
                let folder = folder.with_open_file_cache_valid(self.open_file_cache_valid);
                Ok(OpenStore::Folder(folder))
            }
            #[cfg(feature = "origin")]
            MediaLocation::Origin(url) => {
                let store = self.cache.open(url, _memory_bytes);
                let store = store.with_context(|| format!("cannot serve {url}"))?;
                Ok(OpenStore::Origin(store))
            }
        }
    }

    /// Limits of the host.
    pub(crate) fn limits(&self) -> Result<Limits> {
        let mut limits = Limits::default();
        limits.memory_bytes = match self.memory_limit {
            Some(memory) => bytes(memory, "--memory-limit")?,
            None => memory_bytes(),
        };
        limits.request_memory_bytes = self.request_memory.bytes()?;
        limits.response_cache_bytes = self.response_cache.0.unwrap_or(0);
        #[cfg(feature = "otlp")]
        if self.traces_endpoint()?.is_some() {
            limits.other_bytes = SPAN_QUEUE_BYTES;
        }
        Ok(limits)
    }

    /// Starts the export of spans, if there is a collector.
    #[cfg(feature = "otlp")]
    fn start_traces(&self) -> Result<Option<Traces>> {
        let scheme = match self.tls_cert {
            Some(_) => Scheme::Https,
            None => Scheme::Http,
        };
        let endpoint = self.traces_endpoint()?;
        let traces = endpoint.map(|endpoint| Traces::start(&endpoint, scheme));
        traces.transpose()
    }

    /// Returns the collector's endpoint for traces, if there is one.
    #[cfg(feature = "otlp")]
    fn traces_endpoint(&self) -> Result<Option<TracesEndpoint>> {
        TracesEndpoint::resolve(self.otlp_endpoint.as_ref())
    }

    fn access_log(&self) -> AccessLogDestination {
        match &self.access_log {
            None => AccessLogDestination::StandardError,
            Some(OrOff(None)) => AccessLogDestination::Off,
            Some(OrOff(Some(path))) => AccessLogDestination::File(path.clone()),
        }
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
        let files = self.certificate_files();
        let certificate = files.map(|(certificate, key)| Certificate::from_files(certificate, key));
        Ok(certificate.transpose()?)
    }

    /// Returns the settings of the component: those of the file, overridden by the options.
    pub(crate) fn config(&self, component: &Config) -> Config {
        let mut config = component.clone();
        config.mount_path.clone_from(&self.mount_path);
        config.browse = self.browse;
        let origins = all(&self.cors_origin);
        if !origins.is_empty() {
            config.cors.origins = Some(origins);
        }
        config
    }

    /// Returns everything that the server opens or reaches after its start.
    fn sandbox_rules(&self, config: Option<&Path>) -> Result<SandboxRules> {
        let mut rules = SandboxRules::default();
        let has_uploads = self.uploads.are_on();
        let of_folder = if has_uploads {
            PathAccess::Tree
        } else {
            PathAccess::Read
        };
        match &self.dir {
            MediaLocation::Folder(folder) => {
                rules.allow_served(folder, of_folder);
                if self.sandbox == SandboxMode::Auto {
                    rules.allow_around(folder);
                }
            }
            #[cfg(feature = "origin")]
            MediaLocation::Origin(url) => self.cache.allow(url, &mut rules)?,
        }
        rules.allow(self.reports(), PathAccess::Files);
        // Without the folder, nothing is stored there.
        if let Ok(folder) = millpond::code_cache_folder() {
            rules.allow(folder, PathAccess::Files);
        }
        if let AccessLogDestination::File(file) = self.access_log() {
            rules.allow_log(&file);
        }
        // These are read again: on SIGHUP, or when they change.
        let (certificate, key) = self.certificate_files().unzip();
        for file in [config, self.component(), certificate, key] {
            file.into_iter()
                .for_each(|file| rules.allow_replaceable(file));
        }
        let tokens = [self.admin_token_file.as_deref(), self.uploads.token_file()];
        for file in tokens.into_iter().flatten() {
            rules.allow(file, PathAccess::Read);
        }
        // A panic names its place in the source.
        if let Ok(program) = std::env::current_exe() {
            rules.allow(program, PathAccess::Read);
        }
        let admin = self.admin_address().map(|(address, _)| address);
        for address in self.listen_addresses().into_iter().chain(admin) {
            match address {
                ListenAddress::Unix(file) => rules.allow_socket(&file),
                ListenAddress::Tcp { host, port } => {
                    rules.bind_ports.push(port);
                    if matches!(host, Host::Named(_)) {
                        rules.allow_names();
                    }
                }
            }
        }
        rules.needs_abstract_sockets = service_manager::is_abstract();
        #[cfg(feature = "otlp")]
        if let Some(endpoint) = self.traces_endpoint()? {
            rules.allow_server(endpoint.port());
        }
        Ok(rules)
    }

    /// Use of the sandbox.
    pub(crate) fn sandbox(&self) -> SandboxMode {
        self.sandbox
    }

    /// Directory for reports.
    fn reports(&self) -> PathBuf {
        self.report_dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// Whether addresses are shared with another process.
    pub(crate) fn sharing(&self) -> PortSharing {
        if self.reuse_port {
            PortSharing::ReusePort
        } else {
            PortSharing::Exclusive
        }
    }

    /// Folder or origin to serve.
    pub(crate) fn location(&self) -> &MediaLocation {
        &self.dir
    }

    /// Checks that the origin answers, if the media is at one.
    #[cfg(feature = "origin")]
    pub(crate) async fn check_origin(&self) -> Option<Finding> {
        match &self.dir {
            MediaLocation::Folder(_) => None,
            MediaLocation::Origin(url) => Some(self.cache.check(url).await),
        }
    }

    /// File of the component. `None` is the embedded one.
    pub(crate) fn component(&self) -> Option<&Path> {
        self.component.as_deref()
    }

    /// Addresses to listen on.
    pub(crate) fn listen_addresses(&self) -> Vec<ListenAddress> {
        all(&self.listen)
    }

    /// Address of the admin listener, and whether the server starts without it.
    pub(crate) fn admin_address(&self) -> Option<(ListenAddress, bool)> {
        match &self.admin {
            Some(OrOff(address)) => Some((address.clone()?, false)),
            None => Some((ADMIN, true)),
        }
    }

    /// Files of the certificate and of its key.
    pub(crate) fn certificate_files(&self) -> Option<(&Path, &Path)> {
        self.tls_cert.as_deref().zip(self.tls_key.as_deref())
    }

    /// Checks that reports can be written, if there is a directory for them.
    pub(crate) fn check_report_dir(&self) -> Option<Result<()>> {
        self.report_dir.as_deref().map(check_reports)
    }

    /// Binds the listeners.
    async fn listen(&self) -> Result<Vec<BoundListener>> {
        let mut bound = Vec::new();
        for address in all(&self.listen) {
            bound.extend(address.bind(self.sharing()).await?);
        }
        Ok(bound)
    }

    /// Returns the sockets of the admin listener: those that were passed, or bound ones. None if it is off.
    async fn bind_admin(&self, passed: Vec<TcpListener>) -> Result<Vec<TcpListener>> {
        let bind = async |address: &ListenAddress| {
            address.bind_tcp(self.sharing()).await.context("--admin")
        };
        match &self.admin {
            _ if !passed.is_empty() => Ok(passed),
            Some(OrOff(None)) => Ok(Vec::new()),
            Some(OrOff(Some(address))) => bind(address).await,
            // The default admin listener is optional.
            None => Ok(bind(&ADMIN).await.unwrap_or_else(|error| {
                tracing::warn!(
                    "{error:#}: continuing without an admin listener; --admin sets another address"
                );
                Vec::new()
            })),
        }
    }

    /// Writes a report on each SIGUSR2.
    fn report_on_signal(&self, millpond: &Millpond, monitor: &Monitor, mut requests: SignalStream) {
        let folder = self.reports();
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
            #[cfg(unix)]
            BoundAddress::PassedUnix(path) => format!("unix:{}", path.display()),
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
            format!("  serving    {}", self.dir),
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
        if let Some(line) = self.uploads.announcement(&url, mount_path) {
            lines.insert(4, line);
        }
        #[cfg(feature = "origin")]
        if let MediaLocation::Origin(url) = &self.dir {
            lines.insert(2, self.cache.announcement(url));
        }
        let listening = bound_addresses.iter().map(url_of);
        let listening = listening.map(|url| format!("  listening  {url}"));
        let admin = admin.map(|admin| format!("  admin      http://{admin}"));
        lines.splice(2..2, listening.chain(admin));
        if self.browse.unwrap_or(true) {
            lines.push(format!("  open       {url}{mount_path}/"));
        } else if let Some(file) = self.dir.folder().and_then(file_to_try) {
            lines.push(format!("  try        {url}{mount_path}/{file}"));
        }
        lines.join("\n") + "\n"
    }
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
    store: OpenStore,
    mount_path: String,
    certificate: Option<Certificate>,
    admin_token: Option<AdminToken>,
    limits: LiveLimits,
}

/// Store of the media.
enum OpenStore {
    Folder(Folder),
    #[cfg(feature = "origin")]
    Origin(OriginStore),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used)]
    use super::*;
    use crate::reload::{LIVE, is_live};
    use crate::settings::{SettingSource, command, key};
    use clap::{Arg, ArgAction};

    /// An example of an option's value in the file, by the name of the value in the help.
    fn example(arg: &Arg) -> &'static str {
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            return "true";
        }
        match arg.get_value_names().unwrap()[0].as_str() {
            "DIR" | "DIR|URL" | "FILE" => "\"/some/where\"",
            "ADDR" | "ADDR|off" => "\"127.0.0.1:1234\"",
            "PATH" => "\"/path\"",
            "ORIGIN" => "[\"https://a.example\", \"https://b.example\"]",
            "SIZE" | "SIZE|off" => "\"16MiB\"",
            "TIME" | "TIME|off" => "\"9s\"",
            "BYTES" | "COUNT" => "123",
            "CIDR" => "[\"10.0.0.0/8\", \"192.0.2.1\"]",
            "FORMAT" => "\"json\"",
            "on|off" | "auto|on|off" => "\"off\"",
            "FILE|off" => "\"/some/where\"",
            "URL" => "\"http://127.0.0.1:4318/\"",
            "LEVEL" => "\"warn,h2=debug\"",
            name => panic!("no example of {name}: add one"),
        }
    }

    #[test]
    fn each_option_can_stand_in_the_file_and_is_read_from_there() {
        let options = command::<Serve>();
        let keys: Vec<_> = options
            .get_arguments()
            .filter_map(|arg| Some((key(arg)?, example(arg))))
            .collect();
        assert!(keys.len() > 25, "{keys:?}");
        // Keys of tables come last.
        let line = |(key, example): &(String, &str)| match key.split_once('.') {
            Some((table, key)) => format!("[{table}]\n{key} = {example}\n"),
            None => format!("{key} = {example}\n"),
        };
        let (tables, plain): (Vec<_>, Vec<_>) = keys.iter().partition(|(key, _)| key.contains('.'));
        let text: String = plain.into_iter().chain(tables).map(line).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let settings = ResolvedSettings::<Serve>::of_file(file.path()).unwrap();
        check(&settings).unwrap();
        for (key, example) in &keys {
            let found = settings.list.iter().find(|setting| setting.key == *key);
            let found = found.unwrap();
            assert!(
                matches!(found.source, SettingSource::File(..)),
                "{key}: {found:?}"
            );
            let plain = |text: &str| text.replace(['[', ']', '"'], "");
            assert_eq!(plain(&found.toml().unwrap()), plain(example), "{key}");
        }
    }

    #[test]
    fn a_setting_that_can_change_is_an_option() {
        let options = command::<Serve>();
        let keys: Vec<_> = options.get_arguments().filter_map(key).collect();
        for live in LIVE {
            assert!(keys.iter().any(|key| key == live), "{live}");
        }
        assert!(is_live("cors.origins", false) && is_live("tls-cert", true));
        assert!(!is_live("tls-cert", false) && !is_live("listen", true));
    }

    #[test]
    fn options_come_before_variables_and_these_before_the_file_and_its_defaults() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "listen = [\"a:1\", \"b:2\"]\nclient-rate = 5\nresponse-cache = \"off\"\n\
                    [cors]\norigins = [\"https://file.example\"]\n";
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap();
        let resolve = |arguments: &[&str]| {
            let arguments = [&["serve", "--config", path], arguments].concat();
            let given = command::<Serve>().try_get_matches_from(arguments).unwrap();
            ResolvedSettings::<Serve>::resolve(&given).unwrap()
        };
        let settings = resolve(&[]);
        assert_eq!(all(&settings.options.listen).len(), 2);
        assert_eq!(settings.options.client_rate, NonZeroU32::new(5));
        assert!(settings.options.response_cache.0.is_none());
        assert_eq!(settings.options.min_send_rate, 1024);
        let config = settings.options.config(&settings.component);
        assert_eq!(
            config.cors.origins.unwrap()[0].to_string(),
            "https://file.example"
        );

        let settings = resolve(&[
            "/dir",
            "--listen",
            "c:3",
            "--cors-origin",
            "https://a.example",
        ]);
        assert_eq!(all(&settings.options.listen).len(), 1);
        assert_eq!(settings.options.dir.folder(), Some(Path::new("/dir")));
        let config = settings.options.config(&settings.component);
        assert_eq!(
            config.cors.origins.unwrap()[0].to_string(),
            "https://a.example"
        );
        let source = |key: &str| {
            let setting = settings.list.iter().find(|setting| setting.key == key);
            setting.unwrap().source.to_string()
        };
        assert_eq!(source("listen"), "--listen");
        assert_eq!(source("dir"), "DIR");
        assert_eq!(source("cors.origins"), "--cors-origin");
        assert_eq!(source("client-rate"), format!("{path}:2"));
        assert_eq!(source("send-timeout"), "default");
    }
}
