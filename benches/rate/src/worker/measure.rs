//! What a workload costs: counters around its timed part.
//!
//! A workload sets up what it needs, then calls [`Meter::run`] once, with the part that counts.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use perf_event::events::Hardware;
use perf_event::{Builder, Counter};
use spanmalloc_rate::Answer;

use crate::workloads::{Size, Workload};

/// Measures the timed part of a workload.
#[derive(Default)]
pub struct Meter {
    operations: u64,
    wall_ns: u64,
    user_ns: u64,
    system_ns: u64,
    counts: [Option<u64>; 3],
    more: BTreeMap<String, f64>,
}

impl Meter {
    /// Runs the timed part, which returns the number of its operations. Threads that it starts
    /// count.
    pub fn run(&mut self, timed: impl FnOnce() -> u64) {
        let mut counters = [
            counter(Hardware::CPU_CYCLES, Mode::User),
            counter(Hardware::INSTRUCTIONS, Mode::User),
            counter(Hardware::CPU_CYCLES, Mode::Kernel),
        ];
        #[cfg(feature = "lock_share")]
        let locks = crate::locks::Locks::now();
        let (user, system) = cpu_ns();
        let start = Instant::now();
        for counter in counters.iter_mut().flatten() {
            let _ = counter.enable();
        }
        let operations = timed();
        for counter in counters.iter_mut().flatten() {
            let _ = counter.disable();
        }
        self.wall_ns += start.elapsed().as_nanos() as u64;
        let (user_after, system_after) = cpu_ns();
        #[cfg(feature = "lock_share")]
        self.more.extend(locks.since(
            start.elapsed().as_nanos() as u64,
            user_after - user + system_after - system,
        ));
        self.operations += operations;
        self.user_ns += user_after - user;
        self.system_ns += system_after - system;
        for (count, counter) in self.counts.iter_mut().zip(&mut counters) {
            *count = counter.as_mut().and_then(|counter| counter.read().ok());
        }
    }

    /// Another result, with the unit at the end of its name.
    pub fn also(&mut self, name: &str, value: f64) {
        self.more.insert(name.to_owned(), value);
    }
}

enum Mode {
    User,
    Kernel,
}

/// A counter that is off; none if the kernel does not permit it, or the machine has none.
fn counter(event: Hardware, mode: Mode) -> Option<Counter> {
    let mut builder = Builder::new(event);
    builder.inherit(true).exclude_hv(true);
    match mode {
        Mode::User => builder.exclude_kernel(true),
        Mode::Kernel => builder.exclude_kernel(false).exclude_user(true),
    };
    builder.build().ok()
}

/// CPU time of the process so far: user, system.
pub fn cpu_ns() -> (u64, u64) {
    // SAFETY: an all-zero `rusage` is valid, and valid for writes.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
    (ns(usage.ru_utime), ns(usage.ru_stime))
}

/// A field of `/proc/self/status` in bytes: `VmHWM`, `VmRSS`.
pub fn memory_bytes(field: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Runs a workload.
pub fn answer(workload: &Workload, size: &Size) -> Answer {
    let mut meter = Meter::default();
    (workload.run)(size, &mut meter);
    let [user_cycles, user_instructions, kernel_cycles] = meter.counts;
    Answer {
        workload: workload.name.to_owned(),
        threads: size.threads,
        operations: meter.operations,
        wall_ns: meter.wall_ns,
        user_ns: meter.user_ns,
        system_ns: meter.system_ns,
        user_cycles,
        user_instructions,
        kernel_cycles,
        peak_rss_bytes: memory_bytes("VmHWM"),
        more: meter.more,
    }
}
