//! The handler: from `wasi:http` to the interface's request, and from its response back.

use crate::pump::Pump;
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
        world: "millpond:wasi/http-p2",
        generate_all,
    });
    use super::Component;
    export!(Component);
}

struct Component;

impl Guest for Component {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let response = handle(&question(&request));
        // A request's content is not read: the host lets go of it with the request.
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

fn question(request: &IncomingRequest) -> Request {
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
    let fields = request.headers().entries().into_iter();
    Request {
        method,
        target: request.path_with_query().unwrap_or_else(|| "/".into()),
        fields: fields
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect(),
        received: now
            .seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(now.nanoseconds.into()),
        nonce: get_random_u64(),
        // `wasi:http` does not tell.
        client: None,
    }
}

fn head(response: &Response) -> Result<(OutgoingResponse, OutgoingBody), ErrorCode> {
    let internal = |what: &str| ErrorCode::InternalError(Some(what.to_owned()));
    let fields = Fields::from_list(&response.fields).map_err(|_| internal("a field"))?;
    let head = OutgoingResponse::new(fields);
    head.set_status_code(response.status)
        .map_err(|()| internal("the status"))?;
    let body = head.body().map_err(|()| internal("the body"))?;
    Ok((head, body))
}

/// Sends the parts one after the other. Where one fails or the client has gone, the body is dropped unfinished, which
/// tells the host to cut the connection: the client sees that the answer is not whole.
fn send(body: OutgoingBody, parts: Vec<Part>) {
    let Ok(output) = body.write() else {
        return;
    };
    let mut pump = Pump::new(&output);
    for part in parts {
        let sent = match part {
            Part::Bytes(bytes) => pump.write(&bytes),
            Part::Stream(part) => pump.splice(part.source, part.length),
        };
        if sent.is_err() {
            return;
        }
    }
    drop(output);
    // Its error is that of a `HEAD`, whose `Content-Length` is that of no body here.
    let _ = OutgoingBody::finish(body, None);
}
