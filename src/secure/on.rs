//! What the rest of the allocator calls.

#![allow(unsafe_code)]

pub(crate) use super::filled::{FilledPages, forget as pages_are_released, pages_are_used};
pub(crate) use super::guards::{
    bytes as guard_bytes, clear as clear_guard, pages as guard_pages, set as set_guard,
};
pub(crate) use super::protect::{
    drain as drain_waiting, lock_for_fork, locks_come_free, unlock_after_fork, waiting,
};
pub(crate) use super::quarantine::Quarantine;
pub(crate) use super::random::Random;
pub(crate) use super::small::{released_slots, span_ends, span_is_made};

use crate::arena::{Place, place_of, slots_at};
use crate::base::fatal::{Crime, fatal};
use crate::base::size_class::{SizeClass, class_for, class_for_direct, class_for_rest};
use crate::config::{self, Secure};
use crate::mspan::MSpan;
use crate::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use crate::sys::caller::Caller;

use super::{bytes, pages, small};

/// What the mode does: the bits of a [`Secure`]. **Any thread; atomic.** Set once.
static MODE: AtomicU16 = AtomicU16::new(0);
/// Whether that is decided. **Any thread; atomic.**
static DECIDED: AtomicBool = AtomicBool::new(false);

/// Whether the mode is on.
#[inline]
pub(crate) fn is_on() -> bool {
    // Relaxed: it is decided before the program has an object that it matters to.
    MODE.load(Relaxed) != 0
}

/// Whether the mode does this.
#[inline]
pub(super) fn does(what: Secure) -> bool {
    mode().has(what)
}

/// What the mode does.
#[inline]
pub(super) fn mode() -> Secure {
    Secure::from_bits(MODE.load(Relaxed))
}

/// Decides about the mode, once the environment was read. Whether it is on from here on, and was not before.
pub(crate) fn decide() -> bool {
    let (mode, is_last_word) = config::secure();
    let is_on = mode != Secure::NONE;
    if !(is_last_word || is_on) || DECIDED.swap(true, Relaxed) {
        return false;
    }
    if is_on {
        bytes::begin(mode);
        MODE.store(mode.bits(), Relaxed);
    }
    is_on
}

/// Whether the mode is decided.
#[inline]
pub(crate) fn is_decided() -> bool {
    // Relaxed: as in `is_on`.
    DECIDED.load(Relaxed)
}

/// Bytes that an object has beside those that were asked for, at least.
#[inline]
fn tail_bytes(mode: Secure) -> usize {
    usize::from(mode.has(Secure::CANARY))
}

/// The class for a request: of a slot with room for the canary. Never a tiny one.
#[inline]
fn class_of(mode: Secure, size: usize, align: usize) -> SizeClass {
    let size = size_with_tail(mode, size);
    match class_for_direct(size, align) {
        Some(class) => class,
        None => class_for_rest(size, align),
    }
}

/// The size of a request with its canary, or one of the same class that is not tiny: 5 to 8 bytes for up to 8. Zero
/// if it is too large for a number.
#[inline]
fn size_with_tail(mode: Secure, size: usize) -> usize {
    let last = size.wrapping_add(tail_bytes(mode)).wrapping_sub(1);
    (last | (MIN_BYTES - 1)).wrapping_add(1)
}

/// Smallest request that has a size class that is not a tiny one.
const MIN_BYTES: usize = 5;
/// Largest request: with the canary it is one that `class_for` takes.
const MAX_BYTES: usize = isize::MAX as usize - 1;

/// What a mode does with objects that have slots, if it is what `SPANMALLOC_SECURE=1` does: the calls are compiled
/// for it once more, so that they ask nothing.
const USUAL: Secure = Secure::USUAL.without_pages();

/// Allocates `size` bytes at a multiple of `align`, all zero with `zeroed`. Null if the system has no memory.
#[inline(never)]
pub(crate) fn alloc(size: usize, align: usize, zeroed: bool, caller: Caller) -> *mut u8 {
    if mode().without_pages() == USUAL
        && let Some(class) = class_for_direct(size_with_tail(USUAL, size), align)
    {
        return small::alloc(USUAL, class, size, zeroed, caller);
    }
    alloc_rest(size, align, zeroed, caller)
}

/// [`alloc`] beyond 2 KiB, and in unusual modes.
#[inline(never)]
fn alloc_rest(size: usize, align: usize, zeroed: bool, caller: Caller) -> *mut u8 {
    if size > MAX_BYTES - (align - 1) {
        return core::ptr::null_mut();
    }
    let mode = mode();
    match class_of(mode, size, align) {
        SizeClass::NONE => pages::alloc(size, align, tail_bytes(mode), zeroed, caller),
        class => small::alloc(mode, class, size, zeroed, caller),
    }
}

/// What a caller says about an object that it frees or resizes.
#[derive(Clone, Copy)]
pub(crate) enum Told {
    /// Its size and alignment.
    Layout(usize, usize),
    /// Its size; C's `free_sized`.
    #[cfg_attr(not(feature = "preload"), allow(dead_code))]
    Size(usize),
    /// Nothing, as in C.
    #[cfg_attr(not(feature = "preload"), allow(dead_code))]
    Nothing,
}

impl Told {
    /// Whether it is so, at a short look: false if that does not tell.
    #[inline(always)] // As in `small`.
    pub(super) fn is_surely(self, mode: Secure, class: SizeClass, size: usize) -> bool {
        match self {
            Self::Layout(told, align) => {
                told == size && class_for_direct(size_with_tail(mode, told), align) == Some(class)
            }
            Self::Size(told) => told == size,
            Self::Nothing => true,
        }
    }

    /// The crime, if it is not so: of an object with `size` bytes that is one of `class`.
    #[inline(never)]
    pub(super) fn crime(self, mode: Secure, class: SizeClass, size: usize) -> Option<Crime> {
        match self {
            Self::Layout(told, align) if class_of(mode, told, align) != class => {
                Some(Crime::WrongLayout)
            }
            Self::Layout(told, _) | Self::Size(told) if told != size => Some(Crime::WrongSize),
            _ => None,
        }
    }
}

/// Frees an object. False if it is not from this heap. Aborts if it is none, or not what is told.
#[inline(never)]
pub(crate) fn free(object: *mut u8, told: Told) -> bool {
    let is_usual = mode().without_pages() == USUAL;
    (is_usual && small::free_short(USUAL, object, told)) || free_rest(object, told)
}

/// [`free`] of whatever has no short slot, and in unusual modes.
#[inline(never)]
fn free_rest(object: *mut u8, told: Told) -> bool {
    small::free(mode(), object, told) || free_other(object, told)
}

/// Frees an object without a slot, as [`free`].
#[cold]
#[inline(never)]
fn free_other(object: *mut u8, told: Told) -> bool {
    match place_of(object.addr()) {
        Place::Live(span) if span.class() == SizeClass::NONE => pages::free(span, object, told),
        Place::Live(_) => match told {
            // A tiny one of a time before the mode was decided.
            Told::Layout(size, align) => {
                crate::malloc::free_small(class_for(size, align), object);
            }
            _ => fatal(Crime::WrongLayout, object.addr()),
        },
        Place::Free => fatal(Crime::FreeMemory, object.addr()),
        Place::Foreign => return false,
    }
    true
}

/// As [`free`], for an object that has a Layout: one that is not from this heap is a crime.
#[inline(never)]
pub(crate) fn free_with_layout(object: *mut u8, size: usize, align: usize) {
    let is_usual = mode().without_pages() == USUAL;
    let told = Told::Layout(size, align);
    if !is_usual || !small::free_short(USUAL, object, told) {
        free_rest_with_layout(object, size, align);
    }
}

/// [`free_with_layout`] of whatever has no short slot, and in unusual modes.
#[inline(never)]
fn free_rest_with_layout(object: *mut u8, size: usize, align: usize) {
    if !free_rest(object, Told::Layout(size, align)) {
        fatal(Crime::ForeignPointer, object.addr());
    }
}

/// Changes the size of an object, and its alignment to `align`, which it has unless its class changes. Null, and the object is as
/// before, if the system has no memory; `None` if it is not from this heap. Aborts if it is none, or not what
/// is told.
#[cold]
#[inline(never)]
pub(crate) fn realloc(
    object: *mut u8,
    told: Told,
    new_size: usize,
    align: usize,
    caller: Caller,
) -> Option<*mut u8> {
    if new_size > MAX_BYTES - (align - 1) {
        return Some(core::ptr::null_mut());
    }
    let mode = mode();
    let tail = tail_bytes(mode);
    let new_class = class_of(mode, new_size, align);
    let is_large = new_class == SizeClass::NONE;
    let (old_size, was_large) = if let Some(old_size) = small::checked_size(object, told) {
        if class_at(object) == new_class {
            small::resize(object, new_size);
            return Some(object);
        }
        (old_size, false)
    } else {
        let span = large_span(object)?;
        match pages::resize(
            span,
            object,
            told,
            is_large.then_some(new_size),
            align,
            tail,
        ) {
            Ok(resized) => return Some(resized),
            Err(old_size) => (old_size, true),
        }
    };
    let new = if is_large && was_large && new_size > old_size {
        pages::alloc_for_growth(new_size, align, tail, caller)
    } else {
        alloc(new_size, align, false, caller)
    };
    if !new.is_null() {
        // SAFETY: the first one was just found live with `old_size` bytes, and the second was allocated above.
        unsafe { bytes::copy(object, new, old_size.min(new_size)) };
        free(object, told);
    }
    Some(new)
}

/// The class of an object.
fn class_at(object: *mut u8) -> SizeClass {
    slots_at(object.addr()).map_or(SizeClass::NONE, |(found, _)| found.class)
}

/// The span of an object without a slot; `None` if it is not from this heap. Aborts if it is none.
fn large_span(object: *mut u8) -> Option<&'static MSpan> {
    match place_of(object.addr()) {
        Place::Live(span) if span.class() == SizeClass::NONE => Some(span),
        Place::Live(_) => fatal(Crime::WrongLayout, object.addr()),
        Place::Free => fatal(Crime::FreeMemory, object.addr()),
        Place::Foreign => None,
    }
}

/// Bytes of an object that were asked for; `None` if it is not from this heap. Aborts if it is none.
#[cfg(feature = "preload")]
pub(crate) fn size_of(object: *mut u8) -> Option<usize> {
    small::checked_size(object, Told::Nothing).or_else(|| {
        let span = large_span(object)?;
        Some(pages::checked_size(span, object, Told::Nothing))
    })
}

/// By how many arenas the first one lies below where it would; how many places lie between two. Both by
/// chance.
pub(crate) fn arena_offset(most: usize) -> usize {
    if !does(Secure::RANDOM) {
        return 0;
    }
    crate::sys::random() as usize % most
}
