//! Arenas: the reserved address space, and the way from any address to its span.
//!
//! An arena is 64 MiB of address space at a multiple of 64 MiB, reserved without commit charge and
//! committed from its start on as the heap grows. The table [`TABLE`] has an entry for each 64 MiB
//! of a *window* of 16 TiB of address space, in which all arenas lie; an arena's record has the span
//! of each of its pages. So address to span is one load that depends on another, total over all
//! addresses, and it never faults: neither touches the memory that the address points to. A page's
//! entry has the span's class in its uppermost byte and the page's number in the span in the next one, so
//! that C's `free` sees without a look at the span whether an object can begin there.
//!
//! A huge object's mapping begins at a multiple of 64 MiB too; its entries of the table point to
//! its span directly, tagged by [`HUGE_TAG`].
//!
//! The window is put around the first arena when that is reserved: the kernel places mappings from
//! the top of the address space downwards, and all arenas lie close together. Arenas are asked for
//! one after another, upwards, so that the order of their numbers is that of their addresses unless
//! something else is in the way.
//!
//! The last pages of an arena of full size are its *guard*, which is never committed: what overflows there faults. A
//! page before it is reserved as well, if it is free. Where address space is short there are no guards.
//!
//! Invariants:
//!
//! 1. An entry of the table, once set to an arena, never changes; arenas are never unmapped.
//! 2. The span entry of a page is not null exactly while a live span has the page.
//! 3. Every pointer handed out derives from the reservation it lies in.
//! 4. Of the watched objects that begin in a unit of an arena, the note of that unit names the one that the program
//!    has; it is zero if there is none. (In secure mode, which has words of its own, notes say nothing.)

#![allow(unsafe_code)]

mod held;
#[cfg(all(test, not(loom)))]
mod tests;

use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};

use crate::base::PAGE_BYTES;
#[cfg(feature = "preload")]
use crate::base::size_class::CLASSES;
use crate::base::size_class::SizeClass;
#[cfg(feature = "secure")]
use crate::base::size_class::{GEOMETRY, Geometry};
use crate::mspan::MSpan;
use crate::pages::{ARENA_PAGES, ArenaPages};
use crate::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::{meta, secure, sys};
use held::Held;
#[cfg(feature = "preload")]
pub(crate) use held::take_held;
pub(crate) use held::{give_back_held, held_class, note_held};

/// Bytes of an arena's address space; its start is a multiple of it. As in Go on 64-bit systems.
pub(crate) const ARENA_BYTES: usize = ARENA_PAGES as usize * PAGE_BYTES;
/// Arenas' worth of address space in the window: 16 TiB, four times what [`crate::mheap`] can hold.
/// The table takes 8 bytes for each, of which only touched pages cost memory.
const WINDOW_ARENAS: usize = 1 << 18;
/// Part of the window that lies below the first arena: a quarter.
const WINDOW_BELOW: usize = WINDOW_ARENAS / 4;
/// How far below the kernel's first choice the first arena is asked for, so that arenas can follow
/// upwards: 256 GiB.
const FIRST_ARENA_BELOW: usize = 256 << 30;
/// In secure mode, the first arena is asked for up to so many places below that: 4 TiB.
const RANDOM_ARENAS: usize = 1 << 16;
/// In secure mode, up to so many places are left out before another arena.
const RANDOM_GAP: usize = 16;
/// Places tried, one arena's size apart, before the kernel chooses.
const PLACES_TRIED: usize = 32;
/// Pages of the guard at the end of an arena: 64 KiB, the largest page of any system.
const GUARD_PAGES: u32 = (64 << 10) / PAGE_BYTES as u32;
/// Most pages that a run in an arena can have.
pub(crate) const RUN_PAGES_MAX: usize = (ARENA_PAGES - GUARD_PAGES) as usize;
/// Smallest arena made when address space is short: 1 MiB.
const MIN_BYTES: usize = 1 << 20;
/// Tag of a table entry that points to the span of a huge object: the sign, so that one comparison
/// tells an arena from both a huge object and nothing.
const HUGE_TAG: usize = 1 << 63;
/// Where the class of a span is in the entry of its pages. Linux gives programs no addresses of
/// more than 47 bits (aarch64: 48) unless they ask for them.
const CLASS_SHIFT: u32 = 56;
/// Where the number of the page in its span is, of small objects' spans.
const NUMBER_SHIFT: u32 = 48;
/// What is neither in a page's entry: the address of the span.
const SPAN_MASK: usize = (1 << NUMBER_SHIFT) - 1;

/// [`Geometry::reciprocal`](crate::base::size_class::Geometry::reciprocal) of each class that a page's entry can
/// have; zero for "none" and for watched classes, which [`class_at`] leaves to [`held_class`].
#[cfg(feature = "preload")]
static RECIPROCALS: [u32; CLASSES] = reciprocals();

/// Bytes of a transparent huge page, on systems with pages of 4 KiB.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

const _: () = assert!(ARENA_BYTES == 64 << 20);
const _: () = assert!(ARENA_BYTES / HUGE_PAGE_BYTES == u32::BITS as usize);

/// What lies at each 64 MiB of the window: null, an [`Arena`], or a tagged [`MSpan`].
/// **Written by who reserved the address space, read by anyone; atomic.**
static TABLE: [AtomicPtr<Arena>; WINDOW_ARENAS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; WINDOW_ARENAS];

/// Number of the first 64 MiB of the window; zero before the first reservation. **Any thread;
/// atomic.** Set once.
static WINDOW: AtomicUsize = AtomicUsize::new(0);

/// Where the next arena is asked for. **Any thread; atomic**: a hint.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The record of an arena. All-zero bytes are valid but for `base`.
pub(crate) struct Arena {
    /// First byte of the reservation. **Fixed after init.**
    base: NonNull<u8>,
    /// Number of the arena in order of creation. **Fixed after init.**
    pub(crate) id: u32,
    /// Pages reserved, but for the guard; fewer than [`RUN_PAGES_MAX`] if address space was short. **Fixed after
    /// init.**
    pub(crate) limit_pages: u32,
    /// Blocks of [`HUGE_PAGE_BYTES`] for which the kernel was asked for a huge page, one bit each. **Any
    /// thread; atomic**, a note of the last advice.
    pub(crate) huge_blocks: AtomicU32,
    /// Blocks that were such and are to have small pages until all of them is free; as `huge_blocks`.
    pub(crate) broken_blocks: AtomicU32,
    /// Which pages are free. **Under the `mheap::HEAP` lock.**
    pages: UnsafeCell<Committed>,
    /// Which of those that are free are filled.
    #[cfg(feature = "secure")]
    pub(crate) filled: secure::FilledPages,
    /// The watched objects that the program has: see [`held`].
    held: Held,
    /// The live span of each page, and its class from [`CLASS_SHIFT`] on. **Written by who holds the
    /// pages, read by anyone; atomic.**
    spans: [AtomicPtr<MSpan>; ARENA_PAGES as usize],
}

/// The part of an arena under the heap's lock.
pub(crate) struct Committed {
    /// Pages committed, from the first one on.
    pub(crate) committed_pages: u32,
    /// Those up to the highest one that was ever in use.
    pub(crate) touched_pages: u32,
    /// Which of them are free.
    pub(crate) pages: ArenaPages,
}

// SAFETY: each field's doc says who may touch it.
unsafe impl Sync for Arena {}

/// What an address is.
pub(crate) enum Place {
    /// Outside all arenas and huge objects.
    Foreign,
    /// In an arena, but in no live span.
    Free,
    /// In this live span.
    Live(&'static MSpan),
}

/// What lies at `address`, which may be anything. Two loads, the second of which depends on the
/// first; never faults.
#[inline]
pub(crate) fn place_of(address: usize) -> Place {
    // Acquire pairs with the Release of `Arena::reserve` and `set_huge`: the record is filled.
    let Some(found) = entry_of(address).map(|entry| entry.load(Acquire)) else {
        return Place::Foreign;
    };
    if let Some(arena) = untagged(found) {
        let span = arena.entry(address).map_addr(|entry| entry & SPAN_MASK);
        // SAFETY: entries of pages point to span records, which live for ever.
        return match unsafe { span.as_ref() } {
            Some(span) => Place::Live(span),
            None if page_of(address) < arena.limit_pages as usize => Place::Free,
            None => Place::Foreign,
        };
    }
    let span = found
        .map_addr(|address| address & !HUGE_TAG)
        .cast::<MSpan>();
    // SAFETY: tagged entries point to span records, which live for ever.
    match unsafe { span.as_ref() } {
        Some(span) if address.wrapping_sub(span.base().addr()) < span.bytes() => Place::Live(span),
        _ => Place::Foreign,
    }
}

/// The span of `class`, a span class, that lies at `address`, which may be anything; `None` if none does.
/// The loads of [`place_of`].
#[inline]
pub(crate) fn span_at(address: usize, class: SizeClass) -> Option<&'static MSpan> {
    // Acquire as in `place_of`.
    untagged(entry_of(address)?.load(Acquire))?.span_at(address, class)
}

/// The spans of many addresses, most of which lie in the arena of the one before.
pub(crate) struct Lookup {
    base: usize,
    arena: &'static Arena,
}

impl Lookup {
    /// One that begins with the arena of an address. `None` if there is none.
    pub(crate) fn at(address: usize) -> Option<Self> {
        Some(Self {
            base: address - address % ARENA_BYTES,
            // Acquire as in `place_of`.
            arena: untagged(entry_of(address)?.load(Acquire))?,
        })
    }

    /// The span that the page at an address is of, whatever it holds.
    #[inline(always)] // The loop over objects that lie anywhere is all that calls it.
    pub(crate) fn span_at(&mut self, address: usize) -> Option<&'static MSpan> {
        // By the difference, which is the shortest way to the entry.
        if address.wrapping_sub(self.base) >= ARENA_BYTES {
            *self = Self::at(address)?;
        }
        let page = address.wrapping_sub(self.base) / PAGE_BYTES;
        let entry = self.arena.spans[page % self.arena.spans.len()].load(Acquire);
        // SAFETY: entries of pages point to span records, which live for ever.
        unsafe { entry.map_addr(|entry| entry & SPAN_MASK).as_ref() }
    }
}

/// A span of slots, as the entry of one of its pages tells.
#[cfg(feature = "secure")]
#[derive(Clone, Copy)]
pub(crate) struct SlotSpan {
    pub(crate) span: &'static MSpan,
    pub(crate) class: SizeClass,
    /// How its class cuts it.
    pub(crate) geometry: &'static Geometry,
}

/// The span of slots that lies at `address`, which may be anything, and the offset in it; `None` for whatever else
/// is there, tiny blocks included. The loads of [`place_of`].
#[cfg(feature = "secure")]
#[inline]
pub(crate) fn slots_at(address: usize) -> Option<(SlotSpan, u32)> {
    // Acquire as in `place_of`.
    let arena = untagged(entry_of(address)?.load(Acquire))?;
    let entry = arena.entry(address);
    let (class, offset) = class_and_offset(entry.addr(), address);
    if class == SizeClass::NONE {
        return None;
    }
    // SAFETY: entries of pages that have a class point to span records, which live for ever; and a class that such
    // an entry can have has a geometry.
    let (span, geometry) = unsafe {
        let span = &*entry.map_addr(|entry| entry & SPAN_MASK);
        (span, GEOMETRY.get_unchecked(class.index()))
    };
    let found = SlotSpan {
        span,
        class,
        geometry,
    };
    Some((found, offset))
}

/// What the entry of a page says: the class, and the offset in the span of an address in that page.
#[cfg(feature = "secure")] // C's functions have it as well.
#[inline(always)] // Part of the fast path of C's `free`.
fn class_and_offset(entry: usize, address: usize) -> (SizeClass, u32) {
    let page = (entry >> NUMBER_SHIFT) as u8;
    let offset = u32::from(page) * PAGE_BYTES as u32 + (address % PAGE_BYTES) as u32;
    // SAFETY: `set_span` put the index of a class there, not a tiny one, or it is zero.
    let class = unsafe { core::mem::transmute::<u8, SizeClass>((entry >> CLASS_SHIFT) as u8) };
    (class, offset)
}

/// The class of the small object that begins at `address`, which may be anything. `None` for whatever
/// else is there: the middle of an object, a watched or large one, a tiny block, free pages, nothing of ours. (Behind
/// the last slot of a span there may seem to be one.) The loads of [`place_of`], and one from a table.
#[cfg(feature = "preload")]
#[inline(always)] // Part of the fast path of C's `free`.
pub(crate) fn class_at(address: usize) -> Option<SizeClass> {
    // Acquire as in `place_of`.
    let arena = untagged(entry_of(address)?.load(Acquire))?;
    let (class, offset) = class_and_offset(arena.entry(address).addr(), address);
    // SAFETY: a class that a page's entry can have.
    let reciprocal = unsafe { *RECIPROCALS.get_unchecked(class.index()) };
    is_multiple(offset, reciprocal).then_some(class)
}

/// The watched class of the span that has the page of `address`, which may be anything.
#[cfg(feature = "preload")]
#[inline(always)] // Part of the fast path of C's `free` for such objects.
pub(crate) fn watched_class_at(address: usize) -> Option<SizeClass> {
    // Acquire as in `place_of`.
    let arena = untagged(entry_of(address)?.load(Acquire))?;
    let (class, _) = class_and_offset(arena.entry(address).addr(), address);
    class.is_watched().then_some(class)
}

/// Whether an offset in a span is a multiple of its slots' bytes, of which this is the reciprocal
/// (ceil(2^32 / bytes)): in the lower half of the product are `offset / bytes` times what the reciprocal was
/// rounded up by, and the remainder times the reciprocal. False if that is zero.
#[cfg(feature = "preload")]
#[inline(always)] // As above.
const fn is_multiple(offset: u32, reciprocal: u32) -> bool {
    offset.wrapping_mul(reciprocal) < reciprocal
}

#[cfg(feature = "preload")]
const fn reciprocals() -> [u32; CLASSES] {
    let mut reciprocals = [0; CLASSES];
    let mut index = 1;
    while index < CLASSES {
        let class = SizeClass::new(index);
        if !class.is_watched() {
            reciprocals[index] = class.geometry().reciprocal;
        }
        index += 1;
    }
    reciprocals
}

/// The arena that an entry of the table points to, if it points to one.
#[inline(always)] // As above.
fn untagged(entry: *mut Arena) -> Option<&'static Arena> {
    if (entry.addr() as isize) <= 0 {
        return None;
    }
    // SAFETY: not null and untagged, so the record of an arena, which lives for ever.
    Some(unsafe { &*entry })
}

/// Number of the page at an address, in its arena.
#[inline(always)] // As in `class_at`.
fn page_of(address: usize) -> usize {
    (address / PAGE_BYTES) % ARENA_PAGES as usize
}

/// The entry of the table for an address, if the window has it.
#[inline]
fn entry_of(address: usize) -> Option<&'static AtomicPtr<Arena>> {
    // Relaxed: before the window is set every entry is null, so a late look at it finds nothing.
    let first = WINDOW.load(Relaxed);
    TABLE.get((address / ARENA_BYTES).wrapping_sub(first))
}

/// Puts the window around `address`, if nobody has yet.
fn set_window(address: usize) {
    let first = (address / ARENA_BYTES).saturating_sub(WINDOW_BELOW).max(1);
    // Relaxed: the number publishes nothing but itself. The first to set it wins.
    let _ = WINDOW.compare_exchange(0, first, Relaxed, Relaxed);
}

impl Arena {
    /// Reserves address space for an arena and makes its record: 64 MiB, or less if the address
    /// space is limited, but at least `pages_min` pages. None of it is committed.
    pub(crate) fn reserve(id: u32, pages_min: u32) -> Option<&'static Self> {
        let mut bytes = ARENA_BYTES;
        let base = loop {
            match reserve_aligned(bytes) {
                Some(base) => break base,
                None if bytes / 2 >= MIN_BYTES.max(pages_min as usize * PAGE_BYTES) => bytes /= 2,
                None => return None,
            }
        };
        sys::name_mapping(base, bytes, c"spanmalloc: heap");
        // SAFETY: reserved just now, whole system pages.
        unsafe { sys::set_dumped(base, bytes, false) };
        set_window(base.addr().get());
        let (Some(entry), Some(record)) = (entry_of(base.addr().get()), meta::alloc::<Self>())
        else {
            // SAFETY: reserved just now, and nobody else knows it.
            unsafe { sys::unmap(base, bytes) };
            return None;
        };
        // SAFETY: the record is fresh zeroed memory of the right size and alignment, so its other
        // fields are valid, and nobody else knows it.
        unsafe {
            let arena = record.as_ptr();
            (&raw mut (*arena).base).write(base);
            (&raw mut (*arena).id).write(id);
            (&raw mut (*arena).limit_pages).write((bytes / PAGE_BYTES).min(RUN_PAGES_MAX) as u32);
        }
        if bytes == ARENA_BYTES {
            let page = sys::page_bytes();
            // Nothing is lost if something is there, as the guard of the arena before this one.
            let _ = sys::reserve_at(base.addr().get() - page, page, false);
        }
        // Release pairs with the Acquire in `place_of`.
        entry.store(record.as_ptr(), Release);
        // SAFETY: filled, and lives for ever.
        Some(unsafe { record.as_ref() })
    }

    /// The part under the heap's lock.
    ///
    /// # Safety
    /// The caller holds the lock of `mheap::HEAP`, and lets no two results for one arena live at
    /// the same time.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn committed(&self) -> &mut Committed {
        // SAFETY: the caller's promise makes the reference unique.
        unsafe { &mut *self.pages.get() }
    }

    /// First byte of a page.
    pub(crate) fn page_start(&self, page: u32) -> NonNull<u8> {
        debug_assert!(page <= self.limit_pages);
        // SAFETY: pages are numbered below `limit_pages`, all inside the reservation.
        unsafe { self.base.add(page as usize * PAGE_BYTES) }
    }

    /// The arena and page of an address inside a span that is not huge.
    pub(crate) fn containing(address: *mut u8) -> Option<(&'static Self, u32)> {
        let entry = entry_of(address.addr())?;
        // Acquire pairs with the Release of `reserve`.
        let arena = untagged(entry.load(Acquire))?;
        Some((arena, page_of(address.addr()) as u32))
    }

    /// The span and class of the page at an address in this arena.
    #[inline(always)] // As in `class_at`.
    fn entry(&self, address: usize) -> *mut MSpan {
        // Acquire pairs with the Release in `set_span`: the span's record is filled.
        self.spans[page_of(address)].load(Acquire)
    }

    /// As the function of this name, for an address in this arena.
    #[inline]
    fn span_at(&self, address: usize, class: SizeClass) -> Option<&'static MSpan> {
        let entry = self.entry(address);
        // As in `set_span`.
        let class_of_entry = if class.is_tiny() { 0 } else { class.index() };
        if entry.addr() >> CLASS_SHIFT != class_of_entry {
            return None;
        }
        // SAFETY: entries of pages point to span records, which live for ever.
        let span = unsafe { entry.map_addr(|entry| entry & SPAN_MASK).as_ref() }?;
        (!class.is_tiny() || span.is_of(class)).then_some(span)
    }

    /// Makes `span` (or none) the live span of `count` pages from `first`, which the caller holds.
    pub(crate) fn set_span(&self, first: u32, count: u32, span: Option<&'static MSpan>) {
        let entry_of_span = |span: &'static MSpan| {
            let class = span.class();
            // C has no tiny objects: what it says about them is looked into.
            let class = if class.is_tiny() { 0 } else { class.index() };
            let span = ptr::from_ref(span).cast_mut();
            (
                span.map_addr(|address| address | (class << CLASS_SHIFT)),
                usize::from(class != 0) << NUMBER_SHIFT,
            )
        };
        let (mut word, step) = span.map_or((ptr::null_mut(), 0), entry_of_span);
        for entry in &self.spans[first as usize..(first + count) as usize] {
            // Release pairs with the Acquire in `place_of`.
            entry.store(word, Release);
            word = word.map_addr(|address| address + step);
        }
    }
}

/// Reserves `bytes`, at most an arena's size, at a multiple of [`ARENA_BYTES`] in the window.
fn reserve_aligned(bytes: usize) -> Option<NonNull<u8>> {
    // Relaxed: a hint. Two threads with the same one get different places from the kernel.
    let mut place = match NEXT.load(Relaxed) {
        0 => first_place()?,
        next => next,
    };
    for _ in 0..PLACES_TRIED {
        if let Some(base) = sys::reserve_at(place, bytes, false) {
            let gap = secure::arena_offset(RANDOM_GAP);
            NEXT.store(place + (1 + gap) * ARENA_BYTES, Relaxed);
            return Some(base);
        }
        place += ARENA_BYTES;
    }
    // Taken, or no address space is left: the kernel knows. The hint stays, for a smaller request.
    sys::reserve(bytes, ARENA_BYTES, false)
}

/// Where the first arena is asked for: below a place where the kernel puts mappings.
fn first_place() -> Option<usize> {
    let probe = sys::map(sys::page_bytes())?;
    let address = probe.addr().get();
    // SAFETY: mapped just now for this purpose.
    unsafe { sys::unmap(probe, sys::page_bytes()) };
    let below = FIRST_ARENA_BELOW.min(address / 2);
    let below = below + secure::arena_offset(RANDOM_ARENAS) * ARENA_BYTES;
    Some((address - below.min(address / 2)) & !(ARENA_BYTES - 1))
}

/// Reserves address space for a huge object, `bytes` long (whole system pages), at a multiple of
/// `align` (at least [`ARENA_BYTES`]). Subject to the system's overcommit policy.
pub(crate) fn reserve_huge(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    // The window goes around the place of arenas, not of this object, which may be of any size.
    if WINDOW.load(Relaxed) == 0 {
        set_window(first_place()?);
    }
    let base = sys::reserve(bytes, align, true).or_else(|| reserve_tightly(bytes, align))?;
    sys::name_mapping(base, bytes, c"spanmalloc: huge object");
    let last = base.addr().get() + bytes - 1;
    if entry_of(base.addr().get()).is_some() && entry_of(last).is_some() {
        return Some(base);
    }
    // SAFETY: reserved just now, and nobody else knows it.
    unsafe { sys::unmap(base, bytes) };
    None
}

/// As `sys::reserve`, charged, but without more address space than `bytes` at any time, for where that
/// is limited: at the next multiple of `align` below the place that the kernel would choose.
#[cold]
fn reserve_tightly(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    let probe = sys::reserve(bytes, sys::page_bytes(), true)?;
    let place = probe.addr().get() & !(align - 1);
    // SAFETY: reserved just now, and nobody else knows it.
    unsafe { sys::unmap(probe, bytes) };
    sys::reserve_at(place, bytes, true)
}

/// Makes `span` (or none) the huge object at all of `bytes` from `base`, which the caller holds.
/// False, and nothing changed, if part of it lies outside the window.
pub(crate) fn set_huge(base: usize, bytes: usize, span: Option<&'static MSpan>) -> bool {
    if entry_of(base).is_none() || entry_of(base + bytes - 1).is_none() {
        return false;
    }
    let tagged = span.map_or(ptr::null_mut(), |span| {
        ptr::from_ref(span)
            .cast_mut()
            .map_addr(|address| address | HUGE_TAG)
            .cast()
    });
    for part in 0..bytes.div_ceil(ARENA_BYTES) {
        if let Some(entry) = entry_of(base + part * ARENA_BYTES) {
            // Release pairs with the Acquire in `place_of`.
            entry.store(tagged, Release);
        }
    }
    true
}
