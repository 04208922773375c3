//! The time of every single allocation and free.
//!
//! Means hide what a request of a server waits for: a slow path, a lock, a page fault. Each thread
//! replaces random objects of mixed sizes, after Larson and Krishnan (see [`super::larson`]), and
//! reads the processor's time-stamp counter around each call. What is reported are percentiles over
//! all threads. With more threads than processors the highest ones are those of the scheduler.
//!
//! The first and last byte are written in the time of an allocation, so that the page faults are
//! in it. Each time has that of reading the counter in it too, which is reported by itself.

use std::time::Instant;

use super::Workload;
use super::object::{Object, array};
use super::shared::together;
use crate::measure::Meter;
use crate::random::Random;

/// Slots of a thread.
const SLOTS: usize = 1000;

const fn latency(name: &'static str, threads: usize) -> Workload {
    Workload {
        name,
        about: "threads replace random objects of 8 B to 128 KiB; every single call is timed",
        operation: "free and allocation of one object, and the reading of the clock",
        threads,
        threads_can_be_chosen: false,
        run: |size, meter| times(size.threads, size.of(6_000_000), meter),
    }
}

pub const LATENCY_2: Workload = latency("latency-2", 2);
pub const LATENCY_16: Workload = latency("latency-16", 16);

/// What a thread uses, on cache lines of its own.
#[repr(align(128))]
struct Thread {
    slots: &'static mut [Object],
    allocs: Histogram,
    frees: Histogram,
}

fn times(threads: usize, operations: u64, meter: &mut Meter) {
    let mut states: Vec<_> = (0..threads)
        .map(|_| Thread {
            slots: array(SLOTS, Object::NONE),
            allocs: Histogram::new(),
            frees: Histogram::new(),
        })
        .collect();
    let clock = Clock::new();
    let operations = operations / threads as u64;
    meter.run(|| {
        together(
            states.iter_mut().collect(),
            |number, thread: &mut Thread| {
                let mut random = Random::new(500 + number as u64);
                for _ in 0..operations {
                    let slot = random.below(SLOTS);
                    let size = object_size(&mut random);
                    thread.replace(slot, size, &clock);
                }
                operations
            },
        )
    });
    let ns_per_tick = clock.ns_per_tick();
    let mut allocs = Histogram::new();
    let mut frees = Histogram::new();
    for thread in &mut states {
        allocs.add(&thread.allocs);
        frees.add(&thread.frees);
        for slot in thread.slots.iter() {
            slot.free();
        }
    }
    allocs.report("alloc", ns_per_tick, meter);
    frees.report("free", ns_per_tick, meter);
    let mut reading = Histogram::new();
    for _ in 0..1000 {
        let start = clock.ticks();
        reading.count(clock.ticks() - start);
    }
    meter.also("clock_p50_ns", reading.percentile(0.5) as f64 * ns_per_tick);
}

/// 8 B to 16 KiB, but for one of 200, which is up to 128 KiB.
fn object_size(random: &mut Random) -> usize {
    match random.below(200) {
        0 => random.size(14, 17),
        _ => random.size(3, 14),
    }
}

impl Thread {
    #[inline]
    fn replace(&mut self, slot: usize, size: usize, clock: &Clock) {
        let old = self.slots[slot];
        let start = clock.ticks();
        old.free();
        let end = clock.ticks();
        self.frees.count(end.wrapping_sub(start));
        let start = clock.ticks();
        let new = Object::new(size);
        let end = clock.ticks();
        self.allocs.count(end.wrapping_sub(start));
        self.slots[slot] = new;
    }
}

/// The finest clock of the machine.
struct Clock {
    start: Instant,
    start_ticks: u64,
}

impl Clock {
    fn new() -> Self {
        let mut clock = Self {
            start: Instant::now(),
            start_ticks: 0,
        };
        clock.start_ticks = clock.ticks();
        clock
    }

    /// The time-stamp counter, read after all instructions before it are done.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn ticks(&self) -> u64 {
        use std::arch::x86_64::{_mm_lfence, _rdtsc};
        // SAFETY: every x86-64 processor has both instructions.
        unsafe {
            _mm_lfence();
            let ticks = _rdtsc();
            _mm_lfence();
            ticks
        }
    }

    /// Nanoseconds, from the system's clock.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    fn ticks(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Length of a tick, from the time since the clock was made.
    fn ns_per_tick(&self) -> f64 {
        let ticks = self.ticks() - self.start_ticks;
        self.start.elapsed().as_nanos() as f64 / ticks as f64
    }
}

/// Counts of numbers in buckets, of which each power of two has 32: a bucket is at most 3 % wide.
///
/// Invariant: bucket `b` below 64 counts the number `b`; above, buckets `32 * o` to `32 * o + 31`
/// count the numbers from `32 << (o - 1)` to below `32 << o`, in equal parts.
struct Histogram {
    counts: &'static mut [u64],
    max: u64,
}

const SUB_BITS: u32 = 5;
const BUCKETS: usize = ((64 - SUB_BITS + 1) << SUB_BITS) as usize;

impl Histogram {
    fn new() -> Self {
        Self {
            counts: array(BUCKETS, 0),
            max: 0,
        }
    }

    #[inline]
    fn count(&mut self, number: u64) {
        self.counts[bucket(number)] += 1;
        self.max = self.max.max(number);
    }

    fn add(&mut self, other: &Self) {
        for (count, other) in self.counts.iter_mut().zip(&*other.counts) {
            *count += other;
        }
        self.max = self.max.max(other.max);
    }

    /// The least bucket's start such that at least `part` of all numbers are in it or below.
    fn percentile(&self, part: f64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let wanted = (total as f64 * part).ceil() as u64;
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += count;
            below >= wanted
        });
        found.map_or(self.max, bucket_start)
    }

    fn report(&self, call: &str, ns_per_tick: f64, meter: &mut Meter) {
        let parts = [
            ("p50", 0.5),
            ("p99", 0.99),
            ("p999", 0.999),
            ("p9999", 0.9999),
        ];
        for (name, part) in parts {
            let ns = self.percentile(part) as f64 * ns_per_tick;
            meter.also(&format!("{call}_{name}_ns"), ns);
        }
        meter.also(&format!("{call}_max_ns"), self.max as f64 * ns_per_tick);
    }
}

/// The bucket that counts a number.
#[inline]
fn bucket(number: u64) -> usize {
    let octave = (64 - number.leading_zeros()).saturating_sub(SUB_BITS + 1);
    ((octave << SUB_BITS) as u64 + (number >> octave)) as usize
}

/// The least number of a bucket.
fn bucket_start(bucket: usize) -> u64 {
    let octave = (bucket >> SUB_BITS).saturating_sub(1);
    ((bucket - (octave << SUB_BITS)) as u64) << octave
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other() {
        for number in 0..100_000 {
            let bucket = bucket(number);
            assert!(bucket_start(bucket) <= number);
            assert!(bucket_start(bucket + 1) > number);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
