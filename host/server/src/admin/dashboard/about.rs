//! The constant part of a page: version, component, limits, and the names that the figures refer to.

use super::history::HISTORY_SECONDS;
use millpond::ledger::{Kind, Outcome, RequestCount};
use millpond::{MemoryPlan, Millpond};
use serde::Serialize;

/// The constant part of a page.
#[derive(Debug, Serialize)]
pub(super) struct AboutProcess {
    version: &'static str,
    process: u32,
    /// Start of the history, in milliseconds since the Unix epoch.
    started_ms: u64,
    component: String,
    component_sha256: String,
    memory_plan: MemoryPlan,
    request_memory_bytes: usize,
    kinds: [String; Kind::ALL.len()],
    outcomes: [&'static str; Outcome::ALL.len()],
    codes: [&'static str; RequestCount::CODES.len()],
    history_seconds: usize,
}

impl AboutProcess {
    pub(super) fn of(millpond: &Millpond, started_ms: u64) -> Self {
        let component = millpond.component();
        AboutProcess {
            version: env!("CARGO_PKG_VERSION"),
            process: std::process::id(),
            started_ms,
            component: component.name.clone(),
            component_sha256: component.sha256.clone(),
            memory_plan: *millpond.memory_plan(),
            request_memory_bytes: millpond.limits().request_memory_bytes,
            kinds: Kind::ALL.map(|kind| kind.to_string()),
            outcomes: Outcome::ALL.map(Outcome::name),
            codes: RequestCount::CODES,
            history_seconds: HISTORY_SECONDS,
        }
    }
}
