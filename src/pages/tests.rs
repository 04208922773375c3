//! [`ArenaPages`] at its edges; the comparison with a naive model is in [`model`].

mod model;

use core::mem::size_of;

use super::{ARENA_PAGES, ArenaPages, CHUNK_PAGES, Taken};

/// An arena whose pages are all free and released.
fn fresh() -> ArenaPages {
    let mut arena = ArenaPages::new();
    arena.grow(0, ARENA_PAGES);
    arena
}

/// An arena whose pages are all allocated.
fn full() -> ArenaPages {
    let mut arena = fresh();
    arena.alloc(ARENA_PAGES).expect("a fresh arena has room");
    arena
}

/// First page of an allocation.
fn first(taken: Option<Taken>) -> Option<u32> {
    taken.map(|taken| taken.first)
}

#[test]
fn a_zeroed_arena_has_no_page() {
    let mut arena = ArenaPages::new();
    arena.check_invariants();
    assert_eq!(
        (arena.max_run(), arena.free_pages(), arena.dirty_pages()),
        (0, 0, 0)
    );
    assert_eq!(arena.alloc(1), None);
    assert_eq!(arena.alloc_aligned(1, 1), None);
    assert_eq!(arena.alloc_aligned(1, ARENA_PAGES), None);
    assert_eq!(arena.alloc_at(0, 1), None);
    assert_eq!(arena.take_releasable(ARENA_PAGES, 256), None);
    assert_eq!(arena.trailing_free(ARENA_PAGES), 0);
    assert!(!arena.is_free(0));
}

#[test]
fn the_record_of_an_arena_is_about_two_kibibytes() {
    assert_eq!(size_of::<ArenaPages>(), 2 * 1024 + 16 * 6 + 3 * 4 + 4);
}

#[test]
fn a_whole_arena_is_taken_and_given_back() {
    let mut arena = fresh();
    let whole = Taken {
        first: 0,
        count: ARENA_PAGES,
        released: ARENA_PAGES,
    };
    assert_eq!(arena.alloc(ARENA_PAGES + 1), None);
    assert_eq!(arena.alloc(ARENA_PAGES), Some(whole));
    arena.check_invariants();
    assert_eq!((arena.max_run(), arena.free_pages()), (0, 0));
    arena.free(0, ARENA_PAGES, false);
    arena.check_invariants();
    assert_eq!(
        (arena.max_run(), arena.dirty_pages()),
        (ARENA_PAGES, ARENA_PAGES)
    );
    assert_eq!(
        arena.alloc_aligned(ARENA_PAGES, ARENA_PAGES),
        Some(Taken {
            released: 0,
            ..whole
        })
    );
    arena.free(0, ARENA_PAGES, true);
    assert_eq!(arena.alloc_at(0, ARENA_PAGES), Some(whole));
}

#[test]
fn nothing_is_taken_for_no_pages_or_outside_the_arena() {
    let mut arena = fresh();
    assert_eq!(arena.alloc(0), None);
    assert_eq!(arena.alloc_aligned(0, 8), None);
    assert_eq!(arena.alloc_at(0, 0), None);
    assert_eq!(arena.alloc_at(ARENA_PAGES, 1), None);
    assert_eq!(arena.alloc_at(ARENA_PAGES - 1, 2), None);
    assert_eq!(arena.alloc_at(1, u32::MAX), None);
    assert_eq!(arena.alloc(u32::MAX), None);
    assert_eq!(arena.alloc_aligned(u32::MAX, 2), None);
    assert_eq!(arena.take_releasable(0, 1), None);
    arena.free(ARENA_PAGES, 0, false);
    arena.check_invariants();
    assert_eq!(arena.free_pages(), ARENA_PAGES);
}

#[test]
fn a_run_over_the_edge_of_words_and_chunks_is_found_whole() {
    for edge in [
        64,
        128,
        CHUNK_PAGES,
        2 * CHUNK_PAGES,
        ARENA_PAGES - CHUNK_PAGES,
    ] {
        for (below, above) in [(1, 1), (3, 5), (63, 64), (64, 1), (40, 300)] {
            let Some(start) = u32::checked_sub(edge, below) else {
                continue;
            };
            let mut arena = full();
            arena.free(start, below, false);
            arena.free(edge, above, false);
            arena.check_invariants();
            assert_eq!(arena.max_run(), below + above);
            assert_eq!(arena.alloc(below + above + 1), None);
            assert_eq!(first(arena.alloc(below + above)), Some(start));
            arena.check_invariants();
            assert_eq!(arena.free_pages(), 0);
        }
    }
}

#[test]
fn a_run_over_several_whole_chunks_is_found() {
    let mut arena = full();
    let (start, count) = (CHUNK_PAGES - 7, 3 * CHUNK_PAGES + 9);
    arena.free(start, count, false);
    arena.check_invariants();
    assert_eq!(arena.trailing_free(start + count), count);
    assert_eq!(arena.trailing_free(start + count + 1), 0);
    assert_eq!(arena.trailing_free(2 * CHUNK_PAGES), CHUNK_PAGES + 7);
    assert_eq!(
        first(arena.alloc_aligned(CHUNK_PAGES, 512)),
        Some(CHUNK_PAGES)
    );
    arena.check_invariants();
    assert_eq!(arena.max_run(), 2 * CHUNK_PAGES + 2);
    assert_eq!(first(arena.alloc(8)), Some(2 * CHUNK_PAGES));
    assert_eq!(first(arena.alloc(7)), Some(start));
}

#[test]
fn the_lowest_fit_is_taken_and_not_the_best() {
    let mut arena = full();
    arena.free(100, 9, false);
    arena.free(200, 4, false);
    assert_eq!(first(arena.alloc(4)), Some(100));
    assert_eq!(first(arena.alloc(4)), Some(104));
    assert_eq!(first(arena.alloc(4)), Some(200));
    assert_eq!(first(arena.alloc(1)), Some(108));
}

#[test]
fn an_aligned_range_leaves_the_pages_around_it_free() {
    let mut arena = fresh();
    assert_eq!(first(arena.alloc(1)), Some(0));
    assert_eq!(first(arena.alloc_aligned(5, 8)), Some(8));
    assert!(arena.is_free(7) && !arena.is_free(8) && !arena.is_free(12) && arena.is_free(13));
    assert_eq!(first(arena.alloc_aligned(70, 64)), Some(64));
    assert_eq!(first(arena.alloc_aligned(1, 4096)), Some(4096));
    assert_eq!(arena.alloc_aligned(1, ARENA_PAGES), None);
    assert_eq!(first(arena.alloc(7)), Some(1));
    arena.check_invariants();
}

#[test]
fn a_long_run_without_an_aligned_start_does_not_serve() {
    let mut arena = full();
    arena.free(33, 94, false); // Up to page 126: page 64 has only 63 pages.
    assert_eq!(arena.alloc_aligned(64, 64), None);
    assert_eq!(first(arena.alloc_aligned(63, 64)), Some(64));
    assert_eq!(first(arena.alloc_aligned(16, 16)), Some(48));
    arena.check_invariants();
}

#[test]
fn growing_in_place_needs_every_page() {
    let mut arena = full();
    arena.free(60, 10, true);
    assert_eq!(arena.alloc_at(59, 2), None);
    assert_eq!(arena.alloc_at(69, 2), None);
    assert_eq!(
        arena.alloc_at(62, 6),
        Some(Taken {
            first: 62,
            count: 6,
            released: 6
        })
    );
    assert_eq!(arena.max_run(), 2);
    arena.check_invariants();
}

#[test]
fn an_allocation_counts_the_released_pages_it_got() {
    let mut arena = full();
    arena.free(10, 4, true);
    arena.free(14, 2, false);
    assert_eq!((arena.free_pages(), arena.dirty_pages()), (6, 2));
    assert_eq!(
        arena.alloc(5),
        Some(Taken {
            first: 10,
            count: 5,
            released: 4
        })
    );
    assert_eq!((arena.free_pages(), arena.dirty_pages()), (1, 1));
    arena.free(10, 4, false);
    assert_eq!(
        arena.alloc(4),
        Some(Taken {
            first: 10,
            count: 4,
            released: 0
        })
    );
}

#[test]
fn whole_huge_pages_are_released_before_higher_small_runs() {
    let mut arena = full();
    arena.free(1024, 512, false);
    arena.free(5000, 20, false);
    let taken = arena.take_releasable(300, 256);
    assert_eq!(
        taken,
        Some(Taken {
            first: 1280,
            count: 256,
            released: 0
        })
    );
    arena.free(1280, 256, true);
    let taken = arena.take_releasable(ARENA_PAGES, 256);
    assert_eq!(
        taken,
        Some(Taken {
            first: 1024,
            count: 256,
            released: 0
        })
    );
    arena.free(1024, 256, true);
    assert_eq!(
        arena.take_releasable(8, 256),
        Some(Taken {
            first: 5012,
            count: 8,
            released: 0
        })
    );
    arena.free(5012, 8, true);
    assert_eq!(first(arena.take_releasable(ARENA_PAGES, 256)), Some(5000));
    arena.free(5000, 12, true);
    assert_eq!(
        (arena.dirty_pages(), arena.take_releasable(ARENA_PAGES, 256)),
        (0, None)
    );
    arena.check_invariants();
}

#[test]
fn a_group_with_one_dirty_page_is_taken_whole_and_neighbours_without_one_are_not() {
    let mut arena = fresh();
    first(arena.alloc_at(1000, 1)).expect("page 1000 is free");
    arena.free(1000, 1, false);
    let group = Taken {
        first: 768,
        count: 256,
        released: 255,
    };
    assert_eq!(arena.take_releasable(ARENA_PAGES, 256), Some(group));
    arena.free(768, 256, true);
    arena.check_invariants();
    assert_eq!((arena.dirty_pages(), arena.max_run()), (0, ARENA_PAGES));
}

#[test]
fn a_dirty_page_at_either_end_of_a_group_counts() {
    for dirty in [256, 511] {
        let mut arena = fresh();
        for page in [dirty, 512] {
            arena.alloc_at(page, 1).expect("all pages are free");
            arena.free(page, 1, false);
        }
        let groups = Taken {
            first: 256,
            count: 512,
            released: 510,
        };
        assert_eq!(arena.take_releasable(ARENA_PAGES, 256), Some(groups));
        arena.check_invariants();
    }
}
