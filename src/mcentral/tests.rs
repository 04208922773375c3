use super::*;
use crate::arena::span_at;
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
    let mut objects = Vec::new();
    take_private(
        span,
        &private,
        class.geometry(),
        usize::MAX,
        &mut |first: *mut u8, count| {
            objects.extend((0..count).map(|slot| first.wrapping_add(slot * class.object_bytes())));
        },
    );
    put_back(class, &private);
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
    let (empty, crime) = put_with(class, &mut mixed, |span, rest| {
        // SAFETY: `put_with` calls under the lock of the span's home.
        let (freed, crime) = unsafe { span.free_neighbours(class.geometry(), rest) };
        (freed, freed as u16, crime)
    });
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
