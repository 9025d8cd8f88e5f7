//! Components of `wasi:http`. They have the same limits as guests of `media-serve`. An instance lives until the end of
//! its response, because it writes the body itself.
//!
//! The component has access to the folder, read-only, as its one preopened directory. It has the settings in its
//! environment and in `wasi:config/store`, clocks, and random numbers, but no network. The host takes one chunk of the
//! body at a time. While the client takes none, the instance does not run.

mod files;
mod state;

use crate::body::ChunkSource;
use crate::config::GuestSettings;
use crate::engine::component::HttpVersion;
use crate::engine::pool::PoolReservation;
use crate::engine::resource_limiter::{FixedCost, InstanceLimiter, LimiterStatus};
use crate::engine::store_limits::limit_of;
use crate::engine::store_limits::{self, CpuBudget};
use crate::error::RequestError;
use crate::head_size::FIELDS_BYTES;
use crate::limits::{Limit, Limits};
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame};
use http_body_util::Empty;
use millpond_format::settings::{SIGNING_KEYS, variable};
use millpond_ledger::{Kind, Ledger, LimitExceeded};
pub(crate) use state::HttpState;
use state::{HTTP_CHUNK_BYTES, Hooks, config};
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Sleep, sleep};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::error::Context as _;
use wasmtime::{Engine, Store};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::{FsPerms, WasiCtx};
use wasmtime_wasi_http::handler::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::{WasiBody, WasiHttpCtx, WasiHttpView};

/// Bytes between component and connection: two chunks that were written, and one in flight. Reads of files are charged
/// separately, one chunk for each stream.
pub(crate) const HTTP_BUFFERS_BYTES: usize = 3 * HTTP_CHUNK_BYTES;

/// A linked component of `wasi:http`.
#[derive(Clone)]
pub(crate) struct HttpGuest {
    proxy: Arc<ProxyPre<HttpState>>,
    host_context: Arc<HostContext>,
    pool_reservation: PoolReservation,
}

/// Context that every instance of a host shares.
pub(crate) struct HostContext {
    /// The open folder.
    folder: WasiFilesystemCtx,
    environment: Vec<(String, String)>,
    settings: Arc<GuestSettings>,
}

impl HostContext {
    /// Returns a context with the folder as the one preopened directory, read-only, and with the settings.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub(crate) fn new(
        folder: Option<&Path>,
        settings: &Arc<GuestSettings>,
    ) -> wasmtime::Result<Self> {
        let mut wasi = WasiCtx::builder();
        if let Some(folder) = folder {
            wasi.preopened_dir(folder, "/media", FsPerms::ReadOnly)
                .with_context(|| format!("cannot open {}", folder.display()))?;
        }
        Ok(HostContext {
            folder: wasi.build().filesystem().clone(),
            environment: environment(settings),
            settings: Arc::clone(settings),
        })
    }
}

impl HttpGuest {
    pub(crate) fn link(
        engine: &Engine,
        component: &Component,
        version: HttpVersion,
        host_context: HostContext,
        pool_reservation: &PoolReservation,
    ) -> wasmtime::Result<Self> {
        let mut linker = Linker::<HttpState>::new(engine);
        config::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        files::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        if version == HttpVersion::P3 {
            wasmtime_wasi::p3::add_to_linker(&mut linker)?;
            wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        }
        let instance = linker.instantiate_pre(component)?;
        let proxy = match version {
            HttpVersion::P2 => {
                ProxyPre::P2(wasmtime_wasi_http::p2::bindings::ProxyPre::new(instance)?)
            }
            HttpVersion::P3 => {
                ProxyPre::P3(wasmtime_wasi_http::p3::bindings::ServicePre::new(instance)?)
            }
        };
        Ok(HttpGuest {
            proxy: Arc::new(proxy),
            host_context: Arc::new(host_context),
            pool_reservation: Arc::clone(pool_reservation),
        })
    }

    /// Returns the same component in another context.
    pub(crate) fn with_context(&self, host_context: HostContext) -> Self {
        HttpGuest {
            host_context: Arc::new(host_context),
            ..self.clone()
        }
    }

    /// Makes an instance, and drops it.
    pub(crate) async fn probe(&self, store: &mut Store<HttpState>) -> wasmtime::Result<()> {
        self.proxy.instantiate_async(store).await.map(drop)
    }

    /// Calls a fresh instance. Returns when the instance has set the head of its response.
    ///
    /// # Errors
    /// [`RequestError`], if it sets none.
    pub(crate) async fn call(
        &self,
        mut store: Store<HttpState>,
        head: &http::request::Parts,
        permit: OwnedSemaphorePermit,
        wall: Duration,
    ) -> Result<Response<StreamingInstance>, RequestError> {
        let cpu = Arc::clone(&store.data().cpu);
        let status = store.data_mut().limiter.shared_status();
        let (head_tx, mut head_rx) = oneshot::channel();
        let (done_tx, done_rx) = oneshot::channel();
        let mut run = self.run(store, request(head), head_tx, done_rx);
        let first = async {
            tokio::select! {
                biased;
                ended = &mut run => Err(ended),
                head = &mut head_rx => Ok(head),
            }
        };
        let first = tokio::time::timeout(wall, first).await;
        let (response, run) = match first {
            Err(_) => return Err(RequestError::Limited(Limit::Wall)),
            // An instance with a short response may have ended before its head is read.
            Ok(Err(ended)) => {
                ended?;
                (head_rx.try_recv().ok(), None)
            }
            Ok(Ok(head)) => (head.ok(), Some(run)),
        };
        let response = response.ok_or_else(|| failed(&status, RequestError::NoResponse))?;
        let response = response.map_err(|code| failed(&status, RequestError::WasiHttp(code)))?;
        Ok(response.map(|body| StreamingInstance {
            run,
            status,
            body,
            done_tx: Some(done_tx),
            cpu,
            wall,
            chunk_timeout: None,
            _permit: permit,
            _pool_reservation: Arc::clone(&self.pool_reservation),
        }))
    }

    /// Runs an instance to its end.
    fn run(
        &self,
        mut store: Store<HttpState>,
        request: Request<WasiBody>,
        head_tx: oneshot::Sender<HeadResult>,
        done_rx: oneshot::Receiver<()>,
    ) -> RunFuture {
        let proxy = Arc::clone(&self.proxy);
        Box::pin(async move {
            let ran = async {
                match proxy.instantiate_async(&mut store).await? {
                    Proxy::P2(proxy) => run_p2(&mut store, &proxy, request, head_tx).await,
                    Proxy::P3(service) => {
                        run_p3(&mut store, service, request, head_tx, done_rx).await
                    }
                }
            };
            let ran: wasmtime::Result<()> = ran.await;
            let limiter = &store.data().limiter;
            ran.map_err(|error| RequestError::from_trap(&error, limit_of(&error, limiter)))
        })
    }

    /// Returns a store for one request, with every limit set.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the request's memory does not suffice.
    pub(crate) fn store(
        &self,
        engine: &Engine,
        fixed_cost: FixedCost,
        limits: &Limits,
        ledger: &Ledger,
    ) -> Result<Store<HttpState>, LimitExceeded> {
        let host_context = &self.host_context;
        let mut wasi = WasiCtx::builder().envs(&host_context.environment).build();
        wasi.filesystem().clone_from(&host_context.folder);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELDS_BYTES);
        let state = HttpState {
            limiter: InstanceLimiter::new(ledger, limits, fixed_cost)?,
            table: store_limits::table(limits),
            wasi,
            http,
            hooks: Hooks,
            settings: Arc::clone(&host_context.settings),
            cpu: Arc::new(CpuBudget::new(limits)),
            ledger: ledger.handle(),
            _buffers: ledger.charge(Kind::Buffers, HTTP_BUFFERS_BYTES)?,
        };
        Ok(store_limits::store(engine, limits, state))
    }
}

/// Returns the settings as the environment of the component `store`.
fn environment(settings: &GuestSettings) -> Vec<(String, String)> {
    let keys = settings.get(SIGNING_KEYS).filter(|keys| !keys.is_empty());
    let keys = keys.map(|keys| (SIGNING_KEYS.to_owned(), keys));
    let all = settings.pairs().iter().cloned().chain(keys);
    all.map(|(key, value)| (variable(&key), value)).collect()
}

type HeadResult = Result<Response<WasiBody>, String>;

type RunFuture = Pin<Box<dyn Future<Output = Result<(), RequestError>> + Send>>;

/// Returns the request for the component, without content.
fn request(head: &http::request::Parts) -> Request<WasiBody> {
    use http_body_util::BodyExt;
    let mut request = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *request.method_mut() = head.method.clone();
    *request.headers_mut() = head.headers.clone();
    *request.uri_mut() = head.uri.clone();
    // A request of `wasi:http` has an authority. A request of HTTP/1.0 may have none.
    let has_host = head.headers.contains_key(http::header::HOST);
    if head.uri.authority().is_none() && !has_host {
        let mut parts = head.uri.clone().into_parts();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(http::uri::Authority::from_static("localhost"));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

async fn run_p2(
    store: &mut Store<HttpState>,
    proxy: &wasmtime_wasi_http::p2::bindings::Proxy,
    request: Request<WasiBody>,
    head_tx: oneshot::Sender<HeadResult>,
) -> wasmtime::Result<()> {
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request)?;
    let out = http.new_response_outparam_from_callback(move |head| {
        // If the client has gone, nobody receives it.
        let _ = head_tx.send(head.map_err(|code: ErrorCode| format!("{code:?}")));
    })?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(store, request, out)
        .await
}

async fn run_p3(
    store: &mut Store<HttpState>,
    service: wasmtime_wasi_http::p3::bindings::Service,
    request: Request<WasiBody>,
    head_tx: oneshot::Sender<HeadResult>,
    done_rx: oneshot::Receiver<()>,
) -> wasmtime::Result<()> {
    let (request, _read) = wasmtime_wasi_http::p3::Request::from_http(&mut Hooks, request);
    store
        .run_concurrent(async |store| {
            let response = match service.handle(store, request).await? {
                Ok(response) => response,
                Err(code) => {
                    let _ = head_tx.send(Err(format!("{code:?}")));
                    return Ok(());
                }
            };
            let (transmitted, is_transmitted) = oneshot::channel::<()>();
            let response = store.with(|store| {
                response.into_http(store, async {
                    // Sent or aborted: in both cases the component need not wait any longer.
                    let _ = is_transmitted.await;
                    Ok(())
                })
            })?;
            let _ = head_tx.send(Ok(response));
            let _ = done_rx.await;
            drop(transmitted);
            Ok(())
        })
        .await?
}

/// An instance that has set the head of its response, and writes the body. It runs while the body is polled. Dropping
/// it frees its memory at once.
pub(crate) struct StreamingInstance {
    /// `None` once the instance has ended without an error.
    run: Option<RunFuture>,
    status: Arc<LimiterStatus>,
    body: WasiBody,
    done_tx: Option<oneshot::Sender<()>>,
    cpu: Arc<CpuBudget>,
    /// Maximum time until the next chunk.
    wall: Duration,
    /// Runs while the instance is polled for a chunk.
    chunk_timeout: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
    _pool_reservation: PoolReservation,
}

impl ChunkSource for StreamingInstance {
    fn peak_guest_bytes(&self) -> usize {
        self.status.peak_guest_bytes()
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RequestError>>> {
        loop {
            if let Some(run) = &mut self.run
                && let Poll::Ready(ended) = run.as_mut().poll(cx)
            {
                self.run = None;
                ended?;
            }
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    let wall = self.wall;
                    let timeout = self
                        .chunk_timeout
                        .get_or_insert_with(|| Box::pin(sleep(wall)));
                    ready!(timeout.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(RequestError::Limited(Limit::Wall))));
                }
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(chunk))) => {
                    self.cpu.reset();
                    // The timeout starts with the next poll. Until then the client may take its time.
                    self.chunk_timeout = None;
                    return Poll::Ready(Some(Ok(chunk)));
                }
                // Trailers. Media has none.
                Some(Ok(Err(_))) => {}
                Some(Err(error)) => {
                    let error = RequestError::WasiHttp(error.to_string());
                    return Poll::Ready(Some(Err(failed(&self.status, error))));
                }
                None => {
                    if let Some(done_tx) = self.done_tx.take() {
                        let _ = done_tx.send(());
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }
}

/// Error of an instance without a complete response. An instance that is denied memory fails in some way of its own, so
/// the limit it hit is the better error.
fn failed(status: &LimiterStatus, error: RequestError) -> RequestError {
    status.limit_hit().map_or(error, RequestError::Limited)
}

impl fmt::Debug for StreamingInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingInstance")
            .field("has_ended", &self.run.is_none())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    /// A body of one chunk that never ends.
    struct OneChunk(Option<Bytes>);

    impl Body for OneChunk {
        type Data = Bytes;
        type Error = wasmtime_wasi_http::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match self.0.take() {
                Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
                None => Poll::Pending,
            }
        }
    }

    /// The log once had `HTTP protocol error` for it.
    #[tokio::test]
    async fn an_instance_that_had_no_room_ends_by_its_limit_whatever_it_says() {
        struct Broken;
        impl Body for Broken {
            type Data = Bytes;
            type Error = wasmtime_wasi_http::Error;

            fn poll_frame(
                self: Pin<&mut Self>,
                _cx: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
                Poll::Ready(Some(Err(Self::Error::HttpProtocolError)))
            }
        }
        let mut instance = StreamingInstance {
            body: Broken.boxed_unsync(),
            ..one_chunk(Duration::from_secs(10))
        };
        let ended = std::future::poll_fn(|cx| instance.poll_chunk(cx)).await;
        assert!(matches!(ended, Some(Err(RequestError::WasiHttp(_)))));
        let limit = Limit::Memory(Kind::Buffers);
        instance.status.set_limit_hit(limit);
        let ended = std::future::poll_fn(|cx| instance.poll_chunk(cx)).await;
        assert!(matches!(ended, Some(Err(RequestError::Limited(limit_hit))) if limit_hit == limit));
    }

    /// An instance that runs forever and writes one chunk.
    fn one_chunk(wall: Duration) -> StreamingInstance {
        let body = OneChunk(Some(Bytes::from_static(b"piece")));
        StreamingInstance {
            run: Some(Box::pin(std::future::pending())),
            status: Arc::default(),
            body: body.boxed_unsync(),
            done_tx: None,
            cpu: Arc::new(CpuBudget::new(&Limits::default())),
            wall,
            chunk_timeout: None,
            _permit: Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap(),
            _pool_reservation: PoolReservation::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_component_that_gives_nothing_for_too_long_is_ended() {
        let wall = Duration::from_secs(10);
        let mut instance = one_chunk(wall);
        let mut next = async || std::future::poll_fn(|cx| instance.poll_chunk(cx)).await;
        assert_eq!(next().await.unwrap().unwrap(), "piece");
        // Time that the client takes does not count.
        tokio::time::advance(10 * wall).await;
        let waited = tokio::time::Instant::now();
        let ended = next().await.unwrap();
        assert!(matches!(ended, Err(RequestError::Limited(Limit::Wall))));
        assert!(waited.elapsed() >= wall);
    }
}
