//! What a thread has in its slot, and the fast paths: how an object is taken from a magazine, and left in one.

#![allow(unsafe_code)]

use core::ops::Deref;
use core::ptr::NonNull;

use super::MCache;
use super::magazine::{Magazine, Magazines, Place, Slot, is_rare};
use crate::base::size_class::SizeClass;

/// The magazines of a thread's mcache, or a sentinel's.
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
        // The first field, by a pointer to the whole: slots and notes are reached from it.
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

    /// A slot of the face.
    ///
    /// # Safety
    /// The place is a magazine's of this face: one of a whole mcache, or the first word.
    #[inline(always)] // Part of the fast paths.
    pub(super) unsafe fn slot(&self, place: Place) -> &Slot {
        // SAFETY: the caller's promise: inside of what the face was made of.
        unsafe {
            let slot = self.0.cast::<u8>().add(place.bytes());
            slot.cast::<Slot>().as_ref()
        }
    }

    /// Takes the newest object of a class. What [`is_rare`] stays there: a null, since there is none, or an object
    /// that wants a closer look.
    #[inline(always)] // The fast path of an allocation.
    pub(crate) fn pop(self, class: SizeClass) -> *mut u8 {
        let magazine = self.get(class);
        let top = magazine.top();
        // SAFETY: `top` is the place of a slot of this magazine (Invariant 2), or of a slot 0.
        let object = unsafe { self.slot(top) }.get();
        if !is_rare(object) {
            // The slot is not slot 0, which holds null, so there is one below it.
            magazine.set_top(top.below());
        }
        object
    }

    /// As [`Self::pop`], whatever the object is; null if there is none.
    pub(super) fn pop_any(self, class: SizeClass) -> *mut u8 {
        let magazine = self.get(class);
        let top = magazine.top();
        // SAFETY: as in `pop`.
        let object = unsafe { self.slot(top) }.get();
        if !object.is_null() {
            magazine.set_top(top.below());
        }
        object
    }

    /// Whether the magazine of a class is not full.
    #[cfg(feature = "preload")]
    #[inline(always)] // Part of the free of a watched object, as the next one.
    pub(crate) fn has_room(self, class: SizeClass) -> bool {
        self.get(class).has_room()
    }

    /// Puts an object on top of the magazine of its class, without a note. False if the magazine is full.
    #[inline(always)]
    pub(crate) fn push_unnoted(self, class: SizeClass, object: *mut u8) -> bool {
        let magazine = self.get(class);
        let has_room = magazine.has_room();
        if has_room {
            // SAFETY: it has room.
            unsafe { self.put(magazine, magazine.top(), object) };
        }
        has_room
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
        // SAFETY: a magazine below its limit is one of an mcache's first field, and the face is made of a
        // pointer to the whole mcache (`Face::of`).
        let filter = unsafe { &(*self.0.cast::<MCache>().as_ptr()).filter };
        let note = filter.note_of(object);
        // Where the note is above the top, the top itself is looked at: no branch that nobody can predict.
        let noted = Place::of_note(note.get()).min(top);
        // SAFETY: the place of a slot of the mcache, or its first word (the filter's Invariant 1).
        if unsafe { self.slot(noted) }.get() == object {
            return false;
        }
        // SAFETY: the top is below the limit.
        note.set(unsafe { self.put(magazine, top, object) }.to_note());
        true
    }

    /// Puts an object on top of a magazine; where it is.
    ///
    /// # Safety
    /// The magazine is the face's, and `top` its top and not the limit.
    #[inline(always)] // Part of the fast path of a free.
    unsafe fn put(self, magazine: &Magazine, top: Place, object: *mut u8) -> Place {
        let next = top.above();
        // SAFETY: the caller's promise: `top` is below the limit, so the next slot is one of the magazine.
        unsafe { self.slot(next) }.set(object);
        magazine.set_top(next);
        next
    }
}

const _: () = assert!(core::mem::offset_of!(MCache, magazines) == 0);
const _: () = assert!(size_of::<MCache>() <= 1 << u16::BITS);
