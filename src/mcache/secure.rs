//! Allocating and freeing in secure mode: random objects of a magazine, and the quarantine.

#![allow(unsafe_code)]

use core::ptr;

use super::magazine::Slot;
use super::{MCache, is_rare};
use crate::base::size_class::SizeClass;
use crate::counters::calls;

impl MCache {
    /// One object of `class` from its magazine, a random one if that is asked for. Null if there is none.
    #[inline]
    pub(crate) fn pop_secure(&self, class: SizeClass, by_chance: bool) -> *mut u8 {
        let magazine = self.magazines.get(class);
        let top = magazine.top();
        // SAFETY: slots of this magazine up to its top, which only this thread touches; slot 0 holds no object.
        let newest = unsafe { top.as_ref() };
        if newest.get().is_null() {
            return ptr::null_mut();
        }
        if by_chance {
            let zero = self.slot(class, 0);
            let len = (top.addr().get() - zero.addr().get()) / size_of::<Slot>();
            // SAFETY: as above: one of the slots from 1 to `len`.
            newest.swap(unsafe { zero.add(1 + self.random.below(len)).as_ref() });
        }
        if calls::are_counted() || is_rare(newest.get()) {
            return self.alloc(class);
        }
        magazine.pop()
    }

    /// Takes back an object of `class`, by way of the quarantine if that is asked for. Whether a magazine
    /// was full.
    #[inline]
    pub(crate) fn free_secure(&self, class: SizeClass, object: *mut u8, waits: bool) -> bool {
        if calls::are_counted() {
            self.count_freed(class);
        }
        if !waits {
            return self.take_back(class, object);
        }
        let Some((class, object)) = self.quarantine.exchange(class, object, &self.random) else {
            return false;
        };
        let was_full = self.take_back(class, object);
        was_full | (self.quarantine.has_excess() && self.evict_excess())
    }

    /// Lets the quarantine have no more bytes than it may.
    #[cold]
    #[inline(never)]
    fn evict_excess(&self) -> bool {
        let mut was_full = false;
        while let Some((class, object)) = self.quarantine.evict_excess(&self.random) {
            was_full |= self.take_back(class, object);
        }
        was_full
    }

    /// Puts an object that nobody has into its magazine; whether that was full. It can't wait there already, as
    /// its state says that the program had it, and so needs no note.
    #[inline]
    fn take_back(&self, class: SizeClass, object: *mut u8) -> bool {
        let is_full = !self.magazines.get(class).push(object);
        if is_full {
            self.free_to_full(class, object);
        }
        is_full
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
        self.random.forget();
    }
}
