//! The background thread: does the scavenger's steps, also while the program does nothing.
//!
//! It starts when the heap has become large enough for it to matter ([`FROM_BYTES`]), or at once if reports
//! are to be made while the program runs ([`mod@crate::report`]), in a call that
//! allocates: not in one that frees, because the C library frees under locks that starting a thread needs.
//! While the program works it takes a step four times a second; when there is nothing to give back and
//! nobody allocates, it sleeps until a slow call wakes it, a report is due or a signal asks for one. Apart
//! from a heap profile it makes nothing that allocates, and all signals are blocked in it. It is detached: the
//! end of the process does not wait for it. If all other threads end without `exit`, it ends as well, and with
//! it the process.
//!
//! The child of a `fork` has none at first ([`AFTER_FORK_NS`]): until it executes another program it may only
//! do what a process with one thread may (`unshare`, `setns`), and the C library's locks may be held by threads
//! that it does not have.
//!
//! | state | meaning |
//! |---|---|
//! | off | there is none |
//! | awake | it takes steps |
//! | asleep | it waits for a slow call |
//! | failed | there can be none: calls take the steps |

use core::ffi::c_void;
use core::ptr;

use super::policy::Patience;
use super::{PIECES_A_STEP, SCAVENGER};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::sync::request::{self, ASLEEP, AWAKE};
use crate::{backed, config, mcache, mheap, report, sys};

const OFF: u32 = 0;
const FAILED: u32 = 3;

const _: () = assert!(OFF != AWAKE && OFF != ASLEEP && FAILED != AWAKE && FAILED != ASLEEP);

/// **Any thread; atomic**, and a futex.
static STATE: AtomicU32 = AtomicU32::new(OFF);

/// Backed bytes from which on the thread is worth its while: 16 MiB.
const FROM_BYTES: usize = 16 << 20;
/// Time between two steps: 250 ms.
const STEP_NS: u64 = 250_000_000;
/// Time between two steps if there is more to do: 1 ms.
const PAUSE_NS: u64 = 1_000_000;
/// Steps without a change after which it sleeps: 5 s, five rounds of the caches.
const STEPS_TO_SLEEP: u32 = 20;
/// Time after which it looks whether it is the last thread: 10 s.
const ASLEEP_NS: u64 = 10_000_000_000;
/// Time after a `fork` in which the child does not start the thread unless it is told to: 10 s. A child that
/// lives longer serves.
const AFTER_FORK_NS: u64 = 10_000_000_000;

/// From when on the thread may be started by itself. **Any thread; atomic**; written in the child of a `fork`.
static MAY_START_NS: AtomicU64 = AtomicU64::new(0);

/// Whether the thread takes the steps, so that calls need not. Wakes it if it sleeps.
#[inline]
pub(super) fn sees_to_it() -> bool {
    // Relaxed: the state publishes nothing but itself.
    match STATE.load(Relaxed) {
        AWAKE => config::background(),
        ASLEEP if config::background() => {
            wake();
            true
        }
        // It may be there for reports alone.
        _ => false,
    }
}

/// How long to wait for a peak to come back.
pub(super) fn patience() -> Patience {
    if config::background() && STATE.load(Relaxed) != FAILED {
        Patience::Much
    } else {
        Patience::Little
    }
}

/// Starts the thread if it is wanted, and the heap is large enough for it or there are reports to make.
#[inline]
pub(super) fn start_if_useful() {
    let is_useful = || {
        backed::bytes() >= FROM_BYTES
            && config::background()
            && sys::coarse_ns() >= MAY_START_NS.load(Relaxed)
    };
    if STATE.load(Relaxed) == OFF && (report::needs_thread() || is_useful()) {
        let _ = start();
    }
}

/// Starts the thread if there is none; whether there is one then. The caller holds no lock.
#[cold]
pub(crate) fn start() -> bool {
    // Before the thread exists: what starting it allocates finds it on its way.
    if let Err(now) = STATE.compare_exchange(OFF, AWAKE, Relaxed, Relaxed) {
        return now != FAILED;
    }
    // Where nobody says when it is the last thread, the process might never end.
    let started = sys::thread_count().is_some() && sys::start_thread(run);
    if !started {
        STATE.store(FAILED, Relaxed);
    }
    started
}

/// Wakes the thread for a report that was asked for just now. Safe in the handler of a signal.
pub(crate) fn wake_for_report() {
    request::wake(&STATE);
    // It may wait for the next step as well.
    sys::futex_wake(&STATE);
}

#[cold]
fn wake() {
    if STATE
        .compare_exchange(ASLEEP, AWAKE, Relaxed, Relaxed)
        .is_ok()
    {
        sys::futex_wake(&STATE);
    }
}

/// A thread ends that had an mcache: the last one but this, perhaps.
pub(crate) fn wake_if_last(threads_left: usize) {
    if threads_left == 0 && STATE.load(Relaxed) == ASLEEP {
        wake();
    }
}

/// In the child of a `fork`.
pub(super) fn has_gone() {
    MAY_START_NS.store(sys::coarse_ns() + AFTER_FORK_NS, Relaxed);
    STATE.store(OFF, Relaxed);
}

/// What changes while the program works.
#[derive(PartialEq, Eq)]
struct Look {
    slow_calls: u32,
    in_use: usize,
    dirty: usize,
}

impl Look {
    fn now() -> Self {
        let slow_calls = mcache::all().map(mcache::MCache::slow_calls);
        let pages = mheap::pages();
        Self {
            slow_calls: slow_calls.fold(0, u32::wrapping_add),
            in_use: pages.committed - pages.free,
            dirty: pages.dirty + pages.huge_free,
        }
    }
}

/// The thread.
extern "C" fn run(_: *mut c_void) -> *mut c_void {
    sys::name_thread();
    let mut last = Look::now();
    let mut unchanged = 0;
    while !sys::is_last_thread() {
        let scavenges = config::background();
        if !scavenges && !report::needs_thread() {
            break;
        }
        while scavenges
            && SCAVENGER
                .lock()
                .step(sys::coarse_ns(), Patience::Much, PIECES_A_STEP)
        {
            // Who waits for the lock gets it: `fork`, `trim`, an allocation that was refused.
            sys::futex_wait_for(&STATE, AWAKE, PAUSE_NS);
        }
        let until_report_ns = report::make_those_due();
        let look = Look::now();
        unchanged = if look == last { unchanged + 1 } else { 0 };
        last = look;
        if scavenges && unchanged < STEPS_TO_SLEEP {
            sys::futex_wait_for(&STATE, AWAKE, STEP_NS.min(until_report_ns));
        } else if let Some(may_sleep) = request::falls_asleep(&STATE, report::is_asked) {
            if may_sleep {
                sys::futex_wait_for(&STATE, ASLEEP, ASLEEP_NS.min(until_report_ns));
            }
            // Either it was woken, or it wakes by itself for a look.
            let woken = request::wakes_up(&STATE);
            unchanged = if woken { 0 } else { STEPS_TO_SLEEP };
        }
    }
    STATE.store(OFF, Relaxed);
    ptr::null_mut()
}
