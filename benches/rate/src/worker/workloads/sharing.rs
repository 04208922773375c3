//! False sharing: small objects of two threads on one cache line.
//!
//! After cache-scratch and cache-thrash of Berger, McKinley, Blumofe and Wilson, "Hoard: A Scalable
//! Memory Allocator for Multithreaded Applications" (ASPLOS 2000). Each thread allocates a small
//! object, writes to it many times, and frees it, again and again. An allocator that gives words of
//! one cache line to two threads makes every write wait for the other processor. In `cache-thrash`
//! it would do so by itself (active sharing). In `cache-scratch` the threads first free an object
//! each of those that the main thread allocated side by side, and an allocator that keeps these for
//! the thread that freed them shares their line (passive).

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use super::shared::together;
use super::{Size, Workload};
use crate::measure::Meter;

/// Writes to each object.
const WRITES: u64 = 1000;

const fn sharing(name: &'static str, about: &'static str, run: fn(&Size, &mut Meter)) -> Workload {
    Workload {
        name,
        about,
        operation: "one object of 8 B allocated, written to 1,000 times and freed",
        threads: 2,
        threads_can_be_chosen: false,
        run,
    }
}

pub const CACHE_SCRATCH: Workload = sharing(
    "cache-scratch",
    "threads free adjacent objects of another thread, then write to ones of their own (Hoard)",
    |size, meter| {
        let given = (0..size.threads).map(|_| Some(object(0))).collect();
        write(given, size, meter);
    },
);
pub const CACHE_THRASH: Workload = sharing(
    "cache-thrash",
    "threads write to small objects of their own (Hoard)",
    |size, meter| write((0..size.threads).map(|_| None).collect(), size, meter),
);

/// An object that the compiler cannot do without, and whose writes it cannot join.
fn object(value: u64) -> Box<AtomicU64> {
    black_box(Box::new(AtomicU64::new(value)))
}

/// Each thread frees what it is given, then writes to its own.
fn write(given: Vec<Option<Box<AtomicU64>>>, size: &Size, meter: &mut Meter) {
    let objects = size.of(3_000_000) / size.threads as u64;
    meter.run(|| {
        together(given, |number, given| {
            drop(given);
            let first = (number as u64) << 32;
            for _ in 0..objects {
                let object = object(first);
                for _ in 0..WRITES {
                    // Relaxed: only this thread uses the object.
                    let value = object.load(Ordering::Relaxed);
                    object.store(value + 1, Ordering::Relaxed);
                }
                let last = black_box(object).load(Ordering::Relaxed);
                assert_eq!(last, first + WRITES, "an object was overwritten");
            }
            objects
        })
    });
}
