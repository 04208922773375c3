//! The mutex.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool as GhostBool, Ordering::SeqCst};
use std::vec::Vec;

use loom::thread;

use super::check;
use crate::sync::{Mutex, sleeps};

/// `threads` threads take the lock `rounds` times each, and find what the others wrote.
fn count_under_lock(threads: usize, rounds: usize) {
    let sleeps_before = sleeps();
    check(move || {
        let count = Arc::new(Mutex::new(0));
        let work = move |count: &Mutex<usize>| {
            for _ in 0..rounds {
                *count.lock() += 1;
            }
        };
        let others: Vec<_> = (1..threads)
            .map(|_| {
                let count = Arc::clone(&count);
                thread::spawn(move || work(&count))
            })
            .collect();
        work(&count);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(*count.lock(), threads * rounds);
    });
    assert!(
        sleeps() > sleeps_before,
        "no execution gets as far as the kernel's queue"
    );
}

#[test]
fn two_threads_never_hold_the_mutex_at_once_and_none_sleeps_for_ever() {
    count_under_lock(2, 2);
}

#[test]
fn a_third_thread_is_woken_by_who_was_woken_itself() {
    count_under_lock(3, 1);
}

#[test]
fn a_try_never_enters_a_held_mutex() {
    check(|| {
        let count = Arc::new(Mutex::new(0));
        let other = {
            let count = Arc::clone(&count);
            thread::spawn(move || {
                count.try_lock().is_some_and(|mut count| {
                    *count += 1;
                    true
                })
            })
        };
        *count.lock() += 1;
        let entered = other.join().unwrap();
        assert_eq!(*count.lock(), 1 + usize::from(entered));
    });
}

#[test]
fn a_lock_held_across_a_fork_keeps_others_out_until_given_back() {
    check(|| {
        let count = Arc::new(Mutex::new(0));
        let inside = Arc::new(GhostBool::new(false));
        let other = {
            let (count, inside) = (Arc::clone(&count), Arc::clone(&inside));
            thread::spawn(move || {
                let mut count = count.lock();
                assert!(!inside.load(SeqCst));
                *count += 1;
            })
        };
        count.lock_for_fork();
        inside.store(true, SeqCst);
        thread::yield_now();
        inside.store(false, SeqCst);
        // SAFETY: this thread took the lock by `lock_for_fork` just above.
        unsafe { count.unlock_after_fork() };
        other.join().unwrap();
        assert_eq!(*count.lock(), 1);
    });
}
