//! A mutex of one word that spins briefly and then sleeps in the kernel.
//!
//! | state | meaning |
//! |---|---|
//! | 0 | free |
//! | 1 | held, nobody sleeps |
//! | 2 | held, and somebody may sleep: the holder wakes one when it leaves |
//!
//! Measured with 16 threads on 2 CPUs and one contended lock a class: 60 spins and then the futex
//! 63 cycles a pair, pure spinning 186. A preempted holder must not make the others burn.
//!
//! Invariant: between a successful change from 0 and the store of 0, exactly one [`Guard`] exists.
//!
//! Not here: poisoning (nothing panics), fairness, re-entrance (a thread that locks twice sleeps
//! for ever; the lock order excludes it).

#![allow(unsafe_code)]

use core::ops::{Deref, DerefMut};

use super::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use super::const_unless_loom;
#[cfg(feature = "lock-stats")]
use super::usage::Usage;

#[cfg(not(loom))]
use core::cell::UnsafeCell;
#[cfg(loom)]
use loom::cell::UnsafeCell;

const FREE: u32 = 0;
const HELD: u32 = 1;
const HELD_WITH_SLEEPERS: u32 = 2;

/// Looks at a held lock before sleeping. More costs CPU when the holder is preempted, less a system
/// call when it is about to leave; see the file's measurement. One under `loom`, to reach sleep.
const SPINS: u32 = if cfg!(loom) { 1 } else { 60 };

/// Mutual exclusion for `T`.
pub(crate) struct Mutex<T> {
    /// **Any thread; atomic.** See the table of states.
    state: AtomicU32,
    /// The kernel's queue of sleepers, for the model checker.
    #[cfg(loom)]
    sleepers: model::Sleepers,
    #[cfg(feature = "lock-stats")]
    usage: Usage,
    /// **Under this lock.**
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a `Guard` only, one at a time (the file's invariant), so
// sharing the mutex only moves access to `T` from thread to thread.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    const_unless_loom! {
        /// A free lock around `value`.
        pub(crate) fn new(value: T) -> Self {
            Self {
                state: AtomicU32::new(FREE),
                #[cfg(loom)]
                sleepers: model::Sleepers::new(),
                #[cfg(feature = "lock-stats")]
                usage: Usage::new(),
                value: UnsafeCell::new(value),
            }
        }
    }

    /// Waits until the lock is free and takes it.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        // Acquire pairs with the Release in `unlock`: what the last holder wrote is visible.
        if self
            .state
            .compare_exchange(FREE, HELD, Acquire, Relaxed)
            .is_err()
        {
            return self.lock_slow();
        }
        Guard::new(self)
    }

    /// What is counted about the lock.
    #[cfg(feature = "lock-stats")]
    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Takes the lock if it is free at this moment.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        // Acquire pairs with the Release in `unlock`.
        let taken = self.state.compare_exchange(FREE, HELD, Acquire, Relaxed);
        taken.is_ok().then(|| Guard::new(self))
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self) -> Guard<'_, T> {
        #[cfg(not(loom))]
        if super::fork_owner::is_here() {
            let mut guard = Guard::new(self);
            guard.release = false;
            return guard;
        }
        #[cfg(not(loom))]
        super::waits::count_wait();
        #[cfg(feature = "lock-stats")]
        let waiting = crate::sys::ticks();
        self.wait();
        #[cfg(feature = "lock-stats")]
        return Guard::after_wait(self, waiting);
        #[cfg(not(feature = "lock-stats"))]
        Guard::new(self)
    }

    fn wait(&self) {
        for _ in 0..SPINS {
            // Relaxed: only a hint that the exchange is worth trying.
            if self.state.load(Relaxed) == FREE
                && self
                    .state
                    .compare_exchange(FREE, HELD, Acquire, Relaxed)
                    .is_ok()
            {
                return;
            }
            spin();
        }
        // Who has slept takes the lock in state 2: others may sleep still.
        // Acquire pairs with the Release in `unlock`.
        if self.state.swap(HELD_WITH_SLEEPERS, Acquire) == FREE {
            return;
        }
        #[cfg(not(loom))]
        super::waits::count_sleep();
        self.sleep();
        // As above.
        while self.state.swap(HELD_WITH_SLEEPERS, Acquire) != FREE {
            self.sleep();
        }
    }

    /// Whether the lock comes free before the clock [`sys::now_ns`](crate::sys::now_ns) says so much. If it
    /// does, the calling thread does not hold it, as a thread might that a signal has interrupted.
    #[cfg(not(loom))]
    pub(crate) fn comes_free(&self, deadline_ns: u64) -> bool {
        while self.try_lock().is_none() {
            if super::fork_owner::is_here() {
                return true;
            }
            if crate::sys::now_ns() >= deadline_ns {
                return false;
            }
            crate::sys::yield_now();
        }
        true
    }

    /// Takes the lock and forgets the guard: for `fork`, which can't keep guards across it.
    pub(crate) fn lock_for_fork(&self) {
        #[cfg_attr(
            not(loom),
            expect(unused_mut, reason = "only the model checker's part changes")
        )]
        let mut guard = self.lock();
        #[cfg(loom)]
        {
            guard.value = None; // No access outlives the guard in the model checker.
        }
        core::mem::forget(guard);
    }

    /// The value, between [`Self::lock_for_fork`] and [`Self::unlock_after_fork`].
    ///
    /// # Safety
    /// The calling thread (or its copy in the child of a `fork`) took the lock by `lock_for_fork`,
    /// has not given it back since, and has no other reference to the value.
    #[cfg(not(loom))]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn value_for_fork(&self) -> &mut T {
        // SAFETY: the lock is held by the caller, so no guard exists; the caller's promise.
        unsafe { &mut *self.value.get() }
    }

    /// Gives back what [`Self::lock_for_fork`] took.
    ///
    /// # Safety
    /// The calling thread (or its copy in the child of a `fork`) took the lock by `lock_for_fork`,
    /// and has not given it back since.
    pub(crate) unsafe fn unlock_after_fork(&self) {
        self.unlock();
    }

    #[inline]
    fn unlock(&self) {
        // Release pairs with the Acquire of the next holder.
        if self.state.swap(FREE, Release) == HELD_WITH_SLEEPERS {
            self.wake_one();
        }
    }

    /// Sleeps while the lock is held with sleepers. May return early.
    fn sleep(&self) {
        #[cfg(not(loom))]
        crate::sys::futex_wait(&self.state, HELD_WITH_SLEEPERS);
        #[cfg(loom)]
        self.sleepers
            .wait(|| self.state.load(Relaxed) == HELD_WITH_SLEEPERS);
    }

    /// Wakes one sleeper.
    #[cold]
    #[inline(never)]
    fn wake_one(&self) {
        #[cfg(not(loom))]
        crate::sys::futex_wake(&self.state);
        #[cfg(loom)]
        self.sleepers.wake();
    }
}

/// The right to use the value of a [`Mutex`], given back on drop.
pub(crate) struct Guard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Whether the lock is given back on drop: not by who has them all, around a `fork`.
    release: bool,
    /// When the lock was taken.
    #[cfg(feature = "lock-stats")]
    since: u64,
    /// Tells the model checker that the value is in use. `Some` until drop.
    #[cfg(loom)]
    value: Option<loom::cell::MutPtr<T>>,
}

impl<'a, T> Guard<'a, T> {
    #[inline]
    fn new(mutex: &'a Mutex<T>) -> Self {
        Self {
            mutex,
            release: true,
            #[cfg(feature = "lock-stats")]
            since: mutex.usage.taken(None),
            #[cfg(loom)]
            value: Some(mutex.value.get_mut()),
        }
    }

    /// The guard of who waited for the lock.
    #[cfg(feature = "lock-stats")]
    fn after_wait(mutex: &'a Mutex<T>, waiting: u64) -> Self {
        Self {
            mutex,
            release: true,
            since: mutex.usage.taken(Some(waiting)),
            #[cfg(loom)]
            value: Some(mutex.value.get_mut()),
        }
    }

    #[inline]
    fn pointer(&self) -> *mut T {
        #[cfg(not(loom))]
        {
            self.mutex.value.get()
        }
        #[cfg(loom)]
        {
            self.value
                .as_ref()
                .map_or(core::ptr::null_mut(), |value| value.with(|pointer| pointer))
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard is the only one (the file's invariant), and is borrowed.
        unsafe { &*self.pointer() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the only one (the file's invariant), and is borrowed mutably.
        unsafe { &mut *self.pointer() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        #[cfg(loom)]
        {
            self.value = None; // The model checker sees the access end before the lock is free.
        }
        #[cfg(feature = "lock-stats")]
        self.mutex.usage.leaves(self.since);
        if self.release {
            self.mutex.unlock();
        }
    }
}

#[cfg(not(loom))]
fn spin() {
    core::hint::spin_loop();
}

#[cfg(loom)]
fn spin() {
    loom::thread::yield_now();
}

/// The kernel's part of a futex, for the model checker: the check and the sleep are one step, so a
/// lost wake-up is a deadlock that the checker reports.
#[cfg(loom)]
pub(super) mod model {
    std::thread_local! {
        /// Sleeps so far. The checker runs all threads of a model in one thread of the system.
        static SLEEPS: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
    }

    /// How often threads of models that this thread has run were put to sleep.
    pub(crate) fn sleeps() -> usize {
        SLEEPS.get()
    }

    pub(crate) struct Sleepers {
        lock: loom::sync::Mutex<()>,
        woken: loom::sync::Condvar,
    }

    impl Sleepers {
        pub(crate) fn new() -> Self {
            Self {
                lock: loom::sync::Mutex::new(()),
                woken: loom::sync::Condvar::new(),
            }
        }

        pub(crate) fn wait(&self, still: impl Fn() -> bool) {
            let guard = self.lock.lock().unwrap();
            if still() {
                SLEEPS.set(SLEEPS.get() + 1);
                drop(self.woken.wait(guard).unwrap());
            }
        }

        pub(crate) fn wake(&self) {
            let _guard = self.lock.lock().unwrap();
            self.woken.notify_one();
        }
    }
}
