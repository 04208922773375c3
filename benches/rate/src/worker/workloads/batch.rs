//! Batches of objects that are freed in several orders, while some are kept longer.
//!
//! After the published descriptions of MicroQuill's SmartHeap benchmarks, sh6bench and sh8bench, as
//! in the papers on mimalloc and its benchmark suite: most objects are small, some are freed last
//! in, first out, others first in, first out; in sh8bench several threads do so, and free objects of
//! others. Neither program may be copied: these are written from the descriptions.

use std::sync::Mutex;

use super::Workload;
use super::object::{Object, array};
use super::shared::together;
use crate::random::Random;

/// The most objects of a batch.
const BATCH: usize = 2000;
/// Objects that a thread keeps beyond their batch.
const KEPT: usize = 4000;
/// One of so many objects of a batch is exchanged for a kept one.
const EXCHANGED_ONE_OF: usize = 8;

pub const SH6BENCH: Workload = Workload::in_one_thread(
    "sh6bench",
    "batches of mostly small objects up to 1,000 B, freed in several orders (after sh6bench)",
    "allocation and free of one object",
    |size, meter| {
        let kept = [Mutex::new(array(KEPT, Object::NONE))];
        let batch = array(BATCH, Object::NONE);
        let operations = size.of(75_000_000);
        meter.run(|| batches(0, batch, &kept, operations));
        free_kept(kept);
    },
);

pub const SH8BENCH: Workload = Workload {
    name: "sh8bench",
    about: "such batches in threads, each of which frees objects of all (after sh8bench)",
    operation: "allocation and free of one object",
    threads: 2,
    threads_can_be_chosen: true,
    run: |size, meter| {
        let kept = (0..size.threads).map(|_| Mutex::new(array(KEPT, Object::NONE)));
        let kept: Vec<_> = kept.collect();
        let of_threads = (0..size.threads)
            .map(|_| array(BATCH, Object::NONE))
            .collect();
        let operations = size.of(80_000_000) / size.threads as u64;
        meter.run(|| {
            together(of_threads, |thread, batch| {
                batches(thread, batch, &kept, operations)
            })
        });
        free_kept(kept);
    },
};

/// What one thread exchanges its objects for: each thread uses all of them, one after the other.
type Kept = Mutex<&'static mut [Object]>;

/// The work of one thread; returns the number of its operations, at least as many as are asked for.
fn batches(thread: usize, batch: &mut [Object], kept: &[Kept], operations: u64) -> u64 {
    let mut random = Random::new(31 + thread as u64);
    let mut done = 0;
    let mut turn = thread;
    while done < operations {
        let batch = &mut batch[..1 + random.below(BATCH)];
        for object in batch.iter_mut() {
            *object = Object::new(skewed_size(&mut random));
        }
        let mut kept = kept[turn % kept.len()].lock().unwrap();
        exchange(batch, &mut kept, &mut random);
        drop(kept);
        free(batch, &mut random);
        done += batch.len() as u64;
        turn += 1;
    }
    done
}

fn free_kept(kept: impl IntoIterator<Item = Kept>) {
    for kept in kept {
        Object::free_all(kept.into_inner().unwrap());
    }
}

/// 1 to 1,000 bytes: half of the objects are below 70 bytes.
fn skewed_size(random: &mut Random) -> usize {
    let mut factor = || random.below(1000);
    1 + factor() * factor() * factor() / 1_000_000
}

/// Exchanges some of the objects for random ones that were kept.
fn exchange(batch: &mut [Object], kept: &mut [Object], random: &mut Random) {
    let first = random.below(EXCHANGED_ONE_OF);
    for object in batch.iter_mut().skip(first).step_by(EXCHANGED_ONE_OF) {
        std::mem::swap(object, &mut kept[random.below(KEPT)]);
    }
}

/// Frees a batch: oldest first, newest first, or every other one on the way up and the rest on the way
/// down.
fn free(batch: &[Object], random: &mut Random) {
    match random.below(3) {
        0 => batch.iter().for_each(|object| object.free()),
        1 => batch.iter().rev().for_each(|object| object.free()),
        _ => {
            batch.iter().step_by(2).for_each(|object| object.free());
            batch
                .iter()
                .skip(1)
                .step_by(2)
                .rev()
                .for_each(|object| object.free());
        }
    }
}
