//! Objects of whole pages, objects that grow, and zeroed ones, in one thread. Times are for one
//! allocation and its free, in `realloc_growth` for one object's whole growth.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};

mod common;

use common::{Numbers, Object, Work, compare, free_all, layout};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Replaces objects of 32 to 256 KiB, chosen at random. Their pages are written only at the start.
struct Replacement {
    slots: usize,
}

impl Work for Replacement {
    fn run<A: GlobalAlloc + Sync>(&self, allocator: &'static A, bencher: &mut Bencher<'_>) {
        let mut numbers = Numbers::new();
        let new = |numbers: &mut Numbers| {
            Object::new(allocator, layout(32 * KIB + 1 + numbers.below(224 * KIB)))
        };
        let mut objects: Vec<Object> = (0..self.slots).map(|_| new(&mut numbers)).collect();
        bencher.iter(|| {
            let slot = numbers.below(self.slots);
            std::mem::replace(&mut objects[slot], new(&mut numbers)).free(allocator);
        });
        free_all(allocator, objects);
    }
}

fn large(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("large_32_to_256_kib");
    for slots in [1, 100] {
        compare(&mut group, format!("{slots}_slots"), &Replacement { slots });
    }
    group.finish();
}

/// Doubles an object until it has so many bytes, writing what is added: a `Vec` that is pushed to.
struct Growth {
    to_bytes: usize,
}

impl Work for Growth {
    fn run<A: GlobalAlloc + Sync>(&self, allocator: &'static A, bencher: &mut Bencher<'_>) {
        bencher.iter(|| {
            let mut size = 8;
            let mut object = Object::new(allocator, black_box(layout(size)));
            while size < self.to_bytes {
                size *= 2;
                object.grow(allocator, size);
            }
            object.free(allocator);
        });
    }
}

fn realloc_growth(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("realloc_growth");
    for to_bytes in [4 * KIB, 64 * KIB, MIB, 32 * MIB] {
        group.throughput(Throughput::Bytes(to_bytes as u64));
        compare(
            &mut group,
            format!("{}_kib", to_bytes / KIB),
            &Growth { to_bytes },
        );
    }
    group.finish();
}

/// Allocates zeroed memory and frees it.
struct Zeroed(Layout);

impl Work for Zeroed {
    fn run<A: GlobalAlloc + Sync>(&self, allocator: &'static A, bencher: &mut Bencher<'_>) {
        bencher.iter(|| Object::zeroed(allocator, black_box(self.0)).free(allocator));
    }
}

fn zeroed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("zeroed");
    for size in [16, 64, 512, 4 * KIB, 32 * KIB, 256 * KIB, 4 * MIB] {
        group.throughput(Throughput::Bytes(size as u64));
        compare(&mut group, size, &Zeroed(layout(size)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = common::config();
    targets = large, realloc_growth, zeroed
}
criterion_main!(benches);
