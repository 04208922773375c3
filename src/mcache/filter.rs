//! Whether an object waits in a magazine already: what makes a double free visible at the second free.
//!
//! Briggs and Torczon's sparse set, by hash: a table of *notes*, one for each hash of an address, each of
//! which says in which slot an object of that hash was left last. An object waits in a magazine if the
//! slot of its note is at or below the magazine's top, and holds it. So a note needs no clearing when
//! the object is handed out, which costs nothing therefore: the slot is above the top then, or another
//! object's. A note that is overwritten, and an object that came into the magazine by a refill or was
//! moved by a flush, is a miss, and no more: the bits of the span tell when the object is there.
//!
//! A note is the slot's [`Place`] in its mcache, which is smaller than 64 KiB. Zero is the place of the mcache's first
//! word, which is no object's address.
//!
//! Invariants:
//!
//! 1. A note is the place of a slot of this mcache, or zero.
//! 2. Who is accused is guilty: what slots hold up to the top is free, whatever the notes say.

use core::cell::Cell;

use super::magazine::Place;
use super::{Face, MCache};
use crate::base::size_class::SizeClass;

/// Notes of an mcache. A note outlives `n` frees of other objects with a probability of about
/// `1 - n / NOTES`. 1,024, 2,048 and 4,096 of them made 2, 6 and 18 % more misses of the first cache in
/// `fifo` of the bench.
const NOTES: usize = 2048;
/// An odd number near 2^32 divided by the golden ratio: neighbouring objects get notes far apart.
const MULTIPLIER: u32 = 0x9e37_79b1;

/// Objects that are noted again when a flush has moved them: double frees are mostly of what was freed a
/// moment ago. All of them cost 5.6 instructions a free, of 73, in bulk at random.
const NOTED_AGAIN: usize = 16;

/// The notes. Zero bytes are valid.
pub(super) struct Filter([Cell<u16>; NOTES]);

impl Filter {
    /// The note of an object.
    #[inline(always)] // Part of the fast path of a free.
    pub(super) fn note_of(&self, object: *mut u8) -> &Cell<u16> {
        let hash = (object.addr() as u32).wrapping_mul(MULTIPLIER);
        &self.0[(hash >> (u32::BITS - NOTES.ilog2())) as usize]
    }
}

impl MCache {
    /// Whether an object waits in the magazine of a class, as far as the notes tell.
    pub(crate) fn waits(&self, class: SizeClass, object: *mut u8) -> bool {
        let note = Place::of_note(self.filter.note_of(object).get());
        let noted = note.min(self.magazines.get(class).top());
        let zero = self.place(class, 0);
        let slots = self.slots_of(class);
        noted > zero
            && slots
                .get(noted.slots_above(zero))
                .is_some_and(|slot| slot.get() == object)
    }

    /// Leaves an object that does not wait there in a magazine. False if the magazine is full.
    pub(super) fn push(&self, class: SizeClass, object: *mut u8) -> bool {
        let has_room = Face::of(self).push_unnoted(class, object);
        if has_room {
            let top = self.magazines.get(class).top();
            self.filter.note_of(object).set(top.to_note());
        }
        has_room
    }

    /// Notes the slots of the newest objects of a class, which have moved.
    pub(super) fn note_newest(&self, class: SizeClass) {
        let len = self.len(class);
        for index in 1 + len.saturating_sub(NOTED_AGAIN)..=len {
            let note = self.filter.note_of(self.slots_of(class)[index].get());
            note.set(self.place(class, index).to_note());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;
    use crate::base::size_class::class_for;
    use crate::{malloc, runtime};
    use std::vec::Vec;

    const SIZE: usize = 144;

    fn alloc() -> *mut u8 {
        malloc::alloc(SIZE, 8)
    }

    fn free(object: *mut u8) {
        // SAFETY: the tests free what they allocated with that size, once.
        unsafe { malloc::free(object, SIZE, 8) }
    }

    /// From here on no object is exchanged for a sample.
    fn take_no_samples() {
        #[cfg(feature = "profile")]
        crate::config::set_profile_rate(0);
    }

    fn waits(object: *mut u8) -> bool {
        runtime::mcache().is_some_and(|mcache| mcache.waits(class_for(SIZE, 8), object))
    }

    #[test]
    fn an_object_waits_from_its_free_to_its_next_allocation() {
        alone(|| {
            take_no_samples();
            let objects: Vec<_> = (0..6).map(|_| alloc()).collect();
            assert!(!objects.iter().any(|object| waits(*object)));
            objects.iter().for_each(|object| free(*object));
            assert!(objects.iter().all(|object| waits(*object)));
            for left in (0..objects.len()).rev() {
                let object = alloc();
                assert_eq!(object, objects[left], "the newest first");
                assert!(!waits(object));
                assert!(objects[..left].iter().all(|object| waits(*object)));
            }
            objects.iter().for_each(|object| free(*object));
        });
    }

    #[test]
    fn the_newest_objects_are_known_after_a_flush() {
        alone(|| {
            take_no_samples();
            let objects: Vec<_> = (0..4000).map(|_| alloc()).collect();
            let class = class_for(SIZE, 8);
            let mut len = 0;
            let mut flushes = 0;
            for (freed, object) in objects.iter().enumerate() {
                free(*object);
                let left = runtime::mcache().map_or(0, |mcache| mcache.len(class));
                if left < len {
                    flushes += 1;
                    let newest = left.min(NOTED_AGAIN);
                    let newest = &objects[freed + 1 - newest..=freed];
                    assert!(newest.iter().all(|object| waits(*object)));
                }
                len = left;
            }
            assert!(flushes > 5);
        });
    }
}
