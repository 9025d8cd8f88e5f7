//! Connection of a command to object storage, with the runtime that it runs on.

use anyhow::{Context, Result};
use millpond_origin::{Origin, OriginImporter, OriginOptions, OriginUrl, UploadJournals};
use std::env;
use std::path::PathBuf;
use tokio::runtime::{Builder, Runtime};

/// Maximum number of retries of a request. They take some seconds, so that a short failure of the network does not end a long
/// command.
const RETRIES: usize = 8;

/// Connection to object storage.
pub(crate) struct OriginSession {
    runtime: Runtime,
    importer: OriginImporter,
}

impl OriginSession {
    /// Prepares the connection. Nothing is sent yet.
    pub(crate) fn open(url: &OriginUrl) -> Result<Self> {
        // Connections run on the thread of the runtime, and commands wait on their own.
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        let runtime = runtime.context("cannot start a thread")?;
        let guard = runtime.enter();
        let mut options = OriginOptions::default();
        options.retries = RETRIES;
        let origin = Origin::connect(url, options)?;
        drop(guard);
        let importer = OriginImporter::new(origin)?;
        Ok(OriginSession { runtime, importer })
    }

    /// Importer of the store.
    pub(crate) fn importer(&self) -> &OriginImporter {
        &self.importer
    }

    /// Replaces the importer by one with other settings.
    pub(crate) fn with(self, change: impl FnOnce(OriginImporter) -> OriginImporter) -> Self {
        OriginSession {
            importer: change(self.importer),
            ..self
        }
    }

    /// Waits for a request. Several threads may wait at the same time.
    pub(crate) fn wait<F: Future>(&self, request: F) -> F::Output {
        self.runtime.block_on(request)
    }
}

/// Returns the journals of uploads to an origin, in `$XDG_STATE_HOME/millpond/uploads` or
/// `~/.local/state/millpond/uploads`. The XDG Base Directory Specification ignores relative paths.
pub(crate) fn upload_journals(url: &OriginUrl) -> Result<UploadJournals> {
    let folder = |variable, below| {
        let folder = PathBuf::from(env::var_os(variable)?);
        folder.is_absolute().then(|| folder.join(below))
    };
    let folder = folder("XDG_STATE_HOME", "millpond/uploads")
        .or_else(|| folder("HOME", ".local/state/millpond/uploads"))
        .or_else(|| folder("LOCALAPPDATA", "millpond/uploads"))
        .context("there is no folder for the journals of uploads: set XDG_STATE_HOME")?;
    Ok(UploadJournals::new(&folder, url))
}
