//! Three ways to put a request: to the guest's code, to the component, and to a host over a socket.

use super::exchange::{Request, Response};
use super::fixtures::{Fixtures, Item};
use super::table::Settings;
use super::wire::{Sender, Wire};
use crate::host::{Host, Setup};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use millpond::store::Folder;
use millpond::{Config, LedgerRegistry, Millpond};
use millpond_guest as guest;
use millpond_guest::Part;
use millpond_guest::{Imports, Timestamp};
use millpond_server::tls::Certificate;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// Asks the guest's code, compiled for this machine.
pub(crate) fn natively(request: &Request, store: &impl Imports<Object = Item>) -> Response {
    let request = guest::Request {
        received: Timestamp(request.received * 1_000_000_000),
        client: request.client.as_deref(),
        ..guest::Request::from_head(&request.method, &request.target, &request.fields)
    };
    let response = guest::handle(&request, store);
    let mut body = Vec::new();
    for part in &response.body {
        match part {
            Part::Bytes(bytes) => body.extend_from_slice(bytes),
            Part::Stream { source, length } => {
                let length = usize::try_from(*length).unwrap();
                body.extend_from_slice(&source[..length]);
            }
        }
    }
    let fields = response.headers.iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.as_bytes()));
    Response::new(response.status.as_u16(), fields, body)
}

/// The component under test, once for each way that it is set up.
pub(crate) struct Components<'a> {
    fixtures: &'a Fixtures,
    reuse_bytes: usize,
    with: BTreeMap<Settings, Component>,
}

/// The component under test over a folder with the fixtures, in this process.
pub(crate) struct Component {
    millpond: Millpond,
    _folder: tempfile::TempDir,
}

impl<'a> Components<'a> {
    /// Components with a response cache of this size.
    pub(crate) fn new(fixtures: &'a Fixtures, reuse_bytes: usize) -> Self {
        Components {
            fixtures,
            reuse_bytes,
            with: BTreeMap::new(),
        }
    }

    pub(crate) fn with(&mut self, settings: &Settings) -> &Component {
        self.with
            .entry(settings.clone())
            .or_insert_with(|| Component::new(self.fixtures, settings, self.reuse_bytes))
    }
}

impl Component {
    pub(crate) fn new(fixtures: &Fixtures, settings: &Settings, reuse_bytes: usize) -> Self {
        let mut setup = Setup::default();
        setup.limits.response_cache_bytes = reuse_bytes;
        let folder = tempfile::tempdir().unwrap();
        fixtures.put_into(folder.path());
        let millpond = Millpond::new(
            &setup.source,
            Folder::open(folder.path()).unwrap(),
            &config(settings),
            setup.limits,
        );
        Component {
            millpond: millpond.unwrap(),
            _folder: folder,
        }
    }

    pub(crate) fn registry(&self) -> &LedgerRegistry {
        self.millpond.registry()
    }

    pub(crate) async fn ask(&self, request: &Request) -> Response {
        let answer = self.millpond.serve(request.to_http()).await;
        read(answer).await.unwrap()
    }
}

/// The host's own configuration that gives the component those settings.
fn config(settings: &Settings) -> Config {
    config_toml(settings).try_into().unwrap()
}

/// The same, as it is written in a file.
pub(crate) fn config_toml(settings: &Settings) -> toml::Table {
    let text = |text: &str| toml::Value::from(text);
    let seconds = |seconds: &str| text(&format!("{seconds}s"));
    let mut config = toml::Table::new();
    let mut put = |path: [&str; 2], value: toml::Value| {
        let table = config
            .entry(path[0])
            .or_insert_with(|| toml::Table::new().into());
        table.as_table_mut().unwrap().insert(path[1].into(), value);
    };
    for (key, value) in settings {
        match key.as_str() {
            "mount-path" | "browse" => {}
            "cors-origins" => {
                let origins: Vec<_> = value.split_ascii_whitespace().map(text).collect();
                put(["cors", "origins"], origins.into());
            }
            "cors-max-age" => put(["cors", "max-age"], seconds(value)),
            "negative-ttl" => put(["cache", "negative-ttl"], seconds(value)),
            "cache-files" => put(["cache", "files"], text(value)),
            "content-security-policy" => put(["headers", "content-security-policy"], text(value)),
            "cross-origin-resource-policy" => {
                put(["headers", "cross-origin-resource-policy"], text(value))
            }
            "timing-allow-origin" => put(["headers", "timing-allow-origin"], text(value)),
            "signing-keys" => {
                for key in value.split_ascii_whitespace() {
                    let (id, secret) = key.split_once(':').unwrap();
                    put(["signing-keys", id], text(secret));
                }
            }
            other => panic!("no row has needed the setting {other} yet"),
        }
    }
    if let Some(path) = settings.get("mount-path") {
        config.insert("mount-path".into(), text(path));
    }
    if let Some(browse) = settings.get("browse") {
        config.insert("browse".into(), (browse == "on").into());
    }
    config
}

/// Hosts under test, one for each set of settings. Each has one connection for all requests, so that a fault in one response
/// spoils the next.
pub(crate) struct Addresses<'a, S, K> {
    fixtures: &'a Fixtures,
    wire: Wire,
    start: S,
    with: BTreeMap<Settings, Connected<K>>,
}

struct Connected<K> {
    address: SocketAddr,
    _running: K,
    sender: Option<Sender>,
}

impl<'a, S, K> Addresses<'a, S, K>
where
    S: AsyncFnMut(&Fixtures, &Settings) -> (SocketAddr, K),
{
    /// Hosts that `start` starts, over the fixtures and with settings.
    pub(crate) fn new(fixtures: &'a Fixtures, wire: Wire, start: S) -> Self {
        let with = BTreeMap::new();
        Addresses {
            fixtures,
            wire,
            start,
            with,
        }
    }

    /// The answer, or why there is none; the host is then started anew.
    pub(crate) async fn ask(
        &mut self,
        settings: &Settings,
        request: &Request,
    ) -> Result<Response, String> {
        if !self.with.contains_key(settings) {
            let (address, running) = (self.start)(self.fixtures, settings).await;
            let connected = Connected {
                address,
                _running: running,
                sender: None,
            };
            self.with.insert(settings.clone(), connected);
        }
        // It was put there right above.
        let connected = self.with.get_mut(settings).unwrap();
        let answer = connected.ask(&self.wire, request.to_http());
        let answer = match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|error| format!("no answer: {error:?}")),
            Err(_) => Err("no answer in time".into()),
        };
        if answer.is_err() {
            self.with.remove(settings);
        }
        answer
    }
}

/// A host that has not answered by then hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host of this project's over the fixtures, in this process.
pub(crate) async fn host(
    fixtures: &Fixtures,
    settings: &Settings,
    certificate: Option<Certificate>,
) -> Host {
    let config = config(settings);
    let setup = Setup {
        // A setup has one for ever; the table knows a handful.
        mount_path: config.mount_path().to_owned().leak(),
        config,
        certificate,
        ..Setup::default()
    };
    let host = Host::start_with(setup).await;
    fixtures.put_into(host.folder.path());
    host
}

impl<K> Connected<K> {
    async fn ask(
        &mut self,
        wire: &Wire,
        request: http::Request<Empty<Bytes>>,
    ) -> hyper::Result<Response> {
        // Made anew where the host has closed it, as it may after any answer.
        let is_open = match &mut self.sender {
            Some(sender) => sender.is_open().await,
            None => false,
        };
        if !is_open {
            self.sender = Some(wire.connect(self.address).await);
        }
        let sender = self.sender.as_mut().unwrap();
        read(sender.send(request).await?).await
    }
}

impl Request {
    fn to_http(&self) -> http::Request<Empty<Bytes>> {
        let mut request = http::Request::builder()
            .method(self.method.as_str())
            .uri(&self.target);
        for (name, value) in &self.fields {
            request = request.header(name, value.as_slice());
        }
        let request = request.body(Empty::new());
        request.unwrap_or_else(|error| panic!("{self}: {error}"))
    }
}

/// Reads a response to its end, which has to be a good one.
async fn read<B: http_body::Body<Data: Send>>(
    response: http::Response<B>,
) -> Result<Response, B::Error> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes().to_vec();
    let fields = head.headers.iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.as_bytes()));
    Ok(Response::new(head.status.as_u16(), fields, body))
}
