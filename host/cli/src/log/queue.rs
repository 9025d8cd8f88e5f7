//! Queue of log lines, with a thread that writes them. A slow or absent reader delays nobody: lines are dropped and counted.

use millpond::memory_plan::LOG_QUEUE_BYTES;
use parking_lot::{Condvar, Mutex};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Maximum size of the lines that wait to be written, in bytes: about 4,000 requests. Further lines are dropped and
/// counted, because no request waits for the log.
pub(super) const LOG_BYTES: usize = 1024 * 1024;

// The memory plan reserves twice the size, for the growth of the queue and the allocator's rounding.
const _: () = assert!(2 * LOG_BYTES <= LOG_QUEUE_BYTES);

/// Destination of lines.
pub(super) trait Destination: Send + 'static {
    /// Writes whole lines. Returns how many were not written.
    fn write_lines(&mut self, lines: &[u8]) -> u64;

    /// Opens the destination again, after a rotation.
    fn reopen(&mut self) {}
}

/// Standard error, or any other writer. Lines that it does not take are lost.
#[derive(Debug)]
pub(super) struct StreamDestination<W>(pub(super) W);

impl<W: Write + Send + 'static> Destination for StreamDestination<W> {
    fn write_lines(&mut self, lines: &[u8]) -> u64 {
        let (written, _) = write_all(&mut self.0, lines);
        // The reader has probably gone. Nothing can be reported any more.
        count_lines(&lines[written..])
    }
}

/// Writes bytes, and returns how many were written, with the error that stopped it.
pub(super) fn write_all(writer: &mut impl Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match writer.write(&bytes[written..]) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(count) => written = bytes.len().min(written + count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

/// Returns the number of lines, of which the first may lack its beginning.
pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    bytes.split_inclusive(|byte| *byte == b'\n').count() as u64
}

/// Time for which lines are collected before they are written. Waking the writer for each line costs more than the
/// line.
const BATCH_TIME: Duration = Duration::from_millis(5);

/// Lines that wait to be written, and the number of lost ones.
#[derive(Debug)]
pub(super) struct Queue {
    max_bytes: usize,
    lines: Mutex<QueuedLines>,
    arrived: Condvar,
    dropped_lines: AtomicU64,
}

#[derive(Debug, Default)]
struct QueuedLines {
    bytes: Vec<u8>,
    /// Bytes that the writer has taken and not yet written.
    taken_bytes: usize,
    /// Whether the writer waits for something to do.
    is_writer_idle: bool,
    /// Whether the writer is to open its destination again.
    is_reopen_requested: bool,
    is_closed: bool,
}

/// Next thing for the writer to do.
enum Task {
    Write(Vec<u8>),
    Reopen,
    End,
}

impl Queue {
    /// Adds a line, or drops and counts it if the queue is full.
    pub(super) fn push(&self, line: &[u8]) {
        let mut queued = self.lines.lock();
        if queued.bytes.len() + queued.taken_bytes + line.len() > self.max_bytes {
            self.dropped_lines.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queued.bytes.extend_from_slice(line);
        if std::mem::take(&mut queued.is_writer_idle) {
            self.arrived.notify_one();
        }
    }

    /// Number of lines that were not written.
    pub(super) fn dropped_lines(&self) -> u64 {
        self.dropped_lines.load(Ordering::Relaxed)
    }

    /// Has the writer open its destination again, after the lines that it has taken.
    pub(super) fn request_reopen(&self) {
        self.lines.lock().is_reopen_requested = true;
        self.arrived.notify_one();
    }

    /// Waits until there is something to do, and swaps the lines for `empty`.
    fn take(&self, empty: &mut Vec<u8>) -> Task {
        let mut queued = self.lines.lock();
        queued.taken_bytes = 0;
        loop {
            if std::mem::take(&mut queued.is_reopen_requested) {
                return Task::Reopen;
            }
            if !queued.bytes.is_empty() {
                queued.taken_bytes = queued.bytes.len();
                return Task::Write(std::mem::replace(&mut queued.bytes, std::mem::take(empty)));
            }
            if queued.is_closed {
                return Task::End;
            }
            queued.is_writer_idle = true;
            self.arrived.wait(&mut queued);
            if !queued.is_closed && !queued.is_reopen_requested {
                self.arrived.wait_for(&mut queued, BATCH_TIME);
            }
        }
    }

    fn write_on(&self, mut destination: impl Destination) {
        /// Reciprocal of the part of the queue that a reused buffer has at most. A larger one was for an exceptional
        /// load.
        const SPARE_BUFFER_PART: usize = 8;
        let mut empty = Vec::new();
        loop {
            match self.take(&mut empty) {
                Task::Write(mut lines) => {
                    let lost = destination.write_lines(&lines);
                    self.dropped_lines.fetch_add(lost, Ordering::Relaxed);
                    lines.clear();
                    lines.shrink_to(self.max_bytes / SPARE_BUFFER_PART);
                    empty = lines;
                }
                Task::Reopen => destination.reopen(),
                Task::End => return,
            }
        }
    }

    fn close(&self) {
        self.lines.lock().is_closed = true;
        self.arrived.notify_all();
    }
}

/// A queue with its thread. Dropping it writes the waiting lines, for a second at most.
#[derive(Debug)]
pub(super) struct RunningQueue {
    queue: Arc<Queue>,
    /// Closed when the last line has been written.
    is_closed: Receiver<()>,
}

impl RunningQueue {
    /// Starts a queue of `max_bytes`, and the thread that writes its lines.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(super) fn start(max_bytes: usize, destination: impl Destination) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            max_bytes,
            lines: Mutex::default(),
            arrived: Condvar::new(),
            dropped_lines: AtomicU64::new(0),
        });
        let (of_writer, (closed, is_closed)) = (Arc::clone(&queue), channel());
        std::thread::Builder::new()
            .name("millpond-log".into())
            .spawn(move || {
                of_writer.write_on(destination);
                drop(closed);
            })?;
        Ok(RunningQueue { queue, is_closed })
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

impl Drop for RunningQueue {
    fn drop(&mut self) {
        const LONGEST: Duration = Duration::from_secs(1);
        self.queue.close();
        // The reader may be stuck.
        let _ = self.is_closed.recv_timeout(LONGEST);
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
            let running = RunningQueue::start(LOG_BYTES, StreamDestination(reader)).unwrap();
            let line = vec![b'x'; length];
            let room = LOG_BYTES / length;
            for _ in 0..room + 3 {
                running.queue().push(&line);
            }
            let queue = Arc::clone(running.queue());
            assert_eq!(queue.dropped_lines(), 3, "{length}");
            drop(go);
            drop(running);
            assert_eq!(taken.lock().len(), room * length);
            assert!(queue.lines.lock().bytes.is_empty());
        }
    }

    #[test]
    fn a_line_larger_than_the_queue_is_dropped() {
        let running = RunningQueue::start(10, StreamDestination(io::sink())).unwrap();
        running.queue().push(&[b'x'; 11]);
        assert_eq!(running.queue().dropped_lines(), 1);
    }

    #[test]
    fn lines_for_a_reader_that_has_gone_are_counted_and_do_no_harm() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let running = RunningQueue::start(LOG_BYTES, StreamDestination(writer)).unwrap();
        let queue = Arc::clone(running.queue());
        for _ in 0..10 {
            queue.push(b"a line\n");
        }
        drop(running);
        assert_eq!(queue.dropped_lines(), 10);
    }

    #[test]
    fn a_request_to_reopen_needs_no_line() {
        struct Reopened(Sender<()>);
        impl Destination for Reopened {
            fn write_lines(&mut self, _: &[u8]) -> u64 {
                0
            }
            fn reopen(&mut self) {
                self.0.send(()).unwrap();
            }
        }
        let (sender, reopened) = channel();
        let running = RunningQueue::start(LOG_BYTES, Reopened(sender)).unwrap();
        for _ in 0..2 {
            running.queue().request_reopen();
            reopened.recv().unwrap();
        }
    }
}
