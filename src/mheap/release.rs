//! Pages back to the system.
//!
//! Free pages that are still backed by memory are *dirty*. Some are kept, because taking a page from
//! the system costs a fault; what exceeds a bound goes back, highest addresses first, as the heap
//! allocates lowest first, and whole huge pages before parts of them. Pages are taken out under the
//! lock, released without it, and put back.

use super::{HEAP, Heap, HeapGuard};
use crate::base::PAGE_BYTES;
use crate::pages::Taken;
use crate::sys;

/// Dirty pages that the heap keeps in any case: 64 MiB. With half of that, 16 threads in the style of
/// mstress spent 12 % of their time in page faults and in telling other CPUs of released pages.
const DIRTY_KEPT_PAGES: usize = (64 << 20) / PAGE_BYTES;
/// Beyond that it keeps one dirty page for so many pages in use.
const DIRTY_KEPT_DIVISOR: usize = 4;
/// Pages released by one system call: 4 MiB, so that no call keeps its caller for long.
const RELEASE_PAGES: u32 = 512;
/// Heap pages of a huge page of 2 MiB.
const HUGE_PAGE_PAGES: u32 = ((2 << 20) / PAGE_BYTES) as u32;

/// Releases dirty pages if there are more than the bound, down to half of it. Takes the guard,
/// since the lock is given up while the system works.
pub(crate) fn release_excess(heap: HeapGuard) {
    let in_use = heap.committed_pages - heap.free_pages;
    let bound = DIRTY_KEPT_PAGES.max(in_use / DIRTY_KEPT_DIVISOR);
    if heap.dirty_pages > bound {
        let _ = release_down_to(heap, bound / 2);
    }
}

/// Releases all dirty pages of the heap; their bytes.
pub(crate) fn release_all() -> usize {
    release_down_to(HEAP.lock(), 0) * PAGE_BYTES
}

/// Releases dirty pages until at most `goal` are left; how many went.
fn release_down_to(mut heap: HeapGuard, goal: usize) -> usize {
    let mut released = 0;
    let mut id = heap.count as usize;
    while id > 0 && heap.dirty_pages > goal {
        let Some(arena) = heap.arenas[id - 1] else {
            break;
        };
        // SAFETY: the lock is held.
        let pages = &mut unsafe { arena.committed() }.pages;
        let Some(taken) = pages.take_releasable(RELEASE_PAGES, HUGE_PAGE_PAGES) else {
            id -= 1;
            continue;
        };
        heap.took(arena, taken);
        drop(heap);
        let (first, count) = whole_system_pages(taken);
        let bytes = count as usize * PAGE_BYTES;
        // SAFETY: the range lies in the run that was just taken out, so it is ours and empty; its
        // ends are multiples of the system's page size, as arenas are.
        let gone = count > 0 && unsafe { sys::release(arena.page_start(first), bytes) };
        heap = HEAP.lock();
        if gone {
            heap.free(arena, first, count, true);
            released += count as usize;
            heap.free_edges(arena, taken, first, count);
        } else {
            // The kernel refuses (locked memory), or the run is less than a page of the system:
            // what is left of this arena would meet the same.
            heap.free(arena, taken.first, taken.count, false);
            id -= 1;
        }
    }
    released
}

impl Heap {
    /// Gives back what of a run lies outside the part that was released.
    fn free_edges(
        &mut self,
        arena: &'static crate::arena::Arena,
        run: Taken,
        first: u32,
        count: u32,
    ) {
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
