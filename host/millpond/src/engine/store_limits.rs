//! wasmtime stores with every limit of a request set: memory, handles, lifted bytes, CPU time.

use crate::engine::pool::TICK;
use crate::engine::resource_limiter::InstanceLimiter;
use crate::limits::{Limit, Limits};
use millpond_ledger::Kind;
use std::sync::atomic::{AtomicU32, Ordering};
use wasmtime::component::{ResourceTable, ResourceTableError};
use wasmtime::{Engine, Store, UpdateDeadline};

/// State of a store with limits.
pub(crate) trait LimitedStore: 'static {
    fn limiter(&self) -> &InstanceLimiter;

    fn limiter_mut(&mut self) -> &mut InstanceLimiter;

    fn cpu(&self) -> &CpuBudget;
}

/// Returns a store with every limit set.
pub(crate) fn store<T: LimitedStore>(engine: &Engine, limits: &Limits, state: T) -> Store<T> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| state.limiter_mut());
    store.set_hostcall_fuel(limits.lifted_bytes);
    // Limit of an instance's own handles, beyond those of the table. One of each for every entry is plenty.
    store.set_max_component_handles(2 * limits.handles);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| match store.data().cpu().consume_tick() {
        true => Ok(UpdateDeadline::Yield(1)),
        false => Err(Limit::Cpu.into()),
    });
    store
}

/// Returns a resource table with the limit of handles.
pub(crate) fn table(limits: &Limits) -> ResourceTable {
    let mut table = ResourceTable::new();
    table.set_max_capacity(limits.handles);
    table
}

/// CPU time of an instance, counted in the engine's ticks.
pub(crate) struct CpuBudget {
    ticks_left: AtomicU32,
    ticks: u32,
}

impl CpuBudget {
    pub(crate) fn new(limits: &Limits) -> Self {
        let ticks = limits.cpu.as_nanos().div_ceil(TICK.as_nanos());
        CpuBudget::of_ticks(u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    fn of_ticks(ticks: u32) -> Self {
        CpuBudget {
            ticks_left: AtomicU32::new(ticks),
            ticks,
        }
    }

    /// Restores the whole CPU time, for the next chunk of work.
    pub(crate) fn reset(&self) {
        self.ticks_left.store(self.ticks, Ordering::Relaxed);
    }

    /// Consumes one tick, and returns whether any is left.
    fn consume_tick(&self) -> bool {
        let spent = |ticks: u32| Some(ticks.saturating_sub(1));
        let before = self
            .ticks_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent);
        before.is_ok_and(|ticks| ticks > 1)
    }
}

/// Returns the limit that caused a trap, if one did.
pub(crate) fn limit_of(error: &wasmtime::Error, limiter: &InstanceLimiter) -> Option<Limit> {
    if let Some(limit) = error.downcast_ref::<Limit>() {
        return Some(*limit);
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        return Some(Limit::Memory(Kind::Handles));
    }
    match error.downcast_ref::<wasmtime::Trap>() {
        Some(wasmtime::Trap::StackOverflow) => return Some(Limit::Memory(Kind::Stack)),
        Some(wasmtime::Trap::Interrupt) => return Some(Limit::Cpu),
        _ => {}
    }
    // wasmtime has no public types for these errors. Tests of hostile guests fail if their texts change.
    let said = error.root_cause().to_string();
    if said.contains("fuel allocated for hostcalls") {
        Some(Limit::Memory(Kind::Lifted))
    } else if said.contains("store handle limit exceeded") {
        Some(Limit::Memory(Kind::Handles))
    } else if said.contains("resource limit exceeded") {
        Some(Limit::Instances)
    } else {
        limiter.limit_hit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_spent_tick_by_tick_and_can_be_had_again() {
        let cpu = CpuBudget::of_ticks(3);
        let spent = || [(); 4].map(|()| cpu.consume_tick());
        assert_eq!(spent(), [true, true, false, false]);
        cpu.reset();
        assert_eq!(spent(), [true, true, false, false]);
    }
}
