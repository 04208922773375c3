use super::super::{put_back, take_private};
use super::*;
use crate::base::size_class::{CLASSES, SLOTS_MAX};
use crate::mheap::spans;
use crate::mspan::PrivateSlots;
use crate::shards::MAX_SHARDS;
use std::vec;
use std::vec::Vec;

/// All objects of a fresh span of `class` with this home.
fn span_of(class: SizeClass, home: usize) -> Vec<*mut u8> {
    let span = spans::alloc_span(class, home).unwrap();
    let private = PrivateSlots::new();
    let mut lock = shard_of(class, home).lock.lock();
    lock.set.add_made();
    private.adopt(span, class.geometry().slots as usize);
    drop(lock);
    let objects = take_all(span, class, &private);
    put_back(class, &private);
    objects
}

fn take_all(span: &'static MSpan, class: SizeClass, private: &PrivateSlots) -> Vec<*mut u8> {
    let geometry = class.geometry();
    let mut objects = Vec::new();
    take_private(span, private, geometry, usize::MAX, &mut |first, count| {
        objects.extend((0..count).map(|slot| first.wrapping_add(slot * class.object_bytes())));
    });
    objects
}

#[test]
fn batch_of_two_homes_is_freed_whole_and_a_crime_in_the_later_pass_is_found() {
    let class = crate::base::size_class::class_for(27_000, 8);
    let (here, there) = (span_of(class, 0), span_of(class, 1 % MAX_SHARDS));
    let mut mixed: Vec<*mut u8> = here
        .iter()
        .zip(&there)
        .flat_map(|(a, b)| [*a, *b])
        .collect();
    let twice = there[1];
    mixed.push(twice);
    let (empty, crime) = put_slots(class, &mut mixed);
    // The last object of the span of home 1 made it all free, so nobody can have taken it since.
    let mut ended = vec![];
    let mut link = empty;
    while let Some(span) = link {
        // SAFETY: records live for ever, and the spans of the list are ours.
        let span = unsafe { span.as_ref() };
        // SAFETY: as above.
        link = unsafe { span.shared() }.next;
        ended.push(span.base());
    }
    ended.sort();
    let mut expected = vec![here[0], there[0]];
    expected.sort();
    assert_eq!(ended, expected);
    assert_eq!(crime, Some((Crime::DoubleFree, twice)));
    assert!(span_at(twice.addr(), class).is_some());
    free_spans(empty);
}

/// A span of 64-byte slots, all taken, in a set of its own, so that no other thread meets it.
struct Alone {
    set: SpanSet,
    span: &'static MSpan,
    objects: Vec<*mut u8>,
}

const ALONE: SizeClass = crate::base::size_class::class_for(64, 8);

impl Alone {
    fn new() -> Self {
        let span = spans::alloc_span(ALONE, 0).unwrap();
        let private = PrivateSlots::new();
        private.adopt(span, ALONE.geometry().slots as usize);
        let objects = take_all(span, ALONE, &private);
        let mut set = SpanSet::new();
        set.add_made();
        // SAFETY: nobody else has the span or the set; so below.
        unsafe {
            span.put_back(&private);
            assert!(set.insert(span, ALONE.geometry()));
        }
        Self { set, span, objects }
    }

    /// How many of these are freed as objects that lie anywhere.
    fn free(&mut self, objects: &[*mut u8]) -> usize {
        // SAFETY: as above.
        let freed = unsafe { free_scattered(&mut self.set, ALONE, 0, objects) };
        assert_eq!(self.set.tally().free_slots, u64::from(self.slots()));
        freed
    }

    /// Frees one, whatever it is; whether all are free.
    fn free_any(&mut self, object: *mut u8) -> bool {
        let geometry = ALONE.geometry();
        // SAFETY: as above.
        unsafe {
            assert_eq!(self.span.free_neighbours(geometry, &[object]), (1, None));
            self.set.update(self.span, geometry, 1)
        }
    }

    fn is_free(&self, object: *mut u8) -> bool {
        let slot = self.span.slot_of(ALONE.geometry(), object).unwrap();
        // SAFETY: as above.
        let free = unsafe { self.span.free_ranges(ALONE.geometry(), 64) };
        let offset = slot * ALONE.object_bytes();
        free.iter()
            .any(|(start, end)| (start..end).contains(&offset))
    }

    fn slots(&self) -> u16 {
        // SAFETY: as above.
        unsafe { self.span.shared() }.free_slots
    }
}

#[test]
fn objects_that_lie_anywhere_are_freed_up_to_one_that_is_special() {
    let mut alone = Alone::new();
    let at = alone.objects.clone();
    assert_eq!(alone.free(&[]), 0);
    assert_eq!(alone.free(&[at[0], at[2]]), 2, "the first makes it partial");
    let inside = at[20].wrapping_add(8);
    assert_eq!(alone.free(&[at[8], inside, at[30]]), 1, "an interior one");
    assert_eq!(alone.free(&[at[10], at[2], at[30]]), 1, "one that is free");
    assert_eq!(alone.free(&[at[12], at[12], at[30]]), 1, "one twice");
    assert_eq!(alone.free(&[at[15], at[14], at[30]]), 0, "neighbours");
    assert_eq!(alone.free(&[at[14], at[15], at[30]]), 0, "neighbours");
    let foreign = core::ptr::without_provenance_mut(8);
    for none in [core::ptr::null_mut(), foreign] {
        assert_eq!(alone.free(&[none, at[30]]), 0, "none of ours");
    }
    assert_eq!(alone.free(&[at[14], foreign, at[30]]), 1, "none of ours");
    // SAFETY: as above.
    let elsewhere = unsafe { free_scattered(&mut alone.set, ALONE, 1, &[at[16], at[30]]) };
    assert_eq!(elsewhere, 0, "another home");
    assert_eq!(alone.slots(), 6);
    // Neighbours are seen at the first object of each eight.
    let mut some: Vec<_> = (16..32).step_by(2).map(|slot| at[slot]).collect();
    some.extend([at[40], at[41], at[42]]);
    assert_eq!(alone.free(&some), 8, "neighbours");
    some.rotate_left(8);
    some.insert(0, at[50]);
    assert_eq!(alone.free(&some[..4]), 4, "neighbours too late to be seen");
    // It moves from set to set until one is left.
    let slots = usize::from(alone.slots());
    let mut left = at.clone();
    left.retain(|object| !alone.is_free(*object));
    assert_eq!(left.len(), at.len() - slots);
    let middle = left.len() / 2;
    let mut mixed: Vec<_> = (0..middle)
        .flat_map(|n| [left[n], left[n + middle]])
        .collect();
    mixed.extend(&left[2 * middle..]);
    assert_eq!(alone.free(&mixed), mixed.len() - 1, "the last one");
    assert!(alone.free_any(mixed[mixed.len() - 1]));
    free_span(alone.span);
}

#[test]
fn objects_of_a_span_that_is_checked_out_are_freed_like_others() {
    let mut alone = Alone::new();
    let at = alone.objects.clone();
    assert_eq!(alone.free(&[at[0], at[2], at[4]]), 3);
    let private = PrivateSlots::new();
    // SAFETY: nobody else has the span or the set.
    unsafe {
        alone.set.pop_fullest().unwrap();
        assert_eq!(alone.span.sweep(&private), 3);
    }
    private.set_span(alone.span);
    let free = |alone: &mut Alone, objects: &[*mut u8]| {
        // SAFETY: as above.
        unsafe { free_scattered(&mut alone.set, ALONE, 0, objects) }
    };
    assert_eq!(free(&mut alone, &[at[6], at[9], at[12]]), 3);
    assert_eq!(
        free(&mut alone, &[at[15], at[9], at[18]]),
        1,
        "one in the shared half"
    );
    assert_eq!(
        free(&mut alone, &[at[2], at[18]]),
        0,
        "one in the private half"
    );
    assert_eq!(alone.slots(), 4);
    assert_eq!(alone.set.tally().free_slots, 0, "it is in no list");
    // SAFETY: as above.
    unsafe {
        alone.span.put_back(&private);
        assert!(alone.set.insert(alone.span, ALONE.geometry()));
    }
    assert_eq!(alone.slots(), 7);
    let left: Vec<_> = at
        .iter()
        .copied()
        .filter(|object| !alone.is_free(*object))
        .collect();
    for (place, object) in left.iter().enumerate() {
        assert_eq!(alone.free_any(*object), place + 1 == left.len());
    }
    free_span(alone.span);
}

#[test]
fn an_object_is_a_slot_of_its_span_and_nothing_else_is() {
    for class in (1..=CLASSES).map(SizeClass::new) {
        let geometry = class.geometry();
        let span = spans::alloc_span(class, 0).unwrap();
        let slot_at = |offset: usize| span.slot_of(geometry, span.base().wrapping_add(offset));
        let slot_bytes = geometry.slot_bytes as usize;
        for offset in 0..span.bytes() {
            let slot = offset / slot_bytes;
            let is_slot = offset % slot_bytes == 0 && slot < geometry.slots as usize;
            assert_eq!(
                slot_at(offset),
                is_slot.then_some(slot),
                "{class:?}, {offset}"
            );
        }
        free_span(span);
    }
}

/// Spans of 64-byte slots in a set of their own, of which all slots but `taken` each are free.
fn sparse_spans(count: usize, taken: usize) -> (SpanSet, Vec<Vec<*mut u8>>) {
    let mut set = SpanSet::new();
    let geometry = ALONE.geometry();
    let spans = (0..count).map(|_| {
        let mut alone = Alone::new();
        while alone.objects.len() > taken {
            let object = alone.objects.pop().unwrap();
            alone.free_any(object);
        }
        set.add_made();
        // SAFETY: nobody else has the span or the sets.
        unsafe {
            let span = alone.set.pop_fullest().unwrap();
            assert!(set.insert(span, geometry));
        }
        alone.objects
    });
    let objects = spans.collect();
    (set, objects)
}

/// Frees some of the objects of each of these spans.
fn free_some(set: &mut SpanSet, spans: &mut [Vec<*mut u8>], count: usize) {
    for objects in spans {
        for object in objects.drain(..count) {
            let span = span_at(object.addr(), ALONE).unwrap();
            // SAFETY: as above.
            unsafe {
                assert_eq!(span.free_neighbours(ALONE.geometry(), &[object]), (1, None));
                if set.update(span, ALONE.geometry(), 1) {
                    free_span(span);
                }
            }
        }
    }
}

#[test]
fn a_set_is_sparse_as_long_as_it_drains_and_tries_again() {
    let geometry = ALONE.geometry();
    let (mut set, mut objects) = sparse_spans(40, 12);
    let taken = 40 * 12;
    assert!(set.is_sparse(1_000, geometry));
    assert!(set.is_sparse(1_000 + 15 * taken, geometry));
    assert!(!set.is_sparse(1_000 + 17 * taken, geometry));
    assert!(!set.is_sparse(1_000 + 127 * taken, geometry));
    assert!(set.is_sparse(1_000 + 129 * taken, geometry), "another try");
    let mut freed = 1_000 + 150 * taken;
    assert!(!set.is_sparse(freed, geometry));
    // A few less are no change.
    free_some(&mut set, &mut objects, 1);
    freed += 40;
    assert!(!set.is_sparse(freed, geometry));
    free_some(&mut set, &mut objects, 3);
    freed += 120;
    assert!(set.is_sparse(freed, geometry), "fewer objects");
    freed += 20 * 40 * 8;
    assert!(!set.is_sparse(freed, geometry));
    // The objects of some spans move to the others.
    let moved = 12 * 8;
    for _ in 0..2 * moved / 4 {
        // SAFETY: nobody else has the spans or the set.
        unsafe {
            let span = set.pop_fullest().unwrap();
            let mut taken = vec![];
            span.take_slots(4, |slot, count| {
                taken.extend((slot..slot + count).map(|slot| span.slot_address(slot, geometry)));
            });
            assert!(set.insert(span, geometry));
            objects.push(taken);
        }
    }
    let (gone, rest) = objects.split_at_mut(24);
    free_some(&mut set, gone, 8);
    freed += 24 * 8;
    assert!(set.is_sparse(freed, geometry), "fewer spans");
    let left: Vec<_> = rest.iter().flatten().copied().collect();
    free_some(&mut set, &mut [left.clone()], left.len());
    assert!(!set.is_sparse(freed, geometry), "no spans");
}

#[test]
fn a_set_is_sparse_again_after_another_peak() {
    let geometry = ALONE.geometry();
    let (mut set, mut stay) = sparse_spans(40, 12);
    assert!(set.is_sparse(0, geometry));
    let freed = 20 * 40 * 12;
    assert!(!set.is_sparse(freed, geometry));
    let mut peak = vec![];
    for _ in 0..40 {
        // SAFETY: nobody else has the spans or the set.
        unsafe {
            // The full ones are no partial ones any more.
            let span = set.pop_fullest().unwrap();
            let mut taken = vec![];
            span.take_slots(SLOTS_MAX, |slot, count| {
                taken.extend((slot..slot + count).map(|slot| span.slot_address(slot, geometry)));
            });
            assert!(set.insert(span, geometry));
            peak.push(taken);
        }
    }
    assert!(!set.is_sparse(freed, geometry));
    let count = geometry.slots as usize - 12;
    free_some(&mut set, &mut peak, count);
    assert!(set.is_sparse(freed, geometry));
    free_some(&mut set, &mut stay, 12);
}
