//! Objects of up to 32 KiB in one thread. Times are for one allocation and its free, but for `bulk`
//! and `tiny`, where they are for all objects of a round; the throughput there is in objects.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{Bencher, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};

mod common;

use common::{Numbers, Object, Work, class_layouts, compare, free_all, layout, unaligned};

/// Objects of a round of `bulk` and `tiny`.
const BULK_COUNT: usize = 10_000;

/// Allocates one object and frees it.
struct PingPong(Layout);

impl Work for PingPong {
    fn run<A: GlobalAlloc + Sync>(&self, allocator: &'static A, bencher: &mut Bencher<'_>) {
        bencher.iter(|| Object::new(allocator, black_box(self.0)).free(allocator));
    }
}

/// The same with a constant Layout.
struct PingPongConstant;

impl Work for PingPongConstant {
    fn run<A: GlobalAlloc + Sync>(&self, allocator: &'static A, bencher: &mut Bencher<'_>) {
        bencher
            .iter(|| Object::new(allocator, const { Layout::new::<[u64; 8]>() }).free(allocator));
    }
}

fn ping_pong(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ping_pong");
    for layout in class_layouts() {
        compare(&mut group, layout.size(), &PingPong(layout));
    }
    compare(&mut group, "constant_64", &PingPongConstant);
    group.finish();
}

/// A queue of objects: each new one replaces the oldest.
struct Fifo {
    queued: usize,
    layout: Layout,
}

impl Work for Fifo {
    fn run<A: GlobalAlloc + Sync>(&self, allocator: &'static A, bencher: &mut Bencher<'_>) {
        let new = || Object::new(allocator, black_box(self.layout));
        let mut queue: Vec<Object> = (0..self.queued).map(|_| new()).collect();
        let mut oldest = 0;
        bencher.iter(|| {
            std::mem::replace(&mut queue[oldest], new()).free(allocator);
            oldest = if oldest + 1 == self.queued {
                0
            } else {
                oldest + 1
            };
        });
        free_all(allocator, queue);
    }
}

fn fifo(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fifo");
    for queued in [100, 5000] {
        compare(
            &mut group,
            queued,
            &Fifo {
                queued,
                layout: layout(64),
            },
        );
    }
    group.finish();
}

/// Allocates many objects, then frees them all in a given order.
struct Bulk {
    layout: Layout,
    order: Vec<usize>,
}

impl Work for Bulk {
    fn run<A: GlobalAlloc + Sync>(&self, allocator: &'static A, bencher: &mut Bencher<'_>) {
        let mut objects: Vec<Option<Object>> = Vec::with_capacity(self.order.len());
        bencher.iter(|| {
            let layouts = self.order.iter().map(|_| black_box(self.layout));
            objects.extend(layouts.map(|layout| Some(Object::new(allocator, layout))));
            free_all(
                allocator,
                self.order.iter().filter_map(|&index| objects[index].take()),
            );
            objects.clear();
        });
    }
}

fn bulk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bulk");
    group.throughput(Throughput::Elements(BULK_COUNT as u64));
    let orders = [
        ("in_order", (0..BULK_COUNT).collect()),
        ("reversed", (0..BULK_COUNT).rev().collect()),
        ("random", Numbers::new().permutation(BULK_COUNT)),
    ];
    for (name, order) in orders {
        compare(
            &mut group,
            name,
            &Bulk {
                layout: layout(64),
                order,
            },
        );
    }
    group.finish();
}

/// Frees an object chosen at random and allocates one of another size in its place.
struct Replacement {
    slots: usize,
}

impl Work for Replacement {
    fn run<A: GlobalAlloc + Sync>(&self, allocator: &'static A, bencher: &mut Bencher<'_>) {
        let mut numbers = Numbers::new();
        let new = |numbers: &mut Numbers| Object::new(allocator, layout(numbers.log_uniform(8, 9)));
        let mut objects: Vec<Object> = (0..self.slots).map(|_| new(&mut numbers)).collect();
        bencher.iter(|| {
            let slot = numbers.below(self.slots);
            std::mem::replace(&mut objects[slot], new(&mut numbers)).free(allocator);
        });
        free_all(allocator, objects);
    }
}

fn random_replacement(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("random_replacement");
    for slots in [10_000, 100_000] {
        compare(&mut group, slots, &Replacement { slots });
    }
    group.finish();
}

/// Objects that a word or less is asked for, one size at a time and all four mixed.
fn tiny(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tiny");
    group.throughput(Throughput::Elements(BULK_COUNT as u64));
    for size in [1, 2, 4, 8, 16] {
        tiny_of(&mut group, &size.to_string(), &[size]);
    }
    tiny_of(&mut group, "1_2_4_8", &[1, 2, 4, 8]);
    group.finish();
}

fn tiny_of(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, sizes: &[usize]) {
    let layouts = sizes.iter().map(|&size| unaligned(size)).collect();
    compare(group, name, &Mixed { layouts });
}

/// Allocates many objects of several Layouts in turn, then frees them in order.
struct Mixed {
    layouts: Vec<Layout>,
}

impl Work for Mixed {
    fn run<A: GlobalAlloc + Sync>(&self, allocator: &'static A, bencher: &mut Bencher<'_>) {
        let mut objects = Vec::with_capacity(BULK_COUNT);
        bencher.iter(|| {
            let layouts = self.layouts.iter().cycle().take(BULK_COUNT);
            objects.extend(layouts.map(|&layout| Object::new(allocator, layout)));
            free_all(allocator, objects.drain(..));
        });
    }
}

criterion_group! {
    name = benches;
    config = common::config();
    targets = ping_pong, fifo, bulk, random_replacement, tiny
}
criterion_main!(benches);
