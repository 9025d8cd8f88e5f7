//! Targets to which most bytes were sent, in a sketch of fixed size.
//!
//! The sketch is Space-Saving (Metwally et al., 2005). A target without a counter takes the smallest counter of its
//! shard, and continues from its number. A counter is thus never too low. It is too high by
//! [`TargetBytes::overcount_bytes`] at most.

use parking_lot::Mutex;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Parts of the sketch, each with a lock of its own, so that cores seldom wait for each other.
const TARGET_SHARDS: usize = 8;

/// Counters in one part. A search looks at each of them.
const TARGET_COUNTERS: usize = 32;

/// Maximum length of a counted path, in bytes. The rest is cut off.
const TARGET_BYTES: usize = 160;

/// Maximum memory of the sketch, in bytes.
pub const TOP_TARGETS_BYTES: usize =
    TARGET_SHARDS * TARGET_COUNTERS * (size_of::<Counter>() + TARGET_BYTES);

/// Bytes sent for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TargetBytes {
    /// Path of the target, without its query.
    pub path: String,
    /// Bytes of response bodies sent, of requests that have ended. Too high by `overcount_bytes` at most.
    pub bytes: u64,
    /// Bytes of other targets that `bytes` may include.
    pub overcount_bytes: u64,
    /// Number of requests since the target has its counter.
    pub requests: u64,
}

/// The sketch.
#[derive(Debug, Default)]
pub(crate) struct TopTargets {
    shards: [Mutex<Vec<Counter>>; TARGET_SHARDS],
    hasher: RandomState,
}

#[derive(Debug)]
struct Counter {
    hash: u64,
    path: String,
    bytes: u64,
    overcount_bytes: u64,
    requests: u64,
}

impl TopTargets {
    /// Adds the bytes of one response. The query of the target is ignored, because it may have a signature.
    pub(crate) fn add(&self, target: &str, bytes: u64) {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let path = &path[..path.floor_char_boundary(TARGET_BYTES)];
        let hash = self.hasher.hash_one(path);
        let mut counters = self.shards[hash as usize % TARGET_SHARDS].lock();
        let known = counters
            .iter_mut()
            .find(|counter| counter.hash == hash && counter.path == path);
        if let Some(counter) = known {
            counter.bytes = counter.bytes.saturating_add(bytes);
            counter.requests += 1;
        } else if counters.len() < TARGET_COUNTERS {
            let missing = TARGET_COUNTERS - counters.len();
            counters.reserve_exact(missing);
            counters.push(Counter::new(hash, path, bytes));
        } else if let Some(least) = counters.iter_mut().min_by_key(|counter| counter.bytes) {
            least.replace(hash, path, bytes);
        }
    }

    /// Returns the targets with most bytes, in descending order, `max_count` at most.
    pub(crate) fn top(&self, max_count: usize) -> Vec<TargetBytes> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().iter().map(|counter| TargetBytes {
                path: counter.path.clone(),
                bytes: counter.bytes,
                overcount_bytes: counter.overcount_bytes,
                requests: counter.requests,
            }));
        }
        all.sort_unstable_by(|a, b| (Reverse(a.bytes), &a.path).cmp(&(Reverse(b.bytes), &b.path)));
        all.truncate(max_count);
        all
    }
}

impl Counter {
    fn new(hash: u64, path: &str, bytes: u64) -> Self {
        let mut own = String::with_capacity(TARGET_BYTES);
        own.push_str(path);
        Counter {
            hash,
            path: own,
            bytes,
            overcount_bytes: 0,
            requests: 1,
        }
    }

    /// Gives the counter to another target, without an allocation.
    fn replace(&mut self, hash: u64, path: &str, bytes: u64) {
        self.hash = hash;
        self.path.clear();
        self.path.push_str(path);
        self.overcount_bytes = self.bytes;
        self.bytes = self.bytes.saturating_add(bytes);
        self.requests = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_bytes_come_first_and_queries_are_ignored() {
        let targets = TopTargets::default();
        targets.add("/media/a.gif", 10);
        targets.add("/media/b.gif?sig=c2VjcmV0", 30);
        targets.add("/media/a.gif?x", 15);
        let top = targets.top(10);
        let found: Vec<_> = top
            .iter()
            .map(|target| (target.path.as_str(), target.bytes, target.requests))
            .collect();
        assert_eq!(found, [("/media/b.gif", 30, 1), ("/media/a.gif", 25, 2)]);
        assert_eq!(targets.top(1).len(), 1);
    }

    #[test]
    fn a_flood_of_targets_neither_grows_it_nor_hides_the_largest() {
        let targets = TopTargets::default();
        for number in 0..20_000 {
            targets.add(&format!("/media/{number}-{}", "x".repeat(300)), 1);
            targets.add("/media/film.mp4", 1000);
        }
        let top = targets.top(usize::MAX);
        assert!(top.len() <= TARGET_SHARDS * TARGET_COUNTERS);
        assert_eq!(
            (top[0].path.as_str(), top[0].bytes),
            ("/media/film.mp4", 20_000_000)
        );
        assert_eq!(top[0].overcount_bytes, 0);
        for shard in &targets.shards {
            let counters = shard.lock();
            assert_eq!(counters.capacity(), TARGET_COUNTERS);
            assert!(
                counters
                    .iter()
                    .all(|counter| counter.path.capacity() == TARGET_BYTES)
            );
        }
    }
}
