//! Measures one connection's progress, so that what makes none is ended.

use crate::listener::ConnectionLimits;
use std::sync::{Arc, Mutex, PoisonError};
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
}

/// The clock of one connection.
#[derive(Debug)]
pub(crate) struct Clock {
    phase: Mutex<Phase>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let since = Instant::now();
        Clock {
            phase: Mutex::new(Phase::Head { since }),
        }
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
            Phase::Idle { .. } => Phase::Idle {
                since: Instant::now(),
            },
            other @ Phase::Head { .. } => other,
        });
    }

    /// Ends when the connection has taken too long, with the reason.
    pub(crate) async fn overdue(&self, limits: &ConnectionLimits) -> &'static str {
        // What a stretch has to bring, or the reader is a drip.
        let least_bytes = u64::from(limits.least_bytes_per_second)
            .saturating_mul(limits.stall.as_secs())
            .max(1);
        loop {
            let (deadline, reason) = self.deadline(limits, least_bytes);
            if Instant::now() >= deadline {
                return reason;
            }
            sleep_until(deadline).await;
        }
    }

    fn deadline(&self, limits: &ConnectionLimits, least_bytes: u64) -> (Instant, &'static str) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Phase::Answer {
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
            Phase::Idle { since } => (since + limits.idle, "idle"),
            Phase::Head { since } => (since + limits.head, "no whole request head in time"),
            Phase::Answer { since, stretch, .. } => {
                let stall = (stretch + limits.stall, "the client takes too little");
                let total = (since + limits.total, "the answer took too long");
                if stall.0 < total.0 { stall } else { total }
            }
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
        let since = Instant::now();
        clock.update(|_| Phase::Answer {
            since,
            stretch: since,
            sent_bytes: 0,
        });
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
    async fn ended(bytes_per_second: usize) -> (&'static str, Duration) {
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
        assert_eq!(reason, "the client takes too little");
        assert_eq!(after.as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_slow_but_steady_has_the_whole_time() {
        let (reason, after) = ended(1100).await;
        assert_eq!(reason, "the answer took too long");
        assert_eq!(after, limits().total);
    }
}
