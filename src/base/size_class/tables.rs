//! The tables of the size classes, generated at compile time.

use super::{
    CLASSES, DIRECT_BYTES, Geometry, MAGAZINE_BYTES, MAGAZINE_MAX, MAGAZINE_MIN, MAGAZINES,
    OBJECT_BYTES, PAGE_BYTES, SLOT_BYTES, SLOTS_MAX, SLOTS_MIN, SMALL_MAX_BYTES, SPAN_BYTES_GOAL,
    STEP_BYTES, STEPS, TINY_BLOCK_BYTES, TWICE_FROM_BYTES,
};
#[cfg(feature = "preload")]
use super::{DIRECT, malloc_align};

/// The slot size of each class, by Go's procedure (`mksizeclasses.go`).
///
/// Candidate sizes step by an eighth of the last power of two (at least 8, at most 256 bytes). For
/// each, a span of whole pages with a tail waste of at most an eighth is found. Neighbours that put
/// the same number of slots into the same span are merged, and at last each size is raised as far
/// as the number of slots in its span allows.
pub(super) const fn slot_sizes() -> [usize; CLASSES] {
    let mut sizes = [0; CLASSES];
    let mut spans = [0; CLASSES];
    let mut last = 0;
    let mut step = 8;
    let mut size = 8;
    while size <= SMALL_MAX_BYTES {
        if size.is_power_of_two() && size >= 32 {
            step = match size {
                2048.. => 256,
                128.. => size / 8,
                _ => 16,
            };
        }
        let span = span_with_small_tail(size, PAGE_BYTES);
        if last == 0 || span != spans[last] || span / size != span / sizes[last] {
            last += 1;
        }
        sizes[last] = size;
        spans[last] = span;
        size += step;
    }
    assert!(last + 1 == CLASSES);
    let mut class = 1;
    while class < CLASSES {
        let raised = (spans[class] / (spans[class] / sizes[class])) & !(STEP_BYTES - 1);
        if raised > sizes[class] {
            sizes[class] = raised;
        }
        class += 1;
    }
    sizes
}

/// Bytes of the smallest span of at least `from` bytes whose tail waste is at most an eighth.
const fn span_with_small_tail(slot_bytes: usize, from: usize) -> usize {
    let mut span = from;
    while span % slot_bytes > span / 8 {
        span += PAGE_BYTES;
    }
    span
}

/// Bytes of a span of slots of `slot_bytes`.
const fn span_bytes(slot_bytes: usize) -> usize {
    let goal = if slot_bytes * SLOTS_MAX < SPAN_BYTES_GOAL {
        slot_bytes * SLOTS_MAX
    } else if slot_bytes * SLOTS_MIN > SPAN_BYTES_GOAL {
        (slot_bytes * SLOTS_MIN).next_multiple_of(PAGE_BYTES)
    } else {
        SPAN_BYTES_GOAL
    };
    span_with_small_tail(slot_bytes, goal)
}

pub(super) const fn geometry_table() -> [Geometry; CLASSES + 1] {
    let none = Geometry {
        slot_bytes: 0,
        span_pages: 0,
        slots: 0,
        reciprocal: 0,
        bucket_scale: 0,
    };
    let mut table = [none; CLASSES + 1];
    let mut class = 1;
    while class <= CLASSES {
        let slot_bytes = if class == CLASSES {
            TINY_BLOCK_BYTES
        } else {
            SLOT_BYTES[class]
        };
        let bytes = span_bytes(slot_bytes);
        let slots = bytes / slot_bytes;
        assert!(slots >= SLOTS_MIN && slots <= SLOTS_MAX && bytes.is_multiple_of(PAGE_BYTES));
        table[class] = Geometry {
            slot_bytes: slot_bytes as u32,
            span_pages: (bytes / PAGE_BYTES) as u32,
            slots: slots as u32,
            reciprocal: (1_u64 << 32).div_ceil(slot_bytes as u64) as u32,
            bucket_scale: (1 << 19) / slots as u32,
        };
        class += 1;
    }
    table
}

pub(super) const fn object_sizes() -> [u16; MAGAZINES] {
    let mut table = [0; MAGAZINES];
    let mut class = 1;
    while class < MAGAZINES {
        let bytes = if class < CLASSES {
            SLOT_BYTES[class]
        } else {
            1 << (class - CLASSES)
        };
        table[class] = bytes as u16;
        class += 1;
    }
    table
}

pub(super) const fn magazine_table() -> [u16; MAGAZINES] {
    let mut table = [0; MAGAZINES];
    let mut class = 1;
    while class < MAGAZINES {
        let object_bytes = OBJECT_BYTES[class] as usize;
        let bytes = if object_bytes < TWICE_FROM_BYTES {
            MAGAZINE_BYTES
        } else {
            2 * MAGAZINE_BYTES
        };
        let fit = bytes / object_bytes;
        table[class] = match fit {
            ..MAGAZINE_MIN => MAGAZINE_MIN as u16,
            MAGAZINE_MAX.. => MAGAZINE_MAX as u16,
            _ => fit as u16,
        };
        class += 1;
    }
    table
}

/// The class of each size, at the index of its last byte.
pub(super) const fn direct_table() -> [u8; DIRECT_BYTES] {
    let mut table = [0; DIRECT_BYTES];
    let mut class = 1;
    let mut size = 1;
    while size <= DIRECT_BYTES {
        while SLOT_BYTES[class] < size {
            class += 1;
        }
        table[size - 1] = match size {
            1 => CLASSES as u8,
            2 => CLASSES as u8 + 1,
            3 | 4 => CLASSES as u8 + 2,
            _ => class as u8,
        };
        size += 1;
    }
    table
}

/// As [`direct_table`], at the alignment that C's `malloc` promises.
#[cfg(feature = "preload")]
pub(super) const fn malloc_table() -> [u8; DIRECT_BYTES] {
    let mut table = [0; DIRECT_BYTES];
    let mut last = 0;
    while last < DIRECT_BYTES {
        table[last] = DIRECT[last | (malloc_align(last + 1) - 1)];
        last += 1;
    }
    table
}

/// The class of the largest size of each step.
pub(super) const fn stepped_table() -> [u8; STEPS] {
    let mut table = [0; STEPS];
    let mut class = 1;
    let mut step = 0;
    while step < table.len() {
        while SLOT_BYTES[class] < (step + 1) * STEP_BYTES {
            class += 1;
        }
        table[step] = class as u8;
        step += 1;
    }
    table
}
