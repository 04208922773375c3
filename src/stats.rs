//! Where the memory is, and what the allocator did.

use core::fmt;

use crate::base::PAGE_BYTES;
use crate::base::size_class::{MAGAZINES, SizeClass};
use crate::counters::{self, Counter, Pages, calls};
use crate::mcache::{self, MCache, budget};
use crate::{backed, meta, mheap, runtime};

/// A look at the heap. Each number is right at some moment of the call, not all at the same one,
/// while other threads work.
///
/// `Display` makes a table of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Objects that the program has.
    pub live_objects: usize,
    /// Bytes of them, each rounded up to its size class or to whole pages.
    pub live_bytes: usize,
    /// Bytes of them in objects of more than 32 KiB, in arenas.
    pub large_live_bytes: usize,
    /// Bytes of them in objects with a mapping of their own.
    pub huge_live_bytes: usize,
    /// Objects that have a mapping of their own.
    pub huge_live_objects: usize,
    /// Calls and the peak of live bytes, if calls are counted.
    pub calls: Option<Calls>,
    /// Objects of more than 32 KiB that were allocated in arenas.
    pub large_allocations: u64,
    /// Objects that were allocated with a mapping of their own.
    pub huge_allocations: u64,
    /// Objects that came into magazines from their thread's current span.
    pub refilled_from_current_span: u64,
    /// Objects that came into magazines in batches from depots.
    pub refilled_from_depot: u64,
    /// Objects that came into magazines from other spans, under a lock.
    pub refilled_from_spans: u64,
    /// Objects that left magazines in batches for depots.
    pub flushed_to_depot: u64,
    /// Objects that left magazines for their spans.
    pub flushed_to_spans: u64,
    /// Spans that were made of free pages.
    pub spans_made: u64,
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
    /// Bytes of memory that the allocator has from the system, as the memory limit counts them: spans less
    /// what went back of their free slots, free pages that are backed, huge objects, records.
    pub backed_bytes: usize,
    /// Bytes of the allocator's own records.
    pub record_bytes: usize,
    /// Bytes that magazines may hold beyond what each has at first.
    pub magazine_budget_bytes: usize,
    /// Threads that have an mcache.
    pub threads: usize,
}

/// What was counted call by call. The preloaded library counts with `SPANMALLOC_COUNT=1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Calls {
    /// Objects that were allocated since counting began.
    pub allocations: u64,
    /// Objects that were freed since.
    pub frees: u64,
    /// Bytes of the objects that were allocated since, each rounded up.
    pub allocated_bytes: u64,
    /// Most bytes that were live at a time; each thread's share may be 32 KiB out.
    pub peak_live_bytes: u64,
}

/// Reads the counters. Takes the locks of the page heap for a moment; O(threads, classes). Any thread may call
/// it. Does not fail.
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
    let large = Pages::Large.all().and(mheap::run_cache::large_objects());
    let huge = Pages::Huge.all();
    let mut stats = Stats {
        live_objects: (large.allocations + huge.allocations)
            .saturating_sub(large.frees + huge.frees) as usize,
        large_live_bytes: large.allocated_bytes.saturating_sub(large.freed_bytes) as usize,
        huge_live_bytes: huge.allocated_bytes.saturating_sub(huge.freed_bytes) as usize,
        huge_live_objects: huge.allocations.saturating_sub(huge.frees) as usize,
        large_allocations: large.allocations,
        huge_allocations: huge.allocations,
        refilled_from_current_span: sum(|mcache| &mcache.counters.from_current_span),
        refilled_from_depot: sum(|mcache| &mcache.counters.from_depot),
        refilled_from_spans: sum(|mcache| &mcache.counters.from_spans),
        flushed_to_depot: sum(|mcache| &mcache.counters.to_depot),
        flushed_to_spans: sum(|mcache| &mcache.counters.to_spans),
        spans_made: counters::spans_made(),
        reserved_bytes: pages.reserved * PAGE_BYTES,
        committed_bytes,
        in_use_bytes: (committed_bytes - free_bytes).saturating_sub(cached_bytes),
        cached_bytes,
        dirty_bytes,
        released_bytes: free_bytes - dirty_bytes,
        backed_bytes: backed::bytes(),
        record_bytes: meta::record_bytes(),
        magazine_budget_bytes: budget::used(),
        threads: runtime::attached(),
        ..Stats::default()
    };
    stats.live_bytes = stats.large_live_bytes + stats.huge_live_bytes;
    let mut counted = Calls {
        allocations: large.allocations + huge.allocations,
        frees: large.frees + huge.frees,
        allocated_bytes: large.allocated_bytes + huge.allocated_bytes,
        peak_live_bytes: calls::peak_bytes(),
    };
    for class in (1..MAGAZINES).map(SizeClass::new) {
        let live = live_objects(class);
        stats.live_objects += live;
        stats.live_bytes += live * class.object_bytes();
        let allocated = sum(|mcache| &mcache.counters.allocated[class.index()]);
        counted.allocations += allocated;
        counted.allocated_bytes += allocated * class.object_bytes() as u64;
        counted.frees += sum(|mcache| &mcache.counters.freed[class.index()]);
        let (allocated, freed) = counters::detached(class);
        counted.allocations += allocated;
        counted.allocated_bytes += allocated * class.object_bytes() as u64;
        counted.frees += freed;
    }
    // What threads have not told yet may be more than the peak they told of.
    counted.peak_live_bytes = counted.peak_live_bytes.max(stats.live_bytes as u64);
    stats.calls = calls::are_counted().then_some(counted);
    stats
}

fn sum(counter: impl Fn(&MCache) -> &Counter) -> u64 {
    mcache::all().map(|mcache| counter(mcache).get()).sum()
}

/// Objects of a class that the program has: what came into magazines, less what left them, less what
/// lies there. Each mcache's share may be negative, if it frees what others allocate.
fn live_objects(class: SizeClass) -> usize {
    let (allocated, freed) = counters::detached(class);
    let shares = mcache::all().map(|mcache| {
        let counters = &mcache.counters;
        let index = class.index();
        let came = counters.refilled[index].get() as i64;
        came - counters.flushed[index].get() as i64 - mcache.len(class) as i64
    });
    let live = shares.sum::<i64>() + allocated as i64 - freed as i64;
    live.max(0) as usize
}

impl Stats {
    /// The fields, in order, with what they count.
    pub(crate) fn fields(&self) -> [(&'static str, u64); 22] {
        let bytes = |bytes: usize| bytes as u64;
        [
            ("live_objects", bytes(self.live_objects)),
            ("live_bytes", bytes(self.live_bytes)),
            ("large_live_bytes", bytes(self.large_live_bytes)),
            ("huge_live_bytes", bytes(self.huge_live_bytes)),
            ("huge_live_objects", bytes(self.huge_live_objects)),
            ("large_allocations", self.large_allocations),
            ("huge_allocations", self.huge_allocations),
            (
                "refilled_from_current_span",
                self.refilled_from_current_span,
            ),
            ("refilled_from_depot", self.refilled_from_depot),
            ("refilled_from_spans", self.refilled_from_spans),
            ("flushed_to_depot", self.flushed_to_depot),
            ("flushed_to_spans", self.flushed_to_spans),
            ("spans_made", self.spans_made),
            ("reserved_bytes", bytes(self.reserved_bytes)),
            ("committed_bytes", bytes(self.committed_bytes)),
            ("in_use_bytes", bytes(self.in_use_bytes)),
            ("cached_bytes", bytes(self.cached_bytes)),
            ("dirty_bytes", bytes(self.dirty_bytes)),
            ("released_bytes", bytes(self.released_bytes)),
            ("backed_bytes", bytes(self.backed_bytes)),
            ("record_bytes", bytes(self.record_bytes)),
            ("threads", bytes(self.threads)),
        ]
    }

    /// The fields that there are only if calls are counted.
    fn call_fields(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let fields = self.calls.map(|calls| {
            [
                ("allocations", calls.allocations),
                ("frees", calls.frees),
                ("allocated_bytes", calls.allocated_bytes),
                ("peak_live_bytes", calls.peak_live_bytes),
            ]
        });
        fields.into_iter().flatten()
    }

    /// Writes one JSON object, a number a field.
    pub(crate) fn write_json(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let mut separator = "{";
        for (name, number) in self.call_fields().chain(self.fields()) {
            write!(out, "{separator}\"{name}\":{number}")?;
            separator = ",";
        }
        out.write_str("}\n")
    }
}

impl fmt::Display for Stats {
    /// One line a field, its name and its number.
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        for (name, number) in self.call_fields().chain(self.fields()) {
            writeln!(out, "{name:<26} {number:>16}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::malloc;
    use std::vec::Vec;

    /// Objects of a class that nothing else in the tests uses: the tests of this process share a heap.
    const BYTES: usize = 21760;

    fn live() -> usize {
        live_objects(crate::base::size_class::class_for(BYTES, 16))
    }

    #[test]
    fn what_came_less_what_left_less_what_lies_in_magazines_is_live() {
        let before = live();
        let mut objects: Vec<usize> = Vec::new();
        for round in 1..=3 {
            objects.extend((0..100).map(|_| malloc::alloc(BYTES, 16).expose_provenance()));
            assert_eq!(live() - before, objects.len(), "round {round}");
            let kept = objects.split_off(objects.len() / 2);
            let freed = core::mem::replace(&mut objects, kept);
            // Half of them in another thread, which exits.
            let (here, there) = freed.split_at(freed.len() / 2);
            here.iter().for_each(free);
            let there = there.to_vec();
            std::thread::spawn(move || there.iter().for_each(free))
                .join()
                .unwrap();
            assert_eq!(live() - before, objects.len(), "round {round}");
        }
        objects.iter().for_each(free);
        assert_eq!(live(), before);
    }

    #[allow(unsafe_code)]
    fn free(object: &usize) {
        // SAFETY: an object of that Layout, freed once.
        unsafe { malloc::free(core::ptr::with_exposed_provenance_mut(*object), BYTES, 16) }
    }
}
