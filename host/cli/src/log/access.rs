//! Access log of the command: formats the line of each request, and queues it.

use super::format::LogFormat;
use super::queue::Queue;
use super::trace_ids::TraceIds;
use super::{common_log, json, text};
use millpond::ledger::{AccessLog, AccessLogFields, AccessLogLine};
use parking_lot::RwLock;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::SystemTime;
use tracing::level_filters::LevelFilter;

/// Access log of the command.
#[derive(Debug)]
pub(crate) struct QueuedAccessLog {
    pub(super) format: LogFormat,
    /// Whether no request is logged, at any level.
    pub(super) is_off: bool,
    /// Lowest level that is logged. A reload changes it.
    pub(super) level: RwLock<LevelFilter>,
    /// Whether lines have colours, which only text has.
    pub(super) is_coloured: bool,
    pub(super) queue: Arc<Queue>,
}

impl QueuedAccessLog {
    /// Logs requests from that level on.
    pub(super) fn set_level(&self, level: LevelFilter) {
        *self.level.write() = level;
    }

    /// Writes a line, with the ids of the request's span if it has one. Lines of Apache's formats have no ids.
    pub(crate) fn write_with(&self, line: &AccessLogLine<'_>, ids: Option<&TraceIds>) {
        thread_local! {
            /// A line of bounded fields has a bounded length: 16 KiB, if each character is escaped.
            static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
        }
        if self.is_off || line.level > *self.level.read() {
            return;
        }
        TEXT.with_borrow_mut(|text| {
            text.clear();
            let now = SystemTime::now();
            let written = match self.format {
                LogFormat::Text => text::write_request(text, line, ids, now, self.is_coloured),
                LogFormat::Json => json::write_request(text, line, ids, now),
                LogFormat::Common => common_log::write_request(text, line, now, false),
                LogFormat::Combined => common_log::write_request(text, line, now, true),
            };
            // Writing to memory does not fail.
            if written.is_ok() {
                self.queue.push(text.as_bytes());
            }
        });
    }
}

impl AccessLog for QueuedAccessLog {
    fn fields(&self) -> AccessLogFields {
        let mut fields = AccessLogFields::ALL;
        fields.trace = false;
        match self.format {
            _ if self.is_off => fields = AccessLogFields::NONE,
            LogFormat::Text | LogFormat::Json => {}
            LogFormat::Combined => fields.host = false,
            LogFormat::Common => (fields.host, fields.agent) = (false, false),
        }
        fields
    }

    fn write(&self, line: &AccessLogLine<'_>) {
        self.write_with(line, None);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::log::queue::{LOG_BYTES, RunningQueue, StreamDestination};
    use crate::log::timestamp::LogTimestamp;
    use http::{Method, StatusCode, Version};
    use millpond::ledger::{AccessLogEntry, LedgerRegistry, LoggedHead};
    use millpond::{Outcome, ledger};
    use parking_lot::Mutex;
    use std::io;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().clone()).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
            text.lines().map(str::to_owned).collect()
        }
    }

    /// A client that wants to forge lines, fields and colours.
    const FORGED: &[u8] = b"x\" \n2026-11-27T00:00:00Z  INFO status=200 \r\x1b[31m\xff\\";

    /// Ends a request as each outcome does.
    fn requests(registry: &Arc<LedgerRegistry>) {
        let plain = LoggedHead {
            client: Some("203.0.113.7".parse().unwrap()),
            request_id: Some("r-1"),
            host: Some(b"media.example:8080"),
            referrer: Some(b"https://a.example/p?sig=c2Vj"),
            user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64)"),
            ..LoggedHead::new("/media/a.gif?sig=c2Vj&b")
        };
        let mut entry = AccessLogEntry::new(&Method::GET, &plain, registry, 1 << 20);
        entry.set_status(StatusCode::OK);
        entry.add_body_bytes(5120);
        entry.cache_hit();
        entry.finish(Outcome::Completed);
        drop(entry);

        let forged = LoggedHead {
            version: Version::HTTP_2,
            client: Some("2001:db8::1".parse().unwrap()),
            host: Some(FORGED),
            referrer: Some(FORGED),
            user_agent: Some(FORGED),
            ..LoggedHead::new("/\u{e4}\"\n")
        };
        let mut entry = AccessLogEntry::new(&Method::HEAD, &forged, registry, 1 << 20);
        entry.set_status(StatusCode::TOO_MANY_REQUESTS);
        entry.finish_with(Outcome::Rejected, "no \"room\"\n\u{1b}[31m");
        drop(entry);

        let method = Method::from_bytes(b"-").unwrap();
        let none = LoggedHead::new("-");
        drop(AccessLogEntry::new(&method, &none, registry, 1 << 20));

        let none = LoggedHead::new("");
        let mut entry = AccessLogEntry::new(&Method::OPTIONS, &none, registry, 1 << 20);
        entry.finish_with(Outcome::Failed, "");
        drop(entry);
    }

    /// Returns the lines of these requests.
    fn logged(format: LogFormat, level: LevelFilter) -> Vec<String> {
        let written = Written::default();
        let running = RunningQueue::start(LOG_BYTES, StreamDestination(written.clone())).unwrap();
        let registry = Arc::new(LedgerRegistry::default());
        let log = QueuedAccessLog {
            format,
            is_off: false,
            level: RwLock::new(level),
            is_coloured: false,
            queue: Arc::clone(running.queue()),
        };
        registry.set_access_log(Arc::new(log)).unwrap();
        requests(&registry);
        drop(running);
        written.lines()
    }

    /// Returns a line with the time and the duration replaced.
    fn timeless(line: &str) -> String {
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
        let (before, after) = rest.split_once("duration_us=").unwrap();
        let (_, after) = after.split_once(' ').unwrap();
        format!("{before}duration_us=0 {after}")
    }

    #[test]
    fn a_line_of_text_is_as_the_subscriber_would_write_it() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_target(false)
            .with_timer(LogTimestamp)
            .with_writer(move || writer.clone());
        let registry = Arc::new(ledger::LedgerRegistry::default());
        tracing::subscriber::with_default(subscriber.finish(), || requests(&registry));
        let usual: Vec<_> = written.lines().iter().map(|line| timeless(line)).collect();
        let ours = logged(LogFormat::Text, LevelFilter::INFO);
        let ours: Vec<_> = ours.iter().map(|line| timeless(line)).collect();
        assert_eq!(ours, usual);
        assert_eq!(
            ours[0],
            " INFO client=203.0.113.7 method=GET target=/media/a.gif?sig=[redacted]&b status=200 \
             body_bytes_sent=5120 duration_us=0 outcome=completed cache=hit guest_peak_bytes=0 \
             peak_bytes=103 protocol=HTTP/1.1 host=media.example:8080 request_id=r-1 \
             referrer=https://a.example/p?sig=[redacted] user_agent=\"Mozilla/5.0 (X11; Linux x86_64)\""
        );
        assert_eq!(ours.len(), 4);
    }

    #[test]
    fn json_has_the_names_of_the_common_schema() {
        let lines = logged(LogFormat::Json, LevelFilter::INFO);
        let lines: Vec<serde_json::Value> = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let mut first = lines[0].clone();
        let first = first.as_object_mut().unwrap();
        let time = first.remove("@timestamp").unwrap();
        assert!(humantime::parse_rfc3339(time.as_str().unwrap()).is_ok());
        assert!(first.remove("event.duration").unwrap().is_u64());
        let expected = serde_json::json!({
            "log.level": "info",
            "ecs.version": "8.11.0",
            "event.dataset": "millpond.access",
            "message": "request completed",
            "client.ip": "203.0.113.7",
            "http.request.method": "GET",
            "url.original": "/media/a.gif?sig=[redacted]&b",
            "http.version": "1.1",
            "url.domain": "media.example",
            "url.port": 8080,
            "http.response.status_code": 200,
            "http.response.body.bytes": 5120,
            "event.outcome": "success",
            "millpond.outcome": "completed",
            "millpond.cache": "hit",
            "millpond.guest_peak_bytes": 0,
            "millpond.peak_bytes": 103,
            "http.request.id": "r-1",
            "http.request.referrer": "https://a.example/p?sig=[redacted]",
            "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64)",
        });
        assert_eq!(serde_json::Value::Object(first.clone()), expected);
        let second = &lines[1];
        let forged = String::from_utf8_lossy(FORGED);
        assert_eq!(second["user_agent.original"], *forged);
        assert_eq!(second["http.request.referrer"], *forged);
        assert_eq!(second["url.original"], "/\u{e4}\"\n");
        assert_eq!(second["http.version"], "2");
        assert_eq!(second["event.reason"], "no \"room\"\n\u{1b}[31m");
        let outcomes: Vec<_> = lines.iter().map(|line| &line["event.outcome"]).collect();
        assert_eq!(outcomes, ["success", "failure", "unknown", "failure"]);
    }

    #[test]
    fn common_and_combined_lines_are_apaches() {
        let fields = |format| {
            let lines = logged(format, LevelFilter::INFO);
            let without_time = |line: &String| {
                let (client, rest) = line.split_once(" - - [").unwrap();
                let (time, rest) = rest.split_once("] ").unwrap();
                assert_eq!(time.len(), "27/Nov/2026:12:46:02 +0000".len());
                format!("{client} {rest}")
            };
            lines.iter().map(without_time).collect::<Vec<_>>()
        };
        let forged = r#"x\" \n2026-11-27T00:00:00Z  INFO status=200 \r\x1b[31m\xff\\"#;
        let common = [
            r#"203.0.113.7 "GET /media/a.gif?sig=[redacted]&b HTTP/1.1" 200 5120"#,
            r#"2001:db8::1 "HEAD /\xc3\xa4\"\n HTTP/2.0" 429 -"#,
            r#"- "-" - -"#,
            r#"- "OPTIONS * HTTP/1.1" - -"#,
        ];
        let agents = [
            r#""https://a.example/p?sig=[redacted]" "Mozilla/5.0 (X11; Linux x86_64)""#.to_owned(),
            format!("\"{forged}\" \"{forged}\""),
            r#""-" "-""#.to_owned(),
            r#""-" "-""#.to_owned(),
        ];
        assert_eq!(fields(LogFormat::Common), common);
        let combined: Vec<_> = common
            .iter()
            .zip(agents)
            .map(|(line, agents)| format!("{line} {agents}"))
            .collect();
        assert_eq!(fields(LogFormat::Combined), combined);
    }

    #[test]
    fn no_client_forges_a_line_in_any_format() {
        for format in [
            LogFormat::Text,
            LogFormat::Json,
            LogFormat::Common,
            LogFormat::Combined,
        ] {
            let lines = logged(format, LevelFilter::INFO);
            assert_eq!(lines.len(), 4, "{format:?}");
            for line in lines {
                assert!(!line.chars().any(char::is_control), "{format:?} {line:?}");
            }
        }
    }

    #[test]
    fn levels_choose_lines() {
        for (level, count) in [
            (LevelFilter::INFO, 4),
            (LevelFilter::WARN, 2),
            (LevelFilter::ERROR, 1),
            (LevelFilter::OFF, 0),
        ] {
            assert_eq!(logged(LogFormat::Text, level).len(), count, "{level}");
        }
    }
}
