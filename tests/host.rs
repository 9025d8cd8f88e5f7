//! A host in this process, over a folder of its own, on a port of its own.

use crate::client::Response;
use millpond::store::{ContentId, Folder, Importer};
use millpond::{Config, LedgerRegistry, Limits, MemoryPlan, Millpond, Source, Uploads};
use millpond_server::tls::Certificate;
use millpond_server::{ConnectionLimits, Server};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    millpond: Millpond,
    stop: CancellationToken,
    listener: JoinHandle<()>,
}

/// Options of a host for a test.
pub(crate) struct Setup {
    pub(crate) source: Source,
    pub(crate) mount_path: &'static str,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    pub(crate) connections: ConnectionLimits,
    pub(crate) certificate: Option<Certificate>,
    /// Maximum size of an upload, in bytes. Without one there are none.
    pub(crate) uploads: Option<u64>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            source: component(),
            mount_path: "/media",
            config: Config::default(),
            limits: Limits::default(),
            connections: ConnectionLimits::default(),
            certificate: None,
            uploads: None,
        }
    }
}

/// The default, but for what is changed.
pub(crate) fn with<T: Default>(change: impl FnOnce(&mut T)) -> T {
    let mut value = T::default();
    change(&mut value);
    value
}

/// The component under test: the embedded one, or the one that CI has built anew.
fn component() -> Source {
    match std::env::var_os("MILLPOND_TEST_COMPONENT") {
        Some(path) => Source::from_file(Path::new(&path)).unwrap(),
        None => Source::embedded(),
    }
}

impl Host {
    pub(crate) async fn start() -> Self {
        Host::start_with(Setup::default()).await
    }

    pub(crate) async fn start_with(setup: Setup) -> Self {
        Host::start_over(setup, |folder| folder).await
    }

    /// One that looks at its files for each request.
    pub(crate) async fn start_looking_each_time() -> Self {
        let look_each_time = |folder: Folder| folder.with_open_file_cache_valid(Duration::ZERO);
        Host::start_over(Setup::default(), look_each_time).await
    }

    async fn start_over(setup: Setup, of: impl FnOnce(Folder) -> Folder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = setup.config;
        config.mount_path = Some(setup.mount_path.parse().unwrap());
        let store = of(Folder::open(folder.path()).unwrap());
        let uploads = setup.uploads.map(|max_bytes| {
            let token = crate::uploads::TOKEN.parse().unwrap();
            let uploads = Uploads::new(&store, token).unwrap();
            uploads.with_max_bytes(max_bytes)
        });
        let millpond = Millpond::new(&setup.source, store, &config, setup.limits);
        let mut millpond = millpond.unwrap();
        if let Some(uploads) = uploads {
            millpond = millpond.with_uploads(uploads).unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = Server::new(millpond.clone());
        let (limits, stopped) = (setup.connections, stop.clone());
        let listener = match setup.certificate {
            None => tokio::spawn(async move { served.serve(listener, limits, stopped).await }),
            Some(certificate) => tokio::spawn(async move {
                let served = served.serve_tls(listener, certificate, limits, stopped);
                served.await;
            }),
        };
        Host {
            address,
            folder,
            millpond,
            stop,
            listener,
        }
    }

    /// Puts a named file into the folder.
    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Puts content into the store.
    pub(crate) fn add(&self, content: &[u8]) -> ContentId {
        let source = tempfile::NamedTempFile::new().unwrap();
        fs::write(source.path(), content).unwrap();
        let adder = Importer::open(self.folder.path()).unwrap();
        adder.add(source.path(), |_| ()).unwrap().id
    }

    pub(crate) fn millpond(&self) -> &Millpond {
        &self.millpond
    }

    pub(crate) fn memory_plan(&self) -> &MemoryPlan {
        self.millpond.memory_plan()
    }

    pub(crate) fn cache_bytes(&self) -> usize {
        self.millpond.cache_bytes().total()
    }

    /// Connections that are open, as far as the host has seen them.
    pub(crate) fn live_connections(&self) -> usize {
        self.registry().snapshot().live_connections
    }

    /// Bytes that responses in progress have reserved, with the large windows that connections keep.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.millpond.budget().reserved_bytes()
    }

    pub(crate) fn registry(&self) -> &Arc<LedgerRegistry> {
        self.millpond.registry()
    }

    pub(crate) async fn get(&self, target: &str) -> Response {
        self.request("GET", target, &[]).await
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Response {
        crate::client::request(self.address, method, target, fields).await
    }

    /// Returns the entity tag of a named file, once it is strong. A file has a weak one until its last change is older
    /// than the tick of the file system's clock.
    pub(crate) async fn strong_tag(&self, target: &str) -> String {
        loop {
            let answer = self.request("HEAD", target, &[]).await;
            let tag = answer.field("etag").unwrap();
            if !tag.starts_with("W/") {
                return tag.to_owned();
            }
        }
    }

    /// Stops listening and waits until the last connection has ended.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.listener.await.unwrap();
    }
}

/// Stops the clock of a host and its clients in one thread; only [`let_pass`] advances it. No timer thus expires because the
/// machine is busy. Tokio advances a stopped clock by itself if no task is ready, so a task is always ready.
pub(crate) fn stop_time() {
    tokio::time::pause();
    tokio::spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
}

/// Lets so much time pass, and a moment more: timers are as exact as a millisecond.
pub(crate) async fn let_pass(time: Duration) {
    tokio::time::advance(time + Duration::from_millis(10)).await;
}

/// Lets time pass, little by little, for as long as that takes.
pub(crate) async fn while_time_passes<T>(awaited: impl Future<Output = T>) -> T {
    const STEP: Duration = Duration::from_millis(100);
    let mut awaited = std::pin::pin!(awaited);
    loop {
        tokio::select! {
            biased;
            done = awaited.as_mut() => return done,
            () = let_pass(STEP) => tokio::task::yield_now().await,
        }
    }
}

/// Bytes that differ from place to place, the same in each run.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
