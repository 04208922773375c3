//! Larson's server simulation.
//!
//! After Larson and Krishnan, "Memory Allocation for Long-Running Server Applications" (ISMM 1998):
//! each thread replaces random objects in its slots, as a server replaces sessions, then starts a
//! successor, hands it the slots, and ends. So objects outlive the threads that allocated them, and
//! most threads free objects of one that is gone.

use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::Workload;
use super::object::{Object, array};
use super::shared::AbortOnPanic;
use crate::measure::Meter;
use crate::random::Random;

/// Slots of a thread.
const SLOTS: usize = 1000;
/// Objects that a thread replaces before it ends.
const REPLACED_BY_THREAD: u64 = 100 * SLOTS as u64;

const fn larson(name: &'static str, threads: usize, threads_can_be_chosen: bool) -> Workload {
    Workload {
        name,
        about: "threads replace random objects of 8 B to 512 B and hand them to successors (Larson)",
        operation: "free and allocation of one object",
        threads,
        threads_can_be_chosen,
        run: |size, meter| servers(size.threads, size.of(80_000_000), meter),
    }
}

pub const LARSON_2: Workload = larson("larson-2", 2, false);
pub const LARSON_16: Workload = larson("larson-16", 16, true);

fn servers(threads: usize, operations: u64, meter: &mut Meter) {
    let slots = array(threads * SLOTS, Object::NONE);
    let mut random = Random::new(3);
    for slot in slots.iter_mut() {
        *slot = Object::new(object_size(&mut random));
    }
    // The first threads find objects of one after the other in no order.
    for last in (1..slots.len()).rev() {
        slots.swap(last, random.below(last + 1));
    }
    let left = operations / threads as u64;
    let (done, ends) = channel();
    let servers: Vec<_> = slots
        .chunks_mut(SLOTS)
        .enumerate()
        .map(|(number, slots)| Server {
            slots,
            random: Random::new(300 + number as u64),
            left,
            done: done.clone(),
        })
        .collect();
    meter.run(|| {
        for server in servers {
            thread::spawn(|| server.serve());
        }
        for _ in 0..threads {
            for slot in ends
                .recv()
                .expect("the last thread of a line sends its slots")
            {
                slot.free();
            }
        }
        left * threads as u64
    });
}

/// What a thread hands to its successor.
struct Server {
    slots: &'static mut [Object],
    random: Random,
    /// Objects that this line of threads has to replace yet.
    left: u64,
    done: Sender<&'static mut [Object]>,
}

impl Server {
    fn serve(mut self) {
        let _abort = AbortOnPanic;
        let now = self.left.min(REPLACED_BY_THREAD);
        for _ in 0..now {
            let slot = &mut self.slots[self.random.below(SLOTS)];
            slot.free();
            *slot = Object::new(object_size(&mut self.random));
        }
        self.left -= now;
        if self.left > 0 {
            thread::spawn(|| self.serve());
        } else {
            self.done
                .send(self.slots)
                .expect("the main thread waits for the slots");
        }
    }
}

fn object_size(random: &mut Random) -> usize {
    8 + random.below(512 - 8 + 1)
}
