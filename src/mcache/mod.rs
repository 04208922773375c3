//! One thread's cache: a magazine of free objects for each class, and its current spans.
//!
//! A magazine is an array of pointers to free objects, outside the objects, and a pair {top, limit}.
//! Slot 0 of each array holds null for ever, so "empty" is the popped value itself. A thread without
//! an mcache has the address of [`EMPTY`] in its slot, whose magazines are empty and full at once:
//! "first call in this thread", "magazine empty" and "request is large" are one cold call, and the
//! fast paths test nothing else.
//!
//! * *pop*: `top = mag.top; object = *top;` if null, refill; `mag.top = top - 1`.
//! * *push*: `top = mag.top;` if `*top` is the object, it is freed twice in a row; if `top` is the
//!   limit, flush; `top[1] = object; mag.top = top + 1`.
//!
//! A free goes to the magazine of the thread that frees, whoever allocated. Surplus travels in
//! batches of half a magazine, the oldest first; that is the whole protocol for remote frees.
//!
//! A magazine starts small and doubles with each refill or flush of its class, as long as the
//! process has [`budget`] left, and shrinks to nothing again when a round of the thread's slow calls
//! passes without one for that class.
//!
//! Invariants:
//!
//! 1. Only the owning thread touches an mcache, but for the words of [`PrivateSlots`], which anyone
//!    may read under the span's home lock.
//! 2. The slots from 1 to `top` of a magazine hold distinct, taken objects of its class.
//! 3. `limit` is `capacity` slots above slot 0; both are zero slots if the class is not in use.

#![allow(unsafe_code)]

pub(crate) mod budget;
mod counting;
mod list;
mod magazine;

pub(crate) use list::all;
pub(crate) use magazine::{DETACHED, EMPTY, Magazines};

use core::cell::Cell;
use core::ptr::{self, NonNull};

use crate::base::fatal::{Crime, fatal};
use crate::base::size_class::{CLASSES, MAGAZINE_MAX, MAGAZINES, SizeClass};
use crate::counters::{Counters, calls};
use crate::depot::{BATCH_MAX, BatchRef};
use crate::mspan::PrivateSlots;
use crate::{mcentral, meta, tiny};
use magazine::{Magazine, Slot};

/// Objects that a magazine may hold when its class comes into use.
const CAPACITY_AT_FIRST: usize = 8;
/// Slow calls of a thread between two looks at a class: whether it has gone idle. So a round, from one
/// look at a class to the next one, has about 1,000.
const SLOW_CALLS_A_LOOK: u32 = 14;

/// Slow calls of a class in a round from which on a thread has a span of the class for its own.
const BUSY_CALLS: u8 = 4;
/// Slow calls of one kind in a row for which a magazine doubles while spans are sparse.
const CALLS_A_DOUBLING: u8 = 3;

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

/// What a slow call does. Zero bytes are valid.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
enum Slow {
    #[default]
    Refill,
    Flush,
}

/// The last slow calls of a class. Zero bytes are valid.
#[derive(Clone, Copy, Default)]
struct SlowCalls {
    kind: Slow,
    /// How many of that kind came one after the other.
    in_a_row: u8,
}

impl SlowCalls {
    fn and(self, kind: Slow) -> Self {
        let before = if self.kind == kind { self.in_a_row } else { 0 };
        let in_a_row = before.saturating_add(1);
        Self { kind, in_a_row }
    }
}

/// One thread's cache. A record of about 40 KiB, of which a thread touches the parts of the classes
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
    /// Slow calls so far.
    slow_calls: Cell<u32>,
    /// A batch record for the next flush.
    spare: Cell<Option<BatchRef>>,
    /// Next free mcache. **Under the `runtime::REGISTRY` lock.**
    pub(crate) next_free: Cell<Option<NonNull<MCache>>>,
    /// The mcache made before this one. **Fixed after init.**
    made_before: Cell<Option<NonNull<MCache>>>,
    /// The current span of each span class.
    current: [PrivateSlots; CLASSES + 1],
    slots: [Slot; SLOT_ZERO[MAGAZINES]],
    pub(crate) counters: Counters,
    /// Magazines that are always empty and full: the face of this mcache while calls are counted.
    counted: Magazines,
    /// Bytes by which the live ones changed and that are not in the process's sum yet.
    live_untold: Cell<i64>,
}

impl MCache {
    /// A fresh mcache. `None` if the system has no memory.
    pub(crate) fn new() -> Option<NonNull<Self>> {
        let record = meta::alloc::<Self>()?;
        // SAFETY: the record is zeroed memory of the right size, and ours. Zero bytes are valid for
        // all fields but the magazines', which are written here.
        unsafe {
            for face in [
                &raw mut (*record.as_ptr()).magazines,
                &raw mut (*record.as_ptr()).counted,
            ] {
                for index in 0..MAGAZINES {
                    (&raw mut (*face).all[index]).write(Magazine::UNUSED);
                }
                (*face).mcache.set(Some(record));
            }
        }
        list::add(record);
        Some(record)
    }

    /// What its thread has in its slot.
    pub(crate) fn face(&self) -> &Magazines {
        if calls::are_counted() {
            &self.counted
        } else {
            &self.magazines
        }
    }

    /// One object of `class`, refilling its magazine if it is empty. Null if the system has no
    /// memory. (A thread attached just now may have got an mcache with objects.)
    pub(crate) fn alloc(&self, class: SizeClass) -> *mut u8 {
        let mut object = self.magazines.get(class).pop();
        if object.is_null() {
            object = self.refill(class);
        }
        if calls::are_counted() && !object.is_null() {
            self.count_allocated(class);
        }
        object
    }

    fn refill(&self, class: SizeClass) -> *mut u8 {
        self.note_slow_call(class);
        let most = self.capacity_for(class, Slow::Refill);
        self.grow(class, most);
        let wanted = (self.capacity_of(class) / 2).max(least_refill(class));
        let filled = if class.is_tiny() {
            self.refill_tiny(class, wanted, most)
        } else {
            self.refill_slots(class, wanted, most)
        };
        self.counters.refilled[class.index()].add(filled);
        self.magazines.get(class).set_top(self.slot(class, filled));
        self.magazines.get(class).pop()
    }

    /// Fills the empty magazine with up to `wanted` objects, lowest on top; their number.
    fn refill_slots(&self, class: SizeClass, wanted: usize, most: usize) -> usize {
        let private = &self.current[class.index()];
        let slots = self.slots_of(class);
        let mut left = wanted;
        let mut put = |first: *mut u8, count: usize| {
            let mut object = first.wrapping_add(count * class.object_bytes());
            for slot in &slots[left - count + 1..=left] {
                object = object.wrapping_sub(class.object_bytes());
                slot.set(object);
            }
            left -= count;
        };
        let mut taken = 0;
        if let Some(span) = private.span() {
            taken = mcentral::take_private(span, private, class.geometry(), wanted, &mut put);
            self.counters.from_current_span.add(taken);
        }
        if taken == 0 {
            if let Some(filled) = self.refill_from_depot(class, most) {
                return filled;
            }
            taken = if self.is_busy(class) {
                mcentral::take(class, private, wanted, &mut put)
            } else {
                mcentral::take_shared(class, wanted, &mut put)
            };
            self.counters.from_spans.add(taken);
        }
        if taken < wanted {
            // SAFETY: both ranges are slots of this magazine: `taken` from above `left`, moved down
            // to slot 1.
            unsafe {
                let from = slots.as_ptr().add(wanted - taken + 1);
                ptr::copy(from, slots.as_ptr().add(1).cast_mut(), taken);
            }
        }
        taken
    }

    /// Whether a class has a span of its own in this thread, or should have one. Others share theirs
    /// with all threads, so that a thread that needs a few objects of many classes costs no memory.
    fn is_busy(&self, class: SizeClass) -> bool {
        self.current[class.index()].span().is_some()
            || self.calls_in_round[class.index()].get() >= BUSY_CALLS
    }

    /// Fills the empty magazine from a batch of the depot; the number of objects.
    fn refill_from_depot(&self, class: SizeClass, most: usize) -> Option<usize> {
        let mut spare = self.spare.take();
        let Some(mut batch) = mcentral::take_batch(class, &mut spare) else {
            self.spare.set(spare);
            return None;
        };
        let objects = batch.get().objects();
        let len = objects.len();
        // A class that exchanges batches has the traffic for a magazine that holds one. If it may
        // not, or the budget does not allow it, what does not fit goes to its spans.
        if self.capacity_of(class) < len {
            self.resize(class, most.min(len * 2).max(self.capacity_of(class)));
        }
        let taken = len.min(self.capacity_of(class));
        for (slot, object) in self.slots_of(class)[1..=taken].iter().zip(objects) {
            slot.set(*object);
        }
        mcentral::put(class, objects.get(taken..).unwrap_or_default());
        self.spare.set(Some(batch)); // The depot took the old one in exchange.
        self.counters.from_depot.add(taken);
        Some(taken)
    }

    /// Fills the empty magazine of a tiny class; the number of objects.
    fn refill_tiny(&self, class: SizeClass, wanted: usize, most: usize) -> usize {
        if let Some(filled) = self.refill_from_depot(class, most) {
            return filled;
        }
        let private = &self.current[SizeClass::TINY_BLOCKS.index()];
        let slots = &self.slots_of(class)[1..=self.capacity_of(class)];
        let filled = tiny::carve(class, private, slots, wanted);
        self.counters.from_spans.add(filled);
        filled
    }

    /// Takes back an object of `class`, flushing its magazine if it is full. Aborts if the object is
    /// the newest there already.
    pub(crate) fn free(&self, class: SizeClass, object: *mut u8) {
        let magazine = self.magazines.get(class);
        if magazine.newest() == object {
            fatal(Crime::DoubleFree, object.addr());
        }
        if calls::are_counted() {
            self.count_freed(class);
        }
        if magazine.push(object) {
            return;
        }
        self.note_slow_call(class);
        let capacity = self.capacity_of(class);
        let has_grown = self.grow(class, self.capacity_for(class, Slow::Flush));
        if capacity == 0 {
            // Another thread's object, most likely, whose neighbours on the cache line that one has:
            // this thread gets none of them for its own use (cache-scratch of Hoard's authors).
            self.flush_to_spans(class, &[object]);
            self.counters.flushed[class.index()].add(1);
            return;
        }
        if !has_grown {
            let left = self.capacity_of(class).min(capacity) / 2;
            self.flush_oldest(class, (capacity - left).max(1));
        }
        magazine.push(object);
    }

    /// Moves the `count` oldest objects out: as a batch into the depot, else to their spans.
    fn flush_oldest(&self, class: SizeClass, count: usize) {
        let len = self.len(class);
        let slots = self.slots_of(class);
        // SAFETY: `count` is at most `len`, and slots are the cells of plain pointers that only this
        // thread touches, and nobody during the borrow.
        let oldest = unsafe { core::slice::from_raw_parts(slots[1..].as_ptr().cast(), count) };
        if !self.flush_to_depot(class, oldest) {
            self.flush_to_spans(class, oldest);
        }
        // SAFETY: slots of this magazine; the ranges may overlap.
        unsafe {
            let first = slots[1..].as_ptr().cast_mut();
            ptr::copy(first.add(count), first, len - count);
        }
        self.magazines
            .get(class)
            .set_top(self.slot(class, len - count));
        self.counters.flushed[class.index()].add(count);
    }

    /// Frees objects to their spans.
    fn flush_to_spans(&self, class: SizeClass, objects: &[*mut u8]) {
        self.counters.to_spans.add(objects.len());
        mcentral::put(class, objects);
    }

    /// Leaves objects as a batch in the depot; false if it is full. A batch is at least a quarter
    /// of a full-grown magazine: smaller ones are not worth their place.
    fn flush_to_depot(&self, class: SizeClass, objects: &[*mut u8]) -> bool {
        let fits = class.magazine_max() / 4..=BATCH_MAX;
        if !fits.contains(&objects.len())
            || !mcentral::has_room_for_batch(class)
            || (self.last[class.index()].get().in_a_row < CALLS_A_DOUBLING
                && mcentral::is_sparse(class))
        {
            return false;
        }
        let Some(mut batch) = self.spare.take().or_else(new_batch) else {
            return false;
        };
        batch.get().fill(objects);
        match mcentral::put_batch(class, batch) {
            Ok(spare) => {
                self.counters.to_depot.add(objects.len());
                self.spare.set(spare);
                true
            }
            Err(batch) => {
                self.spare.set(Some(batch));
                false
            }
        }
    }

    /// Gives everything back: all objects to their spans, all current spans to their shards.
    pub(crate) fn flush_all(&self) {
        for index in 1..MAGAZINES {
            self.flush_class(SizeClass::new(index));
        }
    }

    /// Empties the magazine of a class and makes it unused, and puts its current span back.
    fn flush_class(&self, class: SizeClass) {
        let len = self.len(class);
        if len > 0 {
            let slots = self.slots_of(class);
            self.counters.flushed[class.index()].add(len);
            // SAFETY: as in `flush_oldest`.
            self.flush_to_spans(class, unsafe {
                core::slice::from_raw_parts(slots[1..].as_ptr().cast(), len)
            });
        }
        self.resize(class, 0);
        let magazine = self.magazines.get(class);
        magazine.set_top(Magazine::NULL);
        magazine.limit.set(Magazine::NULL);
        mcentral::put_back(
            class.span_class(),
            &self.current[class.span_class().index()],
        );
    }

    /// Counts a slow call of `class`, and now and then looks at another class: one at a time, so that
    /// no call takes long.
    fn note_slow_call(&self, class: SizeClass) {
        let of_class = &self.calls_in_round[class.index()];
        of_class.set(of_class.get().saturating_add(1));
        let calls = self.slow_calls.get().wrapping_add(1);
        self.slow_calls.set(calls);
        if calls.is_multiple_of(SLOW_CALLS_A_LOOK) {
            let looks = (calls / SLOW_CALLS_A_LOOK) as usize;
            let looked_at = SizeClass::new(1 + looks % (MAGAZINES - 1));
            self.give_back_if_idle(looked_at);
        }
    }

    /// Ends a round of a class: gives back its magazine and current span if it had no slow call in it.
    #[cold]
    fn give_back_if_idle(&self, class: SizeClass) {
        let calls = self.calls_in_round[class.index()].take();
        if calls == 0 && self.capacity_of(class) > 0 {
            self.flush_class(class);
        }
    }

    /// Most objects that the magazine of a class may hold from this slow call on.
    ///
    /// A thread that frees and allocates in turns gets back what it has just freed, wherever that
    /// lies; the larger its magazine, the less comes by the spans, where a slot of a full span would
    /// take its place. So where the spans are sparse, magazines are small, but for threads whose slow
    /// calls are of one kind, which fill or empty the heap.
    fn capacity_for(&self, class: SizeClass, kind: Slow) -> usize {
        let calls = self.last[class.index()].get().and(kind);
        self.last[class.index()].set(calls);
        let most = class.magazine_max();
        if !mcentral::is_sparse(class) {
            return most;
        }
        // With capacity, a walk at random between empty and full takes its square to turn.
        let doublings = (calls.in_a_row / CALLS_A_DOUBLING).min(MAGAZINE_MAX.ilog2() as u8);
        most.min(capacity_at_first(class) << doublings)
    }

    /// Brings a magazine into use, doubles its capacity up to `most`, as far as the budget goes, or
    /// makes it `most` if it is more. False if it has not become more.
    fn grow(&self, class: SizeClass, most: usize) -> bool {
        let old = self.capacity_of(class);
        if old == 0 {
            self.magazines.get(class).set_top(self.slot(class, 0));
            return self.resize(class, capacity_at_first(class));
        }
        self.resize(class, (old * 2).min(most)) && old < most
    }

    /// Sets the capacity of a magazine and pays for it, or is paid. False, and nothing changed, if
    /// the budget does not allow it.
    fn resize(&self, class: SizeClass, capacity: usize) -> bool {
        let paid_for = |capacity: usize| {
            capacity.saturating_sub(capacity_at_first(class)) * class.object_bytes()
        };
        let (old, new) = (paid_for(self.capacity_of(class)), paid_for(capacity));
        if new < old {
            budget::give(old - new);
        } else if new > old && !budget::take(new - old) {
            return false;
        }
        self.capacity[class.index()].set(capacity as u16);
        self.magazines
            .get(class)
            .limit
            .set(self.slot(class, capacity));
        true
    }

    /// Bytes of the budget that this mcache holds.
    pub(crate) fn budget_bytes(&self) -> usize {
        let classes = (1..MAGAZINES).map(SizeClass::new);
        let paid = classes.map(|class| {
            let extra = self
                .capacity_of(class)
                .saturating_sub(capacity_at_first(class));
            extra * class.object_bytes()
        });
        paid.sum()
    }

    /// Objects that the magazine of a class may hold.
    fn capacity_of(&self, class: SizeClass) -> usize {
        usize::from(self.capacity[class.index()].get())
    }

    /// Objects in the magazine of a class. Any thread may ask.
    pub(crate) fn len(&self, class: SizeClass) -> usize {
        let top = self.magazines.get(class).top();
        if top == Magazine::NULL {
            return 0;
        }
        (top.addr().get() - self.slot(class, 0).addr().get()) / size_of::<Slot>()
    }

    /// Slot 0 of a class and those above it.
    fn slots_of(&self, class: SizeClass) -> &[Slot] {
        &self.slots[SLOT_ZERO[class.index()]..SLOT_ZERO[class.index() + 1]]
    }

    /// One slot of a class.
    fn slot(&self, class: SizeClass, index: usize) -> NonNull<Slot> {
        let slots: &[Slot] = &self.slots;
        debug_assert!(index < self.slots_of(class).len());
        let first: NonNull<Slot> = NonNull::from(slots).cast();
        // SAFETY: `index` is at most the class's largest capacity, so the slot is one of the class,
        // inside the array; the pointer is made from the whole array.
        unsafe { first.add(SLOT_ZERO[class.index()] + index) }
    }
}

/// Objects that a magazine may hold when its class comes into use. A tiny block must fit.
fn capacity_at_first(class: SizeClass) -> usize {
    let objects = if class.is_tiny() {
        tiny::objects_a_block(class)
    } else {
        0
    };
    CAPACITY_AT_FIRST.max(objects).min(class.magazine_max())
}

/// Fewest objects that a refill asks for: so many that the next thread to take from the same span
/// begins at another cache line. All slot sizes but 8 and 24 are multiples of 16.
fn least_refill(class: SizeClass) -> usize {
    if class.object_bytes().is_multiple_of(16) || class.is_tiny() {
        1
    } else {
        64 / 8
    }
}

/// A fresh batch record. `None` if the system has no memory.
fn new_batch() -> Option<BatchRef> {
    // SAFETY: records are zeroed memory, a valid empty batch, live for ever, and this one is new.
    meta::alloc().map(|record| unsafe { BatchRef::new(record) })
}
