//! Objects with a slot, in secure mode.

#![allow(unsafe_code)]

use super::bytes;
use super::on::{Told, mode};
use super::states::{State, States};
use crate::arena::{Place, place_of};
use crate::base::fatal::{Crime, fatal};
use crate::base::size_class::{Geometry, SizeClass};
use crate::config::Secure;
use crate::mspan::MSpan;
use crate::sys::caller::Caller;
use crate::{malloc, profile, runtime, scavenge};

/// An object and its place.
struct Slot {
    object: *mut u8,
    slot: usize,
    slot_bytes: usize,
    states: Option<States>,
}

impl Slot {
    /// The slot that begins at `object`, which lies in `span`; `None` if none does.
    #[inline]
    fn at(span: &MSpan, object: *mut u8, states: Option<States>) -> Option<Self> {
        let geometry: &Geometry = span.class().geometry();
        let slot_bytes = geometry.slot_bytes as usize;
        let offset = object.addr().wrapping_sub(span.base().addr());
        // An offset that is a slot's gives its index. Whatever another one gives is not its own.
        let slot = ((offset as u64).wrapping_mul(u64::from(geometry.reciprocal)) >> 32) as usize;
        let is_start = slot * slot_bytes == offset && slot < geometry.slots as usize;
        is_start.then_some(Self {
            object,
            slot,
            slot_bytes,
            states,
        })
    }

    /// Whether the canary behind so many bytes lives. The caller has the object, or is told so by the program.
    #[inline]
    fn canary_lives(&self, mode: Secure, size: usize) -> bool {
        // SAFETY: the slot has `slot_bytes`, a multiple of 8 at a multiple of 8, and `size` is less.
        !mode.has(Secure::CANARY)
            || unsafe { bytes::canary_lives(self.object, size, self.slot_bytes) }
    }

    /// Writes the canary behind so many bytes; as [`Self::canary_lives`].
    #[inline]
    fn set_canary(&self, mode: Secure, size: usize) {
        if mode.has(Secure::CANARY) {
            // SAFETY: as in `canary_lives`.
            unsafe { bytes::set_canary(self.object, size, self.slot_bytes) };
        }
    }

    /// Aborts if a slot that was filled was written since. Nobody has the object.
    #[inline]
    fn verify(&self, state: State) {
        // SAFETY: the slot has that many bytes, and the state says that nobody has it.
        if state == State::FILLED && !unsafe { bytes::is_filled(self.object, self.slot_bytes) } {
            fatal(Crime::WriteAfterFree, self.object.addr());
        }
    }
}

/// Allocates an object of `class` for `size` bytes.
pub(super) fn alloc(class: SizeClass, size: usize, zeroed: bool, caller: Caller) -> *mut u8 {
    let mode = mode();
    let mut object = core::ptr::null_mut();
    if let Some(mcache) = runtime::mcache() {
        object = mcache.pop_secure(class, mode.has(Secure::RANDOM));
    }
    if object.is_null() {
        object = malloc::alloc_from_spans(class);
    }
    let object = profile::count(object, class, size, caller);
    if object.is_null() {
        return object;
    }
    if let Place::Live(span) = place_of(object.addr())
        && let Some(slot) = Slot::at(span, object, States::of_or_make(span, State::UNKNOWN))
        && let Some(states) = slot.states
    {
        slot.verify(states.get(slot.slot));
        states.set(slot.slot, State::live(slot.slot_bytes - size));
        slot.set_canary(mode, size);
    }
    if zeroed {
        // SAFETY: the object is ours and has at least that many bytes.
        unsafe { bytes::clear(object, size) };
    }
    object
}

/// Frees an object of `class` in `span`. Aborts if it is none, or not what is told.
pub(super) fn free(span: &'static MSpan, class: SizeClass, object: *mut u8, told: Told) {
    let mode = mode();
    let Some(slot) = Slot::at(span, object, States::of(span)) else {
        fatal(Crime::InteriorPointer, object.addr());
    };
    if let Some(states) = slot.states {
        let state = states.replace(slot.slot, State::FREED);
        if let Some(size) = size_by(&slot, class, state, told)
            && !slot.canary_lives(mode, size)
        {
            fatal(Crime::Overflow, object.addr());
        }
        if mode.has(Secure::FILL) || mode.has(Secure::ZERO) {
            // SAFETY: the slot has that many bytes, and the exchange has made it ours (Invariant 2).
            unsafe { bytes::fill(object, slot.slot_bytes) };
            if mode.has(Secure::FILL) {
                states.set(slot.slot, State::FILLED);
            }
        }
    }
    let was_slow = match runtime::mcache() {
        Some(mcache) => mcache.free_secure(class, object, mode.has(Secure::QUARANTINE)),
        None => {
            runtime::free_detached(class, object);
            true
        }
    };
    if was_slow {
        scavenge::after_free();
    }
}

/// Bytes that were asked for, by the state of an object that the program frees or resizes; `None` if that is
/// not known. Aborts if it is no object, or not what is told.
#[inline]
fn size_by(slot: &Slot, class: SizeClass, state: State, told: Told) -> Option<usize> {
    let Some(slack) = state.slack_bytes() else {
        match state {
            State::UNKNOWN => return None,
            State::NEW => fatal(Crime::FreeMemory, slot.object.addr()),
            _ => fatal(Crime::DoubleFree, slot.object.addr()),
        }
    };
    let size = slot.slot_bytes - slack;
    if let Some(crime) = told.crime(class, size) {
        fatal(crime, slot.object.addr());
    }
    Some(size)
}

/// Bytes of an object that were asked for; the slot's, if that is not known. Aborts if it is no object, not
/// what is told, or has overflowed.
pub(super) fn checked_size(span: &'static MSpan, object: *mut u8, told: Told) -> usize {
    let Some(slot) = Slot::at(span, object, States::of(span)) else {
        fatal(Crime::InteriorPointer, object.addr());
    };
    let Some(states) = slot.states else {
        return slot.slot_bytes;
    };
    let Some(size) = size_by(&slot, span.class(), states.get(slot.slot), told) else {
        return slot.slot_bytes;
    };
    if !slot.canary_lives(mode(), size) {
        fatal(Crime::Overflow, object.addr());
    }
    size
}

/// Gives an object that was just looked at another size, of the same class.
pub(super) fn resize(span: &'static MSpan, object: *mut u8, size: usize) {
    if let Some(slot) = Slot::at(span, object, States::of(span))
        && let Some(states) = slot.states
    {
        states.set(slot.slot, State::live(slot.slot_bytes - size));
        slot.set_canary(mode(), size);
    }
}

/// A fresh span has slots that nobody has had. Nobody else knows the span.
pub(crate) fn span_is_made(span: &MSpan) {
    if super::on::is_on() {
        // Without memory the states come later, with the first object.
        States::of_or_make(span, State::NEW);
    }
}

/// A span of which nobody has an object goes: what was freed there is verified for the last time.
pub(crate) fn span_ends(span: &'static MSpan) {
    let states = match span.class() {
        SizeClass::NONE => None,
        _ => States::of(span),
    };
    let Some(states) = states else {
        return;
    };
    let geometry = span.class().geometry();
    for index in 0..geometry.slots as usize {
        if states.get(index) == State::FILLED
            && let Some(slot) = Slot::at(span, span.slot_address(index, geometry), Some(states))
        {
            slot.verify(State::FILLED);
        }
    }
    States::end(span);
}

/// Memory in these bytes of a span, from its start on, goes back to the system, and what was filled there is
/// not any more. Nobody hands the slots out meanwhile.
pub(crate) fn released_slots(span: &'static MSpan, start: usize, end: usize) {
    let Some(states) = States::of(span) else {
        return;
    };
    let slot_bytes = span.class().geometry().slot_bytes as usize;
    for slot in start / slot_bytes..end.div_ceil(slot_bytes) {
        if states.get(slot) == State::FILLED {
            states.set(slot, State::FREED);
        }
    }
}
