//! Charges what one request's instances take while they run, and refuses what would pass a limit.

use crate::engine::pool::STACK_BYTES;
use crate::limits::{Limit, Limits};
use millpond_ledger::{Charge, Kind, Ledger, LimitExceeded};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use wasmtime::ResourceLimiter;

/// Core instances, linear memories and tables of one request's component: the embedded one has a handful, composed ones
/// some more, and one with CPython in it 42 core instances.
pub(crate) const CORE_INSTANCES: usize = 64;

/// Size of a table element in the host: a pointer.
pub(crate) const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Bytes that an entry of the resource table takes on the host's side, open files and buffers aside.
pub(crate) const HANDLE_BYTES: usize = 256;

/// What each store of a component takes, in bytes, before its guest has any memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FixedCost {
    /// Store and instance, on the host's side.
    pub(crate) instance_bytes: usize,
    /// Its stacks, all of them.
    pub(crate) stack_bytes: usize,
    /// Its table of handles.
    pub(crate) handles_bytes: usize,
}

impl FixedCost {
    /// Of a component with that much on the host's side and so many stacks.
    pub(crate) fn new(limits: &Limits, instance_bytes: usize, stacks: u32) -> Self {
        FixedCost {
            instance_bytes,
            stack_bytes: stacks as usize * STACK_BYTES,
            handles_bytes: limits.handles.saturating_mul(HANDLE_BYTES),
        }
    }

    /// The sum, in bytes.
    pub(crate) fn bytes(self) -> usize {
        self.instance_bytes
            .saturating_add(self.stack_bytes)
            .saturating_add(self.handles_bytes)
    }
}

/// The charges of one store.
///
/// wasmtime asks once per memory and once per table; they are charged to one ledger here, since a limit per memory
/// is no limit per request.
pub(crate) struct InstanceLimiter {
    guest_memory: Charge,
    tables: Charge,
    lifted: Charge,
    /// What every store takes, whatever its guest does.
    _fixed_cost: [Charge; 3],
    peak_guest_bytes: usize,
    status: Option<Arc<LimiterStatus>>,
    admitted_bytes: usize,
    lifted_cap_bytes: usize,
    /// The limit met last: a guest that is refused memory traps by itself soon after, and the trap does not
    /// tell why.
    limit_hit: Option<Limit>,
}

impl InstanceLimiter {
    /// Charges what a store takes.
    pub(crate) fn new(
        ledger: &Ledger,
        limits: &Limits,
        fixed_cost: FixedCost,
    ) -> Result<Self, LimitExceeded> {
        Ok(InstanceLimiter {
            guest_memory: ledger.empty_charge(Kind::GuestMemory),
            tables: ledger.empty_charge(Kind::Tables),
            lifted: ledger.empty_charge(Kind::Lifted),
            _fixed_cost: [
                ledger.charge(Kind::Instance, fixed_cost.instance_bytes)?,
                ledger.charge(Kind::Stack, fixed_cost.stack_bytes)?,
                ledger.charge(Kind::Handles, fixed_cost.handles_bytes)?,
            ],
            peak_guest_bytes: 0,
            status: None,
            admitted_bytes: 0,
            lifted_cap_bytes: limits.lifted_bytes,
            limit_hit: None,
        })
    }

    /// The most that linear memories and tables took together, in bytes.
    pub(crate) fn peak_guest_bytes(&self) -> usize {
        self.peak_guest_bytes
    }

    /// The same and the limit met last, for whoever has no hand on the store while it runs.
    pub(crate) fn shared_status(&mut self) -> Arc<LimiterStatus> {
        Arc::clone(self.status.get_or_insert_default())
    }

    pub(crate) fn limit_hit(&self) -> Option<Limit> {
        self.limit_hit
    }

    /// Charges bytes that the host copied out of the instance.
    pub(crate) fn lift(&mut self, bytes: usize) -> Result<(), Limit> {
        let sum = self.lifted.bytes().saturating_add(bytes);
        if sum > self.lifted_cap_bytes {
            return Err(Limit::Memory(Kind::Lifted));
        }
        Ok(self.lifted.resize(sum)?)
    }

    fn admit(&mut self, kind: Kind, bytes: usize) -> bool {
        if let Err(exceeded) = self.charge_of(kind).grow(bytes) {
            self.set_limit_hit(exceeded.into());
            return false;
        }
        self.admitted_bytes = bytes;
        let guest_bytes = self.guest_memory.bytes() + self.tables.bytes();
        if guest_bytes > self.peak_guest_bytes {
            self.peak_guest_bytes = guest_bytes;
            if let Some(status) = &self.status {
                status
                    .peak_guest_bytes
                    .store(guest_bytes, Ordering::Relaxed);
            }
        }
        true
    }

    /// Takes back what was admitted last: the engine itself had no room for it.
    fn rollback(&mut self, kind: Kind) {
        let bytes = std::mem::take(&mut self.admitted_bytes);
        let charge = self.charge_of(kind);
        let rest = charge.bytes().saturating_sub(bytes);
        // Less is never too much.
        let _ = charge.resize(rest);
        self.set_limit_hit(Limit::Memory(kind));
    }

    fn set_limit_hit(&mut self, limit: Limit) {
        self.limit_hit = Some(limit);
        if let Some(status) = &self.status {
            status.set_limit_hit(limit);
        }
    }

    fn charge_of(&mut self, kind: Kind) -> &mut Charge {
        match kind {
            Kind::Tables => &mut self.tables,
            _ => &mut self.guest_memory,
        }
    }
}

/// What is known of a running store without a hand on it.
#[derive(Debug, Default)]
pub(crate) struct LimiterStatus {
    peak_guest_bytes: AtomicUsize,
    limit_hit: Mutex<Option<Limit>>,
}

impl LimiterStatus {
    /// As [`InstanceLimiter::peak_guest_bytes`].
    pub(crate) fn peak_guest_bytes(&self) -> usize {
        self.peak_guest_bytes.load(Ordering::Relaxed)
    }

    /// The limit that the store or its streams met last.
    pub(crate) fn limit_hit(&self) -> Option<Limit> {
        *self
            .limit_hit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_limit_hit(&self, limit: Limit) {
        *self
            .limit_hit
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(limit);
    }
}

impl ResourceLimiter for InstanceLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.admit(Kind::GuestMemory, desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.rollback(Kind::GuestMemory);
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = desired.saturating_sub(current);
        Ok(self.admit(Kind::Tables, elements.saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.rollback(Kind::Tables);
        Ok(())
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        CORE_INSTANCES
    }

    fn memories(&self) -> usize {
        CORE_INSTANCES
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use millpond_ledger::Owner;

    fn limiter(guest_bytes: usize) -> (Ledger, InstanceLimiter) {
        let limits = Limits {
            lifted_bytes: 10,
            ..Limits::default()
        };
        let fixed_cost = FixedCost::new(&limits, 4096, 1);
        let limit_bytes = guest_bytes + fixed_cost.bytes();
        let ledger = Ledger::new(&Arc::default(), Owner::Connection, limit_bytes);
        let limiter = InstanceLimiter::new(&ledger, &limits, fixed_cost).unwrap();
        (ledger, limiter)
    }

    #[test]
    fn memories_and_tables_are_one_sum() {
        let (ledger, mut limiter) = limiter(1000);
        assert!(limiter.memory_growing(0, 500, None).unwrap());
        assert!(limiter.memory_growing(0, 400, None).unwrap());
        assert!(!limiter.memory_growing(400, 600, None).unwrap());
        assert_eq!(limiter.limit_hit(), Some(Limit::Memory(Kind::GuestMemory)));
        assert!(limiter.table_growing(0, 10, None).unwrap());
        assert!(!limiter.table_growing(10, 1_000_000, None).unwrap());
        assert_eq!(limiter.limit_hit(), Some(Limit::Memory(Kind::Tables)));
        assert_eq!(limiter.peak_guest_bytes(), 900 + 10 * TABLE_ELEMENT_BYTES);
        assert!(!limiter.table_growing(0, usize::MAX, None).unwrap());
        // What the engine then could not do is not counted.
        assert!(limiter.table_growing(10, 11, None).unwrap());
        let full = || wasmtime::Error::msg("full");
        limiter.table_grow_failed(full()).unwrap();
        assert!(limiter.table_growing(10, 12, None).unwrap());
        drop(limiter);
        assert_eq!(ledger.balance().total(), 0);
    }

    #[test]
    fn lifted_bytes_add_up_over_calls() {
        let (_ledger, mut limiter) = limiter(1000);
        assert_eq!(limiter.lift(6), Ok(()));
        assert_eq!(limiter.lift(5), Err(Limit::Memory(Kind::Lifted)));
        assert_eq!(limiter.lift(usize::MAX), Err(Limit::Memory(Kind::Lifted)));
    }

    #[test]
    fn a_store_that_does_not_fit_is_refused() {
        let ledger = Ledger::new(&Arc::default(), Owner::Connection, STACK_BYTES);
        let limits = Limits::default();
        assert!(InstanceLimiter::new(&ledger, &limits, FixedCost::new(&limits, 1, 1)).is_err());
        assert_eq!(ledger.balance().total(), 0);
    }
}
