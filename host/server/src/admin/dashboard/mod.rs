//! The dashboard: one page that shows memory and requests as they are now, and over the last ten minutes.

mod about;
mod events;
mod history;
mod latency;
mod live;
pub(super) mod page;
mod point;

use crate::admin::connection::TakenEvents;
use crate::admin::readiness::Readiness;
use crate::admin::response::{AdminBody, with_body};
use crate::tls::Certificate;
use about::AboutProcess;
use bytes::Bytes;
use events::{LatestSecond, Watcher};
use futures_util::stream;
use history::{HISTORY_BYTES, History};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use latency::{DurationCounts, LATENCY_BYTES};
use live::LiveState;
use millpond::Millpond;
use millpond::ledger::TOP_TARGETS_BYTES;
use millpond::memory_plan::ADMIN_BYTES;
use millpond::monitor::Monitor;
use parking_lot::Mutex;
use point::{FigureReader, unix_ms};
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval};

/// Maximum number of pages that watch at the same time.
const WATCHERS: usize = 8;

/// Interval between two events.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum memory of a second's event with the state of the process, in bytes. The lists in it are short.
const EVENT_BYTES: usize = 64 * 1024;

/// Memory that the dashboard takes whether anybody watches or not, in bytes.
pub(super) const DASHBOARD_BYTES: usize =
    HISTORY_BYTES + LATENCY_BYTES + TOP_TARGETS_BYTES + 2 * EVENT_BYTES;

const _: () = assert!(DASHBOARD_BYTES <= ADMIN_BYTES / 3);

/// The dashboard of one host. It reads its figures once a second, until it is dropped.
#[derive(Debug)]
pub(super) struct Dashboard {
    millpond: Millpond,
    monitor: Monitor,
    readiness: Readiness,
    certificate: Option<Certificate>,
    durations: Arc<DurationCounts>,
    /// The first event of each watcher, as JSON.
    about: String,
    started_ms: u64,
    history: Arc<Mutex<History>>,
    latest: watch::Sender<LatestSecond>,
    places: Arc<Semaphore>,
}

impl Dashboard {
    /// Starts to record the history, as a task of the current tokio runtime.
    pub(super) fn start(
        millpond: Millpond,
        monitor: Monitor,
        readiness: Readiness,
        certificate: Option<Certificate>,
    ) -> Arc<Self> {
        let registry = millpond.registry();
        registry.track_targets();
        let durations = registry.observe_once::<DurationCounts>();
        let started_ms = unix_ms(SystemTime::now());
        let about = AboutProcess::of(&millpond, started_ms);
        let dashboard = Arc::new(Dashboard {
            about: serde_json::to_string(&about).unwrap_or_default(),
            started_ms,
            durations,
            millpond,
            monitor,
            readiness,
            certificate,
            history: Arc::default(),
            latest: watch::Sender::default(),
            places: Arc::new(Semaphore::new(WATCHERS)),
        });
        tokio::spawn(record(Arc::downgrade(&dashboard)));
        dashboard
    }

    /// Returns the events. `last_event_id` is the id of the client's last event, if it has had some. `None` if too many
    /// clients watch.
    pub(super) fn watch(
        &self,
        last_event_id: Option<&str>,
        taken: TakenEvents,
    ) -> Option<Response<AdminBody>> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let watcher = Watcher::new(
            &self.about,
            Arc::clone(&self.history),
            self.latest.subscribe(),
            self.started_ms,
            last_event_id,
            taken,
            place,
        );
        let events = stream::unfold(watcher, |mut watcher| async {
            let events = watcher.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(events)), watcher))
        });
        let body = StreamBody::new(events).boxed_unsync();
        Some(with_body(StatusCode::OK, "text/event-stream", body))
    }

    /// Adds a second to the history, and tells the watchers.
    fn tick(&self, reader: &mut FigureReader) {
        let seen = self.monitor.last();
        let second = reader.read(&self.millpond, &seen, &self.durations);
        let number = Some(self.history.lock().push(second));
        // The lists of requests are made for watchers only.
        let state = match self.latest.receiver_count() {
            0 => Bytes::new(),
            _ => {
                let certificate = self.certificate.as_ref();
                let state = LiveState::of(&self.millpond, &seen, &self.readiness, certificate);
                serde_json::to_vec(&state).unwrap_or_default().into()
            }
        };
        self.latest.send_replace(LatestSecond { number, state });
    }
}

/// Reads the figures once a second, until the dashboard is dropped.
async fn record(dashboard: Weak<Dashboard>) {
    let reader = dashboard.upgrade().map(|dashboard| {
        let registry = dashboard.millpond.registry();
        FigureReader::new(registry, &dashboard.durations, dashboard.started_ms)
    });
    let Some(mut reader) = reader else {
        return;
    };
    let mut ticks = interval(EVENT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match dashboard.upgrade() {
            Some(dashboard) => dashboard.tick(&mut reader),
            None => return,
        }
    }
}
