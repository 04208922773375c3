//! The secure mode: crimes that the default mode does not see, or only later, end the process at once with
//! one sentence; and programs without any run as ever.
//!
//! The allocator of this test itself is in secure mode. Each crime is committed in a process of its own,
//! which first tells the address.

#![cfg(not(miri))] // Starts processes.

mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::collections::HashSet;
use std::mem;
use std::ptr;
use std::thread;

use common::crime::{
    DOUBLE_FREE, FOREIGN, FREE_MEMORY, INTERIOR, NOT_OURS, WRONG_LAYOUT, alloc, dies,
    dies_for_each, dies_for_each_with, faults_for_each_with, for_each, free, layout, tell, told,
    write,
};
use common::{
    Numbers, Object, alone, assert_passed, is_alone, run_alone, run_alone_with, stay_on_one_cpu,
};
use spanmalloc::{Config, Configured, Secure, SpanMalloc, stats, trim};

#[global_allocator]
static GLOBAL: Configured = SpanMalloc::with(Config::new().secure(Secure::USUAL));

const WRONG_SIZE: &str = "free with a wrong size or alignment:";
const OVERFLOW: &str = "overflow: bytes were written behind the object at";
const WRITE_AFTER_FREE: &str = "write after free to the object at";

/// Sizes of small, medium and large objects: within a slot of which little is left, and of which much is.
const SIZES: [usize; 10] = [1, 7, 8, 24, 48, 500, 4000, 30_000, 40_960, 100_000];
/// A size of a mapping of its own.
const HUGE: usize = 70 << 20;

#[test]
fn overflow_of_one_byte_is_seen_by_the_free() {
    dies_for_each(OVERFLOW, &SIZES, |size| {
        let object = alloc(size);
        tell(object);
        write(object.wrapping_add(size), 0);
        free(object, size);
    });
}

#[test]
fn overflow_of_a_huge_object_is_seen_by_the_free() {
    dies(OVERFLOW, || {
        let object = alloc(HUGE - 3);
        tell(object);
        write(object.wrapping_add(HUGE - 3), 0);
        free(object, HUGE - 3);
    });
}

#[test]
fn overflow_to_the_end_of_the_slot_is_seen() {
    // Slots of 48, 64 and 4864 bytes.
    dies_for_each(OVERFLOW, &[33, 48, 4200], |size| {
        let object = alloc(size);
        let end = [48, 64, 4864].into_iter().find(|end| *end > size).unwrap();
        tell(object);
        write(object.wrapping_add(end - 1), 0);
        free(object, size);
    });
}

#[test]
fn overflow_is_seen_when_the_size_changes() {
    dies_for_each(OVERFLOW, &SIZES, |size| {
        let object = alloc(size);
        tell(object);
        write(object.wrapping_add(size), b'x');
        // SAFETY: none, as above.
        unsafe { SpanMalloc.realloc(object, layout(size), 2 * size) };
    });
}

#[test]
fn overflow_is_seen_after_the_size_has_changed() {
    dies_for_each(OVERFLOW, &[34, 40, 45, 400, 70_000], |size| {
        let object = alloc(35);
        // SAFETY: the object has that Layout.
        let object = unsafe { SpanMalloc.realloc(object, layout(35), size) };
        tell(object);
        write(object.wrapping_add(size), 0);
        free(object, size);
    });
}

#[test]
fn write_after_free_is_seen_when_the_memory_is_used_again() {
    // And the process that does it, from its start: what waits in another CPU's depot is not used again.
    stay_on_one_cpu();
    let crime = |size: usize| {
        let object = alloc(size);
        free(object, size);
        tell(object);
        write(object.wrapping_add(size / 2), 0);
        let others: Vec<_> = (0..2_000_000 / size.max(1000))
            .map(|_| alloc(size))
            .collect();
        others.iter().for_each(|object| free(*object, size));
        // More than there are free, wherever they wait.
        for _ in 0..4 * others.len() {
            alloc(size);
        }
    };
    dies_for_each(WRITE_AFTER_FREE, &SIZES[..8], crime);
}

/// Allocates many objects of 5,000 bytes, frees all, changes one whose span is gone by then, and allocates others of
/// so many bytes.
fn reuse_after_write(other: usize) {
    let objects: Vec<_> = (0..2000).map(|_| alloc(5000)).collect();
    objects.iter().for_each(|object| free(*object, 5000));
    let changed = objects[objects.len() / 2];
    tell(changed);
    write(changed, 0);
    for _ in 0..20_000_000 / other {
        alloc(other);
    }
    panic!("it is used again unseen");
}

const FILL_ALONE: [(&str, &str); 1] = [("SPANMALLOC_SECURE", "fill")];

#[test]
fn write_after_free_is_seen_when_a_large_object_gets_the_pages() {
    dies_for_each_with(WRITE_AFTER_FREE, &[100_000], &FILL_ALONE, |other| {
        reuse_after_write(other);
    });
}

#[test]
fn write_after_free_is_seen_when_objects_of_another_class_get_the_pages() {
    let crime = |other| {
        reuse_after_write(other);
    };
    for_each(&[48, 3000], &FILL_ALONE, crime, |output| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let address = |text: &str| usize::from_str_radix(text.trim().trim_start_matches("0x"), 16);
        let seen = stderr.split(WRITE_AFTER_FREE).nth(1).expect("a sentence");
        let before = address(&told(output)[0]).unwrap() - address(seen).unwrap();
        assert!(before < 3072, "not the object that has it: {stderr}");
    });
}

#[test]
fn write_after_free_of_a_large_object_is_seen_where_it_is_filled() {
    let variables = [("SPANMALLOC_SECURE", "fill")];
    dies_for_each_with(WRITE_AFTER_FREE, &[40_960, 300_000], &variables, |size| {
        let object = alloc(size);
        free(object, size);
        tell(object);
        write(object.wrapping_add(size / 2), 0);
        alloc(size);
    });
}

#[test]
fn write_after_free_of_a_large_object_is_seen_when_its_pages_are_used_again() {
    dies_for_each(WRITE_AFTER_FREE, &[40_960, 100_000, 500_000], |size| {
        let object = alloc(size);
        free(object, size);
        tell(object);
        write(object.wrapping_add(size - 1), 0);
        // More than wait before it.
        for _ in 0..200 {
            free(alloc(size), size);
        }
        panic!("it came again unseen");
    });
}

#[test]
fn write_after_free_of_a_large_object_is_seen_when_its_pages_go_to_the_heap() {
    dies_for_each(WRITE_AFTER_FREE, &[40_960, 500_000], |size| {
        let object = alloc(size);
        free(object, size);
        tell(object);
        write(object, 0);
        trim();
        panic!("its pages went unseen");
    });
}

#[test]
fn access_to_a_freed_large_object_faults() {
    let faults = |mode: &str, sizes: &[usize]| {
        faults_for_each_with(sizes, &[("SPANMALLOC_SECURE", mode)], |size| {
            let object = alloc(size);
            free(object, size);
            tell(object);
            write(object.wrapping_add(size / 2), 0);
        });
    };
    faults("1", &[600_000, 3_000_000, 80_000_000]);
    faults("protect", &[40_960, 100_000, 3_000_000, 80_000_000]);
}

#[test]
fn overflow_into_a_guard_faults() {
    let sizes = [48, 4000, 40_960, 300_000, 80_000_000];
    faults_for_each_with(&sizes, &[("SPANMALLOC_SECURE", "guards")], |size| {
        let object = alloc(size);
        tell(object);
        // SAFETY: none, it is the crime.
        unsafe { object.write_bytes(1, size + 60_000) };
    });
}

#[test]
fn double_free_is_seen_at_once_after_a_thousand_others() {
    let mut sizes = SIZES.to_vec();
    sizes.push(HUGE);
    dies_for_each(DOUBLE_FREE, &sizes, |size| {
        let object = alloc(size);
        let others: Vec<_> = (0..1000).map(|_| alloc(size.min(1000))).collect();
        free(object, size);
        others.iter().for_each(|other| free(*other, size.min(1000)));
        tell(object);
        // It may be another one's by now only if it was large.
        free(object, size);
        panic!("the second free returned");
    });
}

#[test]
fn double_free_by_another_thread_is_seen_at_once() {
    dies(DOUBLE_FREE, || {
        let object = alloc(48);
        let address = object.expose_provenance();
        let other = thread::spawn(move || free(ptr::with_exposed_provenance_mut(address), 48));
        other.join().unwrap();
        tell(object);
        free(object, 48);
        panic!("the second free returned");
    });
}

#[test]
fn double_free_by_realloc_is_seen_at_once() {
    dies_for_each(DOUBLE_FREE, &[48, 100_000], |size| {
        let object = alloc(size);
        free(object, size);
        tell(object);
        // SAFETY: none, it is the crime.
        unsafe { SpanMalloc.realloc(object, layout(size), 2 * size) };
        panic!("it returned");
    });
}

#[test]
fn free_of_a_slot_that_was_never_handed_out_is_seen_at_once() {
    dies(FREE_MEMORY, || {
        // The last slot of a span of a page; slots are handed out from the first one on.
        let never = alloc(7).map_addr(|address| (address | 8191) - 7);
        tell(never);
        free(never, 7);
    });
}

#[test]
fn interior_and_foreign_pointers_are_seen_at_once() {
    dies_for_each(INTERIOR, &[48, 5000, 100_000, HUGE], |size| {
        let inside = alloc(size).wrapping_add(16);
        tell(inside);
        free(inside, size);
        panic!("the free returned");
    });
}

#[test]
fn foreign_pointers_are_seen_at_once() {
    dies_for_each(FOREIGN, &[2, 48, 100_000], |size| {
        tell(NOT_OURS.as_ptr());
        free(NOT_OURS.as_ptr().cast_mut(), size);
        panic!("the free returned");
    });
}

#[test]
fn another_layout_is_seen_at_once() {
    dies_for_each(WRONG_LAYOUT, &[1, 100, 50_000], |wrong| {
        let object = alloc(48);
        tell(object);
        free(object, wrong);
        panic!("the free returned");
    });
}

#[test]
fn another_size_of_the_same_class_is_seen_at_once() {
    dies_for_each(WRONG_SIZE, &[49, 62, 63], |wrong| {
        let object = alloc(50 + usize::from(wrong == 49));
        tell(object);
        free(object, wrong);
        panic!("the free returned");
    });
}

#[test]
fn another_size_of_a_large_object_is_seen_at_once() {
    dies(WRONG_SIZE, || {
        let object = alloc(100_000);
        tell(object);
        free(object, 100_001);
        panic!("the free returned");
    });
}

/// The modes that programs without crimes are run in.
const MODES: [&str; 10] = [
    "checks",
    "canary",
    "fill",
    "quarantine",
    "random",
    "retire",
    "protect",
    "guards",
    "zero",
    "all",
];

/// Runs `body` in a process of its own for each mode.
fn lives_in_all_modes<F: FnOnce()>(body: F) {
    if is_alone() {
        return body();
    }
    for mode in MODES {
        println!("in mode {mode}");
        assert_passed(&run_alone_with(&[("SPANMALLOC_SECURE", mode)], &body));
    }
}

#[test]
fn objects_of_all_sizes_and_alignments_hold_what_is_written() {
    lives_in_all_modes(|| {
        let mut numbers = Numbers(7);
        let mut objects: Vec<(*mut u8, Layout, u8)> = Vec::new();
        for step in 0..20_000_usize {
            if numbers.below(3) > 0 || objects.is_empty() {
                let align = 1 << numbers.below(if step % 64 == 0 { 17 } else { 7 });
                let layout = Layout::from_size_align(numbers.size(15), align).unwrap();
                let zeroed = numbers.below(4) == 0;
                // SAFETY: no size is zero.
                let object = unsafe {
                    match zeroed {
                        true => SpanMalloc.alloc_zeroed(layout),
                        false => SpanMalloc.alloc(layout),
                    }
                };
                assert!(object.addr().is_multiple_of(align));
                // SAFETY: the object has that many bytes.
                let bytes = unsafe { std::slice::from_raw_parts_mut(object, layout.size()) };
                assert!(!zeroed || bytes.iter().all(|byte| *byte == 0));
                bytes.fill(step as u8);
                objects.push((object, layout, step as u8));
                continue;
            }
            let (mut object, mut layout, byte) = objects.swap_remove(numbers.below(objects.len()));
            // SAFETY: as above.
            let bytes = unsafe { std::slice::from_raw_parts(object, layout.size()) };
            assert!(bytes.iter().all(|there| *there == byte));
            if numbers.below(3) == 0 {
                let size = numbers.size(16);
                // SAFETY: the object has that Layout.
                object = unsafe { SpanMalloc.realloc(object, layout, size) };
                let kept = layout.size().min(size);
                // SAFETY: as above.
                let bytes = unsafe { std::slice::from_raw_parts(object, kept) };
                assert!(bytes.iter().all(|there| *there == byte));
                layout = Layout::from_size_align(size, layout.align()).unwrap();
            }
            // SAFETY: as above.
            unsafe { SpanMalloc.dealloc(object, layout) };
        }
        for (object, layout, _) in objects {
            // SAFETY: as above.
            unsafe { SpanMalloc.dealloc(object, layout) };
        }
        trim();
    });
}

#[test]
fn threads_pass_objects_on_in_all_modes() {
    lives_in_all_modes(|| {
        let (to_freer, from_maker) = std::sync::mpsc::sync_channel::<Vec<Object>>(4);
        let freer = thread::spawn(move || from_maker.into_iter().for_each(drop));
        thread::scope(|scope| {
            for number in 0..4_u64 {
                let to_freer = to_freer.clone();
                scope.spawn(move || {
                    let mut numbers = Numbers(number);
                    for _ in 0..200 {
                        let size = numbers.size(12);
                        let some = (0..20).map(|seed| Object::new(size, 8, seed)).collect();
                        to_freer.send(some).unwrap();
                    }
                });
            }
        });
        drop(to_freer);
        freer.join().unwrap();
        trim();
    });
}

#[test]
fn statistics_add_up_in_all_modes() {
    lives_in_all_modes(|| {
        let before = stats();
        let objects: Vec<_> = (0..300).map(|_| alloc(5000)).collect();
        let large: Vec<_> = (0..20).map(|_| alloc(100_000)).collect();
        let between = stats();
        let class = |stats: &spanmalloc::Stats| {
            let of = stats
                .classes
                .iter()
                .find(|class| class.object_bytes == 5376);
            of.unwrap().live_objects
        };
        assert_eq!(class(&between) - class(&before), 300);
        assert_eq!(between.large_live_objects - before.large_live_objects, 20);
        objects.iter().for_each(|object| free(*object, 5000));
        large.iter().for_each(|object| free(*object, 100_000));
        let after = stats();
        assert_eq!(class(&after), class(&before));
        assert_eq!(after.large_live_objects, before.large_live_objects);
        assert_eq!(after.large_live_bytes, before.large_live_bytes);
        assert_eq!(after.in_transit_bytes, 0, "{after:?}");
    });
}

#[test]
fn freed_objects_stay_in_quarantine_for_a_random_time() {
    alone(|| {
        // How many other frees it takes until the address comes again.
        let delay = || {
            let object = alloc(600);
            free(object, 600);
            (0..100_000).find(|_| {
                let other = alloc(600);
                free(other, 600);
                other == object
            })
        };
        let delays: Vec<_> = (0..20).map(|_| delay().unwrap()).collect();
        assert!(delays.iter().all(|delay| *delay > 0), "{delays:?}");
        let different: HashSet<_> = delays.iter().collect();
        assert!(different.len() > 10, "{delays:?}");
    });
}

#[test]
fn arenas_lie_elsewhere_in_each_process() {
    let body = || tell(alloc(48).map_addr(|address| address >> 26));
    if is_alone() {
        return body();
    }
    let places: HashSet<_> = (0..6).flat_map(|_| told(&run_alone(&body))).collect();
    // Two of 65,536 places may be the same by chance.
    assert!(places.len() >= 5, "{places:?}");
}

#[test]
fn child_of_a_fork_draws_other_numbers() {
    alone(|| {
        let order = || -> Vec<usize> { (0..50).map(|_| alloc(300).addr()).collect() };
        for _ in 0..300 {
            free(alloc(300), 300);
        }
        let mut ends = [0; 2];
        // SAFETY: the child allocates, writes and ends; `ends` has room for two descriptors.
        unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            let child = libc::fork();
            let mut addresses = [0_usize; 50];
            let bytes = mem::size_of_val(&addresses);
            if child == 0 {
                addresses.copy_from_slice(&order());
                libc::write(ends[1], addresses.as_ptr().cast(), bytes);
                libc::_exit(0);
            }
            let own = order();
            assert_eq!(
                libc::read(ends[0], addresses.as_mut_ptr().cast(), bytes),
                bytes as isize
            );
            assert_ne!(own, addresses);
        }
    });
}
