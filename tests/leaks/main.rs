//! A server that leaks on purpose, so that the tests see the monitor name each leak: `leaks token|body|buffer DIR`.
//!
//! It prints its address and that of its admin listener on the standard output, and its log on the standard error.

#[path = "../../host/cli/src/allocator.rs"]
mod allocator;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use millpond::ledger::{Kind, LedgerHandle};
use millpond::monitor::Monitor;
use millpond::store::{Folder, MediaObject, MediaStore, ObjectKey, OpenError};
use millpond::{Config, Limits, MediaBody, MediaService, Millpond, ResponseBody, Source};
use millpond_server::admin::Admin;
use millpond_server::{ConnectionLimits, Server};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use std::error::Error;
use std::io;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How often the monitor looks: a minute of its looks passes in three seconds.
const PERIOD: Duration = Duration::from_millis(50);

/// Bytes leaked for each response.
const LEAKED_BYTES: usize = 16 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    millpond::heap::install(&allocator::Jemalloc);
    allocator::start_background_threads();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let (Some(leak), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: leaks token|body|buffer DIR".into());
    };
    let leak = match &*leak {
        "token" => Leak::Token,
        "body" => Leak::Body,
        "buffer" => Leak::Buffer,
        other => return Err(format!("no such leak: {other}").into()),
    };
    let folder = Folder::open(folder.as_ref())?;
    let store = LeakingStore { folder, leak };
    let mut limits = Limits::default();
    // The bound is to stop no leak before the monitor has named it.
    limits.memory_bytes = 4 << 30;
    let millpond = Millpond::new(&Source::embedded(), store, &Config::default(), limits)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let admin_listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);
    println!("{address}\nadmin http://{admin_address}");
    let server = Server::new(LeakingService { millpond, leak });
    let watch = Monitor::start(server.clone(), PERIOD);
    let (limits, stop) = (ConnectionLimits::default(), CancellationToken::new());
    let millpond = server.millpond().clone();
    let admin = Admin::new(Registry::default(), millpond, watch, stop.clone());
    tokio::spawn(admin.serve(admin_listener));
    server.serve(listener, limits, stop).await;
    Ok(())
}

#[derive(Clone, Copy)]
enum Leak {
    /// A charge whose token is forgotten.
    Token,
    /// A body that is kept beyond its end.
    Body,
    /// A buffer that grows beside every ledger.
    Buffer,
}

/// A folder that leaks with each object that it opens.
struct LeakingStore {
    folder: Folder,
    leak: Leak,
}

impl MediaStore for LeakingStore {
    async fn open(&self, key: &ObjectKey, ledger: &LedgerHandle) -> Result<MediaObject, OpenError> {
        static BUFFERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
        let object = self.folder.open(key, ledger).await?;
        match self.leak {
            Leak::Token => std::mem::forget(ledger.charge(Kind::Buffers, LEAKED_BYTES)),
            Leak::Body => {}
            Leak::Buffer => {
                let mut buffers = BUFFERS.lock();
                buffers.push(vec![7; LEAKED_BYTES]);
            }
        }
        Ok(object)
    }

    fn folder(&self) -> Option<&Path> {
        self.folder.folder()
    }
}

/// A service that never drops a body, where that is the leak.
#[derive(Clone)]
struct LeakingService {
    millpond: Millpond,
    leak: Leak,
}

impl MediaService for LeakingService {
    type Body = LeakingBody;

    fn millpond(&self) -> &Millpond {
        &self.millpond
    }

    async fn serve(&self, request: Request<()>) -> Response<LeakingBody> {
        let response = self.millpond.serve(request).await;
        response.map(|body| match self.leak {
            Leak::Body => LeakingBody::OpenFileCache(ManuallyDrop::new(body)),
            Leak::Token | Leak::Buffer => LeakingBody::Dropped(body),
        })
    }
}

/// A body that is dropped only if it is to be.
enum LeakingBody {
    Dropped(MediaBody),
    OpenFileCache(ManuallyDrop<MediaBody>),
}

impl LeakingBody {
    fn inner(&mut self) -> &mut MediaBody {
        match self {
            LeakingBody::Dropped(body) => body,
            LeakingBody::OpenFileCache(body) => body,
        }
    }
}

impl Body for LeakingBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(self.inner()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            LeakingBody::Dropped(body) => body.is_end_stream(),
            LeakingBody::OpenFileCache(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            LeakingBody::Dropped(body) => body.size_hint(),
            LeakingBody::OpenFileCache(body) => body.size_hint(),
        }
    }
}

impl ResponseBody for LeakingBody {}
