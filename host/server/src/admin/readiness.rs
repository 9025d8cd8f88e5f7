//! Readiness of the process: the reason for which it cannot serve now.

use millpond::Millpond;
use millpond::monitor::Sample;
use tokio_util::sync::CancellationToken;

/// Returns the reason for which the process cannot serve now. `None` if it can.
pub(super) fn unready(
    millpond: &Millpond,
    seen: &Sample,
    stopping: &CancellationToken,
) -> Option<String> {
    if stopping.is_cancelled() {
        return Some("shutting down".into());
    }
    if let Some(reason) = millpond.store_unavailable() {
        return Some(reason);
    }
    let held = seen.process.resident_bytes() as usize + seen.socket_bytes;
    (held > millpond.memory_plan().limit_bytes).then(|| "over the memory limit".into())
}
