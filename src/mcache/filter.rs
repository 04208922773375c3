//! Whether an object waits in a magazine already: what makes a double free visible at the second free.
//!
//! Briggs and Torczon's sparse set, by hash: a table of *notes*, one for each hash of an address, each of
//! which says in which slot an object of that hash was left last. An object waits in a magazine if the
//! slot of its note is at or below the magazine's top, and holds it. So a note needs no clearing when
//! the object is handed out, which costs nothing therefore: the slot is above the top then, or another
//! object's. A note that is overwritten, and an object that came into the magazine by a refill or was
//! moved by a flush, is a miss, and no more: the bits of the span tell when the object is there.
//!
//! A note is the lowest 16 bits of the slot's address, since an mcache lies at a multiple of 64 KiB and is
//! smaller. Zero is the mcache's first word, which is no object's address.
//!
//! Invariants:
//!
//! 1. A note is the place of a slot of this mcache, or zero.
//! 2. Who is accused is guilty: what slots hold up to the top is free, whatever the notes say.

#![allow(unsafe_code)]

use core::cell::Cell;
use core::ops::Deref;
use core::ptr::NonNull;

use super::magazine::{Magazine, Magazines, Slot};
use super::{MCACHE_ALIGN, MCache};
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
    fn note_of(&self, object: *mut u8) -> &Cell<u16> {
        let hash = (object.addr() as u32).wrapping_mul(MULTIPLIER);
        &self.0[(hash >> (u32::BITS - NOTES.ilog2())) as usize]
    }
}

/// What a thread has in its slot: its magazines, or a sentinel's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Face(NonNull<Magazines>);

impl Deref for Face {
    type Target = Magazines;

    #[inline(always)] // Part of the fast paths.
    fn deref(&self) -> &Magazines {
        // SAFETY: faces are statics or in mcaches, which live for ever.
        unsafe { self.0.as_ref() }
    }
}

impl Face {
    /// The magazines of an mcache.
    pub(super) fn of(mcache: &MCache) -> Self {
        // The first field, by a pointer to the whole: `push` needs the notes and the slots as well.
        Self(NonNull::from(mcache).cast())
    }

    /// What an mcache has instead while calls are counted, and in secure mode.
    pub(super) fn of_shut(mcache: &MCache) -> Self {
        Self(NonNull::from(&mcache.shut))
    }

    /// The face of a thread without an mcache.
    pub(crate) const fn of_sentinel(sentinel: &'static Magazines) -> Self {
        Self(NonNull::from_ref(sentinel))
    }

    /// # Safety
    /// `word` is [`Self::as_word`] of a face.
    #[inline(always)] // Part of the fast paths.
    pub(crate) unsafe fn from_word(word: NonNull<u8>) -> Self {
        Self(word.cast())
    }

    /// What [`Self::from_word`] makes a face of.
    pub(crate) fn as_word(self) -> NonNull<u8> {
        self.0.cast()
    }

    /// Whether an object waits in the magazine of its class: it was freed by this thread a while ago.
    #[cfg(feature = "preload")]
    pub(crate) fn waits(self, class: SizeClass, object: *mut u8) -> bool {
        // SAFETY: mcaches live for ever, and that of a thread's face is the thread's.
        let mcache = self.mcache.get().map(|mcache| unsafe { mcache.as_ref() });
        mcache.is_some_and(|mcache| mcache.waits(class, object))
    }

    /// Leaves an object in the magazine of its class. False if the magazine is full, or the object seems to
    /// wait there already: one answer for both keeps the call that tells them apart off the fast path.
    #[inline(always)] // The fast path of a free.
    pub(crate) fn push(self, class: SizeClass, object: *mut u8) -> bool {
        let magazine = self.get(class);
        let top = magazine.top();
        if top == magazine.limit.get() {
            return false;
        }
        let first = self.0.cast::<u8>();
        // SAFETY: a magazine below its limit is one of an mcache's first field, and the face is made of a
        // pointer to the whole mcache (`Face::of`).
        let filter = unsafe { &(*first.cast::<MCache>().as_ptr()).filter };
        let note = filter.note_of(object);
        // Where the note is above the top, the top itself is looked at: no branch that nobody can predict.
        let noted = u32::from(note.get()).min(u32::from(place(top))) as usize;
        // SAFETY: a slot of the mcache, or its first word (Invariant 1).
        let holds = unsafe { first.add(noted).cast::<Slot>().as_ref() }.get();
        if holds == object {
            return false;
        }
        put(magazine, top, object, note);
        true
    }
}

/// What a note of a slot is.
#[inline(always)] // Part of the fast path of a free.
fn place(slot: NonNull<Slot>) -> u16 {
    slot.addr().get() as u16
}

/// Puts an object on top of a magazine that has room.
#[inline(always)] // As above.
fn put(magazine: &Magazine, top: NonNull<Slot>, object: *mut u8, note: &Cell<u16>) {
    // SAFETY: the callers have found the top below the limit.
    note.set(place(unsafe { magazine.put(top, object) }));
}

impl MCache {
    /// Whether an object waits in the magazine of a class, as far as the notes tell.
    pub(crate) fn waits(&self, class: SizeClass, object: *mut u8) -> bool {
        let top = self.magazines.get(class).top();
        let noted = usize::from(self.filter.note_of(object).get().min(place(top)));
        let base = NonNull::from(self).addr().get();
        let slots = self.slots.as_ptr().addr();
        let index = (base + noted).wrapping_sub(slots) / size_of::<Slot>();
        let holds = |slot: &Slot| slot.get() == object;
        self.slots.get(index).is_some_and(holds) && {
            let first = self.slots_of(class).as_ptr().addr();
            let first = (first - slots) / size_of::<Slot>() + 1;
            (first..first + self.len(class)).contains(&index)
        }
    }

    /// Leaves an object that does not wait there in a magazine. False if the magazine is full.
    pub(super) fn push(&self, class: SizeClass, object: *mut u8) -> bool {
        let magazine = self.magazines.get(class);
        let top = magazine.top();
        let has_room = top != magazine.limit.get();
        if has_room {
            put(magazine, top, object, self.filter.note_of(object));
        }
        has_room
    }

    /// Notes the slots of the newest objects of a class, which have moved.
    pub(super) fn note_newest(&self, class: SizeClass) {
        let len = self.len(class);
        for slot in &self.slots_of(class)[1 + len.saturating_sub(NOTED_AGAIN)..=len] {
            let note = self.filter.note_of(slot.get());
            note.set(place(NonNull::from(slot)));
        }
    }
}

const _: () = assert!(core::mem::offset_of!(MCache, magazines) == 0);
const _: () = assert!(size_of::<MCache>() <= MCACHE_ALIGN && MCACHE_ALIGN == 1 << u16::BITS);

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
