//! Objects with a slot, in secure mode.

#![allow(unsafe_code)]

use super::bytes;
use super::on::{Told, mode};
use super::states::{State, States, Word};
use crate::arena::slots_at;
use crate::base::fatal::{Crime, fatal};
use crate::base::size_class::{Geometry, SizeClass};
use crate::config::Secure;
use crate::mspan::MSpan;
use crate::sys::caller::Caller;
use crate::{malloc, profile, runtime, scavenge};

/// An object and its slot.
struct Slot {
    object: *mut u8,
    class: SizeClass,
    slot_bytes: usize,
    /// None if the system had no memory for states.
    state: Option<Word>,
}

/// A look at an address that finds no slot.
pub(super) enum NoSlot {
    /// It lies in no span of slots.
    Elsewhere,
    /// It lies in one, but no slot begins there.
    Inside,
}

impl Slot {
    /// The slot that begins at `object`, with its state: that of a span that has none yet by `states`.
    #[inline]
    fn at(
        object: *mut u8,
        states: impl FnOnce(&'static MSpan) -> Option<States>,
    ) -> Result<Self, NoSlot> {
        let (span, class, offset) = slots_at(object.addr()).ok_or(NoSlot::Elsewhere)?;
        let geometry: &Geometry = class.geometry();
        // Below is the remainder, times the reciprocal; see `arena::is_multiple`.
        let product = u64::from(offset) * u64::from(geometry.reciprocal);
        let slot = (product >> 32) as usize;
        if product as u32 >= geometry.reciprocal || slot >= geometry.slots as usize {
            return Err(NoSlot::Inside);
        }
        Ok(Self {
            object,
            class,
            slot_bytes: geometry.slot_bytes as usize,
            state: states(span).and_then(|states| states.word(slot)),
        })
    }

    /// The slot of an object that the program speaks of. Aborts if it is the middle of one.
    #[inline]
    fn of_program(object: *mut u8) -> Option<Self> {
        match Self::at(object, States::of) {
            Ok(slot) => Some(slot),
            Err(NoSlot::Elsewhere) => None,
            Err(NoSlot::Inside) => fatal(Crime::InteriorPointer, object.addr()),
        }
    }

    /// Whether the canary behind so many bytes lives. The caller has the object, or is told so by the program.
    #[inline]
    fn canary_lives(&self, mode: Secure, size: usize) -> bool {
        // SAFETY: the slot has `slot_bytes`, a multiple of 8 at a multiple of 8, and `size` is less.
        !mode.has(Secure::CANARY)
            || unsafe { bytes::canary_lives(self.object, size, self.slot_bytes) }
    }

    /// Begins an object of so many bytes, or another size of one: its state, and its canary.
    #[inline]
    fn begin(&self, mode: Secure, state: Word, size: usize) {
        state.set(State::live(self.slot_bytes - size));
        if mode.has(Secure::CANARY) {
            // SAFETY: as in `canary_lives`.
            unsafe { bytes::set_canary(self.object, size, self.slot_bytes) };
        }
    }

    /// Aborts if a slot in this state can't be handed out: it was filled, and written since, or another call has
    /// handed it out. Nobody else has the object.
    #[inline]
    fn verify(&self, mode: Secure, state: State) {
        if state == State::FILLED {
            // SAFETY: the slot has that many bytes, and the state says that nobody has it.
            if !unsafe { bytes::is_filled(mode, self.object, self.slot_bytes) } {
                fatal(Crime::WriteAfterFree, self.object.addr());
            }
        } else if state.slack_bytes().is_some() {
            fatal(Crime::DoubleFree, self.object.addr());
        }
    }

    /// Bytes that were asked for, by the state of an object that the program frees or resizes; `None` if that is
    /// not known. Aborts if it is no object, or not what is told.
    #[inline]
    fn size_by(&self, state: State, told: Told) -> Option<usize> {
        let Some(slack) = state.slack_bytes() else {
            return self.size_without_slack(state);
        };
        let size = self.slot_bytes - slack;
        if let Some(crime) = told.crime(self.class, size) {
            fatal(crime, self.object.addr());
        }
        Some(size)
    }

    /// As [`Self::size_by`], for a state that is not that of a live object.
    #[cold]
    fn size_without_slack(&self, state: State) -> Option<usize> {
        match state {
            State::UNKNOWN => None,
            State::NEW => fatal(Crime::FreeMemory, self.object.addr()),
            _ => fatal(Crime::DoubleFree, self.object.addr()),
        }
    }
}

/// Allocates an object of `class` for `size` bytes.
#[inline]
pub(super) fn alloc(
    mode: Secure,
    class: SizeClass,
    size: usize,
    zeroed: bool,
    caller: Caller,
) -> *mut u8 {
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
    let states = |span: &'static MSpan| States::of_or_make(span, State::UNKNOWN);
    if let Ok(slot) = Slot::at(object, states)
        && let Some(state) = slot.state
    {
        slot.verify(mode, state.get());
        slot.begin(mode, state, size);
    }
    if zeroed {
        // SAFETY: the object is ours and has at least that many bytes.
        unsafe { bytes::clear(object, size) };
    }
    object
}

/// Frees an object that has a slot. False if it has none. Aborts if it is none, or not what is told.
#[inline]
pub(super) fn free(mode: Secure, object: *mut u8, told: Told) -> bool {
    let Some(slot) = Slot::of_program(object) else {
        return false;
    };
    let mcache = runtime::mcache();
    if let Some(word) = slot.state {
        let is_alone = mcache.is_some() && runtime::is_alone();
        let filled = match mode.has(Secure::FILL) {
            true => State::FILLED,
            false => State::FREED,
        };
        // What it says holds from the fill below on: nobody else gets the object before.
        let state = word.replace(filled, is_alone);
        if let Some(size) = slot.size_by(state, told)
            && !slot.canary_lives(mode, size)
        {
            fatal(Crime::Overflow, object.addr());
        }
        if mode.has(Secure::FILL) || mode.has(Secure::ZERO) {
            // SAFETY: the slot has that many bytes, and the exchange has made it ours (Invariant 2).
            unsafe { bytes::fill(mode, object, slot.slot_bytes) };
        }
    }
    let was_slow = match &mcache {
        Some(mcache) => mcache.free_secure(slot.class, object, mode.has(Secure::QUARANTINE)),
        None => {
            runtime::free_detached(slot.class, object);
            true
        }
    };
    drop(mcache);
    if was_slow {
        scavenge::after_free();
    }
    true
}

/// Bytes of an object that has a slot that were asked for; the slot's, if that is not known. `None` if it has no
/// slot. Aborts if it is no object, not what is told, or has overflowed.
pub(super) fn checked_size(object: *mut u8, told: Told) -> Option<usize> {
    let slot = Slot::of_program(object)?;
    let Some(size) = slot.state.and_then(|word| slot.size_by(word.get(), told)) else {
        return Some(slot.slot_bytes);
    };
    if !slot.canary_lives(mode(), size) {
        fatal(Crime::Overflow, object.addr());
    }
    Some(size)
}

/// Gives an object that was just looked at another size, of the same class.
pub(super) fn resize(object: *mut u8, size: usize) {
    if let Some(slot) = Slot::of_program(object)
        && let Some(state) = slot.state
    {
        slot.begin(mode(), state, size);
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
    for (index, state) in states.all().enumerate() {
        let object = span.slot_address(index, geometry);
        // SAFETY: the slot has that many bytes, and nobody has it, nor has the span.
        if state.get() == State::FILLED
            && !unsafe { bytes::is_filled(mode(), object, geometry.slot_bytes as usize) }
        {
            fatal(Crime::WriteAfterFree, object.addr());
        }
    }
    States::end(span);
}

/// Memory in these bytes of a span, from its start on, goes back to the system, and what was filled there is
/// not any more. Nobody hands the slots out meanwhile.
pub(crate) fn released_slots(span: &'static MSpan, start: usize, end: usize) {
    if span.class().is_tiny() {
        return;
    }
    let Some(states) = States::of(span) else {
        return;
    };
    let slot_bytes = span.class().geometry().slot_bytes as usize;
    for slot in start / slot_bytes..end.div_ceil(slot_bytes) {
        if let Some(state) = states.word(slot)
            && state.get() == State::FILLED
        {
            state.set(State::FREED);
        }
    }
}
