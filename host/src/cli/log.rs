//! The log, on standard error, and what is printed at the start: neither makes a request wait for whoever reads it.

use clap::ValueEnum;
use millpond::limits::LOG_BYTES;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

/// How a line is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// The running log. When it is dropped, the lines that wait are written, for as long as a second.
#[derive(Debug)]
pub(super) struct Log {
    queue: Arc<Queue>,
    _worker: WorkerGuard,
}

impl Log {
    /// Logs to standard error from here on, on a thread of its own: lines wait in a queue of [`LOG_BYTES`], and those
    /// that find no room in it are dropped and counted.
    pub(super) fn start(format: LogFormat) -> Self {
        let (lines, log) = queue(io::stderr());
        let subscriber = tracing_subscriber::fmt()
            .with_writer(lines)
            // It would tell of a failure on standard error, and end the request where that is closed.
            .log_internal_errors(false)
            .with_ansi(io::stderr().is_terminal())
            .with_max_level(tracing::Level::INFO);
        match format {
            LogFormat::Text => subscriber.with_target(false).init(),
            LogFormat::Json => subscriber.json().flatten_event(true).init(),
        }
        log
    }

    /// Counts the lines that were dropped, for `/metrics`.
    pub(super) fn dropped(&self) -> Box<dyn Collector> {
        Box::new(Dropped(Arc::clone(&self.queue)))
    }
}

/// Prints on a thread of its own: whoever should read it may be stuck, or have gone, and neither is a reason not to
/// serve.
pub(super) fn announce(text: String) -> io::Result<()> {
    std::thread::Builder::new()
        .name("millpond-announcement".into())
        .spawn(move || {
            let _ = io::stdout().write_all(text.as_bytes());
        })?;
    Ok(())
}

/// What a line takes of the queue at least, in bytes: shorter ones are not told apart, so that so many lines of it
/// fill the queue.
const LEAST_LINE_BYTES: usize = 128;

/// What waits to be written, and how many lines do not wait any more because they never will be.
///
/// The appender's own queue counts lines, which are of no certain length; this one counts bytes, and is full first.
#[derive(Debug, Default)]
struct Queue {
    bytes: AtomicUsize,
    dropped_lines: AtomicU64,
}

impl Queue {
    fn enter(&self, line: &[u8]) -> bool {
        let fits = |bytes: usize| {
            let bytes = bytes.saturating_add(held_bytes(line));
            (bytes <= LOG_BYTES).then_some(bytes)
        };
        let entered = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        entered.is_ok()
    }

    fn leave(&self, line: &[u8]) {
        self.bytes.fetch_sub(held_bytes(line), Ordering::Relaxed);
    }

    fn drop_line(&self) {
        self.dropped_lines.fetch_add(1, Ordering::Relaxed);
    }
}

fn held_bytes(line: &[u8]) -> usize {
    line.len().max(LEAST_LINE_BYTES)
}

/// A queue, and the thread that writes what is in it.
fn queue(writer: impl Write + Send + 'static) -> (Lines, Log) {
    let queue = Arc::<Queue>::default();
    let written = Written {
        writer,
        queue: Arc::clone(&queue),
    };
    let (lines, worker) = NonBlockingBuilder::default()
        .thread_name("millpond-log")
        .lossy(true)
        // As many as there can be, and a place for the worker's signal to end.
        .buffered_lines_limit(LOG_BYTES / LEAST_LINE_BYTES + 1)
        .finish(written);
    let lines = Lines {
        lines,
        queue: Arc::clone(&queue),
    };
    let log = Log {
        queue,
        _worker: worker,
    };
    (lines, log)
}

/// The queue's entrance. A whole line is written at a time.
#[derive(Debug, Clone)]
struct Lines {
    lines: NonBlocking,
    queue: Arc<Queue>,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.enter(line) {
            self.lines.write(line)
        } else {
            self.queue.drop_line();
            Ok(line.len())
        }
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

/// The queue's exit, on the worker's thread. It is given a whole line at a time.
struct Written<W> {
    writer: W,
    queue: Arc<Queue>,
}

impl<W: Write> Write for Written<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Whoever read it has gone, most likely. There is nobody left to tell.
        if self.writer.write_all(line).is_err() {
            self.queue.drop_line();
        }
        self.queue.leave(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The count of lines that were dropped, as a metric.
#[derive(Debug)]
struct Dropped(Arc<Queue>);

impl Collector for Dropped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let dropped = ConstCounter::new(self.0.dropped_lines.load(Ordering::Relaxed));
        let help = "Lines of the log that nobody took in time";
        let name = "millpond_log_dropped_lines";
        let metric = encoder.encode_descriptor(name, help, None, dropped.metric_type())?;
        dropped.encode(metric)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A reader that takes a line only when it is told to.
    struct Slow {
        take: Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            // Once the other end is gone, it takes everything.
            let _ = self.take.recv();
            self.taken.lock().unwrap().extend_from_slice(line);
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
        for length in [1, LEAST_LINE_BYTES, 1000, LOG_BYTES] {
            let (reader, go, taken) = slow();
            let (mut lines, log) = queue(reader);
            let line = vec![b'x'; length];
            let room = LOG_BYTES / held_bytes(&line);
            for _ in 0..room + 3 {
                lines.write_all(&line).unwrap();
            }
            let queue = Arc::clone(&log.queue);
            assert_eq!(queue.dropped_lines.load(Ordering::Relaxed), 3, "{length}");
            assert!(queue.bytes.load(Ordering::Relaxed) <= LOG_BYTES);
            assert_eq!(lines.lines.error_counter().dropped_lines(), 0, "{length}");
            drop(go);
            drop(log);
            assert_eq!(taken.lock().unwrap().len(), room * length);
            assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_line_larger_than_the_queue_is_dropped() {
        let (mut lines, log) = queue(io::sink());
        lines.write_all(&vec![b'x'; LOG_BYTES + 1]).unwrap();
        assert_eq!(log.queue.dropped_lines.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn lines_for_a_reader_that_has_gone_are_counted_and_do_no_harm() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let (mut lines, log) = queue(writer);
        let queue = Arc::clone(&log.queue);
        for _ in 0..10 {
            lines.write_all(b"a line\n").unwrap();
        }
        drop(log);
        assert_eq!(queue.dropped_lines.load(Ordering::Relaxed), 10);
        assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
    }
}
