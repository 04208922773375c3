//! How hot the locks of spanmalloc are, and from how many cores on they would limit it.
//!
//! `d` is the part of one core's time that its work spends under the hottest lock. `n` cores that do the
//! same work ask for `n * d` of a lock that there is once, which can give 1: it saturates at `1 / d`
//! cores. Of a lock that there is for each CPU, up to 32, each gets `n * d / min(n, 32)`, times what the
//! busiest of them has more than their mean; that saturates at `32 / (d * imbalance)` cores, or never
//! below 32 if `d * imbalance` is below 1.

use std::collections::BTreeMap;
use std::thread::available_parallelism;

use spanmalloc::{LockUse, lock_uses, ticks};

/// Most CPUs for which spanmalloc has locks of their own.
const SHARDS: f64 = 32.0;

/// The locks at the start of the timed part.
pub struct Locks {
    uses: Vec<LockUse>,
    ticks: u64,
}

impl Locks {
    pub fn now() -> Self {
        Self {
            uses: all(),
            ticks: ticks(),
        }
    }

    /// Results since `self`, by name, of a part that took this much time of clock and CPU.
    pub fn since(&self, wall_ns: u64, cpu_ns: u64) -> Vec<(String, f64)> {
        let ticks_per_ns = (ticks() - self.ticks) as f64 / wall_ns.max(1) as f64;
        let cpu = cpu_ns.max(1) as f64 * ticks_per_ns;
        let cpus = available_parallelism().map_or(1, |cpus| cpus.get().next_power_of_two());
        let shards = (cpus as f64).min(SHARDS);
        let mut results = Vec::new();
        for (name, kind) in kinds(&self.uses, &all()) {
            let name = format!("lock_{}", name.replace(' ', "_"));
            results.push((format!("{name}_held_share"), kind.held as f64 / cpu));
            results.push((format!("{name}_waited_share"), kind.waited as f64 / cpu));
            results.push((format!("{name}_acquisitions"), kind.acquisitions as f64));
            // With a lock for each CPU: the part of the busiest of them, times all of them, is that of
            // the hottest with its imbalance.
            let cores = if kind.by_cpu {
                SHARDS / (kind.busiest_held as f64 * shards / cpu)
            } else {
                cpu / kind.busiest_held as f64
            };
            if cores.is_finite() {
                results.push((format!("{name}_saturation_cores"), cores));
            }
        }
        results
    }
}

/// All locks.
fn all() -> Vec<LockUse> {
    let mut uses = Vec::new();
    lock_uses(|lock| uses.push(lock));
    uses
}

/// The locks of one kind over some time.
#[derive(Default)]
struct Kind {
    acquisitions: u64,
    held: u64,
    waited: u64,
    by_cpu: bool,
    /// Ticks for which the one was held that was held longest: of the hottest lock, if there is one for
    /// each CPU, that of its busiest CPU.
    busiest_held: u64,
}

/// What each kind of lock did between two looks at all of them, by name.
fn kinds(before: &[LockUse], after: &[LockUse]) -> BTreeMap<&'static str, Kind> {
    let mut kinds: BTreeMap<&'static str, Kind> = BTreeMap::new();
    // Ticks of the lock that is looked at, on all its CPUs and on the busiest of them.
    let mut lock = (("", 0), 0, 0);
    let mut hottest: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (before, after) in before.iter().zip(after) {
        let kind = kinds.entry(after.name).or_default();
        let held = after.held.saturating_sub(before.held);
        kind.held += held;
        kind.acquisitions += after.acquisitions.saturating_sub(before.acquisitions);
        kind.waited += after.waited.saturating_sub(before.waited);
        kind.by_cpu = after.cpu.is_some();
        let which = (after.name, after.number);
        if lock.0 != which {
            lock = (which, 0, 0);
        }
        lock = (which, lock.1 + held, lock.2.max(held));
        let hottest = hottest.entry(after.name).or_default();
        if lock.1 >= *hottest {
            *hottest = lock.1;
            kind.busiest_held = lock.2;
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(number: usize, cpu: Option<usize>, held: u64) -> LockUse {
        let mut lock = LockUse::default();
        (lock.name, lock.number, lock.cpu, lock.held) = ("some", number, cpu, held);
        lock
    }

    #[test]
    fn the_hottest_lock_is_that_of_the_time_between() {
        // Number 0 was the hottest before, number 1 is between.
        let before = [(0, 0, 900), (0, 1, 50), (1, 0, 10), (1, 1, 10)];
        let after = [(0, 0, 905), (0, 1, 50), (1, 0, 40), (1, 1, 30)];
        let looks = [before, after]
            .map(|look| look.map(|(number, cpu, held)| lock(number, Some(cpu), held)));
        let kinds = kinds(&looks[0], &looks[1]);
        let kind = &kinds["some"];
        assert_eq!((kind.held, kind.busiest_held, kind.by_cpu), (55, 30, true));
    }
}
