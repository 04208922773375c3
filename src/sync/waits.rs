//! How often threads waited for a lock: counted where they wait, so that a free lock costs nothing more.

use crossbeam_utils::CachePadded;

use super::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sys;

/// Counters of each kind, by CPU, so that threads that wait do not wait for a counter as well.
const COUNTERS: usize = 8;

struct Counters {
    waits: AtomicU64,
    sleeps: AtomicU64,
}

/// **Any thread; atomic.**
static ALL: [CachePadded<Counters>; COUNTERS] = [const {
    CachePadded::new(Counters {
        waits: AtomicU64::new(0),
        sleeps: AtomicU64::new(0),
    })
}; COUNTERS];

fn here() -> &'static Counters {
    &ALL[sys::current_cpu() % COUNTERS]
}

/// Counts that a thread found a lock held by another.
pub(super) fn count_wait() {
    here().waits.fetch_add(1, Relaxed);
}

/// Counts that such a wait became a sleep, or several: the thread may find the lock held again.
pub(super) fn count_sleep() {
    here().sleeps.fetch_add(1, Relaxed);
}

/// How often threads found a lock held by another, and how often they slept for one.
pub(crate) fn counted() -> (u64, u64) {
    ALL.iter().fold((0, 0), |(waits, sleeps), counters| {
        (
            waits + counters.waits.load(Relaxed),
            sleeps + counters.sleeps.load(Relaxed),
        )
    })
}
