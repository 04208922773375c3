//! Where an empty magazine gets its objects from: the current span, the depot, spans.

#![allow(unsafe_code)]

use core::ptr;

use super::capacity::Slow;
use super::{Face, MCache};
use crate::base::size_class::SizeClass;
use crate::shards::shard_here;
use crate::sync::atomic::{Ordering::Release, fence};
use crate::{mcentral, tiny};

/// Slow calls of a class in a round from which on a thread has a span of the class for its own.
const BUSY_CALLS: u8 = 4;
/// Bytes of a cache line, which two threads should not both write to.
const CACHE_LINE_BYTES: usize = 64;

impl MCache {
    pub(super) fn refill(&self, class: SizeClass) -> *mut u8 {
        self.note_slow_call(class);
        let here = shard_here();
        let most = self.capacity_for(class, Slow::Refill, here);
        self.grow(class, most);
        let wanted = (self.capacity_of(class) / 2).max(1);
        let filled = if class.is_tiny() {
            self.refill_tiny(class, wanted, most, here)
        } else {
            self.refill_slots(class, wanted, most, here)
        };
        self.counters.refilled[class.index()].add(filled);
        // Pairs with the fence in `stats`: who sees the objects in the magazine sees that they were taken.
        fence(Release);
        self.magazines.get(class).set_top(self.place(class, filled));
        Face::of(self).pop_any(class)
    }

    /// Fills the empty magazine with up to `wanted` objects, lowest on top; their number.
    fn refill_slots(&self, class: SizeClass, wanted: usize, most: usize, here: usize) -> usize {
        let private = &self.current[class.index()];
        let slots = self.slots_of(class);
        let mut left = wanted;
        let mut put = |first: *mut u8, count: usize| {
            let mut object = first.wrapping_add(count * class.object_bytes());
            for slot in &slots[left - count + 1..=left] {
                object = object.wrapping_sub(class.object_bytes());
                slot.set(object);
            }
            left -= count;
        };
        let mut taken = 0;
        if let Some(span) = private.span() {
            taken = mcentral::take_private(span, private, class.geometry(), wanted, &mut put);
            self.counters.from_current_span.add(taken);
        }
        if taken == 0 {
            if let Some(filled) = self.refill_from_depot(class, most, here) {
                return filled;
            }
            taken = if self.is_busy(class) {
                mcentral::take(class, here, private, wanted, &mut put)
            } else {
                mcentral::take_shared(class, here, wanted, &mut put)
            };
            self.counters.from_spans.add(taken);
        }
        self.counters.taken[class.index()].add(taken);
        if taken < wanted {
            // SAFETY: both ranges are slots of this magazine: `taken` from above `left`, moved down
            // to slot 1.
            unsafe {
                let from = slots.as_ptr().add(wanted - taken + 1);
                ptr::copy(from, slots.as_ptr().add(1).cast_mut(), taken);
            }
        }
        taken
    }

    /// Whether a class has a span of its own in this thread, or should have one. Others share theirs
    /// with all threads, so that a thread that needs a few objects of many classes costs no memory; but
    /// not objects below a cache line, of which two threads would get neighbours (false sharing).
    fn is_busy(&self, class: SizeClass) -> bool {
        class.object_bytes() < CACHE_LINE_BYTES
            || self.current[class.index()].span().is_some()
            || self.calls_in_round[class.index()].get() >= BUSY_CALLS
    }

    /// Fills the empty magazine from a batch of the depot of a shard; the number of objects.
    fn refill_from_depot(&self, class: SizeClass, most: usize, here: usize) -> Option<usize> {
        let mut spare = self.spare.take();
        let Some(mut batch) = mcentral::take_batch(class, here, &mut spare) else {
            self.spare.set(spare);
            return None;
        };
        let objects = batch.get().objects_mut();
        let len = objects.len();
        // A class that exchanges batches has the traffic for a magazine that holds one. If it may
        // not, or the budget does not allow it, what does not fit goes to its spans.
        if self.capacity_of(class) < len {
            self.resize(class, most.min(len * 2).max(self.capacity_of(class)));
        }
        let taken = len.min(self.capacity_of(class));
        for (slot, object) in self.slots_of(class)[1..=taken].iter().zip(&*objects) {
            slot.set(*object);
        }
        mcentral::put(class, objects.get_mut(taken..).unwrap_or_default());
        self.spare.set(Some(batch)); // The depot took the old one in exchange.
        self.counters.from_depot.add(taken);
        Some(taken)
    }

    /// Fills the empty magazine of a tiny class; the number of objects.
    fn refill_tiny(&self, class: SizeClass, wanted: usize, most: usize, here: usize) -> usize {
        if let Some(filled) = self.refill_from_depot(class, most, here) {
            return filled;
        }
        let private = &self.current[SizeClass::TINY_BLOCKS.index()];
        let slots = &self.slots_of(class)[1..=self.capacity_of(class)];
        let (blocks, filled) = tiny::carve(class, here, private, slots, wanted);
        self.counters.from_spans.add(filled);
        self.counters.tiny_blocks.add(blocks);
        // As in `refill`: who sees the objects sees their blocks.
        fence(Release);
        self.counters.taken[class.index()].add(filled);
        filled
    }
}
