//! Rate limit of a response: delays the reads of its chunks.

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Time between two chunks of a response with a rate limit. It is short, so that the chunks are small, and long
/// compared to the resolution of the timer, a millisecond.
pub const RATE_LIMIT_INTERVAL: Duration = Duration::from_millis(100);

/// Rate limiter of one response. It holds no bytes: unread bytes stay in the file.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    bytes_per_second: NonZeroU32,
    /// Time of the next read.
    next: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl RateLimiter {
    pub(crate) fn new(bytes_per_second: NonZeroU32) -> Self {
        RateLimiter {
            bytes_per_second,
            next: Instant::now(),
            timer: None,
        }
    }

    /// Maximum length of a chunk, in bytes: the bytes of one [`RATE_LIMIT_INTERVAL`].
    pub(crate) fn chunk_bytes(&self) -> usize {
        let per_chunk = self.bytes_per_second.get() / chunks_per_second();
        usize::try_from(per_chunk.max(1)).unwrap_or(usize::MAX)
    }

    /// Waits until the next chunk may be read.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.next {
            return Poll::Ready(());
        }
        let next = self.next;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(next)));
        if timer.deadline() != next {
            timer.as_mut().reset(next);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(())
    }

    /// Records that a chunk was read.
    pub(crate) fn on_read(&mut self, bytes: usize) {
        let now = Instant::now();
        // Unused time counts for one chunk at most. More would turn a pause into a burst.
        let earliest = now.checked_sub(RATE_LIMIT_INTERVAL).unwrap_or(now);
        let takes = bytes as f64 / f64::from(self.bytes_per_second.get());
        self.next = self.next.max(earliest) + Duration::from_secs_f64(takes);
    }
}

fn chunks_per_second() -> u32 {
    u32::try_from(1000 / RATE_LIMIT_INTERVAL.as_millis()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::future::poll_fn;

    /// Time that these bytes take, on the paused clock of the test.
    async fn seconds(limiter: &mut RateLimiter, bytes: usize) -> f64 {
        let begun = Instant::now();
        let mut left = bytes;
        while left > 0 {
            poll_fn(|cx| limiter.poll_ready(cx)).await;
            let chunk = left.min(limiter.chunk_bytes());
            limiter.on_read(chunk);
            left -= chunk;
        }
        begun.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_take_the_time_that_the_pace_gives_them() {
        for bytes_per_second in [1, 10, 1000, 3 << 20, u32::MAX] {
            let mut limiter = RateLimiter::new(NonZeroU32::new(bytes_per_second).unwrap());
            let on_read = seconds(&mut limiter, bytes_per_second as usize * 10).await;
            // The first chunk is read at once, and no time is saved up.
            assert!(
                (8.8..=10.1).contains(&on_read),
                "{bytes_per_second}: {on_read}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_in_no_burst() {
        let mut limiter = RateLimiter::new(NonZeroU32::new(10_000).unwrap());
        tokio::time::advance(Duration::from_secs(3600)).await;
        let on_read = seconds(&mut limiter, 100_000).await;
        assert!((9.7..=10.1).contains(&on_read), "{on_read}");
    }
}
