//! Sends a planned load: each request at its time, whether or not the ones before are done.

use crate::replay::load::Get;
use crate::replay::request::{Clients, PATIENCE};
use crate::replay::tally::{Done, Tally};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

/// How long requests may go on after the last was sent: slow readers have given up by then.
const DRAIN: Duration = PATIENCE.saturating_add(Duration::from_secs(5));

/// Sends a plan and counts how its requests ended. No more than `most_at_once` are on their way; what would be
/// more is not sent, and counted.
pub(crate) async fn drive(
    plan: impl Iterator<Item = Get>,
    clients: Clients,
    most_at_once: usize,
) -> Tally {
    let clients = Arc::new(clients);
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut sent = JoinSet::new();
    for get in plan {
        sleep_until(started + get.at).await;
        while let Some(ended) = sent.try_join_next() {
            count(&mut tally, ended);
        }
        if sent.len() >= most_at_once {
            tally.not_sent += 1;
            continue;
        }
        let clients = Arc::clone(&clients);
        sent.spawn(async move { clients.send(get).await });
    }
    let drained = timeout(DRAIN, async {
        while let Some(ended) = sent.join_next().await {
            count(&mut tally, ended);
        }
    });
    // Requests in flight at the end are counted below.
    let _ = drained.await;
    sent.abort_all();
    while let Some(ended) = sent.join_next().await {
        count(&mut tally, ended);
    }
    tally
}

fn count(tally: &mut Tally, ended: Result<Vec<Done>, JoinError>) {
    match ended {
        Ok(all) => all.into_iter().for_each(|done| tally.add(done)),
        Err(error) if error.is_cancelled() => tally.stopped += 1,
        Err(error) => tally.add(Done::failed(error)),
    }
}
