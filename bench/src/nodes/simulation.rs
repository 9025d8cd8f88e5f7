//! Simulation of the caches of all nodes.

use super::balancer::{Balancer, Balancing};
use super::trace::Trace;
use quick_cache::Weighter;
use quick_cache::unsync::Cache;

/// Result of a simulation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SimulationResult {
    pub(crate) requests: usize,
    pub(crate) misses: usize,
    bytes: u64,
    missed_bytes: u64,
    /// Requests of the busiest node, relative to the mean.
    pub(crate) busiest: f64,
}

impl SimulationResult {
    pub(crate) fn hit_ratio(&self) -> f64 {
        1.0 - self.misses as f64 / self.requests as f64
    }

    pub(crate) fn byte_hit_ratio(&self) -> f64 {
        1.0 - self.missed_bytes as f64 / self.bytes as f64
    }
}

/// Plays a trace against nodes with caches of this size. The policy of the caches is the one of millpond's.
pub(crate) fn simulate(
    trace: &Trace,
    nodes: usize,
    balancing: Balancing,
    cache_bytes: u64,
) -> SimulationResult {
    let mut balancer = Balancer::new(balancing, nodes);
    let mut caches: Vec<NodeCache> = (0..nodes).map(|_| node_cache(cache_bytes)).collect();
    let mut requests = vec![0_usize; nodes];
    let mut result = SimulationResult {
        requests: trace.requests.len(),
        misses: 0,
        bytes: 0,
        missed_bytes: 0,
        busiest: 0.0,
    };
    for object in &trace.requests {
        let length = trace.lengths[*object as usize];
        let node = balancer.node(*object);
        requests[node] += 1;
        result.bytes += length;
        if caches[node].get(object).is_none() {
            result.misses += 1;
            result.missed_bytes += length;
            caches[node].insert(*object, length);
        }
    }
    let busiest = requests.iter().max().copied().unwrap_or(0);
    result.busiest = busiest as f64 * nodes as f64 / result.requests as f64;
    result
}

type NodeCache = Cache<u32, u64, ByLength>;

#[derive(Clone)]
struct ByLength;

impl Weighter<u32, u64> for ByLength {
    fn weight(&self, _object: &u32, length: &u64) -> u64 {
        *length
    }
}

fn node_cache(bytes: u64) -> NodeCache {
    /// Expected length of an object, in bytes.
    const LENGTH: u64 = 1_000_000;
    let objects = usize::try_from(bytes / LENGTH).unwrap_or(usize::MAX);
    Cache::with_weighter(objects.max(16), bytes, ByLength)
}
