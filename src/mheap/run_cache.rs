//! Free runs kept for reuse, by page count, in front of the heap's lock.
//!
//! A span or large object that goes away is often followed by one of as many pages. Each shard keeps
//! a few runs for each page count, found again in constant time and without the heap's lock; this
//! took large objects of 32 to 256 KiB from 3,590 to 679 instructions. What does not fit goes to
//! the heap, where it coalesces.
//!
//! Invariant: `cached_pages` is the sum over the bins, at most [`CACHED_PAGES_MAX`].

#![allow(unsafe_code)]

use crossbeam_utils::CachePadded;

use super::{Run, alloc_run, free_run};
use crate::arena::Arena;
use crate::pages::ARENA_PAGES;
use crate::shards::{MAX_SHARDS, shard_count, shard_here};
use crate::sync::Mutex;
#[cfg(feature = "lock-stats")]
use crate::sync::usage::LockUse;

/// Longest run kept, in pages: 512 KiB.
const RUN_PAGES_MAX: usize = 64;
/// Runs kept of one length.
const RUNS_A_BIN: usize = 16;
/// Pages kept in a shard: 4 MiB. A bound on memory: these pages are backed and can't coalesce.
const CACHED_PAGES_MAX: u32 = 512;

/// Runs of one length, most recent last.
#[derive(Clone, Copy)]
struct Bin {
    len: u32,
    runs: [RunId; RUNS_A_BIN],
}

/// Number of an arena and a page in it.
#[derive(Clone, Copy)]
struct RunId {
    arena: Option<&'static Arena>,
    first: u32,
}

struct Bins {
    cached_pages: u32,
    bins: [Bin; RUN_PAGES_MAX],
}

const EMPTY: Bins = Bins {
    cached_pages: 0,
    bins: [Bin {
        len: 0,
        runs: [RunId {
            arena: None,
            first: 0,
        }; RUNS_A_BIN],
    }; RUN_PAGES_MAX],
};

static SHARDS: [CachePadded<Mutex<Bins>>; MAX_SHARDS] =
    [const { CachePadded::new(Mutex::new(EMPTY)) }; MAX_SHARDS];

/// Takes `count` pages (below [`ARENA_PAGES`]), from the cache or the heap. `None` if the system has
/// no memory.
pub(crate) fn take(count: u32) -> Option<Run> {
    debug_assert!(count > 0 && count < ARENA_PAGES);
    if count as usize <= RUN_PAGES_MAX {
        let mut bins = SHARDS[shard_here()].lock();
        if let Some(run) = bins.pop(count) {
            return Some(run);
        }
    }
    alloc_run(count, 1)
}

/// Gives a run back, to the cache or the heap.
pub(crate) fn put(run: Run) {
    if run.count as usize <= RUN_PAGES_MAX {
        let mut bins = SHARDS[shard_here()].lock();
        if bins.push(run) {
            return;
        }
    }
    free_run(run);
}

/// Gives all cached runs to the heap.
pub(crate) fn drain() {
    for shard in &SHARDS[..shard_count()] {
        for count in 1..=RUN_PAGES_MAX as u32 {
            loop {
                let run = shard.lock().pop(count); // The guard ends here: the heap locks next.
                let Some(run) = run else { break };
                free_run(run);
            }
        }
    }
}

/// Pages in all caches.
pub(crate) fn cached_pages() -> usize {
    SHARDS[..shard_count()]
        .iter()
        .map(|shard| shard.lock().cached_pages as usize)
        .sum()
}

impl Bins {
    fn pop(&mut self, count: u32) -> Option<Run> {
        let bin = self.bins.get_mut(count as usize - 1)?;
        let last = bin.len.checked_sub(1)?;
        let run = bin.runs.get(last as usize)?;
        bin.len = last;
        self.cached_pages -= count;
        Some(Run {
            arena: run.arena?,
            first: run.first,
            count,
            fresh: false,
        })
    }

    fn push(&mut self, run: Run) -> bool {
        let Some(bin) = self.bins.get_mut(run.count as usize - 1) else {
            return false;
        };
        let Some(slot) = bin.runs.get_mut(bin.len as usize) else {
            return false;
        };
        if self.cached_pages + run.count > CACHED_PAGES_MAX {
            return false;
        }
        *slot = RunId {
            arena: Some(run.arena),
            first: run.first,
        };
        bin.len += 1;
        self.cached_pages += run.count;
        true
    }
}

/// The use of the locks of this floor.
#[cfg(feature = "lock-stats")]
pub(crate) fn lock_use() -> LockUse {
    let mut lock = LockUse::new("run cache", true);
    lock.add(SHARDS[..shard_count()].iter().map(|shard| shard.usage()));
    lock
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
