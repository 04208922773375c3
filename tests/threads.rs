//! Threads: short ones, idle ones, ones that only free, and what runs after a thread's end. All bytes
//! are verified throughout (`common::Object`).

#![cfg(not(miri))] // Starts processes, and reads what Linux says of them.

mod common;

use std::cell::RefCell;
use std::ffi::c_void;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use common::{Numbers, Object, alone, rss_bytes};
use spanmalloc::{SpanMalloc, Stats, stats, trim};

#[global_allocator]
static GLOBAL: SpanMalloc = SpanMalloc;

/// Tiny, small and large objects.
fn mixed_objects(numbers: &mut Numbers, count: usize) -> Vec<Object> {
    (0..count)
        .map(|index| Object::new(numbers.size(16), 1 << (index % 7), index as u64))
        .collect()
}

/// The heap when all that can be given back is.
fn stats_when_trimmed() -> Stats {
    trim();
    stats()
}

/// Bytes in use then.
fn in_use_when_trimmed() -> usize {
    stats_when_trimmed().in_use_bytes
}

#[test]
fn ten_thousand_short_threads_leave_nothing_behind() {
    alone(|| {
        let round = |seed| {
            // All four are attached at once, so that each round needs the same records.
            let barrier = Arc::new(Barrier::new(4));
            let work = || {
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || {
                    let objects = mixed_objects(&mut Numbers(seed), 30);
                    barrier.wait();
                    drop(objects);
                })
            };
            let threads = [(); 4].map(|()| work());
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
        };
        (0..100).for_each(round);
        let warm = stats_when_trimmed();
        (100..2500).for_each(round);
        let end = stats_when_trimmed();
        assert!(
            end.record_bytes <= warm.record_bytes + (256 << 10),
            "{warm:?}, {end:?}"
        );
        assert!(
            end.in_use_bytes <= warm.in_use_bytes + (1 << 20),
            "{warm:?}, {end:?}"
        );
        assert_eq!(end.threads, warm.threads);
    });
}

#[test]
fn memory_comes_back_from_threads_that_only_free() {
    alone(|| {
        let before = in_use_when_trimmed();
        for _ in 0..4 {
            let mut numbers = Numbers(3);
            let shares = [(); 4].map(|()| mixed_objects(&mut numbers, 4000));
            assert!(stats().in_use_bytes > before + (32 << 20));
            let threads = shares.map(|share| {
                // The thread's own first allocation would attach it.
                thread::spawn(move || drop(share))
            });
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
            let after = in_use_when_trimmed();
            assert!(
                after <= before + (1 << 20),
                "from {before} to {after} bytes in use"
            );
        }
    });
}

#[test]
fn a_thread_whose_only_call_is_a_free_gives_the_memory_back() {
    extern "C" fn free_it(object: *mut c_void) -> *mut c_void {
        // SAFETY: `object` is what `Box::into_raw` gave, see below.
        drop(unsafe { Box::from_raw(object.cast::<Object>()) });
        ptr::null_mut()
    }
    alone(|| {
        let before = in_use_when_trimmed();
        for seed in 0..500 {
            let object = Box::into_raw(Box::new(Object::new(30_000, 8, seed)));
            run_bare_thread(free_it, object.cast());
        }
        let after = in_use_when_trimmed();
        assert!(
            after <= before + (1 << 20),
            "from {before} to {after} bytes in use"
        );
    });
}

/// Runs a thread that the standard library knows nothing of, so that nothing is allocated but by
/// `start` itself.
fn run_bare_thread(start: extern "C" fn(*mut c_void) -> *mut c_void, argument: *mut c_void) {
    // SAFETY: `start` fits `argument`, as the callers see to; the thread is joined once.
    unsafe {
        let mut thread = mem::zeroed();
        assert_eq!(
            libc::pthread_create(&mut thread, ptr::null(), start, argument),
            0
        );
        assert_eq!(libc::pthread_join(thread, ptr::null_mut()), 0);
    }
}

/// Ends with its thread: frees what the thread allocated, allocates and frees more.
struct Late(RefCell<Vec<Object>>);

static LATE_RUNS: AtomicUsize = AtomicUsize::new(0);

impl Drop for Late {
    fn drop(&mut self) {
        self.0
            .borrow_mut()
            .extend(mixed_objects(&mut Numbers(9), 20));
        for object in self.0.borrow_mut().iter_mut() {
            object.resize(object.size() * 2);
        }
        self.0.borrow_mut().clear();
        LATE_RUNS.fetch_add(1, SeqCst);
    }
}

thread_local! {
    static LATE: Late = const { Late(RefCell::new(Vec::new())) };
}

#[test]
fn destructors_of_thread_locals_may_allocate_and_free() {
    extern "C" fn start(_: *mut c_void) -> *mut c_void {
        LATE.with(|_registered_before_the_first_allocation| ());
        let objects = mixed_objects(&mut Numbers(5), 20);
        LATE.with(|late| late.0.borrow_mut().extend(objects));
        ptr::null_mut()
    }
    alone(|| {
        run_bare_thread(start, ptr::null_mut());
        let before = in_use_when_trimmed();
        for _ in 0..200 {
            run_bare_thread(start, ptr::null_mut());
        }
        assert_eq!(LATE_RUNS.load(SeqCst), 201);
        let after = in_use_when_trimmed();
        assert!(
            after <= before + (1 << 20),
            "from {before} to {after} bytes in use"
        );
    });
}

/// Destructors that ran when their thread had no mcache any more.
static DETACHED_RUNS: AtomicUsize = AtomicUsize::new(0);
/// Threads with an mcache but for the one that the test starts.
static OTHERS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_detached_thread_may_allocate_and_free() {
    /// Frees the thread's objects and as many others, one of each kind at a time.
    extern "C" fn late(objects: *mut c_void) {
        let threads = stats().threads;
        if threads == OTHERS.load(SeqCst) {
            DETACHED_RUNS.fetch_add(1, SeqCst);
        }
        let mut numbers = Numbers(13);
        for seed in 0..20 {
            let mut object = Object::new(numbers.size(16), 1, seed);
            object.resize(numbers.size(16));
            drop(Object::try_zeroed(numbers.size(16), 8, seed).unwrap());
        }
        // SAFETY: `objects` is what `Box::into_raw` gave, see below.
        drop(unsafe { Box::from_raw(objects.cast::<Vec<Object>>()) });
        assert_eq!(stats().threads, threads, "the thread was attached again");
    }
    extern "C" fn start(key: *mut c_void) -> *mut c_void {
        let objects = Box::new(mixed_objects(&mut Numbers(7), 20));
        let key = key.addr() as libc::pthread_key_t;
        // SAFETY: the key was created below and is valid.
        unsafe { libc::pthread_setspecific(key, Box::into_raw(objects).cast::<c_void>()) };
        ptr::null_mut()
    }
    alone(|| {
        drop(Object::new(1, 1, 0)); // The allocator has its key: destructors of later ones run after.
        let mut key = 0;
        // SAFETY: `key` is valid for writes, and `late` fits what is set.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(late)) }, 0);
        OTHERS.store(stats().threads, SeqCst);
        let run = || run_bare_thread(start, ptr::without_provenance_mut(key as usize));
        run();
        let before = in_use_when_trimmed();
        (0..200).for_each(|_| run());
        let after = in_use_when_trimmed();
        assert!(
            after <= before + (1 << 20),
            "from {before} to {after} bytes in use"
        );
        if cfg!(target_env = "gnu") {
            assert_eq!(DETACHED_RUNS.load(SeqCst), 201);
        }
    });
}

/// Most bytes that an idle thread may keep after it used 38 classes. Measured: 790 KiB, nearly all
/// of it current spans, one of 16 KiB for each class.
const IDLE_BYTES: usize = 1 << 20;

#[test]
fn a_thousand_idle_threads_hold_little() {
    const THREADS: usize = 1000;
    const MIB: usize = 1 << 20;
    alone(|| {
        let barrier = Arc::new(Barrier::new(THREADS + 1));
        let start = |seed: usize| {
            let barrier = Arc::clone(&barrier);
            let body = move || {
                barrier.wait(); // All stacks are there.
                barrier.wait();
                let mut numbers = Numbers(seed as u64);
                let (mut objects, mut bytes) = (Vec::new(), 0);
                while bytes < MIB {
                    objects.push(Object::new(numbers.size(10), 1, seed as u64));
                    bytes += objects.last().unwrap().size();
                }
                drop(objects);
                barrier.wait(); // All are idle.
                barrier.wait();
            };
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(body)
                .unwrap()
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        barrier.wait();
        let before = rss_bytes();
        barrier.wait();
        barrier.wait();
        let idle = rss_bytes();
        let stats = stats();
        barrier.wait();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        let each = idle.saturating_sub(before) / THREADS;
        assert!(each <= IDLE_BYTES, "{} KiB a thread, {stats:?}", each >> 10);
    });
}

#[test]
fn objects_keep_their_contents_from_producers_to_consumers() {
    let (sender, receiver) = mpsc::sync_channel::<Object>(1000);
    let produce = |seed| {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut numbers = Numbers(seed);
            for index in 0..20_000 {
                let (bits, seed) = (if index % 64 == 0 { 17 } else { 9 }, numbers.0 >> 48);
                sender
                    .send(Object::new(numbers.size(bits), 1, seed))
                    .unwrap();
            }
        })
    };
    let producers = [produce(1), produce(2)];
    drop(sender);
    let mut held = Vec::new();
    let mut received = 0;
    for mut object in receiver {
        received += 1;
        match received % 4 {
            0 => held.push(object),
            1 => object.resize(object.size() + 100),
            _ => object.check(),
        }
        if held.len() == 500 {
            held.clear();
        }
    }
    assert_eq!(received, 40_000);
    producers
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

#[test]
fn an_object_may_be_resized_in_another_thread_each_time() {
    let mut objects = mixed_objects(&mut Numbers(17), 300);
    for round in 1..=6 {
        let work = move || {
            let mut numbers = Numbers(round);
            for object in &mut objects {
                object.resize(numbers.size(17));
            }
            objects
        };
        objects = thread::spawn(work).join().unwrap();
    }
    assert_eq!(objects.len(), 300);
}

#[test]
fn threads_that_swap_objects_see_only_their_own_bytes() {
    const ROUNDS: usize = 20;
    let barrier = Arc::new(Barrier::new(4));
    let slots: Arc<[std::sync::Mutex<Vec<Object>>; 4]> = Arc::default();
    let work = |own: usize| {
        let (barrier, slots) = (Arc::clone(&barrier), Arc::clone(&slots));
        thread::spawn(move || {
            let mut numbers = Numbers(own as u64);
            for round in 0..ROUNDS {
                *slots[own].lock().unwrap() = mixed_objects(&mut numbers, 200);
                barrier.wait();
                let other = (own + 1 + round % 3) % 4;
                drop(mem::take(&mut *slots[other].lock().unwrap()));
                barrier.wait();
            }
        })
    };
    [0, 1, 2, 3]
        .map(work)
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}
