//! How the heap grows: by pages that an arena has reserved, and by arenas.
//!
//! A range is claimed under the heap's lock, committed without it, and becomes free pages under it again: the system
//! calls take microseconds, or until another thread's page faults are done. Threads that need pages at the same time
//! claim a range each. The child of a `fork` in the middle of it is without the range: address space, no more.

#![allow(unsafe_code)]

use super::{HEAP, Heap, HeapGuard, huge_pages};
use crate::arena::Arena;
use crate::base::PAGE_BYTES;
use crate::pages::{CHUNK_PAGES, MAX_ARENAS};
use crate::sys;

/// Pages of an arena that are to be committed, and are claimed by one thread: nobody else has them, nor are they free.
pub(super) struct Growth {
    arena: &'static Arena,
    first: u32,
    /// Whole chunks: a chunk (4 MiB) keeps system calls rare and costs no memory before it is touched.
    end: u32,
    /// What is needed, for where the system refuses more.
    needed_end: u32,
    /// Pages that the heap had committed before.
    committed_before: usize,
}

impl Heap {
    /// Claims pages for a run of `needed` pages: all that it lacks, or the rest of the last arena, which is for smaller
    /// runs from here on; then another claim gets the next arena. `None` if the system has no address space.
    pub(super) fn claim(&mut self, needed: u32) -> Option<Growth> {
        if let Some(arena) = self
            .count
            .checked_sub(1)
            .and_then(|last| self.arenas[last as usize])
        {
            // SAFETY: `self` is reached through the lock only.
            let committed = unsafe { arena.committed() };
            let tail = committed.pages.trailing_free(committed.committed_pages);
            let missing = needed.saturating_sub(tail);
            let rest = arena.limit_pages - committed.committed_pages;
            if rest > 0 {
                return Some(self.claim_of(arena, missing.min(rest)));
            }
        }
        let arena = self.add_arena(needed)?;
        Some(self.claim_of(arena, needed))
    }

    /// Reserves a further arena, of at least `needed` pages.
    fn add_arena(&mut self, needed: u32) -> Option<&'static Arena> {
        let id = self.count;
        if id as usize == MAX_ARENAS {
            return None;
        }
        let arena = Arena::reserve(id, needed)?;
        self.arenas[id as usize] = Some(arena);
        self.count += 1;
        self.reserved_pages += arena.limit_pages as usize;
        Some(arena)
    }

    /// Claims at least `count` further pages of an arena, which has as many.
    pub(super) fn claim_of(&mut self, arena: &'static Arena, count: u32) -> Growth {
        // SAFETY: `self` is reached through the lock only.
        let committed = unsafe { arena.committed() };
        let first = committed.committed_pages;
        let system_pages = (sys::page_bytes() / PAGE_BYTES).max(1) as u32;
        let up_to = |unit| {
            (first + count)
                .next_multiple_of(unit)
                .min(arena.limit_pages)
        };
        committed.committed_pages = up_to(CHUNK_PAGES);
        Growth {
            arena,
            first,
            end: committed.committed_pages,
            needed_end: up_to(system_pages),
            committed_before: self.committed_pages,
        }
    }
}

impl Growth {
    /// Commits the pages, which become free. `None` if the system refuses. The lock is given up meanwhile.
    pub(super) fn commit(self, heap: HeapGuard) -> Option<HeapGuard> {
        drop(heap);
        let ends = [self.end, self.needed_end];
        let end = ends.into_iter().find(|end| self.commit_up_to(*end));
        let mut heap = HEAP.lock();
        // SAFETY: the lock is held.
        let committed = unsafe { self.arena.committed() };
        // What was refused is there for the next claim, unless there was one behind it.
        if committed.committed_pages == self.end {
            committed.committed_pages = end.unwrap_or(self.first);
        }
        let count = end? - self.first;
        committed.pages.grow(self.first, count);
        heap.committed_pages += count as usize;
        heap.free_pages += count as usize;
        heap.reindex(self.arena);
        Some(heap)
    }

    fn commit_up_to(&self, end: u32) -> bool {
        let bytes = (end - self.first) as usize * PAGE_BYTES;
        let start = self.arena.page_start(self.first);
        // SAFETY: the range is the arena's own, claimed and not committed yet; its ends are multiples of the system's
        // page size, because every end so far is.
        let is_committed = unsafe { sys::commit(start, bytes) };
        if is_committed {
            // SAFETY: as above; what is only reserved has no place in core dumps.
            unsafe { sys::set_dumped(start, bytes, true) };
            let count = end - self.first;
            huge_pages::advise_growth(self.arena, self.first, count, self.committed_before);
        }
        is_committed
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::alone::alone;

    #[test]
    fn the_second_of_two_growths_may_be_done_first() {
        alone(|| {
            let mut heap = HEAP.lock();
            let before = heap.tally();
            let growths = [(); 2].map(|()| heap.claim(CHUNK_PAGES).unwrap());
            let [first, second] = growths;
            assert!(first.end <= second.first);
            let mut heap = second.commit(heap).unwrap();
            let run = heap.alloc(CHUNK_PAGES, 1).unwrap();
            let tally = heap.tally();
            assert!(tally.free - tally.dirty >= tally.fresh, "{tally:?}");
            let heap = first.commit(heap).unwrap();
            let after = heap.tally();
            assert!(after.committed >= before.committed + 2 * CHUNK_PAGES as usize);
            assert_eq!(after.free, after.committed - CHUNK_PAGES as usize);
            drop(heap);
            crate::mheap::free_run(run);
        });
    }
}
