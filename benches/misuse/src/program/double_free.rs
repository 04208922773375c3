//! Objects that are freed twice. The harm is an object that is handed out twice.

use crate::Program;
use crate::program::{
    absent, free, free_in_thread, misuse, object, of_free_span, protect, resize, returned, work,
};

pub const PROGRAMS: [Program; 14] = [
    ("double-free", |size| after_others(size, 0)),
    ("double-free-after-1", |size| after_others(size, 1)),
    ("double-free-after-8", |size| after_others(size, 8)),
    ("double-free-after-100", |size| after_others(size, 100)),
    ("double-free-after-1000", |size| after_others(size, 1000)),
    ("double-free-interleaved", interleaved),
    ("double-free-allocations", allocations_between),
    ("double-free-reused-span", after_reuse),
    ("double-free-empty-span", empty_span),
    ("double-free-realloc", by_realloc),
    ("double-free-moved", after_realloc),
    ("double-free-thread-main", by_thread_then_main),
    ("double-free-main-thread", by_main_then_thread),
    ("double-free-two-threads", by_two_threads),
];

fn free_again(twice: *mut u8, size: usize) {
    misuse(twice);
    free(twice, size);
    returned();
    work(size);
}

fn after_others(size: usize, others: usize) {
    let twice = object(size);
    let between: Vec<_> = (0..others).map(|_| object(size)).collect();
    free(twice, size);
    between.iter().for_each(|object| free(*object, size));
    free_again(twice, size);
}

fn interleaved(size: usize) {
    let (a, b, c) = (object(size), object(size), object(size));
    free(a, size);
    free(b, size);
    free(c, size);
    misuse(a);
    free(a, size);
    free(b, size);
    returned();
    work(size);
}

fn allocations_between(size: usize) {
    let twice = object(size);
    // It keeps the first one's memory from being joined with more, of which others would be made.
    protect(object(size), size);
    free(twice, size);
    for other in [4 * size, 8 * size, 16 * size, 32 * size] {
        protect(object(other), other);
    }
    free_again(twice, size);
}

fn after_reuse(size: usize) {
    let freed = [(); 16].map(|()| object(size));
    freed.iter().for_each(|object| free(*object, size));
    let reused = [(); 8].map(|()| object(size));
    reused.iter().for_each(|object| protect(*object, size));
    if let Some(twice) = freed.iter().find(|object| !reused.contains(object)) {
        free_again(*twice, size);
    }
}

fn empty_span(size: usize) {
    free_again(of_free_span(size), size);
}

fn by_realloc(size: usize) {
    let twice = object(size);
    free(twice, size);
    misuse(twice);
    let result = resize(twice, size, 2 * size);
    returned();
    if !result.is_null() {
        protect(result, 2 * size);
    }
    work(size);
}

fn after_realloc(size: usize) {
    let (mut now, mut now_bytes) = (object(size), size);
    protect(object(size), size);
    loop {
        let (before, bytes) = (now, now_bytes);
        now_bytes *= 4;
        now = resize(before, bytes, now_bytes);
        if now.is_null() || now_bytes >= 1 << 30 {
            absent("the object did not move");
        }
        if now != before {
            protect(now, now_bytes);
            return free_again(before, bytes);
        }
    }
}

fn by_thread_then_main(size: usize) {
    let twice = object(size);
    free_in_thread(twice, size);
    free_again(twice, size);
}

fn by_main_then_thread(size: usize) {
    let twice = object(size);
    free(twice, size);
    misuse(twice);
    free_in_thread(twice, size);
    returned();
    work(size);
}

fn by_two_threads(size: usize) {
    let twice = object(size);
    free_in_thread(twice, size);
    misuse(twice);
    free_in_thread(twice, size);
    returned();
    work(size);
}
