//! One step of a replay: an allocation, reallocation or free, when it is its turn.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::{hint, process, thread};

use spanmalloc_rate::trace::table::Zeroed;

/// The distance of the bytes that are written. No system has smaller pages.
const PAGE_BYTES: usize = 4096;
/// Looks at an object's turn before the thread gives up the CPU: longer than a step takes, shorter than
/// a system call that finds no other thread.
const SPINS: u32 = 64;

/// An event, or a free at the end.
#[derive(Clone, Copy)]
pub struct Step {
    pub object: u32,
    pub turn: u32,
    /// For an alloc or a realloc.
    pub size: u32,
    pub kind: Kind,
    pub align_log2: u8,
    /// Whether it is the last one with its id in a round.
    pub last: bool,
}

#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Kind {
    Free = 0,
    Alloc,
    AllocZeroed,
    Realloc,
}

/// An object, or none, with an id. Written by the thread whose turn it is.
pub struct Slot {
    /// **Any thread; atomic.**
    pub turn: AtomicU32,
    /// In bytes. **Any thread; atomic.** Published by `turn`.
    size: AtomicU32,
    /// **Any thread; atomic.** Published by `turn`.
    address: AtomicPtr<u8>,
}

// SAFETY: zeros are numbers, `Kind::Free` and false.
unsafe impl Zeroed for Step {}
// SAFETY: zeros are numbers and a null pointer.
unsafe impl Zeroed for Slot {}

impl Slot {
    #[inline]
    fn wait_for(&self, turn: u32) {
        let mut looks = 0;
        // Pairs with `perform`: the object of the step before, and what was written to it.
        while self.turn.load(Ordering::Acquire) != turn {
            looks += 1;
            if looks < SPINS {
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

impl Step {
    /// Waits for the step's turn, does it, and makes it the next one's.
    ///
    /// # Safety
    ///
    /// * The step is of a [`Plan`](super::Plan), and the slot is its id's there.
    /// * The steps of a thread are done in their order, each once in a round.
    #[inline]
    pub unsafe fn perform(&self, slot: &Slot) {
        slot.wait_for(self.turn);
        // Relaxed here and below: `turn` publishes both.
        let address = slot.address.load(Ordering::Relaxed);
        let old_size = slot.size.load(Ordering::Relaxed) as usize;
        let new_size = self.size as usize;
        let layout = |size| {
            // SAFETY: by the plan's Invariant 2.
            unsafe { Layout::from_size_align_unchecked(size, 1 << self.align_log2) }
        };
        // SAFETY: it is this step's turn, so by the plan's Invariants 1 and 2 the id has no object if the
        // step is an alloc; else it has one of the old size and this alignment, and no other thread uses
        // it. Sizes are not zero.
        let result = unsafe {
            match self.kind {
                Kind::Alloc => alloc(layout(new_size)),
                Kind::AllocZeroed => {
                    let address = alloc_zeroed(layout(new_size));
                    expect(address.is_null() || address.add(new_size - 1).read() == 0);
                    address
                }
                Kind::Realloc => {
                    expect(address.add(old_size - 1).read() == self.stamp());
                    let moved = realloc(address, layout(old_size), new_size);
                    expect(moved.is_null() || moved.read() == self.stamp());
                    moved
                }
                Kind::Free => {
                    expect(address.add(old_size - 1).read() == self.stamp());
                    dealloc(address, layout(old_size));
                    address
                }
            }
        };
        if !matches!(self.kind, Kind::Free) {
            if result.is_null() {
                handle_alloc_error(layout(new_size));
            }
            let untouched = match self.kind {
                Kind::Realloc => old_size.next_multiple_of(PAGE_BYTES),
                _ => 0,
            };
            // SAFETY: the offsets are below the object's size.
            unsafe {
                for offset in (untouched..new_size).step_by(PAGE_BYTES) {
                    result.add(offset).write(self.stamp());
                }
                result.add(new_size - 1).write(self.stamp());
            }
            slot.address.store(result, Ordering::Relaxed);
            slot.size.store(self.size, Ordering::Relaxed);
        }
        let next = if self.last { 0 } else { self.turn + 1 };
        // Pairs with `wait_for`.
        slot.turn.store(next, Ordering::Release);
    }

    /// What is written to an object.
    #[inline]
    fn stamp(&self) -> u8 {
        self.object as u8 | 1
    }
}

/// Ends the process if an object has not what was written to it. No panic: other threads would wait
/// for this one.
#[inline]
fn expect(intact: bool) {
    if !intact {
        eprintln!("rate-worker: an object was overwritten");
        process::abort();
    }
}
