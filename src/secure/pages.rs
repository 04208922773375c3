//! Objects of whole pages, in secure mode.
//!
//! The word of the span's record that has the table of a small span says of a large object what is known:
//! nothing, that it was freed, that it was freed and filled, or how many bytes were asked for.

#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use super::on::{Told, does, mode};
use super::{bytes, guards, protect};
use crate::arena::{Place, place_of};
use crate::base::fatal::{Crime, fatal};
use crate::base::size_class::SizeClass;
use crate::config::Secure;
use crate::mspan::MSpan;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use crate::sys::caller::Caller;
use crate::{large, malloc, profile, scavenge};

/// Bytes behind an object that are its canary, at most: the rest of its pages would be touched for it.
const CANARY_BYTES_MAX: usize = 256;

/// What is known of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It was made before the mode was decided.
    Unknown,
    Freed,
    /// Freed and filled.
    Filled,
    /// The program has it, and asked for so many bytes.
    Live(usize),
}

impl State {
    fn encode(self) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Freed => 1,
            Self::Filled => 2,
            Self::Live(size) => size + 3,
        }
    }

    fn decode(word: usize) -> Self {
        match word {
            0 => Self::Unknown,
            1 => Self::Freed,
            2 => Self::Filled,
            word => Self::Live(word - 3),
        }
    }

    fn of(span: &MSpan) -> Self {
        // Acquire, here and below: who finds an object freed finds all that was done before.
        Self::decode(span.table.load(Acquire).addr())
    }

    fn replace(span: &MSpan, state: Self) -> Self {
        let word = ptr::without_provenance_mut(state.encode());
        Self::decode(span.table.swap(word, AcqRel).addr())
    }

    fn set(span: &MSpan, state: Self) {
        let word = ptr::without_provenance_mut(state.encode());
        span.table.store(word, Release);
    }
}

/// Allocates as the parent's `alloc`: with `tail` bytes more at least.
pub(super) fn alloc(
    size: usize,
    align: usize,
    tail: usize,
    zeroed: bool,
    caller: Caller,
) -> *mut u8 {
    let guard = guards::bytes();
    let Some(bytes) = (size + tail).checked_add(guard) else {
        return ptr::null_mut();
    };
    // What is to be verified first can't be cleared yet.
    let is_verified = does(Secure::FILL);
    let object = malloc::alloc_pages(bytes, align, zeroed && !is_verified);
    finish(object, size, guard, zeroed && is_verified, caller)
}

/// Allocates for an object that grows to `size` bytes.
pub(super) fn alloc_for_growth(size: usize, align: usize, tail: usize, caller: Caller) -> *mut u8 {
    let guard = guards::bytes();
    let Some(bytes) = (size + tail).checked_add(guard) else {
        return ptr::null_mut();
    };
    let object = malloc::alloc_pages_for_growth(bytes, align);
    finish(object, size, guard, false, caller)
}

/// Makes fresh pages an object of the program's, which asked for `size` bytes; with so many bytes of a guard.
fn finish(object: *mut u8, size: usize, guard: usize, clears: bool, caller: Caller) -> *mut u8 {
    let Place::Live(span) = place_of(object.addr()) else {
        return object; // Null.
    };
    span_ends(span);
    guards::set(span, guard);
    begin(span, object, size);
    if clears {
        // SAFETY: the object is ours and has that many bytes.
        unsafe { bytes::clear(object, size) };
    }
    profile::count(object, SizeClass::NONE, size, caller)
}

/// A span whose pages nobody has gets another use: if it was filled, it is verified. Whether it was.
pub(super) fn span_ends(span: &MSpan) -> bool {
    if State::of(span) != State::Filled {
        return false;
    }
    // SAFETY: the span has that many bytes, and is the caller's.
    if !unsafe { bytes::is_filled(span.base(), span.bytes()) } {
        fatal(Crime::WriteAfterFree, span.base().addr());
    }
    State::set(span, State::Freed);
    true
}

/// The program has an object of `size` bytes from here on.
fn begin(span: &MSpan, object: *mut u8, size: usize) {
    State::set(span, State::Live(size));
    if does(Secure::CANARY) {
        // SAFETY: the object is the caller's; there are more than `size` bytes before its end.
        unsafe { bytes::set_canary(object, size, canary_end(span, size)) };
    }
}

/// Where the canary of an object ends.
fn canary_end(span: &MSpan, size: usize) -> usize {
    let most = size.next_multiple_of(8) + CANARY_BYTES_MAX;
    most.min(span.bytes() - guards::bytes_of(span))
}

/// Aborts if this is not the start of a live object, not what is told, or has overflowed. Its size.
fn check(span: &MSpan, object: *mut u8, state: State, told: Told) -> usize {
    let crime = match state {
        _ if span.base() != object => Crime::InteriorPointer,
        State::Freed | State::Filled => Crime::DoubleFree,
        _ if span.is_free() => Crime::FreeMemory,
        State::Unknown => return span.bytes(),
        State::Live(size) => {
            let lives = || {
                let end = canary_end(span, size);
                // SAFETY: the object has that many bytes, and is given up or resized by the program.
                unsafe { bytes::canary_lives(object, size, end) }
            };
            match told.crime(mode(), SizeClass::NONE, size) {
                Some(crime) => crime,
                None if does(Secure::CANARY) && !lives() => Crime::Overflow,
                None => return size,
            }
        }
    };
    fatal(crime, object.addr())
}

/// As the parent's `size_of`.
pub(super) fn checked_size(span: &MSpan, object: *mut u8, told: Told) -> usize {
    check(span, object, State::of(span), told)
}

/// Frees an object. Aborts if it is none, or not what is told.
pub(super) fn free(span: &'static MSpan, object: *mut u8, told: Told) {
    let state = if span.base() == object {
        State::replace(span, State::Freed)
    } else {
        State::of(span)
    };
    check(span, object, state, told);
    guards::clear(span);
    fill_if_wanted(span);
    if does(Secure::RETIRE) {
        protect::put(span);
    } else {
        large::forget_sample(span);
        large::free_span(span);
    }
    scavenge::after_free();
}

/// Fills a freed object, if the mode does so, and it is used again as it is, or keeps what is to be gone.
fn fill_if_wanted(span: &MSpan) {
    let is_verified = does(Secure::FILL) && protect::is_used_as_it_is(span);
    let goes = span.is_huge() || does(Secure::RETIRE) && protect::releases(span);
    if is_verified || does(Secure::ZERO) && !goes {
        // SAFETY: the object has that many bytes, and was given up.
        unsafe { bytes::fill(span.base(), span.bytes()) };
    }
    if is_verified {
        State::set(span, State::Filled);
    }
}

/// Gives an object another size, if it is one of whole pages as well (`new_size`), without a copy; where it is
/// then. Else the size that it has. Aborts as [`checked_size`].
pub(super) fn resize(
    span: &'static MSpan,
    object: *mut u8,
    told: Told,
    new_size: Option<usize>,
    align: usize,
    tail: usize,
) -> Result<*mut u8, usize> {
    let old_size = checked_size(span, object, told);
    let Some(new_size) = new_size.filter(|_| guards::bytes_of(span) == 0) else {
        return Err(old_size);
    };
    let resized: NonNull<u8> = large::resize(object, new_size + tail, align).ok_or(old_size)?;
    if let Place::Live(span) = place_of(resized.addr().get()) {
        begin(span, resized.as_ptr(), new_size);
    }
    Ok(resized.as_ptr())
}
