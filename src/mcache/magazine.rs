//! The magazines of a thread: stacks of pointers to free objects. How an object is taken and left, their
//! [`face`](super::face) knows.
//!
//! A magazine says by [`Place`]s, offsets from the face, where its newest object is and how far it goes: half the
//! bytes of pointers, and a class is an index of them that needs no shift. Slot 0 of each holds null for ever. An
//! unused magazine has the place of the face's first word for both, which is null as well: it is empty and full at
//! once, and neither operation writes to it.

#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr::{self, NonNull};

use super::MCache;
use crate::base::size_class::{MAGAZINES, SizeClass};
use crate::profile::SAMPLE_ALIGN;
#[cfg(feature = "profile")]
use crate::profile::sampling::Sampling;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A free object, or null in slot 0.
pub(super) type Slot = Cell<*mut u8>;

/// Where a slot is: bytes from the beginning of the face. Fits in 16 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u32);

impl Place {
    /// The face's first word, which is null for ever.
    pub(super) const NULL: Self = Self(0);

    /// The slot that begins so many bytes from the face.
    pub(super) const fn at(bytes: usize) -> Self {
        Self(bytes as u32)
    }

    /// Bytes from the face.
    #[inline(always)] // Part of the fast paths, as those below.
    pub(super) const fn bytes(self) -> usize {
        self.0 as usize
    }

    /// The slot above.
    #[inline(always)]
    pub(super) const fn above(self) -> Self {
        Self(self.0 + size_of::<Slot>() as u32)
    }

    /// The slot below one that is not slot 0.
    #[inline(always)]
    pub(super) const fn below(self) -> Self {
        Self(self.0 - size_of::<Slot>() as u32)
    }

    /// Slots from another one of the same magazine up to this one.
    pub(super) const fn slots_above(self, other: Self) -> usize {
        (self.0 - other.0) as usize / size_of::<Slot>()
    }

    /// As a note of the filter.
    #[inline(always)]
    pub(super) const fn to_note(self) -> u16 {
        self.0 as u16
    }

    /// What [`Self::to_note`] was made of.
    #[inline(always)]
    pub(super) const fn of_note(note: u16) -> Self {
        Self(note as u32)
    }
}

/// A stack of free objects of one class. **Owner only.** Zero bytes are an unused one.
#[repr(C, align(8))]
pub(crate) struct Magazine {
    /// The newest object, or slot 0. Atomic for [`mod@crate::stats`], which reads it from any thread.
    top: AtomicU32,
    /// The last slot in use.
    pub(super) limit: Cell<Place>,
}

/// The part of an mcache that the fast paths read. Zero bytes are valid: unused magazines of no mcache.
#[repr(C, align(64))]
pub(crate) struct Magazines {
    /// Slot 0 of all unused magazines. Never written.
    null: Slot,
    all: [Magazine; MAGAZINES],
    /// The mcache that they are a face of; the sentinels have none. **Fixed after init.**
    pub(crate) mcache: Cell<Option<NonNull<MCache>>>,
    /// When this thread comes to a sample point.
    #[cfg(feature = "profile")]
    pub(crate) sampling: Sampling,
}

/// Whether what was popped is not to be handed out at once: null, or, with the heap profile, an object where
/// sampled ones are placed ([`profile`](crate::profile)).
#[inline(always)] // Part of the fast path.
pub(crate) fn is_rare(object: *mut u8) -> bool {
    if cfg!(feature = "profile") {
        object.addr().is_multiple_of(SAMPLE_ALIGN)
    } else {
        object.is_null()
    }
}

// SAFETY: the statics of this type are never written; see `Face::pop` and `Face::push`, which reach
// the slow calls without a write when a magazine is unused.
unsafe impl Sync for Magazines {}

/// What a thread has before its first slow call.
pub(crate) static EMPTY: Magazines = Magazines::UNUSED;
/// What a thread has after its mcache was detached: it gets none again.
pub(crate) static DETACHED: Magazines = Magazines::UNUSED;

impl Magazines {
    #[allow(clippy::declare_interior_mutable_const)] // As above.
    const UNUSED: Self = Self {
        null: Cell::new(ptr::null_mut()),
        all: [const { Magazine::UNUSED }; MAGAZINES],
        mcache: Cell::new(None),
        #[cfg(feature = "profile")]
        sampling: Sampling::NONE,
    };

    /// The magazine of a class.
    #[inline(always)] // Part of the fast path.
    pub(super) fn get(&self, class: SizeClass) -> &Magazine {
        // SAFETY: a class is below `MAGAZINES`, the length of the array.
        unsafe { self.all.get_unchecked(class.index()) }
    }

    /// Counts an allocation of `size` bytes by a thread with an mcache; whether it is one to sample.
    #[inline(always)] // Part of the fast path.
    pub(crate) fn counts_down(&self, size: usize) -> bool {
        #[cfg(feature = "profile")]
        return self.sampling.counts_down(size);
        #[cfg(not(feature = "profile"))]
        {
            let _ = size;
            false
        }
    }

    /// Whether [`Self::counts_down`] would say so, without counting.
    #[inline(always)] // Part of the fast path.
    pub(crate) fn would_be_due(&self, size: usize) -> bool {
        #[cfg(feature = "profile")]
        return self.sampling.would_be_due(size);
        #[cfg(not(feature = "profile"))]
        {
            let _ = size;
            false
        }
    }
}

impl Magazine {
    #[allow(clippy::declare_interior_mutable_const)] // A value to start from, never used in place.
    const UNUSED: Self = Self {
        top: AtomicU32::new(Place::NULL.0),
        limit: Cell::new(Place::NULL),
    };

    /// The newest object's slot, or slot 0.
    #[inline(always)] // Part of the fast paths.
    pub(super) fn top(&self) -> Place {
        // Relaxed: written by the owner only; others that read it look at the place alone.
        Place(self.top.load(Relaxed))
    }

    /// Sets the newest object's slot.
    #[inline(always)] // As above.
    pub(super) fn set_top(&self, top: Place) {
        self.top.store(top.0, Relaxed);
    }

    /// Whether it is not full.
    #[inline(always)] // As above.
    pub(super) fn has_room(&self) -> bool {
        self.top() != self.limit.get()
    }

    /// Makes it an unused one.
    pub(super) fn end_use(&self) {
        self.set_top(Place::NULL);
        self.limit.set(Place::NULL);
    }
}
