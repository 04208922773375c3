//! How hot the locks of spanmalloc are, and from how many cores on they would limit it.
//!
//! `d` is the part of one core's time that its work spends under the hottest lock. `n` cores that do the
//! same work ask for `n * d` of a lock that there is once, which can give 1: it saturates at `1 / d`
//! cores. Of a lock that there is for each CPU, up to 32, each gets `n * d / min(n, 32)`, times what the
//! busiest of them has more than their mean; that saturates at `32 / (d * imbalance)` cores, or never
//! below 32 if `d * imbalance` is below 1.

use std::thread::available_parallelism;

use spanmalloc::{LockUse, lock_uses, ticks};

/// Most CPUs for which spanmalloc has locks of their own.
const SHARDS: f64 = 32.0;

/// The locks at the start of the timed part.
pub struct Locks {
    uses: [LockUse; 6],
    ticks: u64,
}

impl Locks {
    pub fn now() -> Self {
        Self {
            uses: lock_uses(),
            ticks: ticks(),
        }
    }

    /// Results since `self`, by name, of a part that took this much time of clock and CPU.
    pub fn since(&self, wall_ns: u64, cpu_ns: u64) -> Vec<(String, f64)> {
        let ticks_per_ns = (ticks() - self.ticks) as f64 / wall_ns.max(1) as f64;
        let cpu = cpu_ns.max(1) as f64 * ticks_per_ns;
        let mut results = Vec::new();
        for (before, after) in self.uses.iter().zip(lock_uses()) {
            let name = format!("lock_{}", after.name.replace(' ', "_"));
            let part = |of: fn(&LockUse) -> u64| of(&after).saturating_sub(of(before)) as f64;
            results.push((format!("{name}_held_share"), part(|lock| lock.held) / cpu));
            results.push((
                format!("{name}_waited_share"),
                part(|lock| lock.waited) / cpu,
            ));
            results.push((
                format!("{name}_acquisitions"),
                part(|lock| lock.acquisitions),
            ));
            // The hottest lock may be another one than at the start, when next to nothing was held.
            let hottest = part(|lock| lock.hottest_held) / cpu;
            let cores = if after.by_cpu {
                let cpus = available_parallelism().map_or(1, |cpus| cpus.get().next_power_of_two());
                let busiest = part(|lock| lock.hottest_cpu_held) / cpu;
                let imbalance = busiest * (cpus as f64).min(SHARDS) / hottest;
                SHARDS / (hottest * imbalance)
            } else {
                1.0 / hottest
            };
            if cores.is_finite() {
                results.push((format!("{name}_saturation_cores"), cores));
            }
        }
        results
    }
}
