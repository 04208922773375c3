//! Objects with a slot, in secure mode.

#![allow(unsafe_code)]

use super::bytes::{self, SHORT_BYTES};
use super::filled;
use super::on::{Told, mode};
use super::states::{Spot, State, States, Word};
use crate::arena::{Arena, slots_at};
use crate::base::fatal::{Crime, fatal};
use crate::base::size_class::SizeClass;
use crate::config::Secure;
use crate::counters::calls;
use crate::mspan::MSpan;
use crate::sys::caller::Caller;
use crate::{malloc, profile, runtime, scavenge};

/// A free slot, or an object of the program's in one.
#[derive(Clone, Copy)]
struct Slot {
    object: *mut u8,
    class: SizeClass,
    slot_bytes: usize,
    /// None if the system had no memory for states.
    state: Option<Word>,
}

impl Slot {
    /// The slot that begins at `object`; `None` if it lies in no span of slots. Aborts if it is the middle of one.
    #[inline(always)] // Here and below: what is known of mode and caller leaves half of the instructions.
    fn at(object: *mut u8) -> Option<Self> {
        let (found, offset) = slots_at(object.addr())?;
        let state = match Spot::at(&found, offset) {
            Spot::Slot(state) => Some(state),
            Spot::Stateless => None,
            Spot::Inside => fatal(Crime::InteriorPointer, object.addr()),
        };
        Some(Self {
            object,
            class: found.class,
            slot_bytes: found.geometry.slot_bytes as usize,
            state,
        })
    }

    /// Whether the canary behind so many bytes lives. The caller has the object, or is told so by the program.
    #[inline(always)] // As above.
    fn canary_lives(&self, mode: Secure, size: usize) -> bool {
        // SAFETY: the slot has `slot_bytes`, a multiple of 8 at a multiple of 8, and `size` is less.
        !mode.has(Secure::CANARY)
            || unsafe { bytes::canary_lives(self.object, size, self.slot_bytes) }
    }

    /// Begins an object of so many bytes, or another size of one: its state, and its canary.
    #[inline(always)] // As above.
    fn begin(&self, mode: Secure, state: Word, size: usize) {
        state.set(State::live(self.slot_bytes - size));
        if mode.has(Secure::CANARY) {
            // SAFETY: as in `canary_lives`.
            unsafe { bytes::set_canary(self.object, size, self.slot_bytes) };
        }
    }

    /// Aborts if a slot in this state can't be handed out: it was filled, and written since, or another call has
    /// handed it out. Nobody else has the object.
    #[inline(always)] // As above.
    fn verify(&self, state: State) {
        if state == State::FILLED {
            // SAFETY: the slot has that many bytes, and the state says that nobody has it.
            if !unsafe { bytes::is_filled(self.object, self.slot_bytes) } {
                fatal(Crime::WriteAfterFree, self.object.addr());
            }
        } else if state.slack_bytes().is_some() {
            fatal(Crime::DoubleFree, self.object.addr());
        }
    }

    /// Aborts if what a caller says of a live object, with so many bytes, is wrong.
    #[inline(always)] // As above.
    fn check(&self, mode: Secure, size: usize, told: Told) {
        // Of a short slot the look that is always right is enough.
        let is_right = told.is_surely(mode, self.class, size)
            || self.slot_bytes > SHORT_BYTES && told.crime(mode, self.class, size).is_none();
        if !is_right {
            let crime = told.crime(mode, self.class, size);
            fatal(crime.unwrap_or(Crime::WrongLayout), self.object.addr());
        }
    }

    /// Frees the object. Aborts if it is none, not what is told, or has overflowed.
    #[inline(always)] // As above.
    fn free(self, mode: Secure, told: Told) {
        if let Some(word) = self.state {
            // What it says holds from the fill below on: nobody else gets the object before.
            let state = word.replace(freed_in(mode), runtime::is_alone());
            let Some(slack) = state.slack_bytes() else {
                return self.free_odd(state);
            };
            let size = self.slot_bytes - slack;
            self.check(mode, size, told);
            if !self.canary_lives(mode, size) {
                fatal(Crime::Overflow, self.object.addr());
            }
            self.fill(mode);
        }
        self.take_back(mode);
    }

    /// Fills the freed object, if the mode does so.
    #[inline(always)] // As above.
    fn fill(&self, mode: Secure) {
        if mode.has(Secure::FILL) || mode.has(Secure::ZERO) {
            // SAFETY: the slot has that many bytes, and the exchange has made it ours (Invariant 2).
            unsafe { bytes::fill(self.object, self.slot_bytes) };
        }
    }

    /// Frees an object that was not known to live: one of a time before the mode was decided. Aborts if it is none.
    #[cold]
    #[inline(never)]
    fn free_odd(self, state: State) {
        check_odd(self.object, state);
        self.fill(mode());
        self.take_back(mode());
    }

    /// Puts the freed object into quarantine, and who leaves that for it into its magazine.
    #[inline(always)] // As above.
    fn take_back(self, mode: Secure) {
        if calls::are_counted() {
            count_freed(self.class);
        }
        let Some(mcache) = runtime::own_mcache() else {
            return give_back(self.class, self.object);
        };
        let (class, object) = if mode.has(Secure::QUARANTINE) {
            mcache.exchange_secure(self.class, self.object, self.slot_bytes)
        } else {
            (self.class, self.object)
        };
        let is_done = object.is_null() || mcache.push_secure(class, object);
        let has_excess = mcache.has_excess_in_quarantine();
        drop(mcache);
        if !is_done {
            return give_back(class, object);
        }
        if has_excess {
            evict_excess();
        }
    }
}

/// Counts a free, while calls are counted.
#[cold]
#[inline(never)]
fn count_freed(class: SizeClass) {
    if let Some(mcache) = runtime::mcache() {
        mcache.count_freed(class);
    }
}

/// The state of freed slots.
#[inline]
fn freed_in(mode: Secure) -> State {
    match mode.has(Secure::FILL) {
        true => State::FILLED,
        false => State::FREED,
    }
}

/// Aborts if the state of what the program takes for a live object, and is not known to be one, says that it is
/// none.
#[cold]
fn check_odd(object: *mut u8, state: State) {
    match state {
        State::UNKNOWN => {}
        State::NEW => fatal(Crime::FreeMemory, object.addr()),
        _ => fatal(Crime::DoubleFree, object.addr()),
    }
}

/// Allocates an object of `class` for `size` bytes. What is rare ends in calls in tail position, so that the rest
/// needs no registers saved.
#[inline(always)] // As above.
pub(super) fn alloc(
    mode: Secure,
    class: SizeClass,
    size: usize,
    zeroed: bool,
    caller: Caller,
) -> *mut u8 {
    let Some(mcache) = runtime::own_mcache() else {
        return alloc_slow(class, size, zeroed, caller);
    };
    let object = mcache.pop_secure(class, mode.has(Secure::RANDOM));
    drop(mcache);
    if object.is_null() {
        return alloc_slow(class, size, zeroed, caller);
    }
    if runtime::magazines().counts_down(size) {
        return alloc_sampled(object, class, size, zeroed, caller);
    }
    if let Some(slot) = Slot::at(object)
        && let Some(state) = slot.state
        && slot.slot_bytes <= SHORT_BYTES
        && !zeroed
    {
        slot.verify(state.get());
        slot.begin(mode, state, size);
        return object;
    }
    hand_out(object, size, zeroed)
}

/// [`alloc`] where the magazine has nothing to hand out at once.
#[cold]
#[inline(never)]
fn alloc_slow(class: SizeClass, size: usize, zeroed: bool, caller: Caller) -> *mut u8 {
    if let Some(mcache) = runtime::mcache() {
        mcache.begin_random();
    }
    let object = malloc::alloc_from_spans(class);
    let object = profile::count(object, class, size, caller);
    hand_out(object, size, zeroed)
}

/// [`alloc`] where the heap profile takes a sample.
#[cold]
#[inline(never)]
fn alloc_sampled(
    object: *mut u8,
    class: SizeClass,
    size: usize,
    zeroed: bool,
    caller: Caller,
) -> *mut u8 {
    let object = profile::sampled(object, class, size, caller);
    hand_out(object, size, zeroed)
}

/// Makes a free slot an object of the program's, of so many bytes; null if it is null.
#[inline(never)]
fn hand_out(object: *mut u8, size: usize, zeroed: bool) -> *mut u8 {
    if object.is_null() {
        return object;
    }
    if let Some(slot) = Slot::at(object)
        && let Some(state) = slot.state.or_else(|| make_states(object))
    {
        slot.verify(state.get());
        slot.begin(mode(), state, size);
    }
    if zeroed {
        // SAFETY: the object is ours and has at least that many bytes.
        unsafe { bytes::clear(object, size) };
    }
    object
}

/// The state of a slot in a span that has none, as that was made before the mode was decided, or without memory.
#[cold]
fn make_states(object: *mut u8) -> Option<Word> {
    let (found, _) = slots_at(object.addr())?;
    States::make(found.span, State::UNKNOWN)?;
    Slot::at(object)?.state
}

/// Frees an object that has a slot. False if it has none. Aborts if it is none, or not what is told.
#[inline(never)]
pub(super) fn free(mode: Secure, object: *mut u8, told: Told) -> bool {
    let slot = Slot::at(object);
    slot.map(|slot| slot.free(mode, told)).is_some()
}

/// As [`free`], but false, and nothing done, if the slot is not a short one: then nothing but what is rare is a
/// call, as in [`alloc`].
#[inline(always)] // As above.
pub(super) fn free_short(mode: Secure, object: *mut u8, told: Told) -> bool {
    match Slot::at(object) {
        Some(slot) if slot.slot_bytes <= SHORT_BYTES => {
            slot.free(mode, told);
            true
        }
        _ => false,
    }
}

/// Lets the thread's quarantine have no more bytes than it may.
#[cold]
#[inline(never)]
fn evict_excess() {
    if let Some(mcache) = runtime::mcache() {
        mcache.evict_excess();
    }
    scavenge::after_free();
}

/// Gives an object that nobody has to its magazine, wherever that leads, or without an mcache to its span.
#[cold]
#[inline(never)]
fn give_back(class: SizeClass, object: *mut u8) {
    match runtime::mcache() {
        Some(mcache) => {
            mcache.begin_random();
            mcache.take_back(class, object);
            mcache.evict_excess();
        }
        None => runtime::free_detached(class, object),
    }
    scavenge::after_free();
}

/// Bytes of an object that has a slot that were asked for; the slot's, if that is not known. `None` if it has no
/// slot. Aborts if it is no object, not what is told, or has overflowed.
pub(super) fn checked_size(object: *mut u8, told: Told) -> Option<usize> {
    let slot = Slot::at(object)?;
    let Some(state) = slot.state else {
        return Some(slot.slot_bytes);
    };
    let Some(slack) = state.get().slack_bytes() else {
        check_odd(object, state.get());
        return Some(slot.slot_bytes);
    };
    let size = slot.slot_bytes - slack;
    slot.check(mode(), size, told);
    if !slot.canary_lives(mode(), size) {
        fatal(Crime::Overflow, object.addr());
    }
    Some(size)
}

/// Gives an object that was just looked at another size, of the same class.
pub(super) fn resize(object: *mut u8, size: usize) {
    if let Some(slot) = Slot::at(object)
        && let Some(state) = slot.state
    {
        slot.begin(mode(), state, size);
    }
}

/// A fresh span has slots that nobody has had. Nobody else knows the span.
pub(crate) fn span_is_made(span: &MSpan) {
    if !super::on::is_on() {
        return;
    }
    let filled = filled::pages_of(span);
    let state = if filled == span.pages() {
        State::FILLED
    } else {
        State::NEW
    };
    // Without memory the states come later, with the first object.
    let states = States::make(span, state);
    if filled == 0 {
        return;
    }
    if let Some(states) = states.filter(|_| filled < span.pages()) {
        let slot_bytes = span.class().geometry().slot_bytes as usize;
        for (index, state) in states.all().enumerate() {
            let start = index * slot_bytes;
            if filled::has(span, start..start + slot_bytes) {
                state.set(State::FILLED);
            }
        }
    }
    if let Some((arena, first)) = Arena::containing(span.base()) {
        filled::forget(arena, first, span.pages());
    }
}

/// A span of which nobody has an object goes: what was freed there is verified, and stays filled.
pub(crate) fn span_ends(span: &'static MSpan) {
    if span.class() == SizeClass::NONE {
        if super::pages::span_ends(span) {
            filled::note(span, 0..span.bytes());
        }
        return;
    }
    let Some(states) = States::of(span) else {
        return;
    };
    let geometry = span.class().geometry();
    let slot_bytes = geometry.slot_bytes as usize;
    let mut run = 0..0;
    for (index, state) in states.all().enumerate() {
        let start = index * slot_bytes;
        if state.get() != State::FILLED {
            filled::note(span, run);
            run = start + slot_bytes..start + slot_bytes;
            continue;
        }
        let object = span.slot_address(index, geometry);
        // SAFETY: the slot has that many bytes, and nobody has it, nor the span.
        if !unsafe { bytes::is_filled(object, slot_bytes) } {
            fatal(Crime::WriteAfterFree, object.addr());
        }
        run.end = start + slot_bytes;
    }
    if !run.is_empty() {
        run.end += fill_rest(span, run.end);
    }
    filled::note(span, run);
    States::end(span);
}

/// Fills what a span that ends has behind its last slot, up to its guard; so many bytes.
fn fill_rest(span: &MSpan, slots_end: usize) -> usize {
    let rest = span.bytes() - super::guards::bytes_of(span) - slots_end;
    if rest > 0 {
        // SAFETY: nobody has the span, which has that many bytes there; slots and pages are whole words.
        unsafe { bytes::fill(span.base().wrapping_add(slots_end), rest) };
    }
    rest
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
