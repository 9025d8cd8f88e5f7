//! Says in the log why a file that is there is answered as if there were none: the server may not read it.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A client may ask for what cannot be read as often as it likes, and the log has room for other lines.
const BETWEEN: Duration = Duration::from_secs(1);

static TOLD: Mutex<Told> = Mutex::new(Told {
    last: None,
    untold: 0,
});

/// Warns of that file, once a second at most for all files together, where the system denies it. The client is told
/// that there is no such file.
pub(super) fn tell(path: &Path, error: &io::Error) {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return;
    }
    let untold = {
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        told.next(Instant::now())
    };
    if let Some(untold) = untold {
        // Escaped, since a client has named it.
        tracing::warn!(?path, %error, suppressed = untold, "cannot read a file, answered with 404");
    }
}

struct Told {
    last: Option<Instant>,
    /// Files that were not told of since.
    untold: u64,
}

impl Told {
    /// How many were not told of before this one; `None` where this is not the time for a line.
    fn next(&mut self, now: Instant) -> Option<u64> {
        let is_soon = self
            .last
            .is_some_and(|last| now.duration_since(last) < BETWEEN);
        if is_soon {
            self.untold += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_asks_often_does_not_fill_the_log() {
        let mut told = Told {
            last: None,
            untold: 0,
        };
        let start = Instant::now();
        assert_eq!(told.next(start), Some(0));
        assert!((0..1000).all(|_| told.next(start).is_none()));
        assert_eq!(told.next(start + BETWEEN), Some(1000));
        assert_eq!(told.next(start + 3 * BETWEEN), Some(0));
    }
}
