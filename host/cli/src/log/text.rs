//! Lines of requests as text. They are the lines that `tracing-subscriber` writes of the same events, in half the time.

use super::timestamp::write_rfc3339;
use super::trace_ids::{HexId, TraceIds};
use millpond::ledger::AccessLogLine;
use std::fmt::{self, Write};
use std::time::SystemTime;
use tracing::Level;

/// Writes the line of a request.
pub(super) fn write_request(
    writer: &mut impl Write,
    line: &AccessLogLine<'_>,
    ids: Option<&TraceIds>,
    now: SystemTime,
    is_coloured: bool,
) -> fmt::Result {
    let (level, colour) = match line.level {
        Level::ERROR => ("ERROR", 31),
        Level::WARN => (" WARN", 33),
        Level::INFO => (" INFO", 32),
        Level::DEBUG => ("DEBUG", 34),
        Level::TRACE => ("TRACE", 35),
    };
    if is_coloured {
        writer.write_str("\u{1b}[2m")?;
        write_rfc3339(writer, now)?;
        write!(writer, "\u{1b}[0m \u{1b}[{colour}m{level}\u{1b}[0m")?;
    } else {
        write_rfc3339(writer, now)?;
        writer.write_char(' ')?;
        writer.write_str(level)?;
    }
    let mut fields = TextFields {
        writer,
        is_coloured,
    };
    if let Some(client) = line.client {
        fields.name("client")?;
        write!(fields.writer, "{client}")?;
    }
    fields.text("method", line.method.as_str())?;
    fields.name("target")?;
    line.target.write_to(fields.writer)?;
    if let Some(status) = line.status {
        fields.text("status", status.as_str())?;
    }
    fields.number("body_bytes_sent", line.body_bytes_sent)?;
    fields.number("duration_us", line.duration_us())?;
    fields.text("outcome", line.outcome.name())?;
    if let Some(cache) = line.cache {
        fields.text("cache", cache.name())?;
    }
    fields.number("guest_peak_bytes", line.guest_peak_bytes as u64)?;
    fields.number("peak_bytes", line.peak_bytes as u64)?;
    fields.text("protocol", line.protocol())?;
    if let Some(host) = line.host {
        fields.name("host")?;
        host.write_to(fields.writer)?;
    }
    if let Some(request_id) = line.request_id {
        fields.text("request_id", request_id)?;
    }
    if let Some(ids) = ids {
        fields.name("trace_id")?;
        write!(fields.writer, "{}", HexId(&ids.trace_id))?;
        fields.name("span_id")?;
        write!(fields.writer, "{}", HexId(&ids.span_id))?;
    }
    if let Some(referrer) = line.referrer {
        fields.name("referrer")?;
        referrer.write_to(fields.writer)?;
    }
    if let Some(user_agent) = line.user_agent {
        fields.name("user_agent")?;
        user_agent.write_to(fields.writer)?;
    }
    if let Some(reason) = line.reason {
        fields.name("reason")?;
        write!(fields.writer, "{reason:?}")?;
    }
    writer.write_char('\n')
}

/// Writer of fields.
struct TextFields<'a, W> {
    writer: &'a mut W,
    is_coloured: bool,
}

impl<W: Write> TextFields<'_, W> {
    fn name(&mut self, name: &str) -> fmt::Result {
        let (before, after) = match self.is_coloured {
            true => (" \u{1b}[3m", "\u{1b}[0m\u{1b}[2m=\u{1b}[0m"),
            false => (" ", "="),
        };
        self.writer.write_str(before)?;
        self.writer.write_str(name)?;
        self.writer.write_str(after)
    }

    fn text(&mut self, name: &str, value: &str) -> fmt::Result {
        self.name(name)?;
        self.writer.write_str(value)
    }

    fn number(&mut self, name: &str, value: u64) -> fmt::Result {
        self.name(name)?;
        self.writer.write_str(itoa::Buffer::new().format(value))
    }
}
