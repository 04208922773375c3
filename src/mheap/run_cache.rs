//! Free runs kept for reuse, by page count, in front of the heap's lock.
//!
//! A span or large object that goes away is often followed by one of as many pages. Each shard keeps
//! a few runs for each page count, found again in constant time and without the heap's lock; this
//! took large objects of 32 to 256 KiB from 3,590 to 679 instructions. The pages of a large object
//! stay with its span, marked as free: the next large object of as many pages has nothing to fill in. Large
//! objects come from here, and go here, if their thread's mcache has none, or no room.
//! What does not fit goes to the heap, where it coalesces.
//!
//! Invariants:
//!
//! 1. `cached_pages` is the sum over the bins, at most [`CACHED_PAGES_MAX`].
//! 2. Bit `n - 1` of `occupied` is set exactly if the bin of runs of `n` pages is not empty.
//! 3. A span in a bin is marked as free, and the page table has it for all its pages.

#![allow(unsafe_code)]

use crossbeam_utils::CachePadded;

use super::{Run, alloc_run, free_run, spans};
use crate::arena::Arena;
use crate::base::PAGE_BYTES;
use crate::counters::PageObjects;
use crate::mspan::MSpan;
use crate::pages::ARENA_PAGES;
use crate::secure;
use crate::shards::{MAX_SHARDS, shard_count, shard_here};
use crate::sync::Mutex;
#[cfg(feature = "lock-stats")]
use crate::sync::usage::LockUse;

/// Longest run kept, in pages: 512 KiB.
pub(crate) const RUN_PAGES_MAX: usize = 64;
/// A large object may have more pages than it wants by one part of so many: the lengths of free runs are as
/// spread as those that are asked for.
const SLACK_DIVISOR: u32 = 4;
/// Runs kept of one length.
const RUNS_A_BIN: usize = 16;
/// Pages kept in a shard: 1 MiB. A bound on memory: these pages are backed and can't coalesce.
const CACHED_PAGES_MAX: u32 = 128;

/// Runs of one length, most recent last.
#[derive(Clone, Copy)]
struct Bin {
    len: u32,
    runs: [Kept; RUNS_A_BIN],
}

/// A run in a bin: a span, or pages of an arena. All-zero bytes are none of both, so that the shards, which are
/// empty at the start, take no room in the program's file.
#[derive(Clone, Copy)]
struct Kept {
    span: Option<&'static MSpan>,
    arena: Option<&'static Arena>,
    first: u32,
    fresh: bool,
}

/// A run that is free.
#[derive(Clone, Copy)]
pub(crate) enum FreeRun {
    /// Pages alone.
    Pages(Run),
    /// Pages with the span of the large object that they were.
    Span(&'static MSpan),
}

struct Bins {
    cached_pages: u32,
    /// Bins that are not empty, one bit each.
    occupied: u64,
    /// Fewest pages that were cached since [`shrink`].
    least_pages: u32,
    /// Large objects that came by here.
    large: PageObjects,
    bins: [Bin; RUN_PAGES_MAX],
}

const EMPTY: Bins = Bins {
    cached_pages: 0,
    occupied: 0,
    least_pages: 0,
    large: PageObjects::NONE,
    bins: [Bin {
        len: 0,
        runs: [Kept::NONE; RUNS_A_BIN],
    }; RUN_PAGES_MAX],
};

static SHARDS: [CachePadded<Mutex<Bins>>; MAX_SHARDS] =
    [const { CachePadded::new(Mutex::new(EMPTY)) }; MAX_SHARDS];

/// Takes `count` pages (below [`ARENA_PAGES`]), from the cache of a shard or the heap. `None` if the system has
/// no memory.
pub(crate) fn take(count: u32, shard: usize) -> Option<Run> {
    debug_assert!(count > 0 && count < ARENA_PAGES);
    if count as usize <= RUN_PAGES_MAX {
        let cached = SHARDS[shard % MAX_SHARDS].lock().pop(count); // The guard ends here.
        if let Some(run) = cached.and_then(FreeRun::into_pages) {
            return Some(run);
        }
    }
    alloc_run(count, 1)
}

/// As [`take`], for a large object of [`is_cached`] pages; a quarter more at most. One that has its span still is
/// counted here: its pages leave the cache in the same step.
pub(crate) fn take_large(count: u32) -> Option<FreeRun> {
    let mut bins = SHARDS[shard_here()].lock();
    let cached = bins.pop_for_large(count);
    if let Some(FreeRun::Span(span)) = cached {
        bins.large.allocations += 1;
        bins.large.allocated_bytes += span.bytes() as u64;
    }
    drop(bins);
    cached.or_else(|| alloc_run(count, 1).map(FreeRun::Pages))
}

/// Whether runs of as many pages are cached.
pub(crate) fn is_cached(count: u32) -> bool {
    count as usize <= RUN_PAGES_MAX
}

/// Gives a run back, to the cache of a shard or the heap.
pub(crate) fn put(run: Run, shard: usize) {
    if is_cached(run.count) {
        let mut bins = SHARDS[shard % MAX_SHARDS].lock();
        if bins.push(run.count, FreeRun::Pages(run)) {
            return;
        }
    }
    free_run(run);
}

/// Gives the pages of a large object of [`is_cached`] pages back, and counts it.
pub(crate) fn put_large(span: &'static MSpan) {
    let count = span.pages();
    let mut bins = SHARDS[shard_here()].lock();
    bins.large.frees += 1;
    bins.large.freed_bytes += u64::from(count) * PAGE_BYTES as u64;
    span.set_free(true);
    if bins.push(count, FreeRun::Span(span)) {
        return;
    }
    drop(bins);
    give_to_heap(span);
}

/// The same of one that an mcache kept, which has counted it, and marked it as free.
pub(crate) fn put_span(span: &'static MSpan) {
    let mut bins = SHARDS[shard_here()].lock();
    if bins.push(span.pages(), FreeRun::Span(span)) {
        return;
    }
    drop(bins);
    give_to_heap(span);
}

fn give_to_heap(span: &'static MSpan) {
    if let Some(run) = FreeRun::Span(span).into_pages() {
        free_run(run);
    }
}

/// Gives all cached runs to the heap; their pages.
pub(crate) fn drain() -> usize {
    let mut pages = 0;
    for shard in &SHARDS[..shard_count()] {
        for count in 1..=RUN_PAGES_MAX as u32 {
            loop {
                let run = shard.lock().pop(count); // The guard ends here: the heap locks next.
                let Some(run) = run else { break };
                if let Some(run) = run.into_pages() {
                    free_run(run);
                    pages += count as usize;
                }
            }
        }
    }
    pages
}

/// Gives the heap as many pages as no one needed since the last call, longest runs first.
pub(crate) fn shrink() {
    for shard in &SHARDS[..shard_count()] {
        let bins = shard.lock();
        let mut idle = bins.least_pages;
        drop(bins);
        for count in (1..=RUN_PAGES_MAX as u32).rev() {
            while count <= idle {
                let run = shard.lock().pop(count); // The guard ends here: the heap locks next.
                let Some(run) = run else { break };
                idle -= count;
                if let Some(run) = run.into_pages() {
                    free_run(run);
                }
            }
        }
        let mut bins = shard.lock();
        bins.least_pages = bins.cached_pages;
    }
}

/// Pages in all caches, and large objects that came by here.
///
/// # Safety
/// The caller holds all locks of this file ([`lock_for_fork`]).
pub(crate) unsafe fn tally() -> (usize, PageObjects) {
    let mut sum = (0, PageObjects::NONE);
    for shard in &SHARDS[..shard_count()] {
        // SAFETY: the caller's promise; the reference ends with the round.
        let bins = unsafe { shard.value_for_fork() };
        sum.0 += bins.cached_pages as usize;
        sum.1 = sum.1.and(bins.large);
    }
    sum
}

/// Most pages that an object gets which wants `pages`.
pub(crate) fn pages_at_most(pages: u32) -> u32 {
    (pages + pages / SLACK_DIVISOR).min(RUN_PAGES_MAX as u32)
}

/// The bins of runs of `from` to `to` pages, one bit each.
pub(crate) fn lists(from: u32, to: u32) -> u64 {
    (u64::MAX << (from - 1)) & (u64::MAX >> (RUN_PAGES_MAX as u32 - to))
}

impl Kept {
    const NONE: Self = Self {
        span: None,
        arena: None,
        first: 0,
        fresh: false,
    };

    fn new(run: FreeRun) -> Self {
        match run {
            FreeRun::Span(span) => Self {
                span: Some(span),
                ..Self::NONE
            },
            FreeRun::Pages(run) => Self {
                arena: Some(run.arena),
                first: run.first,
                fresh: run.fresh,
                ..Self::NONE
            },
        }
    }

    /// The run, which has so many pages.
    fn get(self, count: u32) -> Option<FreeRun> {
        if let Some(span) = self.span {
            return Some(FreeRun::Span(span));
        }
        Some(FreeRun::Pages(Run {
            arena: self.arena?,
            first: self.first,
            count,
            fresh: self.fresh,
        }))
    }
}

impl FreeRun {
    /// The pages alone. Without a lock of this floor or one above it.
    fn into_pages(self) -> Option<Run> {
        match self {
            Self::Pages(run) => Some(run),
            Self::Span(span) => {
                span.set_free(false);
                secure::span_ends(span);
                spans::into_run(span)
            }
        }
    }
}

impl Bins {
    /// The shortest run that a large object of `count` pages may have.
    fn pop_for_large(&mut self, count: u32) -> Option<FreeRun> {
        let fitting = self.occupied & lists(count, pages_at_most(count));
        self.pop(fitting.trailing_zeros() + 1)
    }

    fn pop(&mut self, count: u32) -> Option<FreeRun> {
        let bin = self.bins.get_mut(count as usize - 1)?;
        let last = bin.len.checked_sub(1)?;
        let run = bin.runs.get(last as usize)?.get(count);
        bin.len = last;
        if last == 0 {
            self.occupied &= !lists(count, count);
        }
        self.cached_pages -= count;
        self.least_pages = self.least_pages.min(self.cached_pages);
        run
    }

    fn push(&mut self, count: u32, run: FreeRun) -> bool {
        let Some(bin) = self.bins.get_mut(count as usize - 1) else {
            return false;
        };
        let Some(slot) = bin.runs.get_mut(bin.len as usize) else {
            return false;
        };
        if self.cached_pages + count > CACHED_PAGES_MAX {
            return false;
        }
        *slot = Kept::new(run);
        bin.len += 1;
        self.occupied |= lists(count, count);
        self.cached_pages += count;
        true
    }
}

/// The use of the locks of this floor.
#[cfg(feature = "lock-stats")]
pub(crate) fn lock_uses(each: &mut impl FnMut(LockUse)) {
    for (cpu, shard) in SHARDS[..shard_count()].iter().enumerate() {
        each(LockUse::of("run cache", 0, Some(cpu), shard.usage()));
    }
}

/// Whether all locks of this file come free in time, so that the calling thread does not hold one: see
/// [`Mutex::comes_free`].
pub(crate) fn locks_come_free(deadline_ns: u64) -> bool {
    let mut shards = SHARDS[..shard_count()].iter();
    shards.all(|shard| shard.comes_free(deadline_ns))
}

/// For `fork`: all locks of this file, in order.
pub(crate) fn lock_for_fork() {
    for shard in &SHARDS[..shard_count()] {
        shard.lock_for_fork();
    }
}

/// For `fork`: gives all locks of this file back.
///
/// # Safety
/// As for [`Mutex::unlock_after_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    for shard in &SHARDS[..shard_count()] {
        // SAFETY: the caller's contract.
        unsafe { shard.unlock_after_fork() };
    }
}
