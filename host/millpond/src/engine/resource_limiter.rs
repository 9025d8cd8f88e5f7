//! Resource limiter: charges the memory of a request's instances, and denies growth beyond a limit.

use crate::engine::pool::STACK_BYTES;
use crate::limits::{Limit, Limits};
use millpond_ledger::{Charge, Kind, Ledger, LimitExceeded};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wasmtime::ResourceLimiter;

/// Maximum number of core instances, of linear memories, and of tables of one component. The embedded component has a
/// handful, and one with CPython 42 core instances.
pub(crate) const CORE_INSTANCES: usize = 64;

/// Host memory of a table element, in bytes: a pointer.
pub(crate) const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Host memory of an entry of the resource table, in bytes, without open files and buffers.
pub(crate) const HANDLE_BYTES: usize = 256;

/// Memory of a store before its guest has any, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FixedCost {
    /// Store and instance, in host memory.
    pub(crate) instance_bytes: usize,
    /// Fiber stacks.
    pub(crate) stack_bytes: usize,
    /// Resource table.
    pub(crate) handles_bytes: usize,
}

impl FixedCost {
    /// Returns the cost for a component with this host memory and this number of stacks.
    pub(crate) fn new(limits: &Limits, instance_bytes: usize, stacks: u32) -> Self {
        FixedCost {
            instance_bytes,
            stack_bytes: stacks as usize * STACK_BYTES,
            handles_bytes: limits.handles.saturating_mul(HANDLE_BYTES),
        }
    }

    /// Sum, in bytes.
    pub(crate) fn bytes(self) -> usize {
        self.instance_bytes
            .saturating_add(self.stack_bytes)
            .saturating_add(self.handles_bytes)
    }
}

/// Charges of one store, as wasmtime's `ResourceLimiter`.
///
/// wasmtime asks for each memory and table separately. All are charged to one ledger, because a limit per memory is no
/// limit per request.
pub(crate) struct InstanceLimiter {
    guest_memory: Charge,
    tables: Charge,
    lifted: Charge,
    /// Charges of every store, independent of its guest.
    _fixed_cost: [Charge; 3],
    peak_guest_bytes: usize,
    status: Option<Arc<LimiterStatus>>,
    admitted_bytes: usize,
    lifted_cap_bytes: usize,
    /// Limit hit last. A guest that is denied memory traps soon after, and the trap does not name the limit.
    limit_hit: Option<Limit>,
}

impl InstanceLimiter {
    /// Charges the memory of a store.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the request's memory does not suffice.
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

    /// Maximum size of the linear memories and tables together, in bytes.
    pub(crate) fn peak_guest_bytes(&self) -> usize {
        self.peak_guest_bytes
    }

    /// Returns the peak and the limit hit last, readable while the store runs.
    pub(crate) fn shared_status(&mut self) -> Arc<LimiterStatus> {
        Arc::clone(self.status.get_or_insert_default())
    }

    pub(crate) fn limit_hit(&self) -> Option<Limit> {
        self.limit_hit
    }

    /// Charges bytes that the host lifted from the instance.
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

    /// Reverts the last growth, which the engine could not perform.
    fn rollback(&mut self, kind: Kind) {
        let bytes = std::mem::take(&mut self.admitted_bytes);
        let charge = self.charge_of(kind);
        let rest = charge.bytes().saturating_sub(bytes);
        // Shrinking a charge never fails.
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

/// Status of a limiter, readable while its store runs.
#[derive(Debug, Default)]
pub(crate) struct LimiterStatus {
    peak_guest_bytes: AtomicUsize,
    limit_hit: Mutex<Option<Limit>>,
}

impl LimiterStatus {
    /// Maximum size of the linear memories and tables together, in bytes.
    pub(crate) fn peak_guest_bytes(&self) -> usize {
        self.peak_guest_bytes.load(Ordering::Relaxed)
    }

    /// Limit that the store or its streams hit last.
    pub(crate) fn limit_hit(&self) -> Option<Limit> {
        *self.limit_hit.lock()
    }

    pub(crate) fn set_limit_hit(&self, limit: Limit) {
        *self.limit_hit.lock() = Some(limit);
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
        // Growth that the engine could not perform is reverted.
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
