//! Sizes of the pool that instances are made in, and the clock that interrupts them.

use std::time::Duration;

/// How often running guests are interrupted to let other requests go on, and the unit in which their CPU time
/// is counted. One ticker serves the whole process.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Stack that a guest may use, in bytes.
pub(crate) const GUEST_STACK_BYTES: usize = 128 * 1024;

/// The whole fiber stack: the host's own functions, called from the guest, have as much again.
pub(crate) const STACK_BYTES: usize = 2 * GUEST_STACK_BYTES;

/// Bytes of a freed memory that stay resident and are cleared by writing zeros rather than by the kernel: those that the
/// embedded component has at its start, and as many again.
pub(crate) const KEEP_MEMORY_BYTES: usize = 128 * 1024;

/// The same of a freed stack: see [`KEEP_MEMORY_BYTES`].
pub(crate) const KEEP_STACK_BYTES: usize = 32 * 1024;

/// Bytes that the pool keeps resident for each instance.
pub(crate) const POOL_SLOT_BYTES: usize = KEEP_MEMORY_BYTES + KEEP_STACK_BYTES;
