//! Threads that live shortly.
//!
//! The cost of a thread's first and last use of the allocator, as in programs that start a thread for
//! each request. Some objects of a thread are freed by the next one, when the thread is gone.

use std::thread;

use super::Workload;
use super::object::{Object, array};
use super::shared::{AbortOnPanic, together};
use crate::measure::Meter;
use crate::random::Random;

/// Objects that a thread allocates.
const OBJECTS: usize = 50;

pub const THREAD_CHURN: Workload = Workload {
    name: "thread-churn",
    about: "threads that allocate 50 objects of 8 B to 2 KiB each, and free those that the one before left",
    operation: "one thread, from start to end",
    threads: 2,
    threads_can_be_chosen: false,
    run: |size, meter| churn(size.threads, size.of(20_000), meter),
};

/// In each of `lines`, threads run one after the other.
fn churn(lines: usize, threads: u64, meter: &mut Meter) {
    let slots = array(lines * OBJECTS, Object::NONE);
    let threads_of_line = threads / lines as u64;
    meter.run(|| {
        together(slots.chunks_mut(OBJECTS).collect(), |line, slots| {
            let mut random = Random::new(400 + line as u64);
            for _ in 0..threads_of_line {
                thread::scope(|scope| {
                    let thread = scope.spawn(|| live_shortly(slots, &mut random));
                    thread.join().expect("a thread panicked");
                });
            }
            threads_of_line
        })
    });
    for slot in slots {
        slot.free();
    }
}

/// Replaces all objects, and frees half of its own.
fn live_shortly(slots: &mut [Object], random: &mut Random) {
    let _abort = AbortOnPanic;
    for slot in slots.iter_mut() {
        slot.free();
        *slot = Object::new(random.size(3, 11));
    }
    for slot in slots.iter_mut().step_by(2) {
        slot.free();
        *slot = Object::NONE;
    }
}
