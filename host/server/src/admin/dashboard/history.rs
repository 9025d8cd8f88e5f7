//! The last ten minutes, so that a page that is loaded shows them at once.

use super::point::SecondFigures;
use std::collections::VecDeque;

/// Seconds in the history.
pub(super) const HISTORY_SECONDS: usize = 600;

/// Memory of the history, in bytes.
pub(super) const HISTORY_BYTES: usize = HISTORY_SECONDS * size_of::<SecondFigures>();

/// The last seconds, each with its number. The oldest one leaves when another comes.
#[derive(Debug)]
pub(super) struct History {
    seconds: VecDeque<SecondFigures>,
    /// Number of the next second.
    next: u64,
}

impl Default for History {
    fn default() -> Self {
        History {
            seconds: VecDeque::with_capacity(HISTORY_SECONDS),
            next: 0,
        }
    }
}

impl History {
    /// Adds a second, and returns its number.
    pub(super) fn push(&mut self, second: SecondFigures) -> u64 {
        if self.seconds.len() == HISTORY_SECONDS {
            self.seconds.pop_front();
        }
        self.seconds.push_back(second);
        self.next += 1;
        self.next - 1
    }

    /// Returns seconds from number `from` on with their numbers, oldest first, `max_count` at most. Those that have left
    /// are skipped.
    pub(super) fn since(&self, from: u64, max_count: usize) -> Vec<(u64, SecondFigures)> {
        let first = self.next - self.seconds.len() as u64;
        let skipped = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let numbered = (first..).zip(self.seconds.iter().copied());
        numbered.skip(skipped).take(max_count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_the_last() {
        let mut history = History::default();
        assert!(history.since(0, 10).is_empty());
        let capacity = history.seconds.capacity();
        for number in 0..1500 {
            assert_eq!(history.push(SecondFigures::at(number)), number);
        }
        assert_eq!(history.seconds.capacity(), capacity);
        let numbers = |from, count| -> Vec<u64> {
            let found = history.since(from, count);
            assert!(
                found
                    .iter()
                    .all(|(number, second)| *second == SecondFigures::at(*number))
            );
            found.iter().map(|(number, _)| *number).collect()
        };
        assert_eq!(numbers(0, 2), [900, 901]);
        assert_eq!(numbers(1498, 10), [1498, 1499]);
        assert_eq!(numbers(0, usize::MAX).len(), HISTORY_SECONDS);
        assert!(numbers(1500, 10).is_empty());
        assert!(numbers(u64::MAX, 10).is_empty());
    }
}
