//! Span of a request, with the attributes of the semantic conventions for HTTP
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>). Attributes of our own begin with `millpond.`.

use super::parent::parent;
use crate::log::{QueuedAccessLog, TraceIds, split_port};
use http::Method;
use millpond::Outcome;
use millpond::ledger::{AccessLog, AccessLogFields, AccessLogLine};
use opentelemetry::trace::{Span, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

/// Scheme of the URLs that the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// Maximum length of a method that the conventions do not know, in bytes. The rest is cut off.
const METHOD_BYTES: usize = 32;

/// Access log that makes a span of each line, and passes the line on with the ids of the span.
#[derive(Debug)]
pub(super) struct TracedAccessLog {
    pub(super) log: Arc<QueuedAccessLog>,
    pub(super) tracer: SdkTracer,
    pub(super) scheme: Scheme,
}

impl AccessLog for TracedAccessLog {
    fn fields(&self) -> AccessLogFields {
        AccessLogFields::ALL
    }

    fn write(&self, line: &AccessLogLine<'_>) {
        let ids = self.trace(line);
        self.log.write_with(line, ids.as_ref());
    }
}

impl TracedAccessLog {
    /// Makes the span of a line. Returns its ids, or `None` if it is not sampled.
    fn trace(&self, line: &AccessLogLine<'_>) -> Option<TraceIds> {
        let end = SystemTime::now();
        let parent = line
            .trace_parent
            .and_then(|trace_parent| parent(trace_parent, line.trace_state));
        let context = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let builder = SpanBuilder::from_name(format!("{} {}", name_of(line.method), line.route))
            .with_kind(SpanKind::Server)
            .with_start_time(end.checked_sub(line.duration).unwrap_or(end));
        let mut span = self.tracer.build_with_context(builder, &context);
        if !span.is_recording() {
            return None;
        }
        set_attributes(&mut span, line, self.scheme);
        if let Some(error_type) = error_type(line) {
            span.set_attribute(KeyValue::new("error.type", error_type));
            let reason = line.reason.unwrap_or_default().to_owned();
            span.set_status(Status::error(reason));
        }
        let ids = TraceIds {
            trace_id: span.span_context().trace_id().to_bytes(),
            span_id: span.span_context().span_id().to_bytes(),
        };
        span.end_with_timestamp(end);
        Some(ids)
    }
}

fn set_attributes(span: &mut impl Span, line: &AccessLogLine<'_>, scheme: Scheme) {
    let mut set = |attribute| span.set_attribute(attribute);
    let method = attribute_of(line.method);
    set(KeyValue::new("http.request.method", method.to_owned()));
    if method != line.method.as_str() {
        // It is a token, and so ASCII.
        let method = line.method.as_str();
        let method = method.get(..METHOD_BYTES).unwrap_or(method).to_owned();
        set(KeyValue::new("http.request.method_original", method));
    }
    let target: Vec<u8> = line.target.parts().flatten().copied().collect();
    let target = text(&target);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*target, None),
    };
    set(KeyValue::new("url.path", path.to_owned()));
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        set(KeyValue::new("url.query", query.to_owned()));
    }
    set(KeyValue::new(
        "url.scheme",
        match scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        },
    ));
    set(KeyValue::new("http.route", line.route.to_owned()));
    let version = line.protocol().trim_start_matches("HTTP/");
    set(KeyValue::new("network.protocol.version", version));
    if let Some(host) = line.host {
        let (address, port) = split_port(host.0);
        set(KeyValue::new("server.address", text(address).into_owned()));
        if let Some(port) = port {
            set(KeyValue::new("server.port", i64::from(port)));
        }
    }
    if let Some(client) = line.client {
        set(KeyValue::new("client.address", client.to_string()));
    }
    if let Some(user_agent) = line.user_agent {
        let user_agent = text(user_agent.0).into_owned();
        set(KeyValue::new("user_agent.original", user_agent));
    }
    if let Some(status) = line.status {
        let status = i64::from(status.as_u16());
        set(KeyValue::new("http.response.status_code", status));
    }
    set(KeyValue::new("millpond.outcome", line.outcome.name()));
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for (name, bytes) in [
        ("millpond.body_bytes_sent", line.body_bytes_sent),
        ("millpond.guest_peak_bytes", line.guest_peak_bytes as u64),
        ("millpond.peak_bytes", line.peak_bytes as u64),
    ] {
        set(KeyValue::new(name, number(bytes)));
    }
    if let Some(cache) = line.cache {
        set(KeyValue::new("millpond.cache", cache.name()));
    }
    if let Some(request_id) = line.request_id {
        set(KeyValue::new("millpond.request_id", request_id.to_owned()));
    }
}

/// Text of a client. Bytes that are no UTF-8 are replaced, as OTLP needs it.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Returns whether the conventions know a method. A client may send any other.
fn is_known(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ]
    .contains(method)
}

/// Method in the name of a span.
fn name_of(method: &Method) -> &str {
    if is_known(method) {
        method.as_str()
    } else {
        "HTTP"
    }
}

/// Method as an attribute.
fn attribute_of(method: &Method) -> &str {
    if is_known(method) {
        method.as_str()
    } else {
        "_OTHER"
    }
}

/// Returns the type of a request's error. `None` if it has no error, or one of its client's (4xx).
fn error_type(line: &AccessLogLine<'_>) -> Option<String> {
    match (line.outcome, line.status) {
        (Outcome::Aborted, _) | (Outcome::Limited | Outcome::Failed, None) => {
            Some(line.outcome.name().to_owned())
        }
        (_, Some(status)) if status.is_server_error() => Some(status.as_str().to_owned()),
        (Outcome::Limited | Outcome::Failed, Some(status)) if !status.is_client_error() => {
            Some(line.outcome.name().to_owned())
        }
        _ => None,
    }
}
