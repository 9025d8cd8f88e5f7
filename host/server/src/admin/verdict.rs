//! The memory monitor's verdict, in words.

use millpond::monitor::{Sample, Shape};
use serde::Serialize;
use std::fmt;

/// Minimum memory of ended requests that counts as leaked, in bytes. The last chunk of each connection may still be in
/// flight.
const LEAKED_BYTES: u64 = 64 * 1024;

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
    /// Memory is constant, falls, warms up, or rises and falls.
    Steady,
    /// Memory rises, but not for as long as a leak.
    Rising,
    /// Memory has leaked, and does not grow now.
    Leaked,
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
        let figures = MemoryFigures {
            shape: seen.trend.shape,
            bytes_per_minute: seen.trend.slope_bytes_per_minute,
            unattributed_bytes: u64::try_from(seen.unattributed_bytes).unwrap_or(0),
            leaked_bytes: seen.snapshot.leaked.total() as u64,
            warm_up_bytes: warm_up_bytes as u64,
        };
        let (state, text) = figures.verdict();
        Verdict {
            state,
            text,
            details: Vec::new(),
        }
    }
}

/// Figures of memory that does not grow as a leak does.
#[derive(Debug, Clone, Copy)]
struct MemoryFigures {
    shape: Shape,
    bytes_per_minute: i64,
    unattributed_bytes: u64,
    leaked_bytes: u64,
    warm_up_bytes: u64,
}

impl MemoryFigures {
    fn verdict(self) -> (VerdictState, String) {
        let speed = readable(self.bytes_per_minute.unsigned_abs());
        let is_rising = self.shape == Shape::Linear && self.bytes_per_minute > 0;
        if self.unattributed_bytes > self.warm_up_bytes && is_rising {
            let text =
                format!("Memory rises by {speed} a minute. The monitor warns if that lasts.");
            return (VerdictState::Rising, text);
        }
        if self.leaked_bytes >= LEAKED_BYTES {
            let leaked = readable(self.leaked_bytes);
            let text =
                format!("Memory does not grow, but requests that have ended still hold {leaked}.");
            return (VerdictState::Leaked, text);
        }
        if self.unattributed_bytes > self.warm_up_bytes {
            let leaked = readable(self.unattributed_bytes);
            let text =
                format!("Memory does not grow, but {leaked} belong to no request and no cache.");
            return (VerdictState::Leaked, text);
        }
        let text = match self.shape {
            Shape::Flat => "Memory is flat: requests give back all that they take.".to_owned(),
            Shape::Linear if is_rising => format!(
                "Memory warms up: {} of the {} that first traffic takes and the process keeps.",
                readable(self.unattributed_bytes),
                readable(self.warm_up_bytes)
            ),
            Shape::Linear => format!("Memory falls by {speed} a minute."),
            _ => "Memory rises and falls, and does not grow.".to_owned(),
        };
        (VerdictState::Steady, text)
    }
}

fn readable(bytes: u64) -> impl fmt::Display {
    bytesize::ByteSize(bytes).display().iec()
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
    fn memory_that_does_not_grow_is_steady_unless_some_has_leaked() {
        const MIB: u64 = 1 << 20;
        let figures = |shape, mib_per_minute: i64, unattributed_mib, leaked_bytes| MemoryFigures {
            shape,
            bytes_per_minute: mib_per_minute << 20,
            unattributed_bytes: unattributed_mib * MIB,
            leaked_bytes,
            warm_up_bytes: 13 * MIB,
        };
        for (figures, state, words) in [
            (
                figures(Shape::Flat, 0, 1, 0),
                VerdictState::Steady,
                "is flat",
            ),
            (
                figures(Shape::Flat, 0, 13, 1000),
                VerdictState::Steady,
                "is flat",
            ),
            (
                figures(Shape::Linear, 9, 4, 0),
                VerdictState::Steady,
                "warms up: 4.0 MiB of the 13.0 MiB",
            ),
            (
                figures(Shape::Linear, -9, 4, 0),
                VerdictState::Steady,
                "falls by 9.0 MiB",
            ),
            (
                figures(Shape::Sawtooth, 9, 4, 0),
                VerdictState::Steady,
                "rises and falls",
            ),
            (
                figures(Shape::Linear, 9, 14, 0),
                VerdictState::Rising,
                "rises by 9.0 MiB",
            ),
            (
                figures(Shape::Linear, 9, 14, MIB),
                VerdictState::Rising,
                "rises by 9.0 MiB",
            ),
            (
                figures(Shape::Flat, 0, 0, MIB),
                VerdictState::Leaked,
                "ended still hold 1.0 MiB",
            ),
            (
                figures(Shape::Linear, -9, 20, 0),
                VerdictState::Leaked,
                "20.0 MiB belong to no request",
            ),
        ] {
            let (found, text) = figures.verdict();
            assert!(
                found == state && text.contains(words),
                "{figures:?}: {found:?} {text}"
            );
        }
    }

    #[test]
    fn a_detail_begins_with_a_capital() {
        for (text, expected) in [("route /a", "Route /a"), ("", ""), ("éa", "Éa")] {
            assert_eq!(capitalized(text), expected);
        }
    }
}
