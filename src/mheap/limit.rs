//! The memory limit, in the page heap: free pages go back before others come to use.
//!
//! Near the limit a run is made of pages that are backed already, if there is such a one. Else as many
//! pages are released as the run brings: it is not touched yet, so the two are never there together.
//! With a soft limit this takes half of a CPU at most (Go: half of the program's), the page faults to come
//! included; beyond that the heap grows. With a hard one it takes what it takes, and what does not fit is
//! refused.

use super::release::release_down_to;
use super::{HEAP, Heap, HeapGuard, Run, huge};
use crate::base::PAGE_BYTES;
use crate::{backed, config, sys};

use super::RELEASE_PAGES;

/// One part of so many of the time may be spent.
pub(super) const SHARE_DIVISOR: u64 = 2;
/// What the faults cost that bring a page back, about as measured: 1.5 us for two pages of 4 KiB.
const FAULTS_NS: u64 = 1500;
/// Fewest pages that one system call is to release, if there are as many: 256 KiB.
const RELEASE_PAGES_MIN: u32 = 32;

/// Whether a run that was just taken may be used; if not, it is free again.
pub(super) fn fits(heap: HeapGuard, run: &Run) -> bool {
    if backed::above_limit(0) == 0 || release(heap) {
        return true;
    }
    HEAP.lock().free(run.arena, run.first, run.count, run.fresh);
    // If it was not all fresh, its pages count as backed now.
    release(HEAP.lock());
    false
}

/// Room for memory beside the heap, counted as backed; no more when this is dropped, unless it is kept.
pub(crate) struct Room(usize);

impl Room {
    /// The memory is there.
    pub(crate) fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        backed::sub(self.0);
    }
}

/// Makes room for memory beside the heap; `None` if it is refused. Of several threads at a time each sees what
/// the others ask for.
pub(crate) fn make_room(bytes: usize) -> Option<Room> {
    backed::add(bytes);
    let room = Room(bytes);
    (backed::above_limit(0) == 0 || release(HEAP.lock())).then_some(room)
}

/// Takes a run of which as much as possible is backed already, if there is time to look for it.
pub(super) fn alloc_backed(heap: &mut Heap, count: u32) -> Option<Run> {
    let start_ns = sys::now_ns();
    heap.limit_pace.earn(start_ns);
    if !heap.limit_pace.has_time() {
        return None;
    }
    let run = heap.alloc_backed(count);
    heap.limit_pace.spend(sys::now_ns() - start_ns);
    run
}

/// Releases free pages until what is backed is below the limit, if that can be had. False if it is refused.
fn release(mut heap: HeapGuard) -> bool {
    let excess = backed::above_limit(0).div_ceil(PAGE_BYTES);
    // Free mappings of huge objects first: nothing else can use them.
    let (heap_again, mapped) = huge::release(heap, excess);
    heap = heap_again;
    let excess = excess.saturating_sub(mapped);
    let goal = heap.dirty_pages.saturating_sub(excess);
    if heap.dirty_pages > goal {
        let start_ns = sys::now_ns();
        heap.limit_pace.earn(start_ns);
        if config::is_limit_hard() || heap.limit_pace.has_time() {
            let run_pages = (excess as u32).clamp(RELEASE_PAGES_MIN, RELEASE_PAGES);
            let released = release_down_to(heap, goal, u32::MAX, run_pages);
            let spent_ns = sys::now_ns() - start_ns;
            let faults_ns = released as u64 * FAULTS_NS;
            HEAP.lock().limit_pace.spend(spent_ns + faults_ns);
        }
    }
    !backed::is_refused()
}
