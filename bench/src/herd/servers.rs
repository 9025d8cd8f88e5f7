//! The caches that a herd meets: each is started before the origin, with an empty cache, on a free port.

use crate::cores::on_cores;
use crate::process::{ProcessMemory, Running, cpu_seconds, family, free_address, last_words};
use crate::program::{find, version};
use anyhow::{Context, Result, bail};
use procfs::process::Process;
use serde::Serialize;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A cache, in one of its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cache {
    /// millpond with a cache on disk.
    Millpond,
    /// nginx with `proxy_cache` and `proxy_cache_lock on`.
    Nginx,
    /// The same with `slice 1m`.
    NginxSlice,
    /// Varnish with a cache in memory.
    Varnish,
}

impl Cache {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cache::Millpond => "millpond",
            Cache::Nginx => "nginx, lock",
            Cache::NginxSlice => "nginx, lock and slices",
            Cache::Varnish => "Varnish",
        }
    }
}

/// Where the caches start.
pub(crate) struct Site<'a> {
    pub(crate) millpond: &'a Path,
    pub(crate) origin: SocketAddr,
    pub(crate) cores: &'a [usize],
}

/// A server that accepts connections. Dropped, it is ended.
pub(crate) struct Server {
    running: Running,
    processes: Vec<Process>,
    pub(crate) address: SocketAddr,
    log: PathBuf,
    // Removed after the server has ended, as fields are dropped in their order.
    _scratch: TempDir,
}

/// Maximum time until a server accepts a connection. Varnish compiles its configuration by a C compiler first.
const LONGEST_START: Duration = Duration::from_secs(60);

/// Time between two attempts to connect.
const ATTEMPTS_EVERY: Duration = Duration::from_millis(1);

/// Size of each cache: enough for all objects but the one of ten gigabytes.
const CACHE_MEGABYTES: u64 = 1024;

impl Site<'_> {
    /// Starts a cache of the origin.
    pub(crate) fn start(&self, cache: Cache) -> Result<Server> {
        self.start_command(|address, scratch| match cache {
            Cache::Millpond => Ok(self.millpond_over_origin(address, scratch)),
            Cache::Nginx => self.nginx(address, scratch, ""),
            Cache::NginxSlice => self.nginx(address, scratch, SLICES),
            Cache::Varnish => self.varnish(address, scratch),
        })
    }

    /// Starts millpond over a local folder.
    pub(crate) fn start_over(&self, folder: &Path) -> Result<Server> {
        self.start_command(|address, _| Ok(self.millpond(address, folder.as_os_str().as_ref())))
    }

    fn start_command(
        &self,
        command: impl FnOnce(SocketAddr, &Path) -> Result<Command>,
    ) -> Result<Server> {
        let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
        let address = free_address()?;
        let mut command = command(address, scratch.path())?;
        let log = scratch.path().join("log");
        let file = File::create(&log).context("cannot make a log")?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = on_cores(self.cores, || command.spawn())?;
        let mut running = Running(child.with_context(|| format!("cannot run {command:?}"))?);
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = running.0.try_wait()? {
                bail!("it ended with {status}{}", last_words(&log));
            }
            if began.elapsed() > LONGEST_START {
                bail!("it does not accept connections{}", last_words(&log));
            }
            thread::sleep(ATTEMPTS_EVERY);
        }
        Ok(Server {
            processes: family(running.0.id())?,
            running,
            address,
            log,
            _scratch: scratch,
        })
    }

    /// millpond with its defaults over a folder or a URL.
    fn millpond(&self, address: SocketAddr, media: &Path) -> Command {
        let mut command = Command::new(self.millpond);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"MILLPOND_") {
                command.env_remove(name);
            }
        }
        command
            .arg("serve")
            .arg(media)
            .args(["--listen", &address.to_string()])
            .args(["--admin", "off"]);
        command
    }

    fn millpond_over_origin(&self, address: SocketAddr, scratch: &Path) -> Command {
        let url = format!("http://{}/media", self.origin);
        let mut command = self.millpond(address, url.as_ref());
        command
            .arg("--cache-dir")
            .arg(scratch.join("cache"))
            .args(["--cache-size", &format!("{CACHE_MEGABYTES}MB")]);
        command
    }

    /// Without `open_file_cache`, each response holds a descriptor for each of its slices until its end.
    fn nginx(&self, address: SocketAddr, scratch: &Path, slices: &str) -> Result<Command> {
        let program = find("nginx").context("there is no nginx here")?;
        let path = scratch.join("nginx.conf");
        let (origin, folder) = (self.origin, scratch.display());
        let configuration = format!(
            "daemon off;\nmaster_process off;\nuser root;\npid {folder}/nginx.pid;\nerror_log stderr error;\n\
             events {{ worker_connections 8192; }}\nhttp {{\n\
             access_log {folder}/access.log combined buffer=64k flush=1s;\n\
             sendfile on; tcp_nopush on; tcp_nodelay on;\n\
             open_file_cache max=10000 inactive=60s; open_file_cache_valid 60s;\n\
             keepalive_timeout 600s; keepalive_requests 1000000000;\n\
             client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
             fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n\
             proxy_cache_path {folder}/cache levels=1:2 keys_zone=media:10m max_size={CACHE_MEGABYTES}m \
             inactive=1h use_temp_path=off;\n\
             upstream origin {{ server {origin}; keepalive 64; }}\n\
             server {{ listen {address} backlog=4096;\nlocation / {{\n\
             proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             proxy_cache media; proxy_cache_valid 200 206 1h; proxy_cache_lock on;\n{slices}}} }}\n}}\n"
        );
        fs::write(&path, configuration).context("cannot write nginx.conf")?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&path).arg("-p").arg(scratch);
        Ok(command)
    }

    fn varnish(&self, address: SocketAddr, scratch: &Path) -> Result<Command> {
        let program = find("varnishd").context("there is no varnishd here")?;
        let path = scratch.join("default.vcl");
        let configuration = format!(
            "vcl 4.1;\nbackend default {{ .host = \"{}\"; .port = \"{}\"; }}\n",
            self.origin.ip(),
            self.origin.port()
        );
        fs::write(&path, configuration).context("cannot write default.vcl")?;
        let mut command = Command::new(program);
        command
            .args(["-F", "-j", "none", "-a", &address.to_string()])
            .arg("-f")
            .arg(path)
            .arg("-n")
            .arg(scratch.join("varnish"))
            .args(["-s", &format!("malloc,{CACHE_MEGABYTES}m")]);
        Ok(command)
    }
}

/// nginx's documented way to cache ranges (`ngx_http_slice_module`).
const SLICES: &str = "slice 1m; proxy_cache_key $uri$is_args$args$slice_range; \
                      proxy_set_header Range $slice_range;\n";

impl Server {
    /// CPU time that it has taken so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.processes.iter().map(cpu_seconds).sum()
    }

    /// Memory that its processes hold now, and the peaks of each of them.
    pub(crate) fn memory(&self) -> Result<Vec<ProcessMemory>> {
        let status = |process: &Process| {
            let status = process.status().context("the server's process is gone")?;
            ProcessMemory::of(&status)
        };
        self.processes.iter().map(status).collect()
    }

    /// Returns the last lines that it said.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.log)
    }

    /// # Errors
    /// The server has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.running.0.try_wait()? {
            bail!("it ended with {status}{}", last_words(&self.log));
        }
        Ok(())
    }
}

/// Returns the version that a cache's program prints.
pub(crate) fn version_of(cache: Cache, millpond: &Path) -> Result<String> {
    let of = |name: &str, argument: &str| {
        let program = find(name).with_context(|| format!("there is no {name} here"))?;
        version(&program, argument)
    };
    match cache {
        Cache::Millpond => version(millpond, "--version"),
        Cache::Nginx | Cache::NginxSlice => Ok(of("nginx", "-v")?
            .trim_start_matches("nginx version: ")
            .to_owned()),
        Cache::Varnish => {
            let said = of("varnishd", "-V")?;
            let version = said
                .split_once('(')
                .and_then(|(_, rest)| rest.split_whitespace().next());
            Ok(version.unwrap_or(&said).to_owned())
        }
    }
}
