//! Slots that become free: one, a run of neighbours, or one of objects that lie anywhere.

#![allow(unsafe_code)]

use super::{MSpan, WORDS};
use crate::base::fatal::Crime;
use crate::base::size_class::Geometry;

/// What came of a free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freed {
    /// The slot is free.
    Done,
    /// It was free before.
    Twice,
}

/// What came of a free by who knows nothing of the span but what all have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FreedInPlace {
    /// The slot is free, and the span in the set in which it was.
    Done,
    /// It was free before.
    Twice,
    /// Nothing is done: the span is checked out, or belongs into another set with one more free slot.
    Moves,
}

impl MSpan {
    /// Marks a taken slot as free, in the shared half.
    ///
    /// # Safety
    /// As for [`Self::shared`].
    #[inline]
    pub(crate) unsafe fn free_slot(&self, slot: usize) -> Freed {
        // SAFETY: the caller's promise.
        let shared = unsafe { self.shared() };
        let done = shared.set_free(slot, 1);
        shared.free_slots += done as u16;
        if done == 1 { Freed::Done } else { Freed::Twice }
    }

    /// Frees the first of `objects`, which lies in this span, and those behind it that lie in the
    /// slots one after the other, upwards or downwards from its own; their number, and the crime if the
    /// one behind them is no taken object of the span.
    ///
    /// # Safety
    /// As for [`Self::shared`].
    #[inline(always)] // The loop over a batch is all that calls it.
    pub(crate) unsafe fn free_neighbours(
        &self,
        geometry: &Geometry,
        objects: &[*mut u8],
    ) -> (usize, Option<Crime>) {
        let Some(object) = objects.first() else {
            return (0, None);
        };
        let slot_bytes = geometry.slot_bytes as usize;
        let Some(slot) = self.slot_of(geometry, *object) else {
            return (0, Some(Crime::InteriorPointer));
        };
        let next = objects.get(1).map_or(0, |next| next.addr());
        if next == object.addr().wrapping_add(slot_bytes)
            || next == object.addr().wrapping_sub(slot_bytes)
        {
            // SAFETY: the caller's promise.
            return unsafe { self.free_run(geometry, slot, objects) };
        }
        // SAFETY: as above.
        let shared = unsafe { self.shared() };
        let freed = shared.set_free(slot, 1);
        shared.free_slots += freed as u16;
        (freed, (freed == 0).then_some(Crime::DoubleFree))
    }

    /// Marks a taken slot as free if the span is in a set and stays there.
    ///
    /// # Safety
    /// As for [`Self::shared`].
    #[inline(always)] // The loop over objects that lie anywhere is all that calls it.
    pub(crate) unsafe fn free_in_place(&self, slot: usize) -> FreedInPlace {
        // SAFETY: the caller's promise.
        let shared = unsafe { self.shared() };
        let free_slots = shared.free_slots + 1;
        if free_slots >= shared.moves_at {
            return FreedInPlace::Moves;
        }
        // As in `set_free`; the private half of a span in a set is empty.
        let word = slot / 64 % WORDS;
        let free = shared.words[word];
        let with_slot = free | 1 << (slot % 64);
        if with_slot == free {
            return FreedInPlace::Twice;
        }
        shared.words[word] = with_slot;
        shared.summary |= 1 << word;
        shared.free_slots = free_slots;
        FreedInPlace::Done
    }

    /// The slot that an object is. `None` if it is none.
    #[inline(always)] // As above.
    pub(crate) fn slot_of(&self, geometry: &Geometry, object: *mut u8) -> Option<usize> {
        let offset = object.addr().wrapping_sub(self.base().addr());
        // Below the index are the remainder, times the reciprocal, and what that was rounded up by: see
        // `arena::is_multiple`. The offset fits 32 bits: the object lies in the span.
        let product = (offset as u64).wrapping_mul(u64::from(geometry.reciprocal));
        let is_slot = (product as u32) < geometry.reciprocal;
        let is_inside = product < u64::from(geometry.slots) << 32;
        (is_slot && is_inside).then_some((product >> 32) as usize)
    }

    /// [`Self::free_neighbours`] where the first object, of `slot`, has a neighbour behind it. A call of its
    /// own, as its registers would be memory accesses of the loop over objects that lie anywhere.
    ///
    /// # Safety
    /// As for [`Self::shared`].
    #[inline(never)]
    unsafe fn free_run(
        &self,
        geometry: &Geometry,
        slot: usize,
        objects: &[*mut u8],
    ) -> (usize, Option<Crime>) {
        let slot_bytes = geometry.slot_bytes as usize;
        // SAFETY: the caller's promise.
        let shared = unsafe { self.shared() };
        let down = neighbours(objects, slot_bytes.wrapping_neg(), slot % 64 + 1);
        // If one of them is free, none is marked: they are looked at one by one below.
        if down > 1 && shared.set_free(slot + 1 - down, down) == down {
            shared.free_slots += down as u16;
            return (down, None);
        }
        let most = (64 - slot % 64).min(geometry.slots as usize - slot);
        let run = neighbours(objects, slot_bytes, most);
        let freed = shared.set_free(slot, run);
        shared.free_slots += freed as u16;
        (freed, (freed < run).then_some(Crime::DoubleFree))
    }
}

/// How many objects from the front lie one slot behind the other, at most `most`. Objects that were
/// allocated together are often freed together, and their bits are set together then: 37 to 12
/// instructions an object in bulk.
#[inline]
fn neighbours(objects: &[*mut u8], slot_bytes: usize, most: usize) -> usize {
    let Some(first) = objects.first() else {
        return 0;
    };
    let objects = objects.get(..most).unwrap_or(objects);
    let mut expected = first.addr();
    let mut count = 0;
    // Several at a time, without a branch for each, as long as they all are neighbours.
    for several in objects.chunks_exact(NEIGHBOURS_AT_ONCE) {
        let mut differ = 0;
        let mut here = expected;
        for object in several {
            differ |= object.addr() ^ here;
            here = here.wrapping_add(slot_bytes);
        }
        if differ != 0 {
            break;
        }
        expected = here;
        count += NEIGHBOURS_AT_ONCE;
    }
    for object in objects.get(count..).unwrap_or_default() {
        if object.addr() != expected {
            break;
        }
        expected = expected.wrapping_add(slot_bytes);
        count += 1;
    }
    count
}

/// Objects that [`neighbours`] compares at once.
const NEIGHBOURS_AT_ONCE: usize = 8;
