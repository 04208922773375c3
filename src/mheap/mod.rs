//! The page heap: which pages of all arenas are free, and how the heap grows.
//!
//! A request is for a run of pages. Small runs first look into the run cache of this CPU's shard
//! ([`run_cache`]); else the heap's lock is taken and the first arena, in order, that has a run as
//! long gives its lowest one (address-ordered first fit: low addresses stay dense, high ones drain
//! and can be released). Finding it is O(log n) through the tree of maxima in [`RunIndex`] and the
//! summaries in [`pages`](crate::pages); runs never cross arenas. Free runs coalesce because they are bits.
//!
//! Invariants:
//!
//! 1. A committed page is free in its arena's bitmap, in a run cache, held by one span, or just claimed.
//! 2. `index` has the longest free run of each arena.
//! 3. `dirty_pages` is the number of free pages, over all arenas, that are still backed by memory.
//!
//! The lock is never held across a release or a commit of pages: they are taken out, released, and put back, or
//! claimed, committed, and added. It is held across the reservation of an arena.

#![allow(unsafe_code)]

mod growth;
pub(crate) mod huge;
pub(crate) mod huge_pages;
mod limit;
mod release;
pub(crate) mod run_cache;
pub(crate) mod spans;

pub(crate) use limit::{Room, make_room};
pub(crate) use release::{RELEASE_PAGES, release_all, release_pages};

use core::ptr::NonNull;

use huge::Huge;

use crate::arena::{ARENA_BYTES, Arena};
use crate::backed;
use crate::base::PAGE_BYTES;
use crate::base::pace::Pace;
use crate::mspan::MSpan;
use crate::pages::{MAX_ARENAS, RunIndex, Taken};
#[cfg(feature = "lock-stats")]
use crate::sync::usage::LockUse;
use crate::sync::{Guard, Mutex};

/// A run of pages that belongs to its holder.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) arena: &'static Arena,
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Whether all its pages read as zero.
    pub(crate) fresh: bool,
}

impl Run {
    /// The pages of a span; `None` if it is huge.
    pub(crate) fn of(span: &MSpan) -> Option<Self> {
        let (arena, first) = Arena::containing(span.base())?;
        Some(Self {
            arena,
            first,
            count: span.pages(),
            fresh: false,
        })
    }

    /// First byte of the run.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.arena.page_start(self.first)
    }
}

/// All arenas, under the heap's lock.
pub(crate) struct Heap {
    arenas: [Option<&'static Arena>; MAX_ARENAS],
    count: u32,
    index: RunIndex,
    /// Free pages backed by memory.
    dirty_pages: usize,
    /// Free pages.
    free_pages: usize,
    committed_pages: usize,
    reserved_pages: usize,
    /// Pages that were in use once, in each arena up to the highest.
    touched_pages: usize,
    /// Most pages in use since [`usage`] was asked.
    peak_in_use_pages: usize,
    /// Objects with mappings of their own, and free mappings.
    huge: Huge,
    /// Time for releases under a memory limit.
    limit_pace: Pace<{ limit::SHARE_DIVISOR }>,
}

static HEAP: Mutex<Heap> = Mutex::new(Heap {
    arenas: [None; MAX_ARENAS],
    count: 0,
    index: RunIndex::new(),
    dirty_pages: 0,
    free_pages: 0,
    committed_pages: 0,
    reserved_pages: 0,
    touched_pages: 0,
    peak_in_use_pages: 0,
    huge: Huge::NONE,
    limit_pace: Pace::new(),
});

/// What the scavenger looks at, in pages, huge objects included.
pub(crate) struct Usage {
    pub(crate) in_use: usize,
    /// Most that were in use since the last look.
    pub(crate) peak: usize,
    /// Free and backed.
    pub(crate) dirty: usize,
}

/// The pages in use, and what they were since the last call.
pub(crate) fn usage() -> Usage {
    let mut heap = HEAP.lock();
    let in_use = heap.in_use_pages();
    let peak = core::mem::replace(&mut heap.peak_in_use_pages, in_use);
    Usage {
        in_use,
        peak: peak.max(in_use),
        dirty: heap.dirty_pages + heap.huge.free_pages(),
    }
}

/// Page counts of the heap, for statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pages {
    pub(crate) reserved: usize,
    pub(crate) committed: usize,
    pub(crate) free: usize,
    pub(crate) dirty: usize,
    /// Free, and above the highest page of their arena that was ever in use.
    pub(crate) fresh: usize,
    /// In free mappings of huge objects, which are none of the heap's.
    pub(crate) huge_free: usize,
}

/// The heap's counters.
pub(crate) fn pages() -> Pages {
    HEAP.lock().tally()
}

/// The same for who holds the lock already.
///
/// # Safety
/// The caller holds the heap's lock by [`lock_for_fork`].
pub(crate) unsafe fn tally() -> Pages {
    // SAFETY: the caller's promise; the reference ends with the function.
    unsafe { HEAP.value_for_fork() }.tally()
}

/// Takes `count` pages whose start is a multiple of `align_pages` (a power of two). The two together
/// are at most [`ARENA_PAGES`](crate::pages::ARENA_PAGES). `None` if the system has no memory.
pub(crate) fn alloc_run(count: u32, align_pages: u32) -> Option<Run> {
    let mut heap = HEAP.lock();
    let is_tight = align_pages == 1 && backed::above_limit(count as usize * PAGE_BYTES) > 0;
    let backed = is_tight.then(|| limit::alloc_backed(&mut heap, count));
    let mut run = backed.flatten().or_else(|| heap.alloc(count, align_pages));
    let run = loop {
        if let Some(run) = run {
            break run;
        }
        let growth = heap.claim(count + align_pages - 1)?;
        heap = growth.commit(heap)?;
        // Another thread may have taken the pages meanwhile.
        run = heap.alloc(count, align_pages);
    };
    limit::fits(heap, &run).then_some(run)
}

/// Gives a run back. Its pages stay backed, unless free memory is to go at once.
pub(crate) fn free_run(run: Run) {
    let mut heap = HEAP.lock();
    heap.free(run.arena, run.first, run.count, false);
    release::after_free(heap);
}

/// Gives a run back whose memory went back to the system.
#[cfg(feature = "secure")]
pub(crate) fn free_released_run(run: Run) {
    HEAP.lock().free(run.arena, run.first, run.count, true);
}

/// Takes the `extra` pages right behind a run, if they are free or can be committed.
pub(crate) fn extend_run(run: &Run, extra: u32) -> bool {
    let end = run.first + run.count;
    if end + extra > run.arena.limit_pages {
        return false;
    }
    let mut heap = HEAP.lock();
    // SAFETY: the lock is held.
    let committed = unsafe { run.arena.committed() };
    let missing = (end + extra).saturating_sub(committed.committed_pages);
    if missing > 0 {
        let free = committed.committed_pages - end;
        let in_the_way = committed.pages.trailing_free(committed.committed_pages) < free;
        if in_the_way {
            return false;
        }
        let growth = heap.claim_of(run.arena, missing);
        let Some(guard) = growth.commit(heap) else {
            return false;
        };
        heap = guard;
    }
    // SAFETY: the lock is held, and the first reference is not used any more.
    let taken = unsafe { run.arena.committed() }.pages.alloc_at(end, extra);
    let Some(taken) = taken else { return false };
    heap.took(run.arena, taken);
    heap.note_use(run.arena, taken);
    let added = Run {
        first: end,
        count: extra,
        fresh: taken.released == extra,
        ..*run
    };
    limit::fits(heap, &added)
}

impl Heap {
    fn tally(&self) -> Pages {
        Pages {
            reserved: self.reserved_pages,
            committed: self.committed_pages,
            free: self.free_pages,
            dirty: self.dirty_pages,
            // Those that are just released with their neighbours are not free. While one thread commits pages, those
            // behind them may be in use.
            fresh: self
                .committed_pages
                .saturating_sub(self.touched_pages)
                .min(self.free_pages - self.dirty_pages),
            huge_free: self.huge.free_pages(),
        }
    }

    fn alloc(&mut self, count: u32, align_pages: u32) -> Option<Run> {
        // A run of `count + align - 1` pages surely has an aligned one of `count` in it.
        let id = self.index.first_fit(count + align_pages - 1)?;
        let arena = self.arenas[id]?;
        // SAFETY: `self` is reached through the lock only.
        let pages = &mut unsafe { arena.committed() }.pages;
        let taken = if align_pages == 1 {
            pages.alloc(count)?
        } else {
            pages.alloc_aligned(count, align_pages)?
        };
        Some(self.run_of(arena, taken))
    }

    /// As [`Self::alloc`], where the fewest pages are not backed: for when more memory is not to be had. Costs
    /// a step for each free run and each word of the arenas that have a run as long.
    fn alloc_backed(&mut self, count: u32) -> Option<Run> {
        let mut best = None;
        let mut least = count + 1;
        for arena in self.arenas[..self.count as usize].iter().copied().flatten() {
            // SAFETY: `self` is reached through the lock only.
            let pages = &unsafe { arena.committed() }.pages;
            if let Some((first, released)) = pages.least_released(count, least) {
                best = Some((arena, first));
                least = released;
            }
        }
        let (arena, first) = best?;
        // SAFETY: as above.
        let taken = unsafe { arena.committed() }.pages.alloc_at(first, count)?;
        Some(self.run_of(arena, taken))
    }

    /// Accounts for pages just taken from an arena, which are in use from here on.
    fn run_of(&mut self, arena: &'static Arena, taken: Taken) -> Run {
        self.took(arena, taken);
        self.note_use(arena, taken);
        Run {
            arena,
            first: taken.first,
            count: taken.count,
            fresh: taken.released == taken.count && release::released_are_zero(),
        }
    }

    /// Pages in use, huge objects included.
    fn in_use_pages(&self) -> usize {
        self.committed_pages - self.free_pages + self.huge.live_pages()
    }

    fn note_peak(&mut self) {
        self.peak_in_use_pages = self.peak_in_use_pages.max(self.in_use_pages());
    }

    /// Notes that pages just taken from an arena are in use from here on.
    fn note_use(&mut self, arena: &'static Arena, taken: Taken) {
        // SAFETY: `self` is reached through the lock only; the reference ends with the function.
        let touched = unsafe { &mut arena.committed().touched_pages };
        let end = (taken.first + taken.count).max(*touched);
        self.touched_pages += (end - core::mem::replace(touched, end)) as usize;
        self.note_peak();
    }

    /// Accounts for pages just taken from an arena.
    fn took(&mut self, arena: &'static Arena, taken: Taken) {
        self.free_pages -= taken.count as usize;
        self.dirty_pages -= (taken.count - taken.released) as usize;
        backed::add(taken.released as usize * PAGE_BYTES);
        self.reindex(arena);
    }

    fn reindex(&mut self, arena: &'static Arena) {
        // SAFETY: `self` is reached through the lock only.
        let max_run = unsafe { arena.committed() }.pages.max_run();
        self.index.set(arena.id as usize, max_run);
    }

    fn free(&mut self, arena: &'static Arena, first: u32, count: u32, released: bool) {
        // SAFETY: `self` is reached through the lock only.
        unsafe { arena.committed() }
            .pages
            .free(first, count, released);
        self.free_pages += count as usize;
        if released {
            backed::sub(count as usize * PAGE_BYTES);
        } else {
            self.dirty_pages += count as usize;
        }
        self.reindex(arena);
    }
}

const _: () = assert!(ARENA_BYTES.is_multiple_of(2 << 20));

type HeapGuard = Guard<'static, Heap>;

/// The use of the lock of this floor.
#[cfg(feature = "lock-stats")]
pub(crate) fn lock_uses(each: &mut impl FnMut(LockUse)) {
    each(LockUse::of("page heap", 0, None, HEAP.usage()));
}

/// Whether the heap's lock comes free in time, so that the calling thread does not hold it: see
/// [`Mutex::comes_free`].
pub(crate) fn locks_come_free(deadline_ns: u64) -> bool {
    HEAP.comes_free(deadline_ns)
}

/// For `fork`: the heap's lock.
pub(crate) fn lock_for_fork() {
    HEAP.lock_for_fork();
}

/// For `fork`: gives the heap's lock back.
///
/// # Safety
/// As for [`Mutex::unlock_after_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: the caller's contract.
    unsafe { HEAP.unlock_after_fork() };
}
