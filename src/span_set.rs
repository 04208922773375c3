//! The partial and full spans of one shard of one class.
//!
//! Partial spans lie in [`BUCKETS`] lists by the share of their slots that is free, and a taker gets
//! one of the fullest: nearly empty spans are left alone until their last objects come back and
//! their pages return to the page heap (span prioritisation, "Characterizing a Memory Allocator at
//! Warehouse Scale", ASPLOS 2024). All operations take constant time.
//!
//! Invariants:
//!
//! 1. A span is in the list that its `set` names, and in no other.
//! 2. A span in `full` has no free slot; one in a partial list has at least one free and one taken.
//! 3. Bit `b` of `nonempty` is set exactly if the list of bucket `b` is not empty.
//! 4. `free_slots` is the sum over the spans in the lists.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use crate::base::size_class::Geometry;
use crate::mspan::{BUCKETS, MSpan, Set};

type Link = Option<NonNull<MSpan>>;

/// Sets of spans. All-zero bytes are a valid, empty one.
pub(crate) struct SpanSet {
    /// First span of each bucket, then of those with released slots, then of the full ones.
    heads: [Link; BUCKETS + 2],
    nonempty: u16,
    /// Spans in the partial lists.
    partial: u32,
    /// Those of them whose bucket is [`LOOSE_BUCKET`] or a later one.
    loose: u32,
    /// Fewest of those since [`SpanSet::begin_round`].
    least_loose: u32,
    /// Loose spans that nobody needed in the last round, and whose free slots may go.
    idle: u32,
    /// Spans in the list of full ones.
    full: u32,
    /// Free slots of the spans in the lists.
    free_slots: u64,
    /// Spans that came to this set, be it that they are checked out at once, and that left it for good.
    made: u64,
    gone: u64,
    noted: Noted,
}

/// What a set had when that changed last, for [`SpanSet::is_sparse`].
struct Noted {
    /// Its spans, those that are checked out included. None since it was last far from sparse.
    spans: u64,
    /// Objects of the spans in the lists.
    taken: u64,
    /// Slots that had been freed to it.
    freed: u64,
}

/// What a set counts, for statistics.
#[derive(Clone, Copy, Default)]
pub(crate) struct SetTally {
    /// Spans of the set, those that are checked out included.
    pub(crate) spans: u64,
    /// Those with a free slot, and without one, that are in a list.
    pub(crate) partial: u64,
    pub(crate) full: u64,
    /// Free slots of the spans in the lists.
    pub(crate) free_slots: u64,
    /// Spans that ever came to the set.
    pub(crate) made: u64,
}

/// First bucket of the spans that are *loose*: more than three eighths of their slots are free.
const LOOSE_BUCKET: u8 = 3;
/// Loose spans that a set may have in any case.
const LOOSE_MAX: u32 = 8;
/// Beyond that a set is sparse when one of so many of its spans is loose.
const LOOSE_DIVISOR: u32 = 4;
/// It drains, or there is more to drain, when one of so many more or fewer are its spans, or fewer its objects. With few
/// spans, those that threads check out are no change.
const CHANGE_DIVISOR: u64 = 4;
/// So many times may as many slots be freed as it has objects before that: few of those that come and go would be where
/// they were.
const TURNS: u64 = 16;
/// And so many times until it is tried again.
const TURNS_UNTIL_NEXT_TRY: u64 = 8 * TURNS;

/// Where a span with `free` free slots belongs. `free` is less than the slots of the span.
fn set_for(free: u16, geometry: &Geometry) -> Set {
    if free == 0 {
        return Set::FULL;
    }
    let bucket = ((u32::from(free) * geometry.bucket_scale) >> 16) as u8;
    Set(bucket.min(BUCKETS as u8 - 1))
}

/// Whether more than three eighths of the slots of spans in this set are free, and none of their
/// pages went back.
fn is_loose(set: Set) -> bool {
    (LOOSE_BUCKET..Set::RELEASED.0).contains(&set.0)
}

/// Free slots from which on a span of `set` belongs into another one: all of its slots, if not
/// before.
fn moves_at(set: Set, geometry: &Geometry) -> u16 {
    let next_bucket = match set {
        Set::FULL => return 1,
        Set::RELEASED => return geometry.slots as u16,
        Set(bucket) => u32::from(bucket) + 1,
    };
    let first_of_next = (next_bucket << 16).div_ceil(geometry.bucket_scale);
    if next_bucket == BUCKETS as u32 {
        return geometry.slots as u16;
    }
    first_of_next.min(geometry.slots) as u16
}

impl SpanSet {
    pub(crate) const fn new() -> Self {
        Self {
            heads: [None; BUCKETS + 2],
            nonempty: 0,
            partial: 0,
            loose: 0,
            least_loose: 0,
            idle: 0,
            full: 0,
            free_slots: 0,
            made: 0,
            gone: 0,
            noted: Noted {
                spans: 0,
                taken: 0,
                freed: 0,
            },
        }
    }

    /// A fresh span, checked out, is one of this set from here on.
    pub(crate) fn add_made(&mut self) {
        self.made += 1;
    }

    /// What the set counts.
    pub(crate) fn tally(&self) -> SetTally {
        SetTally {
            spans: self.made.saturating_sub(self.gone),
            partial: u64::from(self.partial),
            full: u64::from(self.full),
            free_slots: self.free_slots,
            made: self.made,
        }
    }

    /// Spans with a free slot.
    pub(crate) fn partial_spans(&self) -> u32 {
        self.partial
    }

    /// Whether much of the memory of the spans here is free slots, so that objects should move
    /// together: allocations to the fullest spans, and frees to the spans at once. `freed` is how many slots
    /// were freed to this set so far: if many were, and its spans and objects are as many as before, then what
    /// keeps the spans are objects that stay, and it is no use; but for another try now and then.
    pub(crate) fn is_sparse(&mut self, freed: u64, geometry: &Geometry) -> bool {
        let listed = self.partial + self.full;
        if self.loose <= LOOSE_MAX || self.loose < listed / LOOSE_DIVISOR {
            // Half of that is another peak, and not the same one again.
            if self.loose <= LOOSE_MAX / 2 || self.loose < listed / LOOSE_DIVISOR / 2 {
                self.noted.spans = 0;
            }
            return false;
        }
        let taken = u64::from(listed) * u64::from(geometry.slots) - self.free_slots;
        let spans = self.made.saturating_sub(self.gone);
        let before = &self.noted;
        // Fewer objects only: those of a thread come and go between shards, with its CPU.
        if spans.abs_diff(before.spans) > before.spans / CHANGE_DIVISOR
            || taken < before.taken - before.taken / CHANGE_DIVISOR
        {
            self.noted = Noted {
                spans,
                taken,
                freed,
            };
        }
        let turns = (freed - self.noted.freed) / taken.max(1);
        turns % TURNS_UNTIL_NEXT_TRY < TURNS
    }

    /// Takes one of the fullest partial spans out.
    ///
    /// # Safety
    /// The caller holds the lock that guards this set and its spans.
    pub(crate) unsafe fn pop_fullest(&mut self) -> Option<&'static MSpan> {
        if self.nonempty == 0 {
            return None;
        }
        let head = self.heads[self.nonempty.trailing_zeros() as usize];
        // SAFETY: records live for ever; the head of a list is a span of this set.
        let span = unsafe { head?.as_ref() };
        // SAFETY: the caller's promise; the span is in this set.
        unsafe { self.unlink(span) };
        Some(span)
    }

    /// Puts a span that is in no list where its free slots say. Returns false, and leaves it out,
    /// if all its slots are free.
    ///
    /// # Safety
    /// * The caller holds the lock that guards this set and `span`.
    /// * `span` is in no list.
    pub(crate) unsafe fn insert(&mut self, span: &'static MSpan, geometry: &Geometry) -> bool {
        // SAFETY: the caller's promise.
        let free = unsafe { span.shared() }.free_slots;
        if u32::from(free) == geometry.slots {
            self.gone += 1;
            return false;
        }
        // SAFETY: the caller's promise.
        unsafe { self.link(span, geometry) };
        true
    }

    /// Begins a round: as many loose spans are idle as nobody needed in the last one.
    pub(crate) fn begin_round(&mut self) {
        self.idle = core::mem::replace(&mut self.least_loose, self.loose);
    }

    /// Takes one of the emptiest loose spans out, if there are idle ones.
    ///
    /// # Safety
    /// As for [`Self::pop_fullest`].
    pub(crate) unsafe fn pop_idle(&mut self) -> Option<&'static MSpan> {
        self.idle = self.idle.checked_sub(1)?;
        let loose = usize::from(LOOSE_BUCKET)..BUCKETS;
        let head = self.heads[loose].iter().rev().find_map(|head| *head)?;
        // SAFETY: records live for ever; the head of a list is a span of this set.
        let span = unsafe { head.as_ref() };
        // SAFETY: the caller's promise; the span is in this set.
        unsafe { self.unlink(span) };
        Some(span)
    }

    /// Puts a span that is in no list among those with released slots. Returns false, and leaves it
    /// out, if all its slots are free.
    ///
    /// # Safety
    /// As for [`Self::insert`].
    pub(crate) unsafe fn insert_released(
        &mut self,
        span: &'static MSpan,
        geometry: &Geometry,
    ) -> bool {
        // SAFETY: the caller's promise.
        if u32::from(unsafe { span.shared() }.free_slots) == geometry.slots {
            self.gone += 1;
            return false;
        }
        // SAFETY: the caller's promise.
        unsafe { self.link_to(Set::RELEASED, span, geometry) };
        true
    }

    /// As many slots of spans in lists were freed, and no span moves.
    pub(crate) fn add_freed(&mut self, slots: usize) {
        self.free_slots += slots as u64;
    }

    /// Moves a span to where its free slots say, after `freed` of them were freed. Returns true if all its slots
    /// are free; it is in no list then, and the caller's.
    ///
    /// # Safety
    /// The caller holds the lock that guards this set and `span`, a span of this set or a checked
    /// out one.
    #[inline]
    pub(crate) unsafe fn update(
        &mut self,
        span: &'static MSpan,
        geometry: &Geometry,
        freed: u16,
    ) -> bool {
        let (free, moves_at, set) = {
            // SAFETY: the caller's promise; the reference ends with this block.
            let shared = unsafe { span.shared() };
            (shared.free_slots, shared.moves_at, shared.set)
        };
        if !set.is_listed() {
            return false;
        }
        self.free_slots += u64::from(freed);
        if free < moves_at {
            return false;
        }
        let all_free = u32::from(free) == geometry.slots;
        self.gone += u64::from(all_free);
        // SAFETY: the caller's promise; the span is in a list.
        unsafe { self.relink(span, geometry, all_free) };
        all_free
    }

    /// Moves a span to the list where its free slots say, or out if it is `all_free`.
    ///
    /// # Safety
    /// The caller holds the lock of this set; `span` is in the list that its `set` names.
    unsafe fn relink(&mut self, span: &'static MSpan, geometry: &Geometry, all_free: bool) {
        // SAFETY: the caller's promise; after `unlink` the span is in no list.
        unsafe {
            self.unlink(span);
            if !all_free {
                self.link(span, geometry);
            }
        }
    }

    /// Puts a span into the list where its free slots say.
    ///
    /// # Safety
    /// The caller holds the lock of this set; `span` is in no list, and not all its slots are free.
    unsafe fn link(&mut self, span: &'static MSpan, geometry: &Geometry) {
        // SAFETY: the caller's promise; the reference ends with this statement.
        let free = unsafe { span.shared() }.free_slots;
        // SAFETY: the caller's promise.
        unsafe { self.link_to(set_for(free, geometry), span, geometry) };
    }

    /// Puts a span into a list.
    ///
    /// # Safety
    /// As for [`Self::link`].
    unsafe fn link_to(&mut self, set: Set, span: &'static MSpan, geometry: &Geometry) {
        // SAFETY: the caller's promise; the reference ends before another is made.
        let shared = unsafe { span.shared() };
        let index = usize::from(set.0);
        let old = self.heads[index].replace(NonNull::from(span));
        (shared.prev, shared.next) = (None, old);
        (shared.set, shared.moves_at) = (set, moves_at(set, geometry));
        self.free_slots += u64::from(shared.free_slots);
        if let Some(old) = old {
            // SAFETY: `old` is another span of this set, under the same lock.
            unsafe { old.as_ref().shared() }.prev = Some(NonNull::from(span));
        }
        if set == Set::FULL {
            self.full += 1;
            return;
        }
        self.partial += 1;
        self.loose += u32::from(is_loose(set));
        self.nonempty |= 1 << index;
    }

    /// # Safety
    /// The caller holds the lock of this set; `span` is in the list that its `set` names.
    unsafe fn unlink(&mut self, span: &'static MSpan) {
        // SAFETY: the caller's promise; the reference ends before another is made.
        let (prev, next, set) = {
            // SAFETY: the caller's promise; the reference ends with this block.
            let shared = unsafe { span.shared() };
            let links = (shared.prev, shared.next, shared.set);
            self.free_slots -= u64::from(shared.free_slots);
            (shared.prev, shared.next) = (None, None);
            (shared.set, shared.moves_at) = (Set::NONE, 0);
            links
        };
        if let Some(next) = next {
            // SAFETY: a neighbour is another span of this set, under the same lock.
            unsafe { next.as_ref().shared() }.prev = prev;
        }
        match prev {
            // SAFETY: as above.
            Some(prev) => unsafe { prev.as_ref().shared() }.next = next,
            None => self.heads[usize::from(set.0)] = next,
        }
        if set == Set::FULL {
            self.full -= 1;
        } else {
            self.partial -= 1;
            self.loose -= u32::from(is_loose(set));
            self.least_loose = self.least_loose.min(self.loose);
            if self.heads[usize::from(set.0)].is_none() {
                self.nonempty &= !(1 << set.0);
            }
        }
    }
}
