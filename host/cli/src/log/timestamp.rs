//! Timestamps of log lines. The part down to the second is formatted once for each thread and second.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Timestamp of a line (RFC 3339), in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogTimestamp;

impl FormatTime for LogTimestamp {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write_rfc3339(writer, SystemTime::now())
    }
}

/// Writes a time as in `2026-11-25T13:46:02.655115Z`.
pub(super) fn write_rfc3339(writer: &mut impl fmt::Write, time: SystemTime) -> fmt::Result {
    let since = since_epoch(time);
    writer.write_str(second(since.as_secs()).as_str())?;
    // Adding a million yields leading zeros.
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(1_000_000 + since.subsec_micros());
    writer.write_char('.')?;
    writer.write_str(&digits[1..])?;
    writer.write_char('Z')
}

/// Writes a time as Apache does, as in `25/Nov/2026:13:46:02 +0000`.
pub(super) fn write_common(writer: &mut impl fmt::Write, time: SystemTime) -> fmt::Result {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let second = second(since_epoch(time).as_secs());
    let text = second.as_str();
    let month: usize = text[5..7].parse().unwrap_or(1);
    let month = MONTHS.get(month.saturating_sub(1)).unwrap_or(&"Jan");
    write!(
        writer,
        "{}/{month}/{}:{} +0000",
        &text[8..10],
        &text[..4],
        &text[11..]
    )
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Returns a second as text.
fn second(seconds: u64) -> Second {
    thread_local! {
        static LAST: Cell<Option<(u64, Second)>> = const { Cell::new(None) };
    }
    match LAST.get() {
        Some((last, text)) if last == seconds => text,
        _ => {
            let text = Second::of(seconds);
            LAST.set(Some((seconds, text)));
            text
        }
    }
}

/// Text as in `2026-11-25T13:46:02`.
#[derive(Debug, Clone, Copy)]
struct Second([u8; 19]);

impl Second {
    fn of(seconds: u64) -> Self {
        /// The last second of the year 9999. A later one would be longer.
        const LAST: u64 = 253_402_300_799;
        let time = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST));
        let text = humantime::format_rfc3339_seconds(time).to_string();
        let digits = text.as_bytes().first_chunk();
        Second(*digits.unwrap_or(b"0000-00-00T00:00:00"))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("0000-00-00T00:00:00")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times() {
        for (seconds, rfc3339, common) in [
            (
                0,
                "1970-01-01T00:00:00.000007Z",
                "01/Jan/1970:00:00:00 +0000",
            ),
            (
                1_795_783_562,
                "2026-11-27T12:46:02.000007Z",
                "27/Nov/2026:12:46:02 +0000",
            ),
            (
                u64::from(u32::MAX) * 1000,
                "9999-12-31T23:59:59.000007Z",
                "31/Dec/9999:23:59:59 +0000",
            ),
        ] {
            let time = UNIX_EPOCH + Duration::new(seconds, 7000);
            let (mut first, mut second) = (String::new(), String::new());
            write_rfc3339(&mut first, time).unwrap();
            write_common(&mut second, time).unwrap();
            assert_eq!((&*first, &*second), (rfc3339, common));
        }
    }
}
