//! A span: a run of pages cut into slots of one size class, or one large object.
//!
//! Which slots are free is known from bitmaps outside the slots, one bit a slot, in two halves. The
//! *shared* half is in the span's record, under the lock of its home shard. While a thread has the
//! span checked out as its current span, the *private* half ([`PrivateSlots`], in that thread's
//! mcache) holds the slots that only this thread hands out, without a lock. Frees by anyone set
//! bits of the shared half; [`MSpan::sweep`] moves them over when the private half is dry.
//!
//! Invariants:
//!
//! 1. A slot is in exactly one of four states: free in the shared half, free in the private half,
//!    in a magazine or batch, or held by the program. The last two look the same from here:
//!    *taken*.
//! 2. `free_slots` is the number of bits of the shared half; bit `i` of `summary` is set exactly if
//!    word `i` of it is not zero.
//! 3. The private half is empty unless `set` is [`Set::CHECKED_OUT`], and then `owner` points to it.
//! 4. Only the owner clears bits of the private half, and only under the home lock are bits of it
//!    set. So who frees a slot that was really taken never sees its bit set in either half, however
//!    threads run: a set bit is a double free.
//! 5. `moves_at` is zero unless `set` is one of the listed ones. So one comparison tells who frees a slot that the span is in
//!    a list, where it stays, and that its private half is empty.
//!
//! Nothing here touches the slots' memory, so the protocol can be modelled without a heap.

#![allow(unsafe_code)]

mod free;
mod private;

pub(crate) use free::{Freed, FreedInPlace};
pub(crate) use private::PrivateSlots;

use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;

use crate::base::PAGE_BYTES;
use crate::base::size_class::{Geometry, MAGAZINES, SLOTS_MAX, SizeClass};
use crate::sync::atomic::{AtomicPtr, AtomicU16, AtomicU32, Ordering::Relaxed};

/// Words of a bitmap with one bit a slot.
pub(crate) const WORDS: usize = SLOTS_MAX / 64;
/// Occupancy buckets of partial spans. Enough to keep nearly empty spans from being refilled; more
/// would move spans between lists more often.
pub(crate) const BUCKETS: usize = 8;

/// Which set of its shard a span is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Set(pub(crate) u8);

impl Set {
    /// Sets below it are the partial ones, by bucket, fullest first. Of the spans in this one, pages of
    /// free slots went back to the system.
    pub(crate) const RELEASED: Self = Self(BUCKETS as u8);
    /// No slot is free.
    pub(crate) const FULL: Self = Self(BUCKETS as u8 + 1);
    /// Some thread's current span, or on its way; in no list.
    pub(crate) const CHECKED_OUT: Self = Self(BUCKETS as u8 + 2);
    /// Not in mcentral: every slot is free, or the span holds a large object.
    pub(crate) const NONE: Self = Self(BUCKETS as u8 + 3);

    /// Whether its spans are in a list of their shard.
    #[inline]
    pub(crate) fn is_listed(self) -> bool {
        self.0 <= Self::FULL.0
    }
}

/// Where in [`MSpan::kind`] the home shard is, and the flags begin.
const HOME_SHIFT: u32 = 8;
const FLAGS_SHIFT: u32 = 16;
/// Most home shards.
pub(crate) const HOMES: usize = 1 << (FLAGS_SHIFT - HOME_SHIFT);

/// The large object was freed: its pages wait in a cache.
const FREE: u32 = 1 << FLAGS_SHIFT;
/// The heap profile has a sample here.
const SAMPLED: u32 = 2 << FLAGS_SHIFT;
/// The last page is one without access.
#[cfg(feature = "secure")]
const GUARDED: u32 = 4 << FLAGS_SHIFT;
/// The objects in it have no bytes.
#[cfg(feature = "preload")]
const ZERO: u32 = 8 << FLAGS_SHIFT;
/// Behind the huge object is a guard page that belongs to its mapping.
const GUARD_BEHIND: u32 = 16 << FLAGS_SHIFT;
/// The object has a mapping of its own.
const HUGE: u32 = 32 << FLAGS_SHIFT;
/// Huge pages were asked for in the huge object's mapping.
const WANTS_HUGE_PAGES: u32 = 64 << FLAGS_SHIFT;
/// Flags that say nothing to who frees a slot.
#[cfg(feature = "secure")]
const UNIMPORTANT: u32 = GUARDED;
#[cfg(not(feature = "secure"))]
const UNIMPORTANT: u32 = 0;

/// Distance of objects of no bytes, and their alignment.
#[cfg(feature = "preload")]
pub(crate) const ZERO_SLOT_BYTES: usize = 16;

/// Live objects of each 16-byte block of a span of tiny blocks: one bit a byte, set where a live
/// object starts.
pub(crate) type TinyMasks = [AtomicU16; SLOTS_MAX];

/// The record of a span.
///
/// 192 bytes: an odd number of cache lines, so that records of spans in a row do not meet in the
/// same cache sets. What every free needs is in the first line, but for the later words.
#[repr(C, align(64))]
pub(crate) struct MSpan {
    /// First byte of the first page. **Fixed after init.**
    base: Cell<*mut u8>,
    /// Heap pages. **Fixed after init** for small spans; for a large object written by who owns
    /// the object.
    pages: Cell<u32>,
    /// What it is, in one word, so that a free compares all of it at once: in the lowest byte the class, in the next one the
    /// index of the home shard, both **fixed after init**, then [`FREE`], [`SAMPLED`] and the other flags. **Atomic**: of a
    /// large object, written by who owns the pages, and read by a caller's crime; else under the home lock.
    kind: AtomicU32,
    /// **Under the home lock.**
    shared: UnsafeCell<Shared>,
    /// A table beside the span, or null: of a span of tiny blocks its masks, **fixed after init**; in secure
    /// mode, of another one the states of its slots, and of a large object what is known of it (see
    /// [`secure`](crate::secure)). **Any thread; atomic.** A block's mask is written by its holder when the
    /// block is carved, later **under the home lock**.
    pub(crate) table: AtomicPtr<AtomicU16>,
    /// Of the pages of a large object, those beyond what was asked for. **Written by who owns the object.**
    slack: Cell<u32>,
}

/// The part of a span under the lock of its home shard.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Shared {
    /// Private half of who checked it out.
    owner: Option<NonNull<PrivateSlots>>,
    /// Free slots from which on it belongs into another list; none if it is in no list (Invariant 5).
    pub(crate) moves_at: u16,
    /// Not first: it would be read together with the other one, which waits for a store of itself alone.
    pub(crate) free_slots: u16,
    summary: u16,
    pub(crate) set: Set,
    /// Pages of the system in free slots that went back to it; some may be in use again by now.
    pub(crate) released: u8,
    words: [u64; WORDS],
    /// Neighbours in the list of its set.
    pub(crate) next: Option<NonNull<MSpan>>,
    pub(crate) prev: Option<NonNull<MSpan>>,
}

impl Shared {
    /// A word of the private half; zero if the span is not checked out.
    #[inline]
    fn private_word(&self, word: usize) -> u64 {
        match self.owner {
            // SAFETY: the private half of an mcache, a record that lives for ever, or of a frame
            // that puts the span back, under the lock that the caller holds, before it returns.
            // Relaxed: see Invariant 4; the private bit of a slot that was really taken was cleared
            // before the program got the object.
            Some(owner) => unsafe { (&(*owner.as_ptr()).words)[word].load(Relaxed) },
            None => 0,
        }
    }

    /// Whether a slot is free in this half.
    #[cfg(feature = "preload")]
    pub(crate) fn is_free(&self, slot: usize) -> bool {
        self.words[slot / 64 % WORDS] & (1 << (slot % 64)) != 0
    }

    /// Marks `count` slots from `slot` on, all in one word, as free; `count`. If one of them is free
    /// in either half, none is marked, and the result is how many come before it. Counts none.
    #[inline]
    fn set_free(&mut self, slot: usize, count: usize) -> usize {
        let (word, shift) = (slot / 64 % WORDS, slot % 64);
        let bits = (u64::MAX >> (64 - count)) << shift;
        let free = self.words[word];
        let twice = (free | self.private_word(word)) & bits;
        if twice != 0 {
            return twice.trailing_zeros() as usize - shift;
        }
        self.words[word] = free | bits;
        self.summary |= 1 << word;
        count
    }
}

/// Ranges of a span, as offsets of their first byte and of the one behind them.
#[derive(Default)]
pub(crate) struct FreeRanges {
    ranges: [(u32, u32); FREE_RANGES_MAX],
    count: usize,
}

/// Most ranges that are told of: what is beyond stays as it is.
const FREE_RANGES_MAX: usize = 16;

impl FreeRanges {
    fn add(&mut self, start: usize, end: usize) {
        if let Some(range) = self.ranges.get_mut(self.count) {
            *range = (start as u32, end as u32);
            self.count += 1;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, usize)> {
        let found = self.ranges.iter().take(self.count);
        found.map(|(start, end)| (*start as usize, *end as usize))
    }
}

/// Takes up to `wanted` of the bits of a word, lowest first: `take` gets the first of each run of
/// neighbours, and their number. What is left of the word, and how many were taken.
#[inline]
fn take_bits(mut bits: u64, wanted: usize, mut take: impl FnMut(usize, usize)) -> (u64, usize) {
    let mut taken = 0;
    while bits != 0 && taken < wanted {
        let first = bits.trailing_zeros();
        let run = (bits >> first).trailing_ones() as usize;
        let count = run.min(wanted - taken);
        take(first as usize, count);
        bits &= !((u64::MAX >> (64 - count)) << first);
        taken += count;
    }
    (bits, taken)
}

// SAFETY: fields fixed after init are read only, the rest is reached under the home lock (`shared`)
// or by the owner of the large object, as each field's doc says.
unsafe impl Sync for MSpan {}

#[cfg(not(loom))] // Whose atomics are larger.
const _: () = assert!(size_of::<MSpan>() == 192);
const _: () = assert!(MAGAZINES <= 1 << HOME_SHIFT);
const _: () = assert!(WORDS <= u16::BITS as usize);

impl MSpan {
    /// Fills the record for a span of `class` at `base`. Every slot is taken.
    ///
    /// # Safety
    /// * `this` points to memory for a record that no other thread uses.
    /// * `base` is the start of `pages` pages that belong to the caller.
    pub(crate) unsafe fn init(
        this: NonNull<Self>,
        base: *mut u8,
        pages: u32,
        class: SizeClass,
        home: u8,
    ) {
        let shared = Shared {
            next: None,
            prev: None,
            owner: None,
            free_slots: 0,
            moves_at: 0,
            summary: 0,
            set: Set::NONE,
            released: 0,
            words: [0; WORDS],
        };
        // SAFETY: the caller's first promise.
        unsafe {
            this.write(Self {
                base: Cell::new(base),
                table: AtomicPtr::new(core::ptr::null_mut()),
                pages: Cell::new(pages),
                kind: AtomicU32::new(Self::kind_of(class, usize::from(home))),
                shared: UnsafeCell::new(shared),
                slack: Cell::new(0),
            });
        }
    }

    /// First byte of the span.
    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.get()
    }

    /// Its size class; [`SizeClass::NONE`] if it holds a large object.
    #[inline]
    pub(crate) fn class(&self) -> SizeClass {
        // Relaxed: fixed. The bound says no more than that it is one, so that nothing here can panic.
        let index = self.kind.load(Relaxed) % (1 << HOME_SHIFT);
        SizeClass::new((index as usize).min(MAGAZINES - 1))
    }

    /// Whether [`Self::class`] is this one.
    #[inline]
    pub(crate) fn is_of(&self, class: SizeClass) -> bool {
        self.kind.load(Relaxed) as usize % (1 << HOME_SHIFT) == class.index()
    }

    /// Heap pages of the span.
    #[inline]
    pub(crate) fn pages(&self) -> u32 {
        self.pages.get()
    }

    /// Bytes of the span.
    pub(crate) fn bytes(&self) -> usize {
        self.pages() as usize * PAGE_BYTES
    }

    /// Index of its home shard.
    #[inline]
    pub(crate) fn home(&self) -> usize {
        // Relaxed: fixed.
        (self.kind.load(Relaxed) >> HOME_SHIFT) as usize % HOMES
    }

    /// Whether an object can begin at an address in the span: a slot, or the large object.
    pub(crate) fn can_begin_at(&self, address: *mut u8) -> bool {
        let offset = address.addr().wrapping_sub(self.base().addr());
        match self.class() {
            #[cfg(feature = "preload")]
            SizeClass::NONE if self.is_zero() => {
                offset.is_multiple_of(ZERO_SLOT_BYTES) && offset / ZERO_SLOT_BYTES < SLOTS_MAX
            }
            SizeClass::NONE => offset == 0,
            class => {
                let slot_bytes = class.geometry().slot_bytes as usize;
                let slots = class.geometry().slots as usize;
                offset.is_multiple_of(slot_bytes) && offset / slot_bytes < slots
            }
        }
    }

    /// Whether the object has a mapping of its own.
    pub(crate) fn is_huge(&self) -> bool {
        self.has_flag(HUGE)
    }

    /// Marks a large object as one with a mapping of its own. Its owner calls, before anyone else
    /// knows the span.
    pub(crate) fn set_huge(&self) {
        self.set_flag(HUGE, true);
    }

    /// Whether it was a large object, and is free.
    pub(crate) fn is_free(&self) -> bool {
        self.has_flag(FREE)
    }

    /// Whether this is a large object of the program's, in an arena, about which there is nothing else to know.
    #[inline]
    pub(crate) fn is_usual(&self) -> bool {
        self.kind.load(Relaxed) >> FLAGS_SHIFT == 0
    }

    /// Marks a large object as free, or as allocated again. Who owns its pages calls.
    pub(crate) fn set_free(&self, free: bool) {
        self.set_flag(FREE, free);
    }

    /// Whether the object is in the heap profile; of a span with slots, whether one of them may be.
    #[inline]
    pub(crate) fn is_sampled(&self) -> bool {
        cfg!(feature = "profile") && self.has_flag(SAMPLED)
    }

    /// Says whether [`Self::is_sampled`]. Who owns the large object calls, or has the home lock, or nobody
    /// else knows the span.
    pub(crate) fn set_sampled(&self, sampled: bool) {
        self.set_flag(SAMPLED, sampled);
    }

    /// Whether the objects in it have no bytes.
    #[cfg(feature = "preload")]
    pub(crate) fn is_zero(&self) -> bool {
        self.has_flag(ZERO)
    }

    /// Says that the objects in it have no bytes. Before anyone else knows the span.
    #[cfg(feature = "preload")]
    pub(crate) fn set_zero(&self) {
        self.set_flag(ZERO, true);
    }

    /// Whether the last page is one without access.
    #[cfg(feature = "secure")]
    pub(crate) fn is_guarded(&self) -> bool {
        self.has_flag(GUARDED)
    }

    /// Says whether [`Self::is_guarded`]. Nobody else knows the span, or its slots are all free.
    #[cfg(feature = "secure")]
    pub(crate) fn set_guarded(&self, guarded: bool) {
        self.set_flag(GUARDED, guarded);
    }

    /// Whether a guard page follows the huge object, and belongs to it. Its owner asks.
    pub(crate) fn has_guard_behind(&self) -> bool {
        self.has_flag(GUARD_BEHIND)
    }

    /// Says whether [`Self::has_guard_behind`]. The owner of the huge object calls.
    pub(crate) fn set_guard_behind(&self, guarded: bool) {
        self.set_flag(GUARD_BEHIND, guarded);
    }

    /// Whether huge pages were asked for in the huge object's mapping. Its owner asks.
    pub(crate) fn wants_huge_pages(&self) -> bool {
        self.has_flag(WANTS_HUGE_PAGES)
    }

    /// Says whether [`Self::wants_huge_pages`]. The owner of the huge object calls.
    pub(crate) fn set_wants_huge_pages(&self, wants: bool) {
        self.set_flag(WANTS_HUGE_PAGES, wants);
    }

    /// What [`Self::is_plain`] compares with.
    pub(crate) const fn kind_of(class: SizeClass, home: usize) -> u32 {
        class.index() as u32 | ((home % HOMES) as u32) << HOME_SHIFT
    }

    /// Whether this is a span of a class and home, and nothing else is to be known of it by who frees a slot.
    #[inline(always)] // Part of the loop over objects that lie anywhere.
    pub(crate) fn is_plain(&self, kind: u32) -> bool {
        self.kind.load(Relaxed) & !UNIMPORTANT == kind
    }

    fn has_flag(&self, flag: u32) -> bool {
        self.kind.load(Relaxed) & flag != 0
    }

    /// A load and a store: one writer at a time.
    fn set_flag(&self, flag: u32, is_set: bool) {
        let others = self.kind.load(Relaxed) & !flag;
        self.kind
            .store(others | if is_set { flag } else { 0 }, Relaxed);
    }

    /// Changes the place and length of a large object, all of which was asked for. Its owner calls.
    pub(crate) fn set_extent(&self, base: *mut u8, pages: u32) {
        self.base.set(base);
        self.pages.set(pages);
        self.slack.set(0);
    }

    /// Says how many of the pages of a large object were asked for: at most as many as it has. Its owner calls.
    pub(crate) fn set_used(&self, pages: u32) {
        self.slack.set(self.pages() - pages);
    }

    /// Whether a large object has that many pages, no fewer than were asked for, and they are from here on. Its
    /// owner calls.
    pub(crate) fn takes_from_slack(&self, pages: usize) -> bool {
        let (all, slack) = (self.pages() as usize, self.slack.get() as usize);
        let takes = (all - slack..=all).contains(&pages);
        if takes {
            self.set_used(pages as u32);
        }
        takes
    }

    /// Bytes that the owner of a large object may use.
    pub(crate) fn usable_bytes(&self) -> usize {
        (self.pages() - self.slack.get()) as usize * PAGE_BYTES
    }

    /// Gives a span of tiny blocks its masks. Before anyone else knows the span.
    pub(crate) fn set_masks(&self, masks: NonNull<TinyMasks>) {
        // Relaxed: the span's publication, in the page table, publishes it.
        self.table.store(masks.as_ptr().cast(), Relaxed);
    }

    /// The masks of a span of tiny blocks.
    #[inline]
    pub(crate) fn masks(&self) -> Option<&'static TinyMasks> {
        if self.class() != SizeClass::TINY_BLOCKS {
            return None;
        }
        // SAFETY: of a span of this class the table is null or its masks, which are records that live for ever
        // (`meta`), all of whose parts are atomic.
        unsafe { self.table.load(Relaxed).cast::<TinyMasks>().as_ref() }
    }

    /// First byte of a slot.
    #[inline]
    pub(crate) fn slot_address(&self, slot: usize, geometry: &Geometry) -> *mut u8 {
        self.base()
            .wrapping_add(slot * geometry.slot_bytes as usize)
    }

    /// The part under the lock of the home shard.
    ///
    /// # Safety
    /// The caller holds that lock (or is the only one that knows the span), and lets no two results
    /// for one span live at the same time.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn shared(&self) -> &mut Shared {
        // SAFETY: the caller's promise makes the reference unique.
        unsafe { &mut *self.shared.get() }
    }

    /// Takes up to `wanted` free slots of the shared half, lowest first: `take` gets the first of
    /// neighbours, and their number. How many were taken.
    ///
    /// # Safety
    /// As for [`Self::shared`].
    pub(crate) unsafe fn take_slots(
        &self,
        wanted: usize,
        mut take: impl FnMut(usize, usize),
    ) -> usize {
        // SAFETY: the caller's promise.
        let shared = unsafe { self.shared() };
        let mut taken = 0;
        while shared.summary != 0 && taken < wanted {
            let word = shared.summary.trailing_zeros() as usize;
            let (left, count) = take_bits(shared.words[word], wanted - taken, |bit, count| {
                take(word * 64 + bit, count);
            });
            taken += count;
            shared.words[word] = left;
            if left == 0 {
                shared.summary &= !(1 << word);
            }
        }
        shared.free_slots -= taken as u16;
        taken
    }

    /// Ranges of bytes, as offsets from the span's start, that lie in free slots of the shared half and
    /// consist of whole units of `unit` bytes.
    ///
    /// # Safety
    /// As for [`Self::shared`].
    pub(crate) unsafe fn free_ranges(&self, geometry: &Geometry, unit: usize) -> FreeRanges {
        // SAFETY: the caller's promise.
        let shared = unsafe { self.shared() };
        let slot_bytes = geometry.slot_bytes as usize;
        let is_free = |slot: usize| shared.words[slot / 64] & (1 << (slot % 64)) != 0;
        let mut found = FreeRanges::default();
        let mut slot = 0;
        while slot < geometry.slots as usize {
            let first = slot;
            while slot < geometry.slots as usize && is_free(slot) {
                slot += 1;
            }
            let start = (first * slot_bytes).next_multiple_of(unit);
            let end = slot * slot_bytes / unit * unit;
            if start < end {
                found.add(start, end);
            }
            slot += 1;
        }
        found
    }

    /// Moves all free slots of the shared half to the private half of the owner; their number.
    ///
    /// # Safety
    /// * As for [`Self::shared`].
    /// * `private` is empty, and is or becomes the half of the thread that calls.
    pub(crate) unsafe fn sweep(&self, private: &PrivateSlots) -> usize {
        // SAFETY: the caller's promise.
        let shared = unsafe { self.shared() };
        shared.owner = Some(NonNull::from(private));
        shared.set = Set::CHECKED_OUT;
        let mut summary = shared.summary;
        private.summary.set(summary);
        while summary != 0 {
            let word = summary.trailing_zeros() as usize;
            private.words[word].store(shared.words[word], Relaxed);
            shared.words[word] = 0;
            summary &= summary - 1;
        }
        shared.summary = 0;
        usize::from(core::mem::take(&mut shared.free_slots))
    }

    /// Ends a check-out: what is left of the private half is free in the shared half again.
    ///
    /// # Safety
    /// * As for [`Self::shared`].
    /// * The span is checked out to `private`, and the thread that calls owns it.
    pub(crate) unsafe fn put_back(&self, private: &PrivateSlots) {
        // SAFETY: the caller's promise.
        let shared = unsafe { self.shared() };
        let mut summary = private.summary.take();
        while summary != 0 {
            let word = summary.trailing_zeros() as usize;
            // Relaxed: the words are the caller's own to change.
            let bits = private.words[word].load(Relaxed);
            private.words[word].store(0, Relaxed);
            shared.words[word] |= bits;
            shared.summary |= 1 << word;
            shared.free_slots += bits.count_ones() as u16;
            summary &= summary - 1;
        }
        shared.owner = None;
        shared.set = Set::NONE;
        private.span.set(None);
    }
}
