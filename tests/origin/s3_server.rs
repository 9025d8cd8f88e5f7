//! An S3 server in this process, over a temporary folder.

use super::record::{Records, RequestRecord};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// The access key that requests have to be signed with.
pub(crate) const ACCESS_KEY_ID: &str = "AKIAMILLPONDTEST";

/// Its secret.
pub(crate) const SECRET_ACCESS_KEY: &str = "millpond/test/secret";

/// The region that the clients sign for. The server takes every one.
pub(crate) const REGION: &str = "us-east-1";

/// An S3 server with buckets addressed by path, on a port of its own and a thread of its own.
pub(crate) struct S3Server {
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
    records: Arc<Records>,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// One that takes requests of [`ACCESS_KEY_ID`] only.
    pub(crate) fn start() -> Self {
        S3Server::start_with(|builder| {
            builder.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        })
    }

    /// One that takes unsigned requests.
    pub(crate) fn start_public() -> Self {
        S3Server::start_with(|_| {})
    }

    fn start_with(change: impl FnOnce(&mut S3ServiceBuilder)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        change(&mut builder);
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = listener.local_addr().unwrap();
        let records: Arc<Records> = Arc::default();
        runtime.spawn(accept(listener, builder.build(), Arc::clone(&records)));
        S3Server {
            address,
            folder,
            records,
            runtime: Some(runtime),
        }
    }

    /// Puts an object into a bucket, which is made if there is none.
    pub(crate) fn put(&self, bucket: &str, key: &str, content: &[u8]) {
        let path = self.folder.path().join(bucket).join(key);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Returns the variables by which the AWS tools and millpond find this server and its key.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
            ("AWS_REGION", REGION.to_owned()),
        ]
    }

    /// Returns all requests so far, in their order.
    pub(crate) fn requests(&self) -> Vec<RequestRecord> {
        self.records.all()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A test may drop the server in a runtime of its own, where no other one can be waited for.
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: std::net::TcpListener, service: S3Service, records: Arc<Records>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let connections = AtomicU64::new(0);
    loop {
        // A client may leave before it is accepted.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let number = connections.fetch_add(1, Ordering::Relaxed);
        let (service, records) = (service.clone(), Arc::clone(&records));
        tokio::spawn(async move {
            let recorded = service_fn(move |request: Request<Incoming>| {
                let (parts, body) = request.into_parts();
                records.add(RequestRecord::new(&parts, number));
                let conditions = parts.headers.clone();
                let service = service.clone();
                let request = Request::from_parts(parts, body.into());
                async move {
                    Ok::<_, s3s::HttpError>(with_conditions(
                        service.call(request).await?,
                        &conditions,
                    ))
                }
            });
            // A client that leaves ends it with an error.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), recorded)
                .await;
        });
    }
}

/// Adds the conditions that S3 knows and `s3s-fs` does not: `If-Match` and `If-None-Match`.
fn with_conditions(mut response: Response<s3s::Body>, request: &HeaderMap) -> Response<s3s::Body> {
    let Some(entity_tag) = response.headers().get("etag").cloned() else {
        return response;
    };
    let is_same = |name| request.get(name).map(|tag| tag == entity_tag || tag == "*");
    let status = if is_same("if-match") == Some(false) {
        StatusCode::PRECONDITION_FAILED
    } else if is_same("if-none-match") == Some(true) {
        StatusCode::NOT_MODIFIED
    } else {
        return response;
    };
    *response.status_mut() = status;
    for name in ["content-length", "content-range"] {
        response.headers_mut().remove(name);
    }
    *response.body_mut() = s3s::Body::empty();
    response
}

#[tokio::test]
async fn an_unsigned_request_is_refused() {
    let server = S3Server::start();
    server.put("media", "a.txt", b"hello");
    let response = crate::client::request(server.address, "GET", "/media/a.txt", &[]).await;
    assert_eq!(response.status, 403);
    assert!(!response.body.ends_with(b"hello"));
}

#[tokio::test]
async fn objects_are_served_whole_and_in_ranges() {
    let server = S3Server::start_public();
    let content = crate::host::noise(100_000);
    server.put("media", "films/a b.mp4", &content);
    let target = "/media/films/a%20b.mp4";
    let get = |fields| crate::client::request(server.address, "GET", target, fields);
    let whole = get(&[]).await;
    assert_eq!((whole.status, whole.whole), (200, true));
    assert_eq!(whole.body, content);
    let part = get(&[("range", "bytes=50000-50099")]).await;
    assert_eq!(part.status, 206);
    assert_eq!(
        part.field("content-range"),
        Some("bytes 50000-50099/100000")
    );
    assert_eq!(part.body, content[50_000..50_100]);
    let head = crate::client::request(server.address, "HEAD", target, &[]).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.field("content-length"), Some("100000"));
    assert_eq!(head.field("etag"), whole.field("etag"));
    let missing = crate::client::request(server.address, "GET", "/media/b", &[]).await;
    assert_eq!(missing.status, 404);
    let methods: Vec<String> = server
        .requests()
        .into_iter()
        .map(|one| one.method)
        .collect();
    assert_eq!(methods, ["GET", "GET", "HEAD", "GET"]);
}

#[tokio::test]
async fn objects_are_served_under_conditions() {
    let server = S3Server::start_public();
    server.put("media", "a.txt", b"hello");
    let get = |fields: Vec<(&'static str, String)>| async move {
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        crate::client::request(server.address, "GET", "/media/a.txt", &fields).await
    };
    let tag = get(Vec::new()).await.field("etag").unwrap().to_owned();
    for (name, value, status) in [
        ("if-match", tag.clone(), 200),
        ("if-match", "\"other\"".to_owned(), 412),
        ("if-none-match", tag.clone(), 304),
        ("if-none-match", "\"other\"".to_owned(), 200),
    ] {
        assert_eq!(get(vec![(name, value)]).await.status, status, "{name}");
    }
}

#[test]
fn the_environment_names_the_server_and_its_key() {
    let server = S3Server::start();
    let environment = server.environment();
    let value = |name| {
        &environment
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap()
            .1
    };
    assert_eq!(
        *value("AWS_ENDPOINT_URL"),
        format!("http://{}", server.address)
    );
    assert_eq!(value("AWS_ACCESS_KEY_ID"), ACCESS_KEY_ID);
    assert_eq!(value("AWS_SECRET_ACCESS_KEY"), SECRET_ACCESS_KEY);
    assert_eq!(value("AWS_REGION"), REGION);
}
