//! Says in the log why a file that is there is answered as if there were none: the server may not read it.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A client may ask for what cannot be read as often as it likes, and the log has room for other lines.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

static LOG_THROTTLE: Mutex<LogThrottle> = Mutex::new(LogThrottle {
    last: None,
    suppressed: 0,
});

/// Warns of that file, once a second at most for all files together, where the system denies it. The client is told
/// that there is no such file.
pub(super) fn warn(path: &Path, error: &io::Error) {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return;
    }
    let suppressed = {
        let mut throttle = LOG_THROTTLE.lock().unwrap_or_else(PoisonError::into_inner);
        throttle.next(Instant::now())
    };
    if let Some(suppressed) = suppressed {
        // Escaped, since a client has named it.
        tracing::warn!(?path, %error, suppressed = suppressed, "cannot read a file, answered with 404");
    }
}

struct LogThrottle {
    last: Option<Instant>,
    /// Files that were not told of since.
    suppressed: u64,
}

impl LogThrottle {
    /// How many were not told of before this one; `None` where this is not the time for a line.
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
