use super::super::{put_back, take_private};
use super::*;
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

    /// How many of these are freed as objects that lie alone.
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

    fn slots(&self) -> u16 {
        // SAFETY: as above.
        unsafe { self.span.shared() }.free_slots
    }
}

#[test]
fn objects_that_lie_alone_are_freed_up_to_one_that_is_special() {
    let mut alone = Alone::new();
    let at = alone.objects.clone();
    assert_eq!(alone.free(&[at[0], at[2]]), 0, "the first makes it partial");
    assert!(!alone.free_any(at[0]));
    assert_eq!(
        alone.free(&[at[2], at[4], at[6], at[8]]),
        3,
        "all but the last"
    );
    assert_eq!(
        alone.free(&[at[8], at[20].wrapping_add(8), at[30]]),
        1,
        "an interior one"
    );
    assert_eq!(alone.free(&[at[10], at[2], at[30]]), 1, "one that is free");
    assert_eq!(
        alone.free(&[at[12], at[15], at[14], at[30]]),
        1,
        "neighbours"
    );
    assert_eq!(
        alone.free(&[at[14], core::ptr::null_mut(), at[30]]),
        1,
        "none of ours"
    );
    // SAFETY: as above.
    let elsewhere = unsafe { free_scattered(&mut alone.set, ALONE, 1, &[at[16], at[30]]) };
    assert_eq!(elsewhere, 0, "another home");
    let before = alone.slots();
    assert_eq!(before, 8);
    let rest: Vec<_> = at.iter().copied().skip(16).step_by(2).collect();
    let freed = alone.free(&rest);
    assert!(0 < freed && freed < rest.len() - 1, "the set changes");
    assert_eq!(usize::from(alone.slots() - before), freed);
    let odd = at.iter().copied().skip(1).step_by(2);
    let left: Vec<_> = odd.chain(rest.into_iter().skip(freed)).collect();
    for (place, object) in left.iter().enumerate() {
        assert_eq!(alone.free_any(*object), place + 1 == left.len());
    }
    free_span(alone.span);
}
