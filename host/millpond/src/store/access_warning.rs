//! Warning in the log for a file that exists but that the server may not read.

use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Minimum time between two warnings. A client may request an unreadable file as often as it likes.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

static LOG_THROTTLE: Mutex<LogThrottle> = Mutex::new(LogThrottle {
    last: None,
    suppressed: 0,
});

/// Warns of a file that the system denies, once a second at most for all files together. The client gets status 404.
pub(super) fn warn(path: &Path, error: &io::Error) {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return;
    }
    let suppressed = {
        let mut throttle = LOG_THROTTLE.lock();
        throttle.next(Instant::now())
    };
    if let Some(suppressed) = suppressed {
        // Debug formatting escapes the path, which a client has chosen.
        tracing::warn!(?path, %error, suppressed, "cannot read a file, answered with 404");
    }
}

struct LogThrottle {
    last: Option<Instant>,
    /// Warnings suppressed since the last one.
    suppressed: u64,
}

impl LogThrottle {
    /// Returns the number of suppressed warnings, or `None` if this one is suppressed too.
    fn next(&mut self, now: Instant) -> Option<u64> {
        let is_soon = self
            .last
            .is_some_and(|last| now.duration_since(last) < LOG_INTERVAL);
        if is_soon {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_asks_often_does_not_fill_the_log() {
        let mut throttle = LogThrottle {
            last: None,
            suppressed: 0,
        };
        let start = Instant::now();
        assert_eq!(throttle.next(start), Some(0));
        assert!((0..1000).all(|_| throttle.next(start).is_none()));
        assert_eq!(throttle.next(start + LOG_INTERVAL), Some(1000));
        assert_eq!(throttle.next(start + 3 * LOG_INTERVAL), Some(0));
    }
}
