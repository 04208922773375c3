//! Bulk: many objects of one size are allocated, then all are freed.
//!
//! The phases of a compiler or of a request, and the classic test of free lists: what an allocator
//! leaves after frees in one order decides how the next objects lie in memory. Where objects are not
//! touched, a free that reads or writes the object misses the cache; where they are, the program has
//! paid for the miss already.

use super::object::{Object, array};
use super::{Size, Workload};
use crate::measure::Meter;
use crate::random::Random;

const OBJECTS: usize = 100_000;
const OBJECT_BYTES: usize = 64;

const fn bulk(name: &'static str, about: &'static str, run: fn(&Size, &mut Meter)) -> Workload {
    Workload::in_one_thread(name, about, "allocation and free of one object", run)
}

pub const BULK_IN_ORDER: Workload = bulk(
    "bulk-in-order",
    "100,000 objects of 64 B are allocated, then freed in the same order",
    |size, meter| untouched(size.of(900), order(), meter),
);

pub const BULK_REVERSED: Workload = bulk(
    "bulk-reversed",
    "100,000 objects of 64 B are allocated, then freed in the reversed order",
    |size, meter| {
        let order = order();
        order.reverse();
        untouched(size.of(800), order, meter);
    },
);

pub const BULK_RANDOM: Workload = bulk(
    "bulk-random",
    "100,000 objects of 64 B are allocated, then freed in random order",
    |size, meter| untouched(size.of(300), random_order(), meter),
);

pub const BULK_RANDOM_TOUCHED: Workload = bulk(
    "bulk-random-touched",
    "100,000 objects of 64 B are written, then each is read and freed, in random order",
    |size, meter| touched(size.of(160), random_order(), meter),
);

fn order() -> &'static mut [u32] {
    let order = array(OBJECTS, 0);
    for (place, number) in order.iter_mut().zip(0..) {
        *place = number;
    }
    order
}

fn random_order() -> &'static mut [u32] {
    let order = order();
    Random::new(21).shuffle(order);
    order
}

/// Only the first and the last byte of an object are written, and nothing is read before the free.
/// One more round, which does not count, checks the objects.
fn untouched(rounds: u64, order: &[u32], meter: &mut Meter) {
    let objects = array(OBJECTS, Object::NONE);
    meter.run(|| {
        for _ in 0..rounds {
            for object in objects.iter_mut() {
                *object = Object::new(OBJECT_BYTES);
            }
            for &number in order {
                objects[number as usize].free_unread();
            }
        }
        rounds * OBJECTS as u64
    });
    for object in objects.iter_mut() {
        *object = Object::new(OBJECT_BYTES);
    }
    Object::free_all(objects);
}

fn touched(rounds: u64, order: &[u32], meter: &mut Meter) {
    let objects = array(OBJECTS, Object::NONE);
    meter.run(|| {
        for _ in 0..rounds {
            for (number, object) in objects.iter_mut().enumerate() {
                *object = Object::untouched(OBJECT_BYTES);
                object.fill(number as u8);
            }
            for &number in order {
                let object = objects[number as usize];
                object.check_filled(number as u8);
                object.free_unread();
            }
        }
        rounds * OBJECTS as u64
    });
}
