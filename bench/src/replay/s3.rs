//! An S3 server in this process, over a folder: its folders are the buckets.

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

const ACCESS_KEY_ID: &str = "AKIAMILLPONDBENCH";
const SECRET_ACCESS_KEY: &str = "millpond/bench/secret";

/// A server on a thread of its own. Dropped, it ends.
pub(crate) struct S3Server {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// Serves the folders of a folder as buckets.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let files = FileSystem::new(folder).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let service = builder.build();
        runtime.spawn(async move {
            // It was bound and set up above.
            if let Ok(listener) = TcpListener::from_std(listener) {
                accept(listener, service).await;
            }
        });
        Ok(S3Server {
            address,
            runtime: Some(runtime),
        })
    }

    /// Has a command find the server and its key.
    pub(crate) fn tell(&self, command: &mut Command) {
        command
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address))
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
            .env("AWS_REGION", "us-east-1");
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // It may be dropped in another runtime, which must not wait.
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, service: S3Service) {
    loop {
        // A client may leave before it is accepted.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let service = service.clone();
        tokio::spawn(async move {
            // A client that leaves ends it with an error.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
