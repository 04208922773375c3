//! Where the memory is: a few numbers of the page heap and the threads.

use crate::base::PAGE_BYTES;
use crate::mcache::budget;
use crate::{meta, mheap, runtime};

/// A look at the heap. Each number is right at some moment of the call, not all at the same one,
/// while other threads work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Bytes of address space in arenas.
    pub reserved_bytes: usize,
    /// Bytes of arenas that can be used without asking the system for access; not all are backed.
    pub committed_bytes: usize,
    /// Bytes in spans: live objects, free slots beside them, and what magazines hold.
    pub in_use_bytes: usize,
    /// Free bytes in run caches, backed by memory.
    pub cached_bytes: usize,
    /// Free bytes in the page heap that are backed by memory.
    pub dirty_bytes: usize,
    /// Free bytes in the page heap that are not: they cost nothing.
    pub released_bytes: usize,
    /// Bytes of the allocator's own records.
    pub record_bytes: usize,
    /// Bytes that magazines may hold beyond what each has at first.
    pub magazine_budget_bytes: usize,
    /// Threads that have an mcache.
    pub threads: usize,
}

/// Reads the counters. Takes the locks of the page heap for a moment.
///
/// ```
/// let stats = spanmalloc::stats();
/// assert!(stats.in_use_bytes <= stats.committed_bytes);
/// ```
pub fn stats() -> Stats {
    let cached_bytes = mheap::run_cache::cached_pages() * PAGE_BYTES;
    let pages = mheap::pages();
    let free_bytes = pages.free * PAGE_BYTES;
    let dirty_bytes = pages.dirty * PAGE_BYTES;
    let committed_bytes = pages.committed * PAGE_BYTES;
    Stats {
        reserved_bytes: pages.reserved * PAGE_BYTES,
        committed_bytes,
        in_use_bytes: (committed_bytes - free_bytes).saturating_sub(cached_bytes),
        cached_bytes,
        dirty_bytes,
        released_bytes: free_bytes - dirty_bytes,
        record_bytes: meta::record_bytes(),
        magazine_budget_bytes: budget::used(),
        threads: runtime::attached(),
    }
}
