//! Large objects, which an allocator takes from its pages or from the system.
//!
//! Buffers of files, frames and matrices: what counts is what the allocator returns to the system,
//! and when. In the manner of `malloc-large` of mimalloc-bench. The sizes are spread evenly over the
//! powers of two.

use super::object::{Object, array};
use super::{Size, Workload};
use crate::measure::Meter;
use crate::random::Random;

const fn large(name: &'static str, about: &'static str, run: fn(&Size, &mut Meter)) -> Workload {
    Workload::in_one_thread(name, about, "free and allocation of one object", run)
}

pub const LARGE: Workload = large(
    "large",
    "a random one of 64 objects of 32 to 256 KiB is replaced, and each of its pages written",
    |size, meter| {
        replace(64, size.of(2_500_000), meter, |random| {
            let object = Object::untouched(random.size(15, 18));
            object.touch_pages(0);
            object
        });
    },
);

pub const LARGE_UNTOUCHED: Workload = large(
    "large-untouched",
    "a random one of 64 objects of 32 to 256 KiB is replaced, and none is written",
    large_untouched,
);

pub const HUGE: Workload = large(
    "huge",
    "a random one of 8 objects of 1 to 128 MiB is replaced, and a byte of each page written",
    |size, meter| {
        replace(8, size.of(120), meter, |random| {
            let object = Object::untouched(random.size(20, 27));
            object.touch_pages(0);
            object
        });
    },
);

pub const ZEROED: Workload = large(
    "zeroed",
    "a random one of 256 zeroed objects of 64 B to 1 MiB is replaced, each page read and written",
    |size, meter| {
        replace(256, size.of(100_000), meter, |random| {
            let object = Object::zeroed(random.size(6, 20));
            object.touch_pages(0);
            object
        });
    },
);

pub const OVER_ALIGNED: Workload = large(
    "over-aligned",
    "a random one of 10,000 objects of 32 B to 8 KiB, aligned to 16 B to 4 KiB, is replaced",
    over_aligned,
);

/// Replaces random ones of as many objects as there are slots.
fn replace(slots: usize, operations: u64, meter: &mut Meter, make: impl Fn(&mut Random) -> Object) {
    let slots = array(slots, Object::NONE);
    let mut random = Random::new(41);
    for slot in slots.iter_mut() {
        *slot = make(&mut random);
    }
    meter.run(|| {
        for _ in 0..operations {
            let slot = &mut slots[random.below(slots.len())];
            slot.free();
            *slot = make(&mut random);
        }
        operations
    });
    Object::free_all(slots);
}

/// The objects have no stamp: where they lie is checked.
fn large_untouched(size: &Size, meter: &mut Meter) {
    let operations = size.of(8_000_000);
    let slots = array(64, Object::NONE);
    let mut random = Random::new(42);
    for slot in slots.iter_mut() {
        *slot = Object::untouched(random.size(15, 18));
    }
    meter.run(|| {
        for _ in 0..operations {
            let slot = &mut slots[random.below(slots.len())];
            slot.free_unread();
            *slot = Object::untouched(random.size(15, 18));
        }
        operations
    });
    Object::check_apart(slots);
    for slot in slots {
        slot.free_unread();
    }
}

/// An object and its alignment.
#[derive(Clone, Copy)]
struct Aligned {
    object: Object,
    align: usize,
}

impl Aligned {
    fn random(random: &mut Random) -> Self {
        let align = 16 << random.below(9);
        let object = Object::aligned(random.size(5, 13), align);
        assert!(object.is_aligned(align), "an object is not aligned");
        Self { object, align }
    }
}

fn over_aligned(size: &Size, meter: &mut Meter) {
    let operations = size.of(9_000_000);
    let slots = array(
        10_000,
        Aligned {
            object: Object::NONE,
            align: 1,
        },
    );
    let mut random = Random::new(43);
    for slot in slots.iter_mut() {
        *slot = Aligned::random(&mut random);
    }
    meter.run(|| {
        for _ in 0..operations {
            let slot = &mut slots[random.below(slots.len())];
            slot.object.free_aligned(slot.align);
            *slot = Aligned::random(&mut random);
        }
        operations
    });
    for slot in slots {
        slot.object.free_aligned(slot.align);
    }
}
