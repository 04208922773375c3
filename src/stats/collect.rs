//! How a snapshot is taken.
//!
//! Under all locks nothing moves between tiers but by what needs none: the owner of a magazine pops and
//! pushes, and takes slots from its current span. What of a class is outside its spans is known from two
//! counters, objects taken from spans (counted by their owner, after it took them) and freed to spans
//! (counted under the lock). Less what magazines and depots hold, that is what is live; and what is not
//! outside is free in spans. Each counter is written after an object has left the one tier and before it
//! is in the next, so nothing is counted twice: an object on its way counts as free in the current span
//! it comes from, or as live.
//!
//! An object that threads pass on meanwhile may be seen in two magazines; so magazines hold at most what
//! is outside, and large objects in mcaches at most what is in no span. With pages it is the same: they leave
//! the count of one place before they enter that of another, and what is in none is in transit.

#![allow(unsafe_code)]

use super::Stats;
use crate::base::PAGE_BYTES;
use crate::base::size_class::{CLASSES, MAGAZINES, SizeClass, TINY_BLOCK_BYTES};
use crate::counters::{self, Counter, PageObjects, Pages, calls};
use crate::mcache::{self, MCache, budget};
use crate::mcentral::{self, ClassTally};
use crate::sync::atomic::{Ordering::Acquire, fence};
use crate::sync::waits;
use crate::{backed, meta, mheap, profile, runtime, secure, sys};

/// Classes whose objects share spans.
const TINY: usize = MAGAZINES - CLASSES;

/// The class at a place of [`Stats::classes`], which has the smallest first.
pub(super) fn class_at(place: usize) -> SizeClass {
    SizeClass::new(if place < TINY {
        CLASSES + place
    } else {
        place - TINY + 1
    })
}

/// Objects of a class, as all mcaches together know.
#[derive(Clone, Copy, Default)]
struct InCaches {
    /// In magazines.
    held: u64,
    /// Taken from spans so far.
    taken: u64,
}

impl Stats {
    /// Reads what moves between tiers. The caller holds all locks.
    pub(super) fn look_at_tiers(&mut self) {
        let mut caches = [InCaches::default(); MAGAZINES];
        let tiny_blocks = self.look_at_mcaches(&mut caches);
        let mut tiny_outside = 0;
        let mut tiny_singles = 0;
        for place in 0..self.classes.len() {
            let class = class_at(place);
            // SAFETY: the caller holds all locks.
            let tally = unsafe { mcentral::tally(class) };
            let outside = self.look_at_class(place, &tally, caches[class.index()]);
            if class.is_tiny() {
                tiny_outside += outside * class.object_bytes() as u64;
                tiny_singles += counters::detached(class).0;
            } else {
                self.look_at_spans(place, &tally, outside);
            }
        }
        // SAFETY: as above.
        let blocks = unsafe { mcentral::tally(SizeClass::TINY_BLOCKS) };
        let outside = (tiny_blocks + tiny_singles).saturating_sub(blocks.freed_slots);
        self.look_at_spans(0, &blocks, outside);
        let split = (outside * TINY_BLOCK_BYTES as u64).saturating_sub(tiny_outside);
        self.classes.0[0].split_free_bytes = split as usize;

        // SAFETY: as above.
        let (cached, large) = unsafe { mheap::run_cache::tally() };
        // SAFETY: as above.
        let pages = unsafe { mheap::tally() };
        // SAFETY: as above.
        let (waiting, kept, gone) = unsafe { secure::waiting() };
        let large = Pages::Large
            .all()
            .and(large)
            .and(waiting)
            .and(large_of_mcaches());
        self.large_allocations = large.allocations;
        self.large_frees = large.frees;
        self.large_live_objects = large.allocations.saturating_sub(large.frees) as usize;
        self.large_live_bytes = large.allocated_bytes.saturating_sub(large.freed_bytes) as usize;
        self.reserved_bytes = pages.reserved * PAGE_BYTES;
        self.committed_bytes = pages.committed * PAGE_BYTES;
        self.dirty_bytes = pages.dirty * PAGE_BYTES;
        self.fresh_bytes = pages.fresh * PAGE_BYTES;
        // What has no memory and is not free.
        let gone = gone + secure::guard_pages();
        self.released_bytes = (pages.free - pages.dirty - pages.fresh + gone) * PAGE_BYTES;
        self.in_use_bytes = (pages.committed - pages.free).saturating_sub(gone) * PAGE_BYTES;
        let in_mcaches = mcache::all().map(MCache::large_pages).sum::<usize>();
        self.cached_bytes = (cached + in_mcaches + kept) * PAGE_BYTES;
        self.huge_free_bytes = pages.huge_free * PAGE_BYTES;
        self.released_slot_bytes = mcentral::released_slot_bytes();
        self.backed_bytes = backed::bytes();
        self.record_mapped_bytes = meta::mapped_bytes();
        self.record_bytes = meta::record_bytes();
        if calls::are_counted() {
            self.calls = Some(counted_calls(large));
        }
    }

    /// Sums up what mcaches hold and have counted; the tiny blocks that they took.
    fn look_at_mcaches(&mut self, caches: &mut [InCaches; MAGAZINES]) -> u64 {
        let mut tiny_blocks = 0;
        for mcache in mcache::all() {
            for place in 0..self.classes.len() {
                let class = class_at(place);
                let index = class.index();
                caches[index].held += mcache.len(class) as u64;
                // Pairs with the fence in the refill: what is in the magazine was counted as taken. The
                // magazine comes first, so that nothing in it is missing from what was taken.
                fence(Acquire);
                caches[index].taken += mcache.counters.taken[index].get();
                let row = &mut self.classes.0[place];
                row.allocated_objects += mcache.counters.refilled[index].get();
                row.freed_objects += mcache.counters.flushed[index].get();
            }
            #[cfg(feature = "secure")]
            mcache.for_each_in_quarantine(|class| caches[class.index()].held += 1);
            fence(Acquire); // As above, of objects and their blocks.
            tiny_blocks += mcache.counters.tiny_blocks.get();
        }
        tiny_blocks
    }

    /// Fills in the objects of the class at a place; how many are outside spans.
    fn look_at_class(&mut self, place: usize, tally: &ClassTally, caches: InCaches) -> u64 {
        let class = class_at(place);
        let (allocated, freed) = counters::detached(class);
        let row = &mut self.classes.0[place];
        let outside = (caches.taken + allocated).saturating_sub(tally.freed);
        let not_in_depots = outside.saturating_sub(tally.in_depots);
        let held = (caches.held + profile::stashed(class)).min(not_in_depots);
        row.object_bytes = class.object_bytes();
        row.span_bytes = class.geometry().span_pages as usize * PAGE_BYTES;
        row.depot_objects = tally.in_depots as usize;
        row.magazine_objects = held as usize;
        row.live_objects = (not_in_depots - held) as usize;
        row.live_bytes = row.live_objects * row.object_bytes;
        row.allocated_objects += allocated;
        row.freed_objects += freed;
        outside
    }

    /// Fills in the spans of the class at a place, of which so many slots are taken.
    fn look_at_spans(&mut self, place: usize, tally: &ClassTally, taken_slots: u64) {
        let geometry = class_at(place).geometry();
        let spans = &tally.spans;
        let slot_bytes = geometry.slot_bytes as usize;
        let slots = spans.spans * u64::from(geometry.slots);
        let current = slots.saturating_sub(taken_slots);
        let current = current.saturating_sub(spans.free_slots);
        let row = &mut self.classes.0[place];
        row.spans = spans.spans as usize;
        row.partial_spans = spans.partial as usize;
        row.full_spans = spans.full as usize;
        row.current_spans = spans.spans.saturating_sub(spans.partial + spans.full) as usize;
        row.spans_made = spans.made;
        row.current_free_bytes = current as usize * slot_bytes;
        row.partial_free_bytes = spans.free_slots as usize * slot_bytes;
        row.tail_bytes = row.spans * (row.span_bytes - geometry.slots as usize * slot_bytes);
    }

    /// Reads what only grows, and what the system says. Without a lock.
    pub(super) fn look_at_counters(&mut self) {
        let huge = Pages::Huge.all();
        self.huge_allocations = huge.allocations;
        self.huge_frees = huge.frees;
        self.huge_live_objects = huge.allocations.saturating_sub(huge.frees) as usize;
        self.huge_live_bytes = huge.allocated_bytes.saturating_sub(huge.freed_bytes) as usize;
        self.refilled_from_current_span = sum(|mcache| &mcache.counters.from_current_span);
        self.refilled_from_depot = sum(|mcache| &mcache.counters.from_depot);
        self.refilled_from_spans = sum(|mcache| &mcache.counters.from_spans);
        self.flushed_to_depot = sum(|mcache| &mcache.counters.to_depot);
        self.flushed_to_spans = sum(|mcache| &mcache.counters.to_spans);
        self.magazine_budget_bytes = budget::used();
        let returned = backed::returned();
        self.returned_bytes = returned.bytes;
        self.return_calls = returned.calls;
        self.return_ns = returned.ns;
        (self.lock_waits, self.lock_sleeps) = waits::counted();
        self.threads = runtime::attached();
        self.uptime_ns = runtime::uptime_ns();
        self.resident_bytes = sys::resident_bytes();
        (self.minor_faults, self.major_faults) = sys::page_faults();
    }

    /// Fills in what follows from the rest.
    pub(super) fn sum_up(&mut self) {
        let total =
            |of: fn(&super::ClassStats) -> usize| self.classes.iter().map(of).sum::<usize>();
        let spans = total(|class| class.spans * class.span_bytes);
        let small_objects = total(|class| class.live_objects);
        self.small_live_bytes = total(|class| class.live_bytes);
        self.magazine_bytes = total(|class| class.magazine_objects * class.object_bytes);
        self.depot_bytes = total(|class| class.depot_objects * class.object_bytes);
        self.current_free_bytes = total(|class| class.current_free_bytes);
        self.partial_free_bytes = total(|class| class.partial_free_bytes);
        self.split_free_bytes = total(|class| class.split_free_bytes);
        self.tail_bytes = total(|class| class.tail_bytes);
        let objects = self.large_allocations + self.huge_allocations;
        let freed = self.large_frees + self.huge_frees;
        let total = |of: fn(&super::ClassStats) -> u64| self.classes.iter().map(of).sum::<u64>();
        self.allocated_objects = objects + total(|class| class.allocated_objects);
        self.freed_objects = freed + total(|class| class.freed_objects);
        self.spans_made = total(|class| class.spans_made);
        self.live_objects = small_objects + self.large_live_objects + self.huge_live_objects;
        self.live_bytes = self.small_live_bytes + self.large_live_bytes + self.huge_live_bytes;
        // Threads take large objects from their caches, and leave them there, without a lock.
        let in_spans = spans + self.large_live_bytes;
        self.cached_bytes = (self.cached_bytes).min(self.in_use_bytes.saturating_sub(in_spans));
        self.in_use_bytes -= self.cached_bytes;
        self.in_transit_bytes = self.in_use_bytes.saturating_sub(in_spans);
        let huge_bytes = self.huge_live_bytes + self.huge_free_bytes;
        self.mapped_bytes = self.reserved_bytes + huge_bytes + self.record_mapped_bytes;
        if let Some(calls) = &mut self.calls {
            // What threads have not told yet may be more than the peak they told of.
            calls.peak_live_bytes = calls.peak_live_bytes.max(self.live_bytes as u64);
        }
    }
}

/// What mcaches counted of large objects. What is seen as allocated was free before: so frees are read after all
/// allocations, and an object that is freed and allocated meanwhile does not count twice.
fn large_of_mcaches() -> PageObjects {
    let mut large = PageObjects::NONE;
    for mcache in mcache::all() {
        mcache.counters.large.add_allocated_to(&mut large);
    }
    fence(Acquire); // Pairs with the fence in `MCache::take_large`.
    for mcache in mcache::all() {
        mcache.counters.large.add_freed_to(&mut large);
    }
    large
}

fn sum(counter: impl Fn(&MCache) -> &Counter) -> u64 {
    mcache::all().map(|mcache| counter(mcache).get()).sum()
}

/// What was counted call by call, large objects included.
fn counted_calls(large: PageObjects) -> super::Calls {
    let pages = large.and(Pages::Huge.all());
    let mut counted = super::Calls {
        allocations: pages.allocations,
        frees: pages.frees,
        allocated_bytes: pages.allocated_bytes,
        peak_live_bytes: calls::peak_bytes(),
    };
    for class in (1..MAGAZINES).map(SizeClass::new) {
        let (allocated, freed) = counters::detached(class);
        let allocated = allocated + sum(|mcache| &mcache.counters.allocated[class.index()]);
        counted.allocations += allocated;
        counted.allocated_bytes += allocated * class.object_bytes() as u64;
        counted.frees += freed + sum(|mcache| &mcache.counters.freed[class.index()]);
    }
    counted
}
