//! Reloading of the settings and of the component, by SIGHUP and by `POST /reload` on the admin listener.
//!
//! A reload reads, checks, compiles and probes everything first. Only then it changes anything, and no step after that
//! can fail.

use crate::common::one_line;
use crate::hints;
use crate::log::{LiveLogLevels, LogLevels};
use crate::sandbox;
use crate::service_manager;
use crate::settings::Setting;
use crate::signals::SignalStream;
use anyhow::{Context, Result, ensure};
use millpond::config::{Config, ConfigError};
use millpond::store::Folder;
use millpond::{Millpond, Replacement, Source};
use millpond_server::tls::Certificate;
use millpond_server::{ConnectionLimits, LiveLimits};
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Options that a running server can change, beside all settings of the component. Others need a restart: sockets,
/// memory, the folder, and the format of the log.
pub(crate) const LIVE: [&str; 15] = [
    "client-burst",
    "client-concurrency",
    "client-rate",
    "component",
    "limit-rate",
    "log-level",
    "min-send-rate",
    "mount-path",
    "open-file-cache-valid",
    "response-timeout",
    "send-timeout",
    "shutdown-grace",
    "tls-cert",
    "tls-key",
    "trusted-proxy",
];

/// Settings that a running server can change, checked.
pub(crate) struct LiveSettings {
    /// All settings, for the comparison with those in use.
    pub(crate) list: Vec<Setting>,
    pub(crate) connection_limits: ConnectionLimits,
    /// Files of the certificate and of its key.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    /// File of the component. `None` is the embedded one.
    pub(crate) component: Option<PathBuf>,
    pub(crate) config: Config,
    pub(crate) log_levels: LogLevels,
    pub(crate) open_file_cache_valid: Duration,
}

/// Parts of a running server that a reload changes.
pub(crate) struct LiveServer {
    pub(crate) millpond: Millpond,
    /// `None` for media of an origin.
    pub(crate) folder: Option<Folder>,
    pub(crate) limits: LiveLimits,
    /// `None` without TLS.
    pub(crate) certificate: Option<Certificate>,
    pub(crate) log_levels: LiveLogLevels,
    /// Whether a sandbox may deny a file that the settings name.
    pub(crate) is_sandboxed: bool,
}

/// Reloads the settings of a running server, one reload at a time.
#[derive(Clone)]
pub(crate) struct Reloader(Arc<ReloaderState>);

struct ReloaderState {
    read: Box<dyn Fn() -> Result<LiveSettings> + Send + Sync>,
    server: LiveServer,
    /// Settings in use.
    running: Mutex<Vec<Setting>>,
}

/// Result of a reload.
#[derive(Debug, Serialize)]
pub(crate) struct ReloadReport {
    /// Settings that have changed.
    changed: Vec<Change>,
    /// Settings whose new values need a restart.
    needs_restart: Vec<Change>,
}

/// A setting with its old and its new value.
#[derive(Debug, Serialize)]
struct Change {
    setting: String,
    old: String,
    new: String,
}

/// Everything that a reload is about to change.
struct PreparedReload {
    settings: LiveSettings,
    certificate: Option<Certificate>,
    replacement: Replacement,
    /// The old and the new component, if they differ.
    components: Option<(String, String)>,
}

impl Reloader {
    /// Creates the reloader of a server. `read` reads the settings again. `running` are those in use.
    pub(crate) fn new(
        server: LiveServer,
        running: Vec<Setting>,
        read: impl Fn() -> Result<LiveSettings> + Send + Sync + 'static,
    ) -> Self {
        Reloader(Arc::new(ReloaderState {
            read: Box::new(read),
            server,
            running: Mutex::new(running),
        }))
    }

    /// Reloads on each SIGHUP, until the runtime ends.
    pub(crate) fn follow(&self, mut sighup: SignalStream) {
        let reloader = self.clone();
        tokio::spawn(async move {
            loop {
                sighup.next().await;
                service_manager::reloading();
                // The outcome is in the log.
                let _ = reloader.reload("SIGHUP").await;
                service_manager::ready();
            }
        });
    }

    /// Reloads for `POST /reload`. Returns the changes as JSON, or the error.
    pub(crate) async fn reload_for_admin(&self) -> Result<Value, Value> {
        match self.reload("POST /reload").await {
            Ok(reloaded) => Ok(json!(reloaded)),
            Err(error) => Err(error_json(&error)),
        }
    }

    /// Reads the settings again, and changes all of them that can change without a restart, or none. Logs a line for
    /// the outcome, and one for the settings that need a restart. `trigger` begins the lines.
    ///
    /// A caller that drops the future does not end the reload.
    async fn reload(&self, trigger: &'static str) -> Result<ReloadReport> {
        let state = Arc::clone(&self.0);
        let reloading = tokio::spawn(async move {
            let mut running = state.running.lock().await;
            let reloaded = state.reload(&mut running).await;
            match &reloaded {
                Ok(reloaded) => reloaded.log(trigger),
                Err(error) => {
                    let error = one_line(error);
                    tracing::error!(
                        %error,
                        "{trigger}: cannot reload; the previous settings and component stay in use"
                    );
                }
            }
            reloaded
        });
        reloading.await.context("the reload ended early")?
    }
}

impl ReloaderState {
    async fn reload(self: &Arc<Self>, running: &mut Vec<Setting>) -> Result<ReloadReport> {
        let state = Arc::clone(self);
        let prepared = tokio::task::spawn_blocking(move || state.prepare());
        let prepared = prepared.await.context("the reload ended early")??;
        let component = &prepared.replacement.component().name;
        let probed = prepared.replacement.probe().await;
        probed.with_context(|| format!("the component {component}"))?;
        Ok(self.apply(prepared, running))
    }

    /// Reads and checks everything, and compiles a new component.
    fn prepare(&self) -> Result<PreparedReload> {
        let settings = (self.read)()?;
        let server = &self.server;
        if server.is_sandboxed {
            let of_certificate = settings
                .certificate
                .iter()
                .flat_map(|(file, key)| [file, key]);
            for file in of_certificate.chain(&settings.component) {
                sandbox::check_readable(file)?;
            }
        }
        let certificate = match (&settings.certificate, &server.certificate) {
            (Some((certificate, key)), Some(_)) => Some(Certificate::from_files(certificate, key)?),
            _ => None,
        };
        let old = server.millpond.component();
        let source = match &settings.component {
            None => Some(Source::embedded()),
            // A pipe that the component came from has nothing more.
            Some(path) if !is_regular(path) && path.display().to_string() == old.name => None,
            Some(path) => {
                check_regular(path)?;
                Some(Source::from_file(path)?)
            }
        };
        let is_new = |source: &Source| old.sha256 != source.sha256() || old.name != source.name;
        let source = source.filter(is_new);
        let components = source.as_ref().map(|source| {
            let shown = |name: &str, sha256: &str| format!("{name} (sha256 {}…)", &sha256[..12]);
            (
                shown(&old.name, &old.sha256),
                shown(&source.name, &source.sha256()),
            )
        });
        let replacement = server.millpond.prepare(source.as_ref(), &settings.config);
        let replacement = replacement.map_err(hints::of_component)?;
        Ok(PreparedReload {
            settings,
            certificate,
            replacement,
            components,
        })
    }

    /// Changes everything that was prepared. No step can fail.
    fn apply(&self, prepared: PreparedReload, running: &mut Vec<Setting>) -> ReloadReport {
        let (server, settings) = (&self.server, prepared.settings);
        let has_tls = prepared.certificate.is_some();
        let is_renewed = match (&prepared.certificate, &server.certificate) {
            (Some(new), Some(current)) => current.replace_with(new),
            _ => false,
        };
        if let Some(folder) = &server.folder {
            folder.set_open_file_cache_valid(settings.open_file_cache_valid);
        }
        if let Err(error) = server.limits.replace(settings.connection_limits) {
            // `read` has checked them.
            tracing::error!(%error, "the limits stay as they are");
        }
        prepared.replacement.install();
        server.log_levels.set(&settings.log_levels);

        let mut reloaded = ReloadReport::compare(running, settings.list, has_tls);
        reloaded
            .changed
            .retain(|change| change.setting != "component");
        if let Some((old, new)) = prepared.components {
            let setting = "component".into();
            reloaded.changed.push(Change { setting, old, new });
        }
        let names_certificate = |change: &Change| change.setting == "tls-cert";
        if is_renewed {
            tracing::info!("certificate reloaded");
        }
        if is_renewed && !reloaded.changed.iter().any(names_certificate) {
            reloaded.changed.push(Change {
                setting: "certificate".into(),
                old: "previous".into(),
                new: "renewed".into(),
            });
        }
        reloaded
    }
}

/// Checks that a file can be read again. Opening a pipe would wait for a writer.
///
/// # Errors
/// The file exists, and is none.
pub(crate) fn check_regular(path: &Path) -> Result<()> {
    ensure!(
        !path.exists() || is_regular(path),
        "{} is not a regular file, so it cannot be read again",
        path.display()
    );
    Ok(())
}

fn is_regular(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// Returns whether a running server can change a setting. Settings of the component have a table before their name.
pub(crate) fn is_live(key: &str, has_tls: bool) -> bool {
    let is_about_tls = key.starts_with("tls-");
    key.contains('.') || (LIVE.contains(&key) && (has_tls || !is_about_tls))
}

impl ReloadReport {
    /// Compares the settings in use with new ones, and notes in `running` those that have changed.
    fn compare(running: &mut Vec<Setting>, news: Vec<Setting>, has_tls: bool) -> Self {
        let (mut changed, mut needs_restart) = (Vec::new(), Vec::new());
        let shown = |setting: Option<&Setting>| setting.map_or("unset".into(), Setting::shown);
        let find = |list: &[Setting], key: &str| list.iter().position(|setting| setting.key == key);
        let is_gone = |setting: &Setting| find(&news, &setting.key).is_none();
        // Keys of tables come and go, such as signing keys.
        for gone in running.extract_if(.., |setting| is_gone(setting)) {
            changed.push(Change {
                old: gone.shown(),
                new: shown(None),
                setting: gone.key,
            });
        }
        for new in news {
            let place = find(running, &new.key);
            let old = place.map(|place| &running[place]);
            if old.is_some_and(|old| old.is_same(&new)) {
                continue;
            }
            let change = Change {
                setting: new.key.clone(),
                old: shown(old),
                new: new.shown(),
            };
            if !is_live(&new.key, has_tls) {
                needs_restart.push(change);
                continue;
            }
            changed.push(change);
            match place {
                Some(place) => running[place] = new,
                None => running.push(new),
            }
        }
        ReloadReport {
            changed,
            needs_restart,
        }
    }

    fn log(&self, trigger: &str) {
        let shown = |changes: &[Change]| {
            let changes: Vec<String> = changes.iter().map(Change::to_string).collect();
            changes.join("; ")
        };
        match self.changed.as_slice() {
            [] => tracing::info!("{trigger}: no setting has changed"),
            changed => tracing::info!("{trigger}: reloaded {}", shown(changed)),
        }
        if !self.needs_restart.is_empty() {
            let waiting = shown(&self.needs_restart);
            tracing::warn!("{trigger}: these settings need a restart: {waiting}");
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} → {}", self.setting, self.old, self.new)
    }
}

/// Returns an error as JSON. The error of a file has its place in fields of their own.
fn error_json(error: &anyhow::Error) -> Value {
    let text = one_line(error);
    match error.downcast_ref::<ConfigError>() {
        Some(ConfigError::Invalid {
            path,
            line,
            field,
            message,
        }) => json!({
            "error": text,
            "file": path.display().to_string(),
            "line": line,
            "field": field,
            "message": message,
        }),
        _ => json!({ "error": text }),
    }
}
