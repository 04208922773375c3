//! How much memory an allocator holds.
//!
//! `peak-and-free` is a server after a burst: nearly all objects are gone, but the rest lies
//! everywhere. `fragmentation` is a program whose objects become larger over time, so that the holes
//! of the old ones do not fit: after Johnstone and Wilson, "The Memory Fragmentation Problem: Solved?"
//! (ISMM 1998), and Robson's worst case (1974), in which sizes grow.
//!
//! Resident memory here is that of the whole process without the arrays of the workload. The time
//! counts too: an allocator may pay for one with the other. A quick run has a quarter of the objects,
//! whose first touch is most of its time.

use spanmalloc_rate::Scale;

use super::object::{Object, array};
use super::{Size, Workload};
use crate::measure::{Meter, memory_bytes};
use crate::random::Random;

pub const PEAK_AND_FREE: Workload = Workload::in_one_thread(
    "peak-and-free",
    "200 MB of objects of 16 B to 8 KiB, of which 95 % are freed at random; then small work",
    "allocation and free of one object",
    peak_and_free,
);

pub const FRAGMENTATION: Workload = Workload::in_one_thread(
    "fragmentation",
    "64 MiB of objects, replaced at random while sizes drift from 16 B-1 KiB to 64 B-8 KiB",
    "allocation of one object, and frees of as many bytes",
    fragmentation,
);

/// Objects up to a number of bytes, in an array that the allocator does not have.
struct Heap {
    slots: &'static mut [Object],
    /// Slots before this one have objects.
    objects: usize,
    live_bytes: usize,
}

impl Heap {
    fn new(objects_max: usize) -> Self {
        Self {
            slots: array(objects_max, Object::NONE),
            objects: 0,
            live_bytes: 0,
        }
    }

    /// Allocates an object that is resident.
    fn add(&mut self, bytes: usize) {
        let object = Object::untouched(bytes);
        object.touch_pages(0);
        self.slots[self.objects] = object;
        self.objects += 1;
        self.live_bytes += bytes;
    }

    /// Frees one.
    fn remove(&mut self, number: usize) {
        let object = self.slots[number];
        object.free();
        self.live_bytes -= object.size();
        self.objects -= 1;
        self.slots[number] = self.slots[self.objects];
    }

    fn array_bytes(&self) -> usize {
        size_of_val(self.slots)
    }

    fn free_all(self) {
        Object::free_all(&mut self.slots[..self.objects]);
    }
}

/// What is resident, but for arrays of so many bytes.
fn rss_without(array_bytes: usize) -> f64 {
    memory_bytes("VmRSS") as f64 - array_bytes as f64
}

/// One of so many objects survives the peak.
const SURVIVES_ONE_OF: usize = 20;
/// Objects of the work after it.
const WORK_OBJECTS: usize = 10_000;

fn peak_and_free(size: &Size, meter: &mut Meter) {
    let replaced = size.of(20_000_000);
    let peak_bytes = match size.scale {
        Scale::Full => 200_000_000,
        Scale::Quick => 50_000_000,
    };
    let mut heap = Heap::new(peak_bytes / 1000);
    let mut work = Heap::new(WORK_OBJECTS);
    let array_bytes = heap.array_bytes() + work.array_bytes();
    let mut random = Random::new(71);
    let mut results = [("", 0.0); 5];
    meter.run(|| {
        while heap.live_bytes < peak_bytes {
            heap.add(random.size(4, 13));
        }
        let allocated = heap.objects;
        results[0] = ("live_at_peak_bytes", heap.live_bytes as f64);
        results[1] = ("rss_at_peak_bytes", rss_without(array_bytes));
        while heap.objects > allocated / SURVIVES_ONE_OF {
            heap.remove(random.below(heap.objects));
        }
        results[2] = ("rss_after_free_bytes", rss_without(array_bytes));
        for _ in 0..WORK_OBJECTS {
            work.add(random.size(4, 9));
        }
        for _ in 0..replaced {
            work.remove(random.below(WORK_OBJECTS));
            work.add(random.size(4, 9));
        }
        results[3] = ("rss_after_work_bytes", rss_without(array_bytes));
        results[4] = ("live_bytes", (heap.live_bytes + work.live_bytes) as f64);
        allocated as u64 + replaced
    });
    for (name, value) in results {
        meter.also(name, value);
    }
    heap.free_all();
    work.free_all();
}

/// Steps of the drift.
const PHASES: usize = 64;
/// Sizes of a step.
const PHASE_SIZES: usize = 1024;

/// For each step, sizes between a lower and an upper bound, small ones many, in no order. The bounds
/// grow from 2^4 and 2^10 bytes to 2^6 and 2^13.
fn drifting_sizes() -> &'static [u32] {
    let sizes = array(PHASES * PHASE_SIZES, 0);
    for (phase, sizes) in sizes.chunks_mut(PHASE_SIZES).enumerate() {
        let progress = phase as f64 / (PHASES - 1) as f64;
        let (low, high) = (4.0 + 2.0 * progress, 10.0 + 3.0 * progress);
        for (number, size) in sizes.iter_mut().enumerate() {
            let place = number as f64 / (PHASE_SIZES - 1) as f64;
            *size = (low + (high - low) * place).exp2().round() as u32;
        }
    }
    sizes
}

fn fragmentation(size: &Size, meter: &mut Meter) {
    let objects_of_phase = size.of(8_000_000) / PHASES as u64;
    let sizes = drifting_sizes();
    let drift_bytes = match size.scale {
        Scale::Full => 64 << 20,
        Scale::Quick => 16 << 20,
    };
    let mut heap = Heap::new(drift_bytes / 128);
    let array_bytes = heap.array_bytes() + size_of_val(sizes);
    let mut random = Random::new(72);
    while heap.live_bytes < drift_bytes {
        heap.add(sizes[random.below(PHASE_SIZES)] as usize);
    }
    meter.run(|| {
        for sizes in sizes.chunks(PHASE_SIZES) {
            for _ in 0..objects_of_phase {
                heap.add(sizes[random.below(PHASE_SIZES)] as usize);
                while heap.live_bytes > drift_bytes {
                    heap.remove(random.below(heap.objects));
                }
            }
        }
        objects_of_phase * PHASES as u64
    });
    let rss_bytes = rss_without(array_bytes);
    meter.also("live_bytes", heap.live_bytes as f64);
    meter.also("rss_bytes", rss_bytes);
    meter.also("rss_per_live", rss_bytes / heap.live_bytes as f64);
    heap.free_all();
}
