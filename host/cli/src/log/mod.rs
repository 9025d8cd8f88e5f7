//! Log on standard error, access log, and the announcement at the start. A slow reader never blocks a request.

mod access;
mod common_log;
mod file;
mod format;
mod json;
mod levels;
mod queue;
mod text;
mod timestamp;
mod trace_ids;

pub(crate) use format::LogFormat;
pub(crate) use levels::LogLevels;
#[cfg(feature = "otlp")]
pub(crate) use {access::QueuedAccessLog, json::split_port, trace_ids::TraceIds};

#[cfg(not(feature = "otlp"))]
use access::QueuedAccessLog;
use anyhow::{Context, Result};
use file::LogFile;
use json::JsonLineFormat;
use millpond::ledger::AccessLog;
use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use queue::{LOG_BYTES, Queue, RunningQueue, StreamDestination};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use timestamp::LogTimestamp;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Destination of the lines of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AccessLogDestination {
    /// Standard error, with the other lines.
    StandardError,
    /// A file.
    File(PathBuf),
    /// None.
    Off,
}

/// The running log. Dropping it writes the waiting lines, for a second at most.
#[derive(Debug)]
pub(crate) struct Log {
    /// Ends before standard error, which gets its last error.
    access_file: Option<RunningQueue>,
    standard_error: RunningQueue,
    access_log: Arc<QueuedAccessLog>,
    live_levels: LiveLogLevels,
}

/// The levels of the running log, which may change.
#[derive(Debug, Clone)]
pub(crate) struct LiveLogLevels {
    events: reload::Handle<Targets, tracing_subscriber::Registry>,
    access_log: Arc<QueuedAccessLog>,
}

impl LiveLogLevels {
    /// Logs from these levels on.
    pub(crate) fn set(&self, levels: &LogLevels) {
        // The log exists as long as the process.
        let _ = self
            .events
            .modify(|targets| targets.clone_from(levels.targets()));
        self.access_log.set_level(levels.of_requests());
    }
}

/// Maximum size of the lines that wait for standard error if requests have a file, in bytes. The file has the rest of
/// [`LOG_BYTES`].
const EVENT_BYTES: usize = LOG_BYTES / 4;

impl Log {
    /// Starts the log. Each destination has a thread of its own, and a queue of lines. Lines are dropped and counted if it
    /// is full.
    ///
    /// # Errors
    /// The file of the access log cannot be opened, or the system cannot start a thread.
    pub(crate) fn start(
        format: LogFormat,
        levels: &LogLevels,
        access: &AccessLogDestination,
    ) -> Result<Self> {
        let (event_bytes, access_file) = match access {
            AccessLogDestination::File(path) => {
                let file = LogFile::open(path);
                let file = file.with_context(|| {
                    format!("cannot open the access log {} for writing", path.display())
                })?;
                let queue = RunningQueue::start(LOG_BYTES - EVENT_BYTES, file);
                (EVENT_BYTES, Some(queue.context("cannot start a thread")?))
            }
            _ => (LOG_BYTES, None),
        };
        let standard_error = RunningQueue::start(event_bytes, StreamDestination(io::stderr()));
        let standard_error = standard_error.context("cannot start a thread")?;
        let is_coloured = is_coloured(io::stderr().is_terminal(), std::env::var_os("NO_COLOR"));
        let access_log = Arc::new(QueuedAccessLog {
            format,
            is_off: *access == AccessLogDestination::Off,
            level: RwLock::new(levels.of_requests()),
            is_coloured: is_coloured && access_file.is_none(),
            queue: Arc::clone(access_file.as_ref().unwrap_or(&standard_error).queue()),
        });
        let events = tracing_subscriber::fmt::layer()
            .with_writer(Lines(Arc::clone(standard_error.queue())))
            // An error of the log would be printed on standard error, and panic if that is closed.
            .log_internal_errors(false)
            .with_ansi(is_coloured);
        let (targets, live_targets) = reload::Layer::new(levels.targets().clone());
        let filter = tracing_subscriber::registry().with(targets);
        match format {
            LogFormat::Json => filter.with(events.event_format(JsonLineFormat)).init(),
            _ => {
                let events = events.with_target(false).with_timer(LogTimestamp);
                filter.with(events).init();
            }
        }
        Ok(Log {
            access_file,
            standard_error,
            live_levels: LiveLogLevels {
                events: live_targets,
                access_log: Arc::clone(&access_log),
            },
            access_log,
        })
    }

    /// Returns the access log, for the registry of a host.
    pub(crate) fn access_log(&self) -> Arc<dyn AccessLog> {
        Arc::clone(&self.access_log) as _
    }

    /// Returns the access log, for one that adds the ids of spans to its lines.
    #[cfg(feature = "otlp")]
    pub(crate) fn queued_access_log(&self) -> Arc<QueuedAccessLog> {
        Arc::clone(&self.access_log)
    }

    /// Returns the handle that changes the levels.
    pub(crate) fn live_levels(&self) -> LiveLogLevels {
        self.live_levels.clone()
    }

    /// Returns the handle that opens the file of the access log again.
    pub(crate) fn reopener(&self) -> LogReopener {
        let file = self.access_file.as_ref();
        LogReopener(file.map(|file| Arc::clone(file.queue())))
    }

    /// Returns the collector of the dropped lines, for `/metrics`.
    pub(crate) fn dropped_lines_collector(&self) -> Box<dyn Collector> {
        Box::new(DroppedLinesCollector {
            standard_error: Arc::clone(self.standard_error.queue()),
            access_file: self.reopener().0,
        })
    }
}

/// Opens the file of the access log again, on SIGUSR1.
#[derive(Debug, Clone)]
pub(crate) struct LogReopener(Option<Arc<Queue>>);

impl LogReopener {
    /// Has the file opened again, on the thread that writes it. A line says how that went.
    pub(crate) fn reopen(&self) {
        match &self.0 {
            Some(queue) => queue.request_reopen(),
            None => tracing::info!(
                "SIGUSR1 ignored: the log goes to standard error, so there is no file to reopen"
            ),
        }
    }
}

/// Returns whether lines are coloured: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
fn is_coloured(is_terminal: bool, no_color: Option<OsString>) -> bool {
    is_terminal && no_color.is_none_or(|value| value.is_empty())
}

/// Prints the announcement on a thread of its own. The reader may be stuck or gone, and the server starts nevertheless.
pub(crate) fn announce(text: String) -> io::Result<()> {
    std::thread::Builder::new()
        .name("millpond-announcement".into())
        .spawn(move || {
            let _ = io::stdout().write_all(text.as_bytes());
        })?;
    Ok(())
}

/// Writer into a queue. Each write is a whole line.
#[derive(Debug, Clone)]
struct Lines(Arc<Queue>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let (text, _end) = line.split_at(line.len().saturating_sub(1));
        if text.contains(&b'\n') || text.contains(&b'\r') {
            // A text of others, such as a message of a component, is not to look like another line.
            let one_line = |byte: &u8| {
                if matches!(byte, b'\n' | b'\r') {
                    b' '
                } else {
                    *byte
                }
            };
            let mut line: Vec<u8> = text.iter().map(one_line).collect();
            line.push(b'\n');
            self.0.push(&line);
        } else {
            self.0.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

/// Collector of the number of dropped lines.
#[derive(Debug)]
struct DroppedLinesCollector {
    standard_error: Arc<Queue>,
    access_file: Option<Arc<Queue>>,
}

impl Collector for DroppedLinesCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Log lines that were lost, because their reader was too slow or had gone, or the disk was full.";
        let (name, metric_type) = ("millpond_log_dropped_lines", MetricType::Counter);
        let mut family = encoder.encode_descriptor(name, help, None, metric_type)?;
        let file = self.access_file.iter().map(|queue| ("file", queue));
        for (destination, queue) in file.chain([("stderr", &self.standard_error)]) {
            let dropped_lines = ConstCounter::new(queue.dropped_lines());
            dropped_lines.encode(family.encode_family(&[("destination", destination)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nobody_gets_colours_who_does_not_want_them() {
        assert!(is_coloured(true, None));
        assert!(is_coloured(true, Some("".into())));
        assert!(!is_coloured(true, Some("1".into())));
        assert!(!is_coloured(false, None));
    }

    #[test]
    fn an_event_is_one_line_whatever_its_text() {
        let (mut reader, writer) = io::pipe().unwrap();
        let running = RunningQueue::start(LOG_BYTES, StreamDestination(writer)).unwrap();
        let mut lines = Lines(Arc::clone(running.queue()));
        lines.write_all(b"a\r\nb\n").unwrap();
        lines.write_all(b"c\n").unwrap();
        drop(running);
        drop(lines);
        let mut text = String::new();
        io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "a  b\nc\n");
    }
}
