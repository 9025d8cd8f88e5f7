//! The service: the life of a request from its head to its body, as one function.

use crate::body::{BodyPart, MediaBody};
use crate::cache::{FillGuard, Lookup, ResponseCache, StoredResponse};
use crate::config::{Config, GuestSettings};
use crate::downstream::{Downstream, Exchange, Rejection, SimpleHead};
use crate::engine::component::{ComponentError, Inspection, Source};
use crate::engine::media::response::{self, CheckedResponse};
use crate::engine::media::{MediaGuestPre, StoreData, serve};
use crate::engine::pool::POOL_SLOT_BYTES;
use crate::engine::store_limits::{LimitedStore, limit_of};
#[cfg(feature = "wasi-http")]
use crate::engine::wasi_http::{HttpGuest, HttpState};
use crate::engine::{ComponentEngine, LinkedGuest};
use crate::error::RequestError;
use crate::head_size::{self, fields_memory_bytes, request_head_memory_bytes, target};
use crate::limits::{Limit, Limits};
use crate::memory_plan::{
    ADMIN_BYTES, ALLOCATOR_SHARE_OF_MEMORY, CLIENT_TABLES_BYTES, LOG_QUEUE_BYTES, MemoryPlan,
    RESPONSE_BYTES, RESPONSE_RESERVATION_BYTES,
};
use crate::store::{DynMediaStore, MediaStore};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use millpond_format::timestamp_ns;
use millpond_ledger::monitor::MemorySources;
use millpond_ledger::{
    AccessLogEntry, Budget, Charge, Kind, Ledger, LedgerRegistry, LimitExceeded, Overloaded, Owner,
    heap, process,
};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

/// Maximum time that a request waits for memory and an instance.
const ADMISSION_WAIT: Duration = Duration::from_secs(1);

/// A host with one component and one media store, as a `tower` service.
///
/// Clones share the host. The embedder sends each response to the end, or drops it. Dropping a response, or the future
/// of one, frees the memory of its request at once.
///
/// The service answers `/api/media/<id>` and the paths beneath [`Config::mount_path`]. A router must not remove these
/// prefixes. The service ignores the content of requests, so the server has to skip it before it reads the next request.
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
#[derive(Clone)]
pub struct Millpond {
    state: Arc<ServiceState>,
}

struct ServiceState {
    engine: ComponentEngine,
    media: Arc<dyn DynMediaStore>,
    settings: Arc<GuestSettings>,
    limits: Limits,
    registry: Arc<LedgerRegistry>,
    plan: MemoryPlan,
    budget: Arc<Budget>,
    instances: Arc<Semaphore>,
    /// `None` if the response cache is off, or if it cannot serve the component.
    cache: Option<ResponseCache>,
}

/// The error of a probe: no instance of the component can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no instance of the component can be made: {0}")]
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
        let settings = Arc::new(config.settings());
        let engine = ComponentEngine::new(source, &limits, store.folder(), &settings)?;
        // With the component compiled, the process has the memory that it takes without a request.
        let baseline_bytes = process::baseline_bytes() + LOG_QUEUE_BYTES + ADMIN_BYTES;
        let files = process::open_files_limit();
        let store_bytes = store.cache_usage().max_bytes;
        let plan = MemoryPlan::partition(
            limits.memory_bytes,
            baseline_bytes,
            store_bytes,
            files,
            &limits,
        )?;
        let cache_bytes = plan.cache_bytes - store_bytes;
        // A component of `wasi:http` does not say what its responses depend on.
        let has_cache = cache_bytes > 0 && matches!(engine.guest(), LinkedGuest::Media(_));
        // The other half of the instances is for requests that do not wait.
        store.limit_waiting(plan.instances / 2);
        Ok(Millpond {
            state: Arc::new(ServiceState {
                engine,
                media: Arc::new(store),
                settings,
                limits,
                registry: Arc::default(),
                plan,
                budget: Arc::new(Budget::new(plan.responses_bytes)),
                instances: Arc::new(Semaphore::new(plan.instances)),
                cache: has_cache.then(|| ResponseCache::new(cache_bytes)),
            }),
        })
    }

    /// The component.
    #[must_use]
    pub fn component(&self) -> &Inspection {
        self.state.engine.inspection()
    }

    /// Limits of the host.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.state.limits
    }

    /// Partition of the process's memory limit.
    #[must_use]
    pub fn memory_plan(&self) -> &MemoryPlan {
        &self.state.plan
    }

    /// Memory of the caches.
    #[must_use]
    pub fn cache_bytes(&self) -> CacheBytes {
        CacheBytes {
            files: self.state.media.cache_usage().used_bytes,
            responses: self.state.cache.as_ref().map_or(0, ResponseCache::bytes),
        }
    }

    /// Reason for which the store cannot open anything now ([`MediaStore::unavailable`]).
    #[must_use]
    pub fn store_unavailable(&self) -> Option<String> {
        self.state.media.unavailable()
    }

    /// Budget that responses in progress reserve from.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.state.budget
    }

    /// Registry of the ledgers, with the counts of ended requests.
    #[must_use]
    pub fn registry(&self) -> &Arc<LedgerRegistry> {
        &self.state.registry
    }

    /// Makes an instance as for a request, and frees it without a call. A success before the first request shows that
    /// the component works.
    ///
    /// # Errors
    /// [`ProbeError`], if the component traps at its start, hits a limit, or does not fit into memory.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let probed = self.state.probe().await;
        probed.map_err(|error| ProbeError(error.to_string()))
    }

    /// Responds to one request.
    pub async fn serve<B>(&self, request: Request<B>) -> Response<MediaBody> {
        let (head, _content) = request.into_parts();
        let (registry, limits) = (&self.state.registry, &self.state.limits);
        let target = head.uri.path_and_query();
        let target = target.map_or("", |target| target.as_str());
        let mut log_entry =
            AccessLogEntry::new(&head.method, target, registry, limits.request_memory_bytes);
        // On millpond's own server, the kernel's memory for the response is charged to the request.
        let exchange = head.extensions.get::<Exchange>();
        let mut downstream = exchange.map(|Exchange(exchange)| {
            Arc::clone(exchange).begin_response(log_entry.route(), &log_entry.ledger().handle())
        });
        let responded = self
            .state
            .respond(&head, downstream.as_deref_mut(), &mut log_entry)
            .await;
        let mut charged =
            responded.unwrap_or_else(|error| respond_with_error(&error, &mut log_entry));
        if head.method == Method::HEAD {
            charged.response.body_mut().clear();
        }
        charged.into_body(downstream, log_entry)
    }

    /// Returns the response to a head that the server could not make a request of. `log_entry` counts and logs it as a
    /// request.
    #[must_use]
    pub fn reject(
        &self,
        rejection: Rejection,
        mut log_entry: AccessLogEntry,
    ) -> Response<MediaBody> {
        respond_with_error(&rejection.into(), &mut log_entry).into_body(None, log_entry)
    }
}

impl Millpond {
    /// Returns a response from the cache, if that needs no waiting. After `None` the caller serves the request as
    /// usual, and nothing has been counted.
    pub(crate) fn try_cached(&self, head: &impl SimpleHead) -> Option<CachedResponse> {
        let state = &self.state;
        let cache = state.cache.as_ref()?;
        let (method, target) = (head.method(), head.target());
        let cache_key = cache.cache_key(method, target, |name| head.lines(name))?;
        let stored = cache.try_look_up(&cache_key)?;
        let encoded = stored.encoded()?;
        let reservation = state.budget.try_reserve(RESPONSE_RESERVATION_BYTES)?;
        let owner = Owner::Request {
            method: method.clone(),
            route: Arc::clone(stored.route()),
        };
        let ledger = Ledger::new(&state.registry, owner, state.limits.request_memory_bytes);
        let charge = |kind, bytes| ledger.charge(kind, bytes).ok();
        let of_head = charge(Kind::Head, head.held_bytes())?;
        let of_response = charge(Kind::Response, encoded.response_bytes())?;
        let parts = stored.try_parts(&state.media, &ledger.handle())?.ok()?;
        let content = encoded.content(parts, method)?;
        let of_content = charge(Kind::Buffers, content.len())?;
        // From here on, the request is counted and answered.
        ledger.keep(reservation);
        let mut log_entry = AccessLogEntry::with_ledger(ledger, target)?;
        log_entry.cache_hit();
        log_entry.set_status(stored.status());
        Some(CachedResponse {
            head: encoded.head(),
            content,
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
    pub fn headers(&self) -> &HeaderMap {
        self.stored.fields()
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
            .field("limits", &self.state.limits)
            .field("bound", &self.state.plan)
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
    /// Responds to one request, in this order: the head, the cache, the guest.
    async fn respond(
        &self,
        head: &http::request::Parts,
        downstream: Option<&mut (dyn Downstream + 'static)>,
        log_entry: &mut AccessLogEntry,
    ) -> Result<ChargedResponse, RequestError> {
        head_size::check(head)?;
        let mut client = None;
        if let Some(downstream) = downstream {
            downstream.admit(head)?;
            client = Some(downstream.client(&head.headers));
        }
        let head_bytes = request_head_memory_bytes(head);
        let _head = log_entry.ledger().charge(Kind::Head, head_bytes)?;
        let deadline = Instant::now() + self.limits.wall;

        let decision = self.look_up(head, deadline, log_entry).await?;
        let may_be_stored = match decision {
            CacheDecision::Hit(response) => return Ok(response),
            CacheDecision::Miss(_) => true,
            CacheDecision::Bypass => false,
        };

        let call = GuestCall {
            head,
            client,
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
        responded
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
        let stored = match cache.look_up(&cache_key, self.limits.wall).await {
            Lookup::Hit(stored) => stored,
            Lookup::Miss(guard) => return Ok(CacheDecision::Miss(guard)),
            Lookup::Bypass => return Ok(CacheDecision::Bypass),
        };
        let reservation = self
            .budget
            .reserve(RESPONSE_RESERVATION_BYTES, ADMISSION_WAIT)
            .await?;
        let ledger = log_entry.ledger().handle();
        let validated = match stored.try_revalidate(&self.media, &ledger) {
            Some(validated) => validated,
            None => {
                let revalidate = Box::pin(stored.revalidate(&self.media, &ledger));
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
            .budget
            .admit(RESPONSE_RESERVATION_BYTES, &self.instances, ADMISSION_WAIT)
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
        let fields: Vec<(&str, &[u8])> = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        let client = call.client.map(|client| client.to_string());
        let request = serve::Request {
            method: head.method.as_str(),
            path_with_query: target(head),
            headers: &fields,
            received: timestamp_ns(SystemTime::now()).unwrap_or(u64::MAX),
            random: rand::random(),
            client: client.as_deref(),
        };
        let called = timeout_at(call.deadline, async {
            let guest = guest.instantiate_async(&mut store).await?;
            let guest = guest.millpond_media_media_serve();
            guest.call_handle(&mut store, request).await
        })
        .await;
        log_entry.set_guest_peak_bytes(store.data().limiter().peak_guest_bytes());
        let guest_response = call_result(called, &store)?;

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
        let response = guest.call(store, head, permit, self.limits.wall).await?;
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
        let limits = &self.limits;
        let ledger = Ledger::new(&self.registry, Owner::Host, limits.request_memory_bytes);
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

    #[cfg(feature = "wasi-http")]
    fn http_store(
        &self,
        guest: &HttpGuest,
        ledger: &Ledger,
    ) -> Result<wasmtime::Store<HttpState>, LimitExceeded> {
        guest.store(
            self.engine.wasmtime(),
            self.engine.fixed_cost(),
            &self.limits,
            ledger,
        )
    }

    fn store(&self, ledger: &Ledger) -> Result<wasmtime::Store<StoreData>, LimitExceeded> {
        let (engine, fixed_cost) = (self.engine.wasmtime(), self.engine.fixed_cost());
        let (limits, media) = (&self.limits, &self.media);
        StoreData::store(engine, fixed_cost, limits, media, &self.settings, ledger)
    }

    /// Charges the response to the ledger. Reserves the part of it that exceeds the reservation of its admission.
    fn charge_response(
        &self,
        response: Response<Vec<BodyPart>>,
        ledger: &Ledger,
    ) -> Result<ChargedResponse, RequestError> {
        let bytes = response_bytes(&response);
        let charge = ledger.charge(Kind::Response, bytes)?;
        if bytes > RESPONSE_BYTES {
            let beyond = self.budget.try_reserve(bytes - RESPONSE_BYTES);
            ledger.keep(beyond.ok_or(Overloaded::TooLong(Duration::ZERO))?);
        }
        Ok(ChargedResponse { response, charge })
    }
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

/// Finishes a request that failed, and returns its response with the charge for it.
fn respond_with_error(error: &RequestError, log_entry: &mut AccessLogEntry) -> ChargedResponse {
    log_entry.finish_with(error.outcome(), error.to_string());
    let response = error_response(error);
    let mut charge = log_entry.ledger().empty_charge(Kind::Response);
    // The response is small, and has to be sent even if the request's memory is used up.
    let _ = charge.resize(response_bytes(&response));
    ChargedResponse { response, charge }
}

/// Returns the response to a failed request: JSON with an `error`.
fn error_response(error: &RequestError) -> Response<Vec<BodyPart>> {
    let (status, message) = error.status();
    let json = serde_json::json!({ "error": message }).to_string();
    let length = json.len();
    let mut response = Response::new(vec![BodyPart::Bytes(Bytes::from(json))]);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    fields.insert(header::CONTENT_LENGTH, length.into());
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if let Some(seconds) = error.retry_after_seconds() {
        fields.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

impl MemorySources for Millpond {
    fn registry(&self) -> &LedgerRegistry {
        &self.state.registry
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
        let tables_bytes = LOG_QUEUE_BYTES + ADMIN_BYTES + CLIENT_TABLES_BYTES;
        process::THREADS_BYTES + tables_bytes + allocator_bytes
    }
}
