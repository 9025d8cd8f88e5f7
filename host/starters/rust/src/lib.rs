//! Answers `GET /media/<name>` with the whole file of that name. It is a start: ranges, conditions, caching and whatever
//! else the answers shall have is yours to decide here. The interface is in `wit/`, which says what each part means.

use exports::millpond::media::media_serve::{Guest, Part, Request, Response, StreamPart};
use millpond::media::media_store::{ErrorCode, Key, Object, open};
use millpond::media::settings;
use percent_encoding::percent_decode_str;

// Makes the modules above of the interface.
wit_bindgen::generate!({ path: "wit", world: "media-guest", generate_all });

/// What the world `media-guest` exports: one function, called once for each request, in an instance of its own.
struct MediaGuest;

export!(MediaGuest);

impl Guest for MediaGuest {
    fn handle(request: Request) -> Response {
        let is_head = request.method == "HEAD";
        if request.method != "GET" && !is_head {
            let mut response = failure(405, "Method not allowed", is_head);
            response.headers.push(field("allow", "GET, HEAD"));
            return response;
        }
        let Some(name) = name_in(&request.path_with_query) else {
            return failure(404, "Media not found", is_head);
        };
        // The host looks in its folder only, whatever the name.
        match open(&Key::Named(name)) {
            Ok(object) => whole(&object, is_head),
            Err(ErrorCode::NotFound) => failure(404, "Media not found", is_head),
            Err(ErrorCode::Busy) => failure(503, "Server is busy", is_head),
            Err(_) => failure(500, "Media cannot be read", is_head),
        }
    }
}

/// The name in a target such as `/media/a%20b.gif?v=1`; nothing where it is another path, or cannot be decoded.
fn name_in(target: &str) -> Option<String> {
    let settings = settings::get().ok()?;
    let mount_path = settings.mount_path.as_deref().unwrap_or("/media");
    let path = target.split('?').next()?;
    let rest = path.strip_prefix(mount_path.trim_end_matches('/'))?;
    let name = percent_decode_str(rest.strip_prefix('/')?).decode_utf8();
    name.ok().map(String::from)
}

/// The whole object. The bytes never come here: the answer names a stream, and the host sends it once this instance is
/// gone.
fn whole(object: &Object, is_head: bool) -> Response {
    let info = object.info();
    let mut body = Vec::new();
    if !is_head {
        let Ok(source) = object.read(0, info.length) else {
            return failure(500, "Media cannot be read", is_head);
        };
        let length = info.length;
        body.push(Part::Stream(StreamPart { source, length }));
    }
    let headers = vec![
        field("content-type", &info.media_type),
        field("content-length", &info.length.to_string()),
    ];
    Response {
        status_code: 200,
        headers,
        body,
        cacheability: None,
    }
}

/// An error, in JSON. The messages have nothing in them that JSON would escape.
fn failure(status: u16, message: &str, is_head: bool) -> Response {
    let json = format!(r#"{{"error":"{message}"}}"#).into_bytes();
    let headers = vec![
        field("content-type", "application/json"),
        field("content-length", &json.len().to_string()),
        field("cache-control", "no-store"),
    ];
    let body = if is_head {
        Vec::new()
    } else {
        vec![Part::Bytes(json)]
    };
    Response {
        status_code: status,
        headers,
        body,
        cacheability: None,
    }
}

/// Field values are bytes, as they are on the wire.
fn field(name: &str, value: &str) -> (String, Vec<u8>) {
    (name.to_owned(), value.as_bytes().to_vec())
}
