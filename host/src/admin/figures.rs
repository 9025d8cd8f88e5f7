//! The figures of `/memory` and `/requests`, as they stand in JSON.

use crate::ledger::record::End;
use crate::ledger::{Balance, Kind};
use crate::request::Millpond;
use crate::watch::{Sighting, Trend};
use serde::Serialize;
use std::collections::BTreeMap;

/// What the process holds, and what of it is explained. All figures but counts are bytes.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    bound_bytes: usize,
    bound: crate::ledger::budget::Bound,
    process: Process,
    kernel: Kernel,
    ledger: LedgerSum,
    budget: BudgetUse,
    kept_bytes: usize,
    unexplained_bytes: i64,
    trend: Trend,
    requests_total: u64,
    requests_reused: u64,
    ended: BTreeMap<String, u64>,
    live: Live,
}

#[derive(Debug, Serialize)]
struct Process {
    anonymous_bytes: u64,
    file_bytes: u64,
    high_water_bytes: u64,
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
    unreturned_bytes: usize,
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
struct Live {
    stores: usize,
    bodies: usize,
    files: usize,
}

impl Memory {
    pub(super) fn of(millpond: &Millpond, seen: &Sighting) -> Self {
        let accounts = millpond.accounts();
        let total = seen.survey.total();
        let ended: BTreeMap<String, u64> = End::ALL
            .map(|end| (end.to_string(), accounts.ended(end)))
            .into();
        Memory {
            bound_bytes: millpond.bound().bound_bytes,
            bound: *millpond.bound(),
            process: Process {
                anonymous_bytes: seen.process.anonymous_bytes,
                file_bytes: seen.process.file_bytes,
                high_water_bytes: seen.process.high_water_bytes,
                allocated_bytes: seen.heap.map(|heap| heap.allocated_bytes),
                active_bytes: seen.heap.map(|heap| heap.active_bytes),
                allocator_resident_bytes: seen.heap.map(|heap| heap.resident_bytes),
            },
            kernel: Kernel {
                socket_bytes: seen.socket_bytes,
            },
            ledger: LedgerSum {
                requests: seen.survey.live_requests,
                connections: seen.survey.live_connections,
                unreturned_bytes: seen.survey.unreturned.total(),
                total_bytes: total.total(),
                by_kind: by_kind(&total),
            },
            budget: BudgetUse {
                reserved_bytes: millpond.budget().reserved_bytes(),
                total_bytes: millpond.budget().total_bytes(),
                waiting: millpond.budget().waiting(),
            },
            kept_bytes: millpond.kept_bytes(),
            unexplained_bytes: seen.unexplained_bytes,
            trend: seen.trend,
            requests_total: ended.values().sum::<u64>() + seen.survey.live_requests as u64,
            requests_reused: accounts.reused(),
            ended,
            live: Live {
                stores: accounts.stores(),
                bodies: accounts.bodies(),
                files: accounts.files(),
            },
        }
    }
}

fn by_kind(balance: &Balance) -> BTreeMap<&'static str, usize> {
    Kind::ALL.map(|kind| (kind.name(), balance.of(kind))).into()
}

/// One live request.
#[derive(Debug, Serialize)]
pub(super) struct LiveRequest {
    id: u64,
    method: String,
    route: String,
    age_ms: u64,
    total_bytes: usize,
    peak_bytes: usize,
    by_kind: BTreeMap<&'static str, usize>,
    has_ended: bool,
}

/// The requests that hold something, oldest first, at most so many.
pub(super) fn requests(millpond: &Millpond, most: usize) -> Vec<LiveRequest> {
    let live = millpond.accounts().live_requests(most).into_iter();
    live.map(|request| LiveRequest {
        id: request.id,
        method: request.method.to_string(),
        route: request.route.pattern.to_string(),
        age_ms: u64::try_from(request.age.as_millis()).unwrap_or(u64::MAX),
        total_bytes: request.balance.total(),
        peak_bytes: request.peak_bytes,
        by_kind: request
            .balance
            .iter()
            .map(|(kind, bytes)| (kind.name(), bytes))
            .collect(),
        has_ended: request.has_ended,
    })
    .collect()
}
