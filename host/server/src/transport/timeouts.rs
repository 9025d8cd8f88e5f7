//! The timeouts of a connection or stream, by its phase and the bytes that its client has taken.

use crate::limits::{ConnectionLimits, LiveLimits};
use crate::transport::slot_waiters::SlotWaiters;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Maximum concurrent streams of a connection of HTTP/2. A page may have more images, but they share one network path
/// to the client.
pub(crate) const STREAMS: u32 = 32;

/// The phase of a connection, and its start.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Waiting for a request.
    Idle { since: Instant },
    /// Reading a request's head. A new connection is in this phase before its first byte.
    Head { since: Instant },
    /// Sending a response, since the request's head was complete.
    Response {
        since: Instant,
        interval: ProgressInterval,
    },
    /// Receiving the content of a request, which the service reads.
    Content { interval: ProgressInterval },
    /// Sending responses on a number of streams of HTTP/2. Each stream also has a timer of its own.
    Streams {
        count: usize,
        interval: ProgressInterval,
    },
    /// Between streams of HTTP/2. Received bytes do not start a request here: frames about the connection may arrive at
    /// any time.
    NoStream { since: Instant },
}

/// An interval over which a client's rate is measured, in both directions.
#[derive(Debug, Clone, Copy)]
struct ProgressInterval {
    since: Instant,
    /// Bytes that the client had taken or sent at the start, as [`State::sent_bytes`] counts.
    taken_bytes: u64,
}

/// The timeout that a connection or a stream has exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeoutReason {
    Idle,
    Dismissed,
    Head,
    Stall,
    Receive,
    Total,
}

impl TimeoutReason {
    /// Words in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            TimeoutReason::Idle => "keepalive timeout",
            TimeoutReason::Dismissed => "idle, and a new connection needs its place",
            TimeoutReason::Head => "header timeout",
            TimeoutReason::Stall => "send timeout: the client is below the minimum send rate",
            TimeoutReason::Receive => {
                "receive timeout: the client sends content below the minimum send rate"
            }
            TimeoutReason::Total => "response timeout",
        }
    }
}

impl fmt::Display for TimeoutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The timer of one connection or one stream.
#[derive(Debug)]
pub(crate) struct ConnectionTimer {
    state: Mutex<State>,
    /// Wakes the timer to read its state again. The first stream shortens the time that is left, and a dismissal ends
    /// it.
    look_again: Notify,
    live_limits: LiveLimits,
    /// The waiters for the slot of the connection. A stream has none.
    slot_waiters: Option<Arc<SlotWaiters>>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Limits of the response in progress: those in use when it began.
    limits: Arc<ConnectionLimits>,
    /// Bytes sent since the start, and bytes of content received.
    sent_bytes: u64,
    /// Whether the connection is to close while it is idle, so that its slot is free for another.
    is_dismissed: bool,
}

impl State {
    fn begin(phase: Phase, limits: &LiveLimits) -> Self {
        State {
            phase,
            limits: limits.load(),
            sent_bytes: 0,
            is_dismissed: false,
        }
    }

    /// The start of the idle time, if no request is in progress.
    fn idle_since(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle { since } | Phase::NoStream { since } => Some(since),
            Phase::Head { .. }
            | Phase::Response { .. }
            | Phase::Content { .. }
            | Phase::Streams { .. } => None,
        }
    }

    /// Starts an interval. `waiting_bytes` of the sent bytes have not reached the client.
    fn interval(&self, waiting_bytes: u64) -> ProgressInterval {
        ProgressInterval {
            since: Instant::now(),
            taken_bytes: self.sent_bytes.saturating_sub(waiting_bytes),
        }
    }

    fn response(&self, waiting_bytes: u64) -> Phase {
        let interval = self.interval(waiting_bytes);
        Phase::Response {
            since: interval.since,
            interval,
        }
    }
}

impl ConnectionTimer {
    /// Creates the timer of a connection, whose slot these waiters may need.
    pub(crate) fn new(slot_waiters: &Arc<SlotWaiters>, limits: &LiveLimits) -> Self {
        let since = Instant::now();
        ConnectionTimer {
            state: Mutex::new(State::begin(Phase::Head { since }, limits)),
            look_again: Notify::new(),
            live_limits: limits.clone(),
            slot_waiters: Some(Arc::clone(slot_waiters)),
        }
    }

    /// Creates the timer of a stream whose request head is complete.
    pub(crate) fn of_stream(limits: &LiveLimits) -> Self {
        let since = Instant::now();
        let interval = ProgressInterval {
            since,
            taken_bytes: 0,
        };
        let phase = Phase::Response { since, interval };
        ConnectionTimer {
            state: Mutex::new(State::begin(phase, limits)),
            look_again: Notify::new(),
            live_limits: limits.clone(),
            slot_waiters: None,
        }
    }

    /// Whether this is the timer of a connection whose slot these waiters may need.
    pub(crate) fn is_of(&self, slot_waiters: &Arc<SlotWaiters>) -> bool {
        self.slot_waiters
            .as_ref()
            .is_some_and(|own| Arc::ptr_eq(own, slot_waiters))
    }

    /// The start of the idle time, unless the connection is busy or dismissed.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.idle_since().filter(|_| !state.is_dismissed)
    }

    /// Closes the connection if it is idle.
    pub(crate) fn dismiss(&self) {
        let mut state = self.state.lock();
        state.is_dismissed = state.idle_since().is_some();
        self.look_again.notify_one();
    }

    /// Whether the connection is to close if it is still idle.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.state.lock().is_dismissed
    }

    /// Records that the connection has ended. It is no longer dismissed.
    pub(crate) fn close(&self) {
        self.state.lock().is_dismissed = false;
    }

    /// Enters an idle phase, and wakes the waiters for a slot.
    fn rest(&self, next: impl FnOnce(&State) -> Phase) {
        self.update(next);
        if let Some(slot_waiters) = &self.slot_waiters {
            slot_waiters.changed();
        }
    }

    /// Whether a stream is in progress.
    pub(crate) fn has_streams(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Streams { .. })
    }

    fn update(&self, next: impl FnOnce(&State) -> Phase) {
        let mut state = self.state.lock();
        state.phase = next(&state);
    }

    /// Records received bytes, which start a request on an idle connection.
    pub(crate) fn received(&self) {
        self.update(|state| match state.phase {
            Phase::Idle { .. } => Phase::Head {
                since: Instant::now(),
            },
            other => other,
        });
    }

    /// Records sent bytes.
    pub(crate) fn sent(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.sent_bytes += bytes as u64;
        if let Phase::Idle { since } = &mut state.phase {
            *since = Instant::now();
        }
    }

    /// Enters the phase of a response, whose limits are those in use now.
    fn begin_response(&self, next: impl FnOnce(&State) -> Phase) {
        let limits = self.live_limits.peek();
        let mut state = self.state.lock();
        if !Arc::ptr_eq(&state.limits, &limits) {
            state.limits = Arc::clone(&limits);
        }
        state.phase = next(&state);
    }

    /// Starts to receive the content of the request in progress. Meanwhile the client's sending rate counts, and the time
    /// of the response does not.
    pub(crate) fn begin_content(&self) {
        self.update(|state| match state.phase {
            Phase::Response { .. } => Phase::Content {
                interval: state.interval(0),
            },
            other => other,
        });
    }

    /// Records received content.
    pub(crate) fn content_received(&self, bytes: usize) {
        self.state.lock().sent_bytes += bytes as u64;
    }

    /// Ends the content of the request in progress. The time of the response starts.
    pub(crate) fn end_content(&self) {
        self.update(|state| match state.phase {
            Phase::Content { .. } => state.response(0),
            other => other,
        });
    }

    /// Waits until the connection exceeds a timeout, and returns it. `waiting_bytes` returns how many sent bytes the
    /// client has not taken yet, or zero if that is unknown.
    pub(crate) async fn timed_out(&self, waiting_bytes: impl Fn() -> u64) -> TimeoutReason {
        self.timed_out_below(1, waiting_bytes).await
    }

    /// Waits until a stream exceeds a timeout. Its minimum rate is a fraction, since all streams share one client.
    pub(crate) async fn stream_timed_out(&self) -> TimeoutReason {
        // Bytes in the kernel belong to no single stream.
        self.timed_out_below(STREAMS, || 0).await
    }

    /// Waits for a timeout. The client has to take at least that fraction of the minimum send rate.
    async fn timed_out_below(
        &self,
        rate_divisor: u32,
        waiting_bytes: impl Fn() -> u64,
    ) -> TimeoutReason {
        loop {
            let (deadline, soonest) = match self.deadline(rate_divisor, &waiting_bytes) {
                Ok(next) => next,
                Err(reason) => return reason,
            };
            // A head or a response may start meanwhile, with an earlier deadline.
            let look_again = deadline.min(Instant::now() + soonest);
            tokio::select! {
                biased;
                () = sleep_until(look_again) => {}
                () = self.look_again.notified() => {}
            }
        }
    }

    /// Returns the next deadline, and the shortest time in which another may come.
    ///
    /// # Errors
    /// The deadline is over.
    fn deadline(
        &self,
        rate_divisor: u32,
        waiting_bytes: &impl Fn() -> u64,
    ) -> Result<(Instant, Duration), TimeoutReason> {
        let mut state = self.state.lock();
        let now = Instant::now();
        // A connection that received a request meanwhile stays open. The mark is removed, since the connection may be
        // idle again later.
        if std::mem::take(&mut state.is_dismissed) && state.idle_since().is_some() {
            state.is_dismissed = true;
            return Err(TimeoutReason::Dismissed);
        }
        let State {
            phase,
            limits: own,
            sent_bytes,
            ..
        } = &mut *state;
        let is_response = matches!(
            phase,
            Phase::Response { .. } | Phase::Content { .. } | Phase::Streams { .. }
        );
        let limits = if is_response {
            Arc::clone(own)
        } else {
            self.live_limits.load()
        };
        if let Phase::Response { interval, .. }
        | Phase::Content { interval }
        | Phase::Streams { interval, .. } = phase
            && now >= interval.since + limits.send_timeout
        {
            // Bytes that a client has to take in an interval. With fewer it is a slow reader.
            let least_bytes = u64::from(limits.min_send_bytes_per_second / rate_divisor)
                .saturating_mul(limits.send_timeout.as_secs())
                .max(1);
            let taken_bytes = sent_bytes.saturating_sub(waiting_bytes());
            if taken_bytes.saturating_sub(interval.taken_bytes) >= least_bytes {
                *interval = ProgressInterval {
                    since: now,
                    taken_bytes,
                };
            }
        }
        let (deadline, reason) = match *phase {
            Phase::Idle { since } | Phase::NoStream { since } => {
                (since + limits.keepalive_timeout, TimeoutReason::Idle)
            }
            Phase::Head { since } => (since + limits.header_timeout, TimeoutReason::Head),
            Phase::Response { since, interval } => {
                let stall = (interval.since + limits.send_timeout, TimeoutReason::Stall);
                match limits.response_timeout.map(|total| since + total) {
                    Some(total) if total <= stall.0 => (total, TimeoutReason::Total),
                    _ => stall,
                }
            }
            Phase::Content { interval } => {
                (interval.since + limits.send_timeout, TimeoutReason::Receive)
            }
            Phase::Streams { interval, .. } => {
                (interval.since + limits.send_timeout, TimeoutReason::Stall)
            }
        };
        if now >= deadline {
            return Err(reason);
        }
        Ok((deadline, limits.header_timeout.min(limits.send_timeout)))
    }
}

/// Marks a response in progress until it is dropped.
#[derive(Debug)]
pub(crate) struct ResponseGuard {
    timer: Arc<ConnectionTimer>,
}

impl ResponseGuard {
    /// Starts a response. `waiting_bytes` of earlier responses have not reached the client.
    pub(crate) fn begin(timer: &Arc<ConnectionTimer>, waiting_bytes: u64) -> Self {
        timer.begin_response(|state| state.response(waiting_bytes));
        ResponseGuard {
            timer: Arc::clone(timer),
        }
    }
}

impl Drop for ResponseGuard {
    fn drop(&mut self) {
        let since = Instant::now();
        self.timer.rest(|_| Phase::Idle { since });
    }
}

/// Marks a stream in progress until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamGuard {
    timer: Arc<ConnectionTimer>,
}

impl StreamGuard {
    /// Adds a stream to its connection's timer. `waiting_bytes` of earlier streams have not reached the client.
    pub(crate) fn begin(timer: &Arc<ConnectionTimer>, waiting_bytes: impl FnOnce() -> u64) -> Self {
        timer.begin_response(|state| match state.phase {
            Phase::Streams { count, interval } => Phase::Streams {
                count: count + 1,
                interval,
            },
            _ => {
                timer.look_again.notify_one();
                Phase::Streams {
                    count: 1,
                    interval: state.interval(waiting_bytes()),
                }
            }
        });
        StreamGuard {
            timer: Arc::clone(timer),
        }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.timer.rest(|state| match state.phase {
            Phase::Streams {
                count: count @ 2..,
                interval,
            } => Phase::Streams {
                count: count - 1,
                interval,
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
    use std::cell::Cell;
    use tokio::time::{sleep, timeout};

    /// More than a day.
    const FOR_EVER: Duration = Duration::from_secs(100_000);

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            min_send_bytes_per_second: 1024,
            ..ConnectionLimits::default()
        }
    }

    fn timer(limits: &ConnectionLimits) -> Arc<ConnectionTimer> {
        let limits = limits.clone().into();
        Arc::new(ConnectionTimer::new(&Arc::default(), &limits))
    }

    /// Returns the timeout of a response and the time until it, or `None` if it completes. The client takes `bytes`
    /// every `each_seconds`.
    async fn ended(
        timer: &ConnectionTimer,
        timed_out: impl Future<Output = TimeoutReason>,
        bytes: usize,
        each_seconds: u64,
    ) -> Option<(TimeoutReason, Duration)> {
        let started = Instant::now();
        let takes = async {
            loop {
                timer.sent(bytes);
                sleep(Duration::from_secs(each_seconds)).await;
            }
        };
        let reason = async {
            tokio::select! {
                reason = timed_out => reason,
                () = takes => TimeoutReason::Idle,
            }
        };
        let reason = timeout(FOR_EVER, reason).await.ok()?;
        Some((reason, started.elapsed()))
    }

    /// Measures the only response of a connection.
    async fn alone(
        limits: &ConnectionLimits,
        bytes: usize,
        each_seconds: u64,
    ) -> Option<(TimeoutReason, Duration)> {
        let timer = timer(limits);
        let _response = ResponseGuard::begin(&timer, 0);
        let timed_out = timer.timed_out(|| 0);
        ended(&timer, timed_out, bytes, each_seconds).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_below_the_minimum_rate_keeps_no_connection() {
        let stalled = Some((TimeoutReason::Stall, limits().send_timeout));
        assert_eq!(alone(&limits(), 1000, 1).await, stalled);
        assert_eq!(alone(&limits(), 1, 1).await, stalled);
        // A fast first interval does not extend the next one.
        let (reason, after) = alone(&limits(), 5_000_000, 1000).await.unwrap();
        assert_eq!(
            (reason, after),
            (TimeoutReason::Stall, 2 * limits().send_timeout)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_slow_but_steady_is_never_cut() {
        assert_eq!(alone(&limits(), 1100, 1).await, None);
        let limits = ConnectionLimits {
            response_timeout: Some(Duration::from_secs(3600)),
            ..limits()
        };
        let total = Some((TimeoutReason::Total, Duration::from_secs(3600)));
        assert_eq!(alone(&limits, 1100, 1).await, total, "unless asked for");
    }

    /// Once, a player that had filled its buffer was cut, and so was `curl --limit-rate`.
    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_a_burst_and_rests_is_never_cut() {
        assert_eq!(alone(&limits(), 5_000_000, 50).await, None);
        assert_eq!(alone(&limits(), 6_000_000, 60).await, None);
        assert_eq!(alone(&limits(), 10_000_000, 100).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_late_on_a_connection_has_no_more_time_than_the_first() {
        let limits = limits();
        let timer = timer(&limits);
        drop(ResponseGuard::begin(&timer, 0));
        let begins = async {
            sleep(limits.keepalive_timeout / 2).await;
            timer.received();
            Instant::now()
        };
        let (reason, started) = tokio::join!(timer.timed_out(|| 0), begins);
        assert_eq!(reason, TimeoutReason::Head);
        assert!(
            started.elapsed() < 2 * limits.header_timeout,
            "{:?}",
            started.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_lies_in_the_kernel_is_not_taken() {
        const LEFT_BYTES: usize = 400_000;
        let waiting = Cell::new(0);
        for (taken_each_second, is_cut) in [(0, true), (1000, true), (1100, false)] {
            let timer = timer(&limits());
            // Bytes of the previous response.
            timer.sent(LEFT_BYTES);
            waiting.set(LEFT_BYTES as u64);
            let _response = ResponseGuard::begin(&timer, waiting.get());
            timer.sent(LEFT_BYTES);
            waiting.set(2 * LEFT_BYTES as u64);
            let limits = limits();
            let timed_out = timer.timed_out(|| waiting.get());
            let takes = async {
                for _ in 0..500 {
                    sleep(Duration::from_secs(1)).await;
                    waiting.set(waiting.get() - taken_each_second);
                }
            };
            let started = Instant::now();
            tokio::select! {
                reason = timed_out => {
                    assert!(is_cut, "{taken_each_second}");
                    assert_eq!((reason, started.elapsed()), (TimeoutReason::Stall, limits.send_timeout));
                }
                () = takes => assert!(!is_cut, "{taken_each_second}"),
            }
        }
    }

    /// Each second a client sends this many bytes of content.
    #[tokio::test(start_paused = true)]
    async fn content_has_to_come_at_the_minimum_rate_and_may_take_its_time() {
        for (bytes, is_cut) in [(0, true), (1000, true), (1100, false)] {
            let mut limits = limits();
            // Shorter than the content takes, and than a stall may take.
            let response_timeout = limits.send_timeout / 2;
            limits.response_timeout = Some(response_timeout);
            let live = LiveLimits::from(limits.clone());
            let timer = Arc::new(ConnectionTimer::new(&Arc::default(), &live));
            let _response = ResponseGuard::begin(&timer, 0);
            timer.begin_content();
            let sends = async {
                for _ in 0..500 {
                    sleep(Duration::from_secs(1)).await;
                    timer.content_received(bytes);
                }
            };
            let started = Instant::now();
            tokio::select! {
                reason = timer.timed_out(|| 0) => {
                    assert!(is_cut, "{bytes}");
                    assert_eq!((reason, started.elapsed()), (TimeoutReason::Receive, limits.send_timeout));
                    continue;
                }
                () = sends => assert!(!is_cut, "{bytes}"),
            }
            // The time of the response begins with the end of the content.
            timer.end_content();
            let ended = Instant::now();
            let reason = timer.timed_out(|| 0).await;
            assert_eq!(
                (reason, ended.elapsed()),
                (TimeoutReason::Total, response_timeout)
            );
        }
    }

    /// A client shares its rate among the maximum number of streams, and none of them is reset for its small part.
    #[tokio::test(start_paused = true)]
    async fn a_stream_has_to_take_its_part_only_and_something() {
        let part = 1024 / STREAMS as usize;
        for (bytes, is_cut) in [(0, true), (part - 1, true), (part + 1, false)] {
            let limits = limits();
            let timer = ConnectionTimer::of_stream(&limits.clone().into());
            let ended = ended(&timer, timer.stream_timed_out(), bytes, 1).await;
            let expected = is_cut.then_some((TimeoutReason::Stall, limits.send_timeout));
            assert_eq!(ended, expected, "{bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn between_streams_nothing_but_a_stream_makes_a_connection_busy() {
        let limits = limits();
        let timer = timer(&limits);
        let streams = [
            StreamGuard::begin(&timer, || 0),
            StreamGuard::begin(&timer, || 0),
        ];
        assert!(timer.has_streams());
        let [first, second] = streams;
        drop(first);
        assert!(timer.has_streams());
        drop(second);
        let started = Instant::now();
        let frames = async {
            loop {
                sleep(Duration::from_secs(1)).await;
                timer.received();
                timer.sent(17);
            }
        };
        tokio::select! {
            reason = timer.timed_out(|| 0) => assert_eq!(reason, TimeoutReason::Idle),
            () = frames => {}
        }
        assert_eq!(started.elapsed(), limits.keepalive_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_keeps_the_limits_that_it_began_with() {
        let old = limits();
        let new = ConnectionLimits {
            send_timeout: old.send_timeout / 4,
            ..limits()
        };
        let live = LiveLimits::from(old.clone());
        let timer = Arc::new(ConnectionTimer::new(&Arc::default(), &live));
        for limits in [&old, &new] {
            let response = ResponseGuard::begin(&timer, 0);
            live.replace(new.clone()).unwrap();
            let started = Instant::now();
            assert_eq!(timer.timed_out(|| 0).await, TimeoutReason::Stall);
            assert_eq!(started.elapsed(), limits.send_timeout);
            drop(response);
        }
    }
}
