//! Tests of arenas.

#![allow(unsafe_code)]

use super::*;

#[test]
fn an_arena_ends_at_a_guard_and_has_a_page_before_it() {
    let object = crate::malloc::alloc(100_000, 8);
    let place = Arena::containing(object).map(|(arena, _)| arena);
    assert!(place.is_some_and(|arena| {
        let start = arena.page_start(0).addr().get();
        let end = arena.page_start(arena.limit_pages).addr().get();
        // The guard is inside the reservation, so that nobody else can map anything there.
        sys::reserve_at(end, sys::page_bytes(), false).is_none()
            && !sys::is_readable(end)
            && sys::is_readable(start)
            && !sys::is_readable(start - 8)
    }));
    // SAFETY: allocated above with that size.
    unsafe { crate::malloc::free(object, 100_000, 8) };
}

#[test]
fn a_lookup_finds_what_lies_in_other_arenas() {
    let objects = [40 << 20; 3].map(|bytes| (crate::malloc::alloc(bytes, 8), bytes));
    let address = |at: usize| objects[at].0.addr();
    let arenas = [0, 1, 2].map(|at| address(at) / ARENA_BYTES);
    assert!(arenas[0] != arenas[1], "{arenas:?}");
    let mut lookup = Lookup::at(address(0)).unwrap();
    for at in [0, 1, 0, 2, 1] {
        let found = lookup.span_at(address(at)).unwrap();
        assert_eq!(found.base(), objects[at].0);
    }
    assert!(lookup.span_at(8).is_none());
    assert!(Lookup::at(8).is_none());
    for (object, bytes) in objects {
        // SAFETY: allocated above with that size.
        unsafe { crate::malloc::free(object, bytes, 8) };
    }
}

#[cfg(feature = "preload")]
#[test]
fn an_offset_is_a_multiple_exactly_if_the_product_says_so() {
    for class in (1..CLASSES).map(SizeClass::new) {
        let geometry = class.geometry();
        let reciprocal = if class.is_watched() {
            0
        } else {
            geometry.reciprocal
        };
        assert_eq!(RECIPROCALS[class.index()], reciprocal);
        for offset in 0..geometry.span_pages * PAGE_BYTES as u32 {
            assert_eq!(
                is_multiple(offset, geometry.reciprocal),
                offset % geometry.slot_bytes == 0,
                "{class:?}, {offset}"
            );
        }
    }
    assert!(!is_multiple(0, RECIPROCALS[0]));
}

#[cfg(feature = "preload")]
#[test]
fn numbers_of_pages_fit_their_byte() {
    let pages = |class: usize| SizeClass::new(class).geometry().span_pages;
    assert!((1..CLASSES).all(|class| pages(class) <= 1 << (CLASS_SHIFT - NUMBER_SHIFT)));
}
