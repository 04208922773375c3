//! Pages back to the system.
//!
//! Free pages that are still backed by memory are *dirty*. Some are kept, because taking a page from
//! the system costs a fault; how many, the scavenger says. What goes back goes from the highest
//! addresses on, as the heap allocates lowest first, and whole huge pages before parts of them. Pages
//! are taken out under the lock, released without it, and put back.
//!
//! Not here: a bound at which a free releases. While a program frees at random, what is free are
//! fragments of huge pages, and each costs a system call that splits one: a program that filled 1 GiB and
//! freed 95 % of it took 0.35 s of CPU time so, and 0.19 s without.

use super::huge_pages::{self, HUGE_PAGE_PAGES};
use super::{HEAP, Heap, HeapGuard, huge};
use crate::arena::Arena;
use crate::base::PAGE_BYTES;
use crate::config::{self, Release};
use crate::pages::Taken;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::{backed, secure, sys};

/// Pages released by one system call: 4 MiB, so that no call keeps its caller for long.
pub(crate) const RELEASE_PAGES: u32 = 512;

/// Whether released pages may read as anything, since some went back by `MADV_FREE`. **Any thread;
/// atomic.** Never unset.
static HAS_DIRTY_RELEASED: AtomicBool = AtomicBool::new(false);

/// Whether pages that were released read as zero.
pub(super) fn released_are_zero() -> bool {
    !HAS_DIRTY_RELEASED.load(Relaxed)
}

/// Runs that one call releases at most, unless all are to go, so that no call keeps its caller for long.
const RUNS_A_CALL: u32 = 16;

/// After pages became free: releases all dirty ones if they are to go at once. Takes the guard, since the
/// lock is given up while the system works.
pub(crate) fn after_free(heap: HeapGuard) {
    if config::release() == Release::AtOnce {
        let _ = release_down_to(heap, 0, u32::MAX, RELEASE_PAGES);
    }
}

/// Releases all dirty pages of the heap, and all free mappings of huge objects; their bytes.
pub(crate) fn release_all() -> usize {
    let (heap, mapped) = huge::release(HEAP.lock(), usize::MAX);
    (mapped + release_down_to(heap, 0, u32::MAX, RELEASE_PAGES)) * PAGE_BYTES
}

/// Releases about so many pages that are free and backed, at least as many if there are; their number. Up to
/// `idle_mapped` of them are in free mappings of huge objects, the others are so only if the heap has none.
pub(crate) fn release_pages(count: usize, idle_mapped: usize) -> usize {
    let (heap, mapped) = huge::release(HEAP.lock(), count.min(idle_mapped));
    let left = count.saturating_sub(mapped);
    let goal = heap.dirty_pages.saturating_sub(left);
    let released = mapped + release_down_to(heap, goal, RUNS_A_CALL, RELEASE_PAGES);
    if released > 0 {
        return released;
    }
    huge::release(HEAP.lock(), count).1
}

/// Releases dirty pages until at most `goal` are left, in at most so many runs of at most `run_pages`; how
/// many went.
pub(super) fn release_down_to(
    mut heap: HeapGuard,
    goal: usize,
    runs: u32,
    run_pages: u32,
) -> usize {
    let mut released = 0;
    let mut runs_left = runs;
    let mut id = heap.count as usize;
    while id > 0 && heap.dirty_pages > goal && runs_left > 0 {
        let Some(arena) = heap.arenas[id - 1] else {
            break;
        };
        // SAFETY: the lock is held.
        let pages = &mut unsafe { arena.committed() }.pages;
        let Some(taken) = pages.take_releasable(run_pages, HUGE_PAGE_PAGES) else {
            id -= 1;
            continue;
        };
        runs_left -= 1;
        let (guard, count) = release_run(heap, arena, taken);
        heap = guard;
        released += count;
        if count == 0 {
            // The kernel refuses (locked memory), or the run is less than a page of the system:
            // what is left of this arena would meet the same.
            id -= 1;
        }
    }
    released
}

/// Releases a run that was just taken out of an arena, and puts it back; how many of its pages went. Zero if
/// the kernel refuses. The lock is given up meanwhile.
fn release_run(mut heap: HeapGuard, arena: &'static Arena, taken: Taken) -> (HeapGuard, usize) {
    heap.took(arena, taken);
    drop(heap);
    let (first, count) = whole_system_pages(taken);
    let bytes = count as usize * PAGE_BYTES;
    let lazily = config::releases_lazily();
    // SAFETY: the range lies in the run that was just taken out, so it is ours and empty; its
    // ends are multiples of the system's page size, as arenas are.
    let release = || unsafe { sys::release(arena.page_start(first), bytes, lazily) };
    // Some of the pages may be released already.
    let dirty_bytes = bytes.min((taken.count - taken.released) as usize * PAGE_BYTES);
    let gone = count > 0 && backed::releasing(dirty_bytes, release);
    if gone {
        if lazily {
            HAS_DIRTY_RELEASED.store(true, Relaxed);
        }
        huge_pages::after_release(arena, first, count);
        secure::pages_are_released(arena, first, count);
    }
    let mut heap = HEAP.lock();
    if !gone {
        heap.free(arena, taken.first, taken.count, false);
        return (heap, 0);
    }
    heap.free(arena, first, count, true);
    heap.free_edges(arena, taken, first, count);
    (heap, count as usize)
}

impl Heap {
    /// Gives back what of a run lies outside the part that was released.
    fn free_edges(&mut self, arena: &'static Arena, run: Taken, first: u32, count: u32) {
        let (end, run_end) = (first + count, run.first + run.count);
        if first > run.first {
            self.free(arena, run.first, first - run.first, false);
        }
        if run_end > end {
            self.free(arena, end, run_end - end, false);
        }
    }
}

/// The part of a run that consists of whole pages of the system.
fn whole_system_pages(run: Taken) -> (u32, u32) {
    let unit = (sys::page_bytes() / PAGE_BYTES).max(1) as u32;
    let first = run.first.next_multiple_of(unit);
    let end = (run.first + run.count) / unit * unit;
    (first, end.saturating_sub(first))
}
