//! Reallocation: vectors and strings that grow.
//!
//! The growth is what collections do: Rust's and GCC's double, Facebook's folly and MSVC's take one
//! and a half. A large object may grow in place, or by moving its pages (`mremap`), or by copying.

use super::object::{Object, array};
use super::{Size, Workload};
use crate::measure::Meter;
use crate::random::Random;

pub const REALLOC_GROWTH: Workload = Workload::in_one_thread(
    "realloc-growth",
    "8 vectors grow from 16 B to 8 MiB, half of them twofold, the others by 1.5, in random turns",
    "one reallocation, allocation or free",
    growth,
);

pub const REALLOC_SMALL: Workload = Workload::in_one_thread(
    "realloc-small",
    "a random one of 1,000 objects gets another size, 16 B to 4 KiB",
    "one reallocation",
    small,
);

const VECTORS: usize = 8;
const FIRST_BYTES: usize = 16;
const LAST_BYTES: usize = 8 << 20;

/// A vector of the last size gives way to a fresh one.
fn growth(size: &Size, meter: &mut Meter) {
    let turns = size.of(36_000);
    let vectors = array(VECTORS, Object::NONE);
    let mut random = Random::new(51);
    for vector in vectors.iter_mut() {
        *vector = Object::new(FIRST_BYTES);
    }
    meter.run(|| {
        let mut operations = 0;
        for _ in 0..turns {
            let number = random.below(VECTORS);
            let vector = &mut vectors[number];
            let full = vector.size();
            if full == LAST_BYTES {
                vector.free();
                *vector = Object::new(FIRST_BYTES);
                operations += 2;
                continue;
            }
            let doubles = number < VECTORS / 2;
            let wanted = if doubles { full * 2 } else { full + full / 2 };
            vector.resize(wanted.min(LAST_BYTES));
            vector.touch_pages(full);
            operations += 1;
        }
        operations
    });
    Object::free_all(vectors);
}

fn small(size: &Size, meter: &mut Meter) {
    let operations = size.of(25_000_000);
    let slots = array(1000, Object::NONE);
    let mut random = Random::new(52);
    for slot in slots.iter_mut() {
        *slot = Object::new(random.size(4, 12));
    }
    meter.run(|| {
        for _ in 0..operations {
            slots[random.below(slots.len())].resize(random.size(4, 12));
        }
        operations
    });
    Object::free_all(slots);
}
