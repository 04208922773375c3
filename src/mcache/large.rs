//! Free large objects that a thread keeps for itself, by page count.
//!
//! A large object that was freed waits with its span, marked as free, for the thread's next one of about as
//! many pages: neither a lock nor an atomic read-modify-write, and nothing of the pages is touched. One may get
//! up to a quarter more pages than it wants, since sizes are spread: with exact counts, half of the
//! random requests in 64 objects of 32 to 256 KiB found nothing, and with a quarter more, a twentieth.
//!
//! What a cache may hold doubles as it overflows, up to [`PAGES_MAX`], and is paid for from the
//! magazines' [`budget`]. What has no room goes to the run cache of the CPU, from each page count in
//! turn, so that sizes that are not wanted any more do not stay.
//!
//! Invariants:
//!
//! 1. The list at `bins[n - 1]` has spans of `n` pages, linked by their `next`, that are marked as free
//!    and that nobody else has; bit `n - 1` of `occupied` is set exactly if it is not empty.
//! 2. `pages` is the sum of their pages, at most `capacity`, which is paid for.

#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr::NonNull;

use super::{MCache, budget};
use crate::base::PAGE_BYTES;
use crate::counters::calls;
use crate::mheap::run_cache::{self, RUN_PAGES_MAX, lists, pages_at_most};
use crate::mspan::MSpan;
use crate::sync::atomic::{
    AtomicU32,
    Ordering::{Relaxed, Release},
    fence,
};

/// Pages that a cache may hold when it comes into use: 512 KiB.
const PAGES_AT_FIRST: u32 = 64;
/// Pages that it may hold in the end: 4 MiB. With 2 MiB, a sixth of those requests found nothing, of which each cost
/// 1,100 instructions more.
const PAGES_MAX: u32 = 512;
/// Of so many allocations of large objects that the thread has kept, one is a slow call: a power of two.
const CALLS_A_SLOW_ONE: u64 = 8;

const _: () =
    assert!(RUN_PAGES_MAX == u64::BITS as usize && PAGES_AT_FIRST as usize >= RUN_PAGES_MAX);

/// **Owner only**, as all of an mcache. All-zero bytes are valid: it holds nothing, and may not.
pub(super) struct LargeCache {
    occupied: Cell<u64>,
    /// **Written by the owner, read by anyone.**
    pages: AtomicU32,
    capacity: Cell<u32>,
    /// The list from which the next object leaves, or the first one behind it that is not empty.
    next_out: Cell<u32>,
    /// The lower half of the frees and allocations, at the last look whether it is idle.
    calls_seen: Cell<u32>,
    bins: [Cell<Option<NonNull<MSpan>>>; RUN_PAGES_MAX],
}

impl LargeCache {
    fn push(&self, span: &'static MSpan) {
        let count = span.pages();
        let bin = &self.bins[(count as usize - 1) % RUN_PAGES_MAX];
        // SAFETY: the span is the cache's, so nobody else looks at this part of it.
        unsafe { span.shared() }.next = bin.replace(Some(NonNull::from(span)));
        self.occupied.set(self.occupied.get() | lists(count, count));
        self.pages.store(self.pages.load(Relaxed) + count, Relaxed);
    }

    /// Takes from the first of these lists that is not empty.
    fn pop(&self, lists: u64) -> Option<&'static MSpan> {
        let index = (self.occupied.get() & lists).trailing_zeros();
        let bin = self.bins.get(index as usize)?;
        // SAFETY: spans are records that live for ever, and this one is the cache's.
        let span = unsafe { bin.get()?.as_ref() };
        // SAFETY: as in `push`.
        let next = unsafe { span.shared() }.next.take();
        bin.set(next);
        // Without a branch: sizes at random would mislead it.
        let emptied = u64::from(next.is_none()) << index;
        self.occupied.set(self.occupied.get() & !emptied);
        self.pages
            .store(self.pages.load(Relaxed) - (index + 1), Relaxed);
        Some(span)
    }

    /// Takes from each list in turn.
    fn pop_next(&self) -> Option<&'static MSpan> {
        let next = self.next_out.get() % RUN_PAGES_MAX as u32;
        let span = self.pop(u64::MAX << next).or_else(|| self.pop(u64::MAX))?;
        self.next_out.set(span.pages());
        Some(span)
    }
}

impl MCache {
    /// A large object of `pages` pages, or of up to a quarter more; still marked as free. It is counted as
    /// allocated.
    #[inline]
    pub(crate) fn take_large(&self, pages: u32) -> Option<&'static MSpan> {
        let span = self.large.pop(lists(pages, pages_at_most(pages)))?;
        // Pairs with the fence in `stats`: who sees it as allocated sees that it was free before.
        fence(Release);
        self.counters.large.allocated(span.bytes());
        calls::live_changed(span.bytes() as i64);
        Some(span)
    }

    /// Whether the next large object may come from here without a slow call: seven of eight times. Programs that have
    /// nothing but large objects make no other slow calls, and the scavenger lives on them.
    #[inline]
    pub(crate) fn takes_large_at_once(&self) -> bool {
        !self
            .counters
            .large
            .allocations()
            .is_multiple_of(CALLS_A_SLOW_ONE)
    }

    /// Keeps a large object that was freed, with its pages; false if it must not. It is counted as freed then.
    pub(crate) fn put_large(&self, span: &'static MSpan) -> bool {
        self.push_large(span) || self.make_room_for_large(span.pages()) && self.push_large(span)
    }

    /// As [`Self::put_large`], but false if something has to leave for it.
    #[inline]
    pub(crate) fn push_large(&self, span: &'static MSpan) -> bool {
        if self.large.pages.load(Relaxed) + span.pages() > self.large.capacity.get() {
            return false;
        }
        self.counters.large.freed(span.bytes());
        calls::live_changed(-(span.bytes() as i64));
        span.set_free(true);
        self.large.push(span);
        true
    }

    /// Makes room for a large object: the cache grows, or others leave. False if it must not hold any.
    #[cold]
    fn make_room_for_large(&self, pages: u32) -> bool {
        let capacity = self.large.capacity.get();
        let grown = (capacity * 2).clamp(PAGES_AT_FIRST, PAGES_MAX);
        if grown > capacity && budget::take((grown - capacity) as usize * PAGE_BYTES) {
            self.large.capacity.set(grown);
        }
        while self.large.pages.load(Relaxed) + pages > self.large.capacity.get() {
            let Some(span) = self.large.pop_next() else {
                return false;
            };
            run_cache::put_span(span);
        }
        true
    }

    /// Gives all large objects of the cache to the run cache, and what it may hold to the budget.
    pub(crate) fn flush_large(&self) {
        while let Some(span) = self.large.pop(u64::MAX) {
            run_cache::put_span(span);
        }
        budget::give(self.large_budget_bytes());
        self.large.capacity.set(0);
    }

    /// The same if the thread neither allocated nor freed one since the last look.
    pub(super) fn flush_large_if_idle(&self) {
        let calls = self.counters.large.calls();
        if self.large.calls_seen.replace(calls) == calls && self.large.capacity.get() > 0 {
            self.flush_large();
        }
    }

    /// Bytes of the budget that the cache of large objects holds.
    pub(super) fn large_budget_bytes(&self) -> usize {
        self.large.capacity.get() as usize * PAGE_BYTES
    }

    /// Pages of the large objects that are free here. Any thread may ask.
    pub(crate) fn large_pages(&self) -> usize {
        self.large.pages.load(Relaxed) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Place, place_of};
    use crate::large;
    use std::vec::Vec;

    /// A large object of this many pages.
    fn span(pages: usize) -> &'static MSpan {
        let object = large::alloc(pages * PAGE_BYTES, 8, false);
        match place_of(object.addr()) {
            Place::Live(span) => span,
            _ => panic!("no object of {pages} pages"),
        }
    }

    /// An mcache that no thread has, so that nobody else empties it.
    fn mcache() -> &'static MCache {
        // SAFETY: mcaches live for ever.
        unsafe { MCache::new().unwrap().as_ref() }
    }

    #[test]
    fn the_next_object_is_the_newest_of_the_fewest_pages_that_are_enough() {
        let mcache = mcache();
        let spans = [20, 24, 22, 22, 30].map(span);
        // A run cache may have had longer ones.
        let pages = spans.map(MSpan::pages);
        for span in spans {
            assert!(mcache.put_large(span) && span.is_free());
        }
        let wanted = 17;
        let fits = |pages: &u32| (wanted..=wanted + wanted / 4).contains(pages);
        let best = pages.iter().copied().filter(fits).min();
        let newest = best.and_then(|best| pages.iter().rposition(|pages| *pages == best));
        let taken = mcache.take_large(wanted);
        assert_eq!(
            taken.map(MSpan::base),
            newest.map(|place| spans[place].base())
        );
        assert!(mcache.take_large(64).is_none(), "half as many are too few");
        assert!(
            mcache.take_large(10).is_none(),
            "twice as many are too many"
        );
        if let Some(span) = taken {
            assert!(mcache.put_large(span));
        }
        let sum: u32 = pages.iter().sum();
        assert_eq!(mcache.large_pages(), sum as usize);
        mcache.flush_large();
        assert_eq!((mcache.large_pages(), mcache.budget_bytes()), (0, 0));
    }

    #[test]
    fn what_is_kept_is_bounded_and_no_size_stays_for_ever() {
        let mcache = mcache();
        let old: Vec<_> = (0..4).map(|_| span(8)).collect();
        assert!(old.iter().all(|span| mcache.put_large(span)));
        for _ in 0..4 {
            let spans: Vec<_> = (0..16).map(|_| span(30)).collect();
            for span in spans {
                assert!(mcache.put_large(span));
                assert!(mcache.large_pages() <= PAGES_MAX as usize);
            }
        }
        assert!(mcache.take_large(8).is_none());
        mcache.flush_large();
    }

    #[test]
    fn an_idle_cache_is_given_up() {
        let mcache = mcache();
        assert!(mcache.put_large(span(10)));
        mcache.flush_large_if_idle();
        assert!(mcache.large_pages() > 0, "used since the last look");
        mcache.flush_large_if_idle();
        assert_eq!(mcache.large_pages(), 0);
    }

    #[test]
    fn an_object_gets_no_more_pages_than_there_are_lists() {
        assert_eq!(pages_at_most(5), 6);
        assert_eq!(pages_at_most(40), 50);
        assert_eq!(pages_at_most(60), 64);
    }
}
