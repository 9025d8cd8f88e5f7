//! The bound of the whole process: a sum that is known before the first request.
//!
//! It is made of what the process has at its start, one full request for each instance that may exist, one
//! connection for each that may be open, and the budget, from which each response in progress reserves its worst
//! case.

use crate::engine::pool::POOL_SLOT_BYTES;
use crate::head_size::REQUEST_OVERHEAD_BYTES;
use crate::limits::{CONCURRENT_INSTANCES, Limits};
use crate::store::OPEN_FILE_CACHE_SHARE;
use serde::Serialize;
use std::fmt;

/// Most connections at one time, whatever the memory: what a process's open files usually allow.
pub const CONNECTIONS: usize = 10_000;

/// Set aside for a connection before it is accepted, in bytes: its own state, and [`RECEIVE_BYTES`]. A server's
/// connection takes no more.
pub const CONNECTION_BYTES: usize = 24 * 1024 + RECEIVE_BYTES;

/// The kernel's buffer for what the client of a connection sends, in bytes; requests are small.
pub const RECEIVE_BYTES: usize = 16 * 1024;

/// Bytes between file and socket for which every response has room: 12 KiB in user space, and 16 KiB of `SO_SNDBUF`.
pub const SEND_WINDOW_BYTES: usize = 28 * 1024;

/// Set aside for a request before it is admitted, for as long as its response lasts, in bytes: the smallest window
/// between file and socket, the request's record, and what the guest made of the response.
pub const RESPONSE_RESERVATION_BYTES: usize =
    SEND_WINDOW_BYTES + 2 * REQUEST_OVERHEAD_BYTES + RESPONSE_BYTES;

/// A response's head and the parts that the guest made, in bytes; what is beyond is reserved when it comes.
pub(crate) const RESPONSE_BYTES: usize = 4 * 1024;

/// Set aside for the queue of a program's log, in bytes. The command's takes no more.
pub const LOG_QUEUE_BYTES: usize = 2 * 1024 * 1024;

/// Tables of clients of a server, in bytes: part of what is set aside for the allocator. The server's take no more, and
/// there are none unless asked for.
pub const CLIENT_TABLES_BYTES: usize = 1280 * 1024;

/// How the process's bound is made up, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// The sum: what the process and the kernel on its behalf never hold more than.
    pub limit_bytes: usize,
    /// Bytes that the process holds before its first request, with room for the allocator's own keeping.
    pub fixed_bytes: usize,
    /// For what is kept between requests: open files of the store's, and answers that may be given again.
    pub cache_bytes: usize,
    /// Instances that may exist at one time.
    pub instances: usize,
    /// For the instances: each as much as one request may hold, and its slot in the pool.
    pub instances_bytes: usize,
    /// Connections that may be open at one time.
    pub connections: usize,
    /// For the connections.
    pub connections_bytes: usize,
    /// For answers in progress.
    pub responses_bytes: usize,
}

/// The memory that was given is too little to serve anything in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "memory_bytes is {} and has to be {} at least: this process takes {} by itself and {} for one request",
    readable(*limit_bytes), readable(*required_bytes), readable(*fixed_bytes), readable(*request_bytes)
)]
pub struct InsufficientMemory {
    /// The limit that was set.
    pub limit_bytes: usize,
    /// Bytes that the process takes by itself.
    pub fixed_bytes: usize,
    /// Bytes that one request may take.
    pub request_bytes: usize,
    /// The least that would do.
    pub required_bytes: usize,
}

const MIB: usize = 1024 * 1024;

/// Empty pages that the allocator keeps for a second, and parts of pages between allocations: as measured under a flood,
/// with a margin. It is that part of the bound.
pub(crate) const ALLOCATOR_SHARE_OF_MEMORY: usize = 16;

/// Bytes by which a process takes more at one start than at another: the compiler leaves pages with the allocator, or finds
/// its code in the cache. The least that an error names has them, so that it is enough the next time.
const STARTS_DIFFER_BYTES: usize = 4 * MIB;

fn readable(bytes: usize) -> impl fmt::Display {
    bytesize::ByteSize(bytes as u64).display().iec()
}

impl MemoryPlan {
    /// Divides what is given among instances, connections and answers: an eighth for instances, at most half for
    /// connections, the rest for answers; before that the process has what it takes by itself, the allocator its part,
    /// the store what it keeps, and answers that are given again at most a thirty-second. `files` is how many files the
    /// process may have open.
    ///
    /// # Errors
    /// [`InsufficientMemory`].
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
            // More memory is more for the allocator, too.
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
        // A connection takes a socket, and its answer most often one file.
        let connections = (available_bytes - instances_bytes) / 2 / CONNECTION_BYTES;
        let files = files - files / OPEN_FILE_CACHE_SHARE;
        let connections = connections.min(files / 2).clamp(1, CONNECTIONS);
        // One more is accepted and waits for its place.
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
}
