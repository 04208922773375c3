//! Where transparent huge pages are asked for.
//!
//! A huge page makes the memory of a large heap faster to fill and to reach, but it is backed as a whole:
//! small heaps do without ([`FROM_PAGES`]). When a part of one goes back to the system, the kernel would
//! fill the hole again, at the next fault or by its own thread (khugepaged), so the block is marked as
//! one for small pages, until all of it is free and released.
//!
//! Nor is each huge page to be had at a good price: the kernel may have to move memory for it, and where it is the guest of
//! a host that takes free memory back, a huge page takes 8.5 ms, 512 small ones 1 ms, as those are mostly of memory that
//! others have just given up. So where a fresh span is the first in a huge page, and gets its memory at once, that is timed,
//! and after a slow one the process asks for no more ([`SLOW_NS`]).

#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::Run;
use crate::arena::{Arena, HUGE_PAGE_BYTES};
use crate::base::PAGE_BYTES;
use crate::config::{self, HugePages};
use crate::mspan::MSpan;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sys;

/// Committed pages from which on the heap asks for transparent huge pages as it grows: 32 MiB. A huge
/// page for a few kilobytes would be most of a small program's memory; beyond, they took
/// 1 M slots from 84 to 78 ns an operation and 16 threads in the style of mstress from 153 to 142,
/// for 2 to 7 MiB of RSS.
const FROM_PAGES: usize = 4096;
/// CPU time of the first touch of a huge page from which on small ones are cheaper: 512 of them take 0.3 to 1 ms, and a
/// huge one 0.1 to 0.6 ms if there is nothing but to clear it.
const SLOW_NS: u64 = 2_000_000;

/// Whether one was slow. **Any thread; atomic.** Never unset.
static ARE_SLOW: AtomicBool = AtomicBool::new(false);

/// Heap pages of a huge page.
pub(super) const HUGE_PAGE_PAGES: u32 = (HUGE_PAGE_BYTES / PAGE_BYTES) as u32;

/// Whether huge pages are asked for where they are worth it.
fn are_wanted() -> bool {
    match config::huge_pages() {
        HugePages::Auto => !ARE_SLOW.load(Relaxed),
        HugePages::Always => true,
        HugePages::Never => false,
    }
}

/// Asks for huge pages where the heap grows: in pages committed just now, besides `committed` ones.
pub(super) fn advise_growth(arena: &Arena, first: u32, count: u32, committed: usize) {
    let wanted = match config::huge_pages() {
        HugePages::Auto => committed >= FROM_PAGES && are_wanted(),
        HugePages::Always => true,
        HugePages::Never => {
            // SAFETY: pages of the arena, committed.
            unsafe { sys::advise_small_pages(arena.page_start(first), bytes_of(count)) };
            false
        }
    };
    if wanted {
        // SAFETY: as above.
        unsafe { sys::advise_huge_pages(arena.page_start(first), bytes_of(count)) };
        arena.huge_blocks.fetch_or(blocks(first, count), Relaxed);
    }
}

/// Asks for what was chosen for all memory, in the new mapping of a huge object. Else it has what the system gives: it may
/// be used sparsely.
pub(crate) fn advise_new(object: &MSpan) {
    match config::huge_pages() {
        HugePages::Auto => {}
        HugePages::Always => advise(object, true),
        HugePages::Never => advise(object, false),
    }
}

/// Asks for huge pages in a huge object that grew. It has been filled so far, and will be.
pub(crate) fn advise_grown(object: &MSpan) {
    if are_wanted() {
        advise(object, true);
    }
}

/// Asks for small pages in a zeroed huge object, which may be used sparsely, if its mapping is one that was kept of
/// another, for which huge ones were asked.
pub(crate) fn advise_zeroed(object: &MSpan) {
    if object.wants_huge_pages() && config::huge_pages() == HugePages::Auto {
        advise(object, false);
    }
}

/// Asks for huge or for small pages in all of a huge object's mapping: one with parts of both kinds would be two to the
/// kernel, which moves one at a time.
fn advise(object: &MSpan, huge: bool) {
    object.set_wants_huge_pages(huge);
    let Some(base) = NonNull::new(object.base()) else {
        return;
    };
    // SAFETY: a huge object's span is whole system pages of a mapping of ours, whose owner calls.
    unsafe {
        if huge {
            sys::advise_huge_pages(base, object.bytes());
        } else {
            sys::advise_small_pages(base, object.bytes());
        }
    }
}

/// Does what touches the pages of a fresh run for the first time. If they are the first of a huge page, it is timed.
pub(super) fn touching(run: &Run, touch: impl FnOnce()) {
    let place = run.first % HUGE_PAGE_PAGES;
    let is_first = place == 0 || place + run.count > HUGE_PAGE_PAGES;
    // Relaxed: a note.
    let block = blocks(run.first + run.count - 1, 1);
    if !is_first || run.arena.huge_blocks.load(Relaxed) & block == 0 || !are_wanted() {
        return touch();
    }
    let start_ns = sys::thread_cpu_ns();
    touch();
    if sys::thread_cpu_ns().saturating_sub(start_ns) > SLOW_NS {
        ARE_SLOW.store(true, Relaxed);
    }
}

/// Released pages: whole blocks may be huge again, parts of others must not become so.
pub(super) fn after_release(arena: &Arena, first: u32, count: u32) {
    let end = first + count;
    let whole_first = first.next_multiple_of(HUGE_PAGE_PAGES);
    let whole_end = end / HUGE_PAGE_PAGES * HUGE_PAGE_PAGES;
    if whole_first >= whole_end {
        return break_blocks(arena, first, count);
    }
    break_blocks(arena, first, whole_first - first);
    break_blocks(arena, whole_end, end - whole_end);
    restore_blocks(arena, whole_first, whole_end - whole_first);
}

/// Released bytes inside a span.
pub(crate) fn after_release_in_span(start: NonNull<u8>, bytes: usize) {
    if let Some((arena, first)) = Arena::containing(start.as_ptr()) {
        break_blocks(arena, first, bytes.div_ceil(PAGE_BYTES) as u32);
    }
}

/// Asks for small pages in the blocks of these pages that are huge.
fn break_blocks(arena: &Arena, first: u32, count: u32) {
    let mask = blocks(first, count);
    // Relaxed: the mask is a note; advice in the wrong order costs time or memory, no more.
    if arena.huge_blocks.load(Relaxed) & mask == 0 {
        return;
    }
    let broken = arena.huge_blocks.fetch_and(!mask, Relaxed) & mask;
    arena.broken_blocks.fetch_or(broken, Relaxed);
    each_block(broken, |block| {
        let first = block * HUGE_PAGE_PAGES;
        // A small arena may end before its last block does.
        let count = HUGE_PAGE_PAGES.min(arena.limit_pages - first);
        // SAFETY: pages of the arena, which it has reserved.
        unsafe { sys::advise_small_pages(arena.page_start(first), bytes_of(count)) };
    });
}

/// Asks for huge pages in the blocks of these pages, if they were broken.
fn restore_blocks(arena: &Arena, first: u32, count: u32) {
    let mask = blocks(first, count);
    if arena.broken_blocks.load(Relaxed) & mask == 0 || !are_wanted() {
        return;
    }
    let broken = arena.broken_blocks.fetch_and(!mask, Relaxed) & mask;
    arena.huge_blocks.fetch_or(broken, Relaxed);
    each_block(broken, |block| {
        let start = arena.page_start(block * HUGE_PAGE_PAGES);
        // SAFETY: a block of the arena, committed, as it was just released.
        unsafe { sys::advise_huge_pages(start, HUGE_PAGE_BYTES) };
    });
}

fn each_block(mut mask: u32, mut visit: impl FnMut(u32)) {
    while mask != 0 {
        visit(mask.trailing_zeros());
        mask &= mask - 1;
    }
}

/// The blocks that these pages lie in.
fn blocks(first: u32, count: u32) -> u32 {
    if count == 0 {
        return 0;
    }
    let (low, high) = (
        first / HUGE_PAGE_PAGES,
        (first + count - 1) / HUGE_PAGE_PAGES,
    );
    (u32::MAX << low) & (u32::MAX >> (u32::BITS - 1 - high))
}

fn bytes_of(pages: u32) -> usize {
    pages as usize * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;
    use crate::large;
    use crate::mheap::{HEAP, alloc_run};

    /// Blocks for which huge pages have been asked for, when the heap has grown by 64 MiB.
    fn huge_blocks_of_a_larger_heap() -> u32 {
        for _ in 0..64 {
            assert!(!large::alloc(1 << 20, 16, false).is_null());
        }
        let heap = HEAP.lock();
        let arenas = heap.arenas.iter().flatten();
        arenas
            .map(|arena| arena.huge_blocks.load(Relaxed).count_ones())
            .sum()
    }

    #[test]
    fn no_more_are_asked_for_after_a_slow_one() {
        alone(|| {
            let blocks = huge_blocks_of_a_larger_heap();
            assert!(blocks >= 8 && are_wanted(), "{blocks}");
            let is_huge = |run: &Run| run.arena.huge_blocks.load(Relaxed) != 0;
            let runs = (0..100).map(|_| alloc_run(HUGE_PAGE_PAGES, 1).unwrap());
            let run = runs.into_iter().find(is_huge).unwrap();
            touching(&run, || {});
            assert!(are_wanted());
            touching(&run, || {
                let start_ns = sys::thread_cpu_ns();
                while sys::thread_cpu_ns() < start_ns + 2 * SLOW_NS {}
            });
            assert!(!are_wanted());
            let blocks = huge_blocks_of_a_larger_heap();
            huge_blocks_of_a_larger_heap();
            assert_eq!(huge_blocks_of_a_larger_heap(), blocks);
        });
    }

    #[test]
    fn pages_lie_in_their_blocks() {
        assert_eq!(blocks(0, 0), 0);
        assert_eq!(blocks(0, 1), 1);
        assert_eq!(blocks(255, 2), 0b11);
        assert_eq!(blocks(256, 256), 0b10);
        assert_eq!(blocks(8191, 1), 1 << 31);
        assert_eq!(blocks(0, 8192), u32::MAX);
    }
}
