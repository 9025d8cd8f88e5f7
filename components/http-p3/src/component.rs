//! The handler: from `wasi:http` to the interface's request, and from its response back.

use bindings::exports::wasi::http::handler::Guest;
use bindings::millpond::media::media_serve::{Part, Request as Question, StreamPart, handle};
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
        world: "millpond:wasi/http-p3",
        generate_all,
    });
    use super::Component;
    export!(Component);
}

struct Component;

impl Guest for Component {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let answer = handle(&question(&request));
        // A request's content is not read: the host lets go of it with the request.
        drop(request);
        let internal = |what: &str| ErrorCode::InternalError(Some(what.to_owned()));
        let fields = Fields::from_list(&answer.fields).map_err(|_| internal("a field"))?;
        let (trailers, no_trailers) = wit_future::new(|| Ok(None));
        // An answer without content, such as one to `HEAD`, has no stream: an empty one would be less than its
        // `Content-Length`.
        let (output, content) = match answer.body.is_empty() {
            true => (None, None),
            false => {
                let (output, content) = wit_stream::new();
                (Some(output), Some(content))
            }
        };
        let (response, transmitted) = Response::new(fields, content, no_trailers);
        response
            .set_status_code(answer.status)
            .map_err(|()| internal("the status"))?;
        // The task lives until the host has sent everything: one that takes instances up again must not end this
        // one before.
        spawn_local(async move {
            if let Some(output) = output {
                let sent = send(output, answer.body).await;
                if let Err(Cut) = sent {
                    // The host cuts the connection: the client sees that the answer is not whole.
                    let _ = trailers.write(Err(internal("the body"))).await;
                }
            }
            let _ = transmitted.await;
        });
        Ok(response)
    }
}

fn question(request: &Request) -> Question {
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
    let fields = request.get_headers().copy_all().into_iter();
    // By a clock that stands before 1970, and so is wrong, every signature has ended.
    let seconds = u64::try_from(now.seconds).unwrap_or(u64::MAX);
    Question {
        method,
        target: request.get_path_with_query().unwrap_or_else(|| "/".into()),
        fields: fields
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect(),
        received: seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(now.nanoseconds.into()),
        nonce: get_random_u64(),
        // `wasi:http` does not tell.
        client: None,
    }
}

/// Most bytes that are in flight at a time.
const PIECE_BYTES: u64 = 64 * 1024;

/// Why the body is not whole: a read failed, or the client has gone.
struct Cut;

async fn send(mut output: StreamWriter<u8>, parts: Vec<Part>) -> Result<(), Cut> {
    for part in parts {
        match part {
            Part::Bytes(bytes) => write(&mut output, bytes).await?,
            Part::Stream(StreamPart { source, length }) => {
                let mut left = length;
                while left > 0 {
                    // Never asked whether it is ready before it has been read from: a host would then read ahead as
                    // much as it thinks fit, which is little.
                    let bytes = source.blocking_read(left.min(PIECE_BYTES));
                    let bytes = bytes.map_err(|_| Cut)?;
                    left = left.checked_sub(bytes.len() as u64).ok_or(Cut)?;
                    write(&mut output, bytes).await?;
                }
            }
        }
    }
    Ok(())
}

async fn write(output: &mut StreamWriter<u8>, bytes: Vec<u8>) -> Result<(), Cut> {
    let rest = output.write_all(bytes).await;
    rest.is_empty().then_some(()).ok_or(Cut)
}
