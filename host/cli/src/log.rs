//! Log on standard error, and the announcement at the start. A slow reader never blocks a request.

use crate::log_line::{LogLineFormat, LogTimestamp};
use clap::ValueEnum;
use millpond::memory_plan::LOG_QUEUE_BYTES;
use parking_lot::{Condvar, Mutex};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Maximum size of the lines that wait to be written, in bytes: about 5,000 requests. Further lines are dropped and
/// counted, because no request waits for the log.
const LOG_BYTES: usize = 1024 * 1024;

// The memory plan reserves twice the size, for the growth of the queue and the allocator's rounding.
const _: () = assert!(2 * LOG_BYTES <= LOG_QUEUE_BYTES);

/// Format of the log.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per line.
    Json,
}

/// Lowest level that is logged.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogLevel {
    /// All events, with one line for each request.
    Info,
    /// Warnings and errors, and requests that were rejected, limited or failed.
    Warn,
}

impl LogLevel {
    fn filter(self) -> LevelFilter {
        match self {
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warn => LevelFilter::WARN,
        }
    }
}

/// The level of the running log, which may change.
#[derive(Debug, Clone)]
pub(crate) struct LiveLogLevel(reload::Handle<LevelFilter, tracing_subscriber::Registry>);

impl LiveLogLevel {
    /// Logs from that level on.
    pub(crate) fn set(&self, level: LogLevel) {
        // The log exists as long as the process.
        let _ = self.0.modify(|filter| *filter = level.filter());
    }
}

/// The running log. Dropping it writes the waiting lines, for a second at most.
#[derive(Debug)]
pub(crate) struct Log {
    queue: Arc<Queue>,
    /// Closed when the last line has been written.
    is_closed: Receiver<()>,
}

impl Drop for Log {
    fn drop(&mut self) {
        const LONGEST: Duration = Duration::from_secs(1);
        self.queue.close();
        // The reader may be stuck.
        let _ = self.is_closed.recv_timeout(LONGEST);
    }
}

impl Log {
    /// Starts the log on a thread of its own. Lines wait in a queue of [`LOG_BYTES`], and are dropped and counted if it
    /// is full.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(crate) fn start(format: LogFormat, level: LogLevel) -> io::Result<(Self, LiveLogLevel)> {
        let (lines, log) = queue(io::stderr())?;
        let (filter, live_level) = reload::Layer::new(level.filter());
        let registry = tracing_subscriber::registry().with(filter);
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(lines)
            // An error of the log would be printed on standard error, and panic if that is closed.
            .log_internal_errors(false)
            .with_ansi(is_coloured(
                io::stderr().is_terminal(),
                std::env::var_os("NO_COLOR"),
            ));
        match format {
            LogFormat::Text => registry
                .with(layer.event_format(LogLineFormat::new()))
                .init(),
            LogFormat::Json => {
                // `target` is a field of the access log.
                let layer = layer.json().flatten_event(true).with_target(false);
                registry.with(layer.with_timer(LogTimestamp)).init();
            }
        }
        Ok((log, LiveLogLevel(live_level)))
    }

    /// Returns the collector of the dropped lines, for `/metrics`.
    pub(crate) fn dropped_lines_collector(&self) -> Box<dyn Collector> {
        Box::new(DroppedLinesCollector(Arc::clone(&self.queue)))
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

/// Time for which lines are collected before they are written. Waking the writer for each line costs more than the
/// line.
const BATCH_TIME: Duration = Duration::from_millis(5);

/// Lines that wait to be written, and the number of dropped ones.
#[derive(Debug, Default)]
struct Queue {
    lines: Mutex<QueuedLines>,
    arrived: Condvar,
    dropped_lines: AtomicU64,
}

#[derive(Debug, Default)]
struct QueuedLines {
    bytes: Vec<u8>,
    /// Bytes that the writer has taken and not yet written.
    taken_bytes: usize,
    /// Whether the writer waits for lines.
    is_writer_idle: bool,
    is_closed: bool,
}

impl Queue {
    fn push(&self, line: &[u8]) {
        let mut queued = self.lines.lock();
        if queued.bytes.len() + queued.taken_bytes + line.len() > LOG_BYTES {
            self.dropped_lines.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queued.bytes.extend_from_slice(line);
        if std::mem::take(&mut queued.is_writer_idle) {
            self.arrived.notify_one();
        }
    }

    /// Waits until there are lines, and swaps them for `empty`. Returns `None` after the end.
    fn take(&self, empty: Vec<u8>) -> Option<Vec<u8>> {
        let mut queued = self.lines.lock();
        queued.taken_bytes = 0;
        while queued.bytes.is_empty() {
            if queued.is_closed {
                return None;
            }
            queued.is_writer_idle = true;
            self.arrived.wait(&mut queued);
            if !queued.is_closed {
                self.arrived.wait_for(&mut queued, BATCH_TIME);
            }
        }
        queued.taken_bytes = queued.bytes.len();
        Some(std::mem::replace(&mut queued.bytes, empty))
    }

    fn write_on(&self, mut writer: impl Write) {
        /// Maximum size of a buffer that is reused. A larger one was for an exceptional load.
        const SPARE_BUFFER_BYTES: usize = LOG_BYTES / 8;
        let mut empty = Vec::new();
        while let Some(mut lines) = self.take(empty) {
            let mut rest = lines.as_slice();
            while !rest.is_empty() {
                match writer.write(rest) {
                    Ok(count @ 1..) => rest = rest.get(count..).unwrap_or_default(),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // The reader has probably gone. Nothing can be reported any more.
                    Ok(_) | Err(_) => {
                        let lines = rest.split_inclusive(|byte| *byte == b'\n').count();
                        self.dropped_lines
                            .fetch_add(lines as u64, Ordering::Relaxed);
                        break;
                    }
                }
            }
            lines.clear();
            lines.shrink_to(SPARE_BUFFER_BYTES);
            empty = lines;
        }
    }

    fn close(&self) {
        self.lines.lock().is_closed = true;
        self.arrived.notify_all();
    }
}

/// Returns a queue, and starts the thread that writes its lines.
fn queue(writer: impl Write + Send + 'static) -> io::Result<(Lines, Log)> {
    let queue = Arc::<Queue>::default();
    let (of_writer, (closed, is_closed)) = (Arc::clone(&queue), channel());
    std::thread::Builder::new()
        .name("millpond-log".into())
        .spawn(move || {
            of_writer.write_on(writer);
            drop(closed);
        })?;
    let log = Log {
        queue: Arc::clone(&queue),
        is_closed,
    };
    Ok((Lines(queue), log))
}

/// Writer into the queue. Each write is a whole line.
#[derive(Debug, Clone)]
struct Lines(Arc<Queue>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
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
struct DroppedLinesCollector(Arc<Queue>);

impl Collector for DroppedLinesCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let dropped_lines = ConstCounter::new(self.0.dropped_lines.load(Ordering::Relaxed));
        let help = "Log lines dropped because standard error was read too slowly.";
        let name = "millpond_log_dropped_lines";
        let metric = encoder.encode_descriptor(name, help, None, dropped_lines.metric_type())?;
        dropped_lines.encode(metric)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc::Sender;

    /// A reader that takes a line on a signal.
    struct Slow {
        take: Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            // After the other end is gone, it takes everything.
            let _ = self.take.recv();
            self.taken.lock().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Slow, Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (go, take) = channel();
        let taken = Arc::default();
        let reader = Slow {
            take,
            taken: Arc::clone(&taken),
        };
        (reader, go, taken)
    }

    #[test]
    fn what_nobody_takes_is_bounded_and_counted_and_the_rest_is_written_at_the_end() {
        for length in [1, 100, 1000, LOG_BYTES] {
            let (reader, go, taken) = slow();
            let (mut lines, log) = queue(reader).unwrap();
            let line = vec![b'x'; length];
            let room = LOG_BYTES / length;
            for _ in 0..room + 3 {
                lines.write_all(&line).unwrap();
            }
            let queue = Arc::clone(&log.queue);
            assert_eq!(queue.dropped_lines.load(Ordering::Relaxed), 3, "{length}");
            drop(go);
            drop(log);
            assert_eq!(taken.lock().len(), room * length);
            assert!(queue.lines.lock().bytes.is_empty());
        }
    }

    #[test]
    fn nobody_gets_colours_who_does_not_want_them() {
        assert!(is_coloured(true, None));
        assert!(is_coloured(true, Some("".into())));
        assert!(!is_coloured(true, Some("1".into())));
        assert!(!is_coloured(false, None));
    }

    #[test]
    fn a_line_larger_than_the_queue_is_dropped() {
        let (mut lines, log) = queue(io::sink()).unwrap();
        lines.write_all(&vec![b'x'; LOG_BYTES + 1]).unwrap();
        assert_eq!(log.queue.dropped_lines.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn lines_for_a_reader_that_has_gone_are_counted_and_do_no_harm() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (mut lines, log) = queue(writer).unwrap();
        let queue = Arc::clone(&log.queue);
        for _ in 0..10 {
            lines.write_all(b"a line\n").unwrap();
        }
        drop(log);
        assert_eq!(queue.dropped_lines.load(Ordering::Relaxed), 10);
    }
}
