//! An HTTP/1.1 origin in this process whose faults a test chooses.

use super::flushed_stream::{FlushedStream, Flushes};
use super::object::{Numbers, Object};
use super::record::{Records, RequestRecord, ResponseProgress};
use super::response::{Body, respond, status_only};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The origin, on a port of its own and a thread of its own. It responds right unless an object has faults, and records each
/// request.
pub(crate) struct FaultOrigin {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    /// Holds the port while the origin is down. It never listens, so connections are refused.
    _holder: Socket,
    running: Mutex<Option<Listening>>,
    runtime: Option<Runtime>,
}

/// An origin that is up.
struct Listening {
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Default)]
struct State {
    objects: Mutex<HashMap<String, (Object, Numbers)>>,
    records: Arc<Records>,
    connections: AtomicU64,
}

impl FaultOrigin {
    pub(crate) fn start() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let holder = socket((Ipv4Addr::LOCALHOST, 0).into());
        let origin = FaultOrigin {
            address: holder.local_addr().unwrap().as_socket().unwrap(),
            state: Arc::default(),
            _holder: holder,
            running: Mutex::new(None),
            runtime: Some(runtime),
        };
        origin.up();
        origin
    }

    /// Returns the URL of a path, which begins with `/`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Puts an object at a path, in place of another one. Its requests are counted anew.
    pub(crate) fn put(&self, path: &str, object: Object) {
        let mut objects = self.state.objects.lock().unwrap();
        objects.insert(path.to_owned(), (object, Numbers::default()));
    }

    /// Removes the object at a path. Requests for it get 404 then.
    pub(crate) fn remove(&self, path: &str) {
        self.state.objects.lock().unwrap().remove(path);
    }

    /// Returns all requests so far, in their order.
    pub(crate) fn requests(&self) -> Vec<RequestRecord> {
        self.state.records.all()
    }

    /// Returns the requests for a path so far.
    pub(crate) fn requests_for(&self, path: &str) -> Vec<RequestRecord> {
        let mut requests = self.requests();
        requests.retain(|request| request.path == path);
        requests
    }

    /// Waits, and blocks its thread, until the requests are such.
    pub(crate) fn wait_until(&self, are_such: impl Fn(&[RequestRecord]) -> bool) {
        self.state.records.wait_until(are_such);
    }

    /// Breaks all connections, and refuses new ones until [`up`](Self::up).
    pub(crate) fn down(&self) {
        let Some(running) = self.running.lock().unwrap().take() else {
            return;
        };
        running.stop.cancel();
        running.tasks.close();
        let (sender, receiver) = mpsc::channel();
        self.runtime().spawn(async move {
            running.tasks.wait().await;
            sender.send(()).unwrap();
        });
        receiver.recv().unwrap();
    }

    /// Accepts connections.
    pub(crate) fn up(&self) {
        let mut running = self.running.lock().unwrap();
        if running.is_some() {
            return;
        }
        let listener = socket(self.address);
        listener.listen(4096).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let accepting = accept(
            listener.into(),
            Arc::clone(&self.state),
            stop.clone(),
            tasks.clone(),
        );
        tasks.spawn_on(accepting, self.runtime().handle());
        *running = Some(Listening { stop, tasks });
    }

    fn runtime(&self) -> &Runtime {
        // It is taken by `drop` only.
        self.runtime.as_ref().unwrap()
    }
}

impl Drop for FaultOrigin {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A test may drop the origin in a runtime of its own, where no other one can be waited for.
            runtime.shutdown_background();
        }
    }
}

/// Returns a socket that shares its port with others of this process.
fn socket(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

async fn accept(
    listener: std::net::TcpListener,
    state: Arc<State>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        // A client may leave before it is accepted.
        let Ok((stream, _)) = accepted else { continue };
        let number = state.connections.fetch_add(1, Ordering::Relaxed);
        let (state, stop) = (Arc::clone(&state), stop.clone());
        tasks.spawn(async move {
            let flushes = Flushes::default();
            let stream = FlushedStream {
                stream,
                flushes: flushes.clone(),
            };
            let service = service_fn(move |request| {
                let (state, flushes) = (Arc::clone(&state), flushes.clone());
                async move { state.respond(request, number, flushes).await }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .max_buf_size(64 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // A fault, or a client that leaves, ends it with an error.
                _ = connection => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

impl State {
    async fn respond(
        &self,
        request: Request<Incoming>,
        connection: u64,
        flushes: Flushes,
    ) -> io::Result<http::Response<Body>> {
        let (request, _) = request.into_parts();
        let record = RequestRecord::new(&request, connection);
        let progress = ResponseProgress::of(&record, &self.records, flushes);
        let found = self
            .objects
            .lock()
            .unwrap()
            .get_mut(&record.path)
            .map(|(object, numbers)| {
                numbers.request += 1;
                numbers.get += u64::from(record.method == "GET");
                (object.at(*numbers).clone(), *numbers)
            });
        self.records.add(record);
        let response = match &found {
            Some((object, numbers)) => respond(object, *numbers, &request, progress).await,
            None => Some(status_only(404, None, progress)),
        };
        response.ok_or_else(|| io::Error::other("the test closes the connection"))
    }
}
