//! The spans and full magazines of each size class, shared by all threads.
//!
//! A class has a shard for each CPU (bounded), each with its mutex, its span sets and its depot. A
//! refill uses the shard of the CPU it runs on; a span remembers the shard it was made in, its
//! *home*, and is freed to under the home's lock whoever frees. A shard without a partial span
//! looks at the others' before it asks the page heap, so memory does not grow with the shards.
//!
//! Frees arrive in batches, and are done home by home, each in their order: runs of objects of one span
//! are handled together.
//!
//! Invariants:
//!
//! 1. A span is in a set of its home shard, checked out by one thread, or in neither and on its way
//!    to the page heap.
//! 2. No thread holds two locks of this floor, but for `fork` (and a second one that it only tries).
//! 3. The page heap is asked, and given back to, without a lock of this floor.

#![allow(unsafe_code)]

mod depots;
mod put;
mod tally;

#[cfg(feature = "profile")]
pub(crate) use depots::for_each_in_depots;
pub(crate) use depots::{drain_depots, has_room_for_batch, put_batch, shrink_depots, take_batch};
pub(crate) use put::{crime_of, put};
pub(crate) use tally::{ClassTally, released_slot_bytes, tally};

use core::ptr::NonNull;

use crate::arena::span_at;
#[cfg(feature = "profile")]
use crate::arena::{Place, place_of};
use crate::base::size_class::{CLASSES, Geometry, MAGAZINES, SizeClass};
use crate::depot::Depot;
use crate::mheap::{huge_pages, spans};
use crate::mspan::{HOMES, MSpan, PrivateSlots, Set};
use crate::shards::{MAX_SHARDS, shard_count};
use crate::span_set::SpanSet;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
#[cfg(feature = "lock-stats")]
use crate::sync::usage::LockUse;
use crate::{backed, config, secure, sys};

/// One shard of one class.
#[repr(align(128))] // Two cache lines, as the prefetcher of x86-64 fetches pairs.
struct Shard {
    lock: Mutex<Spans>,
    /// Partial spans. **Written under `lock`, read by anyone**: a hint whether to look here.
    partial_hint: AtomicU32,
    /// Whether the spans here are sparse. **Written under `lock`, read by anyone**: a hint.
    sparse_hint: AtomicBool,
    /// Full batches in the depot. **Written under `lock`, read by anyone**: a hint.
    depot_hint: AtomicU32,
}

/// What a shard's lock guards.
struct Spans {
    set: SpanSet,
    depot: Depot,
    /// Objects that were freed to spans of this home: of the class, or of each of the tiny ones.
    freed: [u64; TINY_CLASSES],
    /// Slots that they were in: fewer, if several objects share one.
    freed_slots: u64,
}

/// Classes whose objects share the spans of one class, at most.
const TINY_CLASSES: usize = MAGAZINES - CLASSES;

// SAFETY: the spans in the set are reached under the shard's lock.
unsafe impl Send for Spans {}

/// By shard, then class, so that a program with one busy CPU touches one row.
static SHARDS: [[Shard; MAGAZINES]; MAX_SHARDS] = [const {
    [const {
        Shard {
            lock: Mutex::new(Spans {
                set: SpanSet::new(),
                depot: Depot::new(),
                freed: [0; TINY_CLASSES],
                freed_slots: 0,
            }),
            partial_hint: AtomicU32::new(0),
            sparse_hint: AtomicBool::new(false),
            depot_hint: AtomicU32::new(0),
        }
    }; MAGAZINES]
}; MAX_SHARDS];

const _: () = assert!(MAX_SHARDS <= HOMES);

impl Shard {
    /// Gives the pages of the free slots of one idle span back to the system. False if there is none.
    fn release_slots_of_one(&self, class: SizeClass) -> bool {
        let geometry = class.geometry();
        let mut spans = self.lock.lock();
        // SAFETY: the lock is held, here and below, and the spans of its set have it as their home.
        let Some(span) = (unsafe { spans.set.pop_idle() }) else {
            return false;
        };
        // SAFETY: as above.
        let free = unsafe {
            span.shared().set = Set::CHECKED_OUT;
            span.free_ranges(geometry, sys::page_bytes())
        };
        self.set_hints(&mut spans, geometry);
        drop(spans);
        let mut released = 0;
        if let Some(base) = NonNull::new(span.base()) {
            for (offset, end) in free.iter() {
                secure::released_slots(span, offset, end);
                // SAFETY: whole pages of free slots. Nobody hands them out meanwhile: the span is in no
                // set, and no thread's current one.
                unsafe {
                    let start = base.add(offset);
                    let release = || sys::release(start, end - offset, config::releases_lazily());
                    if backed::releasing(end - offset, release) {
                        huge_pages::after_release_in_span(start, end - offset);
                        released += (end - offset) / sys::page_bytes();
                    }
                }
            }
        }
        let mut spans = self.lock.lock();
        // SAFETY: as above.
        unsafe { note_released(span, released) };
        // SAFETY: as above; the span is in no list.
        let listed = unsafe {
            span.shared().set = Set::NONE;
            spans.set.insert_released(span, geometry)
        };
        self.set_hints(&mut spans, geometry);
        drop(spans);
        if !listed {
            free_span(span);
        }
        true
    }

    /// Tells those who don't hold the lock what the set is like. Relaxed: hints.
    fn set_hints(&self, spans: &mut Spans, geometry: &Geometry) {
        self.partial_hint.store(spans.set.partial_spans(), Relaxed);
        let is_sparse = spans.set.is_sparse(spans.freed_slots, geometry);
        self.sparse_hint.store(is_sparse, Relaxed);
    }
}

#[inline]
fn shard_of(class: SizeClass, shard: usize) -> &'static Shard {
    &SHARDS[shard % MAX_SHARDS][class.index()]
}

/// Takes up to `wanted` objects of the span class `class`; `take` gets the first of each run of neighbours,
/// and their number. They come from the current span in `private`, the calling thread's half for the class, if
/// it has any; else from the shards, first that of the number `here`, and the rest of the last span is left in
/// `private`. Zero only if the system has no memory.
pub(crate) fn take(
    class: SizeClass,
    here: usize,
    private: &PrivateSlots,
    wanted: usize,
    mut take: impl FnMut(*mut u8, usize),
) -> usize {
    if let Some(span) = private.span() {
        let taken = take_private(span, private, class.geometry(), wanted, &mut take);
        if taken > 0 {
            return taken;
        }
    }
    let mut taken = 0;
    let mut held = None;
    if let Some(span) = private.span() {
        let shard = shard_of(class, span.home());
        let mut spans = shard.lock.lock();
        // SAFETY: the home lock is held; the private half is dry, and ours.
        if unsafe { span.sweep(private) } == 0 {
            // SAFETY: as above. No slot is free, so the span joins the full ones.
            unsafe { spans.retire(span, private, class.geometry()) };
            held = (span.home() == here).then_some(spans);
        } else {
            drop(spans);
            return take_private(span, private, class.geometry(), wanted, &mut take);
        }
    }
    let shard = shard_of(class, here);
    let mut spans = held.unwrap_or_else(|| shard.lock.lock());
    taken += spans.take_partial(class.geometry(), private, wanted, &mut take);
    shard.set_hints(&mut spans, class.geometry());
    drop(spans);
    if taken == 0 && private.span().is_none() {
        taken += take_elsewhere(class, here, private, wanted, &mut take);
    }
    if taken == 0 && private.span().is_none() {
        let Some(span) = spans::alloc_span(class, here) else {
            return 0;
        };
        // Under the lock, so that whoever holds all of them finds the span and its slots together.
        let mut spans = shard.lock.lock();
        spans.set.add_made();
        private.adopt(span, class.geometry().slots as usize);
    }
    if let Some(span) = private.span() {
        taken += take_private(span, private, class.geometry(), wanted - taken, &mut take);
    }
    taken
}

/// As [`take`], but leaves the rest of the last span to all threads.
pub(crate) fn take_shared(
    class: SizeClass,
    here: usize,
    wanted: usize,
    take: impl FnMut(*mut u8, usize),
) -> usize {
    let private = PrivateSlots::new();
    let taken = self::take(class, here, &private, wanted, take);
    put_back(class, &private);
    taken
}

/// An object of the span class `class` at a multiple of `align_pages`, in a fresh span whose other slots are
/// for all threads. The heap profile has it. None if the system has no memory.
#[cfg(feature = "profile")]
pub(crate) fn take_aligned(class: SizeClass, align_pages: u32) -> Option<*mut u8> {
    let here = crate::shards::shard_here();
    let span = spans::alloc_aligned_span(class, here, align_pages)?;
    span.set_sampled(true);
    let private = PrivateSlots::new();
    // As in `take`.
    let mut spans = shard_of(class, here).lock.lock();
    spans.set.add_made();
    private.adopt(span, class.geometry().slots as usize);
    drop(spans);
    let mut object = core::ptr::null_mut();
    take_private(span, &private, class.geometry(), 1, &mut |first, _| {
        object = first;
    });
    put_back(class, &private);
    Some(object)
}

/// Says that a taken object's span has a sample of the heap profile.
#[cfg(feature = "profile")]
pub(crate) fn mark_sampled(object: *mut u8) {
    if let Place::Live(span) = place_of(object.addr()) {
        let shard = shard_of(span.class(), span.home());
        let spans = shard.lock.lock();
        span.set_sampled(true);
        drop(spans);
    }
}

/// Looks at the other shards for a partial span, without waiting for their locks.
#[cold]
fn take_elsewhere(
    class: SizeClass,
    here: usize,
    private: &PrivateSlots,
    wanted: usize,
    take: &mut impl FnMut(*mut u8, usize),
) -> usize {
    let count = shard_count();
    for step in 1..count {
        let shard = shard_of(class, (here + step) % count);
        // Relaxed: a wrong hint costs a look or a fresh span.
        if shard.partial_hint.load(Relaxed) == 0 {
            continue;
        }
        let Some(mut spans) = shard.lock.try_lock() else {
            continue;
        };
        let taken = spans.take_partial(class.geometry(), private, wanted, take);
        shard.set_hints(&mut spans, class.geometry());
        if taken > 0 || private.span().is_some() {
            return taken;
        }
    }
    0
}

/// Takes up to `wanted` slots of the current span, without a lock.
#[inline]
pub(crate) fn take_private(
    span: &'static MSpan,
    private: &PrivateSlots,
    geometry: &Geometry,
    wanted: usize,
    take: &mut impl FnMut(*mut u8, usize),
) -> usize {
    private.take(wanted, |slot, count| {
        take(span.slot_address(slot, geometry), count)
    })
}

impl Spans {
    /// Takes slots of the fullest partial spans. A span with more free slots than are still wanted
    /// is checked out to `private` instead, for the caller to take from without the lock.
    fn take_partial(
        &mut self,
        geometry: &Geometry,
        private: &PrivateSlots,
        wanted: usize,
        take: &mut impl FnMut(*mut u8, usize),
    ) -> usize {
        let mut taken = 0;
        while taken < wanted {
            // SAFETY: `self` is reached through the shard's lock only, here and below; the spans of
            // its set have it as their home.
            let Some(span) = (unsafe { self.set.pop_fullest() }) else {
                break;
            };
            // SAFETY: as above.
            unsafe { note_released(span, 0) };
            // SAFETY: as above.
            let free = usize::from(unsafe { span.shared() }.free_slots);
            if free > wanted - taken {
                // SAFETY: as above; `private` has no span, so it is empty.
                unsafe { span.sweep(private) };
                private.set_span(span);
                break;
            }
            // SAFETY: as above; the span is in no list now.
            unsafe {
                taken += span.take_slots(free, |slot, count| {
                    take(span.slot_address(slot, geometry), count);
                });
                self.set.insert(span, geometry);
            }
        }
        taken
    }

    /// Ends the check-out of a span. Returns true if all its slots are free; it is the caller's
    /// then.
    ///
    /// # Safety
    /// `span` is checked out to `private` by the calling thread, and `self` is its home.
    unsafe fn retire(
        &mut self,
        span: &'static MSpan,
        private: &PrivateSlots,
        geometry: &Geometry,
    ) -> bool {
        // SAFETY: the home lock is held, because `self` is reached through it only.
        unsafe {
            span.put_back(private);
            !self.set.insert(span, geometry)
        }
    }
}

/// Puts the calling thread's current span back.
pub(crate) fn put_back(class: SizeClass, private: &PrivateSlots) {
    let Some(span) = private.span() else { return };
    let shard = shard_of(class, span.home());
    let mut spans = shard.lock.lock();
    // SAFETY: the span is checked out to `private`, the calling thread's, and its home is locked.
    let all_free = unsafe { spans.retire(span, private, class.geometry()) };
    shard.set_hints(&mut spans, class.geometry());
    drop(spans);
    if all_free {
        free_span(span);
    }
}

/// Gives a span of which all slots are free to the page heap.
fn free_span(span: &'static MSpan) {
    // SAFETY: the span is the caller's.
    unsafe { note_released(span, 0) };
    spans::free_span(span);
}

/// Notes how many pages of the system went back from a span, and counts those of before as in use
/// again: which of them are is not known.
///
/// # Safety
/// As for [`MSpan::shared`].
unsafe fn note_released(span: &MSpan, pages: usize) {
    let pages = u8::try_from(pages).unwrap_or(u8::MAX);
    // SAFETY: the caller's promise.
    let before = core::mem::replace(unsafe { &mut span.shared().released }, pages);
    if before != pages {
        let (before, after) = (usize::from(before), usize::from(pages));
        tally::released_slots_changed(before, after);
        backed::add(before * sys::page_bytes());
        backed::sub(after * sys::page_bytes());
    }
}

/// The home of the span of an object of `class`.
pub(crate) fn home_of(class: SizeClass, object: *mut u8) -> Option<usize> {
    Some(span_at(object.addr(), class.span_class())?.home())
}

/// Whether much of the memory of `class` in a shard is free slots: a hint.
pub(crate) fn is_sparse(class: SizeClass, here: usize) -> bool {
    // Relaxed: a wrong hint makes a magazine smaller or larger than it should be.
    shard_of(class.span_class(), here).sparse_hint.load(Relaxed)
}

/// Begins a round of idle spans: those that nobody needed in the one before.
pub(crate) fn begin_round() {
    for_each_shard(|shard, _| {
        shard.lock.lock().set.begin_round();
    });
}

/// Gives the pages of the free slots of up to `most` idle spans back to the system; of how many.
pub(crate) fn release_idle_slots(most: u32) -> u32 {
    let mut left = most;
    for_each_shard(|shard, class| {
        while left > 0 && shard.release_slots_of_one(class) {
            left -= 1;
        }
    });
    most - left
}

fn for_each_shard(mut visit: impl FnMut(&Shard, SizeClass)) {
    for row in &SHARDS[..shard_count()] {
        for (index, shard) in row.iter().enumerate() {
            visit(shard, SizeClass::new(index));
        }
    }
}

/// The use of the locks of this floor: one for each class and CPU.
#[cfg(feature = "lock-stats")]
pub(crate) fn lock_uses(each: &mut impl FnMut(LockUse)) {
    for class in 0..MAGAZINES {
        for (cpu, row) in SHARDS[..shard_count()].iter().enumerate() {
            each(LockUse::of(
                "mcentral",
                class,
                Some(cpu),
                row[class].lock.usage(),
            ));
        }
    }
}

/// Whether all locks of this floor come free in time, so that the calling thread does not hold any: see
/// [`Mutex::comes_free`].
pub(crate) fn locks_come_free(deadline_ns: u64) -> bool {
    let mut shards = SHARDS[..shard_count()].iter().flatten();
    shards.all(|shard| shard.lock.comes_free(deadline_ns))
}

/// For `fork`: all locks of this floor, in order.
pub(crate) fn lock_for_fork() {
    for row in &SHARDS[..shard_count()] {
        for shard in row {
            shard.lock.lock_for_fork();
        }
    }
}

/// For `fork`: gives all locks of this floor back.
///
/// # Safety
/// As for [`Mutex::unlock_after_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    for row in &SHARDS[..shard_count()] {
        for shard in row {
            // SAFETY: the caller's contract.
            unsafe { shard.lock.unlock_after_fork() };
        }
    }
}
