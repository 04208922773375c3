//! Operations on the heap and its shadow, as data: the test makes them by `proptest`, the fuzzer
//! from bytes.

/// Bytes from which only the ends of an object are touched: those objects have mappings of their
/// own, and memory that is never touched costs nothing.
pub const HUGE_FROM_BYTES: usize = 64 << 20;

/// What the helper thread does with objects that it is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Free,
    /// Resizes them and hands them back.
    Realloc {
        new_size: usize,
    },
}

/// An operation. Objects are named by any number, taken modulo the number of live ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Allocates up to `count` objects; fewer if they are large.
    Alloc {
        size: usize,
        align: usize,
        count: usize,
    },
    AllocZeroed {
        size: usize,
        align: usize,
    },
    /// Frees up to `count` objects, of any age.
    Free {
        index: usize,
        count: usize,
    },
    Realloc {
        index: usize,
        new_size: usize,
    },
    /// Hands up to `count` objects to a helper thread. Without `wait` both threads go on at once.
    Handoff {
        index: usize,
        count: usize,
        helper: usize,
        then: Then,
        wait: bool,
    },
    /// A helper thread ends; the next hand-off to it starts a new one.
    ThreadExit {
        helper: usize,
    },
    Trim,
}

/// Sizes at which something changes: the largest tiny ones, size classes of various steps, the end
/// of the direct table, the last class, pages, the run cache's longest run, and 4 MiB.
const BORDERS: [usize; 24] = [
    1,
    2,
    4,
    8,
    16,
    24,
    32,
    48,
    128,
    144,
    256,
    480,
    1024,
    1152,
    2048,
    4864,
    8192,
    18432,
    27264,
    32768,
    40960,
    64 << 13,
    65 << 13,
    4 << 20,
];

/// A size from two arbitrary numbers, at least 1: log-uniform below 4 MiB, in 3 of 8 cases at a
/// border or next to it, in one of 256 huge.
pub fn size(shape: u8, number: u32) -> usize {
    let number = number as usize;
    match shape {
        255 => HUGE_FROM_BYTES + number % (16 << 20),
        // Below the border, at it, and above.
        160..255 => (BORDERS[number % BORDERS.len()] + usize::from(shape) % 3)
            .saturating_sub(1)
            .max(1),
        _ => {
            let power = 1 << (shape % 22);
            power + number % power
        }
    }
}

/// An alignment from an arbitrary number: often one of those that every class has, up to 1 MiB.
pub fn align(shape: u8) -> usize {
    match shape {
        250..=255 => 1 << (shape - 250 + 15),
        200..250 => 1 << (shape % 15),
        _ => 1 << (shape % 5),
    }
}
