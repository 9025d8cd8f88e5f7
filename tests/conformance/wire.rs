//! The wire between a client and a host: HTTP/1.1 or HTTP/2, encrypted or not.

use crate::tls::Identity;
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use millpond_server::tls::Certificate;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How a client speaks.
pub(crate) struct Wire {
    is_http2: bool,
    tls: Option<Identity>,
}

impl Wire {
    pub(crate) fn plain() -> Self {
        Wire {
            is_http2: false,
            tls: None,
        }
    }

    pub(crate) fn http2() -> Self {
        Wire {
            is_http2: true,
            tls: None,
        }
    }

    pub(crate) fn tls() -> Self {
        Wire {
            is_http2: false,
            tls: Some(Identity::new()),
        }
    }

    pub(crate) fn http2_in_tls() -> Self {
        Wire {
            is_http2: true,
            tls: Some(Identity::new()),
        }
    }

    /// Certificate of the host, if the wire is encrypted.
    pub(crate) fn certificate(&self) -> Option<Certificate> {
        self.tls.as_ref().map(Identity::certificate)
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> Sender {
        match &self.tls {
            None => {
                self.handshake(TcpStream::connect(address).await.unwrap())
                    .await
            }
            Some(identity) => {
                let protocol: &[u8] = if self.is_http2 { b"h2" } else { b"http/1.1" };
                let stream = identity.connect(address, &[protocol]).await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
                self.handshake(stream).await
            }
        }
    }

    async fn handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Sender {
        let io = TokioIo::new(stream);
        if self.is_http2 {
            let (sender, task) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(task);
            Sender::Http2(sender)
        } else {
            let (sender, task) = http1::handshake(io).await.unwrap();
            tokio::spawn(task);
            Sender::Http1(sender)
        }
    }
}

/// Sends requests on one connection.
pub(crate) enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Sender {
    pub(crate) async fn is_open(&mut self) -> bool {
        match self {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request in origin-form, with the host where the protocol has it.
    pub(crate) async fn send(
        &mut self,
        mut request: http::Request<Empty<Bytes>>,
    ) -> hyper::Result<http::Response<Incoming>> {
        const HOST: &str = "millpond.test";
        match self {
            Sender::Http1(sender) => {
                let host = HeaderValue::from_static(HOST);
                request.headers_mut().insert(header::HOST, host);
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                let path = request.uri().path_and_query().unwrap().clone();
                *request.uri_mut() = absolute(HOST, path);
                sender.send_request(request).await
            }
        }
    }
}

fn absolute(host: &'static str, path: PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::from_static(host));
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).unwrap()
}
