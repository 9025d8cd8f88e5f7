//! Any request, of any store, under any settings. The response of the guest is valid. Its media is what was requested, and
//! the request may read it.
//!
//! A stream has its key, offset and length in place of bytes, so an object may be of any length. The target compares these with
//! the response.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use http::{HeaderName, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use millpond_format::listing::PageSelector;
use millpond_format::signature;
use millpond_guest::{self as message, HeaderLine, Part, handle};
use millpond_guest::{
    Access, Entry, EntryKind, Imports, Info, Key, ListQuery, Listing, Object, SettingsError,
    StoreError, Timestamp, VariantInfo, Version,
};
use std::cell::RefCell;

fuzz_target!(|input: Input| run(&input));

#[derive(Debug, Arbitrary)]
struct Input {
    method: Method,
    target: Target,
    query: Query,
    fields: Vec<Field>,
    /// The same is asked once more with these in place of what a representation is chosen by.
    other_fields: Vec<Field>,
    settings: Settings,
    objects: [Stored; 4],
    /// Names in every folder, and whether each is a folder.
    entries: Vec<(String, bool)>,
    received_seconds: u32,
    random: u64,
    client: Client,
}

#[derive(Debug, Arbitrary)]
enum Method {
    Get,
    Head,
    Options,
    Other(String),
}

#[derive(Debug, Arbitrary)]
enum Target {
    Named(Place),
    Content(Place),
    Info(Place),
    Legacy(Place),
    Any(String),
}

/// One of the objects.
#[derive(Debug, Arbitrary, Clone, Copy, PartialEq, Eq)]
enum Place {
    A,
    B,
    C,
    D,
}

#[derive(Debug, Arbitrary)]
enum Query {
    None,
    Any(String),
    Signed {
        for_seconds: i16,
        key: u8,
        prefix: Option<Prefix>,
        /// For another object than the one that is asked for.
        of: Option<Place>,
        behind: String,
    },
}

#[derive(Debug, Arbitrary, Clone, Copy)]
enum Prefix {
    Clients,
    Others,
}

#[derive(Debug, Arbitrary, Clone, Copy)]
enum Client {
    Unknown,
    V4,
    Mapped,
}

/// A field line that can come over a connection: of names that the guest looks at, and of values that its parsers
/// know something of.
#[derive(Debug, Arbitrary)]
struct Field {
    name: Name,
    value: Vec<Piece>,
}

#[derive(Debug, Arbitrary, Clone, Copy, PartialEq, Eq)]
enum Name {
    Range,
    IfRange,
    IfMatch,
    IfNoneMatch,
    IfModifiedSince,
    IfUnmodifiedSince,
    Accept,
    AcceptEncoding,
    Origin,
    RequestMethod,
    WantReprDigest,
    WantContentDigest,
    Other,
}

#[derive(Debug, Arbitrary)]
enum Piece {
    Bytes,
    Number(u64),
    Small(u8),
    Dash,
    Comma,
    Star,
    Weight(u8),
    EntityTag(Place),
    Date(u32),
    Type(Type),
    Coding(Coding),
    Origin,
    Sha256(u8),
    Raw(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
struct Settings {
    mount_path: MountPath,
    origins: Origins,
    content_security_policy: bool,
    cache_files: Option<Text>,
    negative_ttl_s: Option<u32>,
    keys: bool,
}

#[derive(Debug, Arbitrary)]
enum MountPath {
    Default,
    Root,
    Deeper,
}

#[derive(Debug, Arbitrary)]
enum Origins {
    Default,
    None,
    Listed,
}

/// A field value that a host accepts.
#[derive(Debug)]
struct Text(String);

impl<'a> Arbitrary<'a> for Text {
    fn arbitrary(source: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let text = <&str>::arbitrary(source)?;
        let visible = text.chars().filter(|c| (' '..='~').contains(c));
        Ok(Text(visible.collect::<String>().trim().to_owned()))
    }
}

#[derive(Debug, Arbitrary)]
struct Stored {
    there: bool,
    length: u64,
    media_type: Type,
    modified: Option<u64>,
    created: Option<u64>,
    digest: bool,
    /// Whether it is a strong one.
    version: Option<bool>,
    is_private: bool,
    variants: Vec<(Place, bool, Type, Option<Coding>)>,
    trouble: Option<Trouble>,
}

#[derive(Debug, Arbitrary, Clone, Copy, PartialEq, Eq)]
enum Type {
    Png,
    Avif,
    Webp,
    Svg,
    Html,
    Video,
    Audio,
}

impl Type {
    fn text(self) -> &'static str {
        match self {
            Type::Png => "image/png",
            Type::Avif => "image/avif",
            Type::Webp => "image/webp",
            Type::Svg => "image/svg+xml",
            Type::Html => "text/html; charset=utf-8",
            Type::Video => "video/mp4",
            Type::Audio => "audio/mp4; codecs=\"opus\"",
        }
    }
}

#[derive(Debug, Arbitrary, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Br,
    Gzip,
    Zstd,
}

impl Coding {
    fn text(self) -> &'static str {
        match self {
            Coding::Br => "br",
            Coding::Gzip => "gzip",
            Coding::Zstd => "zstd",
        }
    }
}

#[derive(Debug, Arbitrary, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    OpenBusy,
    OpenFailed,
    ReadBusy,
    ReadFailed,
}

const KEYS: [&str; 2] = [
    "k1:000102030405060708090a0b0c0d0e0f",
    "k2:101112131415161718191a1b1c1d1e1f",
];
const LISTED_ORIGINS: &str = "https://a.example http://b.example:81";

impl Place {
    fn id(self) -> String {
        let digit = match self {
            Place::A => "a",
            Place::B => "b",
            Place::C => "c",
            Place::D => "d",
        };
        digit.repeat(64)
    }

    fn name(self) -> &'static str {
        match self {
            Place::A => "a",
            Place::B => "folder/b.png",
            Place::C => "c d",
            Place::D => "é.svg",
        }
    }

    fn of(key: &Key) -> Option<Self> {
        let all = [Place::A, Place::B, Place::C, Place::D];
        all.into_iter().find(|place| match key {
            Key::Content(id) => *id == place.id(),
            Key::Named(name) => name == place.name(),
        })
    }
}

impl Input {
    fn stored(&self, place: Place) -> &Stored {
        &self.objects[place as usize]
    }

    fn mount_path(&self) -> &'static str {
        match self.settings.mount_path {
            MountPath::Default => "/media",
            MountPath::Root => "",
            MountPath::Deeper => "/x/media",
        }
    }

    /// The path and the query; what is signed is signed for the path of `of`.
    fn target(&self) -> String {
        let named = |place: Place| match place {
            Place::C => "c%20d",
            Place::D => "%C3%A9.svg",
            other => other.name(),
        };
        let mount_path = self.mount_path();
        let path = |target: &Target| match target {
            Target::Named(place) => format!("{mount_path}/{}", named(*place)),
            Target::Content(place) => format!("/api/media/{}", place.id()),
            Target::Info(place) => format!("/api/media/{}/info", place.id()),
            Target::Legacy(place) => format!("{mount_path}?id={}", named(*place)),
            Target::Any(text) => text.clone(),
        };
        let own = path(&self.target);
        let and = if own.contains('?') { '&' } else { '?' };
        match &self.query {
            Query::None => own,
            Query::Any(text) => format!("{own}{and}{text}"),
            Query::Signed {
                for_seconds,
                key,
                prefix,
                of,
                behind,
            } => {
                let signed = of.map(|place| path(&Target::Content(place)));
                let grant = signature::Grant {
                    path: signed.as_deref().unwrap_or(&own),
                    expires: u64::from(self.received_seconds)
                        .saturating_add_signed((*for_seconds).into()),
                    client_prefix: prefix.map(|prefix| match prefix {
                        Prefix::Clients => "192.0.2.0/24",
                        Prefix::Others => "198.51.100.0/24",
                    }),
                };
                let secrets = [KEYS[0], KEYS[1], "k1:202122232425262728292a2b2c2d2e2f"];
                let key = signature::SigningKey::parse(secrets[usize::from(*key) % 3]);
                let signed = key.expect("the key is one").sign(&grant);
                format!("{own}{and}{signed}&{behind}")
            }
        }
    }

    /// Whether the request shows a signature that is good for what it asks for.
    fn is_granted(&self) -> bool {
        let Query::Signed {
            for_seconds,
            key,
            prefix,
            of,
            ..
        } = &self.query
        else {
            return false;
        };
        let of_this = match (&self.target, of) {
            (_, None) => true,
            (Target::Content(place), Some(of)) => place == of,
            (Target::Any(_), Some(_)) => return true,
            _ => false,
        };
        let is_before = *for_seconds < 0 && self.received_seconds > 0;
        let to_client = match (prefix, self.client) {
            (None, _) => true,
            (Some(Prefix::Clients), client) => !matches!(client, Client::Unknown),
            (Some(Prefix::Others), _) => false,
        };
        self.settings.keys && of_this && !is_before && key % 3 < 2 && to_client
    }

    fn lines(&self, fields: &[Field]) -> Vec<HeaderLine> {
        fields.iter().map(|field| self.line(field)).collect()
    }

    fn line(&self, field: &Field) -> HeaderLine {
        let name = match field.name {
            Name::Range => "range",
            Name::IfRange => "if-range",
            Name::IfMatch => "if-match",
            Name::IfNoneMatch => "if-none-match",
            Name::IfModifiedSince => "if-modified-since",
            Name::IfUnmodifiedSince => "if-unmodified-since",
            Name::Accept => "accept",
            Name::AcceptEncoding => "accept-encoding",
            Name::Origin => "origin",
            Name::RequestMethod => "access-control-request-method",
            Name::WantReprDigest => "want-repr-digest",
            Name::WantContentDigest => "want-content-digest",
            Name::Other => "x-other",
        };
        let mut value = Vec::new();
        for piece in &field.value {
            match piece {
                Piece::Bytes => value.extend(b"bytes="),
                Piece::Number(number) => value.extend(number.to_string().bytes()),
                Piece::Small(number) => value.extend(number.to_string().bytes()),
                Piece::Dash => value.push(b'-'),
                Piece::Comma => value.push(b','),
                Piece::Star => value.push(b'*'),
                Piece::Weight(weight) => value.extend(format!(";q=0.{weight}").bytes()),
                Piece::EntityTag(place) => {
                    let stored = self.stored(*place);
                    let modified = stored.modified.unwrap_or_default();
                    let tag = match field.name {
                        Name::IfRange => format!("\"{}\"", place.id()),
                        _ => format!("\"{:x}-{modified:x}\"", stored.length),
                    };
                    value.extend(tag.bytes());
                }
                Piece::Date(seconds) => {
                    let time = Timestamp(u64::from(*seconds) * 1_000_000_000);
                    let time = httpdate::fmt_http_date(time.truncated_to_seconds());
                    value.extend(time.bytes());
                }
                Piece::Type(media_type) => value.extend(media_type.text().bytes()),
                Piece::Coding(coding) => value.extend(coding.text().bytes()),
                Piece::Origin => value.extend(b"https://a.example"),
                Piece::Sha256(weight) => value.extend(format!("sha-256={weight}").bytes()),
                Piece::Raw(bytes) => value.extend(bytes),
            }
        }
        // No parser lets others through.
        value.retain(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        (name.to_owned(), value.trim_ascii().to_vec())
    }
}

/// The store and the settings, as the guest imports them.
struct Shelf<'a> {
    input: &'a Input,
    /// Keys of the opened objects, in order.
    opened: RefCell<Vec<Key>>,
}

#[derive(Debug)]
struct Opened {
    key: Key,
    info: Info,
    variants: Vec<VariantInfo>,
    trouble: Option<Trouble>,
}

/// A requested range of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stream {
    key: Key,
    offset: u64,
    length: u64,
}

impl Imports for Shelf<'_> {
    type Object = Opened;

    fn open(&self, key: &Key) -> Result<Opened, StoreError> {
        let place = Place::of(key).ok_or(StoreError::NotFound)?;
        let stored = self.input.stored(place);
        match stored.trouble {
            Some(Trouble::OpenBusy) => return Err(StoreError::Busy),
            Some(Trouble::OpenFailed) => return Err(StoreError::Failed),
            _ if !stored.there => return Err(StoreError::NotFound),
            _ => {}
        }
        self.opened.borrow_mut().push(key.clone());
        let variants = stored.variants.iter();
        Ok(Opened {
            key: key.clone(),
            info: Info {
                length: stored.length,
                media_type: stored.media_type.text().to_owned(),
                modified: stored.modified.map(Timestamp),
                created: stored.created.map(Timestamp),
                digest: stored.digest.then(|| place.id()),
                version: stored.version.map(|is_strong| match is_strong {
                    true => Version::Strong(place.id()),
                    false => Version::Weak(format!("\"{}\r\n", place.id())),
                }),
                access: if stored.is_private {
                    Access::Private
                } else {
                    Access::Public
                },
            },
            variants: variants
                .map(|(place, is_content, media_type, coding)| VariantInfo {
                    key: match is_content {
                        true => Key::Content(place.id()),
                        false => Key::Named(place.name().to_owned()),
                    },
                    media_type: media_type.text().to_owned(),
                    content_coding: coding.map(|coding| coding.text().to_owned()),
                })
                .collect(),
            trouble: stored.trouble,
        })
    }

    fn list(&self, _folder: &str, query: &ListQuery) -> Result<Listing, StoreError> {
        let mut selector = PageSelector::new(query);
        for (name, is_folder) in &self.input.entries {
            if selector.matches(name) {
                selector.offer(Entry {
                    name: name.clone(),
                    modified_ns: None,
                    kind: match is_folder {
                        true => EntryKind::Folder,
                        false => EntryKind::File {
                            length: name.len() as u64,
                            media_type: format!("video/{name}"),
                        },
                    },
                });
            }
        }
        Ok(selector.into_listing())
    }

    fn settings(&self) -> Result<millpond_format::settings::Settings, SettingsError> {
        let settings = &self.input.settings;
        let mount_path = match settings.mount_path {
            MountPath::Default => None,
            MountPath::Root => Some("/".to_owned()),
            MountPath::Deeper => Some("/x/media".to_owned()),
        };
        let origins = match settings.origins {
            Origins::Default => None,
            Origins::None => Some(Vec::new()),
            Origins::Listed => Some(LISTED_ORIGINS.split(' ').map(str::to_owned).collect()),
        };
        Ok(millpond_format::settings::Settings {
            mount_path,
            cors_origins: origins,
            content_security_policy: settings.content_security_policy.then(String::new),
            cache_files: settings.cache_files.as_ref().map(|text| text.0.clone()),
            negative_ttl_s: settings.negative_ttl_s,
            ..Default::default()
        })
    }

    fn signing_keys(&self) -> Result<Vec<signature::SigningKey>, SettingsError> {
        let keys = KEYS.iter().filter(|_| self.input.settings.keys);
        Ok(keys
            .filter_map(|key| signature::SigningKey::parse(key))
            .collect())
    }
}

impl Object for Opened {
    type InputStream = Stream;

    fn info(&self) -> Info {
        self.info.clone()
    }

    fn variants(&self) -> Vec<VariantInfo> {
        self.variants.clone()
    }

    fn read(&self, offset: u64, length: u64) -> Result<Stream, StoreError> {
        match self.trouble {
            Some(Trouble::ReadBusy) => return Err(StoreError::Busy),
            Some(Trouble::ReadFailed) => return Err(StoreError::Failed),
            _ => {}
        }
        let end = offset.checked_add(length);
        let is_inside = end.is_some_and(|end| end <= self.info.length);
        assert!(
            is_inside && length > 0,
            "{offset}+{length} of {}",
            self.info.length
        );
        Ok(Stream {
            key: self.key.clone(),
            offset,
            length,
        })
    }
}

type Response = message::Response<Stream>;

fn run(input: &Input) {
    let shelf = Shelf {
        input,
        opened: RefCell::default(),
    };
    let target = input.target();
    let method = match &input.method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Options => "OPTIONS",
        Method::Other(text) => text,
    };
    let ask = |fields: &[HeaderLine]| {
        shelf.opened.borrow_mut().clear();
        let request = message::Request {
            method,
            path_with_query: &target,
            headers: fields,
            received: Timestamp(u64::from(input.received_seconds) * 1_000_000_000),
            random: input.random,
            client: match input.client {
                Client::Unknown => None,
                Client::V4 => Some("192.0.2.7"),
                Client::Mapped => Some("::ffff:192.0.2.7"),
            },
        };
        let response = handle(&request, &shelf);
        let opened = shelf.opened.borrow().clone();
        check(input, method, &response, &opened);
        response
    };
    let fields = input.lines(&input.fields);
    let response = ask(&fields);

    // Another representation has another entity tag.
    let mut others = input.lines(&input.other_fields);
    others.retain(|(name, _)| name.starts_with("accept"));
    others.extend(
        fields
            .into_iter()
            .filter(|(name, _)| !name.starts_with("accept")),
    );
    let other = ask(&others);
    let representation = |response: &Response| {
        let mut keys = response.body.iter().filter_map(|part| match part {
            Part::Stream { source, .. } => Some(source.key.clone()),
            Part::Bytes(_) => None,
        });
        keys.next().filter(|_| response.status == StatusCode::OK)
    };
    if let (Some(one), Some(two)) = (representation(&response), representation(&other)) {
        let is_same_tag = field(&response, "etag") == field(&other, "etag");
        assert!(
            one == two || !is_same_tag,
            "{one:?} and {two:?} are {:?}",
            field(&response, "etag")
        );
        assert!(
            one == two || field(&response, "vary").is_some(),
            "{one:?} and {two:?}"
        );
        assert_eq!(field(&response, "vary"), field(&other, "vary"));
    }
}

/// The value of a field that stands once at most.
fn field<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    let mut values = response.headers.iter().filter(|(n, _)| n.as_str() == name);
    let value = values.next().map(|(_, value)| value.as_str());
    assert!(values.next().is_none(), "{name} stands twice");
    value
}

/// Checks the invariants of every response.
fn check(input: &Input, method: &str, response: &Response, opened: &[Key]) {
    let status = response.status.as_u16();
    assert!((200..600).contains(&status), "{status}");
    assert!(status != 500 || input.objects.iter().any(|stored| stored.trouble.is_some()));
    check_fields(response);
    check_length(method, response);
    check_media(response);
    check_access(input, response, opened);
    if let Some(modified) = field(response, "last-modified") {
        let modified = httpdate::parse_http_date(modified).expect("it is a date");
        let received = Timestamp(u64::from(input.received_seconds) * 1_000_000_000);
        assert!(modified <= received.truncated_to_seconds(), "{response:?}");
    }
}

fn check_fields(response: &Response) {
    const OF_CONNECTIONS: [&str; 7] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    for (name, value) in &response.headers {
        assert!(!OF_CONNECTIONS.contains(&name.as_str()), "{name}");
        assert!(
            HeaderName::from_bytes(name.as_str().as_bytes()).is_ok(),
            "{name}"
        );
        assert!(HeaderValue::from_str(value).is_ok(), "{name}: {value:?}");
        assert_eq!(value.trim(), value, "{name}");
        field(response, name.as_str());
    }
    if let Some(tag) = field(response, "etag") {
        let inner = tag.strip_prefix("W/").unwrap_or(tag);
        let inner = inner
            .strip_prefix('"')
            .and_then(|tag| tag.strip_suffix('"'));
        let is_etagc = |byte: u8| byte == b'!' || (b'#'..=b'~').contains(&byte);
        assert!(inner.is_some_and(|tag| tag.bytes().all(is_etagc)), "{tag}");
    }
}

fn length_of(part: &Part<Stream>) -> u64 {
    match part {
        Part::Bytes(bytes) => bytes.len() as u64,
        Part::Stream { source, length } => {
            assert!(*length <= source.length, "{length} of {}", source.length);
            *length
        }
    }
}

fn check_length(method: &str, response: &Response) {
    let sum = response.body.iter().map(length_of);
    // A host cannot send more than 2^64 bytes, nor say so.
    let sum = sum.fold(0, u64::saturating_add);
    let without = method == "HEAD" || matches!(response.status.as_u16(), 204 | 304);
    assert!(!without || response.body.is_empty(), "{response:?}");
    if let (Some(promised), false) = (field(response, "content-length"), without) {
        assert_eq!(promised, sum.to_string(), "{response:?}");
    }
    assert!(!(response.status == 206 && method != "GET"));
}

/// A whole answer is all of one object, an answer in part what its `Content-Range` says.
fn check_media(response: &Response) {
    let streams: Vec<&Stream> = response
        .body
        .iter()
        .filter_map(|part| match part {
            Part::Stream { source, length } => {
                assert_eq!(*length, source.length);
                Some(source)
            }
            Part::Bytes(_) => None,
        })
        .collect();
    let content_range = field(response, "content-range");
    match response.status.as_u16() {
        200 => {
            assert_eq!(content_range, None);
            let [stream] = streams[..] else {
                assert!(streams.is_empty(), "{response:?}");
                return;
            };
            assert_eq!((stream.offset, response.body.len()), (0, 1), "{response:?}");
        }
        206 => {
            let media_type = field(response, "content-type").expect("media has a type");
            let ranges = match media_type.strip_prefix("multipart/byteranges; boundary=") {
                None => vec![content_range.expect("a part says which").to_owned()],
                Some(boundary) => {
                    assert_eq!(content_range, None);
                    part_ranges(response, boundary)
                }
            };
            assert_eq!(ranges.len(), streams.len(), "{response:?}");
            for (range, stream) in ranges.iter().zip(&streams) {
                let last = stream.offset + (stream.length - 1);
                let expected = format!("bytes {}-{last}/", stream.offset);
                assert!(range.starts_with(&expected), "{range}, not {expected}");
                assert_eq!(stream.key, streams[0].key);
            }
        }
        416 => {
            let length = content_range.and_then(|range| range.strip_prefix("bytes */"));
            assert!(length.is_some_and(|length| length.parse::<u64>().is_ok()));
            assert!(streams.is_empty());
        }
        _ => assert!(
            streams.is_empty() && content_range.is_none(),
            "{response:?}"
        ),
    }
}

/// The `Content-Range` of each part of a multipart body, which has to be one to the letter (RFC 2046 section 5.1).
fn part_ranges(response: &Response, boundary: &str) -> Vec<String> {
    let mut ranges = Vec::new();
    let count = response.body.len();
    for (position, part) in response.body.iter().enumerate() {
        let Part::Bytes(bytes) = part else {
            assert!(position % 2 == 1, "{response:?}");
            continue;
        };
        let text = std::str::from_utf8(bytes).expect("the head of a part is text");
        if position + 1 == count {
            assert_eq!(text, format!("\r\n--{boundary}--\r\n"));
            continue;
        }
        let text = if position == 0 {
            text
        } else {
            text.strip_prefix("\r\n").expect("a line ends")
        };
        let text = text
            .strip_prefix(&format!("--{boundary}\r\n"))
            .expect("a boundary");
        let lines: Vec<&str> = text.split("\r\n").collect();
        let [media_type, range, "", ""] = lines[..] else {
            panic!("{text:?} is no head of a part");
        };
        assert!(media_type.starts_with("Content-Type: "));
        ranges.push(
            range
                .strip_prefix("Content-Range: ")
                .expect("a range")
                .to_owned(),
        );
    }
    ranges
}

/// Checks that private media is served only with a signature, and never to a cache.
fn check_access(input: &Input, response: &Response, opened: &[Key]) {
    let is_private = |key: &Key| Place::of(key).is_some_and(|place| input.stored(place).is_private);
    let given = response.body.iter().find_map(|part| match part {
        Part::Stream { source, .. } => Some(&source.key),
        Part::Bytes(_) => None,
    });
    let tells_of = given.or_else(|| opened.first());
    let is_told = matches!(response.status.as_u16(), 200 | 206 | 304 | 412 | 416);
    let Some(key) = tells_of.filter(|key| is_told && is_private(key)) else {
        return;
    };
    assert!(input.is_granted(), "{key:?} is private: {response:?}");
    assert_eq!(response.cacheability, None, "{key:?} is private");
    let cached = field(response, "cache-control").expect("what is private says who may keep it");
    assert!(!cached.contains("public"), "{key:?} is private: {cached}");
}
