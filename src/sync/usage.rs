//! How long locks are held and waited for: for measurements (feature `lock-stats`).
//!
//! Ticks are those of the processor's counter, which runs at one rate on all CPUs. Reading it takes
//! some twenty cycles, which are in what is measured.

use super::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sys;

/// What a lock counts. **Under the lock**, but read by anyone.
pub(crate) struct Usage {
    acquisitions: AtomicU64,
    waits: AtomicU64,
    held: AtomicU64,
    waited: AtomicU64,
}

impl Usage {
    pub(super) const fn new() -> Self {
        Self {
            acquisitions: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            held: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        }
    }

    /// Notes that the calling thread took the lock; after a wait since `waiting`, if it had to wait.
    /// Returns the time.
    pub(super) fn taken(&self, waiting: Option<u64>) -> u64 {
        let now = sys::ticks();
        add(&self.acquisitions, 1);
        if let Some(since) = waiting {
            add(&self.waits, 1);
            add(&self.waited, now.saturating_sub(since));
        }
        now
    }

    /// Notes that the calling thread, which has it since `since`, gives the lock back.
    pub(super) fn leaves(&self, since: u64) {
        add(&self.held, sys::ticks().saturating_sub(since));
    }
}

/// Adds, under the lock.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed) + count, Relaxed);
}

/// The use of one lock since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockUse {
    /// What locks of its kind guard.
    pub name: &'static str,
    /// Which of its kind it is: that of a size class, say.
    pub number: usize,
    /// Of which CPU it is, if there is one for each CPU (up to 32), so that more CPUs have more of
    /// them.
    pub cpu: Option<usize>,
    /// How often it was taken.
    pub acquisitions: u64,
    /// How often a thread had to wait.
    pub waits: u64,
    /// Ticks ([`ticks`]) for which it was held.
    pub held: u64,
    /// Ticks for which threads waited.
    pub waited: u64,
}

impl LockUse {
    pub(crate) fn of(name: &'static str, number: usize, cpu: Option<usize>, usage: &Usage) -> Self {
        Self {
            name,
            number,
            cpu,
            acquisitions: usage.acquisitions.load(Relaxed),
            waits: usage.waits.load(Relaxed),
            held: usage.held.load(Relaxed),
            waited: usage.waited.load(Relaxed),
        }
    }
}

/// The counter of the processor that all times of [`lock_uses`] are in.
pub fn ticks() -> u64 {
    sys::ticks()
}

/// The use of each lock since the start of the process, outermost first; those of one kind come one
/// after the other, always in the same order. `each` is called without a lock. Needs the feature
/// `lock-stats`, which makes every lock slower: for measurements only.
///
/// ```
/// let mut locks = 0;
/// spanmalloc::lock_uses(|_| locks += 1);
/// assert!(locks > 6);
/// ```
pub fn lock_uses(mut each: impl FnMut(LockUse)) {
    crate::runtime::lock_uses(&mut each);
    crate::mcentral::lock_uses(&mut each);
    #[cfg(feature = "preload")]
    crate::zero::lock_uses(&mut each);
    crate::mheap::spans::lock_uses(&mut each);
    crate::mheap::run_cache::lock_uses(&mut each);
    crate::mheap::lock_uses(&mut each);
    crate::meta::lock_uses(&mut each);
}
