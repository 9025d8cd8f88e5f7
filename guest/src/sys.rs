//! The allocator of the component: an arena inside its initial linear memory, allocated from front to back.
//!
//! A request allocates a few kilobytes, most of which live until its response. An allocation is therefore an addition, and
//! a deallocation a subtraction. The arena is empty again when no allocation is left, so the memory of an instance that
//! serves many requests does not grow. Allocations that do not fit go to another allocator, which grows the linear memory.
//! If the host refuses to grow it, the instance traps: the request has reached its memory limit, and the host reports that.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;

/// Length of the arena. With the stack and the constants it fits in one page of linear memory. The host therefore clears
/// one page at most after a request.
const ARENA_BYTES: usize = 14 * 1024;

/// Alignment of the arena. Allocations with a larger alignment go to the other allocator.
const ALIGNMENT: usize = 16;

/// The arena, and the allocator of allocations that do not fit.
pub(crate) struct Arena<Rest> {
    memory: UnsafeCell<ArenaMemory>,
    taken: Cell<Taken>,
    rest: Rest,
}

/// Bytes of the arena, aligned to [`ALIGNMENT`].
#[repr(align(16))]
struct ArenaMemory(
    #[expect(dead_code, reason = "it is accessed by its address")] [MaybeUninit<u8>; ARENA_BYTES],
);

/// State of the arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Taken {
    /// Offset of the first free byte.
    end: usize,
    /// Number of live allocations.
    count: usize,
}

impl<Rest> Arena<Rest> {
    const fn new(rest: Rest) -> Self {
        Arena {
            memory: UnsafeCell::new(ArenaMemory([MaybeUninit::uninit(); ARENA_BYTES])),
            taken: Cell::new(Taken { end: 0, count: 0 }),
            rest,
        }
    }

    fn base(&self) -> *mut u8 {
        self.memory.get().cast()
    }

    /// Returns the offset of an address in the arena.
    fn offset_of(&self, pointer: *const u8) -> Option<usize> {
        let offset = pointer.addr().wrapping_sub(self.base().addr());
        (offset < ARENA_BYTES).then_some(offset)
    }
}

// SAFETY: an allocation is in `memory` after all live allocations there, or belongs to the other allocator. `offset_of`
// tells them apart, since that allocator has other memory.
unsafe impl<Rest: GlobalAlloc> GlobalAlloc for Arena<Rest> {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Taken { end, count } = self.taken.get();
        let start = end.next_multiple_of(layout.align());
        // A layout's size is less than half of all addresses, and `start` is no more than the arena with an alignment.
        let end = start + layout.size();
        if layout.align() > ALIGNMENT || end > ARENA_BYTES || layout.size() == 0 {
            // SAFETY: as the caller says.
            return unsafe { self.rest.alloc(layout) };
        }
        self.taken.set(Taken {
            end,
            count: count + 1,
        });
        // SAFETY: `end` is in the arena, and so is what lies before it.
        unsafe { self.base().add(start) }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let Some(offset) = self.offset_of(pointer) else {
            // SAFETY: it is not of the arena, so it is that allocator's.
            return unsafe { self.rest.dealloc(pointer, layout) };
        };
        let Taken { end, count } = self.taken.get();
        let count = count - 1;
        let is_last = offset + layout.size() == end;
        self.taken.set(match count {
            0 => Taken::default(),
            _ if is_last => Taken { end: offset, count },
            _ => Taken { end, count },
        });
    }

    #[inline(never)]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(offset) = self.offset_of(pointer) else {
            // SAFETY: it is not of the arena, so it is that allocator's.
            return unsafe { self.rest.realloc(pointer, layout, new_size) };
        };
        let Taken { end, count } = self.taken.get();
        let is_last = offset + layout.size() == end;
        if is_last && new_size <= ARENA_BYTES - offset {
            let end = offset + new_size;
            self.taken.set(Taken { end, count });
            return pointer;
        }
        // SAFETY: the caller says that the new size is fit for a layout.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: as the caller says.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            let count = layout.size().min(new_size);
            // SAFETY: both are as long, and the new one is another's than the old one.
            unsafe { pointer.copy_to_nonoverlapping(new, count) };
            // SAFETY: it is given back once.
            unsafe { self.dealloc(pointer, layout) };
        }
        new
    }
}

#[cfg(target_family = "wasm")]
mod global {
    use super::Arena;
    use core::alloc::Layout;
    use core::arch::wasm32::memory_grow;
    use talc::base::{Talc, binning::Binning};
    use talc::cell::TalcSyncCell;
    use talc::source::Source;
    use talc::wasm::WasmBinning;

    #[global_allocator]
    static ALLOCATOR: Arena<TalcSyncCell<Grow, WasmBinning>> =
        Arena::new(TalcSyncCell::new_wasm(Grow));

    // SAFETY: a component has one thread: its target has no atomics.
    #[cfg(not(target_feature = "atomics"))]
    unsafe impl<Rest> Sync for Arena<Rest> {}

    const PAGE_BYTES: usize = 64 * 1024;

    /// Memory by growing the linear memory.
    #[derive(Debug)]
    struct Grow;

    // SAFETY: `acquire` touches no allocator but the one it is given.
    unsafe impl Source for Grow {
        fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::alloc::System;

    /// An allocation, filled with a byte of its own.
    struct Filled {
        pointer: *mut u8,
        layout: Layout,
        byte: u8,
    }

    impl Filled {
        fn fill(&self) {
            // SAFETY: it is as long as its layout.
            unsafe { self.pointer.write_bytes(self.byte, self.layout.size()) };
        }

        fn is_whole(&self, length: usize) -> bool {
            // SAFETY: it is as long as its layout at least, and was filled.
            let bytes = unsafe { std::slice::from_raw_parts(self.pointer, length) };
            bytes.iter().all(|byte| *byte == self.byte)
        }
    }

    proptest! {
        #[test]
        fn nothing_is_given_out_twice_and_the_end_is_an_empty_arena(
            steps in proptest::collection::vec((0..4_usize, 1..9_000_usize, 0..6_u32), 1..80)
        ) {
            let arena = Arena::new(System);
            let mut live: Vec<Filled> = Vec::new();
            for (byte, (step, size, alignment)) in (1..).zip(steps) {
                if step < 2 || live.is_empty() {
                    let layout = Layout::from_size_align(size, 1 << alignment).unwrap();
                    // SAFETY: the layout has a size.
                    let pointer = unsafe { arena.alloc(layout) };
                    prop_assert!(!pointer.is_null() && pointer.addr() % layout.align() == 0);
                    live.push(Filled { pointer, layout, byte });
                    live.last().unwrap().fill();
                } else if step == 2 {
                    let last = live.len() - 1;
                    let filled = &mut live[size % (last + 1)];
                    let kept = size.min(filled.layout.size());
                    // SAFETY: it lives, and this is its layout.
                    filled.pointer = unsafe { arena.realloc(filled.pointer, filled.layout, size) };
                    filled.layout = Layout::from_size_align(size, filled.layout.align()).unwrap();
                    prop_assert!(filled.is_whole(kept));
                    filled.fill();
                } else {
                    let freed = live.swap_remove(size % live.len());
                    prop_assert!(freed.is_whole(freed.layout.size()));
                    // SAFETY: it lives, and this is its layout.
                    unsafe { arena.dealloc(freed.pointer, freed.layout) };
                }
                for filled in &live {
                    prop_assert!(filled.is_whole(filled.layout.size()));
                }
            }
            for freed in live {
                // SAFETY: it lives, and this is its layout.
                unsafe { arena.dealloc(freed.pointer, freed.layout) };
            }
            prop_assert_eq!(arena.taken.get(), Taken::default());
        }
    }

    #[test]
    fn what_grows_at_the_end_stays_where_it_is() {
        let arena = Arena::new(System);
        let layout = Layout::new::<u64>();
        // SAFETY: the layout has a size, and each is given back once.
        unsafe {
            let first = arena.alloc(layout);
            let second = arena.alloc(layout);
            assert_eq!(arena.realloc(second, layout, 1000), second);
            assert_ne!(arena.realloc(first, layout, 1000), first);
        }
    }
}
