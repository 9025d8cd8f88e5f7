//! Answers that the guest allows to be given again, each to the question that it answers: `record reuse` of
//! `wit/media-serve.wit`.
//!
//! A question is a request's method, target, and its lines of every field on which answers depend. An answer remembers
//! what its guest asked the store for and was told; before it is given again the store is asked the same, and must tell
//! the same. So the objects are opened anew for each request, and none of their bytes lie here.

use crate::body::Part;
use crate::instance::{Opened, serve, visible};
use crate::ledger::LedgerHandle;
use crate::ledger::route::Route;
use crate::limits::{RESPONSE_BYTES, held_by_fields};
use crate::store::{self, Access, AnyStore, MediaObject, MediaStream, OpenError, SMALL_BYTES};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Response, StatusCode};
use quick_cache::sync::{Cache, DefaultLifecycle, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, Weighter};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// The answers of one host that may be given again.
pub(crate) struct Reuse {
    answers: Cache<Vec<u8>, Entry, ByBytes>,
    /// The fields on which an answer has ever depended.
    fields: ArcSwap<Vec<HeaderName>>,
    /// Held while that is added to.
    adding: Mutex<()>,
}

/// Largest question that is remembered, in bytes: few have as much.
const QUESTION_BYTES: usize = 2 * 1024;

/// Largest answer that is remembered, in bytes: a head, and parts that the guest made.
const ANSWER_BYTES: usize = 16 * 1024;

/// Most fields on which answers may depend. A guest that names further ones is asked each time.
const FIELDS: usize = 32;

/// How long it is remembered that an answer may not be given again. Until then nobody waits for another's.
const NOT_REUSABLE: Duration = Duration::from_secs(1);

/// A request, as far as answers may depend on it.
pub(crate) struct Question {
    bytes: Vec<u8>,
    /// How many of the fields on which answers depend it is made with.
    fields: usize,
}

/// What is remembered of a question.
#[derive(Clone)]
struct Entry {
    until: Instant,
    /// `None` where each request is to be answered by the guest.
    answer: Option<Arc<Reusable>>,
}

/// What there is to a question.
pub(crate) enum Known<'a> {
    /// An answer to be given again, if the store still tells the same.
    Answer(Arc<Reusable>),
    /// Nothing. Whoever asks the guest now, asks for all who have the same question meanwhile.
    Nothing(Asking<'a>),
    /// That each is to ask the guest.
    Guest,
}

type Guard<'a> = PlaceholderGuard<
    'a,
    Vec<u8>,
    Entry,
    ByBytes,
    DefaultHashBuilder,
    DefaultLifecycle<Vec<u8>, Entry>,
>;

/// The one who asks the guest. Others wait for what it says, until this is dropped.
pub(crate) struct Asking<'a> {
    reuse: &'a Reuse,
    fields: usize,
    guard: Guard<'a>,
}

impl Reuse {
    /// Room for answers of so many bytes together.
    pub(crate) fn new(most_bytes: usize) -> Self {
        const USUAL_BYTES: usize = 2 * 1024;
        Reuse {
            answers: Cache::with_weighter(most_bytes / USUAL_BYTES, most_bytes as u64, ByBytes),
            fields: ArcSwap::default(),
            adding: Mutex::new(()),
        }
    }

    /// What is remembered now, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.answers.weight()).unwrap_or(usize::MAX)
    }

    /// The question that a request is; `None` where no answer to it is ever given again.
    pub(crate) fn question<'a, L: Iterator<Item = &'a [u8]>>(
        &self,
        method: &Method,
        target: &str,
        lines: impl Fn(&HeaderName) -> L,
    ) -> Option<Question> {
        /// Ends what has an end: no method, target or length begins with it.
        const END: u8 = 0xff;
        if !matches!(*method, Method::GET | Method::HEAD) || target.len() > QUESTION_BYTES {
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
                // A length that does not fit makes it too long anyway.
                let length = u16::try_from(line.len())
                    .ok()
                    .filter(|length| *length < 0xff00)?;
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(line);
            }
            bytes.push(END);
        }
        (bytes.len() <= QUESTION_BYTES).then_some(Question {
            bytes,
            fields: names.len(),
        })
    }

    /// The answer to a question, where there is one to be given again.
    pub(crate) fn known(&self, question: &Question) -> Option<Arc<Reusable>> {
        let entry = self.answers.get(question.bytes.as_slice())?;
        entry.answer.filter(|_| Instant::now() < entry.until)
    }

    /// What there is to a question. Where somebody else is asking the guest just now, it waits for what that says, for
    /// so long at most.
    pub(crate) async fn look_up(&self, question: &Question, longest: Duration) -> Known<'_> {
        let bytes = question.bytes.as_slice();
        if let Some(entry) = self.answers.get(bytes) {
            if Instant::now() < entry.until {
                return entry.into();
            }
            let is_over = |entry: &Entry| Instant::now() >= entry.until;
            self.answers.remove_if(bytes, is_over);
        }
        let asked = timeout(longest, self.answers.get_value_or_guard_async(bytes));
        match Box::pin(asked).await {
            Ok(Ok(entry)) => entry.into(),
            Ok(Err(guard)) => Known::Nothing(Asking {
                reuse: self,
                fields: question.fields,
                guard,
            }),
            Err(_) => Known::Guest,
        }
    }

    /// Forgets an answer that does not hold any more.
    pub(crate) fn forget(&self, question: &Question, answer: &Arc<Reusable>) {
        let is_it = |entry: &Entry| {
            let remembered = entry.answer.as_ref();
            remembered.is_some_and(|remembered| Arc::ptr_eq(remembered, answer))
        };
        self.answers.remove_if(question.bytes.as_slice(), is_it);
    }

    /// Whether a question that was made with the first `fields` of them has all of these fields in it. If it has not,
    /// later ones will.
    fn covers(&self, fields: usize, depends_on: &[HeaderName]) -> bool {
        let names = self.fields.load();
        let asked = names.get(..fields).unwrap_or_default();
        if depends_on.iter().all(|name| asked.contains(name)) {
            return true;
        }
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names = Vec::clone(&self.fields.load());
        for name in depends_on {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        if names.len() <= FIELDS {
            self.fields.store(Arc::new(names));
        }
        false
    }
}

impl Asking<'_> {
    /// Says what the guest's answer is worth to others: that it may be given again, or not.
    pub(crate) fn tell(self, answer: Option<Reusable>) {
        let answer = answer
            .filter(|answer| answer.bytes() <= ANSWER_BYTES)
            .filter(|answer| self.reuse.covers(self.fields, &answer.depends_on));
        let valid_for = answer
            .as_ref()
            .map_or(NOT_REUSABLE, |answer| answer.valid_for);
        // One that has been forgotten meanwhile leaves whoever waits to ask for themselves.
        let _ = self.guard.insert(Entry {
            until: Instant::now() + valid_for,
            answer: answer.map(Arc::new),
        });
    }
}

impl From<Entry> for Known<'_> {
    fn from(entry: Entry) -> Self {
        match entry.answer {
            Some(answer) => Known::Answer(answer),
            None => Known::Guest,
        }
    }
}

/// An answer that may be given again, and on which terms.
pub(crate) struct Reusable {
    status: StatusCode,
    fields: HeaderMap,
    parts: Vec<PartSource>,
    opened: Vec<Opened>,
    depends_on: Vec<HeaderName>,
    valid_for: Duration,
    written: Option<Written>,
    route: Arc<Route>,
}

/// The store does not tell the same of an object.
pub(crate) struct Changed;

impl Opened {
    /// What the store has found now, if it is what it found then.
    fn compare(
        &self,
        found: Result<MediaObject, OpenError>,
    ) -> Result<Option<MediaObject>, Changed> {
        match (
            found.and_then(|object| visible(object, &self.key)),
            &self.info,
        ) {
            (Ok(object), Some(info))
                if Arc::ptr_eq(object.shared_info(), info) || object.info() == &**info =>
            {
                Ok(Some(object))
            }
            (Err(OpenError::NotFound), None) => Ok(None),
            _ => Err(Changed),
        }
    }
}

/// What a part of an answer is made of.
pub(crate) enum PartSource {
    /// Bytes that the guest made.
    Bytes(Bytes),
    /// Bytes of an object.
    Object {
        /// Its place among what was opened.
        opened: usize,
        /// The first byte.
        offset: u64,
        /// How many.
        length: u64,
    },
}

impl PartSource {
    /// What a part that is made of it takes beside the file that it is of, in bytes.
    fn made_bytes(&self) -> usize {
        match self {
            PartSource::Bytes(bytes) => size_of::<Part>() + bytes.len(),
            PartSource::Object { .. } => size_of::<Part>(),
        }
    }
}

impl Reusable {
    /// What a guest allows to be given again. `None` where its terms are none: a field that has no valid name, private
    /// media whatever the guest says of it, or a part of unknown making.
    pub(crate) fn of(
        terms: &serve::Cacheability,
        status: StatusCode,
        fields: &HeaderMap,
        parts: Vec<PartSource>,
        opened: Vec<Opened>,
        route: Arc<Route>,
    ) -> Option<Self> {
        let is_private = |opened: &Opened| {
            let info = opened.info.as_ref();
            info.is_some_and(|info| info.access == Access::Private)
        };
        let is_made_of_it = |part: &PartSource| match part {
            PartSource::Bytes(_) => true,
            PartSource::Object { opened: place, .. } => *place < opened.len(),
        };
        if opened.iter().any(is_private) || !parts.iter().all(is_made_of_it) {
            return None;
        }
        let names = terms.vary.iter().map(HeaderName::try_from);
        Some(Reusable {
            depends_on: names.collect::<Result<_, _>>().ok()?,
            valid_for: Duration::from_millis(terms.max_age_ms.into()),
            written: Written::of(status, fields, &parts, &opened),
            route,
            status,
            fields: fields.clone(),
            parts,
            opened,
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
    pub(crate) fn written(&self) -> Option<&Written> {
        self.written.as_ref()
    }

    /// The answer, once more, for a request that has that ledger, if the store tells at once.
    pub(crate) fn again_now(
        &self,
        media: &Arc<dyn AnyStore>,
        ledger: &LedgerHandle,
    ) -> Option<Result<Response<Vec<Part>>, Changed>> {
        let parts = self.parts_now(media, ledger)?;
        Some(parts.map(|parts| self.of_parts(parts)))
    }

    /// Its parts, once more, for a request that has that ledger, if the store tells at once.
    pub(crate) fn parts_now(
        &self,
        media: &Arc<dyn AnyStore>,
        ledger: &LedgerHandle,
    ) -> Option<Result<Vec<Part>, Changed>> {
        let found = self
            .opened
            .iter()
            .map(|opened| media.open_now(&opened.key, ledger));
        Some(self.of_found(found.collect::<Option<Vec<_>>>()?))
    }

    /// The answer, once more, for a request that has that ledger.
    pub(crate) async fn again(
        &self,
        media: &Arc<dyn AnyStore>,
        ledger: &LedgerHandle,
    ) -> Result<Response<Vec<Part>>, Changed> {
        let mut found = Vec::with_capacity(self.opened.len());
        for opened in &self.opened {
            found.push(store::open(media, &opened.key, ledger).await);
        }
        Ok(self.of_parts(self.of_found(found)?))
    }

    fn of_parts(&self, parts: Vec<Part>) -> Response<Vec<Part>> {
        let mut response = Response::new(parts);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields.clone();
        response
    }

    /// Its parts, if what the store has found for them is the same as then.
    fn of_found(&self, found: Vec<Result<MediaObject, OpenError>>) -> Result<Vec<Part>, Changed> {
        let opened = self.opened.iter().zip(found);
        let objects = opened.map(|(opened, found)| opened.compare(found));
        self.of_objects(&objects.collect::<Result<Vec<_>, Changed>>()?)
    }

    /// Its parts, made of what was opened for it.
    fn of_objects(&self, objects: &[Option<MediaObject>]) -> Result<Vec<Part>, Changed> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            match part {
                PartSource::Bytes(bytes) => parts.push(Part::Bytes(bytes.clone())),
                PartSource::Object {
                    opened,
                    offset,
                    length,
                } => {
                    let object = objects.get(*opened).and_then(Option::as_ref);
                    let stream = object.map(|object| object.read(*offset, *length));
                    match stream {
                        Some(Ok(stream)) => parts.push(Part::Stream(stream)),
                        // It would not be the same object.
                        _ => return Err(Changed),
                    }
                }
            }
        }
        Ok(parts)
    }

    fn bytes(&self) -> usize {
        let parts = self.parts.iter().map(|part| match part {
            PartSource::Bytes(bytes) => size_of::<PartSource>() + bytes.len(),
            PartSource::Object { .. } => size_of::<PartSource>(),
        });
        let opened = self.opened.iter().map(|opened| {
            let info = opened.info.as_ref().map_or(0, |info| info.held_bytes());
            size_of::<Opened>() + opened.key.held_bytes() + info
        });
        let depends_on = self.depends_on.len() * size_of::<HeaderName>();
        let written = self.written.as_ref().map_or(0, Written::held_bytes);
        let of_all = size_of::<Self>() + held_by_fields(&self.fields) + parts.sum::<usize>();
        of_all + opened.sum::<usize>() + depends_on + written
    }
}

/// An answer as it is written to a connection of HTTP/1.1 (RFC 9112 section 6), for those that are as plain as most are:
/// few bytes, of one part, and their length is told.
pub(crate) struct Written {
    head: Bytes,
    /// What `Content-Length` says; `None` for status 304, which has no content.
    content_length: Option<usize>,
    response_bytes: usize,
}

impl Written {
    fn of(
        status: StatusCode,
        fields: &HeaderMap,
        parts: &[PartSource],
        opened: &[Opened],
    ) -> Option<Self> {
        let is_short = |part: &PartSource| match part {
            PartSource::Bytes(bytes) => bytes.len() <= SMALL_BYTES,
            PartSource::Object { opened: place, .. } => {
                let info = opened.get(*place).and_then(|opened| opened.info.as_ref());
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
        let parts_bytes = parts.iter().map(PartSource::made_bytes).sum::<usize>();
        let response_bytes = held_by_fields(fields) + parts_bytes;
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
        Some(Written {
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
    pub(crate) fn content(&self, parts: Vec<Part>, method: &Method) -> Option<Bytes> {
        let content = match parts.into_iter().next() {
            None => Bytes::new(),
            Some(Part::Bytes(bytes)) => bytes,
            Some(Part::Stream(MediaStream::File(mut slice))) => slice.take_kept(SMALL_BYTES)?,
            Some(Part::Stream(MediaStream::Pieces(_)) | Part::Running { .. }) => return None,
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
struct ByBytes;

impl Weighter<Vec<u8>, Entry> for ByBytes {
    fn weight(&self, question: &Vec<u8>, entry: &Entry) -> u64 {
        /// The cache's own, and what the allocator adds.
        const OVERHEAD_BYTES: usize = 128;
        let answer = entry.answer.as_ref().map_or(0, |answer| answer.bytes());
        (OVERHEAD_BYTES + size_of::<Entry>() + question.capacity() + answer) as u64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used)]
    use super::*;
    use crate::ledger::route::Routes;
    use crate::store::{Key, ObjectInfo};
    use http::HeaderValue;

    /// What a guest allows to be given again that has opened such media.
    fn of(access: Access) -> Option<Reusable> {
        let terms = serve::Cacheability {
            vary: vec!["range".into()],
            max_age_ms: 1000,
        };
        let opened = Opened {
            key: Key::Named("a.gif".into()),
            info: Some(Arc::new(ObjectInfo::new(6, "image/gif", access))),
        };
        let fields = HeaderMap::new();
        let route = Routes::default().of("/");
        let (status, parts) = (StatusCode::OK, Vec::new());
        Reusable::of(&terms, status, &fields, parts, vec![opened], route)
    }

    fn question(reuse: &Reuse, target: &str, range: Option<&'static str>) -> Question {
        let lines = |name: &HeaderName| {
            let range = range.filter(|_| name == "range");
            range.map(str::as_bytes).into_iter()
        };
        reuse.question(&Method::GET, target, lines).unwrap()
    }

    async fn tell(reuse: &Reuse, question: &Question, answer: Option<Reusable>) {
        match reuse.look_up(question, Duration::ZERO).await {
            Known::Nothing(asking) => asking.tell(answer),
            _ => panic!("something is known"),
        }
    }

    #[test]
    fn private_media_is_in_no_answer_that_is_given_again_whatever_the_guest_says() {
        assert!(of(Access::Public).is_some());
        assert!(of(Access::Private).is_none());
    }

    #[tokio::test]
    async fn an_answer_is_remembered_once_the_question_has_all_that_it_depends_on() {
        let reuse = Reuse::new(64 * 1024);
        let before = question(&reuse, "/a", Some("bytes=0-0"));
        tell(&reuse, &before, of(Access::Public)).await;
        let with_range = question(&reuse, "/a", Some("bytes=0-0"));
        assert_ne!(before.bytes, with_range.bytes);
        tell(&reuse, &with_range, of(Access::Public)).await;
        let known = reuse.look_up(&with_range, Duration::ZERO).await;
        assert!(matches!(known, Known::Answer(_)));
        for other in [None, Some("bytes=0-1")] {
            let other = question(&reuse, "/a", other);
            let known = reuse.look_up(&other, Duration::ZERO).await;
            assert!(matches!(known, Known::Nothing(_)));
        }
    }

    #[test]
    fn lines_of_fields_are_not_mistaken_for_each_other() {
        let reuse = Reuse::new(64 * 1024);
        let names = ["a", "b"].map(|name| HeaderName::try_from(name).unwrap());
        assert!(!reuse.covers(0, &names));
        let questions = [
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
            let question = reuse.question(&Method::GET, "/", lines);
            question.unwrap().bytes
        });
        for (place, question) in questions.iter().enumerate() {
            assert!(!questions[..place].contains(question), "{place}");
        }
    }

    #[tokio::test]
    async fn however_many_questions_there_are_what_is_remembered_has_a_bound() {
        const MOST_BYTES: usize = 64 * 1024;
        let reuse = Reuse::new(MOST_BYTES);
        assert!(!reuse.covers(0, &["range".parse().unwrap()]));
        for turn in 0..2000 {
            let question = question(&reuse, &format!("/{turn}"), None);
            tell(&reuse, &question, of(Access::Public)).await;
            assert!(reuse.bytes() <= MOST_BYTES);
        }
        assert!(reuse.bytes() > MOST_BYTES / 2);
    }
}
