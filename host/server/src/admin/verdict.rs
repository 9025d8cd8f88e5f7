//! The memory monitor's verdict, in words.

use millpond::monitor::{Sample, Shape};
use serde::Serialize;

/// The memory monitor's verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    state: VerdictState,
    /// One sentence.
    text: String,
    /// The routes that grow, and other details of the warning.
    details: Vec<String>,
}

/// Kind of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum VerdictState {
    /// Memory is constant, falls, or warms up.
    Steady,
    /// Memory rises and falls.
    Sawtooth,
    /// Memory rises, but not for as long as a leak.
    Rising,
    /// The monitor warns of growth.
    Growing,
}

impl Verdict {
    /// Returns the verdict of a sample. `warm_up_bytes` is the memory that first traffic takes and that stays.
    pub(super) fn of(seen: &Sample, warm_up_bytes: usize) -> Self {
        if let Some(growth) = &seen.growth {
            let since = humantime::format_rfc3339_seconds(growth.since).to_string();
            let since = since.replace('T', " ").replace('Z', " UTC");
            // The parts of the warning are the growth and the routes.
            let details = growth.message.split("; ").map(capitalized).collect();
            return Verdict {
                state: VerdictState::Growing,
                text: format!("Memory has grown since {since} and does not come back."),
                details,
            };
        }
        let speed = seen.trend.slope_bytes_per_minute;
        let readable = |bytes: u64| bytesize::ByteSize(bytes).display().iec().to_string();
        let (state, text) = match seen.trend.shape {
            Shape::Flat => (
                VerdictState::Steady,
                "Memory is flat: requests give back all that they take.".to_owned(),
            ),
            Shape::Linear if speed > 0 && seen.unattributed_bytes > warm_up_bytes as i64 => (
                VerdictState::Rising,
                format!(
                    "Memory outside the ledgers rises by {} a minute. The monitor warns if that lasts.",
                    readable(speed.unsigned_abs())
                ),
            ),
            Shape::Linear if speed > 0 => (
                VerdictState::Steady,
                format!(
                    "Memory warms up: {} of the {} that first traffic takes and the process keeps.",
                    readable(seen.unattributed_bytes.max(0).unsigned_abs()),
                    readable(warm_up_bytes as u64)
                ),
            ),
            Shape::Linear => (
                VerdictState::Steady,
                format!(
                    "Memory outside the ledgers falls by {} a minute.",
                    readable(speed.unsigned_abs())
                ),
            ),
            _ => (
                VerdictState::Sawtooth,
                "Memory rises and falls, and does not grow.".to_owned(),
            ),
        };
        let leaked = seen.snapshot.leaked.total() as u64;
        let details = (leaked > 0)
            .then(|| format!("Requests that have ended still hold {}.", readable(leaked)));
        Verdict {
            state,
            text,
            details: details.into_iter().collect(),
        }
    }
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next();
    let first = first.into_iter().flat_map(char::to_uppercase);
    first.chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_begins_with_a_capital() {
        for (text, expected) in [("route /a", "Route /a"), ("", ""), ("éa", "Éa")] {
            assert_eq!(capitalized(text), expected);
        }
    }
}
