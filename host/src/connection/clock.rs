//! Measures one connection's progress, so that what makes none is ended.

use crate::listener::ConnectionLimits;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// What a connection is doing, and since when.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Waiting for a request.
    Idle { since: Instant },
    /// Reading a request's head. A connection that has brought none yet counts as one whose head is late.
    Head { since: Instant },
    /// Answering: since the request's head was complete.
    Answer {
        since: Instant,
        /// When the present stretch began, and what was sent in it.
        stretch: Instant,
        sent_bytes: u64,
    },
    /// Answering on so many streams of HTTP/2, each of which has a clock of its own.
    Streams {
        count: usize,
        stretch: Instant,
        sent_bytes: u64,
    },
    /// Between streams. What comes here is no request yet: frames about the connection itself come at any time.
    NoStream { since: Instant },
}

impl Phase {
    fn answer() -> Self {
        let since = Instant::now();
        Phase::Answer {
            since,
            stretch: since,
            sent_bytes: 0,
        }
    }
}

/// What a connection or a stream has taken too long for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    Idle,
    Head,
    Stall,
    Total,
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Overdue::Idle => "idle",
            Overdue::Head => "no whole request head in time",
            Overdue::Stall => "the client takes too little",
            Overdue::Total => "the answer took too long",
        })
    }
}

/// The clock of one connection, or of one stream.
#[derive(Debug)]
pub(crate) struct Clock {
    phase: Mutex<Phase>,
    /// There are streams where there was none, which have less time than a connection without.
    streams_began: Notify,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let since = Instant::now();
        Clock {
            phase: Mutex::new(Phase::Head { since }),
            streams_began: Notify::new(),
        }
    }

    /// The clock of a stream, whose request's head is complete.
    pub(crate) fn of_stream() -> Self {
        Clock {
            phase: Mutex::new(Phase::answer()),
            streams_began: Notify::new(),
        }
    }

    /// Whether a stream is being answered.
    pub(crate) fn has_streams(&self) -> bool {
        let phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(*phase, Phase::Streams { .. })
    }

    fn update(&self, next: impl FnOnce(Phase) -> Phase) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        *phase = next(*phase);
    }

    /// Bytes came.
    pub(crate) fn received(&self) {
        self.update(|phase| match phase {
            Phase::Idle { .. } => Phase::Head {
                since: Instant::now(),
            },
            other => other,
        });
    }

    /// Bytes went.
    pub(crate) fn sent(&self, bytes: usize) {
        self.update(|phase| match phase {
            Phase::Answer {
                since,
                stretch,
                sent_bytes,
            } => Phase::Answer {
                since,
                stretch,
                sent_bytes: sent_bytes + bytes as u64,
            },
            Phase::Streams {
                count,
                stretch,
                sent_bytes,
            } => Phase::Streams {
                count,
                stretch,
                sent_bytes: sent_bytes + bytes as u64,
            },
            Phase::Idle { .. } => Phase::Idle {
                since: Instant::now(),
            },
            other @ (Phase::Head { .. } | Phase::NoStream { .. }) => other,
        });
    }

    /// Ends when the connection has taken too long, with the reason.
    pub(crate) async fn overdue(&self, limits: &ConnectionLimits) -> Overdue {
        // What a stretch has to bring, or the reader is a drip.
        let least_bytes = u64::from(limits.least_bytes_per_second)
            .saturating_mul(limits.stall.as_secs())
            .max(1);
        loop {
            let (deadline, reason) = self.deadline(limits, least_bytes);
            if Instant::now() >= deadline {
                return reason;
            }
            // An answer may begin meanwhile, whose time is up before that.
            let look_again = deadline.min(Instant::now() + limits.stall);
            tokio::select! {
                biased;
                () = sleep_until(look_again) => {}
                () = self.streams_began.notified() => {}
            }
        }
    }

    fn deadline(&self, limits: &ConnectionLimits, least_bytes: u64) -> (Instant, Overdue) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Phase::Answer {
            stretch,
            sent_bytes,
            ..
        }
        | Phase::Streams {
            stretch,
            sent_bytes,
            ..
        } = &mut *phase
            && now >= *stretch + limits.stall
            && *sent_bytes >= least_bytes
        {
            (*stretch, *sent_bytes) = (now, 0);
        }
        match *phase {
            Phase::Idle { since } | Phase::NoStream { since } => {
                (since + limits.idle, Overdue::Idle)
            }
            Phase::Head { since } => (since + limits.head, Overdue::Head),
            Phase::Answer { since, stretch, .. } => {
                let stall = (stretch + limits.stall, Overdue::Stall);
                let total = (since + limits.total, Overdue::Total);
                if stall.0 < total.0 { stall } else { total }
            }
            Phase::Streams { stretch, .. } => (stretch + limits.stall, Overdue::Stall),
        }
    }
}

/// While it lives, an answer is made and sent.
#[derive(Debug)]
pub(crate) struct Answering {
    clock: Arc<Clock>,
}

impl Answering {
    pub(crate) fn begin(clock: &Arc<Clock>) -> Self {
        clock.update(|_| Phase::answer());
        Answering {
            clock: Arc::clone(clock),
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let since = Instant::now();
        self.clock.update(|_| Phase::Idle { since });
    }
}

/// While it lives, a stream is answered.
#[derive(Debug)]
pub(crate) struct Streaming {
    clock: Arc<Clock>,
}

impl Streaming {
    /// One stream more, by its connection's clock.
    pub(crate) fn begin(clock: &Arc<Clock>) -> Self {
        clock.update(|phase| match phase {
            Phase::Streams {
                count,
                stretch,
                sent_bytes,
            } => Phase::Streams {
                count: count + 1,
                stretch,
                sent_bytes,
            },
            _ => {
                clock.streams_began.notify_one();
                Phase::Streams {
                    count: 1,
                    stretch: Instant::now(),
                    sent_bytes: 0,
                }
            }
        });
        Streaming {
            clock: Arc::clone(clock),
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.clock.update(|phase| match phase {
            Phase::Streams {
                count: count @ 2..,
                stretch,
                sent_bytes,
            } => Phase::Streams {
                count: count - 1,
                stretch,
                sent_bytes,
            },
            _ => Phase::NoStream {
                since: Instant::now(),
            },
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            stall: Duration::from_secs(30),
            least_bytes_per_second: 1024,
            ..ConnectionLimits::default()
        }
    }

    /// Why a connection ends whose client takes so many bytes a second, and after how long.
    async fn ended(bytes_per_second: usize) -> (Overdue, Duration) {
        let clock = Arc::new(Clock::new());
        let _answering = Answering::begin(&clock);
        let limits = limits();
        let mut overdue = std::pin::pin!(clock.overdue(&limits));
        let begun = Instant::now();
        let reason = loop {
            tokio::select! {
                reason = &mut overdue => break reason,
                () = tokio::time::sleep(Duration::from_secs(1)) => clock.sent(bytes_per_second),
            }
        };
        (reason, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_drip_does_not_keep_a_connection() {
        let (reason, after) = ended(1000).await;
        assert_eq!(reason, Overdue::Stall);
        assert_eq!(after.as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_slow_but_steady_has_the_whole_time() {
        let (reason, after) = ended(1100).await;
        assert_eq!(reason, Overdue::Total);
        assert_eq!(after, limits().total);
    }

    #[tokio::test(start_paused = true)]
    async fn between_streams_nothing_but_a_stream_makes_a_connection_busy() {
        let limits = limits();
        let clock = Arc::new(Clock::new());
        let streams = [Streaming::begin(&clock), Streaming::begin(&clock)];
        assert!(clock.has_streams());
        let [first, second] = streams;
        drop(first);
        assert!(clock.has_streams());
        drop(second);
        let begun = Instant::now();
        let frames = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                clock.received();
                clock.sent(17);
            }
        };
        tokio::select! {
            reason = clock.overdue(&limits) => assert_eq!(reason, Overdue::Idle),
            () = frames => {}
        }
        assert_eq!(begun.elapsed(), limits.idle);
    }
}
