//! One magazine: a stack of pointers to free objects, and how one is taken. (How one is left, the
//! [`filter`](super::filter) knows.)
//!
//! Slot 0 holds null for ever. An unused magazine has top and limit at a slot 0 that all share: it
//! is empty and full at once, and neither operation writes to it.

#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr::{self, NonNull};

use super::MCache;
use crate::base::size_class::{MAGAZINES, SizeClass};
use crate::profile::SAMPLE_ALIGN;
#[cfg(feature = "profile")]
use crate::profile::sampling::Sampling;
use crate::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// A free object, or null in slot 0.
pub(super) type Slot = Cell<*mut u8>;

/// A stack of free objects of one class. **Owner only.**
#[repr(C)]
pub(crate) struct Magazine {
    /// The newest object, or slot 0. Atomic for [`mod@crate::stats`], which reads it from any thread.
    top: AtomicPtr<Slot>,
    /// The last slot in use.
    pub(super) limit: Cell<NonNull<Slot>>,
}

/// A slot 0 that all unused magazines share. Never written.
static NULL_SLOT: SharedSlot = SharedSlot(Cell::new(ptr::null_mut()));

struct SharedSlot(Slot);

// SAFETY: nobody writes the slot: `Face::push` sees top at the limit, `pop` only reads.
unsafe impl Sync for SharedSlot {}

/// The part of an mcache that the fast paths read.
#[repr(C, align(64))]
pub(crate) struct Magazines {
    pub(super) all: [Magazine; MAGAZINES],
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

// SAFETY: the statics of this type are never written; see `Magazine::pop` and `Face::push`, which reach
// the slow calls without a write when a magazine is unused.
unsafe impl Sync for Magazines {}

/// What a thread has before its first slow call.
pub(crate) static EMPTY: Magazines = Magazines::UNUSED;
/// What a thread has after its mcache was detached: it gets none again.
pub(crate) static DETACHED: Magazines = Magazines::UNUSED;

impl Magazines {
    #[allow(clippy::declare_interior_mutable_const)] // As above.
    const UNUSED: Self = Self {
        all: [const { Magazine::UNUSED }; MAGAZINES],
        mcache: Cell::new(None),
        #[cfg(feature = "profile")]
        sampling: Sampling::NONE,
    };

    /// The magazine of a class.
    #[inline(always)] // Part of the fast path.
    pub(crate) fn get(&self, class: SizeClass) -> &Magazine {
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
    pub(super) const UNUSED: Self = Self {
        top: AtomicPtr::new(Self::NULL.as_ptr()),
        limit: Cell::new(Self::NULL),
    };
    /// The shared slot 0.
    pub(super) const NULL: NonNull<Slot> = NonNull::from_ref(&NULL_SLOT.0);

    /// The newest object's slot, or slot 0.
    #[inline(always)] // Part of the fast paths.
    pub(super) fn top(&self) -> NonNull<Slot> {
        // SAFETY: `top` is never null. Relaxed: written by the owner only; others that read it look
        // at the address alone.
        unsafe { NonNull::new_unchecked(self.top.load(Relaxed)) }
    }

    /// Sets the newest object's slot.
    #[inline(always)] // As above.
    pub(super) fn set_top(&self, top: NonNull<Slot>) {
        self.top.store(top.as_ptr(), Relaxed);
    }

    /// Takes the newest object. What [`is_rare`] stays there: a null, since there is none, or an object that
    /// wants a closer look.
    #[inline(always)] // The fast path itself.
    pub(crate) fn pop(&self) -> *mut u8 {
        let top = self.top();
        // SAFETY: `top` points to a slot of this magazine (Invariant 2) or to a slot 0.
        let object = unsafe { top.as_ref() }.get();
        if !is_rare(object) {
            // SAFETY: the slot is not slot 0, which holds null, so there is one below it.
            self.set_top(unsafe { top.sub(1) });
        }
        object
    }

    /// Whether it is not full.
    #[inline(always)] // Part of the free of a watched object, as the next one.
    pub(crate) fn has_room(&self) -> bool {
        self.top() != self.limit.get()
    }

    /// Puts an object on top, without a note (`filter`). False if the magazine is full.
    #[inline(always)]
    pub(crate) fn push(&self, object: *mut u8) -> bool {
        let has_room = self.has_room();
        if has_room {
            // SAFETY: it has room.
            unsafe { self.put(self.top(), object) };
        }
        has_room
    }

    /// Puts an object on top; its slot.
    ///
    /// # Safety
    /// `top` is the top, and not the limit.
    #[inline(always)] // Part of the fast path of a free.
    pub(super) unsafe fn put(&self, top: NonNull<Slot>, object: *mut u8) -> NonNull<Slot> {
        // SAFETY: the caller's promise: `top` is below the limit, so the next slot is one of the magazine.
        let next = unsafe { top.add(1) };
        // SAFETY: as above.
        unsafe { next.as_ref() }.set(object);
        self.set_top(next);
        next
    }

    /// Takes the newest object, whatever it is; null if there is none.
    pub(super) fn pop_any(&self) -> *mut u8 {
        let top = self.top();
        // SAFETY: as in `pop`.
        let object = unsafe { top.as_ref() }.get();
        if !object.is_null() {
            // SAFETY: the slot is not slot 0, which holds null, so there is one below it.
            self.set_top(unsafe { top.sub(1) });
        }
        object
    }
}
