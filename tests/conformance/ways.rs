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
use tokio::net::TcpStream;

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
        read(self.millpond.serve(request.to_http()).await).await
    }
}

/// Hosts under test, one for each path that named files are served at, each with one connection that is kept
/// from request to request: what one answer leaves behind would spoil the next.
pub(crate) struct Hosts<'a> {
    fixtures: &'a Fixtures,
    at: BTreeMap<String, Connected>,
}

struct Connected {
    host: Host,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl<'a> Hosts<'a> {
    pub(crate) fn new(fixtures: &'a Fixtures) -> Self {
        let at = BTreeMap::new();
        Hosts { fixtures, at }
    }

    pub(crate) async fn ask(&mut self, files_at: &str, request: &Request) -> Response {
        if !self.at.contains_key(files_at) {
            let setup = Setup {
                // A setup has one for ever; the table knows a handful.
                files_at: files_at.to_owned().leak(),
                ..Setup::default()
            };
            let host = Host::start_with(setup).await;
            self.fixtures.put_into(host.folder.path());
            let connected = Connected { host, sender: None };
            self.at.insert(files_at.to_owned(), connected);
        }
        let connected = self.at.get_mut(files_at).unwrap();
        let mut request = request.to_http();
        let host = http::HeaderValue::from_static("millpond.test");
        request.headers_mut().insert(http::header::HOST, host);
        let sender = connected.sender().await;
        read(sender.send_request(request).await.unwrap()).await
    }
}

impl Connected {
    /// The connection, made anew where the host has closed it, as it may after any answer.
    async fn sender(&mut self) -> &mut SendRequest<Empty<Bytes>> {
        let is_open = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !is_open {
            let stream = TcpStream::connect(self.host.address).await.unwrap();
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
async fn read<B>(response: http::Response<B>) -> Response
where
    B: http_body::Body<Data: Send, Error: std::fmt::Debug>,
{
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    let fields = head.headers.iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.as_bytes()));
    Response::new(head.status.as_u16(), fields, body)
}
