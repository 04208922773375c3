//! `fork` in a program whose other threads are in the middle of anything.

#![cfg(not(miri))] // Starts processes.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use common::{Numbers, Object, alone};
use spanmalloc::{SpanMalloc, stats, trim};

#[global_allocator]
static GLOBAL: SpanMalloc = SpanMalloc;

/// Seconds after which a child that hangs is ended.
const CHILD_SECONDS: u32 = 30;

/// Runs `body` in the child of a `fork`, and waits for it: the status of its end, zero if it was good.
fn in_fork(body: impl FnOnce()) -> i32 {
    // SAFETY: the child calls nothing but the allocator and what needs no lock of other threads.
    match unsafe { libc::fork() } {
        -1 => panic!("no fork"),
        0 => {
            // SAFETY: no precondition.
            unsafe { libc::alarm(CHILD_SECONDS) };
            let panicked = catch_unwind(AssertUnwindSafe(body)).is_err();
            // SAFETY: no precondition.
            unsafe { libc::_exit(i32::from(panicked)) }
        }
        child => {
            let mut status = -1;
            // SAFETY: `status` is valid for writes.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            status
        }
    }
}

/// Tiny, small and large objects.
fn mixed_objects(numbers: &mut Numbers, count: usize) -> Vec<Object> {
    (0..count)
        .map(|index| Object::new(numbers.size(15), 1, index as u64))
        .collect()
}

/// Replaces objects by others until told to stop, and looks at their bytes.
fn churn(seed: u64, stop: &AtomicBool) {
    let mut numbers = Numbers(seed);
    let mut objects = mixed_objects(&mut numbers, 100);
    while !stop.load(SeqCst) {
        for _ in 0..100 {
            let index = numbers.below(objects.len());
            objects[index] = Object::new(numbers.size(13), 1, index as u64);
        }
        drop(mixed_objects(&mut numbers, 20));
        thread::yield_now(); // To who forks, if there are fewer CPUs than threads.
        if numbers.below(200) == 0 {
            trim();
        }
    }
}

/// Allocates and frees more than magazines hold until told to stop, so that most of the time some
/// lock of the shared floors is held.
fn crowd(stop: &AtomicBool) {
    while !stop.load(SeqCst) {
        let objects: Vec<_> = (0..3000).map(|index| Box::new([index; 6])).collect();
        drop(objects);
        trim();
        thread::yield_now(); // To who forks, if there are fewer CPUs than threads.
    }
}

#[test]
fn the_child_of_a_program_with_busy_threads_has_a_whole_heap() {
    alone(|| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let threads = [
                scope.spawn(|| churn(1, &stop)),
                scope.spawn(|| churn(2, &stop)),
                scope.spawn(|| crowd(&stop)),
                scope.spawn(|| crowd(&stop)),
            ];
            let mut numbers = Numbers(5);
            let status = (0..1000)
                .map(|nth| {
                    let before = mixed_objects(&mut numbers, 50);
                    let mut of_child = Numbers(numbers.0);
                    in_fork(|| {
                        let during = mixed_objects(&mut of_child, 50);
                        drop(before);
                        assert_eq!(stats().threads, 1);
                        trim();
                        if nth % 4 == 0 {
                            let grandchild = in_fork(|| {
                                drop(during);
                                drop(mixed_objects(&mut of_child, 20));
                            });
                            assert_eq!(grandchild, 0);
                        }
                        drop(mixed_objects(&mut of_child, 20));
                    })
                })
                .find(|status| *status != 0);
            stop.store(true, SeqCst);
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
            assert_eq!(status, None, "status of a child");
        });
    });
}

#[test]
fn the_child_may_start_threads() {
    alone(|| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let busy = scope.spawn(|| churn(1, &stop));
            let status = (0..20)
                .map(|seed| {
                    in_fork(|| {
                        let work = move || drop(mixed_objects(&mut Numbers(seed), 50));
                        let threads = [(); 2].map(|()| thread::spawn(work));
                        threads
                            .into_iter()
                            .for_each(|thread| thread.join().unwrap());
                        assert_eq!(stats().threads, 1);
                    })
                })
                .find(|status| *status != 0);
            stop.store(true, SeqCst);
            busy.join().unwrap();
            assert_eq!(status, None, "status of a child");
        });
    });
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn the_child_has_one_thread_until_it_wants_more() {
    alone(|| {
        assert!(spanmalloc::background::start());
        let before = threads();
        let large = Object::new(32 << 20, 8, 1);
        let status = in_fork(|| {
            drop(mixed_objects(&mut Numbers(1), 2000));
            assert_eq!(threads(), 1);
            assert!(spanmalloc::background::start());
            assert_eq!(threads(), 2);
        });
        assert_eq!(status, 0);
        drop(large);
        assert_eq!(threads(), before);
    });
}

#[test]
fn the_child_has_a_budget_for_magazines_again() {
    alone(|| {
        // Threads that exit leave mcaches with grown magazines behind, for the next threads.
        let work = |seed| move || drop(mixed_objects(&mut Numbers(seed), 2_000));
        let threads = [1, 2, 3].map(|seed| thread::spawn(work(seed)));
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert!(stats().magazine_budget_bytes > 0);
        let status = in_fork(|| {
            spanmalloc::trim();
            assert_eq!(stats().magazine_budget_bytes, 0);
        });
        assert_eq!(status, 0, "status of the child");
    });
}
