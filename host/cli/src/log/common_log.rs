//! Lines in Apache's Common and Combined Log Format (<https://httpd.apache.org/docs/current/logs.html#accesslog>).

use super::timestamp::write_common;
use millpond::ledger::AccessLogLine;
use std::fmt::{self, Write};
use std::time::SystemTime;

/// Writes a line in the Common Log Format, `%h %l %u %t "%r" %>s %b`. With `has_agent` it is in the Combined Log Format,
/// which appends `"%{Referer}i" "%{User-agent}i"`.
pub(super) fn write_request(
    writer: &mut impl Write,
    line: &AccessLogLine<'_>,
    now: SystemTime,
    has_agent: bool,
) -> fmt::Result {
    match line.client {
        Some(client) => write!(writer, "{client}")?,
        None => writer.write_char('-')?,
    }
    writer.write_str(" - - [")?;
    // The time is that of the request.
    write_common(writer, now.checked_sub(line.duration).unwrap_or(now))?;
    writer.write_str("] \"")?;
    if line.method.as_str() == "-" {
        // There was no request line.
        writer.write_char('-')?;
    } else {
        write_escaped(writer, line.method.as_str().as_bytes())?;
        writer.write_char(' ')?;
        for part in line.target.parts() {
            write_escaped(writer, part)?;
        }
        writer.write_char(' ')?;
        writer.write_str(match line.protocol() {
            "HTTP/2" => "HTTP/2.0",
            protocol => protocol,
        })?;
    }
    writer.write_str("\" ")?;
    match line.status {
        Some(status) => writer.write_str(status.as_str())?,
        None => writer.write_char('-')?,
    }
    writer.write_char(' ')?;
    match line.body_bytes_sent {
        0 => writer.write_char('-')?,
        bytes => writer.write_str(itoa::Buffer::new().format(bytes))?,
    }
    if has_agent {
        writer.write_str(" \"")?;
        match line.referrer {
            Some(referrer) => {
                for part in referrer.parts() {
                    write_escaped(writer, part)?;
                }
            }
            None => writer.write_char('-')?,
        }
        writer.write_str("\" \"")?;
        match line.user_agent {
            Some(user_agent) => write_escaped(writer, user_agent.0)?,
            None => writer.write_char('-')?,
        }
        writer.write_char('"')?;
    }
    writer.write_char('\n')
}

/// Writes bytes as Apache does (`ap_escape_logitem`). Quotation marks and backslashes are escaped. All that is not printable
/// ASCII is `\xhh`, or `\n`, `\t` and the like.
fn write_escaped(writer: &mut impl Write, bytes: &[u8]) -> fmt::Result {
    for byte in bytes {
        match byte {
            b'"' => writer.write_str("\\\"")?,
            b'\\' => writer.write_str("\\\\")?,
            b' '..=b'~' => writer.write_char(char::from(*byte))?,
            0x08 => writer.write_str("\\b")?,
            b'\n' => writer.write_str("\\n")?,
            b'\r' => writer.write_str("\\r")?,
            b'\t' => writer.write_str("\\t")?,
            0x0b => writer.write_str("\\v")?,
            byte => write!(writer, "\\x{byte:02x}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_are_escaped_as_apache_does() {
        for (bytes, expected) in [
            (&b"/a b~"[..], "/a b~"),
            (b"\"\\", "\\\"\\\\"),
            (b"\n\r\t\x0b\x08", "\\n\\r\\t\\v\\b"),
            (b"\x00\x1b\x7f\xff", "\\x00\\x1b\\x7f\\xff"),
            ("\u{e4}".as_bytes(), "\\xc3\\xa4"),
        ] {
            let mut text = String::new();
            write_escaped(&mut text, bytes).unwrap();
            assert_eq!(text, expected);
        }
    }
}
