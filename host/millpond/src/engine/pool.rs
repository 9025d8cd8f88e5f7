//! Sizes of the instance pool, and the interval of epoch interruption.

use millpond_ledger::Reservation;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Memory of the instance pool of a component that another one has replaced. It is reserved until the last instance of
/// the old component ends. Before that it is part of the memory plan.
pub(crate) type PoolReservation = Arc<OnceLock<Reservation>>;

/// Interval between two interruptions of running guests, which let other requests run. CPU time is counted in this
/// unit. The process has one ticker thread.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Stack of a guest, in bytes.
pub(crate) const GUEST_STACK_BYTES: usize = 128 * 1024;

/// Size of a fiber stack, in bytes. Host functions that the guest calls have as much stack as the guest.
pub(crate) const STACK_BYTES: usize = 2 * GUEST_STACK_BYTES;

/// Bytes of a freed memory that stay resident and are cleared with zeros instead of by the kernel. Twice the initial
/// memory of the embedded component.
pub(crate) const KEEP_MEMORY_BYTES: usize = 128 * 1024;

/// Bytes of a freed stack that stay resident, as [`KEEP_MEMORY_BYTES`].
pub(crate) const KEEP_STACK_BYTES: usize = 32 * 1024;

/// Resident bytes of each slot of the pool.
pub(crate) const POOL_SLOT_BYTES: usize = KEEP_MEMORY_BYTES + KEEP_STACK_BYTES;
