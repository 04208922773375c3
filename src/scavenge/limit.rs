//! The memory limit: as it comes near, caches are emptied and free pages released, before the heap grows.
//!
//! The limit is soft, like Go's: what the program needs it gets. The page heap releases free pages before
//! it takes fresh ones that would exceed the limit (`mheap::limit`); when that is not enough, slow calls
//! give back here what other caches keep, for a quarter of a CPU at most: a program that needs more than
//! its limit becomes slower, but goes on. With a hard limit the page heap says no.

use super::SCAVENGER;
use crate::base::PAGE_BYTES;
use crate::base::pace::Pace;
use crate::runtime::{self, Idle};
use crate::{backed, config, mcentral, mheap, sys};

/// One part of so many of the time may be spent.
const SHARE_DIVISOR: u64 = 4;
/// After a try that gave little, the next one comes this much later, doubled for each in a row: 2 ms.
const WAIT_NS: u64 = 2_000_000;
/// At most 2^7 times.
const DOUBLINGS_MAX: u32 = 7;
/// A try that gives back less than one part of so many of the limit gave little.
const LITTLE_DIVISOR: usize = 512;
/// Threads looked at in one try.
const THREADS_A_TRY: usize = 16;
/// Spans whose free slots are released in one try.
const SPANS_A_TRY: u32 = 256;

/// When to try again. **Under [`SCAVENGER`]**.
pub(super) struct Limiter {
    pace: Pace<SHARE_DIVISOR>,
    next_ns: u64,
    /// Tries in a row that gave little.
    in_vain: u32,
    /// Where the look at threads goes on.
    threads_seen: usize,
}

impl Limiter {
    pub(super) const fn new() -> Self {
        Self {
            pace: Pace::new(),
            next_ns: 0,
            in_vain: 0,
            threads_seen: 0,
        }
    }
}

/// Whether the page heap could not keep below the limit alone.
#[inline]
pub(super) fn is_near() -> bool {
    backed::above_limit(0) > 0
}

/// Gives back what caches keep. The caller holds no lock, and none of its own state is in pieces.
#[cold]
#[inline(never)]
pub(super) fn relieve() {
    let Some(mut scavenger) = SCAVENGER.try_lock() else {
        return;
    };
    let limiter = &mut scavenger.limiter;
    let now_ns = sys::coarse_ns();
    limiter.pace.earn(now_ns);
    if now_ns < limiter.next_ns || !limiter.pace.has_time() {
        return;
    }
    let start_ns = sys::thread_cpu_ns();
    let before = backed::bytes();
    limiter.give_back();
    let spent_ns = sys::thread_cpu_ns().saturating_sub(start_ns);
    limiter.pace.spend(spent_ns);
    let given = before.saturating_sub(backed::bytes());
    if given < config::memory_limit_bytes() / LITTLE_DIVISOR {
        limiter.next_ns = now_ns + (WAIT_NS << limiter.in_vain.min(DOUBLINGS_MAX));
        limiter.in_vain += 1;
    } else {
        limiter.in_vain = 0;
    }
}

/// Gives back everything that can go, for an allocation that a hard limit refuses; whether that was anything,
/// and there was time for it.
pub(super) fn finds_room() -> bool {
    if !config::is_limit_hard() {
        return false;
    }
    // Waits for a step that is under way: that one may leave what is needed here. Who waits holds no lock, and
    // no call under this one allocates.
    let mut scavenger = SCAVENGER.lock();
    let pace = &mut scavenger.limiter.pace;
    pace.earn(sys::coarse_ns());
    if !pace.has_time() {
        return false;
    }
    let start_ns = sys::thread_cpu_ns();
    // Not how many are backed now: others may have taken some of it already, and left the rest.
    let given = super::give_back_all();
    pace.spend(sys::thread_cpu_ns().saturating_sub(start_ns));
    given > 0
}

impl Limiter {
    /// Gives back until the limit is not near any more, cheapest first.
    fn give_back(&mut self) {
        if is_far_after_release() {
            return;
        }
        mheap::run_cache::drain();
        mcentral::drain_depots();
        runtime::empty_free_mcaches();
        if is_far_after_release() {
            return;
        }
        let threads = self.threads_seen..self.threads_seen + THREADS_A_TRY;
        let seen = runtime::empty_idle(Idle::Now, threads);
        self.threads_seen = if seen < THREADS_A_TRY {
            0
        } else {
            self.threads_seen + seen
        };
        mcentral::begin_round();
        mcentral::begin_round();
        mcentral::release_idle_slots(SPANS_A_TRY);
        is_far_after_release();
    }
}

/// Releases free pages as far as needed; whether the limit is not near any more.
fn is_far_after_release() -> bool {
    let excess = backed::above_limit(0);
    if excess > 0 {
        let pages = excess.div_ceil(PAGE_BYTES);
        mheap::release_pages(pages, pages);
    }
    !is_near()
}
