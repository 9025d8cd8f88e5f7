//! The response cache: stores responses that the guest declares cacheable (`record cacheability` of
//! `wit/media-serve.wit`).
//!
//! A cache key consists of a request's method, its target, and its lines of every field that some response varies by
//! (RFC 9111 section 4.1). A stored response lists the objects that its guest opened. Before each use the cache opens
//! them again, and a different result makes the response stale. The cache holds no bytes of media.

use crate::body::BodyPart;
use crate::downstream::X_REQUEST_ID;
use crate::engine::media::response::{PartRecipe, Recipe};
use crate::engine::media::{Dependency, hide_private_by_name};
use crate::head_size::fields_memory_bytes;
use crate::memory_plan::RESPONSE_BYTES;
use crate::store::{
    self, Access, DynMediaStore, MediaObject, MediaStream, OpenError, OriginCacheStatus,
    SMALL_BYTES,
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Response, StatusCode};
use millpond_ledger::LedgerHandle;
use millpond_ledger::Route;
use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, Weighter};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// The response cache of one host.
pub(crate) struct ResponseCache {
    entries: Cache<Vec<u8>, CacheEntry, ResponseWeighter>,
    /// Fields that responses vary by.
    fields: ArcSwap<Vec<HeaderName>>,
    /// Held while a field is added.
    adding: Mutex<()>,
}

/// Maximum size of a cache key, in bytes. Few requests have a longer one, and the guest answers those.
const KEY_BYTES: usize = 2 * 1024;

/// Maximum size of a stored response, in bytes: its head, and the parts that the guest made.
const STORED_RESPONSE_BYTES: usize = 16 * 1024;

/// Maximum number of fields that responses vary by. A response that varies by a further one is not stored.
const VARY_FIELDS: usize = 32;

/// Lifetime of an entry for a response that is not cacheable. Until then requests with its key do not wait for each
/// other.
const UNCACHEABLE_TTL: Duration = Duration::from_secs(1);

/// The part of a request that selects a stored response.
pub(crate) struct CacheKey {
    bytes: Vec<u8>,
    /// Number of fields in the key, counted from the start of [`ResponseCache::fields`].
    fields: usize,
}

/// The value under a cache key.
#[derive(Clone)]
struct CacheEntry {
    until: Instant,
    /// `None` if the response is not cacheable.
    response: Option<Arc<StoredResponse>>,
}

/// Result of a lookup.
pub(crate) enum Lookup<'a> {
    /// A stored response, to be validated against the store.
    Hit(Arc<StoredResponse>),
    /// No response. The caller runs the guest; requests with the same key wait for it.
    Miss(FillGuard<'a>),
    /// Not cacheable. The caller runs the guest.
    Bypass,
}

type Guard<'a> = PlaceholderGuard<
    'a,
    Vec<u8>,
    CacheEntry,
    ResponseWeighter,
    DefaultHashBuilder,
    DefaultLifecycle<Vec<u8>, CacheEntry>,
>;

/// The right to fill an entry. Requests with the same key wait until it is used or dropped.
pub(crate) struct FillGuard<'a> {
    cache: &'a ResponseCache,
    fields: usize,
    guard: Guard<'a>,
}

impl ResponseCache {
    /// Returns an empty cache of `max_bytes` at most.
    pub(crate) fn new(max_bytes: usize) -> Self {
        const USUAL_BYTES: usize = 2 * 1024;
        ResponseCache {
            entries: Cache::with_weighter(
                max_bytes / USUAL_BYTES,
                max_bytes as u64,
                ResponseWeighter,
            ),
            fields: ArcSwap::default(),
            adding: Mutex::new(()),
        }
    }

    /// Size of all entries, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.entries.weight()).unwrap_or(usize::MAX)
    }

    /// Returns the cache key of a request. `None` if the cache never stores a response to it.
    pub(crate) fn cache_key<'a, L: Iterator<Item = &'a [u8]>>(
        &self,
        method: &Method,
        target: &str,
        lines: impl Fn(&HeaderName) -> L,
    ) -> Option<CacheKey> {
        /// Terminates a part of the key. No method, target or length begins with it.
        const END: u8 = 0xff;
        if !matches!(*method, Method::GET | Method::HEAD) || target.len() > KEY_BYTES {
            return None;
        }
        let names = self.fields.load();
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(method.as_str().as_bytes());
        bytes.push(END);
        bytes.extend_from_slice(target.as_bytes());
        bytes.push(END);
        for name in names.iter() {
            for line in lines(name) {
                // A longer line would exceed the maximum size of a key.
                let length = u16::try_from(line.len())
                    .ok()
                    .filter(|length| *length < 0xff00)?;
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(line);
            }
            bytes.push(END);
        }
        (bytes.len() <= KEY_BYTES).then_some(CacheKey {
            bytes,
            fields: names.len(),
        })
    }

    /// Returns the fresh response of a key, without waiting.
    pub(crate) fn try_look_up(&self, cache_key: &CacheKey) -> Option<Arc<StoredResponse>> {
        let entry = self.entries.get(cache_key.bytes.as_slice())?;
        entry.response.filter(|_| Instant::now() < entry.until)
    }

    /// Looks up a key. If another request is filling the entry, this waits for it, for `max_wait` at most.
    pub(crate) async fn look_up(&self, cache_key: &CacheKey, max_wait: Duration) -> Lookup<'_> {
        let bytes = cache_key.bytes.as_slice();
        if let Some(entry) = self.entries.get(bytes) {
            if Instant::now() < entry.until {
                return entry.into();
            }
            let is_over = |entry: &CacheEntry| Instant::now() >= entry.until;
            self.entries.remove_if(bytes, is_over);
        }
        let lookup = timeout(max_wait, self.entries.get_value_or_guard_async(bytes));
        match Box::pin(lookup).await {
            Ok(Ok(entry)) => entry.into(),
            Ok(Err(guard)) => Lookup::Miss(FillGuard {
                cache: self,
                fields: cache_key.fields,
                guard,
            }),
            Err(_) => Lookup::Bypass,
        }
    }

    /// Removes all responses.
    pub(crate) fn clear(&self) {
        self.entries.clear();
    }

    /// Removes a stale response.
    pub(crate) fn invalidate(&self, cache_key: &CacheKey, response: &Arc<StoredResponse>) {
        let is_it = |entry: &CacheEntry| {
            let remembered = entry.response.as_ref();
            remembered.is_some_and(|remembered| Arc::ptr_eq(remembered, response))
        };
        self.entries.remove_if(cache_key.bytes.as_slice(), is_it);
    }

    /// Returns whether a key with this number of fields includes every field of `vary`. If not, later keys do.
    fn has_vary_fields(&self, fields: usize, vary: &[HeaderName]) -> bool {
        let names = self.fields.load();
        let asked = names.get(..fields).unwrap_or_default();
        if vary.iter().all(|name| asked.contains(name)) {
            return true;
        }
        let _adding = self.adding.lock();
        let mut names = Vec::clone(&self.fields.load());
        for name in vary {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        if names.len() <= VARY_FIELDS {
            self.fields.store(Arc::new(names));
        }
        false
    }
}

impl FillGuard<'_> {
    /// Fills the entry. `None` stores that the response is not cacheable.
    pub(crate) fn fill(self, response: Option<StoredResponse>) {
        let response = response
            .filter(|response| response.bytes() <= STORED_RESPONSE_BYTES)
            .filter(|response| self.cache.has_vary_fields(self.fields, &response.vary));
        let max_age = response
            .as_ref()
            .map_or(UNCACHEABLE_TTL, |response| response.max_age);
        // The entry may have been removed meanwhile. The waiting requests run the guest then.
        let _ = self.guard.insert(CacheEntry {
            until: Instant::now() + max_age,
            response: response.map(Arc::new),
        });
    }
}

impl From<CacheEntry> for Lookup<'_> {
    fn from(entry: CacheEntry) -> Self {
        match entry.response {
            Some(response) => Lookup::Hit(response),
            None => Lookup::Bypass,
        }
    }
}

/// A stored response.
#[derive(Debug)]
pub(crate) struct StoredResponse {
    status: StatusCode,
    fields: HeaderMap,
    parts: Vec<PartRecipe>,
    dependencies: Vec<Dependency>,
    vary: Vec<HeaderName>,
    max_age: Duration,
    encoded: Option<EncodedResponse>,
    route: Arc<Route>,
}

/// The store returns something else than it did when the response was made.
pub(crate) struct Stale;

impl Dependency {
    /// Returns the object that the store has found, if it is unchanged.
    fn compare(&self, found: Result<MediaObject, OpenError>) -> Result<Option<MediaObject>, Stale> {
        match (
            found.and_then(|object| hide_private_by_name(object, &self.key)),
            &self.info,
        ) {
            (Ok(object), Some(info))
                if Arc::ptr_eq(object.shared_info(), info) || object.info() == &**info =>
            {
                Ok(Some(object))
            }
            (Err(OpenError::NotFound), None) => Ok(None),
            _ => Err(Stale),
        }
    }
}

impl StoredResponse {
    /// Returns a response that can be stored. `None` if a field name in `vary` is invalid, if the media is private, or
    /// if the source of a part is unknown.
    pub(crate) fn of(
        recipe: Recipe,
        status: StatusCode,
        fields: &HeaderMap,
        route: Arc<Route>,
    ) -> Option<Self> {
        let Recipe {
            cacheability,
            parts,
            dependencies,
        } = recipe;
        let is_private = |dependency: &Dependency| {
            let info = dependency.info.as_ref();
            info.is_some_and(|info| info.access == Access::Private)
        };
        let is_reproducible = |part: &PartRecipe| match part {
            PartRecipe::Bytes(_) => true,
            PartRecipe::Object { dependency, .. } => {
                dependency.is_some_and(|index| index < dependencies.len())
            }
        };
        if dependencies.iter().any(is_private) || !parts.iter().all(is_reproducible) {
            return None;
        }
        let names = cacheability.vary.iter().map(HeaderName::try_from);
        Some(StoredResponse {
            vary: names.collect::<Result<_, _>>().ok()?,
            max_age: Duration::from_millis(cacheability.max_age_ms.into()),
            encoded: EncodedResponse::of(status, fields, &parts, &dependencies),
            route,
            status,
            fields: fields.clone(),
            parts,
            dependencies,
        })
    }

    /// Route of the request.
    pub(crate) fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Status of the response.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Fields of the response.
    pub(crate) fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    /// The response as bytes of HTTP/1.1, if it is short enough.
    pub(crate) fn encoded(&self) -> Option<&EncodedResponse> {
        self.encoded.as_ref()
    }

    /// Validates the response against the store, and returns a copy for the request with that ledger. `None` if the
    /// store would have to wait.
    pub(crate) fn try_revalidate(
        &self,
        media: &Arc<dyn DynMediaStore>,
        ledger: &LedgerHandle,
    ) -> Option<Result<Response<Vec<BodyPart>>, Stale>> {
        let parts = self.try_parts(media, ledger)?;
        Some(parts.map(|parts| self.response_with(parts)))
    }

    /// Validates the response, and returns its parts for the request with that ledger. `None` if the store would have
    /// to wait.
    pub(crate) fn try_parts(
        &self,
        media: &Arc<dyn DynMediaStore>,
        ledger: &LedgerHandle,
    ) -> Option<Result<Vec<BodyPart>, Stale>> {
        let found = self
            .dependencies
            .iter()
            .map(|dependency| media.try_open(&dependency.key, ledger));
        Some(self.parts_from_lookups(found.collect::<Option<Vec<_>>>()?))
    }

    /// Validates the response against the store, and returns a copy for the request with that ledger.
    pub(crate) async fn revalidate(
        &self,
        media: &Arc<dyn DynMediaStore>,
        ledger: &LedgerHandle,
    ) -> Result<Response<Vec<BodyPart>>, Stale> {
        let mut found = Vec::with_capacity(self.dependencies.len());
        for dependency in &self.dependencies {
            found.push(store::open(media, &dependency.key, ledger).await);
        }
        Ok(self.response_with(self.parts_from_lookups(found)?))
    }

    fn response_with(&self, parts: Vec<BodyPart>) -> Response<Vec<BodyPart>> {
        let mut response = Response::new(parts);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields.clone();
        response
    }

    /// Returns the parts, if every lookup has the same result as before.
    fn parts_from_lookups(
        &self,
        found: Vec<Result<MediaObject, OpenError>>,
    ) -> Result<Vec<BodyPart>, Stale> {
        let dependencies = self.dependencies.iter().zip(found);
        let objects = dependencies.map(|(dependency, found)| dependency.compare(found));
        self.parts_from_objects(&objects.collect::<Result<Vec<_>, Stale>>()?)
    }

    /// Returns the parts, made of these objects.
    fn parts_from_objects(&self, objects: &[Option<MediaObject>]) -> Result<Vec<BodyPart>, Stale> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            match part {
                PartRecipe::Bytes(bytes) => parts.push(BodyPart::Bytes(bytes.clone())),
                PartRecipe::Object {
                    dependency,
                    offset,
                    length,
                } => {
                    let object = dependency.and_then(|index| objects.get(index)?.as_ref());
                    let stream = object.map(|object| object.read(*offset, *length));
                    match stream {
                        Some(Ok(stream)) => parts.push(BodyPart::Stream(stream)),
                        // The object has another length, so it is another object.
                        _ => return Err(Stale),
                    }
                }
            }
        }
        Ok(parts)
    }

    fn bytes(&self) -> usize {
        let parts = self.parts.iter().map(|part| match part {
            PartRecipe::Bytes(bytes) => size_of::<PartRecipe>() + bytes.len(),
            PartRecipe::Object { .. } => size_of::<PartRecipe>(),
        });
        let dependencies = self.dependencies.iter().map(|dependency| {
            let info = dependency.info.as_ref().map_or(0, |info| info.held_bytes());
            size_of::<Dependency>() + dependency.key.held_bytes() + info
        });
        let vary = self.vary.len() * size_of::<HeaderName>();
        let encoded = self.encoded.as_ref().map_or(0, EncodedResponse::held_bytes);
        let of_all = size_of::<Self>() + fields_memory_bytes(&self.fields) + parts.sum::<usize>();
        of_all + dependencies.sum::<usize>() + vary + encoded
    }
}

/// A response encoded for HTTP/1.1 (RFC 9112 section 6). Only short responses with one part and a `Content-Length` have
/// one.
#[derive(Debug)]
pub(crate) struct EncodedResponse {
    head: Bytes,
    /// Value of `Content-Length`. `None` for status 304, which has no content.
    content_length: Option<usize>,
    response_bytes: usize,
}

impl EncodedResponse {
    fn of(
        status: StatusCode,
        fields: &HeaderMap,
        parts: &[PartRecipe],
        dependencies: &[Dependency],
    ) -> Option<Self> {
        let is_short = |part: &PartRecipe| match part {
            PartRecipe::Bytes(bytes) => bytes.len() <= SMALL_BYTES,
            PartRecipe::Object { dependency, .. } => {
                let dependency = dependency.and_then(|index| dependencies.get(index));
                let info = dependency.and_then(|dependency| dependency.info.as_ref());
                info.is_some_and(|info| info.length <= SMALL_BYTES as u64)
            }
        };
        let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
        let content_length = match (lengths.next(), lengths.next()) {
            (None, _) if status == StatusCode::NOT_MODIFIED => None,
            (Some(length), None) if status != StatusCode::NOT_MODIFIED => {
                Some(length.to_str().ok()?.parse().ok()?)
            }
            _ => return None,
        };
        let parts_bytes = parts.iter().map(PartRecipe::made_bytes).sum::<usize>();
        let response_bytes = fields_memory_bytes(fields) + parts_bytes;
        // A larger response reserves memory of its own. A response with a `Date` keeps that, and the server would add
        // another. The server appends a request id as well.
        if parts.len() > 1
            || !parts.iter().all(is_short)
            || response_bytes > RESPONSE_BYTES
            || fields.contains_key(header::DATE)
            || fields.contains_key(X_REQUEST_ID)
        {
            return None;
        }
        let mut head = Vec::with_capacity(RESPONSE_BYTES);
        head.extend_from_slice(b"HTTP/1.1 ");
        head.extend_from_slice(status.as_str().as_bytes());
        head.push(b' ');
        head.extend_from_slice(status.canonical_reason()?.as_bytes());
        head.extend_from_slice(b"\r\n");
        for (name, value) in fields {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        Some(EncodedResponse {
            head: Bytes::copy_from_slice(&head),
            content_length,
            response_bytes,
        })
    }

    /// Returns the head of the response: the status line, and every field line but `Date`, which the server appends.
    pub(crate) fn head(&self, cache_status: Option<&OriginCacheStatus>) -> Bytes {
        let Some(status) = cache_status else {
            return self.head.clone();
        };
        let mut head = self.head.to_vec();
        status.lines(&mut head);
        head.into()
    }

    /// Memory of the response without its files, in bytes.
    pub(crate) fn response_bytes(&self) -> usize {
        self.response_bytes
    }

    /// Returns the content, if it is in memory.
    pub(crate) fn content(&self, parts: Vec<BodyPart>, method: &Method) -> Option<Bytes> {
        let content = match parts.into_iter().next() {
            None => Bytes::new(),
            Some(BodyPart::Bytes(bytes)) => bytes,
            Some(BodyPart::Stream(MediaStream::File(mut slice))) => {
                slice.take_cached(SMALL_BYTES)?
            }
            Some(
                BodyPart::Stream(MediaStream::ChunkStream(_) | MediaStream::Partial(_))
                | BodyPart::StreamingInstance { .. },
            ) => {
                return None;
            }
        };
        match self.content_length {
            _ if *method == Method::HEAD => Some(Bytes::new()),
            None => content.is_empty().then_some(content),
            Some(length) => (content.len() == length).then_some(content),
        }
    }

    fn held_bytes(&self) -> usize {
        self.head.len()
    }
}

#[derive(Clone)]
struct ResponseWeighter;

impl Weighter<Vec<u8>, CacheEntry> for ResponseWeighter {
    fn weight(&self, cache_key: &Vec<u8>, entry: &CacheEntry) -> u64 {
        /// Memory of the cache's own entry, and the allocator's rounding.
        const OVERHEAD_BYTES: usize = 128;
        let response = entry
            .response
            .as_ref()
            .map_or(0, |response| response.bytes());
        (OVERHEAD_BYTES + size_of::<CacheEntry>() + cache_key.capacity() + response) as u64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used)]
    use super::*;
    use crate::engine::media::serve;
    use crate::store::{ObjectInfo, ObjectKey};
    use http::HeaderValue;

    /// Response of a guest that has opened such media.
    fn of(access: Access) -> Option<StoredResponse> {
        let cacheability = serve::Cacheability {
            vary: vec!["range".into()],
            max_age_ms: 1000,
        };
        let dependency = Dependency {
            key: ObjectKey::Named("a.gif".into()),
            info: Some(Arc::new(ObjectInfo::new(6, "image/gif", access))),
        };
        let fields = HeaderMap::new();
        let route = millpond_ledger::LedgerRegistry::default().route("/");
        let recipe = Recipe {
            cacheability,
            parts: Vec::new(),
            dependencies: vec![dependency],
        };
        StoredResponse::of(recipe, StatusCode::OK, &fields, route)
    }

    fn cache_key(cache: &ResponseCache, target: &str, range: Option<&'static str>) -> CacheKey {
        let lines = |name: &HeaderName| {
            let range = range.filter(|_| name == "range");
            range.map(str::as_bytes).into_iter()
        };
        cache.cache_key(&Method::GET, target, lines).unwrap()
    }

    async fn fill(cache: &ResponseCache, cache_key: &CacheKey, response: Option<StoredResponse>) {
        match cache.look_up(cache_key, Duration::ZERO).await {
            Lookup::Miss(guard) => guard.fill(response),
            _ => panic!("something is stored"),
        }
    }

    #[test]
    fn private_media_is_in_no_answer_that_is_given_again_whatever_the_guest_says() {
        assert!(of(Access::Public).is_some());
        assert!(of(Access::Private).is_none());
    }

    #[tokio::test]
    async fn an_answer_is_remembered_once_the_question_has_all_that_it_depends_on() {
        let cache = ResponseCache::new(64 * 1024);
        let before = cache_key(&cache, "/a", Some("bytes=0-0"));
        fill(&cache, &before, of(Access::Public)).await;
        let with_range = cache_key(&cache, "/a", Some("bytes=0-0"));
        assert_ne!(before.bytes, with_range.bytes);
        fill(&cache, &with_range, of(Access::Public)).await;
        let found = cache.look_up(&with_range, Duration::ZERO).await;
        assert!(matches!(found, Lookup::Hit(_)));
        for other in [None, Some("bytes=0-1")] {
            let other = cache_key(&cache, "/a", other);
            let found = cache.look_up(&other, Duration::ZERO).await;
            assert!(matches!(found, Lookup::Miss(_)));
        }
    }

    #[test]
    fn lines_of_fields_are_not_mistaken_for_each_other() {
        let cache = ResponseCache::new(64 * 1024);
        let names = ["a", "b"].map(|name| HeaderName::try_from(name).unwrap());
        assert!(!cache.has_vary_fields(0, &names));
        let keys = [
            &[][..],
            &[("a", "")],
            &[("b", "")],
            &[("a", "1"), ("a", "2")],
            &[("a", "12")],
            &[("a", "1"), ("b", "2")],
            &[("b", "1"), ("b", "2")],
            &[("a", "2"), ("a", "1")],
        ]
        .map(|lines: &[(&str, &str)]| {
            let mut fields = HeaderMap::new();
            for (name, value) in lines {
                let name = HeaderName::try_from(*name).unwrap();
                fields.append(name, value.parse().unwrap());
            }
            let lines = |name: &HeaderName| fields.get_all(name).iter().map(HeaderValue::as_bytes);
            let cache_key = cache.cache_key(&Method::GET, "/", lines);
            cache_key.unwrap().bytes
        });
        for (index, cache_key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(cache_key), "{index}");
        }
    }

    #[tokio::test]
    async fn however_many_questions_there_are_what_is_remembered_has_a_bound() {
        const MOST_BYTES: usize = 64 * 1024;
        let cache = ResponseCache::new(MOST_BYTES);
        assert!(!cache.has_vary_fields(0, &["range".parse().unwrap()]));
        for turn in 0..2000 {
            let cache_key = cache_key(&cache, &format!("/{turn}"), None);
            fill(&cache, &cache_key, of(Access::Public)).await;
            assert!(cache.bytes() <= MOST_BYTES);
        }
        assert!(cache.bytes() > MOST_BYTES / 2);
    }
}
