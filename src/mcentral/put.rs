//! Frees of a batch of objects to their spans.
//!
//! They are done home by home, each in their order: runs of objects of one span are handled together, and those that
//! lie anywhere by a loop of their own.

#![allow(unsafe_code)]

#[cfg(all(test, not(loom)))]
mod tests;

use core::ptr::NonNull;

use super::{TINY_CLASSES, free_span, shard_of};
use crate::arena::{Lookup, Place, place_of, span_at};
use crate::base::fatal::{Crime, fatal};
use crate::base::size_class::SizeClass;
use crate::mspan::{Freed, FreedInPlace, MSpan};
use crate::span_set::SpanSet;
use crate::{profile, tiny};

/// Frees objects of `class` to their spans, and leaves the slice in any order. Aborts on an object that is
/// not a live one of `class`.
pub(crate) fn put(class: SizeClass, objects: &mut [*mut u8]) {
    let (empty, crime) = if class.is_tiny() {
        let scattered = |_: &mut SpanSet, _, _: &[_]| 0;
        put_with(class, objects, scattered, |span, rest| {
            // SAFETY: `put_with` calls under the lock of the span's home.
            unsafe { tiny::free_one(span, class, rest) }
        })
    } else {
        put_slots(class, objects)
    };
    // Without a lock: a handler of SIGABRT may allocate.
    if let Some((crime, object)) = crime {
        fatal(crime, object.addr());
    }
    free_spans(empty);
}

/// [`put_with`] for objects that have a slot each.
fn put_slots(
    class: SizeClass,
    objects: &mut [*mut u8],
) -> (Option<NonNull<MSpan>>, Option<(Crime, *mut u8)>) {
    let scattered = |set: &mut SpanSet, home, rest: &[_]| {
        // SAFETY: `put_with` calls under the lock of the home.
        unsafe { free_scattered(set, class, home, rest) }
    };
    put_with(class, objects, scattered, |span, rest| {
        // SAFETY: as above.
        let (freed, crime) = unsafe { span.free_neighbours(class.geometry(), rest) };
        (freed, freed as u16, crime)
    })
}

/// Frees objects of `class` to spans of this home as long as nothing is special about them. How many from the front.
/// What is not done here, [`put_with`] does: this is the loop over objects that lie anywhere, with little to keep in
/// registers. So it looks for neighbours, which are freed faster together, at one object of [`LOOK_FOR_NEIGHBOURS`].
///
/// # Safety
/// The caller holds the lock of the home's shard of `class`, whose set this is.
#[inline(never)] // Its registers would be memory accesses of the caller.
unsafe fn free_scattered(
    set: &mut SpanSet,
    class: SizeClass,
    home: usize,
    objects: &[*mut u8],
) -> usize {
    let Some(mut lookup) = objects.first().and_then(|first| Lookup::at(first.addr())) else {
        return 0;
    };
    let geometry = *class.geometry(); // A copy: no store can change it.
    let slot_bytes = geometry.slot_bytes as usize;
    let kind = MSpan::kind_of(class, home);
    let (mut freed, mut counted) = (0, 0);
    while let Some(&object) = objects.get(freed) {
        if freed % LOOK_FOR_NEIGHBOURS == 0
            && let Some(next) = objects.get(freed + 1)
        {
            let distance = next.addr().wrapping_sub(object.addr());
            if distance == slot_bytes || distance == slot_bytes.wrapping_neg() {
                break;
            }
        }
        let Some(span) = lookup
            .span_at(object.addr())
            .filter(|span| span.is_plain(kind))
        else {
            break;
        };
        let Some(slot) = span.slot_of(&geometry, object) else {
            break;
        };
        // SAFETY: the lock of the span's home is held, the caller's promise; so below.
        match unsafe { span.free_in_place(slot) } {
            FreedInPlace::Done => {}
            FreedInPlace::Twice => break,
            FreedInPlace::Moves => {
                // The set's count must have what the span's has when it moves.
                set.add_freed(freed - counted);
                counted = freed;
                // SAFETY: as above.
                if !unsafe { free_and_move(set, class, span, slot) } {
                    break;
                }
                counted += 1;
            }
        }
        freed += 1;
    }
    set.add_freed(freed - counted);
    freed
}

/// How many objects [`free_scattered`] frees until it looks whether the next two are neighbours.
const LOOK_FOR_NEIGHBOURS: usize = 8;

/// Frees a slot of a span that is checked out, or belongs into another list then. False, and nothing is done, if
/// the slot is free, or would be the span's last one.
///
/// # Safety
/// As for [`free_scattered`]; `span` is one of this home, and `slot` one of its slots.
#[cold]
#[inline(never)]
unsafe fn free_and_move(
    set: &mut SpanSet,
    class: SizeClass,
    span: &'static MSpan,
    slot: usize,
) -> bool {
    let geometry = class.geometry();
    // SAFETY: the lock is held, the caller's promise; so below.
    let is_last = u32::from(unsafe { span.shared() }.free_slots) + 1 == geometry.slots;
    // SAFETY: as above.
    if is_last || unsafe { span.free_slot(slot) } == Freed::Twice {
        return false;
    }
    // SAFETY: as above; an object of the span was live until now, so it is in the set or checked out.
    unsafe { set.update(span, geometry, 1) };
    true
}

/// Gives a list of spans of which all slots are free to the page heap.
fn free_spans(mut list: Option<NonNull<MSpan>>) {
    while let Some(span) = list {
        // SAFETY: records live for ever, and the spans in the list are the caller's.
        let span = unsafe { span.as_ref() };
        // SAFETY: as above.
        list = unsafe { span.shared() }.next.take();
        free_span(span);
    }
}

/// Frees objects of `class` to their spans, with `scattered` where it can, which tells how many from the front it
/// freed, each of a slot of its own; else with `free`, which tells how many from the front it freed, how many slots
/// are free by that, and the crime if the next object is one. Both are called under the lock of the home of the first
/// object's span, for objects of that home.
/// A list of the spans whose slots are all free, which are the caller's; and a crime with its object, at
/// which it has stopped.
///
/// One home at a time: what has another one is left for the next pass, in its order. A thread that moves
/// between CPUs has spans of several homes, and a lock for each change of them cost 40 of 120 instructions
/// an object at random.
#[inline(always)] // One for each `free`.
fn put_with(
    class: SizeClass,
    mut objects: &mut [*mut u8],
    scattered: impl Fn(&mut SpanSet, usize, &[*mut u8]) -> usize,
    free: impl Fn(&'static MSpan, &[*mut u8]) -> (usize, u16, Option<Crime>),
) -> (Option<NonNull<MSpan>>, Option<(Crime, *mut u8)>) {
    let span_class = class.span_class();
    let number = class.index() - span_class.index();
    let geometry = class.geometry();
    let mut empty = None;
    while let Some(&first) = objects.first() {
        let Some(span) = span_at(first.addr(), span_class) else {
            return (empty, Some((crime_of(first, span_class), first)));
        };
        let home = span.home();
        let shard = shard_of(span_class, home);
        let mut spans = shard.lock.lock();
        let (mut at, mut left, mut freed_slots) = (0, 0, 0);
        loop {
            let scattered = scattered(&mut spans.set, home, objects.get(at..).unwrap_or_default());
            at += scattered;
            freed_slots += scattered as u64;
            let Some(&object) = objects.get(at) else {
                break;
            };
            let Some(span) = span_at(object.addr(), span_class) else {
                return (empty, Some((crime_of(object, span_class), object)));
            };
            if span.home() != home {
                if let Some(place) = objects.get_mut(left) {
                    *place = object;
                }
                (at, left) = (at + 1, left + 1);
                continue;
            }
            let rest = objects.get(at..).unwrap_or_default();
            let (freed, slots, crime) = free(span, rest);
            if let Some(crime) = crime {
                return (empty, rest.get(freed).map(|object| (crime, *object)));
            }
            if span.is_sampled() {
                profile::freed_to_span(rest.get(..freed).unwrap_or_default());
            }
            at += freed;
            freed_slots += u64::from(slots);
            // SAFETY: the home lock is held; an object of `span` was live until now, so it is in the
            // home's set or checked out.
            if unsafe { spans.set.update(span, geometry, slots) } {
                // SAFETY: the span is in no set, and nobody else's: it is ours.
                unsafe { span.shared() }.next = empty.replace(NonNull::from(span));
            }
        }
        spans.freed[number % TINY_CLASSES] += (at - left) as u64;
        spans.freed_slots += freed_slots;
        shard.set_hints(&mut spans, geometry);
        drop(spans);
        objects = objects.get_mut(..left).unwrap_or_default();
    }
    (empty, None)
}

/// What is wrong with what was freed as an object of `class` and is none that the program has.
#[cold]
pub(crate) fn crime_of(object: *mut u8, class: SizeClass) -> Crime {
    match place_of(object.addr()) {
        Place::Live(span) if span.class() != class.span_class() => Crime::WrongLayout,
        Place::Live(span) if !span.can_begin_at(object) => Crime::InteriorPointer,
        Place::Live(_) => Crime::DoubleFree,
        Place::Free => Crime::FreeMemory,
        Place::Foreign => Crime::ForeignPointer,
    }
}
