//! The service: the life of a request from its head to its body, as one function.

use crate::body::{self, BodyPart, MediaBody};
use crate::cache::{FillGuard, Lookup, ResponseCache, StoredResponse};
use crate::config::{Config, GuestSettings};
use crate::downstream::{Downstream, Exchange, Rejection, SimpleHead, logged_head, trace_fields};
use crate::engine::component::{ComponentError, Inspection, Source};
use crate::engine::media::response::{self, CheckedResponse};
use crate::engine::media::{MediaGuestPre, StoreData, serve};
use crate::engine::pool::POOL_SLOT_BYTES;
use crate::engine::store_limits::{LimitedStore, limit_of};
#[cfg(feature = "wasi-http")]
use crate::engine::wasi_http::{HttpGuest, HttpState};
use crate::engine::{ComponentEngine, LinkedGuest};
use crate::error::RequestError;
use crate::error_response::{ErrorFormat, error_response};
use crate::head_size::{self, fields_memory_bytes, request_head_memory_bytes, target};
use crate::limits::{Limit, Limits};
use crate::memory_plan::{
    ADMIN_BYTES, ALLOCATOR_SHARE_OF_MEMORY, CLIENT_TABLES_BYTES, LOG_QUEUE_BYTES, MemoryPlan,
    RESPONSE_BYTES, RESPONSE_RESERVATION_BYTES,
};
#[cfg(feature = "uploads")]
use crate::request_content::RequestContent;
use crate::store::{DynMediaStore, MediaStore, OriginCacheStatus};
#[cfg(feature = "uploads")]
use crate::upload::checked_upload::CheckedUpload;
#[cfg(feature = "uploads")]
use crate::upload::form::{FORM_UPLOAD_BYTES, form_response};
#[cfg(feature = "uploads")]
use crate::upload::{UPLOAD_BYTES, Uploads};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use millpond_format::{preferences, timestamp_ns};
use millpond_ledger::monitor::MemorySources;
use millpond_ledger::{
    AccessLogEntry, Budget, Charge, Kind, Ledger, LedgerRegistry, LimitExceeded, LoggedHead,
    Overloaded, Owner, Reservation, heap, process,
};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

/// Maximum time that a request waits for memory and an instance.
const ADMISSION_WAIT: Duration = Duration::from_secs(1);

/// Memory that the compiler takes for any component, in bytes. Measured with [`COMPILED_BYTES_PER_BYTE`]: 22 MiB for a
/// component of 132 KiB, and 29 MiB for one of 455 KiB.
const COMPILER_BYTES: usize = 24 * 1024 * 1024;

/// Memory that the compiler takes for each byte of a component, with the compiled code, in bytes.
const COMPILED_BYTES_PER_BYTE: usize = 16;

/// A host with one component and one media store, as a `tower` service.
///
/// Clones share the host. The embedder sends each response to the end, or drops it. Dropping a response, or the future
/// of one, frees the memory of its request at once.
///
/// The service answers `/api/media/<id>` and the paths beneath [`Config::mount_path`]. A router must not remove these
/// prefixes. The service ignores the content of requests, so the server has to skip it before it reads the next request.
/// [`Millpond::serve_with_content`] reads that of uploads.
///
/// The service needs a tokio runtime with a timer.
///
/// ```
/// use http_body_util::BodyExt;
/// use millpond::store::Folder;
/// use millpond::{Config, Limits, Millpond, Source};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = Folder::open("../../examples/media".as_ref())?;
/// let config = Config::default();
/// let millpond = Millpond::new(&Source::embedded(), folder, &config, Limits::default())?;
///
/// let request = http::Request::get("/media/pond.png").header("range", "bytes=1-3").body(())?;
/// let response = millpond.serve(request).await;
/// assert_eq!(response.status(), 206);
/// assert_eq!(response.headers()["content-type"], "image/png");
/// assert_eq!(response.into_body().collect().await?.to_bytes(), "PNG");
///
/// // The response has ended, so no request holds any memory.
/// millpond.registry().idle().await;
/// assert_eq!(millpond.registry().snapshot().total().total(), 0);
/// # Ok(())
/// # }
/// ```
///
/// [`Millpond::prepare`] makes a [`Replacement`] of the component or of its settings, while the host serves.
#[derive(Clone)]
pub struct Millpond {
    host: Arc<HostState>,
    current: Arc<ArcSwap<ServiceState>>,
    #[cfg(feature = "uploads")]
    uploads: Option<Uploads>,
}

/// State of the host, for its whole life.
struct HostState {
    media: Arc<dyn DynMediaStore>,
    folder: Option<PathBuf>,
    limits: Limits,
    registry: Arc<LedgerRegistry>,
    plan: MemoryPlan,
    budget: Arc<Budget>,
    instances: Arc<Semaphore>,
    response_cache_bytes: usize,
}

/// The component with its settings, and the responses that it made. A request keeps the one that it began with.
struct ServiceState {
    host: Arc<HostState>,
    engine: ComponentEngine,
    settings: Arc<GuestSettings>,
    /// `None` if the response cache is off, or if it cannot serve the component.
    cache: Option<ResponseCache>,
}

/// The error of a probe: no instance of the component can be made, or it does not respond.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the component cannot serve: {0}")]
pub struct ProbeError(String);

impl Millpond {
    /// Compiles the component, and prepares the host for its first request. It blocks, for some tens of milliseconds
    /// the first time.
    ///
    /// # Errors
    /// [`ComponentError`], if the component cannot be served or the memory limit is too low.
    pub fn new(
        source: &Source,
        store: impl MediaStore,
        config: &Config,
        limits: Limits,
    ) -> Result<Self, ComponentError> {
        let settings = Arc::new(config.settings(false));
        let engine = ComponentEngine::new(source, &limits, store.folder(), &settings)?;
        // With the component compiled, the process has the memory that it takes without a request.
        let baseline_bytes =
            process::baseline_bytes() + LOG_QUEUE_BYTES + ADMIN_BYTES + limits.other_bytes;
        let files = process::open_files_limit();
        let store_bytes = store.cache_usage().max_bytes;
        let plan = MemoryPlan::partition(
            limits.memory_bytes,
            baseline_bytes,
            store_bytes,
            files,
            &limits,
        )?;
        // The other half of the instances is for requests that do not wait.
        store.limit_waiting(plan.instances / 2);
        let host = Arc::new(HostState {
            folder: store.folder().map(Path::to_owned),
            media: Arc::new(store),
            limits,
            registry: Arc::default(),
            plan,
            budget: Arc::new(Budget::new(plan.responses_bytes)),
            instances: Arc::new(Semaphore::new(plan.instances)),
            response_cache_bytes: plan.cache_bytes - store_bytes,
        });
        let state = ServiceState::new(&host, engine, settings);
        Ok(Millpond {
            host,
            current: Arc::new(ArcSwap::from_pointee(state)),
            #[cfg(feature = "uploads")]
            uploads: None,
        })
    }

    /// Prepares another component, the same component with another configuration, or both. The host serves meanwhile,
    /// and nothing changes before [`Replacement::install`]. `None` keeps the component. It blocks, because compiling a
    /// component may take seconds.
    ///
    /// The limits and the memory plan stay. A new component is compiled in memory that no response can have meanwhile.
    ///
    /// # Errors
    /// [`ComponentError`], if the component cannot be served, or if there is no memory for it beside the old one.
    pub fn prepare(
        &self,
        source: Option<&Source>,
        config: &Config,
    ) -> Result<Replacement, ComponentError> {
        let settings = Arc::new(config.settings(self.accepts_uploads()));
        let folder = self.host.folder.as_deref();
        let (engine, reserved) = match source {
            None => {
                let engine = &self.current.load_full().engine;
                (engine.with_settings(folder, &settings)?, None)
            }
            Some(source) => {
                let bytes = self.host.plan.instances * POOL_SLOT_BYTES
                    + COMPILER_BYTES
                    + source.bytes().len() * COMPILED_BYTES_PER_BYTE;
                let reserved = self.host.budget.try_reserve(bytes);
                let reserved = reserved.ok_or(ComponentError::NoRoom { needs_bytes: bytes })?;
                let engine = ComponentEngine::new(source, &self.host.limits, folder, &settings)?;
                (engine, Some(reserved))
            }
        };
        Ok(Replacement {
            state: ServiceState::new(&self.host, engine, settings),
            current: Arc::clone(&self.current),
            reserved,
        })
    }

    /// Accepts uploads, into the folder that is served. Pages of folders have a form for them. Without uploads, `PUT` and
    /// `POST` get 405.
    ///
    /// # Errors
    /// [`ComponentError::Engine`], if the component reads the folder itself, and the folder cannot be opened again.
    #[cfg(feature = "uploads")]
    pub fn with_uploads(mut self, uploads: Uploads) -> Result<Self, ComponentError> {
        let state = self.current.load_full();
        let settings = Arc::new(state.settings.with_uploads());
        let folder = self.host.folder.as_deref();
        let engine = state.engine.with_settings(folder, &settings)?;
        let state = ServiceState::new(&self.host, engine, settings);
        self.current.store(Arc::new(state));
        self.uploads = Some(uploads);
        Ok(self)
    }

    #[cfg(feature = "uploads")]
    fn accepts_uploads(&self) -> bool {
        self.uploads.is_some()
    }

    #[cfg(not(feature = "uploads"))]
    #[allow(clippy::unused_self)]
    fn accepts_uploads(&self) -> bool {
        false
    }

    /// The component in use.
    #[must_use]
    pub fn component(&self) -> Arc<Inspection> {
        Arc::clone(self.current.load().engine.inspection())
    }

    /// Limits of the host.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.host.limits
    }

    /// Partition of the process's memory limit.
    #[must_use]
    pub fn memory_plan(&self) -> &MemoryPlan {
        &self.host.plan
    }

    /// Memory of the caches.
    #[must_use]
    pub fn cache_bytes(&self) -> CacheBytes {
        CacheBytes {
            files: self.host.media.cache_usage().used_bytes,
            responses: self
                .current
                .load()
                .cache
                .as_ref()
                .map_or(0, ResponseCache::bytes),
        }
    }

    /// Reason for which the store cannot open anything now ([`MediaStore::unavailable`]).
    #[must_use]
    pub fn store_unavailable(&self) -> Option<String> {
        self.host.media.unavailable()
    }

    /// Budget that responses in progress reserve from.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.host.budget
    }

    /// Registry of the ledgers, with the counts of ended requests.
    #[must_use]
    pub fn registry(&self) -> &Arc<LedgerRegistry> {
        &self.host.registry
    }

    /// Makes an instance as for a request, and frees it without a call. A success before the first request shows that
    /// the component works.
    ///
    /// # Errors
    /// [`ProbeError`], if the component traps at its start, hits a limit, or does not fit into memory.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let probed = self.current.load_full().probe().await;
        probed.map_err(|error| ProbeError(error.to_string()))
    }

    /// Has an instance respond to `HEAD /`. Any response of HTTP is a success. It shows more than [`Millpond::probe`].
    ///
    /// # Errors
    /// [`ProbeError`], if the component traps, hits a limit, or returns no valid response.
    pub async fn probe_request(&self) -> Result<(), ProbeError> {
        let probed = self.current.load_full().probe_request().await;
        probed.map_err(|error| ProbeError(error.to_string()))
    }

    /// Responds to one request.
    pub async fn serve<B>(&self, request: Request<B>) -> Response<MediaBody> {
        let (head, _content) = request.into_parts();
        let (mut log_entry, mut downstream) = self.begin(&head);
        let state = self.current.load_full();
        let responded = state
            .respond(&head, downstream.as_deref_mut(), &mut log_entry)
            .await;
        let mut charged = responded.unwrap_or_else(|error| {
            respond_with_error(&error, state.error_format(&head.headers), &mut log_entry)
        });
        let response = &charged.response;
        if let [BodyPart::Bytes(content)] = response.body().as_slice() {
            log_error_message(
                response.status(),
                response.headers(),
                content,
                &mut log_entry,
            );
        }
        if head.method == Method::HEAD {
            charged.response.body_mut().clear();
        }
        charged.into_body(downstream, log_entry)
    }

    /// Responds to one request, and reads its content if it is an upload ([`Millpond::with_uploads`]).
    #[cfg(feature = "uploads")]
    pub async fn serve_with_content(
        &self,
        request: Request<RequestContent>,
    ) -> Response<MediaBody> {
        let (head, content) = request.into_parts();
        let Some(uploads) = self
            .uploads
            .as_ref()
            .filter(|_| self.reads_content(&head.method, &head.uri))
        else {
            return self.serve(Request::from_parts(head, ())).await;
        };
        let (mut log_entry, downstream) = self.begin(&head);
        let mut downstream = downstream;
        let state = self.current.load_full();
        let responded = state.upload(
            uploads,
            (&head, content),
            downstream.as_deref_mut(),
            &log_entry,
        );
        let responded = Box::pin(responded).await;
        let charged = responded.unwrap_or_else(|error| {
            respond_with_error(&error, state.error_format(&head.headers), &mut log_entry)
        });
        charged.into_body(downstream, log_entry)
    }

    /// Returns whether a request is an upload, whose content [`Millpond::serve_with_content`] reads.
    #[cfg(feature = "uploads")]
    #[must_use]
    pub fn reads_content(&self, method: &Method, target: &http::Uri) -> bool {
        let state = self.current.load();
        let mount_path = state.mount_path();
        self.uploads.is_some() && Uploads::is_upload(method, target, mount_path)
    }

    /// Opens the ledger of a request, and starts its response. On millpond's own server, the kernel's memory for the
    /// response is charged to the request.
    fn begin(&self, head: &http::request::Parts) -> (AccessLogEntry, Option<Box<dyn Downstream>>) {
        let (registry, limits) = (&self.host.registry, &self.host.limits);
        // Only millpond's own server has one.
        let exchange = head.extensions.get::<Exchange>();
        let client = exchange.map(|Exchange(exchange)| exchange.client(&head.headers));
        let request_id = exchange.map(|Exchange(exchange)| exchange.request_id());
        let logged_head = logged_head(head, client, request_id, registry.access_log_fields());
        let limit_bytes = limits.request_memory_bytes;
        let log_entry = AccessLogEntry::new(&head.method, &logged_head, registry, limit_bytes);
        let downstream = exchange.map(|Exchange(exchange)| {
            Arc::clone(exchange).begin_response(log_entry.route(), &log_entry.ledger().handle())
        });
        (log_entry, downstream)
    }

    /// Returns the response to a head that the server could not make a request of. `log_entry` counts and logs it as a
    /// request.
    #[must_use]
    pub fn reject(
        &self,
        rejection: Rejection,
        mut log_entry: AccessLogEntry,
    ) -> Response<MediaBody> {
        // The fields of such a head are unknown.
        let format = ErrorFormat::Json;
        respond_with_error(&rejection.into(), format, &mut log_entry).into_body(None, log_entry)
    }
}

/// A component with its settings, compiled and linked, in place of those in use. Dropping it changes nothing.
pub struct Replacement {
    state: ServiceState,
    current: Arc<ArcSwap<ServiceState>>,
    /// `Some` for another component.
    reserved: Option<Reservation>,
}

impl Replacement {
    /// The component.
    #[must_use]
    pub fn component(&self) -> &Inspection {
        self.state.engine.inspection()
    }

    /// Has an instance of the component respond to `HEAD /`. Any response of HTTP is a success. A component in use is
    /// not probed again.
    ///
    /// # Errors
    /// [`ProbeError`], if the component traps, hits a limit, or returns no valid response.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        if self.reserved.is_none() {
            return Ok(());
        }
        let probed = self.state.probe_request().await;
        probed.map_err(|error| ProbeError(error.to_string()))
    }

    /// Has all further requests served by this component. Requests in progress end with the component and the settings
    /// that they began with. No response that was stored before is served afterwards.
    pub fn install(self) {
        let old = self.current.swap(Arc::new(self.state));
        if let Some(cache) = &old.cache {
            cache.clear();
        }
        if let Some(reserved) = self.reserved {
            // Until the last instance of the old component ends, its pool has memory beside that of the new one. The old
            // component has been replaced once, so the cell is empty.
            let _ = old.engine.pool_reservation().set(reserved);
        }
    }
}

impl std::fmt::Debug for Replacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replacement")
            .field("component", &self.component().name)
            .finish_non_exhaustive()
    }
}

impl Millpond {
    /// Returns a response from the cache, if that needs no waiting. After `None` the caller serves the request as
    /// usual, and nothing has been counted.
    pub(crate) fn try_cached(&self, head: &impl SimpleHead) -> Option<CachedResponse> {
        let (host, state) = (&self.host, self.current.load());
        let cache = state.cache.as_ref()?;
        let (method, target) = (head.method(), head.target());
        let cache_key = cache.cache_key(method, target, |name| head.lines(name))?;
        let stored = cache.try_look_up(&cache_key)?;
        let encoded = stored.encoded()?;
        let reservation = host.budget.try_reserve(RESPONSE_RESERVATION_BYTES)?;
        let owner = Owner::Request {
            method: method.clone(),
            route: Arc::clone(stored.route()),
        };
        let ledger = Ledger::new(&host.registry, owner, host.limits.request_memory_bytes);
        let charge = |kind, bytes| ledger.charge(kind, bytes).ok();
        let of_head = charge(Kind::Head, head.held_bytes())?;
        let mut of_response = charge(Kind::Response, encoded.response_bytes())?;
        let parts = stored.try_parts(&host.media, &ledger.handle())?.ok()?;
        let cache_status = body::cache_status(&parts);
        if cache_status.is_some() {
            of_response.grow(OriginCacheStatus::FIELDS_BYTES).ok()?;
        }
        let content = encoded.content(parts, method)?;
        let of_content = charge(Kind::Buffers, content.len())?;
        // From here on, the request is counted and answered.
        ledger.keep(reservation);
        let wanted = host.registry.access_log_fields();
        let line = |is_wanted: bool, name| is_wanted.then(|| head.lines(&name).next()).flatten();
        let (trace_parent, trace_state) = trace_fields(wanted, |name| head.lines(name));
        let logged_head = LoggedHead {
            target,
            version: head.version(),
            client: wanted.client.then(|| head.client()),
            request_id: Some(head.request_id()),
            host: line(wanted.host, header::HOST),
            referrer: line(wanted.agent, header::REFERER),
            user_agent: line(wanted.agent, header::USER_AGENT),
            trace_parent,
            trace_state,
        };
        let mut log_entry = AccessLogEntry::with_ledger(ledger, &logged_head)?;
        log_entry.cache_hit();
        log_entry.set_status(stored.status());
        log_error_message(stored.status(), stored.fields(), &content, &mut log_entry);
        Some(CachedResponse {
            head: encoded.head(cache_status.as_ref()),
            content,
            cache_status,
            log_entry,
            stored,
            _charges: [of_head, of_response, of_content],
        })
    }
}

/// A response from the cache, whose content is in memory.
#[derive(Debug)]
pub struct CachedResponse {
    /// Head for HTTP/1.1: status line and field lines, except `Date` and the empty line.
    pub head: Bytes,
    /// Content.
    pub content: Bytes,
    /// Access log entry of the request.
    pub log_entry: AccessLogEntry,
    stored: Arc<StoredResponse>,
    cache_status: Option<OriginCacheStatus>,
    _charges: [Charge; 3],
}

impl CachedResponse {
    /// Status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.stored.status()
    }

    /// Fields of the head, except `Date`.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let mut fields = self.stored.fields().clone();
        if let Some(status) = &self.cache_status {
            status.set(&mut fields);
        }
        fields
    }
}

/// Memory of the caches, in bytes. It belongs to no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct CacheBytes {
    /// Open file cache of the store: files, metadata, and the content of small files.
    pub files: usize,
    /// Response cache.
    pub responses: usize,
}

impl CacheBytes {
    /// Sum of both caches.
    #[must_use]
    pub fn total(&self) -> usize {
        self.files + self.responses
    }
}

impl std::fmt::Debug for Millpond {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Millpond")
            .field("component", &self.component().name)
            .field("limits", &self.host.limits)
            .field("bound", &self.host.plan)
            .finish_non_exhaustive()
    }
}

/// A response on its way to a body, charged to its request.
struct ChargedResponse {
    response: Response<Vec<BodyPart>>,
    charge: Charge,
}

impl ChargedResponse {
    fn into_body(
        self,
        downstream: Option<Box<dyn Downstream>>,
        mut log_entry: AccessLogEntry,
    ) -> Response<MediaBody> {
        log_entry.set_status(self.response.status());
        self.response
            .map(|parts| MediaBody::new(parts, self.charge, downstream, log_entry))
    }
}

/// Part of the response cache in one request.
enum CacheDecision<'a> {
    /// A stored response that is still valid.
    Hit(ChargedResponse),
    /// The guest responds, and its response fills the entry. Requests with the same key wait for it.
    Miss(FillGuard<'a>),
    /// The guest responds, and nothing is stored.
    Bypass,
}

/// A call of the guest.
struct GuestCall<'a> {
    head: &'a http::request::Parts,
    /// Address of the client, if the server knows it.
    client: Option<IpAddr>,
    deadline: Instant,
    /// Whether the result may include a response for the cache.
    may_be_stored: bool,
}

impl ServiceState {
    /// Returns the state for requests of a component, with an empty response cache.
    fn new(host: &Arc<HostState>, engine: ComponentEngine, settings: Arc<GuestSettings>) -> Self {
        let cache_bytes = host.response_cache_bytes;
        // A component of `wasi:http` does not say what its responses depend on.
        let has_cache = cache_bytes > 0 && matches!(engine.guest(), LinkedGuest::Media(_));
        ServiceState {
            host: Arc::clone(host),
            engine,
            settings,
            cache: has_cache.then(|| ResponseCache::new(cache_bytes)),
        }
    }

    /// Responds to one request, in this order: the head, the cache, the guest.
    async fn respond(
        &self,
        head: &http::request::Parts,
        downstream: Option<&mut (dyn Downstream + 'static)>,
        log_entry: &mut AccessLogEntry,
    ) -> Result<ChargedResponse, RequestError> {
        head_size::check(head)?;
        if let Some(downstream) = downstream {
            downstream.admit(head)?;
        }
        let head_bytes = request_head_memory_bytes(head);
        let _head = log_entry.ledger().charge(Kind::Head, head_bytes)?;
        let deadline = Instant::now() + self.host.limits.wall;

        let decision = self.look_up(head, deadline, log_entry).await?;
        let may_be_stored = match decision {
            CacheDecision::Hit(response) => return with_first_byte(response, head, deadline).await,
            CacheDecision::Miss(_) => true,
            CacheDecision::Bypass => false,
        };

        let call = GuestCall {
            head,
            client: log_entry.client(),
            deadline,
            may_be_stored,
        };
        // Boxed, so that a cache hit does not move all this state.
        let called = Box::pin(self.call_guest(call, log_entry)).await;
        let (responded, stored) = match called {
            Ok((response, stored)) => (Ok(response), stored),
            // After an error, the requests with the same key run the guest at the same time.
            Err(error) => (Err(error), None),
        };
        if let CacheDecision::Miss(guard) = decision {
            guard.fill(stored);
        }
        with_first_byte(responded?, head, deadline).await
    }

    /// Returns the format of errors for a request: pages for browsers, where folders are pages too.
    fn error_format(&self, headers: &HeaderMap) -> ErrorFormat {
        let is_listed = self.settings.typed().browse.unwrap_or(true);
        let lines = headers.get_all(header::ACCEPT).iter();
        match is_listed && preferences::prefers_html(lines.map(HeaderValue::as_bytes)) {
            true => ErrorFormat::Page,
            false => ErrorFormat::Json,
        }
    }

    /// Path under which named files are served.
    #[cfg(feature = "uploads")]
    fn mount_path(&self) -> &str {
        let mount_path = &self.settings.typed().mount_path;
        mount_path.as_deref().unwrap_or_default()
    }

    /// Receives one upload. Its client is admitted as for any request, and its memory reserved before the content is
    /// read.
    #[cfg(feature = "uploads")]
    async fn upload(
        &self,
        uploads: &Uploads,
        (head, content): (&http::request::Parts, RequestContent),
        downstream: Option<&mut (dyn Downstream + 'static)>,
        log_entry: &AccessLogEntry,
    ) -> Result<ChargedResponse, RequestError> {
        head_size::check(head)?;
        if let Some(downstream) = downstream {
            downstream.admit(head)?;
        }
        let ledger = log_entry.ledger();
        let _head = ledger.charge(Kind::Head, request_head_memory_bytes(head))?;
        let upload = CheckedUpload::check(uploads, head, self.mount_path())?;
        let upload_bytes = match upload {
            CheckedUpload::File(_) => UPLOAD_BYTES,
            CheckedUpload::Form(_) => FORM_UPLOAD_BYTES,
        };
        let bytes = RESPONSE_RESERVATION_BYTES + upload_bytes;
        ledger.keep(self.host.budget.reserve(bytes, ADMISSION_WAIT).await?);
        match upload {
            CheckedUpload::File(upload) => {
                let response = uploads.receive(upload, content, ledger).await?;
                self.charge_response(response, ledger)
            }
            CheckedUpload::Form(form) => {
                let stored = uploads.receive_form(&form, content, ledger).await?;
                let is_browser = self.error_format(&head.headers) == ErrorFormat::Page;
                let response = form_response(&form, &stored, is_browser);
                // The reservation of a form includes its response.
                let charge = ledger.charge(Kind::Response, response_bytes(&response))?;
                Ok(ChargedResponse { response, charge })
            }
        }
    }

    /// Takes the response from the cache if it is there and still valid.
    async fn look_up(
        &self,
        head: &http::request::Parts,
        deadline: Instant,
        log_entry: &mut AccessLogEntry,
    ) -> Result<CacheDecision<'_>, RequestError> {
        let Some(cache) = &self.cache else {
            return Ok(CacheDecision::Bypass);
        };
        let lines = |name: &HeaderName| lines(head, name);
        let Some(cache_key) = cache.cache_key(&head.method, target(head), lines) else {
            return Ok(CacheDecision::Bypass);
        };
        let stored = match cache.look_up(&cache_key, self.host.limits.wall).await {
            Lookup::Hit(stored) => stored,
            Lookup::Miss(guard) => return Ok(CacheDecision::Miss(guard)),
            Lookup::Bypass => return Ok(CacheDecision::Bypass),
        };
        let reservation = self
            .host
            .budget
            .reserve(RESPONSE_RESERVATION_BYTES, ADMISSION_WAIT)
            .await?;
        let ledger = log_entry.ledger().handle();
        let validated = match stored.try_revalidate(&self.host.media, &ledger) {
            Some(validated) => validated,
            None => {
                let revalidate = Box::pin(stored.revalidate(&self.host.media, &ledger));
                let validated = timeout_at(deadline, revalidate).await;
                validated.map_err(|_| RequestError::Limited(Limit::Wall))?
            }
        };
        // The store may return the same error to the guest, which decides what to do.
        let Ok(response) = validated else {
            cache.invalidate(&cache_key, &stored);
            return Ok(CacheDecision::Bypass);
        };
        log_entry.ledger().keep(reservation);
        log_entry.cache_hit();
        let charged = self.charge_response(response, log_entry.ledger());
        charged.map(CacheDecision::Hit)
    }

    /// Admits the request: reserves memory until the end of the response, and a permit for an instance.
    async fn admit(
        &self,
        log_entry: &AccessLogEntry,
    ) -> Result<OwnedSemaphorePermit, RequestError> {
        let admitted = self
            .host
            .budget
            .admit(
                RESPONSE_RESERVATION_BYTES,
                &self.host.instances,
                ADMISSION_WAIT,
            )
            .await;
        let (reservation, permit) = admitted?;
        log_entry.ledger().keep(reservation);
        Ok(permit)
    }

    /// Admits the request, and has a fresh instance respond.
    async fn call_guest(
        &self,
        call: GuestCall<'_>,
        log_entry: &mut AccessLogEntry,
    ) -> Result<(ChargedResponse, Option<StoredResponse>), RequestError> {
        let permit = self.admit(log_entry).await?;
        log_entry.cache_miss();
        match self.engine.guest() {
            LinkedGuest::Media(guest) => self.call_media(guest, call, permit, log_entry).await,
            #[cfg(feature = "wasi-http")]
            LinkedGuest::Http(guest) => {
                let response = self.call_wasi_http(guest, call.head, permit, log_entry);
                Ok((response.await?, None))
            }
        }
    }

    /// Calls a fresh instance, and frees it before the response is sent.
    async fn call_media(
        &self,
        guest: &MediaGuestPre<StoreData>,
        call: GuestCall<'_>,
        permit: OwnedSemaphorePermit,
        log_entry: &mut AccessLogEntry,
    ) -> Result<(ChargedResponse, Option<StoredResponse>), RequestError> {
        let head = call.head;
        let mut store = self.store(log_entry.ledger())?;
        let called = call_handle(guest, &mut store, head, call.client, call.deadline).await;
        log_entry.set_guest_peak_bytes(store.data().limiter().peak_guest_bytes());
        let guest_response = called?;

        // The streams leave the instance. Then it is freed, before the first byte of the body is read.
        let state = store.data_mut();
        let checked = response::check(guest_response, &head.method, call.may_be_stored, state)?;
        let CheckedResponse { response, recipe } = checked;
        let stored = recipe.and_then(|recipe| {
            let route = Arc::clone(log_entry.route());
            StoredResponse::of(recipe, response.status(), response.headers(), route)
        });
        let lifted = state.limiter_mut().lift(response_bytes(&response));
        lifted.map_err(RequestError::Limited)?;
        let charged = self.charge_response(response, log_entry.ledger())?;
        drop(store);
        drop(permit);
        Ok((charged, stored))
    }

    /// Calls a fresh instance of `wasi:http`, which holds its permit until the end of the response.
    #[cfg(feature = "wasi-http")]
    async fn call_wasi_http(
        &self,
        guest: &HttpGuest,
        head: &http::request::Parts,
        permit: OwnedSemaphorePermit,
        log_entry: &mut AccessLogEntry,
    ) -> Result<ChargedResponse, RequestError> {
        let store = self.http_store(guest, log_entry.ledger())?;
        let response = guest
            .call(store, head, permit, self.host.limits.wall)
            .await?;
        let (head_of_response, instance) = response.into_parts();
        response::check_http(&head_of_response.headers)?;
        let parts = match response::promised_length(&head_of_response, &head.method) {
            Some(0) => Vec::new(),
            length => {
                let instance = Box::new(instance);
                vec![BodyPart::StreamingInstance { instance, length }]
            }
        };
        let response = Response::from_parts(head_of_response, parts);
        self.charge_response(response, log_entry.ledger())
    }

    /// Makes an instance as for a request, and frees it.
    async fn probe(&self) -> Result<(), RequestError> {
        let limits = &self.host.limits;
        let ledger = Ledger::new(
            &self.host.registry,
            Owner::Host,
            limits.request_memory_bytes,
        );
        match self.engine.guest() {
            LinkedGuest::Media(guest) => {
                let mut store = self.store(&ledger)?;
                let instantiated = timeout(limits.wall, guest.instantiate_async(&mut store)).await;
                call_result(instantiated, &store).map(drop)
            }
            #[cfg(feature = "wasi-http")]
            LinkedGuest::Http(guest) => {
                let mut store = self.http_store(guest, &ledger)?;
                let instantiated = timeout(limits.wall, guest.probe(&mut store)).await;
                call_result(instantiated, &store)
            }
        }
    }

    /// Has a fresh instance respond to a request, and drops the response.
    async fn probe_request(&self) -> Result<(), RequestError> {
        let limits = &self.host.limits;
        let (head, ()) = probe_request().into_parts();
        let ledger = Ledger::new(
            &self.host.registry,
            Owner::Host,
            limits.request_memory_bytes,
        );
        let deadline = Instant::now() + limits.wall;
        let instances = Arc::clone(&self.host.instances);
        let permit = timeout_at(deadline, instances.acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(RequestError::NoInstance);
        };
        match self.engine.guest() {
            LinkedGuest::Media(guest) => {
                let mut store = self.store(&ledger)?;
                let response = call_handle(guest, &mut store, &head, None, deadline).await?;
                response::check(response, &head.method, false, store.data_mut())?;
                drop(permit);
                Ok(())
            }
            #[cfg(feature = "wasi-http")]
            LinkedGuest::Http(guest) => {
                let store = self.http_store(guest, &ledger)?;
                guest
                    .call(store, &head, permit, limits.wall)
                    .await
                    .map(drop)
            }
        }
    }

    #[cfg(feature = "wasi-http")]
    fn http_store(
        &self,
        guest: &HttpGuest,
        ledger: &Ledger,
    ) -> Result<wasmtime::Store<HttpState>, LimitExceeded> {
        guest.store(
            self.engine.wasmtime(),
            self.engine.fixed_cost(),
            &self.host.limits,
            ledger,
        )
    }

    fn store(&self, ledger: &Ledger) -> Result<wasmtime::Store<StoreData>, LimitExceeded> {
        let (engine, fixed_cost) = (self.engine.wasmtime(), self.engine.fixed_cost());
        let (limits, media) = (&self.host.limits, &self.host.media);
        StoreData::store(engine, fixed_cost, limits, media, &self.settings, ledger)
    }

    /// Charges the response to the ledger. Reserves the part of it that exceeds the reservation of its admission.
    fn charge_response(
        &self,
        mut response: Response<Vec<BodyPart>>,
        ledger: &Ledger,
    ) -> Result<ChargedResponse, RequestError> {
        if let Some(status) = body::cache_status(response.body()) {
            status.set(response.headers_mut());
        }
        let bytes = response_bytes(&response);
        let charge = ledger.charge(Kind::Response, bytes)?;
        if bytes > RESPONSE_BYTES {
            let beyond = self.host.budget.try_reserve(bytes - RESPONSE_BYTES);
            ledger.keep(beyond.ok_or(Overloaded::TooLong(Duration::ZERO))?);
        }
        Ok(ChargedResponse { response, charge })
    }
}

/// Returns a response once the store has its first byte. So a store that cannot fetch it causes an error response, and not
/// a head without a body.
async fn with_first_byte(
    charged: ChargedResponse,
    head: &http::request::Parts,
    deadline: Instant,
) -> Result<ChargedResponse, RequestError> {
    if head.method != Method::HEAD
        && let Some(wait) = body::wait_for_first_byte(charged.response.body())
    {
        let waited = timeout_at(deadline, Box::pin(wait)).await;
        let waited = waited.map_err(|_| RequestError::Limited(Limit::Wall))?;
        waited.map_err(RequestError::Store)?;
    }
    Ok(charged)
}

/// Calls the guest for one request, in an instance of its own.
async fn call_handle(
    guest: &MediaGuestPre<StoreData>,
    store: &mut wasmtime::Store<StoreData>,
    head: &http::request::Parts,
    client: Option<IpAddr>,
    deadline: Instant,
) -> Result<serve::Response, RequestError> {
    let fields: Vec<(&str, &[u8])> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let client = client.map(|client| client.to_string());
    let request = serve::Request {
        method: head.method.as_str(),
        path_with_query: target(head),
        headers: &fields,
        received: timestamp_ns(SystemTime::now()).unwrap_or(u64::MAX),
        random: rand::random(),
        client: client.as_deref(),
    };
    let called = timeout_at(deadline, async {
        let guest = guest.instantiate_async(&mut *store).await?;
        let guest = guest.millpond_media_media_serve();
        guest.call_handle(&mut *store, request).await
    })
    .await;
    call_result(called, store)
}

/// Returns the request that a new component has to respond to, in any way that is HTTP.
fn probe_request() -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::HEAD;
    let host = HeaderValue::from_static("localhost");
    request.headers_mut().insert(header::HOST, host);
    request
}

/// Returns the result of a call of an instance, which a timeout may have ended.
fn call_result<T, S: LimitedStore>(
    called: Result<wasmtime::Result<T>, Elapsed>,
    store: &wasmtime::Store<S>,
) -> Result<T, RequestError> {
    match called {
        Ok(result) => result.map_err(|error| {
            let limit = limit_of(&error, store.data().limiter());
            RequestError::from_trap(&error, limit)
        }),
        Err(_) => Err(RequestError::Limited(Limit::Wall)),
    }
}

/// Memory of a response without its files, in bytes.
fn response_bytes(response: &Response<Vec<BodyPart>>) -> usize {
    let parts = response.body().iter().map(|part| match part {
        BodyPart::Bytes(bytes) => size_of::<BodyPart>() + bytes.len(),
        BodyPart::Stream(_) | BodyPart::StreamingInstance { .. } => size_of::<BodyPart>(),
    });
    fields_memory_bytes(response.headers()) + parts.sum::<usize>()
}

/// Returns the lines of a field, in order.
fn lines<'a>(
    head: &'a http::request::Parts,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    head.headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

/// Logs the message of an error response as the reason of its status, if it is JSON with an `error`.
fn log_error_message(
    status: StatusCode,
    fields: &HeaderMap,
    content: &[u8],
    log_entry: &mut AccessLogEntry,
) {
    /// Maximum size of the content, in bytes. Messages of the embedded component take less than a hundred.
    const MESSAGE_BYTES: usize = 1024;
    #[derive(serde::Deserialize)]
    struct ErrorContent<'a> {
        #[serde(borrow)]
        error: std::borrow::Cow<'a, str>,
    }
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || content.len() > MESSAGE_BYTES {
        return;
    }
    let media_type = fields.get(header::CONTENT_TYPE);
    if media_type.is_some_and(|media_type| media_type.as_bytes().starts_with(b"application/json"))
        && let Ok(ErrorContent { error }) = serde_json::from_slice(content)
    {
        log_entry.set_status_reason(&error);
    }
}

/// Finishes a request that failed, and returns its response with the charge for it.
fn respond_with_error(
    error: &RequestError,
    format: ErrorFormat,
    log_entry: &mut AccessLogEntry,
) -> ChargedResponse {
    log_entry.finish_with(error.outcome(), error.to_string());
    let response = error_response(error, format);
    let mut charge = log_entry.ledger().empty_charge(Kind::Response);
    // The response is small, and has to be sent even if the request's memory is used up.
    let _ = charge.resize(response_bytes(&response));
    ChargedResponse { response, charge }
}

impl MemorySources for Millpond {
    fn registry(&self) -> &LedgerRegistry {
        &self.host.registry
    }

    fn cached_bytes(&self) -> usize {
        self.cache_bytes().total()
    }

    fn socket_bytes(&self) -> usize {
        0
    }

    fn warm_up_bytes(&self) -> usize {
        let plan = self.memory_plan();
        // Without allocator statistics, the monitor samples the process's own memory instead. That includes the instance
        // pool and the allocator's share.
        let allocator_bytes = match heap::installed() {
            Some(_) => 0,
            None => plan.instances * POOL_SLOT_BYTES + plan.limit_bytes / ALLOCATOR_SHARE_OF_MEMORY,
        };
        let tables_bytes =
            LOG_QUEUE_BYTES + ADMIN_BYTES + CLIENT_TABLES_BYTES + self.limits().other_bytes;
        process::THREADS_BYTES + tables_bytes + allocator_bytes
    }
}
