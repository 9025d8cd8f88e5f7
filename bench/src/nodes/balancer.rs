//! The ways in which a balancer selects a node.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;

/// Way of selecting a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Balancing {
    /// Any node, as round robin does.
    Random,
    /// The node of the path on a ring, as `hash $uri consistent` of nginx.
    Hash,
    /// The same, and the next node on the ring for one that has too many, as `hash-balance-factor` of HAProxy.
    BoundedHash,
}

/// Points of a node on the ring, as nginx has them.
const POINTS: u32 = 160;

/// Requests that a node may have, relative to the mean, with [`Balancing::BoundedHash`].
const FACTOR: f64 = 1.5;

/// Requests that count as in progress, for each node.
const IN_PROGRESS: usize = 20;

impl Balancing {
    pub(crate) const ALL: [Balancing; 3] =
        [Balancing::Random, Balancing::Hash, Balancing::BoundedHash];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Balancing::Random => "round robin",
            Balancing::Hash => "consistent hash",
            Balancing::BoundedHash => "consistent hash with a bound of 1.5",
        }
    }
}

/// A balancer with its nodes.
pub(crate) struct Balancer {
    balancing: Balancing,
    nodes: usize,
    ring: Ring,
    rng: StdRng,
    /// Nodes of the last requests.
    in_progress: VecDeque<usize>,
    loads: Vec<usize>,
}

impl Balancer {
    pub(crate) fn new(balancing: Balancing, nodes: usize) -> Self {
        Balancer {
            balancing,
            nodes,
            ring: Ring::new(0..nodes),
            rng: StdRng::seed_from_u64(1),
            in_progress: VecDeque::new(),
            loads: vec![0; nodes],
        }
    }

    /// Returns the node for an object.
    pub(crate) fn node(&mut self, object: u32) -> usize {
        match self.balancing {
            Balancing::Random => self.rng.random_range(0..self.nodes),
            Balancing::Hash => self.ring.nodes_of(object).next().unwrap_or(0),
            Balancing::BoundedHash => self.bounded(object),
        }
    }

    fn bounded(&mut self, object: u32) -> usize {
        let mean = (self.in_progress.len() + 1) as f64 / self.nodes as f64;
        let most = (mean * FACTOR).ceil() as usize;
        let has_room = |node: &usize| self.loads[*node] < most;
        let node = self.ring.nodes_of(object).find(has_room).unwrap_or(0);
        self.in_progress.push_back(node);
        self.loads[node] += 1;
        if self.in_progress.len() > IN_PROGRESS * self.nodes
            && let Some(ended) = self.in_progress.pop_front()
        {
            self.loads[ended] -= 1;
        }
        node
    }
}

/// Points of nodes on a ring, in order.
struct Ring(Vec<(u64, usize)>);

impl Ring {
    fn new(nodes: impl Iterator<Item = usize>) -> Self {
        let points = nodes.flat_map(|node| {
            (0..POINTS).map(move |point| (hash(b"node", node as u64, u64::from(point)), node))
        });
        let mut points: Vec<(u64, usize)> = points.collect();
        points.sort_unstable();
        Ring(points)
    }

    /// Returns the nodes from the object's point on.
    fn nodes_of(&self, object: u32) -> impl Iterator<Item = usize> + '_ {
        let at = hash(b"path", u64::from(object), 0);
        let first = self.0.partition_point(|(point, _)| *point < at);
        let (before, after) = self.0.split_at(first);
        after.iter().chain(before).map(|(_, node)| *node)
    }
}

/// Returns the share of objects that have another node when the first of the nodes leaves a ring.
pub(crate) fn moved_by_ring(objects: usize, nodes: usize) -> f64 {
    let (all, without) = (Ring::new(0..nodes), Ring::new(1..nodes));
    let moved = |object: &u32| all.nodes_of(*object).next() != without.nodes_of(*object).next();
    (0..objects as u32).filter(moved).count() as f64 / objects as f64
}

/// Returns the same share for the remainder of a hash by the number of nodes.
pub(crate) fn moved_by_remainder(objects: usize, nodes: usize) -> f64 {
    let of = |object: u32, nodes: usize| hash(b"path", u64::from(object), 0) % nodes as u64;
    // The nodes after the first one take the numbers before theirs.
    let moved = |object: &u32| of(*object, nodes) != of(*object, nodes - 1) + 1;
    (0..objects as u32).filter(moved).count() as f64 / objects as f64
}

fn hash(kind: &[u8], first: u64, second: u64) -> u64 {
    let digest = Sha256::new()
        .chain_update(kind)
        .chain_update(first.to_le_bytes())
        .chain_update(second.to_le_bytes())
        .finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_leaves_moves_its_own_objects_only() {
        for nodes in [3, 30] {
            let moved = moved_by_ring(20_000, nodes) * nodes as f64;
            assert!((0.7..1.3).contains(&moved), "{moved} of {nodes}");
            assert!(moved_by_remainder(20_000, nodes) > 0.6);
        }
    }

    #[test]
    fn a_bound_keeps_nodes_near_the_mean() {
        let mut balancer = Balancer::new(Balancing::BoundedHash, 10);
        let mut counts = [0; 10];
        for _ in 0..1_000 {
            counts[balancer.node(1)] += 1;
        }
        assert!(counts.iter().all(|count| *count <= 160), "{counts:?}");
    }
}
