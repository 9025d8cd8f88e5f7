//! How each host is started, and what it is known to do otherwise.

use super::outcome::Alive;
use crate::conformance::{self, Settings};
use millpond_format::settings;
use serde_json::json;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, thread};

/// A host to be started.
pub(crate) struct Runtime {
    pub(crate) name: String,
    command: Box<Starts>,
    pub(crate) serves: Serves,
    /// Known differences from the table, each with the reason why the component is not the cause.
    pub(crate) otherwise: &'static [(&'static str, &'static str)],
    /// Reason why clients that leave are known to harm it, if they do.
    pub(crate) harmed_by_leaving: Option<&'static str>,
}

/// Targets that a host serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    All,
    /// Its store has no files by their names.
    MediaByContent,
}

impl Serves {
    pub(crate) fn has(self, target: &str) -> bool {
        self == Serves::All || target.starts_with("/api/media/")
    }
}

/// Returns the command that starts a host over a folder, with settings, and the port if it is chosen before.
type Starts = dyn Fn(&Path, &Settings) -> (Command, Option<u16>) + Send + Sync;

/// A host that runs.
pub(crate) struct Started {
    child: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Runtime {
    pub(crate) fn wasmtime_serve(component: &str, flags: &[&str]) -> Self {
        let path = component_path(component);
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut name = format!("wasmtime serve, {component}");
        for flag in &flags {
            name = format!("{name} {flag}");
        }
        Runtime {
            name,
            command: Box::new(move |folder, settings| {
                let mut command = Command::new(program("wasmtime"));
                command
                    .args(["serve", "--addr", "127.0.0.1:0", "-S", "cli,p3"])
                    .args(["-W", "component-model-async"])
                    .args(&flags)
                    .args(
                        environment(settings).map(|(name, value)| format!("--env={name}={value}")),
                    )
                    .args(["--dir", &format!("{}::/media", folder.display())])
                    .arg(&path);
                (command, None)
            }),
            serves: Serves::All,
            otherwise: &[],
            harmed_by_leaving: None,
        }
    }

    /// This project's own host, with a component for `wasi:http` or with its own.
    pub(crate) fn millpond(component: Option<&str>) -> Self {
        let path = component.map(component_path);
        Runtime {
            name: format!(
                "millpond serve, {}",
                component.unwrap_or("media-serve.wasm")
            ),
            command: Box::new(move |folder, settings| {
                // Hidden files are not served.
                let config = folder.join(".millpond.toml");
                fs::write(&config, conformance::config_toml(settings).to_string()).unwrap();
                let mut command = Command::new(own_program());
                command
                    .args([
                        "serve",
                        "--listen",
                        "127.0.0.1:0",
                        "--admin",
                        "off",
                        "--config",
                    ])
                    .arg(config)
                    .arg(folder);
                if let Some(path) = &path {
                    command.arg("--component").arg(path);
                    command.args(["--request-memory-limit", "3MiB"]);
                }
                (command, None)
            }),
            serves: Serves::All,
            otherwise: &[],
            harmed_by_leaving: None,
        }
    }

    pub(crate) fn jco_serve(flags: &'static [&'static str]) -> Self {
        let mut name = String::from("jco serve, millpond-http-p2.wasm");
        for flag in flags {
            name = format!("{name} {flag}");
        }
        Runtime {
            name,
            command: Box::new(move |folder, settings| {
                let port = free_port();
                let shim = "@bytecodealliance/preview2-shim/dist/nodejs/filesystem.js";
                let shim = root().join("target/hosts/npm/node_modules").join(shim);
                let mut command = Command::new(program("jco"));
                command
                    .args(["serve", "--port", &port.to_string()])
                    .args(flags)
                    .arg("--jco-import")
                    .arg(root().join("tests/hosts/jco.mjs"))
                    .arg(component_path("millpond-http-p2.wasm"))
                    .envs(environment(settings))
                    .env("JCO_FILESYSTEM", shim)
                    .current_dir(folder);
                (command, Some(port))
            }),
            serves: Serves::All,
            otherwise: &OTHERWISE_IN_JCO,
            harmed_by_leaving: Some("it does not respond after a client has disconnected"),
        }
    }

    /// wasmCloud's host, as its command starts one for a component that is built already.
    pub(crate) fn wasmcloud(component: &'static str) -> Self {
        Runtime {
            name: format!("wasmCloud's wash dev, {component}"),
            command: Box::new(move |folder, settings| {
                let volumes = json!([{ "host_path": folder, "guest_path": "/media" }]);
                let environment = environment(settings).collect();
                let command = wash_dev(folder, component, "volumes", volumes, environment);
                (command, None)
            }),
            serves: Serves::All,
            otherwise: &[],
            harmed_by_leaving: None,
        }
    }

    /// The same, with the folder as a container of objects.
    pub(crate) fn wasmcloud_blobstore() -> Self {
        let component = "millpond-http-p2-blobstore.wasm";
        Runtime {
            name: format!("wasmCloud's wash dev, {component}"),
            command: Box::new(move |folder, settings| {
                let (containers, container) = (folder.parent().unwrap(), folder.file_name());
                let container = container.unwrap().to_str().unwrap();
                let mut environment: HashMap<_, _> = environment(settings).collect();
                environment.insert(settings::variable("container"), container);
                let path = json!(containers);
                let command = wash_dev(folder, component, "wasi_blobstore_path", path, environment);
                (command, None)
            }),
            serves: Serves::MediaByContent,
            otherwise: &[],
            harmed_by_leaving: None,
        }
    }

    /// The package for Node, in `plugins/node`.
    pub(crate) fn node() -> Self {
        Runtime {
            name: "node:http, the package millpond".into(),
            command: Box::new(|folder, settings| {
                let mut command = Command::new("node");
                command
                    .arg(root().join("plugins/node/bin/millpond-node.js"))
                    .arg(folder)
                    .args(["--listen", "127.0.0.1:0"])
                    .args(options(settings));
                (command, None)
            }),
            serves: Serves::All,
            otherwise: &REFUSED_BY_NODE,
            harmed_by_leaving: None,
        }
    }

    /// The package for Python, in `plugins/python`.
    pub(crate) fn python() -> Self {
        Runtime {
            name: "uvicorn, the package millpond".into(),
            command: Box::new(|folder, settings| {
                let mut command = Command::new(program("python"));
                command
                    .args(["-m", "millpond"])
                    .arg(folder)
                    .args(["--listen", "127.0.0.1:0"])
                    .args(options(settings));
                (command, None)
            }),
            serves: Serves::All,
            otherwise: &[],
            harmed_by_leaving: None,
        }
    }

    /// Starts it over a folder, and waits until it listens.
    pub(crate) fn start(&self, folder: &Path, settings: &Settings) -> Started {
        use std::os::unix::process::CommandExt;
        let (mut command, port) = (self.command)(folder, settings);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", self.name));
        let (say, said) = mpsc::channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in streams {
            let say = say.clone();
            // Read to the end, so that the host never waits for us.
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = say.send(line);
                }
            });
        }
        drop(say);
        let mut all = String::new();
        let address = loop {
            let Ok(line) = said.recv_timeout(Duration::from_secs(60)) else {
                panic!("{} does not listen: {all}", self.name);
            };
            if let Some(address) = address_in(&line, port) {
                break address;
            }
            all = all + &line + "\n";
        };
        Started {
            child,
            folder: folder.to_owned(),
            address,
        }
    }

    /// Returns the failures that are not known.
    pub(crate) fn unexpected(&self, failures: &[String]) -> Vec<String> {
        let is_known = |failure: &&String| {
            let mut known = self.otherwise.iter();
            !known.any(|(part, _)| failure.contains(part))
        };
        failures.iter().filter(is_known).cloned().collect()
    }
}

/// The address in a line such as `listening on http://127.0.0.1:8080/`.
fn address_in(line: &str, port: Option<u16>) -> Option<SocketAddr> {
    if let Some(port) = port {
        let is_it = line.contains(&port.to_string());
        return is_it.then(|| SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let (_, url) = line.split_once("http://")?;
    let end = url.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
    url[..end.unwrap_or(url.len())].parse().ok()
}

/// wasmCloud's command in a project of its own, which says what the component is given. It tells its address once the
/// component is there.
fn wash_dev(
    folder: &Path,
    component: &str,
    given: &str,
    what: serde_json::Value,
    environment: HashMap<String, &str>,
) -> Command {
    // Hidden files are not served.
    let project = folder.join(".project");
    let config = json!({
        "build": { "command": "true", "component_path": component_path(component) },
        "dev": { "address": format!("127.0.0.1:{}", free_port()), given: what },
        "workload": { "environment": { "config": environment } },
    });
    fs::create_dir_all(project.join(".wash")).unwrap();
    fs::write(project.join(".wash/config.json"), config.to_string()).unwrap();
    let mut command = Command::new(program("wash"));
    command.arg("dev").current_dir(project);
    command
}

/// Settings as the packages' commands are given them.
fn options(settings: &Settings) -> impl Iterator<Item = String> {
    let settings = settings.iter();
    settings.map(|(key, value)| format!("--setting={key}={value}"))
}

/// Settings as the store component reads them.
fn environment(settings: &Settings) -> impl Iterator<Item = (String, &str)> {
    let all = settings.iter();
    all.map(|(key, value)| (settings::variable(key), value.as_str()))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Node's parser knows a list of methods; the connection of any other is closed, at times before its answer is read.
const REFUSED_BY_NODE: [(&str, &str); 3] = [
    (
        "status 400, not 405",
        "Node's parser rejects methods that it does not know",
    ),
    (
        "status 501, not 405",
        "Node's parser rejects methods that it does not know",
    ),
    (
        "no answer: hyper::Error(IncompleteMessage)",
        "and may close their connection without a response",
    ),
];

const OTHERWISE_IN_JCO: [(&str, &str); 7] = [
    REFUSED_BY_NODE[0],
    REFUSED_BY_NODE[1],
    REFUSED_BY_NODE[2],
    ("GET /media/AC", BACKSLASH_IN_JCO),
    ("GET /media?id=AC%5CDC.mp3", BACKSLASH_IN_JCO),
    ("GET /media/folder\\inner.txt", BACKSLASH_IN_JCO),
    ("GET /media/folder%5cinner.txt", BACKSLASH_IN_JCO),
];

/// The store takes a backslash for a separator too, so this leads to nothing that is hidden or outside the folder.
const BACKSLASH_IN_JCO: &str = "jco's file system takes a backslash for a slash";

/// This project's own: the release build that `cargo xtask hosts` names, since its page says how long things take.
fn own_program() -> PathBuf {
    let named = env::var_os("MILLPOND_TEST_PROGRAM");
    named.map_or_else(|| env!("CARGO_BIN_EXE_millpond").into(), PathBuf::from)
}

/// A program that `cargo xtask hosts` has installed, or that is on the path.
fn program(name: &str) -> PathBuf {
    let folder = match name {
        "python" => "venv/bin",
        _ => "bin",
    };
    let installed = installed(folder).join(name);
    match installed.exists() {
        true => installed,
        false => name.into(),
    }
}

/// A folder of what `cargo xtask hosts` has installed.
pub(crate) fn installed(folder: &str) -> PathBuf {
    root().join("target/hosts").join(folder)
}

/// A composed component: the committed one, or the one that CI has built anew.
pub(crate) fn component_path(name: &str) -> PathBuf {
    match env::var_os("MILLPOND_TEST_COMPONENTS") {
        Some(folder) => PathBuf::from(folder).join(name),
        None => root().join("components").join(name),
    }
}

pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

impl Started {
    /// Anonymous memory of the host's processes, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let processes = self.processes().into_iter();
        processes
            .filter_map(|id| {
                let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
                let mut lines = status.lines();
                let line = lines.find_map(|line| line.strip_prefix("RssAnon:"))?;
                let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
                Some(kibibytes * 1024)
            })
            .sum()
    }

    /// Returns the resources that the host holds.
    pub(crate) fn alive(&self) -> Alive {
        let mut alive = Alive {
            memory_bytes: self.memory_bytes(),
            ..Alive::default()
        };
        for id in self.processes() {
            let Ok(files) = fs::read_dir(format!("/proc/{id}/fd")) else {
                continue;
            };
            for file in files.map_while(Result::ok) {
                let Ok(of) = fs::read_link(file.path()) else {
                    continue;
                };
                if of.to_string_lossy().starts_with("socket:") {
                    alive.sockets += 1;
                } else if of.starts_with(&self.folder) && !of.is_dir() {
                    alive.media_files += 1;
                }
            }
        }
        alive
    }

    /// The host's process and those that it has started.
    fn processes(&self) -> Vec<u32> {
        let group = self.child.id();
        let entries = fs::read_dir("/proc").unwrap().map_while(Result::ok);
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(|id: &u32| {
            // `pid (name) state ppid pgrp`, and the name may have anything in it.
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            after_name.split(' ').nth(2) == Some(&group.to_string())
        })
        .collect()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.child);
        // It may have ended by itself.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}
