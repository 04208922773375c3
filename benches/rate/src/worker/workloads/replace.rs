//! Random replacement: objects of mixed sizes in many slots, a random one of which is replaced each
//! time. The steady state of caches and tables; the access pattern of Larson's benchmark in one thread.

use super::object::{Object, array};
use super::{Size, Workload};
use crate::measure::Meter;
use crate::random::Random;

const fn random(name: &'static str, run: fn(&Size, &mut Meter)) -> Workload {
    Workload {
        name,
        about: "a random one of many objects of 8 B to 4 KiB is replaced, again and again",
        operation: "free and allocation of one object",
        threads: 1,
        threads_can_be_chosen: false,
        run,
    }
}

pub const RANDOM_10K: Workload = random("random-10k", |size, meter| {
    replace(10_000, size.of(20_000_000), meter);
});
pub const RANDOM_100K: Workload = random("random-100k", |size, meter| {
    replace(100_000, size.of(20_000_000), meter);
});
pub const RANDOM_1M: Workload = random("random-1m", |size, meter| {
    replace(1_000_000, size.of(10_000_000), meter);
});

fn replace(slots: usize, operations: u64, meter: &mut Meter) {
    let slots = array(slots, Object::NONE);
    meter.run(|| {
        let mut random = Random::new(7);
        for _ in 0..operations {
            let slot = &mut slots[random.below(slots.len())];
            slot.free();
            *slot = Object::new(random.size(3, 12));
        }
        operations
    });
    for slot in slots {
        slot.free();
    }
}
