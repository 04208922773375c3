//! Uses of memory that is free. The harm is that the memory is handed out again with what was written
//! to it, or that old data is read.

use std::sync::atomic::Ordering;

use crate::Program;
use crate::program::{
    OBJECTS, change, fill, free, harm, misuse, object, read, returned, try_object, work_count,
};

const ROUNDS: usize = 8;
const SECRET: u8 = 0x5a;

pub const PROGRAMS: [Program; 5] = [
    ("write-after-free", |size| write_late(size, 0, 0)),
    ("write-after-free-100", |size| write_late(size, 100, 0)),
    ("write-after-free-middle", |size| {
        write_late(size, 0, (size / 2) & !7);
    }),
    ("read-after-free", read_freed),
    ("old-data", old_secret),
];

/// Allocates and frees until memory at `stale` is handed out again; whether it was.
fn is_reused(stale: *mut u8, size: usize) -> bool {
    let objects = &OBJECTS[..work_count(size)];
    for _ in 0..ROUNDS {
        for slot in objects {
            let object = try_object(size);
            if (object.addr()..object.addr() + size).contains(&stale.addr()) {
                return true;
            }
            slot.store(object, Ordering::Relaxed);
        }
        for slot in objects {
            free(slot.load(Ordering::Relaxed), size);
        }
    }
    false
}

fn write_late(size: usize, others: usize, offset: usize) {
    let freed = object(size);
    fill(freed, 1, size);
    let between: Vec<_> = (0..others).map(|_| object(size)).collect();
    free(freed, size);
    between.iter().for_each(|object| free(*object, size));
    let stale = freed.wrapping_add(offset);
    misuse(stale);
    let written = [0, 1, 2, 3, 4, 5, 6, 7].map(|byte| change(stale.wrapping_add(byte)));
    returned();
    let is_there = |(byte, written)| read(stale.wrapping_add(byte)) == written;
    if is_reused(stale, size) && written.into_iter().enumerate().all(is_there) {
        harm("an object was handed out with what was written");
    }
}

/// Frees an object that is full of what is secret; returns its middle.
fn freed_secret(size: usize) -> *mut u8 {
    let freed = object(size);
    fill(freed, SECRET, size);
    free(freed, size);
    freed.wrapping_add(size / 2)
}

fn read_freed(size: usize) {
    let stale = freed_secret(size);
    misuse(stale);
    let byte = read(stale);
    returned();
    if byte == SECRET {
        harm("old data was read");
    }
}

fn old_secret(size: usize) {
    let stale = freed_secret(size);
    misuse(stale);
    let is_old = is_reused(stale, size) && read(stale) == SECRET;
    returned();
    if is_old {
        harm("an object held old data");
    }
}
