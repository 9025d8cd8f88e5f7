//! Lines as JSON, with the field names of the Elastic Common Schema (<https://www.elastic.co/docs/reference/ecs>).
//!
//! Names are flat, as in `http.request.method`. Fields that the schema does not have begin with `millpond.`.

use super::timestamp::write_rfc3339;
use super::trace_ids::{HexId, TraceIds};
use millpond::Outcome;
use millpond::ledger::{AccessLogLine, CacheStatus};
use std::fmt::{self, Debug, Write};
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Version of the schema.
const ECS_VERSION: &str = "8.11.0";

/// Writes the line of a request.
pub(super) fn write_request(
    writer: &mut impl Write,
    line: &AccessLogLine<'_>,
    ids: Option<&TraceIds>,
    now: SystemTime,
) -> fmt::Result {
    let mut object = JsonObject::begin(writer, line.level, now)?;
    object.text("event.dataset", b"millpond.access")?;
    let message = [b"request ", line.outcome.name().as_bytes()];
    object.texts("message", message.into_iter())?;
    if let Some(client) = line.client {
        object.shown("client.ip", &client)?;
    }
    object.text("http.request.method", line.method.as_str().as_bytes())?;
    object.texts("url.original", line.target.parts())?;
    let version = line.protocol().trim_start_matches("HTTP/");
    object.text("http.version", version.as_bytes())?;
    if let Some(host) = line.host {
        let (domain, port) = split_port(host.0);
        object.text("url.domain", domain)?;
        if let Some(port) = port {
            object.number("url.port", port.into())?;
        }
    }
    if let Some(status) = line.status {
        object.number("http.response.status_code", status.as_u16().into())?;
    }
    object.number("http.response.body.bytes", line.body_bytes_sent)?;
    let nanoseconds = u64::try_from(line.duration.as_nanos()).unwrap_or(u64::MAX);
    object.number("event.duration", nanoseconds)?;
    object.text("event.outcome", event_outcome(line).as_bytes())?;
    object.text("millpond.outcome", line.outcome.name().as_bytes())?;
    if let Some(cache) = line.cache {
        object.text("millpond.cache", CacheStatus::name(cache).as_bytes())?;
    }
    object.number("millpond.guest_peak_bytes", line.guest_peak_bytes as u64)?;
    object.number("millpond.peak_bytes", line.peak_bytes as u64)?;
    if let Some(request_id) = line.request_id {
        object.text("http.request.id", request_id.as_bytes())?;
    }
    if let Some(ids) = ids {
        object.shown("trace.id", &HexId(&ids.trace_id))?;
        object.shown("span.id", &HexId(&ids.span_id))?;
    }
    if let Some(referrer) = line.referrer {
        object.texts("http.request.referrer", referrer.parts())?;
    }
    if let Some(user_agent) = line.user_agent {
        object.text("user_agent.original", user_agent.0)?;
    }
    if let Some(reason) = line.reason {
        object.text("event.reason", reason.as_bytes())?;
    }
    object.end()
}

/// Returns `success` for a response below 400, `unknown` if the client left, and else `failure`.
fn event_outcome(line: &AccessLogLine<'_>) -> &'static str {
    let is_error = line.status.is_none_or(|status| status.as_u16() >= 400);
    match line.outcome {
        Outcome::Aborted => "unknown",
        Outcome::Completed if !is_error => "success",
        _ => "failure",
    }
}

/// Splits a port from a host. An address of IPv6 keeps its brackets.
pub(crate) fn split_port(host: &[u8]) -> (&[u8], Option<u16>) {
    let Some(colon) = host.iter().rposition(|byte| *byte == b':') else {
        return (host, None);
    };
    let port = std::str::from_utf8(&host[colon + 1..]).ok();
    match port.and_then(|port| port.parse().ok()) {
        Some(port) if !host[colon + 1..].starts_with(b"+") => (&host[..colon], Some(port)),
        _ => (host, None),
    }
}

/// Format of the lines that are not about a request.
#[derive(Debug)]
pub(super) struct JsonLineFormat;

impl<S, N> FormatEvent<S, N> for JsonLineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let of = event.metadata();
        let mut object = JsonObject::begin(&mut writer, *of.level(), SystemTime::now())?;
        object.text("event.dataset", b"millpond.log")?;
        object.text("log.logger", of.target().as_bytes())?;
        let mut fields = EventFields {
            object,
            result: Ok(()),
        };
        event.record(&mut fields);
        fields.result?;
        fields.object.end()
    }
}

/// Writer of an event's fields.
struct EventFields<'a, W> {
    object: JsonObject<'a, W>,
    result: fmt::Result,
}

impl<W: Write> EventFields<'_, W> {
    fn record(
        &mut self,
        field: &Field,
        write: impl FnOnce(&mut JsonObject<'_, W>, &str) -> fmt::Result,
    ) {
        if self.result.is_ok() {
            self.result = match field.name() {
                "message" => write(&mut self.object, "message"),
                "error" => write(&mut self.object, "error.message"),
                // The place in a library that logs by the crate `log`.
                name if name.starts_with("log.") => Ok(()),
                name => write(&mut self.object, &format!("millpond.{name}")),
            };
        }
    }
}

impl<W: Write> Visit for EventFields<'_, W> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, |object, name| object.number(name, value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, |object, name| object.literal(name, &value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, |object, name| object.literal(name, &value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, |object, name| object.text(name, value.as_bytes()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        self.record(field, |object, name| object.text(name, value.as_bytes()));
    }
}

/// Writer of one object on one line.
struct JsonObject<'a, W>(&'a mut W);

impl<'a, W: Write> JsonObject<'a, W> {
    /// Begins a line, with its time and level.
    fn begin(writer: &'a mut W, level: Level, now: SystemTime) -> Result<Self, fmt::Error> {
        writer.write_str("{\"@timestamp\":\"")?;
        write_rfc3339(writer, now)?;
        writer.write_str("\",\"log.level\":\"")?;
        writer.write_str(match level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        })?;
        writer.write_str("\",\"ecs.version\":\"")?;
        writer.write_str(ECS_VERSION)?;
        writer.write_str("\"")?;
        Ok(JsonObject(writer))
    }

    fn end(self) -> fmt::Result {
        self.0.write_str("}\n")
    }

    fn name(&mut self, name: &str) -> fmt::Result {
        self.0.write_str(",\"")?;
        self.0.write_str(name)?;
        self.0.write_str("\":")
    }

    fn number(&mut self, name: &str, value: u64) -> fmt::Result {
        self.name(name)?;
        self.0.write_str(itoa::Buffer::new().format(value))
    }

    /// Writes a value whose text is JSON.
    fn literal(&mut self, name: &str, value: &impl fmt::Display) -> fmt::Result {
        self.name(name)?;
        write!(self.0, "{value}")
    }

    /// Writes a value whose text needs no escapes.
    fn shown(&mut self, name: &str, value: &impl fmt::Display) -> fmt::Result {
        self.name(name)?;
        write!(self.0, "\"{value}\"")
    }

    fn text(&mut self, name: &str, text: &[u8]) -> fmt::Result {
        self.texts(name, [text].into_iter())
    }

    fn texts<'b>(&mut self, name: &str, parts: impl Iterator<Item = &'b [u8]>) -> fmt::Result {
        self.name(name)?;
        self.0.write_str("\"")?;
        for part in parts {
            write_escaped(self.0, part)?;
        }
        self.0.write_str("\"")
    }
}

/// Writes bytes inside of a JSON string (RFC 8259 section 7). Bytes that are no UTF-8 become U+FFFD. Control characters
/// are escaped, also those that JSON allows, because a line may be shown on a terminal.
fn write_escaped(writer: &mut impl Write, bytes: &[u8]) -> fmt::Result {
    let is_plain = |byte: &u8| (0x20..0x7f).contains(byte) && !matches!(byte, b'"' | b'\\');
    if bytes.iter().all(is_plain)
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return writer.write_str(text);
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => writer.write_str("\\\"")?,
                '\\' => writer.write_str("\\\\")?,
                '\n' => writer.write_str("\\n")?,
                '\r' => writer.write_str("\\r")?,
                '\t' => writer.write_str("\\t")?,
                '\u{2028}' | '\u{2029}' => write!(writer, "\\u{:04x}", u32::from(c))?,
                c if c.is_control() => write!(writer, "\\u{:04x}", u32::from(c))?,
                c => writer.write_char(c)?,
            }
        }
        if !chunk.invalid().is_empty() {
            writer.write_char('\u{fffd}')?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn any_bytes_are_a_string_on_one_line() {
        for (bytes, expected) in [
            (&b"/a.gif"[..], "/a.gif"),
            (b"a\"b\\c\n\r\t", "a\"b\\c\n\r\t"),
            (b"\x00\x1b[1m\x7f", "\0\u{1b}[1m\u{7f}"),
            (b"a\xffb\xe2\x82", "a\u{fffd}b\u{fffd}"),
            (
                "\u{e4}\u{2028}\u{85}\u{1f980}".as_bytes(),
                "\u{e4}\u{2028}\u{85}\u{1f980}",
            ),
        ] {
            let mut text = String::new();
            write_escaped(&mut text, bytes).unwrap();
            assert!(!text.chars().any(char::is_control), "{text:?}");
            let json = format!("\"{text}\"");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), expected);
        }
    }

    #[test]
    fn ports() {
        for (host, domain, port) in [
            ("a.example", "a.example", None),
            ("a.example:8080", "a.example", Some(8080)),
            ("[::1]:80", "[::1]", Some(80)),
            ("[::1]", "[::1]", None),
            ("a:", "a:", None),
            ("a:+1", "a:+1", None),
            ("a:99999", "a:99999", None),
        ] {
            assert_eq!(split_port(host.as_bytes()), (domain.as_bytes(), port));
        }
    }
}
