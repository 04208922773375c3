//! `idle-threads`: a server with a pool of threads that all had work once, and now wait for more.
//!
//! What stays resident is what an allocator keeps for each thread. The memory of threads that only
//! sleep, their stacks above all, is measured before.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::figures::{Figures, Used};
use super::heap::Heap;
use super::sampler::{Sampler, rss_bytes};
use super::{Setting, Told, sleep_until};
use crate::random::Random;

const THREADS: usize = 1000;
const STACK: usize = 128 << 10;
/// What each allocates in all.
const BYTES: usize = 10 << 20;
/// What it allocates before it frees most of it again.
const STEP_BYTES: usize = 64 << 10;
/// What it keeps of a step until it has done all: 640 KiB in the end.
const KEPT_BYTES: usize = 4 << 10;
/// Bits of the least and the largest size: 16 B to 32 KiB.
const SIZES: (u32, u32) = (4, 15);
/// Objects of a thread: 150 are kept, and a step has about 15, rarely many more.
const OBJECTS_MAX: usize = 512;
/// Seconds after the frees at which resident memory is told, and until the end.
const MARK: f64 = 10.0;
const SLEEP: f64 = 12.0;

/// Where threads and the main one meet.
struct Meeting {
    /// All threads are there and have done nothing.
    started: Barrier,
    /// The memory of sleeping threads is measured.
    go: Barrier,
    /// All threads hold what they keep, so that the peak does not depend on who runs when.
    peak: Barrier,
    /// Threads that have freed all.
    freed: AtomicUsize,
    ended: Mutex<bool>,
    end: Condvar,
}

pub fn idle_threads(setting: &Setting) -> Result<Told, String> {
    let threads = setting.amount(THREADS);
    let heaps: Vec<Heap> = (0..threads)
        .map(|number| Heap::new(number, OBJECTS_MAX))
        .collect();
    let sampler = Sampler::start(setting, setting.seconds(SLEEP))?;
    let before_threads = rss_bytes();
    let meeting = Meeting {
        started: Barrier::new(threads + 1),
        go: Barrier::new(threads + 1),
        peak: Barrier::new(threads),
        freed: AtomicUsize::new(0),
        ended: Mutex::new(false),
        end: Condvar::new(),
    };
    // Not in a scope: threads that wait at a barrier must not keep the worker from telling that there
    // is no room for the next one.
    let meeting: &'static Meeting = Box::leak(Box::new(meeting));
    let mut handles = Vec::with_capacity(threads);
    for (number, heap) in heaps.into_iter().enumerate() {
        let thread = thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || one_thread(heap, number, meeting))
            .map_err(|error| format!("thread {number} is not started: {error}"))?;
        handles.push(thread);
    }
    meeting.started.wait();
    // They need a moment to fall asleep.
    thread::sleep(setting.seconds(0.5));
    let asleep = rss_bytes();
    let before = Used::now();
    meeting.go.wait();
    while meeting.freed.load(Ordering::Acquire) < threads {
        thread::sleep(Duration::from_millis(1));
    }
    let freed = Instant::now();
    let after_burst = rss_bytes();
    sleep_until(freed + setting.seconds(MARK));
    let after_mark = rss_bytes();
    sleep_until(freed + setting.seconds(SLEEP));
    let (cpu_seconds, _) = Used::now().since(&before);
    let samples = sampler.stop()?;
    *meeting.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
    meeting.end.notify_all();
    for handle in handles {
        handle.join().map_err(|_| "a thread failed".to_owned())?;
    }

    let mut figures = Figures::default();
    figures.tell("rss_before_threads_bytes", before_threads as f64);
    figures.tell("rss_of_sleeping_threads_bytes", asleep as f64);
    figures.tell("rss_after_burst_bytes", after_burst as f64);
    figures.tell("rss_after_10_s_bytes", after_mark as f64);
    let retained = retained_kib(after_mark, asleep, threads);
    figures.tell("retained_per_thread_kib", retained);
    figures.tell("cpu_s", cpu_seconds);
    Ok((figures, samples))
}

/// What there is more than while all slept, for each thread. Below zero if it is less.
fn retained_kib(after: usize, asleep: usize, threads: usize) -> f64 {
    (after as f64 - asleep as f64) / 1024.0 / threads as f64
}

fn one_thread(mut heap: Heap, number: usize, meeting: &Meeting) {
    touch_stack();
    meeting.started.wait();
    meeting.go.wait();
    work(&mut heap, &mut Random::new(83 + number as u64));
    meeting.peak.wait();
    heap.remove_all();
    meeting.freed.fetch_add(1, Ordering::Release);
    let ended = meeting.ended.lock();
    let ended = ended.unwrap_or_else(PoisonError::into_inner);
    let _ended = meeting.end.wait_while(ended, |ended| !*ended);
}

/// What the work needs of the stack is resident before, so that it does not count as the allocator's.
#[inline(never)]
fn touch_stack() {
    black_box([1_u8; 24 << 10]);
}

fn work(heap: &mut Heap, random: &mut Random) {
    for step in 1..=BYTES / STEP_BYTES {
        let full = heap.bytes() + STEP_BYTES;
        while heap.bytes() < full && heap.add(random.size(SIZES.0, SIZES.1)) {}
        while heap.bytes() > step * KEPT_BYTES {
            heap.remove_random(random);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_room_for_its_objects() {
        let mut heap = Heap::new(62, OBJECTS_MAX);
        work(&mut heap, &mut Random::new(83));
        let kept = BYTES / STEP_BYTES * KEPT_BYTES;
        // The last step added enough to reach this, and the frees went below it.
        assert!(
            (kept / 2..=kept).contains(&heap.bytes()),
            "{}",
            heap.bytes()
        );
        assert!(heap.objects() < OBJECTS_MAX / 2, "{}", heap.objects());
        heap.remove_all();
    }

    #[test]
    fn what_is_retained_is_a_difference() {
        assert_eq!(retained_kib(30 << 10, 10 << 10, 4), 5.0);
        assert_eq!(retained_kib(0, 4 << 10, 4), -1.0);
    }
}
