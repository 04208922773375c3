//! The mcaches of idle threads are emptied by others.
//!
//! A thread that sleeps for long holds free objects and spans that nobody else can use. To take them
//! back without a lock or an atomic operation on the thread's fast path:
//!
//! 1. Its slot is changed from its mcache to `EMPTY`.
//! 2. All threads pass a memory barrier (`membarrier`): from here on no operation of the thread that
//!    begins finds the mcache. One that has read the slot before may still be under way.
//! 3. If the thread is in a slow call ([`MCache::is_busy_now`]), or the kernel does not say that it waits
//!    in a system call outside of signal handlers, the mcache is left alone. Else nothing is under way: fast
//!    paths make no system call, what a handler has interrupted is not looked at, and slow calls say that they
//!    are busy.
//! 4. The mcache is emptied as its owner would do it.
//!
//! In any case the thread's next call is a slow one, which finds the mcache by the exit hook's value and
//! puts it into the slot again. All of this happens under the `REGISTRY` lock, for which the owner
//! waits, then and when it exits; so its slot exists in step 1.
//!
//! Who is idle: a thread without a slow call between two looks. One that only allocates and frees the same
//! few objects looks so as well, unless it runs, and loses a refill.

#![allow(unsafe_code)]

use core::ops::Range;

use super::{EXIT_HOOK, REGISTRY};
use crate::mcache::{self, EMPTY, Face, MCache, Owner};
use crate::sys::{self, SlotOfThread, Wait};

/// Which threads count as idle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    /// Those without a slow call since the last look.
    SinceLastLook,
    /// All that wait in a system call.
    Now,
}

/// The calling thread's mcache, whether or not its slot has it.
pub(super) fn own() -> Option<&'static MCache> {
    let hook = (*EXIT_HOOK.get()?)?;
    // SAFETY: mcaches live for ever, and the hook's value is the thread's.
    hook.value()
        .map(|mcache| unsafe { mcache.cast::<MCache>().as_ref() })
}

/// Gives the calling thread the mcache again that was emptied; false if it has none.
#[cold]
pub(super) fn has_again() -> bool {
    let Some(own) = own() else { return false };
    // Who empties it has this lock.
    let registry = REGISTRY.lock();
    sys::set_thread_slot(own.face().as_word());
    drop(registry);
    true
}

/// From here on the mcache of the calling thread may be emptied by others.
pub(super) fn may_be_emptied(own: &MCache) {
    let thread = sys::kernel_thread_id();
    let owner = SlotOfThread::here().map(|slot| Owner { slot, thread });
    let registry = REGISTRY.lock();
    own.owner.set(owner);
    own.calls_when_emptied.set(own.slow_calls().wrapping_sub(1));
    drop(registry);
}

/// All threads look again which face of their mcache is theirs, with their next call. One that is in the middle
/// of a fast path meanwhile ends it.
#[cold]
pub(super) fn all_attach_again() {
    for mcache in mcache::all() {
        let _registry = REGISTRY.lock();
        let Some(owner) = mcache.owner.get() else {
            continue;
        };
        for face in mcache.faces() {
            let empty = Face::of_sentinel(&EMPTY);
            // SAFETY: the owner's exit hook takes the lock that is held here before the thread ends.
            unsafe { owner.slot.replace(face.as_word(), empty.as_word()) };
        }
    }
}

/// In the child of a `fork`: there is no thread but this one, which has another number.
pub(super) fn forget_others(own: Option<&MCache>) {
    for mcache in mcache::all() {
        mcache.owner.set(None);
        #[cfg(feature = "secure")]
        mcache.forget_random();
    }
    let slot = SlotOfThread::here();
    if let (Some(own), Some(slot)) = (own, slot) {
        let thread = sys::kernel_thread_id();
        own.owner.set(Some(Owner { slot, thread }));
    }
}

/// Looks at the mcaches with these numbers, from the newest on, and empties those of idle threads. How
/// many there are.
pub(crate) fn empty(which: Idle, numbers: Range<usize>) -> usize {
    mcache::all()
        .skip(numbers.start)
        .take(numbers.len())
        .inspect(|mcache| empty_if_idle(mcache, which))
        .count()
}

fn empty_if_idle(mcache: &MCache, which: Idle) {
    let _registry = REGISTRY.lock();
    let Some(owner) = mcache.owner.get() else {
        return;
    };
    let calls = mcache.slow_calls();
    let is_idle = mcache.calls_seen.replace(calls) == calls || which == Idle::Now;
    // An mcache is filled by slow calls only.
    if !is_idle || calls == mcache.calls_when_emptied.get() {
        return;
    }
    // First a look, so that threads that run are not disturbed.
    let Some(wait) = Wait::of(owner.thread) else {
        return;
    };
    let (face, empty) = (mcache.face(), Face::of_sentinel(&EMPTY));
    // SAFETY: the owner's exit hook takes the lock that is held here before the thread ends.
    if !unsafe { owner.slot.replace(face.as_word(), empty.as_word()) }
        || !sys::barrier_in_all_threads()
        || mcache.is_busy_now()
        || !wait.lasts()
    {
        return;
    }
    mcache.flush_all();
    mcache.release_slots();
    mcache.calls_when_emptied.set(mcache.slow_calls());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::alone;
    use crate::base::size_class::{SizeClass, class_for};
    use crate::malloc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;
    use std::vec::Vec;

    fn alloc(size: usize) -> *mut u8 {
        let object = malloc::alloc(size, 8);
        assert!(!object.is_null());
        object
    }

    fn free(object: *mut u8, size: usize) {
        // SAFETY: the tests free what they allocated with that size, once.
        unsafe { malloc::free(object, size, 8) }
    }

    /// Leaves free objects in the calling thread's mcache.
    fn fill(size: usize) {
        let objects: Vec<_> = (0..1000).map(|_| alloc(size)).collect();
        objects.iter().for_each(|object| free(*object, size));
    }

    /// Empties the mcaches of all threads that wait. Only in a process that the test has to itself, for the
    /// sake of the others.
    fn empty_all() {
        empty(Idle::Now, 0..usize::MAX);
    }

    /// Whether the system can do what is needed. Some sandboxes cannot.
    fn can_be_emptied() -> bool {
        sys::barrier_in_all_threads() && std::fs::read("/proc/thread-self/syscall").is_ok()
    }

    #[test]
    fn a_thread_that_waits_loses_its_objects_and_works_on() {
        alone(|| {
            if !can_be_emptied() {
                std::eprintln!("skipped: the system does not tell who waits, or has no barrier");
                return;
            }
            let (to_main, from_thread) = mpsc::channel();
            let (to_thread, from_main) = mpsc::channel::<()>();
            let thread = thread::spawn(move || {
                fill(200);
                let own = own().unwrap();
                to_main.send(core::ptr::from_ref(own).addr()).unwrap();
                from_main.recv().unwrap();
                let object = alloc(200);
                free(object, 200);
                super::super::magazines() == own.face()
            });
            let address = from_thread.recv().unwrap();
            let mcache = mcache::all()
                .find(|mcache| core::ptr::from_ref(*mcache).addr() == address)
                .unwrap();
            let held = || -> usize {
                let classes = (1..crate::base::size_class::MAGAZINES).map(SizeClass::new);
                classes.map(|class| mcache.len(class)).sum()
            };
            assert!(held() > 0);
            // It waits for the channel, or is about to.
            while held() > 0 {
                empty_all();
                thread::yield_now();
            }
            to_thread.send(()).unwrap();
            assert!(thread.join().unwrap(), "it has another mcache");
        });
    }

    #[test]
    fn a_thread_in_a_slow_call_is_left_alone() {
        alone(|| {
            let (to_main, from_thread) = mpsc::channel();
            let (to_thread, from_main) = mpsc::channel::<()>();
            let thread = thread::spawn(move || {
                fill(300);
                let entered = super::super::mcache().unwrap();
                let class = class_for(300, 8);
                let before = entered.len(class);
                to_main.send(()).unwrap();
                from_main.recv().unwrap();
                before > 0 && entered.len(class) == before
            });
            from_thread.recv().unwrap();
            for _ in 0..100 {
                empty_all();
                thread::yield_now();
            }
            to_thread.send(()).unwrap();
            assert!(thread.join().unwrap());
        });
    }

    #[test]
    fn threads_that_come_and_go_keep_their_objects() {
        alone(|| {
            const THREADS: usize = 4;
            const ROUNDS: usize = 400;
            let running = AtomicUsize::new(THREADS);
            thread::scope(|scope| {
                for number in 0..THREADS {
                    let running = &running;
                    scope.spawn(move || {
                        let mut random = 0x9e37_79b9_u64 * (number as u64 + 1);
                        let mut next = move || {
                            random ^= random << 13;
                            random ^= random >> 7;
                            random ^= random << 17;
                            random as usize
                        };
                        let tag = |place: usize| (number * 1_000_000 + place) as u64;
                        let mut held: Vec<(*mut u8, usize, u64)> = Vec::new();
                        for round in 0..ROUNDS {
                            for place in 0..next() % 200 {
                                if next() % 2 == 0 || held.is_empty() {
                                    let size = 8 << (next() % 8);
                                    let object = alloc(size);
                                    // SAFETY: the object has at least 8 bytes, aligned.
                                    unsafe { object.cast::<u64>().write(tag(place)) };
                                    held.push((object, size, tag(place)));
                                } else {
                                    let (object, size, tag) = held.swap_remove(next() % held.len());
                                    // SAFETY: as above.
                                    assert_eq!(unsafe { object.cast::<u64>().read() }, tag);
                                    free(object, size);
                                }
                            }
                            if round % 4 != 0 {
                                // A system call in which it may be met: nearly none, or a wait.
                                match next() % 3 {
                                    0 => thread::yield_now(),
                                    1 => thread::sleep(Duration::from_micros(50)),
                                    _ => thread::sleep(Duration::from_micros(500)),
                                }
                            }
                        }
                        for (object, size, tag) in held {
                            // SAFETY: as above.
                            assert_eq!(unsafe { object.cast::<u64>().read() }, tag);
                            free(object, size);
                        }
                        running.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                while running.load(Ordering::Relaxed) > 0 {
                    empty_all();
                }
            });
        });
    }

    #[test]
    fn a_signal_handler_that_waits_in_the_middle_of_a_call_loses_nothing() {
        alone(|| {
            const KEPT: usize = 64;
            const SIZE: usize = 400;
            extern "C" fn handler(_: libc::c_int) {
                let time = libc::timespec {
                    tv_sec: 0,
                    tv_nsec: 20_000,
                };
                // SAFETY: may be called in handlers; `time` is valid.
                unsafe { libc::nanosleep(&time, core::ptr::null_mut()) };
            }
            // SAFETY: an all-zero `sigaction` is valid; the handler does what handlers may.
            unsafe {
                let mut action: libc::sigaction = core::mem::zeroed();
                action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(libc::SIGUSR1, &action, core::ptr::null_mut());
            }
            let take_and_free = |tag: u64| {
                let held = [(); KEPT].map(|()| alloc(SIZE));
                for object in held {
                    // SAFETY: the object has at least 8 bytes, aligned.
                    unsafe { object.cast::<u64>().write(tag) };
                }
                for object in held {
                    // SAFETY: as above.
                    assert_eq!(unsafe { object.cast::<u64>().read() }, tag);
                    free(object, SIZE);
                }
            };
            let (to_main, from_thread) = mpsc::channel();
            let stop = AtomicUsize::new(0);
            thread::scope(|scope| {
                let stop = &stop;
                scope.spawn(move || {
                    // SAFETY: no precondition.
                    to_main.send(unsafe { libc::pthread_self() }).unwrap();
                    while stop.load(Ordering::Relaxed) == 0 {
                        take_and_free(1);
                    }
                });
                let thread = from_thread.recv().unwrap();
                for _ in 0..4_000 {
                    // SAFETY: the thread has not ended.
                    unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                    // It gets the signal, and waits.
                    for _ in 0..10 {
                        empty_all();
                    }
                    take_and_free(2);
                }
                stop.store(1, Ordering::Relaxed);
            });
        });
    }
}
