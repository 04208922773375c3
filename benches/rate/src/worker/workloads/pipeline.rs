//! Objects that one thread allocates and another one frees, passed through queues in batches.
//!
//! The shape of servers and of stages that work one after the other: every free is one of another
//! thread's object. `xmalloc-test` is after malloc-test (Lever and Boreham, "malloc() Performance in
//! a Multithreaded Linux Environment", USENIX 2000) in the form that is known as xmalloc-test, where
//! a batch is an object too.

use super::object::Object;
use super::shared::{Queue, together};
use super::{Size, Workload};
use crate::measure::Meter;
use crate::random::Random;

/// Objects in a batch of the pipelines.
const BATCH: usize = 128;
/// Batches in a queue at most.
const BATCHES_MAX: usize = 32;

const fn pipeline(
    name: &'static str,
    about: &'static str,
    threads: usize,
    run: fn(&Size, &mut Meter),
) -> Workload {
    Workload {
        name,
        about,
        operation: "one object allocated, passed and freed",
        threads,
        threads_can_be_chosen: false,
        run,
    }
}

pub const PAIRS_1: Workload = pipeline(
    "pairs-1",
    "a thread allocates objects of 8 B to 1 KiB and another one frees them",
    2,
    |size, meter| pipelines(1, 1, 1, size.of(25_000_000), meter),
);
pub const PAIRS_8: Workload = pipeline(
    "pairs-8",
    "eight pairs of threads: one allocates objects of 8 B to 1 KiB, the other frees them",
    16,
    |size, meter| pipelines(8, 1, 1, size.of(30_000_000), meter),
);
pub const ONE_TO_MANY: Workload = pipeline(
    "one-to-many",
    "a thread allocates objects of 8 B to 1 KiB and four threads free them",
    5,
    |size, meter| pipelines(1, 1, 4, size.of(20_000_000), meter),
);
pub const MANY_TO_ONE: Workload = pipeline(
    "many-to-one",
    "four threads allocate objects of 8 B to 1 KiB and one frees them",
    5,
    |size, meter| pipelines(1, 4, 1, size.of(20_000_000), meter),
);
pub const XMALLOC_TEST: Workload = pipeline(
    "xmalloc-test",
    "two threads fill large batches with objects, two free them and the batches (Lever and Boreham)",
    4,
    |size, meter| xmalloc_test(size.of(30_000_000), meter),
);

/// What a thread of a pipeline does.
enum Role<'a, T> {
    Produce(&'a Queue<T>),
    Consume(&'a Queue<T>),
}

/// Threads for each queue, which produce or consume.
fn roles<T>(queues: &[Queue<T>], producers: usize, consumers: usize) -> Vec<Role<'_, T>> {
    let roles_of = |queue| {
        let produce = (0..producers).map(move |_| Role::Produce(queue));
        produce.chain((0..consumers).map(move |_| Role::Consume(queue)))
    };
    queues.iter().flat_map(roles_of).collect()
}

/// `lines` queues that share nothing, each with its producers and consumers.
fn pipelines(lines: usize, producers: usize, consumers: usize, objects: u64, meter: &mut Meter) {
    let queues: Vec<_> = (0..lines)
        .map(|_| Queue::new(BATCHES_MAX, producers))
        .collect();
    let batches = objects / (lines * producers * BATCH) as u64;
    let roles = roles(&queues, producers, consumers);
    let total = batches * (lines * producers * BATCH) as u64;
    meter.run(|| {
        let freed = together(roles, |number, role| match role {
            Role::Produce(queue) => {
                let mut random = Random::new(100 + number as u64);
                for _ in 0..batches {
                    queue.push([(); BATCH].map(|()| Object::new(random.size(3, 10))));
                }
                queue.done();
                0
            }
            Role::Consume(queue) => {
                let mut freed = 0;
                while let Some(batch) = queue.pop() {
                    batch.into_iter().for_each(Object::free);
                    freed += BATCH as u64;
                }
                freed
            }
        });
        assert_eq!(freed, total, "objects were lost");
        freed
    });
}

/// Sizes of `xmalloc-test`: mostly small, one of twelve large.
const SIZES: [usize; 12] = [8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 2048];
/// Objects in a batch of `xmalloc-test`.
const XMALLOC_BATCH: usize = 4096;
/// Batches in the queue of `xmalloc-test` at most.
const XMALLOC_BATCHES_MAX: usize = 8;

fn xmalloc_test(objects: u64, meter: &mut Meter) {
    const ALLOCATORS: u64 = 2;
    let queues = [Queue::new(XMALLOC_BATCHES_MAX, ALLOCATORS as usize)];
    let batches = (objects / (ALLOCATORS * XMALLOC_BATCH as u64)).max(1);
    let roles = roles(&queues, ALLOCATORS as usize, 2);
    meter.run(|| {
        let freed = together(roles, |number, role| match role {
            Role::Produce(queue) => {
                let mut random = Random::new(200 + number as u64);
                for _ in 0..batches {
                    let mut batch = Vec::with_capacity(XMALLOC_BATCH);
                    let sizes = (0..XMALLOC_BATCH).map(|_| SIZES[random.below(SIZES.len())]);
                    batch.extend(sizes.map(Object::new));
                    queue.push(batch);
                }
                queue.done();
                0
            }
            Role::Consume(queue) => {
                let mut freed = 0;
                while let Some(batch) = queue.pop() {
                    freed += batch.len() as u64;
                    batch.into_iter().for_each(Object::free);
                }
                freed
            }
        });
        assert_eq!(
            freed,
            batches * ALLOCATORS * XMALLOC_BATCH as u64,
            "objects were lost"
        );
        freed
    });
}
