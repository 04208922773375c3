//! Frees with a Layout that the object does not have, and realloc of what is no object. The harm is
//! that memory in use is handed out.

use std::alloc::Layout;

use crate::Program;
use crate::program::{
    fill, free_as, harm, layout, layout_aligned, misuse, object, protect, resize, returned, work,
};

const WRONG_ALIGN: usize = 1 << 16;

pub const PROGRAMS: [Program; 5] = [
    ("sized-larger", |size| {
        free_with(size, layout(4 * size));
    }),
    ("sized-smaller", |size| {
        free_with(size, layout(size / 4));
    }),
    ("sized-alignment", |size| {
        free_with(size, layout_aligned(size, WRONG_ALIGN));
    }),
    ("realloc-stack", of_stack),
    ("realloc-interior", of_interior),
];

fn free_with(size: usize, wrong: Layout) {
    let objects = [(); 16].map(|()| object(size));
    let is_unaligned = |it: &&*mut u8| !it.addr().is_multiple_of(WRONG_ALIGN);
    let wronged = *objects[8..]
        .iter()
        .find(is_unaligned)
        .unwrap_or(&objects[8]);
    for neighbour in objects.into_iter().filter(|it| *it != wronged) {
        protect(neighbour, size);
    }
    misuse(wronged);
    free_as(wronged, wrong);
    returned();
    work(wrong.size());
    work(size);
}

fn resize_there(there: *mut u8, size: usize) {
    misuse(there);
    let result = resize(there, size, 2 * size);
    returned();
    if result == there {
        harm("it was resized");
    }
    work(size);
}

fn of_stack(size: usize) {
    let mut local = [0_u64; 128];
    protect(local.as_ptr().cast(), size_of_val(&local));
    resize_there(local.as_mut_ptr().wrapping_add(8).cast(), size);
}

fn of_interior(size: usize) {
    let live = object(size);
    fill(live, 0, size);
    protect(live, size);
    resize_there(live.wrapping_add(16), size);
}
