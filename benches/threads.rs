//! Two threads: objects handed from one to the other, and both busy with the same size class. Times
//! are for one round, throughputs in objects; the start of the threads is part of a sample, which
//! has many rounds.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Instant;

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};

mod common;

use common::{Object, Work, compare, free_all, layout};

/// Objects that one thread hands to the other at once.
const BATCH_COUNT: usize = 256;
/// Batches on their way.
const QUEUED_BATCHES: usize = 8;
/// Objects of a round of each thread in `two_threads_bulk`.
const BULK_COUNT: usize = 10_000;

/// One thread allocates, the other frees. A round is a batch.
struct Handover(Layout);

impl Work for Handover {
    fn run<A: GlobalAlloc + Sync>(&self, allocator: &'static A, bencher: &mut Bencher<'_>) {
        bencher.iter_custom(|rounds| {
            let start = Instant::now();
            thread::scope(|scope| {
                // Emptied batches go back, so that the channels allocate nothing in the rounds.
                let (full, to_free) = sync_channel::<Vec<Object>>(QUEUED_BATCHES);
                let (empty, to_fill) = sync_channel::<Vec<Object>>(QUEUED_BATCHES);
                for _ in 0..QUEUED_BATCHES {
                    empty
                        .send(Vec::with_capacity(BATCH_COUNT))
                        .expect("the receiver lives");
                }
                scope.spawn(move || {
                    for mut batch in to_fill.iter().take(rounds as usize) {
                        let layouts = (0..BATCH_COUNT).map(|_| black_box(self.0));
                        batch.extend(layouts.map(|layout| Object::new(allocator, layout)));
                        full.send(batch).expect("the consumer takes all batches");
                    }
                });
                for mut batch in to_free {
                    free_all(allocator, batch.drain(..));
                    // The producer is gone after the last round.
                    let _ = empty.send(batch);
                }
            });
            start.elapsed()
        });
    }
}

fn producer_to_consumer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("producer_to_consumer");
    group.throughput(Throughput::Elements(BATCH_COUNT as u64));
    for size in [64, 1024] {
        compare(&mut group, size, &Handover(layout(size)));
    }
    group.finish();
}

/// Both threads allocate many objects of one class and free them in order. A round is both threads'.
struct Bulk(Layout);

impl Work for Bulk {
    fn run<A: GlobalAlloc + Sync>(&self, allocator: &'static A, bencher: &mut Bencher<'_>) {
        let work = |rounds: u64| {
            let mut objects = Vec::with_capacity(BULK_COUNT);
            for _ in 0..rounds {
                let layouts = (0..BULK_COUNT).map(|_| black_box(self.0));
                objects.extend(layouts.map(|layout| Object::new(allocator, layout)));
                free_all(allocator, objects.drain(..));
            }
        };
        bencher.iter_custom(|rounds| {
            let start = Instant::now();
            thread::scope(|scope| {
                scope.spawn(|| work(rounds));
                work(rounds);
            });
            start.elapsed()
        });
    }
}

fn two_threads_bulk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("two_threads_bulk");
    group.throughput(Throughput::Elements(2 * BULK_COUNT as u64));
    for size in [16, 64, 1024] {
        compare(&mut group, size, &Bulk(layout(size)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::config();
    targets = producer_to_consumer, two_threads_bulk
}
criterion_main!(benches);
