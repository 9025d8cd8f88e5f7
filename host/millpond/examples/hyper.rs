//! millpond with hyper alone: `cargo run --example hyper -- DIR [ADDR]`.
//!
//! Here the program sees to its connections: how many, how long they idle, how slow a client may be.
//! `millpond_server` does that for a program that wants no more of hyper than this.

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use millpond::store::Folder;
use millpond::{Config, Limits, Millpond, Source};
use std::error::Error;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: hyper DIR [ADDR]")?;
    let address = arguments.next().unwrap_or("127.0.0.1:8080".into());

    let folder = Folder::open(folder.as_ref())?;
    let config = Config::default();
    let millpond = Millpond::new(&Source::embedded(), folder, &config, Limits::default())?;

    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(millpond.clone());
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            // With a timer, a client has thirty seconds for its head.
            http.timer(TokioTimer::new());
            let served = http.serve_connection(TokioIo::new(stream), service).await;
            if let Err(error) = served {
                eprintln!("connection error: {error}");
            }
        });
    }
}
