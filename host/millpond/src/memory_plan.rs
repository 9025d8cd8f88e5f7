//! Memory plan: the memory limit of the process, partitioned before the first request.
//!
//! The parts are the memory of the process at its start, one full request for each instance, one connection for each
//! slot, and the budget. Each response in progress reserves its worst case from the budget.

use crate::engine::pool::POOL_SLOT_BYTES;
use crate::head_size::REQUEST_OVERHEAD_BYTES;
use crate::limits::{CONCURRENT_INSTANCES, Limits};
use crate::store::OPEN_FILE_CACHE_SHARE;
use serde::Serialize;
use std::fmt;

/// Maximum number of connections, whatever the memory. The usual limit of open files allows about as many.
pub const CONNECTIONS: usize = 10_000;

/// Memory reserved for a connection before it is accepted, in bytes: its own state, and [`RECEIVE_BYTES`]. A connection
/// of the server never takes more.
pub const CONNECTION_BYTES: usize = 20 * 1024 + RECEIVE_BYTES;

/// Receive buffer of a connection in the kernel (`SO_RCVBUF`), in bytes. Requests are small.
pub const RECEIVE_BYTES: usize = 16 * 1024;

/// Minimum bytes between file and socket, for which every response has room: 12 KiB in user space, and 16 KiB of
/// `SO_SNDBUF`.
pub const SEND_WINDOW_BYTES: usize = 28 * 1024;

/// Memory reserved for a request from its admission to the end of its response, in bytes. It covers the smallest send
/// window, the access log entry, and the head of the response with its small parts.
pub(crate) const RESPONSE_RESERVATION_BYTES: usize =
    SEND_WINDOW_BYTES + 2 * REQUEST_OVERHEAD_BYTES + RESPONSE_BYTES;

/// Memory reserved for the head of a response and the parts that the guest made, in bytes. A larger response reserves
/// the rest later.
pub(crate) const RESPONSE_BYTES: usize = 4 * 1024;

/// Memory reserved for the queue of a program's log, in bytes. The queue of the command `millpond` takes no more.
pub const LOG_QUEUE_BYTES: usize = 2 * 1024 * 1024;

/// Memory reserved for an admin listener, in bytes: the history of its dashboard, the bytes by target, and the buffers of
/// its connections. The admin listener of `millpond-server` takes no more.
pub const ADMIN_BYTES: usize = 1536 * 1024;

/// Maximum memory of a server's tables of clients, in bytes. It is part of the allocator's share. A server without
/// limits for clients has no tables.
pub const CLIENT_TABLES_BYTES: usize = 1280 * 1024;

/// Partition of the process's memory limit, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// Memory limit of the process: the sum of the other parts. It includes the kernel's memory for the process.
    pub limit_bytes: usize,
    /// Memory of the process before its first request, with the allocator's share.
    pub fixed_bytes: usize,
    /// Memory of the caches of open files and of responses.
    pub cache_bytes: usize,
    /// Maximum number of instances.
    pub instances: usize,
    /// Memory of the instances: the memory of a request and a slot of the pool for each.
    pub instances_bytes: usize,
    /// Maximum number of connections.
    pub connections: usize,
    /// Memory of the connections.
    pub connections_bytes: usize,
    /// Memory of the responses in progress. [`Budget`](crate::ledger::Budget) divides it.
    pub responses_bytes: usize,
}

/// The error of a memory limit that is too low to serve anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "memory_bytes is {} and has to be at least {}: the process itself takes {}, and a request {}",
    readable(*limit_bytes), readable(*required_bytes), readable(*fixed_bytes), readable(*request_bytes)
)]
pub struct InsufficientMemory {
    /// Memory limit, in bytes.
    pub limit_bytes: usize,
    /// Memory of the process itself, in bytes.
    pub fixed_bytes: usize,
    /// Memory limit of a request, in bytes.
    pub request_bytes: usize,
    /// Lowest sufficient memory limit, in bytes.
    pub required_bytes: usize,
}

const MIB: usize = 1024 * 1024;

/// Reciprocal of the allocator's share of the memory limit. It covers empty pages that the allocator retains for a
/// second, and fragmentation. Measured under a flood of requests, with a margin.
pub(crate) const ALLOCATOR_SHARE_OF_MEMORY: usize = 16;

/// Difference in the process's memory between two starts, in bytes. The compiler leaves pages with the allocator, or
/// its code is in the cache. [`InsufficientMemory::required_bytes`] includes it, so that it suffices at the next start.
const STARTS_DIFFER_BYTES: usize = 4 * MIB;

fn readable(bytes: usize) -> impl fmt::Display {
    bytesize::ByteSize(bytes as u64).display().iec()
}

impl MemoryPlan {
    /// Partitions the memory limit.
    ///
    /// The process, the allocator and the store's cache get their memory first, and the response cache a thirty-second
    /// of the rest at most. Of the remainder, instances get an eighth, connections half at most, and responses the
    /// rest. `files` is the number of files that the process may open.
    ///
    /// # Errors
    /// [`InsufficientMemory`], if the limit is too low for two requests and four connections.
    pub fn partition(
        limit_bytes: usize,
        baseline_bytes: usize,
        store_bytes: usize,
        files: usize,
        limits: &Limits,
    ) -> Result<Self, InsufficientMemory> {
        let instance_bytes = limits.request_memory_bytes + POOL_SLOT_BYTES;
        let fixed_bytes = baseline_bytes + store_bytes + limit_bytes / ALLOCATOR_SHARE_OF_MEMORY;
        let service_bytes = 2 * instance_bytes
            + 4 * (CONNECTION_BYTES + RESPONSE_RESERVATION_BYTES)
            + RECEIVE_BYTES;
        if limit_bytes < fixed_bytes + service_bytes {
            // The allocator's share grows with the limit.
            let rest_bytes = baseline_bytes + store_bytes + service_bytes + STARTS_DIFFER_BYTES;
            let required_bytes = rest_bytes + rest_bytes.div_ceil(ALLOCATOR_SHARE_OF_MEMORY - 1);
            return Err(InsufficientMemory {
                limit_bytes,
                fixed_bytes,
                request_bytes: limits.request_memory_bytes,
                required_bytes: required_bytes.next_multiple_of(MIB),
            });
        }
        let available_bytes = limit_bytes - fixed_bytes;
        let response_cache_bytes = limits.response_cache_bytes.min(available_bytes / 32);
        let available_bytes = available_bytes - response_cache_bytes;
        let max_instances = limits.concurrent_instances.min(CONCURRENT_INSTANCES);
        let instances = (available_bytes / 8 / instance_bytes).clamp(1, max_instances.max(1));
        let instances_bytes = instances * instance_bytes;
        // A connection takes a socket, and its response usually one file.
        let connections = (available_bytes - instances_bytes) / 2 / CONNECTION_BYTES;
        let files = files - files / OPEN_FILE_CACHE_SHARE;
        let connections = connections.min(files / 2).clamp(1, CONNECTIONS);
        // One more connection is accepted, and waits for its slot.
        let connections_bytes = connections * CONNECTION_BYTES + RECEIVE_BYTES;
        Ok(MemoryPlan {
            limit_bytes,
            fixed_bytes: fixed_bytes - store_bytes,
            cache_bytes: store_bytes + response_cache_bytes,
            instances,
            instances_bytes,
            connections,
            connections_bytes,
            responses_bytes: available_bytes - instances_bytes - connections_bytes,
        })
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at most = {} fixed + {} for caches + {} for {} instances + {} for {} connections + {} for responses",
            readable(self.limit_bytes),
            readable(self.fixed_bytes),
            readable(self.cache_bytes),
            readable(self.instances_bytes),
            self.instances,
            readable(self.connections_bytes),
            self.connections,
            readable(self.responses_bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_parts_never_pass_the_bound(
            limit_bytes in 0..1_usize << 40,
            baseline_bytes in 0..1_usize << 30,
            store_bytes in 0..1_usize << 24,
            files in 0..2_000_000_usize,
            request_memory_bytes in 1..1_usize << 30,
        ) {
            let limits = Limits { request_memory_bytes, ..Limits::default() };
            if let Ok(plan) = MemoryPlan::partition(limit_bytes, baseline_bytes, store_bytes, files, &limits) {
                let sum = plan.fixed_bytes
                    + plan.cache_bytes
                    + plan.instances_bytes
                    + plan.connections_bytes
                    + plan.responses_bytes;
                prop_assert_eq!(sum, limit_bytes);
                prop_assert!(plan.responses_bytes >= RESPONSE_RESERVATION_BYTES);
                prop_assert!(plan.instances > 0 && plan.connections > 0);
            }
        }

        #[test]
        fn the_least_that_is_asked_for_is_enough(
            baseline_bytes in 0..1_usize << 30,
            more_at_the_next_start in 0..=STARTS_DIFFER_BYTES,
            request_memory_bytes in 1..1_usize << 30,
        ) {
            let limits = Limits { request_memory_bytes, ..Limits::default() };
            let error = MemoryPlan::partition(0, baseline_bytes, 0, 1000, &limits).unwrap_err();
            let plan = MemoryPlan::partition(error.required_bytes, baseline_bytes + more_at_the_next_start, 0, 1000, &limits);
            prop_assert!(plan.is_ok(), "{:?}", plan);
        }
    }

    /// Memory of the process at its start, as on the page: that of the command with room for more.
    const BASELINE_BYTES: usize = 48 * MIB;

    /// Caches of a folder.
    const STORE_BYTES: usize = 4 * MIB + 64 * 1024;

    const FILES: usize = 65_536;

    fn plan_of_page(limit_bytes: usize, limits: &Limits) -> MemoryPlan {
        MemoryPlan::partition(limit_bytes, BASELINE_BYTES, STORE_BYTES, FILES, limits).unwrap()
    }

    fn responses(plan: &MemoryPlan) -> usize {
        plan.responses_bytes / RESPONSE_RESERVATION_BYTES
    }

    #[test]
    fn the_page_has_the_numbers_of_the_plan() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/memory.md");
        let page = std::fs::read_to_string(page).unwrap();
        let mut rows = 0;
        for line in page.lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let &["", limit, connections, at_a_time, instances, ""] = &cells[..] else {
                continue;
            };
            let Ok(limit) = limit.trim_matches('`').parse::<bytesize::ByteSize>() else {
                continue;
            };
            let plan = plan_of_page(limit.as_u64() as usize, &Limits::default());
            let expected = [plan.connections, responses(&plan), plan.instances];
            let expected = expected.map(|number| number.to_string());
            assert_eq!([connections, at_a_time, instances], expected, "{limit}");
            rows += 1;
        }
        assert_eq!(rows, 6);
        for rule in [
            "limit = 64 MiB + C × 88 KiB",
            "limit = 64 MiB + I × 9 × (R + 160 KiB)",
        ] {
            assert!(page.contains(rule), "{rule}");
        }
    }

    proptest! {
        #[test]
        fn the_rules_of_the_page_suffice(connections in 1..=CONNECTIONS, instances in 1..=CONCURRENT_INSTANCES, request_mib in 1..=64_usize) {
            let plan = plan_of_page(64 * MIB + connections * 88 * 1024, &Limits::default());
            prop_assert!(plan.connections >= connections && responses(&plan) >= connections, "{:?}", plan);
            let limits = Limits { request_memory_bytes: request_mib * MIB, ..Limits::default() };
            let limit_bytes = 64 * MIB + instances * 9 * (limits.request_memory_bytes + 160 * 1024);
            // Fewer than two instances need a limit of their own, which the program names.
            if instances >= 2 {
                let plan = plan_of_page(limit_bytes, &limits);
                prop_assert!(plan.instances >= instances, "{:?}", plan);
            }
        }
    }
}
