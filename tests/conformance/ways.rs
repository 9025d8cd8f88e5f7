//! Three ways to put a request: to the guest's code, to the component, and to a host over a socket.

use super::exchange::{Request, Response};
use super::fixtures::{Fixtures, Item};
use crate::host::{Host, Setup};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use millpond::store::Folder;
use millpond::{Accounts, Config, Millpond};
use millpond_guest::imports::Imports;
use millpond_guest::message::Part;
use millpond_guest::{answer, message};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Asks the guest's code, compiled for this machine.
pub(crate) fn natively(request: &Request, store: &impl Imports<Object = Item>) -> Response {
    let request = message::Request::of_head(&request.method, &request.target, &request.fields);
    let response = answer::handle(&request, store);
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
    let fields = response.fields.iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.as_bytes()));
    Response::new(response.status.as_u16(), fields, body)
}

/// The component under test, once for each path that it serves named files at.
pub(crate) struct Components<'a> {
    fixtures: &'a Fixtures,
    at: BTreeMap<String, Component>,
}

/// The component under test over a folder with the fixtures, in this process.
pub(crate) struct Component {
    millpond: Millpond,
    _folder: tempfile::TempDir,
}

impl<'a> Components<'a> {
    pub(crate) fn new(fixtures: &'a Fixtures) -> Self {
        let at = BTreeMap::new();
        Components { fixtures, at }
    }

    pub(crate) fn at(&mut self, files_at: &str) -> &Component {
        self.at
            .entry(files_at.to_owned())
            .or_insert_with(|| Component::new(self.fixtures, files_at))
    }
}

impl Component {
    pub(crate) fn new(fixtures: &Fixtures, files_at: &str) -> Self {
        let setup = Setup::default();
        let folder = tempfile::tempdir().unwrap();
        fixtures.put_into(folder.path());
        let mut config = Config::default();
        config.files_at = Some(files_at.parse().unwrap());
        let millpond = Millpond::new(
            &setup.source,
            Folder::open(folder.path()).unwrap(),
            &config,
            setup.limits,
        );
        Component {
            millpond: millpond.unwrap(),
            _folder: folder,
        }
    }

    pub(crate) fn accounts(&self) -> &Accounts {
        self.millpond.accounts()
    }

    pub(crate) async fn ask(&self, request: &Request) -> Response {
        let answer = self.millpond.serve(request.to_http()).await;
        read(answer).await.unwrap()
    }
}

/// Hosts under test, one for each path that named files are served at, each with one connection that is kept
/// from request to request: what one answer leaves behind would spoil the next.
pub(crate) struct Addresses<'a, S, K> {
    fixtures: &'a Fixtures,
    start: S,
    at: BTreeMap<String, Connected<K>>,
}

struct Connected<K> {
    address: SocketAddr,
    _running: K,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl<'a, S, K> Addresses<'a, S, K>
where
    S: AsyncFnMut(&Fixtures, &str) -> (SocketAddr, K),
{
    /// Hosts that `start` starts, over the fixtures and with named files at a path.
    pub(crate) fn new(fixtures: &'a Fixtures, start: S) -> Self {
        let at = BTreeMap::new();
        Addresses {
            fixtures,
            start,
            at,
        }
    }

    /// The answer, or why there is none; the host is then started anew.
    pub(crate) async fn ask(
        &mut self,
        files_at: &str,
        request: &Request,
    ) -> Result<Response, String> {
        if !self.at.contains_key(files_at) {
            let (address, running) = (self.start)(self.fixtures, files_at).await;
            let connected = Connected {
                address,
                _running: running,
                sender: None,
            };
            self.at.insert(files_at.to_owned(), connected);
        }
        // It was put there right above.
        let connected = self.at.get_mut(files_at).unwrap();
        let mut request = request.to_http();
        let host = http::HeaderValue::from_static("millpond.test");
        request.headers_mut().insert(http::header::HOST, host);
        let answer = match timeout(PATIENCE, connected.ask(request)).await {
            Ok(answer) => answer.map_err(|error| format!("no answer: {error:?}")),
            Err(_) => Err("no answer in time".into()),
        };
        if answer.is_err() {
            self.at.remove(files_at);
        }
        answer
    }
}

/// A host that has not answered by then hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host of this project's over the fixtures, in this process.
pub(crate) async fn host(fixtures: &Fixtures, files_at: &str) -> Host {
    let setup = Setup {
        // A setup has one for ever; the table knows a handful.
        files_at: files_at.to_owned().leak(),
        ..Setup::default()
    };
    let host = Host::start_with(setup).await;
    fixtures.put_into(host.folder.path());
    host
}

impl<K> Connected<K> {
    async fn ask(&mut self, request: http::Request<Empty<Bytes>>) -> hyper::Result<Response> {
        let answer = self.sender().await.send_request(request).await?;
        read(answer).await
    }

    /// The connection, made anew where the host has closed it, as it may after any answer.
    async fn sender(&mut self) -> &mut SendRequest<Empty<Bytes>> {
        let is_open = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !is_open {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (sender, task) = handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(task);
            self.sender = Some(sender);
        }
        self.sender.as_mut().unwrap()
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
