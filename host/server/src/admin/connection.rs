//! Time of one connection of the admin listener.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Maximum lifetime of a connection. A connection with events may live longer, while its client takes them.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// Maximum lifetime of a connection with events. The browser then connects again, and continues after its last event.
const EVENTS_TIME: Duration = Duration::from_secs(3600);

/// Number of events that a connection has taken.
#[derive(Debug, Clone, Default)]
pub(super) struct TakenEvents(Arc<AtomicU64>);

impl TakenEvents {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs a connection to its end, or until its time is over. A connection that has taken no event since the last check is
/// dropped.
pub(super) async fn run(connection: impl Future, taken: &TakenEvents) {
    let mut connection = pin!(connection);
    let begun = Instant::now();
    let mut count = taken.count();
    while timeout(CONNECTION_TIME, connection.as_mut()).await.is_err() {
        let now = taken.count();
        if now == count || begun.elapsed() >= EVENTS_TIME {
            return;
        }
        count = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    /// Time after which a connection is dropped whose client takes an event a second for so long.
    async fn lifetime(taking: Duration) -> Duration {
        let (taken, begun) = (TakenEvents::default(), Instant::now());
        let client = taken.clone();
        let connection = async move {
            while begun.elapsed() < taking {
                sleep(Duration::from_secs(1)).await;
                client.add();
            }
            std::future::pending::<()>().await;
        };
        run(connection, &taken).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_lives_as_long_as_its_client_takes_events() {
        assert_eq!(lifetime(Duration::ZERO).await, CONNECTION_TIME);
        let stalled = lifetime(Duration::from_secs(90)).await;
        assert_eq!(stalled, 3 * CONNECTION_TIME);
        assert_eq!(lifetime(Duration::MAX).await, EVENTS_TIME);
    }
}
