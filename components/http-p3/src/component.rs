//! The handler: conversion between `wasi:http` and the interface's request and response.

use bindings::exports::wasi::http::handler::Guest;
use bindings::millpond::media::media_serve::{Part, Request as WitRequest, StreamPart, handle};
use bindings::wasi::clocks::system_clock;
use bindings::wasi::http::types::{ErrorCode, Fields, Method, Request, Response};
use bindings::wasi::random::random::get_random_u64;
use bindings::{wit_future, wit_stream};
use wit_bindgen::{StreamWriter, spawn_local};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "../wit/p3"],
        world: "millpond:adapters/http-p3",
        generate_all,
    });
    use super::HttpP3Component;
    export!(HttpP3Component);
}

struct HttpP3Component;

impl Guest for HttpP3Component {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let wit_response = handle(&to_wit_request(&request));
        // The content of the request is not read. The host drops it with the request.
        drop(request);
        let internal = |what: &str| ErrorCode::InternalError(Some(what.to_owned()));
        let fields = Fields::from_list(&wit_response.headers).map_err(|_| internal("a field"))?;
        let (trailers, no_trailers) = wit_future::new(|| Ok(None));
        // A response without content, such as one to `HEAD`, has no stream: an empty stream would be shorter than the
        // `Content-Length`.
        let (output, content) = match wit_response.body.is_empty() {
            true => (None, None),
            false => {
                let (output, content) = wit_stream::new();
                (Some(output), Some(content))
            }
        };
        let (response, transmitted) = Response::new(fields, content, no_trailers);
        response
            .set_status_code(wit_response.status_code)
            .map_err(|()| internal("the status"))?;
        // The task lives until the host has sent the body. A host that reuses instances must not end this one before.
        spawn_local(async move {
            if let Some(output) = output {
                let sent = send(output, wit_response.body).await;
                if let Err(BodyAborted) = sent {
                    // The host aborts the connection, so that the client detects the truncated response.
                    let _ = trailers.write(Err(internal("the body"))).await;
                }
            }
            let _ = transmitted.await;
        });
        Ok(response)
    }
}

fn to_wit_request(request: &Request) -> WitRequest {
    let now = system_clock::now();
    let method = match request.get_method() {
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
    let headers = request.get_headers().copy_all().into_iter();
    // A clock before 1970 is wrong. Every signature counts as expired then.
    let seconds = u64::try_from(now.seconds).unwrap_or(u64::MAX);
    WitRequest {
        method,
        path_with_query: request.get_path_with_query().unwrap_or_else(|| "/".into()),
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect(),
        received: seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(now.nanoseconds.into()),
        random: get_random_u64(),
        // `wasi:http` has no client address.
        client: None,
    }
}

/// Maximum number of bytes in flight.
const CHUNK_BYTES: u64 = 64 * 1024;

/// The body is incomplete: a read failed, or the client has disconnected.
struct BodyAborted;

async fn send(mut output: StreamWriter<u8>, parts: Vec<Part>) -> Result<(), BodyAborted> {
    for part in parts {
        match part {
            Part::Bytes(bytes) => write(&mut output, bytes).await?,
            Part::Stream(StreamPart { source, length }) => {
                let mut left = length;
                while left > 0 {
                    // Do not poll the source before the first read: a host would then read ahead by an amount of its
                    // own, which is small.
                    let bytes = source.blocking_read(left.min(CHUNK_BYTES));
                    let bytes = bytes.map_err(|_| BodyAborted)?;
                    left = left.checked_sub(bytes.len() as u64).ok_or(BodyAborted)?;
                    write(&mut output, bytes).await?;
                }
            }
        }
    }
    Ok(())
}

async fn write(output: &mut StreamWriter<u8>, bytes: Vec<u8>) -> Result<(), BodyAborted> {
    let rest = output.write_all(bytes).await;
    rest.is_empty().then_some(()).ok_or(BodyAborted)
}
