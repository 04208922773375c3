//! Statistics add up: in every snapshot while threads work, and exactly when they have stopped. And they can be
//! read by the parsers of the forms in which they are written.

#![cfg(not(miri))] // Starts processes, and reads what Linux says of them.

mod common;
#[path = "stats/forms.rs"]
mod forms;
#[path = "stats/laws.rs"]
mod laws;
#[path = "stats/schema.rs"]
mod schema;

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;

use common::{Numbers, Object, address_space_bytes, alone, rss_bytes, stay_on_one_cpu};
use laws::check_always;
use spanmalloc::{ClassStats, SpanMalloc, Stats, stats, trim};

const MIB: usize = 1 << 20;

/// This crate's allocator, with a count of the calls of each thread.
struct Counted;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is passed on.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { SpanMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { SpanMalloc.dealloc(object, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counted = Counted;

/// What holds when no thread is in a call.
fn check_quiet(stats: &Stats) {
    check_always(stats);
    assert_eq!(stats.in_transit_bytes, 0, "{stats:?}");
    for class in stats.classes.iter() {
        let left = class.allocated_objects - class.freed_objects;
        let held = class.live_objects + class.magazine_objects;
        assert_eq!(left, held as u64, "{class:?}");
    }
    let held: usize = stats
        .classes
        .iter()
        .map(|class| class.magazine_objects)
        .sum();
    let left = stats.allocated_objects - stats.freed_objects;
    assert_eq!(left, (stats.live_objects + held) as u64);
    assert!(stats.released_slot_bytes <= stats.current_free_bytes + stats.partial_free_bytes);
    let heap = stats.committed_bytes - stats.released_bytes - stats.fresh_bytes;
    let huge = stats.huge_live_bytes + stats.huge_free_bytes;
    let backed = heap - stats.released_slot_bytes + huge + stats.record_bytes;
    assert_eq!(backed, stats.backed_bytes, "{stats:?}");
}

/// Waits until the main thread, which started the test, sleeps: what it allocates until then is none of the
/// test's.
fn wait_for_the_harness() {
    if thread::current().name() == Some("main") {
        return;
    }
    let path = format!("/proc/self/task/{}/stat", std::process::id());
    loop {
        let stat = std::fs::read_to_string(&path).unwrap();
        // The name of the thread, in brackets, may be anything.
        let (_, state) = stat.rsplit_once(") ").unwrap();
        if state.starts_with('S') {
            return;
        }
        thread::yield_now();
    }
}

/// The row of a class.
fn class_of(stats: &Stats, bytes: usize) -> ClassStats {
    let found = stats
        .classes
        .iter()
        .find(|class| class.object_bytes == bytes);
    *found.unwrap()
}

/// Objects of all kinds, in two sevenths of the cases at a large alignment.
fn some_object(numbers: &mut Numbers) -> Object {
    let size = match numbers.below(400) {
        0 => MIB + numbers.size(21),
        1 => 64 * MIB,
        2..20 => numbers.size(18),
        _ => numbers.size(11),
    };
    Object::new(
        size.min(65 * MIB),
        1 << (numbers.below(7) * numbers.below(2)),
        5,
    )
}

/// Stops the threads when dropped, also by a panic, which would wait for them.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// An object that nobody fills: most of the time under load is the allocator's.
struct Bare(*mut u8, Layout);

// SAFETY: the object belongs to the value alone.
unsafe impl Send for Bare {}

impl Bare {
    fn new(layout: Layout) -> Self {
        // SAFETY: the size is not zero.
        let start = unsafe { SpanMalloc.alloc(layout) };
        assert!(!start.is_null());
        Self(start, layout)
    }

    fn resize(&mut self, size: usize) {
        // SAFETY: the object is ours, and has this Layout; the size is good for one.
        self.0 = unsafe { SpanMalloc.realloc(self.0, self.1, size) };
        self.1 = Layout::from_size_align(size, self.1.align()).unwrap();
        assert!(!self.0.is_null());
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // SAFETY: the object is ours, and has this Layout.
        unsafe { SpanMalloc.dealloc(self.0, self.1) };
    }
}

/// Allocates, frees, resizes, hands on to the next thread, until told to stop.
fn work(
    seed: u64,
    stop: &AtomicBool,
    from: &mpsc::Receiver<Vec<Bare>>,
    to: &mpsc::SyncSender<Vec<Bare>>,
) {
    let mut numbers = Numbers(seed);
    let mut objects: Vec<Bare> = Vec::new();
    while !stop.load(Relaxed) {
        // Many of a size, so that the tiers below the magazines have work.
        let size = match numbers.below(40) {
            0 => 64 * MIB,
            1..4 => MIB + numbers.size(20),
            4..15 => 30_000 + numbers.size(17),
            _ => numbers.size(14),
        };
        let align = 1 << (numbers.below(7) * numbers.below(2));
        let count = (8 * MIB / size).clamp(1, 200);
        let layout = Layout::from_size_align(size, align).unwrap();
        objects.extend((0..numbers.below(count) + 1).map(|_| Bare::new(layout)));
        match numbers.below(8) {
            0..3 => {
                let kept = objects.split_off(objects.len() / 2);
                let _ = to.try_send(std::mem::replace(&mut objects, kept));
            }
            3 => drop(from.try_recv()),
            4 => objects.clear(),
            5 => {
                let large = |object: &&mut Bare| object.1.size() > 30_000;
                if let Some(object) = objects.iter_mut().rev().find(large) {
                    object.resize(30_000 + numbers.size(20));
                }
            }
            _ => objects.truncate(objects.len() - objects.len() / 4),
        }
        match numbers.below(100) {
            0 => drop(trim()),
            1 => thread::scope(|scope| {
                scope.spawn(|| objects.drain(..).for_each(drop));
            }),
            _ => {}
        }
        if objects.len() > 2000 {
            objects.clear();
        }
    }
}

#[test]
fn a_thousand_snapshots_under_load_add_up() {
    const THREADS: usize = 8;
    alone(|| {
        wait_for_the_harness();
        let stop = AtomicBool::new(false);
        let (mut to, mut from): (Vec<_>, Vec<_>) =
            (0..THREADS).map(|_| mpsc::sync_channel(50)).unzip();
        to.rotate_left(1);
        let mut in_transit = 0;
        thread::scope(|scope| {
            let stopper = Stopper(&stop);
            let start = |seed| {
                let (to, from, stop) = (to.pop().unwrap(), from.pop().unwrap(), &stop);
                scope.spawn(move || work(seed, stop, &from, &to))
            };
            let threads: Vec<_> = (0..THREADS as u64).map(start).collect();
            let mut numbers = Numbers(99);
            for _ in 0..1000 {
                for _ in 0..numbers.size(14) {
                    spin_loop();
                }
                let stats = stats();
                check_always(&stats);
                in_transit = in_transit.max(stats.in_transit_bytes);
                // Each thread moves one run, of at most 4 MiB or one object's.
                let most = 2 * (THREADS + 1) * 4 * MIB;
                assert!(stats.in_transit_bytes <= most, "{stats:?}");
            }
            drop(stopper);
            // Unlike the end of the scope, a join waits for the destructors of the thread.
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
        });
        drop((to, from));
        let end = stats();
        check_quiet(&end);
        assert!(
            end.lock_waits >= end.lock_sleeps && end.return_calls > 0,
            "{end:?}"
        );
    });
}

#[test]
fn a_population_that_stays_the_same_looks_so_under_load() {
    const THREADS: usize = 8;
    const EACH: usize = 4000;
    /// A class of which nobody else has many.
    const BYTES: usize = 320;
    alone(|| {
        wait_for_the_harness();
        let before = class_of(&stats(), BYTES).live_objects;
        let new = || black_box(Box::new([1_u8; BYTES]));
        let stop = AtomicBool::new(false);
        let ready = AtomicUsize::new(0);
        let (to, from): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::sync_channel(100)).unzip();
        thread::scope(|scope| {
            let stopper = Stopper(&stop);
            let start = |(number, from): (usize, mpsc::Receiver<_>)| {
                let to: mpsc::SyncSender<_> = to[(number + 1) % THREADS].clone();
                let (stop, ready) = (&stop, &ready);
                scope.spawn(move || {
                    let mut numbers = Numbers(number as u64);
                    let mut objects: Vec<_> = (0..EACH).map(|_| new()).collect();
                    ready.fetch_add(1, Relaxed);
                    while !stop.load(Relaxed) {
                        let place = numbers.below(EACH);
                        // Each is replaced by another one: fresh, or of another thread.
                        objects[place] = match from.try_recv() {
                            Ok(other) => match to.try_send(other) {
                                Err(mpsc::TrySendError::Full(other)) => other,
                                _ => new(),
                            },
                            Err(_) => new(),
                        };
                        if numbers.below(10) == 0 {
                            let _ = to.try_send(new());
                        }
                    }
                })
            };
            let threads: Vec<_> = from.into_iter().enumerate().map(start).collect();
            while ready.load(Relaxed) < THREADS {
                spin_loop();
            }
            // In hand and in channels, and what fits a magazine, for each thread.
            let slack = THREADS * (2 + 101 + 64);
            for _ in 0..1000 {
                let class = class_of(&stats(), BYTES);
                let live = class.live_objects - before;
                let least = THREADS * EACH;
                assert!(live + slack >= least && live <= least + slack, "{class:?}");
            }
            drop(stopper);
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
        });
        drop(to);
        let end = stats();
        check_quiet(&end);
        assert_eq!(class_of(&end, BYTES).live_objects, before);
    });
}

/// Live objects and bytes of each kind.
fn live(stats: &Stats) -> [usize; 5] {
    [
        stats.live_objects,
        stats.live_bytes,
        stats.large_live_objects,
        stats.large_live_bytes,
        stats.huge_live_bytes,
    ]
}

#[test]
fn large_objects_add_up_while_threads_take_and_free_them() {
    const THREADS: usize = 3;
    alone(|| {
        wait_for_the_harness();
        let before = stats();
        let stop = AtomicBool::new(false);
        let started = AtomicUsize::new(0);
        thread::scope(|scope| {
            let threads = (0..THREADS as u64).map(|seed| {
                let (stop, started) = (&stop, &started);
                scope.spawn(move || {
                    let mut numbers = Numbers(seed);
                    let mut objects: [Option<Object>; 8] = [const { None }; 8];
                    while !stop.load(Relaxed) {
                        let place = numbers.below(objects.len());
                        objects[place] = None;
                        let size = (33 << 10) + numbers.below(400 << 10);
                        objects[place] = Some(Object::new(size, 1, seed));
                        started.fetch_add(1, Relaxed);
                    }
                })
            });
            let threads: Vec<_> = threads.collect();
            while started.load(Relaxed) < THREADS * 100 {
                spin_loop();
            }
            for _ in 0..300 {
                let stats = stats();
                check_always(&stats);
                assert!(stats.large_live_objects - before.large_live_objects <= THREADS * 8);
            }
            stop.store(true, Relaxed);
            // The end of the scope does not wait for the threads' exit hooks.
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        let end = stats();
        check_quiet(&end);
        assert_eq!(end.large_live_objects, before.large_live_objects);
        assert_eq!(end.large_live_bytes, before.large_live_bytes);
    });
}

#[test]
fn what_is_live_is_what_was_allocated_and_not_freed_whoever_frees() {
    alone(|| {
        wait_for_the_harness();
        let mut numbers = Numbers(7);
        // What the harness and the vectors need is there before.
        let mut shares: [Vec<Object>; 4] = [(); 4].map(|()| Vec::with_capacity(2000));
        drop(thread::spawn(|| ()).join());
        let before = stats();
        check_quiet(&before);
        for round in 0..6 {
            for share in &mut shares {
                share.extend((0..1000).map(|_| some_object(&mut numbers)));
            }
            let full = stats();
            check_quiet(&full);
            let objects = full.live_objects - before.live_objects;
            assert_eq!(objects, 4000, "round {round}");
            let asked: usize = shares.iter().flatten().map(Object::size).sum();
            let rounded = full.live_bytes - before.live_bytes;
            assert!(
                rounded >= asked && rounded < asked + asked / 4,
                "{asked} {rounded}"
            );
            // Threads that exit free half of them, and what they allocate themselves.
            for share in &mut shares {
                let freed = share.drain(..500).collect::<Vec<_>>();
                let thread = thread::spawn(move || {
                    let own: Vec<_> = (0..500).map(|seed| Object::new(100, 1, seed)).collect();
                    drop(freed);
                    own
                });
                // Who joins waits for the end of the thread, with all destructors.
                share.extend(thread.join().unwrap());
                share.drain(..500).for_each(drop);
            }
            let half = stats();
            check_quiet(&half);
            assert_eq!(
                half.live_objects - before.live_objects,
                2000,
                "round {round}"
            );
            shares.iter_mut().for_each(Vec::clear);
            let empty = stats();
            check_quiet(&empty);
            assert_eq!(live(&empty), live(&before), "round {round}");
            if round % 2 == 0 {
                trim();
                let trimmed = stats();
                check_quiet(&trimmed);
                assert_eq!(live(&trimmed), live(&before), "round {round}");
                assert_eq!((trimmed.depot_bytes, trimmed.dirty_bytes), (0, 0));
                assert!(trimmed.returned_bytes > empty.returned_bytes);
                assert!(trimmed.return_calls > empty.return_calls);
                assert!(trimmed.return_ns > empty.return_ns);
            }
        }
    });
}

#[test]
fn tiny_objects_and_what_is_left_of_their_blocks_are_told_apart() {
    alone(|| {
        wait_for_the_harness();
        let before = stats();
        let mut objects: Vec<Object> = Vec::with_capacity(30_000);
        for size in [1, 2, 4] {
            objects.extend((0..10_000).map(|seed| Object::new(size, size, seed)));
        }
        let full = stats();
        check_quiet(&full);
        for (size, row) in [(1, 0), (2, 1), (4, 2)] {
            let (now, then) = (full.classes[row], before.classes[row]);
            assert_eq!(now.object_bytes, size);
            assert_eq!(now.live_objects - then.live_objects, 10_000);
        }
        // One of each block of four stays.
        let mut number = 0;
        objects.retain(|object| {
            number += 1;
            object.size() < 4 || number % 4 == 0
        });
        trim();
        let sparse = stats();
        check_quiet(&sparse);
        let split = sparse.split_free_bytes - before.split_free_bytes;
        assert!((25_000..35_000).contains(&split), "{split}");
        drop(objects);
        trim();
        let after = stats();
        check_quiet(&after);
        assert!(after.split_free_bytes < 1000, "{after:?}");
    });
}

#[test]
fn pages_are_fresh_live_cached_dirty_or_released() {
    alone(|| {
        wait_for_the_harness();
        // What `statm` leaves out is then little, on a machine of many CPUs too.
        stay_on_one_cpu();
        let before = stats();
        let object = Object::new(20 * MIB, 1, 1);
        let live = stats();
        check_quiet(&live);
        assert_eq!(live.large_live_bytes - before.large_live_bytes, 20 * MIB);
        assert!(live.resident_bytes > before.resident_bytes + 18 * MIB);
        assert!(live.minor_faults > before.minor_faults);
        let rss = rss_bytes();
        assert!(
            live.resident_bytes.abs_diff(rss) < 2 * MIB,
            "{rss} {live:?}"
        );
        let live = stats();
        drop(object);
        let dirty = stats();
        check_quiet(&dirty);
        assert_eq!(dirty.dirty_bytes - before.dirty_bytes, 20 * MIB);
        assert_eq!(dirty.fresh_bytes, live.fresh_bytes);
        trim();
        let released = stats();
        check_quiet(&released);
        assert!(released.released_bytes >= before.released_bytes + 20 * MIB);
        assert_eq!(released.fresh_bytes, live.fresh_bytes);
        assert!(released.returned_bytes - dirty.returned_bytes >= 20 * MIB as u64);
        let cached = Object::new(100_000, 1, 1);
        drop(cached);
        let cached = stats();
        check_quiet(&cached);
        assert!(cached.cached_bytes >= 100_000);

        let (space, mapped) = (address_space_bytes(), stats().mapped_bytes);
        let huge = Object::new(100 * MIB, 1, 1);
        let grown = stats().mapped_bytes - mapped;
        assert_eq!(grown, 100 * MIB);
        // Its guard is no memory, and is not counted.
        let guard = address_space_bytes() - space - grown;
        assert!(guard > 0 && guard <= 64 << 10, "{guard}");
        drop(huge);
        let kept = stats();
        check_quiet(&kept);
        assert_eq!(kept.mapped_bytes - mapped, grown);
        assert_eq!(kept.huge_free_bytes, 100 * MIB);
        trim();
        check_quiet(&stats());
        assert_eq!(stats().mapped_bytes, mapped);
        assert_eq!(address_space_bytes(), space);
        assert!(stats().uptime_ns > released.uptime_ns);
    });
}

#[test]
fn half_freed_spans_show_as_free_slots_and_as_released_ones() {
    alone(|| {
        wait_for_the_harness();
        let mut objects: Vec<_> = (0..40_000).map(|seed| Object::new(4000, 1, seed)).collect();
        let full = class_of(&stats(), 4096);
        assert!(
            full.full_spans >= 9900 && full.partial_free_bytes < MIB,
            "{full:?}"
        );
        let mut number = 0;
        objects.retain(|_| {
            number += 1;
            number % 4 == 0
        });
        trim();
        let sparse = stats();
        check_quiet(&sparse);
        let class = class_of(&sparse, 4096);
        assert!(class.partial_spans >= 9900, "{class:?}");
        assert!(class.partial_free_bytes >= 29_000 * 4096, "{class:?}");
        assert!(sparse.released_slot_bytes >= 28_000 * 4096, "{sparse:?}");
        // What is used again is not released any more.
        objects.extend((0..20_000).map(|seed| Object::new(4000, 1, seed)));
        let again = stats();
        check_quiet(&again);
        assert!(again.released_slot_bytes <= 12_000 * 4096, "{again:?}");
    });
}
