//! Which watched objects the program has: a note for each unit of an arena, written when such an object is handed
//! out and when it is given back. What a second free of it is seen by, whichever threads free.
//!
//! One note serves all objects that begin in a unit of memory, of which there is one at a time: each is longer. It is
//! written by who is about to hand the object out, and by who has just been given it back, and the way that the
//! object takes between them orders them. So who frees what it has finds its note, however threads run. Of two
//! threads that free one object in the same moment, both may find it: an exchange would be a locked instruction.

#![allow(unsafe_code)]

use super::{ARENA_BYTES, entry_of, untagged};
use crate::base::size_class::{SizeClass, WATCHED_FROM_BYTES};
use crate::sync::atomic::{
    AtomicU16,
    Ordering::{Acquire, Relaxed},
};

/// The notes of an arena. All-zero bytes are valid: the program has none of its objects.
pub(super) struct Held([AtomicU16; UNITS]);

/// What every address of a watched object is a multiple of.
const WATCHED_ALIGN: usize = 128;
const _: () = assert!(WATCHED_FROM_BYTES / WATCHED_ALIGN <= 1 << u8::BITS);

/// Units of an arena.
const UNITS: usize = ARENA_BYTES / WATCHED_FROM_BYTES;
/// Units whose notes lie together: those of a span of 16 KiB.
const UNITS_TOGETHER: usize = 4;
/// Cache lines of notes in an arena's record.
const NOTE_LINES: usize = UNITS * size_of::<AtomicU16>() / 64;

/// Where the note of a unit is, of those of the arena. Neighbouring spans have theirs in different cache lines: two
/// threads that use them write the notes all the time (`mstress-2` of the bench took 8 % longer with notes in the
/// order of addresses).
#[inline]
const fn place_of_unit(unit: usize) -> usize {
    let (group, rest) = (unit / UNITS_TOGETHER, unit % UNITS_TOGETHER);
    let groups_a_line = UNITS / UNITS_TOGETHER / NOTE_LINES;
    (group % NOTE_LINES * groups_a_line + group / NOTE_LINES) * UNITS_TOGETHER + rest
}

/// The note of the unit of an address; `None` outside arenas.
#[inline]
fn held_at(address: usize) -> Option<&'static AtomicU16> {
    // Acquire as in `place_of`.
    let arena = untagged(entry_of(address)?.load(Acquire))?;
    let Held(notes) = &arena.held;
    Some(&notes[place_of_unit(address / WATCHED_FROM_BYTES % UNITS) % UNITS])
}

/// The note of an object of a class that begins at an address: the class, and the place in the unit. Of an address
/// where no watched object can begin, more than a note can be: the bits that have to be zero come to the top.
#[inline]
fn note_of(class: u32, address: usize) -> u32 {
    let offset = (address % WATCHED_FROM_BYTES) as u32;
    class << u8::BITS | offset.rotate_right(WATCHED_ALIGN.ilog2())
}

/// The class that a note tells of the object at an address. `None` if the note is another one's, or zero.
#[inline]
fn class_of_note(note: u16, address: usize) -> Option<SizeClass> {
    let class = note >> u8::BITS;
    if class == 0 || note_of(u32::from(class), address) != u32::from(note) {
        return None;
    }
    // SAFETY: `note_held` put the index of a class there.
    Some(unsafe { core::mem::transmute::<u8, SizeClass>(class as u8) })
}

/// Notes that the program gets an object of a watched class. What is in no arena, as null, is left alone.
#[inline]
pub(crate) fn note_held(class: SizeClass, address: usize) {
    if let Some(held) = held_at(address) {
        // Relaxed, here and below: a note publishes nothing, and its reader has the object since.
        held.store(note_of(class.index() as u32, address) as u16, Relaxed);
    }
}

/// Notes that the program gives back the object of a watched class at `address`, which may be anything. False if the
/// program has none there.
#[inline]
pub(crate) fn give_back_held(class: SizeClass, address: usize) -> bool {
    let Some(held) = held_at(address) else {
        return false;
    };
    let is_held = u32::from(held.load(Relaxed)) == note_of(class.index() as u32, address);
    if is_held {
        held.store(0, Relaxed);
    }
    is_held
}

/// Notes that the program gives back the watched object at `address`, which may be anything; its class. `None` if the
/// program has none there.
#[cfg(any(feature = "preload", test))]
pub(crate) fn take_held(address: usize) -> Option<SizeClass> {
    held_class(address).filter(|class| give_back_held(*class, address))
}

/// The class of the watched object that the program has at `address`, which may be anything.
#[inline]
pub(crate) fn held_class(address: usize) -> Option<SizeClass> {
    class_of_note(held_at(address)?.load(Relaxed), address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::size_class::CLASSES;
    use core::ptr;
    use std::vec::Vec;

    #[test]
    fn each_unit_has_a_note_and_neighbouring_spans_none_in_one_line() {
        let mut places: Vec<_> = (0..UNITS).map(place_of_unit).collect();
        let lines = |unit: usize| place_of_unit(unit) * size_of::<AtomicU16>() / 64;
        for unit in (0..UNITS - UNITS_TOGETHER).step_by(UNITS_TOGETHER) {
            assert_eq!(lines(unit), lines(unit + UNITS_TOGETHER - 1));
            assert_ne!(lines(unit), lines(unit + UNITS_TOGETHER));
        }
        places.sort_unstable();
        assert!(places.into_iter().eq(0..UNITS));
    }

    #[test]
    fn a_watched_object_is_held_from_its_allocation_to_its_free() {
        for class in (1..CLASSES)
            .map(SizeClass::new)
            .filter(|it| it.is_watched())
        {
            let size = class.object_bytes();
            let objects = [(); 20].map(|()| crate::malloc::alloc(size, 8).expose_provenance());
            for (index, object) in objects.iter().enumerate() {
                assert_eq!(held_class(*object), Some(class));
                for offset in [1, 8, 16, 64, WATCHED_ALIGN, WATCHED_FROM_BYTES, size - 1] {
                    assert_eq!(held_class(object + offset), None, "{class:?}, {offset}");
                }
                if index % 2 == 0 {
                    assert_eq!(take_held(*object), Some(class));
                    assert_eq!(take_held(*object), None);
                    note_held(class, *object);
                }
            }
            for object in objects {
                let object = ptr::with_exposed_provenance_mut(object);
                // SAFETY: allocated above with that size.
                unsafe { crate::malloc::free(object, size, 8) };
                assert_eq!(held_class(object.addr()), None);
            }
        }
        assert_eq!(held_class(0), None);
        assert_eq!(held_class(usize::MAX), None);
    }
}
