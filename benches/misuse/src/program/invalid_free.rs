//! Frees of what is no object. The harm is that the memory there, which is in use, is handed out.

use std::ptr;
use std::sync::atomic::AtomicU64;

use crate::Program;
use crate::program::{
    fill, free, give_back, map, misuse, object, of_free_span, protect, returned, work,
};

pub const PROGRAMS: [Program; 11] = [
    ("free-stack", of_stack),
    ("free-static", of_static),
    ("free-mapping", of_mapping),
    ("free-integer", |size| {
        free_there(ptr::without_provenance_mut(8), size);
    }),
    ("free-interior-1", |size| at_offset(size, 1)),
    ("free-interior-8", |size| at_offset(size, 8)),
    ("free-interior-16", |size| at_offset(size, 16)),
    ("free-interior-middle", |size| {
        at_offset(size, ((size / 2) & !15) as isize);
    }),
    ("free-before", |size| at_offset(size, -16)),
    ("free-in-free-span", |size| {
        free_there(of_free_span(size).wrapping_add((size / 2) & !15), size);
    }),
    ("free-in-released", into_released_pages),
];

fn free_there(there: *mut u8, size: usize) {
    misuse(there);
    free(there, size);
    returned();
    work(size);
}

fn of_stack(size: usize) {
    let mut local = [0_u64; 128];
    protect(local.as_ptr().cast(), size_of_val(&local));
    free_there(local.as_mut_ptr().wrapping_add(8).cast(), size);
}

fn of_static(size: usize) {
    static MEMORY: [AtomicU64; 128] = [const { AtomicU64::new(0) }; 128];
    protect(MEMORY.as_ptr().cast(), size_of_val(&MEMORY));
    free_there(MEMORY[8].as_ptr().cast(), size);
}

fn of_mapping(size: usize) {
    let mapping = map(1 << 20);
    protect(mapping, 1 << 20);
    free_there(mapping.wrapping_add(64), size);
}

fn at_offset(size: usize, offset: isize) {
    protect(object(size), size);
    let live = object(size);
    fill(live, 0, size);
    protect(live, size);
    protect(object(size), size);
    free_there(live.wrapping_offset(offset), size);
}

fn into_released_pages(size: usize) {
    let released = object(size);
    fill(released, 1, size);
    free(released, size);
    give_back();
    free_there(released.wrapping_add(8192), size);
}
