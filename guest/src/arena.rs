//! Where the component's memory comes from: an arena inside its initial linear memory.
//!
//! A request's own allocations are a few kilobytes. Rust's default allocator grows linear memory at the
//! first of them, which costs the host system calls in every request; this one does so only when the arena
//! is used up. If the host then refuses, allocation fails and the instance traps: the request has met its
//! memory limit, and the host, which refused, says so.

use core::alloc::Layout;
use core::arch::wasm32::memory_grow;
use core::mem::MaybeUninit;
use talc::base::{Talc, binning::Binning};
use talc::cell::TalcSyncCell;
use talc::source::Source;
use talc::wasm::WasmBinning;

/// Bytes that requests are answered from without growing: several times what the largest request head
/// that the host admits takes.
const ARENA_BYTES: usize = 64 * 1024;

const PAGE_BYTES: usize = 64 * 1024;

static mut ARENA: [MaybeUninit<u8>; ARENA_BYTES] = [MaybeUninit::uninit(); ARENA_BYTES];

#[global_allocator]
static ALLOCATOR: TalcSyncCell<ArenaThenGrow, WasmBinning> =
    TalcSyncCell::new_wasm(ArenaThenGrow {
        arena_is_taken: false,
    });

#[derive(Debug)]
struct ArenaThenGrow {
    arena_is_taken: bool,
}

// SAFETY: `acquire` touches no allocator but the one it is given.
unsafe impl Source for ArenaThenGrow {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        if !talc.source.arena_is_taken {
            talc.source.arena_is_taken = true;
            // SAFETY: nobody else names `ARENA`, and it is claimed once.
            unsafe { talc.claim((&raw mut ARENA).cast(), ARENA_BYTES) };
            return Ok(());
        }
        // Room for the allocation, its alignment and the allocator's own bookkeeping.
        let needed = layout.size() + layout.align() + 1024;
        let pages = needed.div_ceil(PAGE_BYTES);
        let previous_pages = memory_grow::<0>(pages);
        if previous_pages == usize::MAX {
            return Err(());
        }
        let base = (previous_pages * PAGE_BYTES) as *mut u8;
        // SAFETY: these pages are new, so nobody else has them.
        unsafe { talc.claim(base, pages * PAGE_BYTES) };
        Ok(())
    }
}
