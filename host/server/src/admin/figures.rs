//! The JSON of `/memory`. Names follow the metrics.

use millpond::ledger::process::ProcessMemory;
use millpond::ledger::{Kind, Outcome};
use millpond::monitor::{Sample, Trend};
use millpond::{CacheBytes, Millpond};
use serde::Serialize;
use std::collections::BTreeMap;

/// Memory of the process, and the part of it that the ledgers account for. All figures but counts are bytes.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    memory_limit_bytes: usize,
    memory_limit: millpond::MemoryPlan,
    process: Process,
    kernel: Kernel,
    ledger: LedgerSum,
    budget: BudgetUse,
    cache_bytes: CacheBytes,
    heap_unattributed_bytes: i64,
    trend: Trend,
    requests_total: u64,
    response_cache_hits: u64,
    response_body_bytes: u64,
    outcomes: BTreeMap<&'static str, u64>,
    in_use: InUse,
}

#[derive(Debug, Serialize)]
struct Process {
    #[serde(flatten)]
    kernel: ProcessMemory,
    allocated_bytes: Option<u64>,
    active_bytes: Option<u64>,
    allocator_resident_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Kernel {
    socket_bytes: usize,
}

#[derive(Debug, Serialize)]
struct LedgerSum {
    requests: usize,
    connections: usize,
    leaked_bytes: usize,
    total_bytes: usize,
    by_kind: BTreeMap<&'static str, usize>,
}

#[derive(Debug, Serialize)]
struct BudgetUse {
    reserved_bytes: usize,
    total_bytes: usize,
    waiting: usize,
}

#[derive(Debug, Serialize)]
struct InUse {
    instances: usize,
    response_bodies: usize,
    files: usize,
}

impl Memory {
    pub(super) fn of(millpond: &Millpond, seen: &Sample) -> Self {
        let registry = millpond.registry();
        let total = seen.snapshot.total();
        let outcomes: BTreeMap<&'static str, u64> = Outcome::ALL
            .map(|outcome| (outcome.name(), registry.ended_requests(outcome)))
            .into();
        Memory {
            memory_limit_bytes: millpond.memory_plan().limit_bytes,
            memory_limit: *millpond.memory_plan(),
            process: Process {
                kernel: seen.process,
                allocated_bytes: seen.heap.map(|heap| heap.allocated_bytes),
                active_bytes: seen.heap.map(|heap| heap.active_bytes),
                allocator_resident_bytes: seen.heap.map(|heap| heap.resident_bytes),
            },
            kernel: Kernel {
                socket_bytes: seen.socket_bytes,
            },
            ledger: LedgerSum {
                requests: seen.snapshot.live_requests,
                connections: seen.snapshot.live_connections,
                leaked_bytes: seen.snapshot.leaked.total(),
                total_bytes: total.total(),
                by_kind: Kind::ALL.map(|kind| (kind.name(), total.of(kind))).into(),
            },
            budget: BudgetUse {
                reserved_bytes: millpond.budget().reserved_bytes(),
                total_bytes: millpond.budget().total_bytes(),
                waiting: millpond.budget().queue_length(),
            },
            cache_bytes: millpond.cache_bytes(),
            heap_unattributed_bytes: seen.unattributed_bytes,
            trend: seen.trend,
            requests_total: outcomes.values().sum::<u64>() + seen.snapshot.live_requests as u64,
            response_cache_hits: registry.response_cache_hits(),
            response_body_bytes: registry.response_body_bytes(),
            outcomes,
            in_use: InUse {
                instances: registry.in_use().stores(),
                response_bodies: registry.in_use().bodies(),
                files: registry.in_use().files(),
            },
        }
    }
}
