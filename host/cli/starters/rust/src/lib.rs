//! A media guest: the responses of `millpond-guest`, with two more routes and one more header. Change it as you like.
//!
//! Ranges, conditional requests, content negotiation, CORS and signed URLs are those of millpond's own component. The
//! interface is in `wit/`, with a description of each part.

use http::{HeaderName, StatusCode, header};
use millpond_guest::{Handler, Imports, InputStream, Request, Response, handle};

/// The host calls the handler once for each request, in an instance of its own.
struct MediaGuest;

millpond_guest::export!(MediaGuest);

impl Handler for MediaGuest {
    fn handle<I: Imports>(request: &Request<'_>, imports: &I) -> Response<InputStream<I>> {
        let (path, _) = request.path_and_query();
        let response = match path {
            // A response of your own.
            "/" if matches!(request.method, "GET" | "HEAD") => welcome().for_method(request.method),
            // Another path for a file, with ranges, conditions and all else.
            "/intro" => handle(&request.with_target("/media/intro.mp4"), imports),
            _ => handle(request, imports),
        };
        response.with(HeaderName::from_static("x-served-by"), "media-guest")
    }
}

fn welcome<S>() -> Response<S> {
    Response::new(StatusCode::OK)
        .with(header::CACHE_CONTROL, "no-cache")
        .with_bytes("text/plain; charset=utf-8", "Media is at /media/<name>.\n")
}
