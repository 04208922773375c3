//! The fast paths: few objects, or one, that are freed soon after they were allocated.
//!
//! Ping-pong is the usual first micro-benchmark of an allocator, and the queue the second. The tiny
//! objects are what Go's tiny allocator is for: requests below a word, of which programs have many.

use std::hint::black_box;

use super::object::{Object, array};
use super::{Size, Workload};
use crate::measure::Meter;
use crate::random::Random;

pub const PING_PONG: Workload = Workload::in_one_thread(
    "ping-pong",
    "one object of 64 B is allocated and freed, again and again",
    "allocation and free of one object",
    ping_pong,
);

pub const TINY: Workload = Workload::in_one_thread(
    "tiny",
    "a random one of 1,000,000 objects of 1, 2, 4 or 8 B is replaced, after Go's tiny allocator",
    "free and allocation of one object",
    tiny,
);

pub const FIFO: Workload = Workload::in_one_thread(
    "fifo",
    "a queue of 1,000 objects of 8 B to 2 KiB, of which the oldest is replaced",
    "free and allocation of one object",
    fifo,
);

fn ping_pong(size: &Size, meter: &mut Meter) {
    let operations = size.of(250_000_000);
    let bytes = black_box(64);
    meter.run(|| {
        for _ in 0..operations {
            let object = Object::new(bytes);
            black_box(object);
            object.free();
        }
        operations
    });
}

fn tiny(size: &Size, meter: &mut Meter) {
    let operations = size.of(15_000_000);
    let slots = array(1_000_000, Object::NONE);
    let mut random = Random::new(13);
    let mut make = move || {
        let bytes = 1 << random.below(4);
        Object::aligned(bytes, bytes)
    };
    for slot in slots.iter_mut() {
        *slot = make();
    }
    let mut random = Random::new(14);
    meter.run(|| {
        for _ in 0..operations {
            let slot = &mut slots[random.below(slots.len())];
            slot.free_aligned(slot.size());
            *slot = make();
        }
        operations
    });
    Object::check_apart(slots);
    for slot in slots {
        slot.free_aligned(slot.size());
    }
}

fn fifo(size: &Size, meter: &mut Meter) {
    let rounds = size.of(120_000);
    let queue = array(1000, Object::NONE);
    let mut random = Random::new(15);
    for slot in queue.iter_mut() {
        *slot = Object::new(random.size(3, 11));
    }
    meter.run(|| {
        for _ in 0..rounds {
            for slot in queue.iter_mut() {
                slot.free();
                *slot = Object::new(random.size(3, 11));
            }
        }
        rounds * queue.len() as u64
    });
    Object::free_all(queue);
}
