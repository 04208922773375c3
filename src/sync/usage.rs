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

/// The use of all locks of one kind since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockUse {
    /// What the locks guard.
    pub name: &'static str,
    /// Whether there is one for each CPU (up to 32), so that more CPUs have more of them.
    pub by_cpu: bool,
    /// How often they were taken.
    pub acquisitions: u64,
    /// How often a thread had to wait.
    pub waits: u64,
    /// Ticks ([`ticks`]) for which they were held.
    pub held: u64,
    /// Ticks for which threads waited.
    pub waited: u64,
    /// Ticks for which the hottest lock was held, all CPUs' together if there is one for each.
    pub hottest_held: u64,
    /// Ticks for which that of its CPUs was held that was held longest.
    pub hottest_cpu_held: u64,
}

impl LockUse {
    pub(crate) fn new(name: &'static str, by_cpu: bool) -> Self {
        Self {
            name,
            by_cpu,
            ..Self::default()
        }
    }

    /// Adds a lock, given as those of all its CPUs.
    pub(crate) fn add<'a>(&mut self, cpus: impl Iterator<Item = &'a Usage>) {
        let mut all = 0;
        let mut longest = 0;
        for usage in cpus {
            let held = usage.held.load(Relaxed);
            self.acquisitions += usage.acquisitions.load(Relaxed);
            self.waits += usage.waits.load(Relaxed);
            self.waited += usage.waited.load(Relaxed);
            all += held;
            longest = longest.max(held);
        }
        self.held += all;
        if all > self.hottest_held {
            self.hottest_held = all;
            self.hottest_cpu_held = longest;
        }
    }
}

/// The counter of the processor that all times of [`lock_uses`] are in.
pub fn ticks() -> u64 {
    sys::ticks()
}

/// The use of each kind of lock since the start of the process, outermost first. Needs the feature
/// `lock-stats`, which makes every lock slower: for measurements only.
///
/// ```
/// let uses = spanmalloc::lock_uses();
/// assert!(uses.iter().all(|lock| lock.hottest_held <= lock.held));
/// ```
pub fn lock_uses() -> [LockUse; 6] {
    [
        crate::runtime::lock_use(),
        crate::mcentral::lock_use(),
        crate::mheap::spans::lock_use(),
        crate::mheap::run_cache::lock_use(),
        crate::mheap::lock_use(),
        crate::meta::lock_use(),
    ]
}
