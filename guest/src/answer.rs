//! The answer to one request, top-down: method, route, object, conditions, range, response.

use crate::conditions::{self, Outcome, Validators};
use crate::imports::{Imports, Info, Object, StoreError};
use crate::message::{Part, Request, Response, Reuse};
use crate::range::{self, Selection};
use crate::route::{MediaId, Route, RouteError};
use http::{HeaderName, StatusCode, header};
use serde::Serialize;

type Stream<I> = <<I as Imports>::Object as Object>::Stream;

/// Answers a request: `handle` of `wit/media-serve.wit`.
///
/// Whatever goes wrong is a response with its status; nothing here panics on any input.
#[must_use]
pub fn handle<I: Imports>(request: &Request<'_>, imports: &I) -> Response<Stream<I>> {
    match request.method {
        "GET" | "HEAD" => answer(request, imports)
            .unwrap_or_else(Refusal::into_response)
            .for_method(request.method),
        "OPTIONS" => Response::new(StatusCode::NO_CONTENT).with(header::ALLOW, ALLOWED_METHODS),
        _ => Response::error(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
            .with(header::ALLOW, ALLOWED_METHODS),
    }
}

const ALLOWED_METHODS: &str = "GET, HEAD, OPTIONS";

/// The request fields on which an answer to a request for media depends.
const DEPENDS_ON: &[HeaderName] = &[
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

fn answer<I: Imports>(request: &Request<'_>, imports: &I) -> Result<Response<Stream<I>>, Refusal> {
    match Route::parse(request.target, || imports.files_at())? {
        Route::Media(id) => {
            let object = imports.open(&id.key())?;
            represent(request, &object, &Caching::immutable(&id))
        }
        Route::Info(id) => {
            let object = imports.open(&id.key())?;
            Ok(describe(&id, &object.info()))
        }
        Route::Named(name) => {
            let object = imports.open(&name.key())?;
            represent(request, &object, &Caching::by_time(&object.info()))
        }
    }
}

/// How caches and clients recognise a representation, and for how long they may keep it.
struct Caching {
    validators: Validators,
    cache_control: &'static str,
    reuse: Reuse,
}

const IMMUTABLE: &str = "public, max-age=31536000, immutable";

impl Caching {
    /// What is addressed by its content never changes: the id itself is the entity tag.
    fn immutable(id: &MediaId) -> Self {
        Caching {
            validators: Validators {
                etag: format!("\"{}\"", id.as_str()),
                last_modified: None,
            },
            cache_control: IMMUTABLE,
            reuse: Reuse {
                depends_on: DEPENDS_ON,
                valid_for_ms: 3_600_000,
            },
        }
    }

    /// A named file is recognised by length and modification time, to the nanosecond. Images keep the
    /// original's year of caching, which its pages rely on; anything else is asked for again.
    fn by_time(info: &Info) -> Self {
        let modified = info.modified.map_or(0, |modified| modified.0);
        Caching {
            validators: Validators {
                etag: format!("\"{:x}-{modified:x}\"", info.length),
                last_modified: info
                    .modified
                    .map(|modified| modified.truncated_to_seconds()),
            },
            cache_control: if info.media_type.starts_with("image/") {
                IMMUTABLE
            } else {
                "public, no-cache"
            },
            reuse: Reuse {
                depends_on: DEPENDS_ON,
                valid_for_ms: 1_000,
            },
        }
    }
}

/// Answers with the object itself: whole, in part, or not at all where a condition says so.
fn represent<O: Object>(
    request: &Request<'_>,
    object: &O,
    caching: &Caching,
) -> Result<Response<O::Stream>, Refusal> {
    let info = object.info();
    let range_applies = match conditions::evaluate(request, &caching.validators) {
        Outcome::Proceed { range_applies } => range_applies,
        Outcome::NotModified => {
            return Ok(with_validators(
                Response::new(StatusCode::NOT_MODIFIED),
                caching,
            ));
        }
        Outcome::PreconditionFailed => return Err(Refusal::PreconditionFailed),
    };
    let selection = if range_applies && request.method == "GET" {
        range::select(request, info.length)
    } else {
        Selection::Whole
    };
    let (status, offset, length) = match selection {
        Selection::Whole => (StatusCode::OK, 0, info.length),
        Selection::Range { offset, length } => (StatusCode::PARTIAL_CONTENT, offset, length),
        Selection::Unsatisfiable => {
            return Err(Refusal::RangeNotSatisfiable {
                length: info.length,
            });
        }
    };
    let mut response = with_validators(Response::new(status), caching)
        .with(header::ACCEPT_RANGES, "bytes")
        .with(header::CONTENT_TYPE, info.media_type)
        .with(header::CONTENT_LENGTH, length.to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = offset + length - 1;
        let content_range = format!("bytes {offset}-{last}/{}", info.length);
        response = response.with(header::CONTENT_RANGE, content_range);
    }
    if request.method == "GET" && length > 0 {
        let source = object.read(offset, length)?;
        response.body.push(Part::Stream { source, length });
    }
    Ok(response)
}

/// What a 304 has in common with the 200 that it stands for (RFC 9110 section 15.4.5).
fn with_validators<S>(response: Response<S>, caching: &Caching) -> Response<S> {
    let Validators {
        etag,
        last_modified,
    } = &caching.validators;
    let mut response = response
        .with(header::ETAG, etag.as_str())
        .with(header::CACHE_CONTROL, caching.cache_control);
    if let Some(modified) = last_modified {
        response = response.with(header::LAST_MODIFIED, httpdate::fmt_http_date(*modified));
    }
    response.reuse = Some(caching.reuse);
    response
}

/// What `/api/media/<id>/info` tells: public facts only, no path and no key of the store.
#[derive(Serialize)]
struct Description<'a> {
    id: &'a str,
    r#type: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
}

fn describe<S>(id: &MediaId, info: &Info) -> Response<S> {
    let created = info.created.map(|created| {
        humantime::format_rfc3339_seconds(created.truncated_to_seconds()).to_string()
    });
    Response::new(StatusCode::OK)
        .with(header::CACHE_CONTROL, "public, no-cache")
        .with_json(&Description {
            id: id.as_str(),
            r#type: &info.media_type,
            size: info.length,
            created,
        })
}

/// Why a request for media gets no media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Route(RouteError),
    Store(StoreError),
    PreconditionFailed,
    RangeNotSatisfiable { length: u64 },
}

impl Refusal {
    fn into_response<S>(self) -> Response<S> {
        match self {
            Refusal::Route(RouteError::Malformed) => {
                Response::error(StatusCode::BAD_REQUEST, "Malformed path")
            }
            Refusal::Route(RouteError::NoSuchRoute) => {
                Response::error(StatusCode::NOT_FOUND, "Not found")
            }
            Refusal::Route(RouteError::NoSuchMedia) | Refusal::Store(StoreError::NotFound) => {
                Response::error(StatusCode::NOT_FOUND, "Media not found")
            }
            Refusal::Store(StoreError::Busy) => {
                Response::error(StatusCode::SERVICE_UNAVAILABLE, "Store is busy")
                    .with(header::RETRY_AFTER, "1")
            }
            Refusal::Store(StoreError::Failed | StoreError::OutOfBounds) => {
                Response::error(StatusCode::INTERNAL_SERVER_ERROR, "Stream error")
            }
            Refusal::PreconditionFailed => {
                Response::error(StatusCode::PRECONDITION_FAILED, "Precondition failed")
            }
            Refusal::RangeNotSatisfiable { length } => {
                Response::error(StatusCode::RANGE_NOT_SATISFIABLE, "Range not satisfiable")
                    .with(header::CONTENT_RANGE, format!("bytes */{length}"))
                    .with(header::ACCEPT_RANGES, "bytes")
            }
        }
    }
}

impl From<RouteError> for Refusal {
    fn from(error: RouteError) -> Self {
        Refusal::Route(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Refusal::Store(error)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::imports::{Key, Timestamp};
    use proptest::prelude::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A store whose streams say what was asked for.
    struct Shelf {
        length: u64,
    }

    struct Item {
        length: u64,
        media_type: &'static str,
    }

    impl Imports for Shelf {
        type Object = Item;

        fn open(&self, key: &Key) -> Result<Item, StoreError> {
            let media_type = match key {
                Key::Content(id) if id == ID => "image/gif",
                Key::Named(name) if name == "clip.mp4" => "video/mp4",
                Key::Named(name) if name == "busy" => return Err(StoreError::Busy),
                Key::Named(name) if name == "broken" => return Err(StoreError::Failed),
                _ => return Err(StoreError::NotFound),
            };
            let length = self.length;
            Ok(Item { length, media_type })
        }

        fn files_at(&self) -> String {
            "/media".into()
        }
    }

    impl Object for Item {
        type Stream = (u64, u64);

        fn info(&self) -> Info {
            Info {
                length: self.length,
                media_type: self.media_type.into(),
                modified: Some(Timestamp(784_111_777_000_000_001)),
                created: Some(Timestamp(784_111_777_000_000_001)),
            }
        }

        fn read(&self, offset: u64, length: u64) -> Result<(u64, u64), StoreError> {
            Ok((offset, length))
        }
    }

    fn ask(method: &str, target: &str, fields: &[(&str, &str)]) -> Response<(u64, u64)> {
        ask_of(&Shelf { length: 1000 }, method, target, fields)
    }

    fn ask_of(
        shelf: &Shelf,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Response<(u64, u64)> {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let request = Request {
            method,
            target,
            fields: &fields,
        };
        handle(&request, shelf)
    }

    fn field<'a, S>(response: &'a Response<S>, name: &str) -> Option<&'a str> {
        let mut values = response.fields.iter().filter(|(n, _)| n.as_str() == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} stands twice");
        value
    }

    fn json<S>(response: &Response<S>) -> serde_json::Value {
        let [Part::Bytes(json)] = &response.body[..] else {
            return serde_json::Value::Null;
        };
        serde_json::from_slice(json).unwrap()
    }

    #[test]
    fn media_by_content() {
        let target = format!("/api/media/{ID}");
        let response = ask("GET", &target, &[]);
        assert_eq!(response.status, 200);
        assert_eq!(
            response.body,
            [Part::Stream {
                source: (0, 1000),
                length: 1000
            }]
        );
        let etag = format!("\"{ID}\"");
        for (name, value) in [
            ("content-type", Some("image/gif")),
            ("content-length", Some("1000")),
            ("accept-ranges", Some("bytes")),
            ("etag", Some(etag.as_str())),
            ("cache-control", Some(IMMUTABLE)),
            ("x-content-type-options", Some("nosniff")),
            ("last-modified", None),
            ("content-range", None),
        ] {
            assert_eq!(field(&response, name), value, "{name}");
        }
        assert_eq!(response.reuse.unwrap().depends_on, DEPENDS_ON);

        let not_modified = ask("GET", &target, &[("if-none-match", &etag)]);
        assert_eq!(not_modified.status, 304);
        assert!(not_modified.body.is_empty());
        assert_eq!(field(&not_modified, "etag"), Some(etag.as_str()));
        assert_eq!(field(&not_modified, "cache-control"), Some(IMMUTABLE));
        assert_eq!(field(&not_modified, "content-length"), None);
    }

    #[test]
    fn media_by_name() {
        let response = ask("GET", "/media/clip.mp4", &[]);
        assert_eq!(response.status, 200);
        let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(field(&response, "last-modified"), Some(modified));
        assert_eq!(field(&response, "etag"), Some("\"3e8-ae1b981bc490a01\""));
        assert_eq!(field(&response, "cache-control"), Some("public, no-cache"));
        let since = [("if-modified-since", modified)];
        assert_eq!(ask("GET", "/media/clip.mp4", &since).status, 304);
    }

    #[test]
    fn a_range_is_for_get_only_and_under_if_range() {
        let range = ("range", "bytes=10-19");
        let response = ask("GET", "/media/clip.mp4", &[range]);
        assert_eq!(response.status, 206);
        assert_eq!(field(&response, "content-range"), Some("bytes 10-19/1000"));
        assert_eq!(field(&response, "content-length"), Some("10"));
        assert_eq!(
            response.body,
            [Part::Stream {
                source: (10, 10),
                length: 10
            }]
        );
        let head = ask("HEAD", "/media/clip.mp4", &[range]);
        assert_eq!(head.status, 200);
        assert_eq!(field(&head, "content-length"), Some("1000"));
        assert!(head.body.is_empty());
        let changed = ask("GET", "/media/clip.mp4", &[range, ("if-range", "\"old\"")]);
        assert_eq!(changed.status, 200);
        assert_eq!(field(&changed, "content-length"), Some("1000"));
    }

    #[test]
    fn an_unsatisfiable_range_tells_the_length_and_is_not_kept() {
        let response = ask("GET", "/media/clip.mp4", &[("range", "bytes=1000-")]);
        assert_eq!(response.status, 416);
        assert_eq!(field(&response, "content-range"), Some("bytes */1000"));
        assert_eq!(field(&response, "cache-control"), Some("no-store"));
        assert_eq!(response.reuse, None);
    }

    #[test]
    fn an_empty_file_is_an_answer() {
        let empty = Shelf { length: 0 };
        let response = ask_of(&empty, "GET", "/media/clip.mp4", &[]);
        assert_eq!(response.status, 200);
        assert_eq!(field(&response, "content-length"), Some("0"));
        assert!(response.body.is_empty());
        let range = [("range", "bytes=0-")];
        let response = ask_of(&empty, "GET", "/media/clip.mp4", &range);
        assert_eq!(response.status, 416);
        assert_eq!(field(&response, "content-range"), Some("bytes */0"));
    }

    #[test]
    fn the_description_of_media() {
        let target = format!("/api/media/{ID}/info");
        let expected = serde_json::json!({
            "id": ID,
            "type": "image/gif",
            "size": 1000,
            "created": "1994-11-06T08:49:37Z",
        });
        let response = ask("GET", &target, &[]);
        assert_eq!(json(&response), expected);
        let head = ask("HEAD", &target, &[]);
        assert!(head.body.is_empty());
        assert_eq!(
            field(&head, "content-length"),
            field(&response, "content-length")
        );
    }

    #[test]
    fn refusals_are_json_and_never_kept() {
        for (method, target, status, message) in [
            ("GET", "/nowhere", 404, "Not found"),
            ("GET", "/media/none.gif", 404, "Media not found"),
            ("GET", "/api/media/short", 404, "Media not found"),
            ("GET", "/media/%zz", 400, "Malformed path"),
            ("GET", "/media/busy", 503, "Store is busy"),
            ("GET", "/media/broken", 500, "Stream error"),
            ("POST", "/media/clip.mp4", 405, "Method not allowed"),
            ("get", "/media/clip.mp4", 405, "Method not allowed"),
        ] {
            let response = ask(method, target, &[]);
            assert_eq!(response.status, status, "{method} {target}");
            assert_eq!(json(&response), serde_json::json!({ "error": message }));
            assert_eq!(field(&response, "cache-control"), Some("no-store"));
            assert_eq!(field(&response, "x-content-type-options"), Some("nosniff"));
            assert_eq!(response.reuse, None);
        }
        let refused = ask("DELETE", "/media/clip.mp4", &[]);
        assert_eq!(field(&refused, "allow"), Some(ALLOWED_METHODS));
        let options = ask("OPTIONS", "*", &[]);
        assert_eq!(options.status, 204);
        assert_eq!(field(&options, "allow"), Some(ALLOWED_METHODS));
        let mismatch = ask("GET", "/media/clip.mp4", &[("if-match", "\"b\"")]);
        assert_eq!(mismatch.status, 412);
    }

    proptest! {
        #[test]
        fn the_length_is_what_the_parts_add_up_to(
            length: u64,
            range in "bytes=[0-9]{0,4}-[0-9]{0,4}",
        ) {
            let shelf = Shelf { length };
            let response = ask_of(&shelf, "GET", "/media/clip.mp4", &[("range", &range)]);
            let sum: u64 = response.body.iter().map(|part| match part {
                Part::Bytes(bytes) => bytes.len() as u64,
                Part::Stream { length, .. } => *length,
            }).sum();
            let sum = sum.to_string();
            prop_assert_eq!(field(&response, "content-length"), Some(sum.as_str()));
        }
    }
}
