//! The response cache: responses that the guest declares cacheable (`record cacheability` of `wit/media-serve.wit`).
//!
//! A cache key is a request's method, its target, and its lines of every field that some response varies by
//! (RFC 9111 section 4.1). A stored response lists the objects that its guest opened. Before each use they are opened
//! again, and the response is stale unless the store returns the same. The cache holds no media bytes.

use crate::body::BodyPart;
use crate::engine::media::response::{PartRecipe, Recipe};
use crate::engine::media::{Dependency, hide_private_by_name};
use crate::head_size::fields_memory_bytes;
use crate::memory_plan::RESPONSE_BYTES;
use crate::store::{self, Access, DynMediaStore, MediaObject, MediaStream, OpenError, SMALL_BYTES};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Response, StatusCode};
use millpond_ledger::LedgerHandle;
use millpond_ledger::Route;
use quick_cache::sync::{Cache, DefaultLifecycle, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, Weighter};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// The response cache of one host.
pub(crate) struct ResponseCache {
    entries: Cache<Vec<u8>, CacheEntry, ResponseWeighter>,
    /// Every field that a response has varied by.
    fields: ArcSwap<Vec<HeaderName>>,
    /// Locked while a field is added.
    adding: Mutex<()>,
}

/// Maximum size of a cache key, in bytes. Few requests have a longer one; the guest answers those.
const KEY_BYTES: usize = 2 * 1024;

/// Maximum size of a stored response, in bytes: its head, and the parts that the guest made.
const STORED_RESPONSE_BYTES: usize = 16 * 1024;

/// Maximum number of fields that responses vary by. A response that varies by a further one is not stored.
const VARY_FIELDS: usize = 32;

/// Lifetime of the entry that says that a response is not cacheable. Requests do not wait for each other until then.
const UNCACHEABLE_TTL: Duration = Duration::from_secs(1);

/// The part of a request that selects a stored response.
pub(crate) struct CacheKey {
    bytes: Vec<u8>,
    /// Number of fields in the key, from the beginning of [`ResponseCache::fields`].
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
    /// A cache of that size in bytes.
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

    /// Size of all entries now, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.entries.weight()).unwrap_or(usize::MAX)
    }

    /// Returns the key of a request; `None` if no response to it is ever stored.
    pub(crate) fn cache_key<'a, L: Iterator<Item = &'a [u8]>>(
        &self,
        method: &Method,
        target: &str,
        lines: impl Fn(&HeaderName) -> L,
    ) -> Option<CacheKey> {
        /// Terminates a part of the key: no method, target or length begins with it.
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
                // A longer line makes the key too long anyway.
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

    /// Returns the fresh response under a key without waiting.
    pub(crate) fn try_look_up(&self, cache_key: &CacheKey) -> Option<Arc<StoredResponse>> {
        let entry = self.entries.get(cache_key.bytes.as_slice())?;
        entry.response.filter(|_| Instant::now() < entry.until)
    }

    /// Looks a key up. While another request fills the entry, this waits, for `max_wait` at most.
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

    /// Removes a stale response.
    pub(crate) fn invalidate(&self, cache_key: &CacheKey, response: &Arc<StoredResponse>) {
        let is_it = |entry: &CacheEntry| {
            let remembered = entry.response.as_ref();
            remembered.is_some_and(|remembered| Arc::ptr_eq(remembered, response))
        };
        self.entries.remove_if(cache_key.bytes.as_slice(), is_it);
    }

    /// Whether a key with that many fields has every field of `vary`. If not, later keys will.
    fn has_vary_fields(&self, fields: usize, vary: &[HeaderName]) -> bool {
        let names = self.fields.load();
        let asked = names.get(..fields).unwrap_or_default();
        if vary.iter().all(|name| asked.contains(name)) {
            return true;
        }
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
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
    /// Fills the entry: with a response, or with the fact that the response is not cacheable.
    pub(crate) fn fill(self, response: Option<StoredResponse>) {
        let response = response
            .filter(|response| response.bytes() <= STORED_RESPONSE_BYTES)
            .filter(|response| self.cache.has_vary_fields(self.fields, &response.vary));
        let max_age = response
            .as_ref()
            .map_or(UNCACHEABLE_TTL, |response| response.max_age);
        // If the entry was removed meanwhile, the waiting requests run the guest.
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

/// The store returns something else than when the response was made.
pub(crate) struct Stale;

impl Dependency {
    /// Returns the object that the store has found, if it is the one of then.
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
    /// What a guest allows to be given again. `None` where its terms are none: a field that has no valid name, private
    /// media whatever the guest says of it, or a part of unknown making.
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

    /// The route of what it answers.
    pub(crate) fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// The answer's status.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer as it is written to a connection, where that is known.
    pub(crate) fn encoded(&self) -> Option<&EncodedResponse> {
        self.encoded.as_ref()
    }

    /// The answer, once more, for a request that has that ledger, if the store tells at once.
    pub(crate) fn try_revalidate(
        &self,
        media: &Arc<dyn DynMediaStore>,
        ledger: &LedgerHandle,
    ) -> Option<Result<Response<Vec<BodyPart>>, Stale>> {
        let parts = self.try_parts(media, ledger)?;
        Some(parts.map(|parts| self.response_with(parts)))
    }

    /// Its parts, once more, for a request that has that ledger, if the store tells at once.
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

    /// The answer, once more, for a request that has that ledger.
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

    /// Its parts, if what the store has found for them is the same as then.
    fn parts_from_lookups(
        &self,
        found: Vec<Result<MediaObject, OpenError>>,
    ) -> Result<Vec<BodyPart>, Stale> {
        let dependencies = self.dependencies.iter().zip(found);
        let objects = dependencies.map(|(dependency, found)| dependency.compare(found));
        self.parts_from_objects(&objects.collect::<Result<Vec<_>, Stale>>()?)
    }

    /// Its parts, made of what was opened for it.
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
                        // It would not be the same object.
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

/// An answer as it is written to a connection of HTTP/1.1 (RFC 9112 section 6), for those that are as plain as most are:
/// few bytes, of one part, and their length is told.
pub(crate) struct EncodedResponse {
    head: Bytes,
    /// What `Content-Length` says; `None` for status 304, which has no content.
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
        // What is larger has to reserve room of its own, and the date is written where there is none.
        if parts.len() > 1
            || !parts.iter().all(is_short)
            || response_bytes > RESPONSE_BYTES
            || fields.contains_key(header::DATE)
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

    /// The head: the status line and every field line but `Date`, which is the last.
    pub(crate) fn head(&self) -> Bytes {
        self.head.clone()
    }

    /// What the answer takes beside the files that it is made of, in bytes.
    pub(crate) fn response_bytes(&self) -> usize {
        self.response_bytes
    }

    /// The content, out of what the answer is made of, where it is in memory.
    pub(crate) fn content(&self, parts: Vec<BodyPart>, method: &Method) -> Option<Bytes> {
        let content = match parts.into_iter().next() {
            None => Bytes::new(),
            Some(BodyPart::Bytes(bytes)) => bytes,
            Some(BodyPart::Stream(MediaStream::File(mut slice))) => {
                slice.take_cached(SMALL_BYTES)?
            }
            Some(
                BodyPart::Stream(MediaStream::ChunkStream(_)) | BodyPart::StreamingInstance { .. },
            ) => {
                return None;
            }
        };
        match self.content_length {
            _ if *method == Method::HEAD => Some(Bytes::new()),
            None => content.is_empty().then_some(content),
            // hyper has its own place for the field where there is no content.
            Some(length) => (content.len() == length && length > 0).then_some(content),
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
        /// The cache's own, and what the allocator adds.
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

    /// What a guest allows to be given again that has opened such media.
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
