//! Server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>): the history, then one event a
//! second.
//!
//! A watcher has a place in the history and no queue, so a watcher that reads slowly costs no memory and delays nothing.
//! One that falls far behind is dropped. Its browser connects again with the number of its last event, and gets the rest.

use super::history::History;
use crate::admin::connection::TakenEvents;
use bytes::Bytes;
use parking_lot::Mutex;
use std::fmt::Write;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// Seconds of the history in one write.
const BATCH_SECONDS: usize = 20;

/// Maximum number of seconds that a watcher may fall behind, once it has the history.
const MAX_LAG_SECONDS: u64 = 30;

/// Time after which a browser connects again, in milliseconds.
const RETRY_MS: u64 = 2000;

/// The last second's event, shared by all watchers.
#[derive(Debug, Clone, Default)]
pub(super) struct LatestSecond {
    /// Number of the second. `None` before the first one.
    pub(super) number: Option<u64>,
    /// State of the process, as JSON. Empty if nobody has watched.
    pub(super) state: Bytes,
}

/// The events of one watcher.
pub(super) struct Watcher {
    /// The first event, until it is sent.
    about: Option<Bytes>,
    history: Arc<Mutex<History>>,
    latest: watch::Receiver<LatestSecond>,
    /// Start of the history, which is part of each event's id.
    started_ms: u64,
    /// Number of the next second to send.
    next: u64,
    has_history: bool,
    taken: TakenEvents,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// Returns a watcher that continues after the event `last_event_id`, which a browser sends when it connects again.
    pub(super) fn new(
        about: &str,
        history: Arc<Mutex<History>>,
        latest: watch::Receiver<LatestSecond>,
        started_ms: u64,
        last_event_id: Option<&str>,
        taken: TakenEvents,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let next = last_event_id.and_then(|id| number_of(id, started_ms));
        Watcher {
            about: Some(first_event(about)),
            history,
            latest,
            started_ms,
            next: next.map_or(0, |last| last + 1),
            has_history: false,
            taken,
            _place: place,
        }
    }

    /// Waits for the next events. Returns `None` if the watcher is too slow, or the process ends.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        self.taken.add();
        if let Some(about) = self.about.take() {
            return Some(about);
        }
        loop {
            let latest = self.latest.borrow_and_update().clone();
            if let Some(events) = self.events_until(&latest) {
                return events;
            }
            self.latest.changed().await.ok()?;
        }
    }

    /// Returns the events up to the last second. `None` if there is none yet, and `Some(None)` if the watcher is too slow.
    fn events_until(&mut self, latest: &LatestSecond) -> Option<Option<Bytes>> {
        let number = latest.number.filter(|number| *number >= self.next)?;
        if self.has_history && number - self.next > MAX_LAG_SECONDS {
            return Some(None);
        }
        let seconds = self.history.lock().since(self.next, BATCH_SECONDS);
        let mut events = String::new();
        for (place, second) in seconds {
            if place > number {
                break;
            }
            let second = serde_json::to_string(&second).unwrap_or_default();
            let started_ms = self.started_ms;
            // Writing to a string does not fail.
            let _ = write!(
                events,
                "id: {started_ms}-{place}\nevent: second\ndata: {{\"second\":{second}"
            );
            if place == number && !latest.state.is_empty() {
                events += ",\"state\":";
                events += &String::from_utf8_lossy(&latest.state);
            }
            events += "}\n\n";
            self.next = place + 1;
        }
        self.has_history |= self.next > number;
        Some(Some(events.into()))
    }
}

/// The event that each connection begins with.
fn first_event(about: &str) -> Bytes {
    format!("retry: {RETRY_MS}\nevent: about\ndata: {about}\n\n").into()
}

/// Number of the second in an event's id, if the id is of this process.
fn number_of(id: &str, started_ms: u64) -> Option<u64> {
    let (started, number) = id.split_once('-')?;
    (started.parse() == Ok(started_ms)).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::point::SecondFigures;
    use super::*;
    use tokio::sync::Semaphore;

    struct Source {
        history: Arc<Mutex<History>>,
        latest: watch::Sender<LatestSecond>,
        places: Arc<Semaphore>,
    }

    impl Source {
        fn new(seconds: u64) -> Self {
            let source = Source {
                history: Arc::default(),
                latest: watch::Sender::default(),
                places: Arc::new(Semaphore::new(1)),
            };
            (0..seconds).for_each(|second| source.push(second));
            source
        }

        fn push(&self, second: u64) {
            let number = Some(self.history.lock().push(SecondFigures::at(second)));
            let state = Bytes::from_static(b"{\"requests\":0}");
            self.latest.send_replace(LatestSecond { number, state });
        }

        fn watcher(&self, last_event_id: Option<&str>) -> Watcher {
            let place = Arc::clone(&self.places).try_acquire_owned().unwrap();
            let (history, latest) = (Arc::clone(&self.history), self.latest.subscribe());
            let taken = TakenEvents::default();
            Watcher::new("{}", history, latest, 7, last_event_id, taken, place)
        }
    }

    /// Ids and data of events.
    fn parsed(events: &Bytes) -> Vec<(String, serde_json::Value)> {
        let events = std::str::from_utf8(events).unwrap();
        let events = events.strip_suffix("\n\n").unwrap();
        let of = |event: &str| {
            let lines: Vec<_> = event.lines().collect();
            let [id, name, data] = lines[..] else {
                unreachable!("{event}")
            };
            assert_eq!(name, "event: second");
            let data = serde_json::from_str(data.strip_prefix("data: ").unwrap());
            (id.strip_prefix("id: ").unwrap().to_owned(), data.unwrap())
        };
        events.split("\n\n").map(of).collect()
    }

    #[tokio::test]
    async fn the_history_comes_first_and_then_each_second() {
        let source = Source::new(45);
        let mut watcher = source.watcher(None);
        let about = watcher.next().await.unwrap();
        assert_eq!(about, "retry: 2000\nevent: about\ndata: {}\n\n");
        let mut all = Vec::new();
        while all.len() < 45 {
            all.extend(parsed(&watcher.next().await.unwrap()));
        }
        for (number, (id, data)) in all.iter().enumerate() {
            assert_eq!(*id, format!("7-{number}"));
            assert_eq!(data["second"]["at_ms"], number);
            assert_eq!(data["state"].is_object(), number == 44, "{data}");
        }
        let waiting = tokio::spawn(async move { (watcher.next().await, watcher) });
        tokio::task::yield_now().await;
        source.push(45);
        let (event, _watcher) = waiting.await.unwrap();
        let event = parsed(&event.unwrap());
        assert_eq!((event.len(), &*event[0].0), (1, "7-45"));
        assert!(event[0].1["state"].is_object());
    }

    #[tokio::test]
    async fn who_comes_again_gets_the_rest_only() {
        let source = Source::new(10);
        for (id, first) in [
            (Some("7-7"), 8),
            (Some("8-7"), 0),
            (Some("x"), 0),
            (Some("7-x"), 0),
            (None, 0),
        ] {
            let mut watcher = source.watcher(id);
            let _about = watcher.next().await.unwrap();
            let events = parsed(&watcher.next().await.unwrap());
            assert_eq!(events.len(), 10 - first, "{id:?}");
        }
    }

    #[tokio::test]
    async fn a_slow_watcher_is_dropped_and_its_place_is_free() {
        let source = Source::new(1);
        let mut watcher = source.watcher(None);
        let _about = watcher.next().await.unwrap();
        assert_eq!(parsed(&watcher.next().await.unwrap()).len(), 1);
        (1..=MAX_LAG_SECONDS + 1).for_each(|second| source.push(second));
        // A little behind, it gets the rest.
        assert_eq!(parsed(&watcher.next().await.unwrap()).len(), BATCH_SECONDS);
        (0..MAX_LAG_SECONDS).for_each(|second| source.push(second));
        assert_eq!(watcher.next().await, None);
        drop(watcher);
        assert_eq!(source.places.available_permits(), 1);
    }

    #[tokio::test]
    async fn it_ends_with_the_process() {
        let source = Source::new(0);
        let mut watcher = source.watcher(None);
        let _about = watcher.next().await.unwrap();
        drop(source.latest);
        assert_eq!(watcher.next().await, None);
    }
}
