//! Allocating and freeing in secure mode: random objects of a magazine, and the quarantine.

#![allow(unsafe_code)]

use core::ptr;

use super::magazine::{Place, Slot};
use super::{Face, MCache, is_rare};
use crate::base::size_class::SizeClass;
use crate::counters::calls;

impl MCache {
    /// One object of `class` from its magazine, a random one if that is asked for. Null if there is none to hand
    /// out at once.
    #[inline(always)] // As all that a call of the secure mode is made of.
    pub(crate) fn pop_secure(&self, class: SizeClass, by_chance: bool) -> *mut u8 {
        let (face, top) = (Face::of(self), self.magazines.get(class).top());
        // SAFETY: the magazine's top is the place of a slot of its.
        let newest = unsafe { face.slot(top) };
        if newest.get().is_null() || calls::are_counted() {
            return ptr::null_mut();
        }
        if by_chance {
            let below = self.random.below(top.slots_above(self.place(class, 0)));
            let chosen = Place::at(top.bytes() - below * size_of::<Slot>());
            // SAFETY: as above: one of the slots from 1 to the top.
            let chosen = unsafe { face.slot(chosen) };
            newest.set(chosen.replace(newest.get()));
        }
        let object = face.pop(class);
        if is_rare(object) {
            return ptr::null_mut(); // It is there still; the profile looks at it first.
        }
        object
    }

    /// Puts a freed object of `class`, which has so many bytes, into quarantine; who leaves it for that, or null.
    #[inline(always)] // As above.
    pub(crate) fn exchange_secure(
        &self,
        class: SizeClass,
        object: *mut u8,
        bytes: usize,
    ) -> (SizeClass, *mut u8) {
        self.quarantine.exchange(class, object, bytes, &self.random)
    }

    /// Whether the quarantine has more bytes than it may.
    #[inline]
    pub(crate) fn has_excess_in_quarantine(&self) -> bool {
        self.quarantine.has_excess()
    }

    /// Has random numbers that nobody can tell. Each thread comes here in a slow call before it needs many.
    pub(crate) fn begin_random(&self) {
        self.random.begin();
    }

    /// Lets the quarantine have no more bytes than it may.
    pub(crate) fn evict_excess(&self) {
        while let Some((class, object)) = self.quarantine.evict_excess(&self.random) {
            self.take_back(class, object);
        }
    }

    /// Puts an object that nobody has into its magazine, whose state says that the program had it: it can't wait
    /// there already, and so needs no note. False if the magazine is full.
    #[inline]
    pub(crate) fn push_secure(&self, class: SizeClass, object: *mut u8) -> bool {
        Face::of(self).push_unnoted(class, object)
    }

    /// As [`Self::push_secure`], wherever a full magazine leads.
    pub(crate) fn take_back(&self, class: SizeClass, object: *mut u8) {
        if !self.push_secure(class, object) {
            self.free_to_full(class, object);
        }
    }

    /// Empties the quarantine.
    pub(super) fn end_quarantine(&self) {
        while let Some((class, object)) = self.quarantine.pop() {
            self.take_back(class, object);
        }
    }

    /// Calls `look` with the class of each object in quarantine, about now. Any thread may ask.
    pub(crate) fn for_each_in_quarantine(&self, look: impl FnMut(SizeClass)) {
        self.quarantine.for_each_class(look);
    }

    /// In the child of a `fork`: other random numbers than the parent's.
    pub(crate) fn forget_random(&self) {
        self.random.begin_anew();
    }
}
