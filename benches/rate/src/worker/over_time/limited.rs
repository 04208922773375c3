//! `limited`: a service with a fixed need, under a limit of memory that the environment may set.
//!
//! All threads replace objects of all sizes at random. An allocation that returns null is no end: the
//! thread frees another object, and tries again.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::figures::{Figures, Used};
use super::heap::{Heap, nulls};
use super::sampler::Sampler;
use super::{Setting, Told};
use crate::random::Random;

const THREADS: usize = 8;
/// Of all threads together.
const NEED_BYTES: usize = 200 << 20;
/// Bits of the least and the largest size: 16 B to 1 MiB.
const SIZES: (u32, u32) = (4, 20);
/// Operations between two looks at the clock.
const BATCH: u32 = 32;

pub fn limited(setting: &Setting) -> Result<Told, String> {
    let share = setting.amount(NEED_BYTES) / THREADS;
    let duration = setting.scaled_seconds(60.0, 5.0);
    // The mean size is 98 KiB, but what is replaced leaves many small ones at times.
    let heaps: Vec<Heap> = (0..THREADS)
        .map(|number| Heap::new(number, share / 1024 + 1024))
        .collect();
    let sampler = Sampler::start(setting, duration)?;
    let barrier = Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        let mut handles = Vec::new();
        for (number, mut heap) in heaps.into_iter().enumerate() {
            let barrier = &barrier;
            handles.push(scope.spawn(move || {
                let mut random = Random::new(84 + number as u64);
                while heap.bytes() < share && heap.add(random.size(SIZES.0, SIZES.1)) {}
                barrier.wait();
                let operations = churn(&mut heap, share, duration, &mut random);
                barrier.wait();
                barrier.wait();
                operations
            }));
        }
        barrier.wait();
        let (before, start) = (Used::now(), Instant::now());
        barrier.wait();
        let seconds = start.elapsed().as_secs_f64();
        let (cpu_seconds, _) = Used::now().since(&before);
        let samples = sampler.stop()?;
        barrier.wait();
        let mut operations = 0;
        for handle in handles {
            let of_thread: Result<u64, _> = handle.join();
            operations += of_thread.map_err(|_| "a thread failed".to_owned())?;
        }

        let series = samples.series();
        let mut figures = Figures::default();
        figures.tell("operations_per_s", operations as f64 / seconds);
        figures.tell("cpu_s", cpu_seconds);
        figures.tell_means(&series);
        figures.tell_peak(&series);
        figures.tell("null_returns", nulls() as f64);
        Ok((figures, samples))
    })
}

/// Replaces objects until the time is over; returns how many.
fn churn(heap: &mut Heap, share: usize, duration: Duration, random: &mut Random) -> u64 {
    let start = Instant::now();
    let mut operations = 0;
    let mut size = random.size(SIZES.0, SIZES.1);
    while start.elapsed() < duration {
        for _ in 0..BATCH {
            while heap.bytes() + size > share && heap.objects() > 0 {
                heap.remove_random(random);
            }
            if heap.add(size) {
                operations += 1;
                size = random.size(SIZES.0, SIZES.1);
            } else {
                // The same size again, when there may be room.
                heap.remove_random(random);
                thread::yield_now();
            }
        }
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_need_stays_below_the_share() {
        let mut heap = Heap::new(61, 2000);
        let mut random = Random::new(84);
        let share = 4 << 20;
        let operations = churn(&mut heap, share, Duration::from_millis(20), &mut random);
        assert!(operations > 0);
        assert!(heap.bytes() <= share && heap.objects() > 0);
        heap.remove_all();
    }
}
