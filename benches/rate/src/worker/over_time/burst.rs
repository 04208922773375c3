//! `burst` and `burst-calls`: a server after a burst of requests, of which little is kept.
//!
//! In `burst` nothing calls the allocator any more, so memory comes back to the system only if the
//! allocator returned it with the frees, or does that in a thread of its own. In `burst-calls` the
//! program still does a little, which reaches beyond the caches of threads.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use super::figures::{Figures, Used};
use super::heap::{Heap, need_bytes};
use super::sampler::{Sampler, rss_bytes};
use super::{Setting, Told, sleep_until};
use crate::random::Random;

const THREADS: usize = 4;
/// Of all threads together.
const PEAK_BYTES: usize = 1 << 30;
/// Bits of the least and the largest size: 16 B to 256 KiB.
const SIZES: (u32, u32) = (4, 18);
/// One of so many objects is kept.
const KEPT_ONE_OF: usize = 20;
/// Seconds after the frees at which resident memory is told.
const MARKS: [f64; 3] = [2.0, 5.0, 10.0];
/// Seconds until the end.
const SLEEP: f64 = 12.0;

/// Calls of all threads together, in the time up to the last mark.
const CALLS: usize = 100;
/// Of a call: one object that is too large for the caches of threads.
const CALL_LARGE: usize = 40 << 10;
/// And so many of sizes that were used before.
const CALL_SMALL: usize = 4;

pub fn burst(setting: &Setting) -> Result<Told, String> {
    run(setting, false)
}

pub fn burst_calls(setting: &Setting) -> Result<Told, String> {
    run(setting, true)
}

fn run(setting: &Setting, calls: bool) -> Result<Told, String> {
    let share = setting.amount(PEAK_BYTES) / THREADS;
    // The mean size is 28 KiB; there is room for three times the objects.
    let objects_max = share / (8 << 10) + 1024;
    let heaps: Vec<Heap> = (0..THREADS)
        .map(|number| Heap::new(number, objects_max))
        .collect();
    let sampler = Sampler::start(setting, setting.seconds(SLEEP))?;
    let before = Used::now();
    let barrier = Barrier::new(THREADS + 1);
    thread::scope(|scope| {
        for (number, mut heap) in heaps.into_iter().enumerate() {
            let barrier = &barrier;
            scope.spawn(move || {
                let mut random = Random::new(81 + number as u64);
                grow_and_shrink(&mut heap, share, &mut random, barrier);
                if calls {
                    call(&mut heap, number, setting, &mut random);
                }
                barrier.wait();
            });
        }
        // All are at their peak, until that is read; then all have freed.
        barrier.wait();
        let at_peak = rss_bytes();
        barrier.wait();
        barrier.wait();
        let freed = Instant::now();
        let after_frees = rss_bytes();
        let live = need_bytes();
        let after = MARKS.map(|mark| {
            sleep_until(freed + setting.seconds(mark));
            rss_bytes()
        });
        sleep_until(freed + setting.seconds(SLEEP));
        let (cpu_seconds, _) = Used::now().since(&before);
        let samples = sampler.stop()?;
        barrier.wait();

        let mut figures = Figures::default();
        figures.tell("live_bytes", live as f64);
        figures.tell("rss_at_peak_bytes", at_peak as f64);
        figures.tell("rss_after_frees_bytes", after_frees as f64);
        for (mark, rss) in MARKS.iter().zip(after) {
            figures.tell(&format!("rss_after_{mark:.0}_s_bytes"), rss as f64);
        }
        let last = after.last().filter(|_| live > 0);
        let ratio = last.map(|rss| *rss as f64 / live as f64);
        figures.tell_if("rss_per_live_after_10_s", ratio);
        figures.tell("cpu_s", cpu_seconds);
        Ok((figures, samples))
    })
}

fn grow_and_shrink(heap: &mut Heap, share: usize, random: &mut Random, barrier: &Barrier) {
    // Null ends the growth.
    while heap.bytes() < share && heap.add(random.size(SIZES.0, SIZES.1)) {}
    barrier.wait();
    barrier.wait();
    let kept = heap.objects() / KEPT_ONE_OF;
    while heap.objects() > kept {
        heap.remove_random(random);
    }
    barrier.wait();
}

/// Every so often one of the threads needs a few objects for a moment.
fn call(heap: &mut Heap, number: usize, setting: &Setting, random: &mut Random) {
    let start = Instant::now();
    let last = MARKS[MARKS.len() - 1];
    for call in (number..CALLS).step_by(THREADS) {
        let part = (call + 1) as f64 / CALLS as f64;
        sleep_until(start + setting.seconds(part * last));
        let before = heap.objects();
        heap.add(CALL_LARGE);
        for _ in 0..CALL_SMALL {
            heap.add(random.size(SIZES.0, 15));
        }
        while heap.objects() > before {
            heap.remove_last();
        }
    }
}
