//! The life of one request, from its head to its body: one function, its phases in order.

use crate::admin::metrics::Ended;
use crate::body::{MediaBody, Part};
use crate::config::{Config, Settings};
use crate::connection::clients::TooMany;
use crate::connection::direct::{Given, PlainHead};
use crate::connection::framing::Framing;
use crate::connection::head::{self, Unfit};
use crate::connection::{Answer, Connections, Exchange};
use crate::instance::component::{ComponentError, Inspection, Source, one_line};
use crate::instance::engine::{Guest, Runtime};
use crate::instance::http::{HttpGuest, HttpState};
use crate::instance::limited::Limited;
use crate::instance::response::{self, Checked, InvalidResponse};
use crate::instance::{InstanceState, MediaGuestPre, limit_of, serve};
use crate::ledger::accounts::Accounts;
use crate::ledger::budget::{Bound, Budget, NoRoom};
use crate::ledger::meter::Meter;
use crate::ledger::record::{AccessLogEntry, Outcome};
use crate::ledger::{Charge, Exceeded, Kind, Ledger, Owner};
use crate::limits::{
    ADMISSION_WAIT, ANSWER_BYTES, FIELD_LINES, FIELDS_BYTES, Limit, Limits, RESPONSE_BYTES,
    TARGET_BYTES, fields_bytes, held_by_fields, held_by_head,
};
use crate::reuse::{Known, Reusable, Reuse};
use crate::store::{AnyStore, MediaStore};
use crate::watch::process;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use millpond_store::content::timestamp_ns;
use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::SystemTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// A host with one component and one store of media, as a `tower` service: `http` requests in, `http` responses out.
///
/// Cloning is cheap and shares everything. The embedder serves the responses to the end or drops them; a
/// dropped response, or a dropped response future, frees all that the request held, at once. What a request's
/// content holds is not read: the embedder sees to it that the next request is not looked for in it.
///
/// It answers `/api/media/<id>` and what lies beneath [`Config::files_at`]; a router that takes a prefix off the path
/// before it asks sees to it that these are left. It needs a tokio runtime with a timer.
///
/// ```
/// use http_body_util::BodyExt;
/// use millpond::store::Folder;
/// use millpond::{Config, Limits, Millpond, Source};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = Folder::open("../examples/media".as_ref())?;
/// let config = Config::default();
/// let millpond = Millpond::new(&Source::embedded(), folder, &config, Limits::default())?;
///
/// let request = http::Request::get("/media/pond.png").header("range", "bytes=1-3").body(())?;
/// let response = millpond.serve(request).await;
/// assert_eq!(response.status(), 206);
/// assert_eq!(response.headers()["content-type"], "image/png");
/// assert_eq!(response.into_body().collect().await?.to_bytes(), "PNG");
///
/// // Now that the answer has ended, no request holds anything.
/// millpond.accounts().idle().await;
/// assert_eq!(millpond.accounts().survey().total().total(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Millpond {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Runtime,
    inspection: Inspection,
    media: Arc<dyn AnyStore>,
    settings: Arc<Settings>,
    limits: Limits,
    accounts: Arc<Accounts>,
    bound: Bound,
    budget: Arc<Budget>,
    instances: Arc<Semaphore>,
    /// None where each request is answered by an instance.
    reuse: Option<Reuse>,
    connections: Arc<Connections>,
    ended: OnceLock<Ended>,
}

/// No instance can be made, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no instance of the component can be made: {0}")]
pub struct Unready(String);

impl Millpond {
    /// Compiles the component and makes everything ready for the first request. It takes some tens of milliseconds the
    /// first time, and blocks.
    ///
    /// # Errors
    /// [`ComponentError`], when the component cannot be served from.
    pub fn new(
        source: &Source,
        store: impl MediaStore,
        config: &Config,
        limits: Limits,
    ) -> Result<Self, ComponentError> {
        let settings = Arc::new(config.settings());
        let runtime = Runtime::new(source, &limits, store.folder(), &settings)?;
        // What the process has by now, its component compiled, is what it has without a request.
        let own_bytes = process::own_bytes();
        let files = process::open_files_limit();
        let store_bytes = store.kept_bytes().most;
        let bound = Bound::divide(limits.memory_bytes, own_bytes, store_bytes, files, &limits)?;
        let reuse_bytes = bound.kept_bytes - store_bytes;
        // The other half is for whoever does not wait.
        store.limit_waiting(bound.instances / 2);
        Ok(Millpond {
            shared: Arc::new(Shared {
                inspection: runtime.inspect(source),
                runtime,
                media: Arc::new(store),
                settings,
                limits,
                accounts: Arc::default(),
                bound,
                budget: Arc::new(Budget::new(bound.answers_bytes)),
                instances: Arc::new(Semaphore::new(bound.instances)),
                reuse: (reuse_bytes > 0).then(|| Reuse::new(reuse_bytes)),
                connections: Arc::default(),
                ended: OnceLock::new(),
            }),
        })
    }

    /// The component that is served from.
    #[must_use]
    pub fn component(&self) -> &Inspection {
        &self.shared.inspection
    }

    /// The limits of each request.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// The bound of the whole process, and what it is made of.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.shared.bound
    }

    pub(crate) fn connections(&self) -> &Arc<Connections> {
        &self.shared.connections
    }

    /// What is measured of requests that end, from the first time on that somebody wants it.
    pub(crate) fn ended_metrics(&self) -> &Ended {
        self.shared.ended.get_or_init(|| {
            let ended = Ended::default();
            self.accounts().observe(ended.clone());
            ended
        })
    }

    /// Memory of the caches now.
    #[must_use]
    pub fn cache_bytes(&self) -> CacheBytes {
        CacheBytes {
            files: self.shared.media.kept_bytes().now,
            responses: self.shared.reuse.as_ref().map_or(0, Reuse::bytes),
        }
    }

    /// Why the store can open nothing just now, if that is so ([`MediaStore::unavailable`]).
    #[must_use]
    pub fn store_unavailable(&self) -> Option<String> {
        self.shared.media.unavailable()
    }

    /// What answers in progress reserve from.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.shared.budget
    }

    /// What requests hold right now, and how the ended ones ended.
    #[must_use]
    pub fn accounts(&self) -> &Arc<Accounts> {
        &self.shared.accounts
    }

    /// Makes an instance as for a request and frees it again, without asking it anything: what tells before
    /// the first request that there can be one.
    ///
    /// # Errors
    /// [`Unready`], when the component traps at its start, meets a limit, or finds no room.
    pub async fn probe(&self) -> Result<(), Unready> {
        let shared = &self.shared;
        let limits = &shared.limits;
        let ledger = Ledger::new(&shared.accounts, Owner::Host, limits.request_memory_bytes);
        let unready = |error: RequestError| Unready(error.to_string());
        let trapped = |error: wasmtime::Error, meter: &Meter| {
            unready(RequestError::of_trap(&error, limit_of(&error, meter)))
        };
        let too_slow = |_| unready(RequestError::Limited(Limit::Wall));
        match shared.runtime.guest() {
            Guest::Media(guest) => {
                let store = shared.store(&ledger);
                let mut store = store.map_err(|error| unready(error.into()))?;
                let made = timeout(limits.wall, guest.instantiate_async(&mut store)).await;
                let made = made.map_err(too_slow)?;
                made.map_err(|error| trapped(error, store.data().meter()))?;
            }
            Guest::Http(guest) => {
                let store = shared.http_store(guest, &ledger);
                let mut store = store.map_err(|error| unready(error.into()))?;
                let made = timeout(limits.wall, guest.probe(&mut store)).await;
                let made = made.map_err(too_slow)?;
                made.map_err(|error| trapped(error, store.data().meter()))?;
            }
        }
        Ok(())
    }

    /// Answers one request.
    pub async fn serve<B>(&self, request: Request<B>) -> Response<MediaBody> {
        let (head, _content) = request.into_parts();
        let accounts = Arc::clone(&self.shared.accounts);
        let limit_bytes = self.shared.limits.request_memory_bytes;
        let target = head.uri.path_and_query();
        let target = target.map_or("", |target| target.as_str());
        let mut record = AccessLogEntry::new(&head.method, target, accounts, limit_bytes);
        // On a connection of ours, what the kernel keeps for the answer is the request's too.
        let mut answer = head
            .extensions
            .get::<Exchange>()
            .map(|exchange| exchange.answer(record.route(), &record.ledger().handle()));
        let framing = answer.as_ref().map(Answer::framing);
        let mut is_last = framing.is_some_and(|framing| framing != Framing::Sound);
        let (mut response, charge) = match self
            .shared
            .answer(&head, answer.as_mut(), &mut record)
            .await
        {
            Ok(answered) => answered,
            Err(error) => {
                record.finish_with(error.outcome(), error.to_string());
                is_last |= matches!(error, RequestError::Unfit(_));
                let response = error.into_response();
                let mut charge = record.ledger().empty_charge(Kind::Response);
                // It is small, and has to be told even where there is no room for it.
                let _ = charge.resize(response_bytes(&response));
                (response, charge)
            }
        };
        if is_last {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        if head.method == Method::HEAD {
            response.body_mut().clear();
        }
        record.answered(response.status());
        let leak = self.shared.limits.leak;
        if let Some(leak) = leak {
            leak.of(record.ledger());
        }
        response.map(|parts| MediaBody::new(parts, charge, answer, record, leak))
    }
}

impl Millpond {
    /// Answers a request at once with an answer that is given again, if there is one that needs nothing to be waited for.
    /// `None` where there is none: the request goes the usual way then, as if nobody had looked.
    pub(crate) fn answer_now(&self, head: &PlainHead<'_>, exchange: &Exchange) -> Option<Given> {
        let shared = &self.shared;
        let reuse = shared.reuse.as_ref()?;
        if shared.limits.leak.is_some() {
            return None;
        }
        let question = reuse.question(&head.method, head.target, |name| head.lines(name))?;
        let answer = reuse.known(&question)?;
        let room = shared.budget.try_reserve(ANSWER_BYTES)?;
        let accounts = Arc::clone(&shared.accounts);
        let (route, method) = (Arc::clone(answer.route()), head.method.clone());
        let owner = Owner::Request { method, route };
        let ledger = Ledger::new(&accounts, owner, shared.limits.request_memory_bytes);
        // Until here nothing was counted; from here on it is answered.
        let (written, content, charges) = shared.give(&answer, head, &ledger)?;
        ledger.keep(room);
        let route = Arc::clone(answer.route());
        let mut record = AccessLogEntry::on(ledger, route, &head.method, head.target, accounts);
        record.cache_hit();
        record.answered(answer.status());
        Some(Given::new(written, content, charges, record, exchange))
    }
}

/// Memory of the caches, in bytes. It is kept between requests and belongs to none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct CacheBytes {
    /// The store's open files, with their metadata and the content of small ones.
    pub files: usize,
    /// The response cache.
    pub responses: usize,
}

impl CacheBytes {
    /// The sum.
    #[must_use]
    pub fn total(&self) -> usize {
        self.files + self.responses
    }
}

impl std::fmt::Debug for Millpond {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Millpond")
            .field("component", &self.shared.inspection.name)
            .field("limits", &self.shared.limits)
            .field("bound", &self.shared.bound)
            .finish_non_exhaustive()
    }
}

/// What a response takes beside the files that it is made of, in bytes.
fn response_bytes(response: &Response<Vec<Part>>) -> usize {
    let parts = response.body().iter().map(|part| match part {
        Part::Bytes(bytes) => size_of::<Part>() + bytes.len(),
        Part::Stream(_) | Part::Running { .. } => size_of::<Part>(),
    });
    held_by_fields(response.headers()) + parts.sum::<usize>()
}

impl Shared {
    async fn answer(
        &self,
        head: &http::request::Parts,
        on_connection: Option<&mut Answer>,
        record: &mut AccessLogEntry,
    ) -> Result<(Response<Vec<Part>>, Charge), RequestError> {
        check_size(head)?;
        let mut client = None;
        if let Some(answer) = on_connection {
            head::check(head, answer.framing())?;
            answer.admit(&head.headers)?;
            client = Some(answer.client(&head.headers));
        }
        let _head = record.ledger().charge(Kind::Head, head_bytes(head))?;
        let deadline = Instant::now() + self.limits.wall;

        match self.runtime.guest() {
            Guest::Media(guest) => {
                let mut asking = None;
                if let Some(reuse) = &self.reuse
                    && let Some(question) =
                        reuse.question(&head.method, target(head), |name| lines(head, name))
                {
                    match reuse.look_up(&question, self.limits.wall).await {
                        Known::Answer(answer) => {
                            match self.answer_again(&answer, deadline, record).await? {
                                Some(answered) => return Ok(answered),
                                None => reuse.forget(&question, &answer),
                            }
                        }
                        Known::Nothing(first) => asking = Some(first),
                        Known::Guest => {}
                    }
                }
                let is_first = asking.is_some();
                // In a box, so that an answer which is given again does not move the state of all this about.
                let asked = Box::pin(async {
                    let place = self.admit(record).await?;
                    self.ask(guest, head, client, place, (deadline, is_first), record)
                        .await
                });
                let asked = asked.await;
                let (answered, reusable) = match asked {
                    Ok((response, charge, reusable)) => (Ok((response, charge)), reusable),
                    // Others are to find out for themselves, and not one after the other.
                    Err(error) => (Err(error), None),
                };
                if let Some(asking) = asking {
                    asking.tell(reusable);
                }
                answered
            }
            Guest::Http(guest) => {
                let asked = Box::pin(async {
                    let place = self.admit(record).await?;
                    self.ask_http(guest, head, place, record).await
                });
                asked.await
            }
        }
    }

    /// Admission: room for the answer, for as long as it lasts, and a place for an instance.
    async fn admit(&self, record: &AccessLogEntry) -> Result<OwnedSemaphorePermit, RequestError> {
        let admitted = self
            .budget
            .admit(ANSWER_BYTES, &self.instances, ADMISSION_WAIT)
            .await;
        let (room, place) = admitted?;
        record.ledger().keep(room);
        Ok(place)
    }

    /// Gives an answer again, without an instance. `None` where it does not hold any more.
    async fn answer_again(
        &self,
        answer: &Reusable,
        deadline: Instant,
        record: &mut AccessLogEntry,
    ) -> Result<Option<(Response<Vec<Part>>, Charge)>, RequestError> {
        let room = self.budget.reserve(ANSWER_BYTES, ADMISSION_WAIT).await?;
        let ledger = record.ledger().handle();
        let again = match answer.again_now(&self.media, &ledger) {
            Some(again) => again,
            None => {
                let again = Box::pin(answer.again(&self.media, &ledger));
                let again = timeout_at(deadline, again).await;
                again.map_err(|_| RequestError::Limited(Limit::Wall))?
            }
        };
        // What the store says of it, it may say to the guest.
        let Ok(response) = again else {
            return Ok(None);
        };
        record.ledger().keep(room);
        record.cache_hit();
        let charge = self.make_room(&response, record.ledger())?;
        Ok(Some((response, charge)))
    }

    /// What is written of an answer that is given again, with what it takes charged, if all of it can be had at once.
    fn give(
        &self,
        answer: &Reusable,
        head: &PlainHead<'_>,
        ledger: &Ledger,
    ) -> Option<(Bytes, Bytes, [Charge; 3])> {
        let charge = |kind, bytes| ledger.charge(kind, bytes).ok();
        let written = answer.written()?;
        let of_head = charge(Kind::Head, head.held_bytes())?;
        let of_response = charge(Kind::Response, written.response_bytes())?;
        let parts = answer.parts_now(&self.media, &ledger.handle())?.ok()?;
        let content = written.content(parts, &head.method)?;
        let of_content = charge(Kind::Buffers, content.len())?;
        Some((written.head(), content, [of_head, of_response, of_content]))
    }

    /// Asks a fresh instance, which is gone by the time that its answer is sent. `is_first` when others may be given the
    /// same answer.
    async fn ask(
        &self,
        guest: &MediaGuestPre<InstanceState>,
        head: &http::request::Parts,
        client: Option<IpAddr>,
        place: OwnedSemaphorePermit,
        (deadline, is_first): (Instant, bool),
        record: &mut AccessLogEntry,
    ) -> Result<(Response<Vec<Part>>, Charge, Option<Reusable>), RequestError> {
        record.cache_miss();
        let mut store = self.store(record.ledger())?;
        let fields: Vec<(&str, &[u8])> = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        let client = client.map(|client| client.to_string());
        let question = serve::Request {
            method: head.method.as_str(),
            target: target(head),
            fields: &fields,
            received: timestamp_ns(SystemTime::now()),
            nonce: rand::random(),
            client: client.as_deref(),
        };
        let called = timeout_at(deadline, async {
            let guest = guest.instantiate_async(&mut store).await?;
            let guest = guest.millpond_media_media_serve();
            guest.call_handle(&mut store, question).await
        })
        .await;
        record.guest_took(store.data().meter().peak_guest_bytes());
        let answer = match called {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let limit = limit_of(&error, store.data().meter());
                return Err(RequestError::of_trap(&error, limit));
            }
            Err(_) => return Err(RequestError::Limited(Limit::Wall)),
        };

        // The handles leave the instance; then it is freed, before the first byte of the body moves.
        let checked = response::check(answer, &head.method, is_first, store.data_mut())?;
        let Checked { response, reusable } = checked;
        let lifted = store.data_mut().meter_mut().lift(response_bytes(&response));
        lifted.map_err(RequestError::Limited)?;
        let charge = self.make_room(&response, record.ledger())?;
        drop(store);
        drop(place);
        Ok((response, charge, reusable))
    }

    /// Asks a fresh instance of a component for `wasi:http`, which sends its answer itself and keeps its place
    /// meanwhile.
    async fn ask_http(
        &self,
        guest: &HttpGuest,
        head: &http::request::Parts,
        place: OwnedSemaphorePermit,
        record: &mut AccessLogEntry,
    ) -> Result<(Response<Vec<Part>>, Charge), RequestError> {
        record.cache_miss();
        let store = self.http_store(guest, record.ledger())?;
        let answer = guest.ask(store, head, place, self.limits.wall).await?;
        let (answer, running) = answer.into_parts();
        response::check_http(&answer.headers)?;
        let parts = match response::promised_length(&answer, &head.method) {
            Some(0) => Vec::new(),
            length => vec![Part::Running { running, length }],
        };
        let response = Response::from_parts(answer, parts);
        let charge = self.make_room(&response, record.ledger())?;
        Ok((response, charge))
    }

    fn http_store(
        &self,
        guest: &HttpGuest,
        ledger: &Ledger,
    ) -> Result<wasmtime::Store<HttpState>, Exceeded> {
        guest.store(&self.runtime, &self.limits, ledger)
    }

    fn store(&self, ledger: &Ledger) -> Result<wasmtime::Store<InstanceState>, Exceeded> {
        let runtime = &self.runtime;
        InstanceState::store(runtime, &self.limits, &self.media, &self.settings, ledger)
    }

    /// Charges what the guest made to the request's ledger, and reserves of the budget what of it is more than each
    /// answer has room for.
    fn make_room(
        &self,
        response: &Response<Vec<Part>>,
        ledger: &Ledger,
    ) -> Result<Charge, RequestError> {
        let bytes = response_bytes(response);
        let charge = ledger.charge(Kind::Response, bytes)?;
        if bytes > RESPONSE_BYTES {
            let beyond = self.budget.try_reserve(bytes - RESPONSE_BYTES);
            ledger.keep(beyond.ok_or(NoRoom::TooLong(std::time::Duration::ZERO))?);
        }
        Ok(charge)
    }
}

/// What a request's head and all that is remembered of the request take, in bytes.
fn head_bytes(head: &http::request::Parts) -> usize {
    held_by_head(
        target(head),
        head.headers.len(),
        fields_bytes(&head.headers),
    )
}

/// The target in origin-form, or `*` (RFC 9112 section 3.2).
fn target(head: &http::request::Parts) -> &str {
    head.uri
        .path_and_query()
        .map_or("/", |target| target.as_str())
}

/// The lines of a field, in their order.
fn lines<'a>(
    head: &'a http::request::Parts,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    head.headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

fn check_size(head: &http::request::Parts) -> Result<(), RequestError> {
    if target(head).len() > TARGET_BYTES {
        return Err(RequestError::TargetTooLong);
    }
    if fields_bytes(&head.headers) > FIELDS_BYTES || head.headers.len() > FIELD_LINES {
        return Err(RequestError::FieldsTooLarge);
    }
    Ok(())
}

/// Why a request gets no answer of the guest's, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the request target is longer than {TARGET_BYTES} bytes")]
    TargetTooLong,
    #[error("the header fields are larger than {FIELDS_BYTES} bytes or more than {FIELD_LINES}")]
    FieldsTooLarge,
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("all instances are in use")]
    NoPlace,
    #[error("limit reached: {0}")]
    Limited(Limit),
    #[error("the component trapped: {0}")]
    Trapped(String),
    #[error("the component's response is invalid: {0}")]
    Invalid(#[from] InvalidResponse),
    #[error("the component returned no response")]
    NoAnswer,
    #[error("the component returned an error: {0}")]
    OfHttp(String),
}

impl From<Exceeded> for RequestError {
    fn from(exceeded: Exceeded) -> Self {
        RequestError::Limited(exceeded.into())
    }
}

impl RequestError {
    /// Why a call into an instance failed, and which limit that was the end of, if it was one.
    pub(crate) fn of_trap(error: &wasmtime::Error, limit: Option<Limit>) -> Self {
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return RequestError::NoPlace;
        }
        match limit {
            Some(limit) => RequestError::Limited(limit),
            None => RequestError::Trapped(one_line(error)),
        }
    }

    /// How the request ends by it.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            RequestError::TargetTooLong
            | RequestError::FieldsTooLarge
            | RequestError::Unfit(_)
            | RequestError::TooMany(_)
            | RequestError::NoRoom(_)
            | RequestError::NoPlace => Outcome::Rejected,
            RequestError::Limited(_) => Outcome::Limited,
            RequestError::Trapped(_)
            | RequestError::Invalid(_)
            | RequestError::NoAnswer
            | RequestError::OfHttp(_) => Outcome::Failed,
        }
    }

    /// The status, and what a client is told: what to do about it, and nothing of the host's inside.
    fn status(&self) -> (StatusCode, Cow<'static, str>) {
        let (status, message) = match self {
            RequestError::TargetTooLong => (StatusCode::URI_TOO_LONG, "Target too long"),
            RequestError::FieldsTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "Header fields too large",
            ),
            RequestError::Unfit(unfit) => unfit.status(),
            RequestError::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            RequestError::NoRoom(_) | RequestError::NoPlace => {
                (StatusCode::SERVICE_UNAVAILABLE, "Server is busy")
            }
            RequestError::Limited(limit) if limit.is_transient() => {
                (StatusCode::SERVICE_UNAVAILABLE, "Request took too long")
            }
            RequestError::Limited(limit) => {
                let message = format!("Request limit reached: {limit}");
                return (StatusCode::INTERNAL_SERVER_ERROR, message.into());
            }
            RequestError::Trapped(_)
            | RequestError::Invalid(_)
            | RequestError::NoAnswer
            | RequestError::OfHttp(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "Media component failed")
            }
        };
        (status, message.into())
    }

    /// When to come again, where that makes sense (RFC 9110 section 10.2.3).
    fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            RequestError::TooMany(too_many) => Some(too_many.retry_after_seconds()),
            _ => (self.status().0 == StatusCode::SERVICE_UNAVAILABLE).then_some(1),
        }
    }

    fn into_response(self) -> Response<Vec<Part>> {
        let (status, message) = self.status();
        let json = serde_json::json!({ "error": message }).to_string();
        let length = json.len();
        let mut response = Response::new(vec![Part::Bytes(Bytes::from(json))]);
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
        if let Some(seconds) = self.retry_after_seconds() {
            fields.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl<B: Send + 'static> tower_service::Service<Request<B>> for Millpond {
    type Response = Response<MediaBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let millpond = self.clone();
        Box::pin(async move { Ok(millpond.serve(request).await) })
    }
}
