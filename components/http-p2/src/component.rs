//! The handler: conversion between `wasi:http` and the interface's request and response.

use crate::body::BodyWriter;
use bindings::exports::wasi::http::incoming_handler::Guest;
use bindings::millpond::media::media_serve::{Part, Request, Response, handle};
use bindings::wasi::clocks::wall_clock;
use bindings::wasi::http::types::{
    ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use bindings::wasi::random::random::get_random_u64;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
pub(crate) mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "../wit/p2"],
        world: "millpond:adapters/http-p2",
        generate_all,
    });
    use super::HttpP2Component;
    export!(HttpP2Component);
}

struct HttpP2Component;

impl Guest for HttpP2Component {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let response = handle(&to_wit_request(&request));
        // The content of the request is not read. The host drops it with the request.
        drop(request);
        match head(&response) {
            Ok((head, body)) => {
                ResponseOutparam::set(out, Ok(head));
                send(body, response.body);
            }
            Err(error) => ResponseOutparam::set(out, Err(error)),
        }
    }
}

fn to_wit_request(request: &IncomingRequest) -> Request {
    let now = wall_clock::now();
    let method = match request.method() {
        Method::Get => "GET".into(),
        Method::Head => "HEAD".into(),
        Method::Post => "POST".into(),
        Method::Put => "PUT".into(),
        Method::Delete => "DELETE".into(),
        Method::Connect => "CONNECT".into(),
        Method::Options => "OPTIONS".into(),
        Method::Trace => "TRACE".into(),
        Method::Patch => "PATCH".into(),
        Method::Other(method) => method,
    };
    let headers = request.headers().entries().into_iter();
    Request {
        method,
        path_with_query: request.path_with_query().unwrap_or_else(|| "/".into()),
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect(),
        received: now
            .seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(now.nanoseconds.into()),
        random: get_random_u64(),
        // `wasi:http` has no client address.
        client: None,
    }
}

fn head(response: &Response) -> Result<(OutgoingResponse, OutgoingBody), ErrorCode> {
    let internal = |what: &str| ErrorCode::InternalError(Some(what.to_owned()));
    let fields = Fields::from_list(&response.headers).map_err(|_| internal("a field"))?;
    let head = OutgoingResponse::new(fields);
    head.set_status_code(response.status_code)
        .map_err(|()| internal("the status"))?;
    let body = head.body().map_err(|()| internal("the body"))?;
    Ok((head, body))
}

/// Sends the parts in order.
///
/// If one fails, or the client has disconnected, the body is dropped unfinished. The host then aborts the connection, so
/// that the client detects the truncated response.
fn send(body: OutgoingBody, parts: Vec<Part>) {
    let Ok(output) = body.write() else {
        return;
    };
    let mut writer = BodyWriter::new(&output);
    for part in parts {
        let sent = match part {
            Part::Bytes(bytes) => writer.write(&bytes),
            Part::Stream(part) => writer.splice(part.source, part.length),
        };
        if sent.is_err() {
            return;
        }
    }
    drop(output);
    // It fails for `HEAD`, since the `Content-Length` is not that of the empty body.
    let _ = OutgoingBody::finish(body, None);
}
