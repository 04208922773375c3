//! The scavenger: free memory goes back to the system when it has not been needed for a while.
//!
//! [`policy`] says how much may stay and how much time there is. The work is done by a thread of its own
//! ([`background`]), or else a little at a time by calls that are slow anyway: one of them in so many
//! milliseconds looks at the heap, and releases as much as the time allows. What is kept beside the page
//! heap, in run caches, depots and the mcaches of idle threads, goes back to it when it was not touched
//! for a round. Under a memory limit ([`limit`]) more goes, and sooner.
//!
//! Invariants:
//!
//! 1. A step is taken without any lock but its own, for which no call waits; but for `trim`, and for an
//!    allocation that a hard limit refuses.
//! 2. No call does more than one step, and a step by a call is at most [`PIECES_A_CALL`] pieces.

mod background;
mod limit;
mod policy;

pub(crate) use background::{start, wake_for_report, wake_if_last};

use policy::{Patience, Policy, SHARE_DIVISOR};

use crate::base::pace::Pace;
use crate::config::{self, Release};
use crate::mheap::{self, RELEASE_PAGES};
use crate::runtime::{self, Idle};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::{backed, mcentral, sys};
use limit::Limiter;

/// Time between two steps while there is nothing to release: 50 ms.
const STEP_NS: u64 = 50_000_000;
/// Time after which caches give back what they did not need in it: 1 s.
const ROUND_NS: u64 = 1_000_000_000;
/// Spans whose free slots are released in one piece.
const SPANS_A_PIECE: u32 = 64;
/// Threads looked at in one piece.
const THREADS_A_PIECE: usize = 8;
/// Pieces of work in a step by a call: with [`RELEASE_PAGES`] up to 16 MiB.
const PIECES_A_CALL: u32 = 4;
/// Pieces of work for which the thread keeps the lock.
const PIECES_A_STEP: u32 = 16;

/// What the scavenger knows. **Under [`SCAVENGER`]**.
struct Scavenger {
    policy: Policy,
    pace: Pace<SHARE_DIVISOR>,
    limiter: Limiter,
    /// When what was not needed in this round is given back.
    round_ends_ns: u64,
    /// Threads looked at in this round: whether they are idle.
    threads_seen: usize,
    /// Whether all were.
    all_threads_seen: bool,
    /// Whether there may be spans with free slots to release.
    has_idle_spans: bool,
    /// Pages in free mappings of huge objects that nobody needed in the last round.
    idle_mapped: usize,
}

static SCAVENGER: Mutex<Scavenger> = Mutex::new(Scavenger {
    policy: Policy::new(),
    pace: Pace::new(),
    limiter: Limiter::new(),
    round_ends_ns: 0,
    threads_seen: 0,
    all_threads_seen: true,
    has_idle_spans: false,
    idle_mapped: 0,
});

/// When the next step is due; zero if there is more to do now. **Any thread; atomic**: a hint, the lock
/// decides.
static NEXT_STEP_NS: AtomicU64 = AtomicU64::new(0);

/// Before a slow call that may take memory. The caller holds no lock.
#[inline]
pub(crate) fn before_alloc() {
    if limit::is_near() {
        limit::relieve();
    }
}

/// After an allocation was refused: whether it is worth another try, because caches gave something back.
/// The caller holds no lock.
#[cold]
#[inline(never)]
pub(crate) fn finds_room() -> bool {
    // The system may have refused: free mappings have address space as well, which may be limited.
    mheap::huge::release_all() > 0 || runtime::empty_page_caches() > 0 || limit::finds_room()
}

/// After a slow call that allocated. The caller holds no lock, and none of its own state is in pieces.
#[inline]
pub(crate) fn after_alloc() {
    if !background::sees_to_it() {
        at_slow_call();
        background::start_if_useful();
    }
}

/// After a slow call that freed; as [`after_alloc`]. Never starts a thread: the C library frees under
/// locks that starting one needs.
#[inline]
pub(crate) fn after_free() {
    if !background::sees_to_it() {
        at_slow_call();
    }
}

/// Takes a step if one is due.
#[inline]
fn at_slow_call() {
    // Relaxed: who reads an old time meets the lock, or a step that finds nothing to do.
    let next_ns = NEXT_STEP_NS.load(Relaxed);
    if next_ns != 0 && !runtime::looks_at_clock() {
        return;
    }
    let now_ns = sys::coarse_ns();
    if now_ns >= next_ns {
        step_of_call(now_ns);
    }
}

#[cold]
#[inline(never)]
fn step_of_call(now_ns: u64) {
    let Some(mut scavenger) = SCAVENGER.try_lock() else {
        return;
    };
    let patience = background::patience();
    let has_more = scavenger.step(now_ns, patience, PIECES_A_CALL);
    // If there is more, the next slow call goes on.
    NEXT_STEP_NS.store(if has_more { 0 } else { now_ns + STEP_NS }, Relaxed);
}

impl Scavenger {
    /// Does up to so many pieces of work; whether there is more, and time for it.
    fn step(&mut self, now_ns: u64, patience: Patience, pieces: u32) -> bool {
        if config::release() == Release::Never {
            return false;
        }
        self.pace.earn(now_ns);
        if now_ns >= self.round_ends_ns {
            self.begin_round(now_ns);
        }
        let usage = mheap::usage();
        self.policy.note(now_ns, usage.in_use, usage.peak);
        for _ in 0..pieces {
            if !self.pace.has_time() {
                return false;
            }
            let start_ns = sys::thread_cpu_ns();
            let has_more = self.piece(patience);
            self.pace
                .spend(sys::thread_cpu_ns().saturating_sub(start_ns));
            if !has_more {
                return false;
            }
        }
        true
    }

    fn begin_round(&mut self, now_ns: u64) {
        let start_ns = sys::thread_cpu_ns();
        self.round_ends_ns = now_ns + ROUND_NS;
        self.has_idle_spans = true;
        self.threads_seen = 0;
        self.all_threads_seen = false;
        mcentral::begin_round();
        mcentral::shrink_depots();
        mheap::run_cache::shrink();
        self.idle_mapped = mheap::huge::begin_round();
        self.pace
            .spend(sys::thread_cpu_ns().saturating_sub(start_ns));
    }

    /// Does a piece of work. False if there is none.
    fn piece(&mut self, patience: Patience) -> bool {
        let usage = mheap::usage();
        let goal = match config::release() {
            Release::AtOnce => usage.in_use,
            _ => self.policy.goal(usage.in_use, patience),
        };
        let excess = (usage.in_use + usage.dirty).saturating_sub(goal);
        if excess > 0 {
            let released =
                mheap::release_pages(excess.min(RELEASE_PAGES as usize), self.idle_mapped);
            self.idle_mapped = self.idle_mapped.saturating_sub(released);
            if released > 0 {
                return true;
            }
        }
        if !self.all_threads_seen {
            let seen = runtime::empty_idle(
                Idle::SinceLastLook,
                self.threads_seen..self.threads_seen + THREADS_A_PIECE,
            );
            self.threads_seen += seen;
            self.all_threads_seen = seen < THREADS_A_PIECE;
            return true;
        }
        if self.has_idle_spans {
            let released = mcentral::release_idle_slots(SPANS_A_PIECE);
            self.has_idle_spans = released == SPANS_A_PIECE;
        }
        self.has_idle_spans
    }
}

/// Gives back everything that can go, now; the bytes that went to the system. Waits for a step that is
/// under way.
pub(crate) fn trim() -> usize {
    let _scavenger = SCAVENGER.lock();
    give_back_all()
}

/// The same under the lock.
fn give_back_all() -> usize {
    runtime::empty_caches();
    let pages = mheap::release_all();
    let before = backed::bytes();
    // The first round finds what is loose, the second that nobody needed it.
    mcentral::begin_round();
    mcentral::begin_round();
    mcentral::release_idle_slots(u32::MAX);
    pages + before.saturating_sub(backed::bytes())
}

/// For `fork`: the lock of this file.
pub(crate) fn lock_for_fork() {
    SCAVENGER.lock_for_fork();
}

/// For `fork`: gives the lock back.
///
/// # Safety
/// As for [`Mutex::unlock_after_fork`].
#[allow(unsafe_code)]
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: the caller's contract.
    unsafe { SCAVENGER.unlock_after_fork() };
}

/// In the child of a `fork`: it has no thread.
pub(crate) fn after_fork_in_child() {
    background::has_gone();
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::alone::alone;
    use crate::base::PAGE_BYTES;
    use crate::large;
    use std::vec::Vec;

    #[test]
    fn a_peak_goes_back_within_ten_seconds_of_slow_calls() {
        alone(|| {
            const MIB: usize = 1 << 20;
            let objects: Vec<*mut u8> = (0..48).map(|_| large::alloc(MIB, 8, false)).collect();
            for object in &objects {
                assert!(!object.is_null());
                for page in (0..MIB).step_by(4096) {
                    // SAFETY: a byte of the object.
                    unsafe { object.add(page).write(1) };
                }
            }
            // A clock of the test's own, ahead of the real one: steps of slow calls find nothing due.
            let start_ns = sys::coarse_ns() + 3_600_000_000_000;
            let step = |now_ns| {
                let mut scavenger = SCAVENGER.lock();
                while scavenger.step(now_ns, Patience::Much, PIECES_A_CALL) {}
            };
            step(start_ns);
            for object in objects {
                large::free(object, None);
            }
            step(start_ns + 2_000_000_000);
            let soon = mheap::usage();
            assert!(soon.dirty * PAGE_BYTES >= 32 * MIB, "{} pages", soon.dirty);
            for round in 0..200 {
                step(start_ns + 2_000_000_000 + round * STEP_NS);
            }
            let late = mheap::usage();
            let most = late.in_use / 4 + 4 * MIB / PAGE_BYTES;
            assert!(late.dirty <= most, "{} of {}", late.dirty, late.in_use);
        });
    }
}
