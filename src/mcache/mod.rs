//! One thread's cache: a magazine of free objects for each class, and its current spans.
//!
//! A magazine is an array of pointers to free objects, outside the objects, and a pair {top, limit}, as offsets in the mcache.
//! Slot 0 of each array holds null for ever, so "empty" is the popped value itself. A thread without
//! an mcache has the address of [`EMPTY`] in its slot, whose magazines are empty and full at once:
//! "first call in this thread", "magazine empty" and "request is large" are one cold call, and the
//! fast paths test nothing else.
//!
//! * *pop*: `top = mag.top; object = slot(top);` if null, refill; `mag.top = top - 1`.
//! * *push*: `top = mag.top;` if `top` is the limit, flush; if the slot in which the object was left last
//!   is at or below `top` and holds it, it is freed twice ([`filter`]); `slot(top + 1) = object; mag.top = top + 1`.
//!
//! A free goes to the magazine of the thread that frees, whoever allocated. Surplus travels in
//! batches of half a magazine, the oldest first, and all of it if the thread frees only; that is the whole protocol
//! for remote frees.
//!
//! A magazine starts small and doubles with each refill or flush of its class, as long as the
//! process has [`budget`] left, and shrinks to nothing again when a round of the thread's slow calls
//! passes without one for that class. Large objects have a cache of their own ([`large`]).
//!
//! Invariants:
//!
//! 1. Only the owning thread touches an mcache, but for the words of [`PrivateSlots`], which anyone
//!    may read under the span's home lock; and who has taken it back from an idle thread
//!    ([`runtime::idle`](crate::runtime)).
//! 2. The slots from 1 to `top` of a magazine hold distinct, taken objects of its class.
//! 3. `limit` is `capacity` slots above slot 0; both are the first word if the class is not in use.

#![allow(unsafe_code)]

pub(crate) mod budget;
mod capacity;
mod counting;
mod face;
mod filter;
mod flush;
mod large;
mod list;
mod magazine;
mod refill;
#[cfg(feature = "secure")]
mod secure;

pub(crate) use face::Face;
pub(crate) use list::all;
pub(crate) use magazine::{DETACHED, EMPTY, Magazines, is_rare};

use core::cell::Cell;
use core::mem::offset_of;
use core::ptr::NonNull;

use crate::base::fatal::{Crime, fatal};
use crate::base::size_class::{CLASSES, MAGAZINES, SizeClass};
use crate::counters::{Counters, calls};
use crate::depot::BatchRef;
use crate::mspan::PrivateSlots;
#[cfg(feature = "secure")]
use crate::secure::{Quarantine, Random};
use crate::shards::shard_here;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::busy::Busy;
use crate::{mcentral, meta, profile, secure as mode, sys};
use capacity::{Slow, SlowCalls};
use filter::Filter;
use large::LargeCache;
use magazine::{Place, Slot};

/// Slow calls of a thread between two looks at a class: whether it has gone idle. So a round, from one
/// look at a class to the next one, has about 1,000.
const SLOW_CALLS_A_LOOK: u32 = 14;

/// Index of slot 0 of each magazine in [`MCache::slots`], and the number of all slots.
const SLOT_ZERO: [usize; MAGAZINES + 1] = {
    let mut starts = [0; MAGAZINES + 1];
    let mut class = 0;
    while class < MAGAZINES {
        let slots = if class == 0 {
            0
        } else {
            SizeClass::new(class).magazine_max() + 1
        };
        starts[class + 1] = starts[class] + slots;
        class += 1;
    }
    starts
};

/// One thread's cache. A record of less than 64 KiB, of which a thread touches the parts of the classes
/// that it uses.
#[repr(C, align(64))]
pub(crate) struct MCache {
    magazines: Magazines,
    /// Slots that each magazine may use: `limit` less slot 0.
    capacity: [Cell<u16>; MAGAZINES],
    /// How many slow calls each class had in this round, as far as it can be counted.
    calls_in_round: [Cell<u8>; MAGAZINES],
    /// Of each class, what its last slow calls were.
    last: [Cell<SlowCalls>; MAGAZINES],
    /// Slow calls so far. **Written by the owner, read by anyone.**
    slow_calls: AtomicU32,
    /// Whether the owner is in a slow call. **Written by the owner, read by anyone**: see
    /// [`MCache::enter`].
    busy: Busy,
    /// The owner, while the mcache may be taken back from it. **Under the `runtime::REGISTRY` lock.**
    pub(crate) owner: Cell<Option<Owner>>,
    /// Slow calls at the last look whether the owner is idle. **Under the `runtime::REGISTRY` lock.**
    pub(crate) calls_seen: Cell<u32>,
    /// Slow calls when it was emptied. **Under the `runtime::REGISTRY` lock.**
    pub(crate) calls_when_emptied: Cell<u32>,
    /// Slow calls, for [`MCache::looks_at_clock`].
    calls_since_look: Cell<u8>,
    /// Free large objects.
    large: LargeCache,
    /// Slow calls that allocate until one guards its object; zero: not drawn yet.
    #[cfg(feature = "guarded")]
    until_guarded: Cell<u32>,
    /// A batch record for the next flush.
    spare: Cell<Option<BatchRef>>,
    /// Next free mcache. **Under the `runtime::REGISTRY` lock.**
    pub(crate) next_free: Cell<Option<NonNull<MCache>>>,
    /// The mcache made before this one. **Fixed after init.**
    made_before: Cell<Option<NonNull<MCache>>>,
    /// The current span of each span class.
    current: [PrivateSlots; CLASSES + 1],
    slots: [Slot; SLOT_ZERO[MAGAZINES]],
    /// In which of them an object was left. Behind them, to be released with them.
    filter: Filter,
    pub(crate) counters: Counters,
    /// Magazines that are always empty and full: the face of this mcache while calls are counted, and in
    /// secure mode.
    shut: Magazines,
    /// Bytes by which the live ones changed and that are not in the process's sum yet.
    live_untold: Cell<i64>,
    /// In secure mode, what the thread freed last, and its random numbers.
    #[cfg(feature = "secure")]
    quarantine: Quarantine,
    #[cfg(feature = "secure")]
    random: Random,
}

/// The thread that has an mcache.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    /// Its slot.
    pub(crate) slot: sys::SlotOfThread,
    /// The kernel's number of it.
    pub(crate) thread: i32,
}

impl MCache {
    /// Slow calls of its owner so far, those for large objects included. Any thread may ask.
    pub(crate) fn slow_calls(&self) -> u32 {
        let small = self.slow_calls.load(Relaxed);
        small.wrapping_add(self.counters.large.calls())
    }

    /// Counts a slow call of any kind; whether it is the eighth. The owner calls.
    #[inline]
    pub(crate) fn looks_at_clock(&self) -> bool {
        let calls = self.calls_since_look.get().wrapping_add(1);
        self.calls_since_look.set(calls);
        calls.is_multiple_of(8)
    }

    /// Counts a slow call that allocates, of which one in `one_in` is to guard its object; whether this one is.
    /// The owner calls.
    #[cfg(feature = "guarded")]
    #[inline]
    pub(crate) fn guards(&self, one_in: u32) -> bool {
        let mut left = self.until_guarded.get();
        // A number that was drawn when another rate held is drawn again.
        if left == 0 || u64::from(left) >= 2 * u64::from(one_in) {
            // From 1 to twice the mean, less one; by the multiplier of a linear congruential generator.
            let seed = sys::now_ns() ^ (&raw const *self).addr() as u64;
            let random = seed.wrapping_mul(0xd134_2543_de82_ef95) >> 32;
            let numbers = 2 * u128::from(one_in) - 1;
            left = u32::try_from(1 + ((u128::from(random) * numbers) >> 32)).unwrap_or(u32::MAX);
        }
        self.until_guarded.set(left - 1);
        left == 1
    }

    /// Begins a slow call of the owner, who looks afterwards whether its slot still has this mcache: who
    /// takes it back changes the slot first, has all threads pass a barrier, and then asks
    /// [`Self::is_busy_now`]. So one of the two sees the other ([`Busy`]).
    #[inline]
    pub(crate) fn enter(&self) {
        self.busy.enter();
    }

    /// Ends a slow call of the owner.
    #[inline]
    pub(crate) fn leave(&self) {
        self.busy.leave();
    }

    /// Whether the owner is in a slow call.
    pub(crate) fn is_busy_now(&self) -> bool {
        self.busy.is_now()
    }

    /// A fresh mcache. `None` if the system has no memory.
    pub(crate) fn new() -> Option<NonNull<Self>> {
        let record = meta::alloc::<Self>()?;
        // SAFETY: the record is zeroed memory of the right size, and ours. Zero bytes are valid for all fields.
        let mcache = unsafe { record.as_ref() };
        for face in mcache.faces() {
            face.mcache.set(Some(record));
        }
        list::add(record);
        Some(record)
    }

    /// What its thread has in its slot.
    pub(crate) fn face(&self) -> Face {
        if calls::are_counted() || mode::is_on() {
            Face::of_shut(self)
        } else {
            Face::of(self)
        }
    }

    /// What its thread may have in its slot.
    pub(crate) fn faces(&self) -> [Face; 2] {
        [Face::of(self), Face::of_shut(self)]
    }

    /// One object of `class`, refilling its magazine if it is empty. Null if the system has no
    /// memory. (A thread attached just now may have got an mcache with objects.)
    pub(crate) fn alloc(&self, class: SizeClass) -> *mut u8 {
        loop {
            let mut object = Face::of(self).pop_any(class);
            if object.is_null() {
                object = self.refill(class);
            }
            if is_rare(object) && !object.is_null() && profile::keeps(class, object) {
                continue;
            }
            if calls::are_counted() && !object.is_null() {
                self.count_allocated(class);
            }
            return object;
        }
    }

    /// Counts an object of `class` that this thread took from a fresh span.
    #[cfg(feature = "profile")]
    pub(crate) fn count_taken(&self, class: SizeClass) {
        self.counters.taken[class.index()].add(1);
        self.counters.refilled[class.index()].add(1);
        if class.is_tiny() {
            self.counters.tiny_blocks.add(1);
        }
    }

    /// Takes an object of `class` back that was just popped, for one that came from elsewhere.
    #[cfg(feature = "profile")]
    pub(crate) fn exchange(&self, class: SizeClass, popped: *mut u8) {
        if !self.push(class, popped) {
            self.flush_to_spans(class, &mut [popped]);
            self.counters.flushed[class.index()].add(1);
        }
    }

    /// Takes back an object of `class`, flushing its magazine if it is full. Aborts if the object waits
    /// there already.
    pub(crate) fn free(&self, class: SizeClass, object: *mut u8) {
        if self.waits(class, object) {
            fatal(Crime::DoubleFree, object.addr());
        }
        if calls::are_counted() {
            self.count_freed(class);
        }
        if !self.push(class, object) {
            self.free_to_full(class, object);
        }
    }

    /// Takes back an object of `class`, whose magazine is full.
    #[cold]
    #[inline(never)]
    fn free_to_full(&self, class: SizeClass, object: *mut u8) {
        self.note_slow_call(class);
        let capacity = self.capacity_of(class);
        let here = shard_here();
        let has_grown = self.grow(class, self.capacity_for(class, Slow::Flush, here));
        if capacity == 0 {
            // Another thread's object, most likely, whose neighbours on the cache line that one has:
            // this thread gets none of them for its own use (cache-scratch of Hoard's authors).
            self.flush_to_spans(class, &mut [object]);
            self.counters.flushed[class.index()].add(1);
            return;
        }
        if !has_grown {
            // Who frees only needs none of them soon, and comes back the later the more leave. Where the spans are
            // sparse, what leaves lets them drain: what stays is soon in use again, wherever it lies.
            let is_trend = self.last[class.index()].get().are_a_trend();
            let left = if is_trend || mcentral::is_sparse(class, here) {
                0
            } else {
                self.capacity_of(class).min(capacity) / 2
            };
            self.flush_oldest(class, (capacity - left).max(1), here);
        }
        self.push(class, object);
    }

    /// Counts a slow call of `class`, and now and then looks at another class: one at a time, so that
    /// no call takes long.
    fn note_slow_call(&self, class: SizeClass) {
        let of_class = &self.calls_in_round[class.index()];
        of_class.set(of_class.get().saturating_add(1));
        let calls = self.slow_calls.load(Relaxed).wrapping_add(1);
        self.slow_calls.store(calls, Relaxed);
        if calls.is_multiple_of(SLOW_CALLS_A_LOOK) {
            let looks = (calls / SLOW_CALLS_A_LOOK) as usize;
            self.give_back_if_idle(SizeClass::new(looks % MAGAZINES));
        }
    }

    /// Ends a round of a class: gives back its magazine and current span if it had no slow call in it; or its
    /// large objects.
    #[cold]
    fn give_back_if_idle(&self, class: SizeClass) {
        if class == SizeClass::NONE {
            return self.flush_large_if_idle();
        }
        let calls = self.calls_in_round[class.index()].take();
        if calls == 0 && self.capacity_of(class) > 0 {
            self.flush_class(class);
        }
    }

    /// Objects in the magazine of a class. Any thread may ask.
    pub(crate) fn len(&self, class: SizeClass) -> usize {
        let top = self.magazines.get(class).top();
        match top {
            Place::NULL => 0,
            top => top.slots_above(self.place(class, 0)),
        }
    }

    /// The objects in all magazines, about now. Any thread may ask; `copy` is where they are copied to.
    #[cfg(feature = "profile")]
    pub(crate) fn waiting(&self, copy: &mut std::vec::Vec<usize>) {
        copy.clear();
        copy.resize(self.slots.len(), 0);
        // By the kernel: the owner may be writing there.
        if !sys::copy_own_memory((&raw const self.slots).addr(), copy) {
            copy.clear();
            return;
        }
        // Slots above the top hold what was there before.
        for class in (1..MAGAZINES).map(SizeClass::new) {
            let zero = SLOT_ZERO[class.index()];
            let unused = zero + 1 + self.len(class)..SLOT_ZERO[class.index() + 1];
            if let Some(unused) = copy.get_mut(unused) {
                unused.fill(0);
            }
        }
    }

    /// Free slots of the current span of a class that only its owner takes.
    #[cfg(test)]
    pub(crate) fn private_slots(&self, class: SizeClass) -> usize {
        self.current[class.index()].free_slots()
    }

    /// Slot 0 of a class and those above it.
    fn slots_of(&self, class: SizeClass) -> &[Slot] {
        &self.slots[SLOT_ZERO[class.index()]..SLOT_ZERO[class.index() + 1]]
    }

    /// Where one of the slots of a class is.
    fn place(&self, class: SizeClass, index: usize) -> Place {
        debug_assert!(index < self.slots_of(class).len());
        let index = SLOT_ZERO[class.index()] + index;
        Place::at(offset_of!(Self, slots) + index * size_of::<Slot>())
    }
}
