//! Every size and alignment: right place, no overlap, contents kept. And what can't be had: null.

#![cfg(not(miri))] // Too many objects, and a process.

mod common;

use std::alloc::{GlobalAlloc, Layout};

use common::{Numbers, Object, alone, limit_address_space};
use spanmalloc::{SpanMalloc, trim};

#[global_allocator]
static GLOBAL: SpanMalloc = SpanMalloc;

const MIB: usize = 1 << 20;

/// Sizes around each border of a size class: steps of an eighth of a power of two and of 128 bytes
/// meet all of them, up to 40 KiB.
fn class_borders() -> impl Iterator<Item = usize> + Clone {
    let eighths =
        (7..=15).flat_map(|bits| (0..8).map(move |step| (1 << bits) + (step << (bits - 3))));
    let steps = (2048..=40 << 10).step_by(128);
    eighths
        .chain(steps)
        .flat_map(|border| [border - 1, border, border + 1])
}

/// Sizes around multiples of pages, of 4 and 8 KiB.
fn page_borders() -> impl Iterator<Item = usize> + Clone {
    let pages = [
        5, 6, 7, 8, 15, 16, 31, 63, 64, 65, 127, 128, 129, 511, 512, 513,
    ];
    pages.into_iter().flat_map(|pages| {
        let border = pages * 8192;
        [border - 1, border, border + 1, border + 4096]
    })
}

/// Whether no two objects share a byte.
fn are_apart(objects: &[Object]) -> bool {
    let mut ranges: Vec<_> = objects
        .iter()
        .map(|object| (object.addr(), object.size()))
        .collect();
    ranges.sort_unstable();
    ranges
        .windows(2)
        .all(|pair| pair[0].0 + pair[0].1 <= pair[1].0)
}

/// Allocates `alive` objects of each size and alignment, all sizes of an alignment together; they
/// check their place and contents. Half of them go before the others come.
fn check_grid(
    sizes: impl Iterator<Item = usize> + Clone,
    aligns: impl Iterator<Item = usize>,
    alive: usize,
) {
    let mut seed = 0;
    for align in aligns {
        let mut objects = Vec::new();
        for size in sizes.clone() {
            for _ in 0..alive {
                seed += 1;
                objects.push(Object::new(size, align, seed));
            }
        }
        assert!(are_apart(&objects), "alignment {align}");
        let mut index = 0;
        objects.retain(|_| {
            index += 1;
            index % 2 == 0
        });
        for size in sizes.clone() {
            seed += 1;
            objects.push(Object::new(size, align, seed));
        }
        assert!(are_apart(&objects), "alignment {align}");
        objects.iter().for_each(Object::check);
    }
}

fn powers(from: usize, to: usize) -> impl Iterator<Item = usize> {
    (from.ilog2()..=to.ilog2()).map(|bits| 1 << bits)
}

#[test]
fn small_sizes_have_every_alignment_up_to_a_page() {
    check_grid(1..=130, powers(1, 8192), 3);
    trim();
}

#[test]
fn sizes_at_class_borders_have_every_alignment_up_to_a_page() {
    check_grid(class_borders(), powers(1, 8192), 1);
    trim();
}

#[test]
fn sizes_at_page_borders_have_every_alignment_up_to_a_page() {
    check_grid(page_borders(), powers(1, 8192), 1);
    trim();
}

#[test]
fn all_sizes_have_every_alignment_up_to_4_mib() {
    let few = [1, 2, 3, 8, 16, 24, 100, 4096, 8192, 8193, 20_000, 40_000];
    check_grid(few.into_iter(), powers(16 << 10, 4 * MIB), 2);
    check_grid([MIB, 5 * MIB + 1].into_iter(), powers(16 << 10, 4 * MIB), 1);
    trim();
}

#[test]
fn objects_may_be_aligned_to_an_arena_and_more() {
    for align in [8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB, 128 * MIB] {
        for size in [1, 8192, 8193, 100_000, 9 * MIB, 40 * MIB, 64 * MIB - 8192] {
            let objects = [1, 2, 3].map(|seed| Object::try_new(size, align, seed));
            let objects: Vec<_> = objects.into_iter().flatten().collect();
            assert_eq!(
                objects.len(),
                3,
                "objects of {size} bytes at a multiple of {align}"
            );
            assert!(are_apart(&objects));
        }
    }
    trim();
}

#[test]
fn sizes_around_an_arena_have_every_alignment() {
    for size in [
        64 * MIB - 8193,
        64 * MIB - 8192,
        64 * MIB - 1,
        64 * MIB,
        64 * MIB + 1,
        65 * MIB,
    ] {
        for align in [1, 16, 8192, MIB, 64 * MIB, 128 * MIB] {
            let objects = [1, 2].map(|seed| Object::new(size, align, seed));
            assert!(are_apart(&objects));
        }
    }
    trim();
}

#[test]
fn what_no_address_space_holds_is_null() {
    alone(|| {
        // There are systems that promise memory without a bound.
        limit_address_space(1 << 45);
        let max = isize::MAX as usize;
        let layouts = [
            (max, 1),
            (max - 7, 8),
            (max - 4095, 4096),
            (max / 2, 1),
            (1 << 47, 1),
            (1 << 46, 16),
            (1, 1 << 57),
            (8, 1 << 62),
            (100_000, 1 << 57),
            (64 * MIB, 1 << 62),
            (1 << 62, 1 << 62),
        ];
        for (size, align) in layouts {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the size is not zero.
            let found = unsafe { [SpanMalloc.alloc(layout), SpanMalloc.alloc_zeroed(layout)] };
            assert!(
                found.iter().all(|object| object.is_null()),
                "{layout:?} gave {found:?}"
            );
        }
        let mut objects =
            [10, 1000, 100_000, 70 * MIB].map(|size| Object::new(size, 8, size as u64));
        for object in &mut objects {
            assert!(!object.try_resize(max - 7));
            assert!(!object.try_resize(1 << 47));
        }
    });
}

#[test]
fn resizing_keeps_the_contents_from_any_size_to_any_other() {
    let small = [
        1, 2, 3, 4, 5, 8, 9, 16, 17, 24, 48, 100, 128, 129, 1000, 2047, 2048, 2049, 4096,
    ];
    let large = [
        8192,
        20_000,
        32 << 10,
        (32 << 10) + 1,
        40_960,
        65_536,
        100_000,
        600_000,
        5 * MIB,
    ];
    let sizes = || small.into_iter().chain(large);
    for align in [1, 8, 16, 64, 4096, 16 << 10] {
        for (index, old) in sizes().enumerate() {
            for new in sizes() {
                let seed = (index * 257 + new) as u64;
                let neighbour = Object::new(old, align, !seed & 0xffff);
                let mut object = Object::new(old, align, seed);
                object.resize(new);
                neighbour.check();
                object.resize(old);
            }
        }
    }
    trim();
}

#[test]
fn resizing_keeps_the_contents_of_huge_objects() {
    let sizes = [
        10_000,
        17 * MIB,
        60 * MIB,
        64 * MIB,
        65 * MIB + 1,
        130 * MIB,
    ];
    for align in [1, 4096, 128 * MIB] {
        for old in sizes {
            let mut object = Object::new(old, align, old as u64);
            for new in sizes {
                object.resize(new);
                object.resize(old);
            }
        }
    }
    trim();
}

#[test]
fn thousands_of_mixed_objects_stay_apart() {
    let mut numbers = Numbers(11);
    let mut objects = Vec::new();
    for seed in 0..20_000 {
        let align = 1 << numbers.below(8);
        let object = Object::new(numbers.size(12), align, seed);
        if objects.len() < 3000 {
            objects.push(object);
        } else {
            let index = numbers.below(objects.len());
            objects[index] = object;
        }
        if seed % 2500 == 0 {
            assert!(are_apart(&objects));
        }
    }
    assert!(are_apart(&objects));
}
