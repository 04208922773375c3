//! What happens to a program that frees what it must not: it ends with SIGABRT, and one sentence on
//! standard error names the crime and the address.
//!
//! Each test commits its crime in a process of its own, which first tells the address.

#![cfg(not(miri))] // Starts processes.

mod common;

use std::alloc::GlobalAlloc;
use std::ptr;
use std::thread;

use common::crime::{
    DOUBLE_FREE, FOREIGN, FREE_MEMORY, INTERIOR, NOT_OURS, WRONG_LAYOUT, alloc, dies,
    dies_for_each, faults_for_each_with, free, layout, tell, write,
};
use common::stay_on_one_cpu;
use spanmalloc::{SpanMalloc, trim};

#[test]
fn double_free_in_a_row_is_seen_at_once() {
    dies(DOUBLE_FREE, || {
        let object = alloc(48);
        tell(object);
        free(object, 48);
        free(object, 48);
        panic!("the second free returned");
    });
}

#[test]
fn double_free_in_a_row_is_seen_when_the_magazine_is_full() {
    dies(DOUBLE_FREE, || {
        // 32 KiB objects have magazines of a few.
        let objects: Vec<_> = (0..64).map(|_| alloc(32 << 10)).collect();
        objects[..4]
            .iter()
            .for_each(|object| free(*object, 32 << 10));
        tell(objects[3]);
        free(objects[3], 32 << 10);
        panic!("the second free returned");
    });
}

#[test]
fn double_free_of_a_tiny_object_in_a_row_is_seen_at_once() {
    dies(DOUBLE_FREE, || {
        let object = alloc(3);
        tell(object);
        free(object, 3);
        free(object, 3);
        panic!("the second free returned");
    });
}

#[test]
fn double_free_with_another_between_is_seen_at_once() {
    dies_for_each(DOUBLE_FREE, &[1, 4, 8, 48, 1000, 5000, 32 << 10], |size| {
        let (twice, once) = (alloc(size), alloc(size));
        tell(twice);
        free(twice, size);
        free(once, size);
        free(twice, size);
        panic!("the second free returned");
    });
}

#[test]
fn double_free_with_frees_and_allocations_between_is_seen_at_once() {
    dies(DOUBLE_FREE, || {
        let objects: Vec<_> = (0..100).map(|_| alloc(48)).collect();
        let others: Vec<_> = (0..10).map(|index| alloc(300 + 200 * index)).collect();
        let twice = objects[0];
        tell(twice);
        free(twice, 48);
        objects[1..40].iter().for_each(|object| free(*object, 48));
        for _ in 0..20 {
            alloc(48);
        }
        for (index, other) in others.iter().enumerate() {
            free(*other, 300 + 200 * index);
        }
        free(twice, 48);
        panic!("the second free returned");
    });
}

#[test]
fn double_free_is_seen_when_a_magazine_is_flushed_to_the_spans() {
    dies(DOUBLE_FREE, || {
        stay_on_one_cpu();
        let objects: Vec<_> = (0..20_000).map(|_| alloc(48)).collect();
        // Its neighbours live, so that its span does.
        let (alive, others) = objects.split_at(10);
        let twice = &alive[5];
        // Fills the depot, which takes magazines unseen.
        let (before, after) = others.split_at(10_000);
        before.iter().for_each(|object| free(*object, 48));
        tell(*twice);
        free(*twice, 48);
        // It is in its span then, where only its bit tells.
        trim();
        free(*twice, 48);
        after.iter().for_each(|object| free(*object, 48));
    });
}

#[test]
fn double_free_of_a_tiny_object_beside_live_ones_is_seen_by_trim() {
    dies(DOUBLE_FREE, || {
        let objects: Vec<_> = (0..64).map(|_| alloc(1)).collect();
        free(objects[20], 1);
        trim();
        tell(objects[20]);
        free(objects[20], 1);
        trim();
    });
}

#[test]
fn double_free_after_the_first_one_was_flushed_is_seen() {
    dies(DOUBLE_FREE, || {
        let (twice, _alive) = (alloc(48), alloc(48));
        free(twice, 48);
        trim();
        tell(twice);
        free(twice, 48);
        trim();
    });
}

#[test]
fn double_free_by_two_threads_is_seen_by_trim() {
    dies(DOUBLE_FREE, || {
        let (twice, _alive) = (alloc(48), alloc(48));
        tell(twice);
        let address = twice.expose_provenance();
        let other = thread::spawn(move || free(ptr::with_exposed_provenance_mut(address), 48));
        other.join().unwrap();
        free(twice, 48);
        trim();
    });
}

#[test]
fn double_free_after_the_span_went_back_is_a_free_of_free_memory() {
    dies(FREE_MEMORY, || {
        // Of a class that nothing else in the process uses, which may be on this allocator as a whole; and what
        // tells may need memory.
        let object = alloc(1500);
        tell(object);
        free(object, 1500);
        trim();
        free(object, 1500);
        trim();
    });
}

/// Sizes of watched objects.
const WATCHED: [usize; 3] = [4097, 5000, 32 << 10];

#[test]
fn double_free_of_a_watched_object_is_seen_at_once_whatever_was_freed_between() {
    dies_for_each(DOUBLE_FREE, &WATCHED, |size| {
        let twice = alloc(size);
        let others: Vec<_> = (0..300).map(|_| alloc(size)).collect();
        tell(twice);
        free(twice, size);
        others.iter().for_each(|other| free(*other, size));
        free(twice, size);
        panic!("the second free returned");
    });
}

#[test]
fn double_free_of_a_watched_object_is_seen_at_once_while_another_thread_has_the_first() {
    dies_for_each(DOUBLE_FREE, &WATCHED, |size| {
        let twice = alloc(size);
        tell(twice);
        let address = twice.expose_provenance();
        let other = thread::spawn(move || {
            free(alloc(size), size); // Its magazine is in use, and keeps the next object.
            free(ptr::with_exposed_provenance_mut(address), size);
        });
        other.join().unwrap();
        free(twice, size);
        panic!("the second free returned");
    });
}

#[test]
fn double_free_of_a_watched_object_after_its_span_went_back_is_seen_at_once() {
    dies(FREE_MEMORY, || {
        let object = alloc(30_000);
        tell(object);
        free(object, 30_000);
        trim();
        free(object, 30_000);
        panic!("the second free returned");
    });
}

#[test]
fn free_into_the_middle_of_a_watched_object_is_seen_at_once() {
    // The last one is 16 bytes before the next object of the span.
    dies_for_each(INTERIOR, &[1, 16, 128, 4096, 5376 - 16], |offset| {
        let inside = alloc(5000).wrapping_add(offset);
        tell(inside);
        free(inside, 5000);
        panic!("the free returned");
    });
}

#[test]
fn free_of_what_is_no_object_as_a_watched_one_is_seen_at_once() {
    dies(FOREIGN, || {
        tell(NOT_OURS.as_ptr());
        free(NOT_OURS.as_ptr().cast_mut(), 5000);
        panic!("the free returned");
    });
}

#[test]
fn free_with_the_layout_of_a_watched_class_is_seen_at_once() {
    dies_for_each(WRONG_LAYOUT, &[48, 1000, 8000, 100_000], |size| {
        let object = alloc(size);
        tell(object);
        free(object, 5000);
        panic!("the free returned");
    });
}

/// Resizes a watched object, rightly or wrongly.
fn double(object: *mut u8, size: usize) {
    // SAFETY: none if it is a crime.
    unsafe { SpanMalloc.realloc(object, layout(size), 2 * size) };
}

#[test]
fn resizing_the_middle_of_a_watched_object_is_seen_at_once() {
    dies("realloc of a pointer into the middle of an object:", || {
        let inside = alloc(5000).wrapping_add(16);
        tell(inside);
        double(inside, 5000);
        panic!("the call returned");
    });
}

#[test]
fn resizing_a_freed_watched_object_is_seen_at_once() {
    dies("realloc of memory that is free already:", || {
        let objects = [(); 3].map(|()| alloc(5000));
        tell(objects[1]);
        free(objects[1], 5000);
        double(objects[1], 5000);
        panic!("the call returned");
    });
}

#[test]
fn resizing_a_static_as_a_watched_object_is_seen_at_once() {
    dies("realloc of a pointer that is not from this heap:", || {
        tell(NOT_OURS.as_ptr());
        double(NOT_OURS.as_ptr().cast_mut(), 5000);
        panic!("the call returned");
    });
}

#[test]
fn resizing_with_the_layout_of_a_watched_class_is_seen_at_once() {
    dies("realloc with a Layout of another size class:", || {
        let object = alloc(48);
        tell(object);
        double(object, 5000);
        panic!("the call returned");
    });
}

#[test]
fn double_free_of_a_large_object_is_a_free_of_free_memory() {
    dies(FREE_MEMORY, || {
        let object = alloc(100_000);
        tell(object);
        free(object, 100_000);
        free(object, 100_000);
    });
}

#[test]
fn double_free_of_a_huge_object_is_a_free_of_free_memory() {
    dies(FREE_MEMORY, || {
        let object = alloc(100 << 20);
        tell(object);
        free(object, 100 << 20);
        free(object, 100 << 20);
    });
}

#[test]
fn double_free_of_a_huge_object_that_has_gone_back_is_a_free_of_a_foreign_pointer() {
    dies(FOREIGN, || {
        let object = alloc(100 << 20);
        tell(object);
        free(object, 100 << 20);
        trim();
        free(object, 100 << 20);
    });
}

#[test]
fn resizing_a_freed_large_object_is_seen() {
    dies(FREE_MEMORY, || {
        let object = alloc(100_000);
        free(object, 100_000);
        tell(object);
        // SAFETY: none, it is the crime.
        unsafe { SpanMalloc.realloc(object, layout(100_000), 200_000) };
    });
}

/// Lets the thread keep large objects: the free of another one is no slow call then.
fn keep_large_objects() {
    free(alloc(50_000), 50_000);
}

#[test]
fn free_of_a_stack_pointer_as_a_large_object_is_seen_at_once() {
    dies(FOREIGN, || {
        keep_large_objects();
        let mut bytes = [0_u8; 64];
        tell(bytes.as_ptr());
        free(bytes.as_mut_ptr(), 100_000);
    });
}

#[test]
fn free_of_a_stack_pointer_as_a_small_object_is_seen_by_trim() {
    dies(FOREIGN, || {
        let mut bytes = [0_u8; 64];
        tell(bytes.as_ptr());
        free(bytes.as_mut_ptr(), 64);
        trim();
    });
}

#[test]
fn free_of_a_static_as_a_large_object_is_seen_at_once() {
    dies(FOREIGN, || {
        keep_large_objects();
        tell(NOT_OURS.as_ptr());
        free(NOT_OURS.as_ptr().cast_mut(), 100_000);
    });
}

#[test]
fn free_of_a_static_as_a_small_object_is_seen_by_trim() {
    dies(FOREIGN, || {
        alloc(64); // The heap exists.
        tell(NOT_OURS.as_ptr());
        free(NOT_OURS.as_ptr().cast_mut(), 64);
        trim();
    });
}

#[test]
fn free_of_a_static_as_a_tiny_object_is_seen_by_trim() {
    dies(FOREIGN, || {
        tell(NOT_OURS.as_ptr());
        free(NOT_OURS.as_ptr().cast_mut(), 2);
        trim();
    });
}

#[test]
fn free_into_the_middle_of_a_small_object_is_seen_by_trim() {
    dies(INTERIOR, || {
        let inside = alloc(48).wrapping_add(16);
        tell(inside);
        free(inside, 48);
        trim();
    });
}

#[test]
fn free_into_the_middle_of_a_tiny_object_is_seen_by_trim() {
    dies(INTERIOR, || {
        let inside = alloc(4).wrapping_add(1);
        tell(inside);
        free(inside, 4);
        trim();
    });
}

#[test]
fn free_behind_the_last_slot_of_a_span_is_seen_by_trim() {
    dies(INTERIOR, || {
        // Spans of 48-byte slots have 16 bytes behind the last one: 341 slots in 16 KiB.
        let first = (0..2000)
            .map(|_| alloc(48))
            .find(|object| object.addr() % 8192 == 0)
            .unwrap();
        let behind = first.wrapping_add(341 * 48);
        tell(behind);
        free(behind, 48);
        trim();
    });
}

#[test]
fn free_into_the_middle_of_a_large_object_is_seen_at_once() {
    dies(INTERIOR, || {
        keep_large_objects();
        let inside = alloc(100_000).wrapping_add(50_000);
        tell(inside);
        free(inside, 100_000);
    });
}

#[test]
fn free_into_the_middle_of_a_huge_object_is_seen_at_once() {
    dies(INTERIOR, || {
        let inside = alloc(100 << 20).wrapping_add(80 << 20);
        tell(inside);
        free(inside, 100 << 20);
    });
}

#[test]
fn free_with_another_small_layout_is_seen_by_trim() {
    dies(WRONG_LAYOUT, || {
        let object = alloc(48);
        tell(object);
        free(object, 64);
        trim();
    });
}

#[test]
fn free_of_a_small_object_as_a_tiny_one_is_seen_by_trim() {
    dies(WRONG_LAYOUT, || {
        let object = alloc(48);
        tell(object);
        free(object, 4);
        trim();
    });
}

#[test]
fn free_of_a_small_object_as_a_large_one_is_seen_at_once() {
    dies(WRONG_LAYOUT, || {
        keep_large_objects();
        let object = alloc(48);
        tell(object);
        free(object, 100_000);
    });
}

#[test]
fn free_of_a_large_object_as_a_small_one_is_seen_by_trim() {
    dies(WRONG_LAYOUT, || {
        let object = alloc(100_000);
        tell(object);
        free(object, 48);
        trim();
    });
}

#[test]
fn free_of_a_huge_object_as_a_small_one_is_seen_by_trim() {
    dies(WRONG_LAYOUT, || {
        let object = alloc(100 << 20);
        tell(object);
        free(object, 48);
        trim();
    });
}

#[test]
fn free_of_a_static_as_a_small_object_is_seen_at_exit() {
    dies(FOREIGN, || {
        tell(NOT_OURS.as_ptr());
        free(NOT_OURS.as_ptr().cast_mut(), 64);
        std::process::exit(0);
    });
}

#[test]
fn free_into_the_middle_of_a_small_object_is_seen_at_exit() {
    dies(INTERIOR, || {
        let inside = alloc(48).wrapping_add(16);
        tell(inside);
        free(inside, 48);
        std::process::exit(0);
    });
}

#[test]
fn double_free_by_two_threads_is_seen_at_exit() {
    dies(DOUBLE_FREE, || {
        let (twice, _alive) = (alloc(48), alloc(48));
        tell(twice);
        let address = twice.expose_provenance();
        let other = thread::spawn(move || {
            alloc(48); // Its magazine is in use.
            free(ptr::with_exposed_provenance_mut(address), 48)
        });
        other.join().unwrap();
        free(twice, 48);
        std::process::exit(0);
    });
}

#[test]
fn large_object_freed_with_another_size_is_seen_at_once() {
    dies_for_each(WRONG_LAYOUT, &[100_000, 100 << 20], |told| {
        keep_large_objects();
        let object = alloc(2 * told);
        tell(object);
        free(object, told);
        panic!("the free returned");
    });
}

#[test]
fn a_write_behind_a_huge_object_faults() {
    faults_for_each_with(&[100 << 20], &[], |size| {
        let object = alloc(size);
        write(object.wrapping_add(size - 1), 1);
        let behind = object.wrapping_add(size);
        tell(behind);
        write(behind, 1);
        panic!("the write succeeded");
    });
}
