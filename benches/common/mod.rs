//! What the benches share: two allocators side by side, sizes, and pseudo-random numbers.
//!
//! Each piece of work is measured for [`SpanMalloc`] and [`System`] in the same run, one after the
//! other, by calling `GlobalAlloc`'s methods on both directly. The program's own global allocator is
//! the system's, so criterion's memory does not pass through what is measured.
//!
//! Layouts are passed through `black_box` where a bench is not about constant ones: a program whose
//! Layouts are constants is faster with an allocator that folds them. Every object's first byte is
//! written, as real programs would do at least.

#![allow(dead_code, reason = "each bench uses a part")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Display;
use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{Bencher, BenchmarkGroup, BenchmarkId, Criterion};
use spanmalloc::SpanMalloc;

/// Something to measure, for any allocator.
pub trait Work {
    /// Sets up, measures by one call of the bencher's methods, and frees what is left.
    fn run<A: GlobalAlloc + Sync>(&self, allocator: &'static A, bencher: &mut Bencher<'_>);
}

/// Measures `work` for both allocators; `parameter` tells it from others of its group.
pub fn compare(
    group: &mut BenchmarkGroup<'_, WallTime>,
    parameter: impl Display,
    work: &impl Work,
) {
    group.bench_function(BenchmarkId::new("spanmalloc", &parameter), |bencher| {
        work.run(&SpanMalloc, bencher);
    });
    group.bench_function(BenchmarkId::new("system", &parameter), |bencher| {
        work.run(&System, bencher);
    });
}

/// Few samples of short runs: the benches are many, and what differs here differs by more than the
/// noise that this leaves.
pub fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
}

/// A Layout of `size` bytes, aligned to 8 as most objects of programs are.
pub fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("no size here is near the bound")
}

/// A Layout of `size` bytes without alignment: a request no larger than its size says.
pub fn unaligned(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("no size here is near the bound")
}

/// One live object.
pub struct Object {
    pointer: *mut u8,
    layout: Layout,
}

// SAFETY: an object belongs to who has the value, and both allocators take frees from any thread.
unsafe impl Send for Object {}

impl Object {
    /// Allocates, and writes the first byte.
    #[inline]
    pub fn new<A: GlobalAlloc>(allocator: &A, layout: Layout) -> Self {
        // SAFETY: no bench has a Layout of no bytes.
        Self::written(unsafe { allocator.alloc(layout) }, layout)
    }

    /// Allocates zeroed memory, and writes the first byte.
    #[inline]
    pub fn zeroed<A: GlobalAlloc>(allocator: &A, layout: Layout) -> Self {
        // SAFETY: as in `new`.
        Self::written(unsafe { allocator.alloc_zeroed(layout) }, layout)
    }

    #[inline]
    fn written(pointer: *mut u8, layout: Layout) -> Self {
        assert!(!pointer.is_null(), "out of memory");
        // SAFETY: the object is ours and has at least one byte.
        unsafe { pointer.write(1) };
        Self {
            pointer: black_box(pointer),
            layout,
        }
    }

    /// Grows to `size` bytes, and writes those added.
    #[inline]
    pub fn grow<A: GlobalAlloc>(&mut self, allocator: &A, size: usize) {
        let old = self.layout.size();
        let grown = Layout::from_size_align(size, self.layout.align());
        // SAFETY: the object is live and of this Layout; `size` is not zero and far from the bound.
        let pointer = unsafe { allocator.realloc(self.pointer, self.layout, size) };
        assert!(!pointer.is_null(), "out of memory");
        // SAFETY: the object has `size` bytes.
        unsafe { pointer.add(old).write_bytes(1, size - old) };
        self.pointer = black_box(pointer);
        self.layout = grown.expect("no size here is near the bound");
    }

    /// Frees the object, without looking at it.
    #[inline]
    pub fn free<A: GlobalAlloc>(self, allocator: &A) {
        // SAFETY: live, of this Layout, and given up here.
        unsafe { allocator.dealloc(self.pointer, self.layout) };
    }
}

/// Frees all objects of an iterator.
pub fn free_all<A: GlobalAlloc>(allocator: &A, objects: impl IntoIterator<Item = Object>) {
    objects
        .into_iter()
        .for_each(|object| object.free(allocator));
}

/// The largest request of each size class of `SpanMalloc`, tiny ones included. An object stays where
/// it is exactly as long as its class holds it.
pub fn class_layouts() -> Vec<Layout> {
    const SMALL_MAX_BYTES: usize = 32 << 10;
    let mut layouts = Vec::new();
    let mut object = Object::new(&SpanMalloc, unaligned(1));
    for size in 2..=SMALL_MAX_BYTES {
        let before = (object.pointer, object.layout);
        object.grow(&SpanMalloc, size);
        if object.pointer != before.0 {
            layouts.push(before.1);
        }
    }
    layouts.push(object.layout);
    object.free(&SpanMalloc);
    layouts
}

/// Pseudo-random numbers (xorshift, 64 bits), the same in each run.
pub struct Numbers(u64);

impl Numbers {
    pub fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A size from `from` up to (not including) `from << doublings`, each doubling as likely as any.
    pub fn log_uniform(&mut self, from: usize, doublings: u32) -> usize {
        let base = from << self.below(doublings as usize);
        base + self.below(base)
    }

    /// All numbers below `count` in random order.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}
