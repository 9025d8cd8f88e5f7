//! Objects of a [`FaultOrigin`](super::fault_origin::FaultOrigin): content, metadata and faults.

use super::content::Content;
use super::gate::Gate;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};

/// An object, served by the rules of RFC 9110 but for its faults.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) content: Content,
    /// Value of `ETag`, with its quotes.
    pub(crate) entity_tag: Option<String>,
    /// Value of `Last-Modified`.
    pub(crate) modified: Option<SystemTime>,
    /// Further fields of each response.
    pub(crate) fields: Vec<(&'static str, String)>,
    faults: Vec<(Requests, Fault)>,
    /// The object that takes its place, from this request on.
    successor: Option<(u64, Box<Object>)>,
}

/// Requests for a path, counted from 1. Faults of a body count GETs only, and other ones all requests.
#[derive(Clone, Copy)]
pub(crate) enum Requests {
    Every,
    /// This many at the beginning.
    First(u64),
    /// This one alone.
    Only(u64),
    /// This one and all after it.
    From(u64),
}

impl Requests {
    fn contain(self, number: u64) -> bool {
        match self {
            Requests::Every => true,
            Requests::First(count) => number <= count,
            Requests::Only(only) => number == only,
            Requests::From(first) => number >= first,
        }
    }
}

/// Number of a request among those for its path.
#[derive(Clone, Copy, Default)]
pub(crate) struct Numbers {
    /// Among all requests.
    pub(crate) request: u64,
    /// Among the GETs.
    pub(crate) get: u64,
}

/// Makes a value of `Content-Range` of the first and the last offset and the length of the whole.
pub(crate) type MakeContentRange = fn(u64, u64, u64) -> String;

/// Something that an origin does wrong, or at the wrong time.
#[derive(Clone)]
pub(crate) enum Fault {
    /// The head waits for the gate.
    SlowHead(Gate),
    /// The body waits for the gate.
    Slow(Gate),
    /// Nothing comes, and the connection stays open.
    Silent,
    /// The body stops after so many bytes, and the connection stays open.
    Stalled(u64),
    /// The connection is closed without a response.
    Closed,
    /// The connection is closed after so many bytes of the body.
    Cut(u64),
    /// The response has this status, and a text.
    Status(u16),
    /// The response is a redirect: status and `Location`.
    Redirect(u16, String),
    /// `Content-Length` of a GET is that many bytes more than the body, or fewer.
    WrongLength(i64),
    /// `Content-Range` is made by this function.
    WrongRange(MakeContentRange),
    /// The byte at this offset has all its bits inverted.
    Flipped(u64),
    /// The response to a range is the whole object, with 200.
    IgnoredRange,
    /// The response to a range has so many bytes more than the range, and says so in `Content-Range`.
    RangeBeyond(u64),
    /// Preconditions are ignored, and so is `If-Range`.
    IgnoredConditions,
    /// There is no `Content-Length`, and the body is chunked.
    Chunked,
    /// The body is in the coding `gzip`, which nobody accepted.
    Gzip,
}

impl Fault {
    /// Whether only a body shows it.
    fn is_of_body(&self) -> bool {
        matches!(
            self,
            Fault::Slow(_) | Fault::Stalled(_) | Fault::Cut(_) | Fault::Flipped(_)
        )
    }
}

/// Time of the last modification of objects that say nothing else: long ago, so that it is a strong validator.
const MODIFIED: Duration = Duration::from_secs(1_700_000_000);

impl Object {
    /// An object of these bytes, with the entity tag that only they have.
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = hex::encode(Sha256::digest(&bytes));
        Object::of(Content::Memory(bytes), format!("\"{}\"", &digest[..32]))
    }

    /// An object of so many bytes that are a function of the seed.
    pub(crate) fn computed(seed: u64, length: u64) -> Self {
        Object::of(
            Content::Computed { seed, length },
            format!("\"computed-{seed}-{length}\""),
        )
    }

    fn of(content: Content, entity_tag: String) -> Self {
        Object {
            content,
            entity_tag: Some(entity_tag),
            modified: Some(SystemTime::UNIX_EPOCH + MODIFIED),
            fields: Vec::new(),
            faults: Vec::new(),
            successor: None,
        }
    }

    /// With this entity tag, in its quotes and with the prefix of a weak one.
    pub(crate) fn tagged(mut self, entity_tag: &str) -> Self {
        self.entity_tag = Some(entity_tag.to_owned());
        self
    }

    /// Without an entity tag.
    pub(crate) fn untagged(mut self) -> Self {
        self.entity_tag = None;
        self
    }

    /// Without a time of the last modification.
    pub(crate) fn undated(mut self) -> Self {
        self.modified = None;
        self
    }

    /// With one more field in each response, such as `Cache-Control` or `Age`.
    pub(crate) fn field(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    /// With a fault in each response.
    pub(crate) fn with(self, fault: Fault) -> Self {
        self.with_in(Requests::Every, fault)
    }

    /// With a fault in the responses to these requests.
    pub(crate) fn with_in(mut self, requests: Requests, fault: Fault) -> Self {
        self.faults.push((requests, fault));
        self
    }

    /// Replaced by another object from this request on.
    pub(crate) fn replaced_from(mut self, request: u64, by: Object) -> Self {
        self.successor = Some((request, Box::new(by)));
        self
    }

    /// The object that a request gets.
    pub(super) fn at(&self, numbers: Numbers) -> &Object {
        match &self.successor {
            Some((from, successor)) if numbers.request >= *from => successor.at(numbers),
            _ => self,
        }
    }

    pub(super) fn faults_at(&self, numbers: Numbers) -> impl Iterator<Item = &Fault> + Clone {
        self.faults.iter().filter_map(move |(requests, fault)| {
            let number = match fault.is_of_body() {
                true => numbers.get,
                false => numbers.request,
            };
            requests.contain(number).then_some(fault)
        })
    }
}
