//! How much memory stays backed, for how long, and how fast the rest goes back to the system.
//!
//! The *goal* is what was in use lately, and a margin: memory that was needed a moment ago is likely
//! to be needed again, and every page that goes back costs a system call's share now and a fault
//! later. The most that was in use in the last [`KEPT_SECONDS`] counts in full, older peaks fade
//! over [`FADING_SECONDS`], and after that nothing is left of them. Go keeps the heap's size of the
//! last collection and a tenth (`gcPercent` scavenging goal); jemalloc decays dirty pages over ten
//! seconds along a curve that begins flat (`dirty_decay_ms`, smoothstep); this has the goal of the
//! one and the shape of the other.
//!
//! Without a thread that comes by later ([`Patience::Little`]) peaks count for a second, as in
//! mimalloc's purge, and longer only if they *came back*: the heap was as large, then a quarter smaller,
//! then as large again. A program that frees its only peak may make few calls from there on, and they
//! are to find the work due; one that swings is served from what it freed. TCMalloc looks at the swings of
//! the demand as well ("skip subrelease").
//!
//! Pure: no clock, no lock, no system call. Time is nanoseconds since any moment, and never turns
//! back.

/// Seconds for which memory that was in use is kept.
const KEPT_SECONDS: usize = 2;
/// Seconds after that in which ever less of it is kept.
const FADING_SECONDS: usize = 4;
/// Seconds that are remembered, the running one included.
const SECONDS: usize = KEPT_SECONDS + FADING_SECONDS + 1;
/// Whole seconds for which it is with little patience.
const SECONDS_OF_LITTLE: usize = 1;
/// Beyond what was needed, one page for so many of it is kept. (Go keeps a tenth, but has no window of
/// seconds.)
const MARGIN_DIVISOR: usize = 32;
/// Pages that are kept in any case: 1 MiB.
const LEAST_KEPT_PAGES: usize = 128;
/// One part of so many of the time may be spent on releases: 1 % of a CPU.
pub(crate) const SHARE_DIVISOR: u64 = 100;
const SECOND_NS: u64 = 1_000_000_000;

/// What was needed lately, and what time there is for releases.
pub(crate) struct Policy {
    /// What was in use in each of the last seconds; second `s` at `s % SECONDS`.
    seconds: [Second; SECONDS],
    /// The running second.
    now: u64,
}

/// Pages in use in a second.
#[derive(Clone, Copy)]
struct Second {
    most: usize,
    least: usize,
}

/// How long a peak is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Somebody comes by later, whatever the program does.
    Much,
    /// Nobody may.
    Little,
}

impl Policy {
    pub(crate) const fn new() -> Self {
        Self {
            seconds: [Second { most: 0, least: 0 }; SECONDS],
            now: 0,
        }
    }

    /// Notes that `in_use` pages are in use now, and that up to `peak` were since the last call. When that
    /// was is not known: as if it was at the last call, so that an idle process did not have it just now.
    pub(crate) fn note(&mut self, now_ns: u64, in_use: usize, peak: usize) {
        let last = &mut self.seconds[(self.now % SECONDS as u64) as usize];
        last.most = peak.max(last.most);
        let second = (now_ns / SECOND_NS).max(self.now);
        let passed = (second - self.now).min(SECONDS as u64);
        for skipped in 0..passed {
            self.seconds[((second - skipped) % SECONDS as u64) as usize] = Second {
                most: in_use,
                least: in_use,
            };
        }
        self.now = second;
        let newest = &mut self.seconds[(second % SECONDS as u64) as usize];
        newest.most = in_use.max(newest.most);
        newest.least = in_use.min(newest.least);
    }

    /// Pages that may stay backed, in use or not, while `in_use` pages are in use.
    pub(crate) fn goal(&self, in_use: usize, patience: Patience) -> usize {
        let mut needed = in_use;
        for age in 0..SECONDS {
            let level = match patience {
                Patience::Much => self.second(age).most,
                Patience::Little if age <= SECONDS_OF_LITTLE => self.second(age).most,
                Patience::Little => self.returned(age),
            };
            let left = (SECONDS - age).min(FADING_SECONDS + 1);
            needed =
                needed.max(in_use + level.saturating_sub(in_use) * left / (FADING_SECONDS + 1));
        }
        needed + (needed / MARGIN_DIVISOR).max(LEAST_KEPT_PAGES)
    }

    /// Up to how many pages the use rose in a second after it had been as high before, and fallen by a
    /// quarter in between.
    fn returned(&self, age: usize) -> usize {
        let top = self.second(age).most;
        let mut level = 0;
        let mut least = usize::MAX;
        for before in age + 1..SECONDS {
            let second = self.second(before);
            let both = top.min(second.most);
            if least <= both / 4 * 3 {
                level = both.max(level);
            }
            least = second.least.min(least);
        }
        level
    }

    fn second(&self, age: usize) -> Second {
        self.seconds[((self.now + (SECONDS - age) as u64) % SECONDS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::pace::{CREDIT_MAX_NS, Pace};
    use std::vec::Vec;

    /// Pages of a mebibyte.
    const MIB: usize = 128;
    /// Time between two steps.
    const STEP_NS: u64 = 100_000_000;
    /// Pages that one release takes.
    const RELEASE_PAGES: usize = 512;
    /// What a page costs to release, about as measured.
    const PAGE_NS: u64 = 250;

    /// A heap of the test's own: as much is in use as the test says.
    struct Heap {
        policy: Policy,
        pace: Pace<SHARE_DIVISOR>,
        now_ns: u64,
        in_use: usize,
        dirty: usize,
        released: usize,
        faulted: usize,
        spent_ns: u64,
        patience: Patience,
    }

    impl Heap {
        fn new() -> Self {
            Self {
                policy: Policy::new(),
                pace: Pace::new(),
                now_ns: 50 * SECOND_NS,
                in_use: 0,
                dirty: 0,
                released: 0,
                faulted: 0,
                spent_ns: 0,
                patience: Patience::Much,
            }
        }

        /// One that nobody looks after later.
        fn impatient() -> Self {
            Self {
                patience: Patience::Little,
                ..Self::new()
            }
        }

        fn backed(&self) -> usize {
            self.in_use + self.dirty
        }

        /// The program comes to use this many pages.
        fn use_pages(&mut self, pages: usize) {
            let grown = pages.saturating_sub(self.in_use);
            let reused = grown.min(self.dirty);
            self.faulted += grown - reused;
            self.dirty = self.dirty - reused + self.in_use.saturating_sub(pages);
            self.in_use = pages;
        }

        /// Lets time pass, and does what the scavenger does.
        fn pass(&mut self, ns: u64) {
            let end = self.now_ns + ns;
            while self.now_ns < end {
                self.now_ns += STEP_NS;
                self.policy.note(self.now_ns, self.in_use, self.in_use);
                self.pace.earn(self.now_ns);
                let kept = self.policy.goal(self.in_use, self.patience) - self.in_use;
                while self.dirty > kept && self.pace.has_time() {
                    let pages = RELEASE_PAGES.min(self.dirty - kept);
                    self.dirty -= pages;
                    self.released += pages;
                    self.spent_ns += pages as u64 * PAGE_NS;
                    self.pace.spend(pages as u64 * PAGE_NS);
                }
            }
        }
    }

    #[test]
    fn a_burst_is_kept_for_a_while_and_gone_after_ten_seconds() {
        let mut heap = Heap::new();
        heap.use_pages(1024 * MIB);
        heap.pass(SECOND_NS);
        heap.use_pages(50 * MIB);
        heap.pass(2 * SECOND_NS);
        assert_eq!(heap.released, 0, "it may come again");
        heap.pass(8 * SECOND_NS);
        assert!(
            heap.backed() <= 50 * MIB * 11 / 10,
            "{} pages",
            heap.backed()
        );
    }

    #[test]
    fn what_is_kept_fades_without_a_jump() {
        let mut heap = Heap::new();
        heap.use_pages(1024 * MIB);
        heap.pass(SECOND_NS);
        heap.use_pages(0);
        let mut backed = Vec::new();
        for _ in 0..10 {
            heap.pass(SECOND_NS);
            backed.push(heap.backed());
        }
        assert!(
            backed.is_sorted_by(|before, after| before >= after),
            "{backed:?}"
        );
        let jumps = backed.windows(2).map(|pair| pair[0] - pair[1]);
        assert!(jumps.max() <= Some(1024 * MIB / 4), "{backed:?}");
        assert!(backed.last() <= Some(&LEAST_KEPT_PAGES), "{backed:?}");
    }

    #[test]
    fn a_sawtooth_costs_no_faults() {
        let mut heap = Heap::new();
        for _ in 0..30 {
            heap.use_pages(1024 * MIB);
            heap.pass(SECOND_NS);
            heap.use_pages(100 * MIB);
            heap.pass(SECOND_NS);
        }
        assert_eq!(heap.faulted, 1024 * MIB, "each page once");
        assert_eq!(heap.spent_ns, 0);
    }

    #[test]
    fn without_a_thread_the_first_peak_goes_soon() {
        let mut heap = Heap::impatient();
        heap.use_pages(1024 * MIB);
        heap.pass(3 * SECOND_NS);
        heap.use_pages(50 * MIB);
        heap.pass(SECOND_NS / 2);
        assert_eq!(heap.released, 0, "it may come again");
        heap.pass(2 * SECOND_NS);
        assert!(heap.backed() <= 55 * MIB, "{} pages", heap.backed());
    }

    #[test]
    fn without_a_thread_a_peak_that_comes_back_is_kept() {
        for half_ns in [2 * STEP_NS, SECOND_NS, 3 * SECOND_NS / 2] {
            let mut heap = Heap::impatient();
            for _ in 0..30 {
                heap.use_pages(1024 * MIB);
                heap.pass(half_ns);
                heap.use_pages(100 * MIB);
                heap.pass(half_ns);
            }
            let cycles = heap.faulted / (900 * MIB);
            assert!(cycles <= 2, "{cycles} of 30 cycles of 2 * {half_ns} ns");
            heap.pass(9 * SECOND_NS);
            assert!(heap.backed() <= 111 * MIB, "{} pages", heap.backed());
        }
    }

    #[test]
    fn a_plateau_is_no_return() {
        let mut heap = Heap::impatient();
        for round in 0..50 {
            heap.use_pages((1000 + round % 10) * MIB);
            heap.pass(STEP_NS);
        }
        heap.use_pages(100 * MIB);
        heap.pass(5 * SECOND_NS / 2);
        assert!(heap.backed() <= 111 * MIB, "{} pages", heap.backed());
    }

    #[test]
    fn slow_growth_releases_nothing() {
        let mut heap = Heap::new();
        for mib in 0..300 {
            heap.use_pages(mib * MIB);
            heap.pass(SECOND_NS);
        }
        assert_eq!(heap.released, 0);
        assert_eq!(heap.faulted, 299 * MIB);
    }

    #[test]
    fn slow_decline_is_followed() {
        let mut heap = Heap::new();
        heap.use_pages(1000 * MIB);
        for mib in (100..1000).rev().step_by(10) {
            heap.use_pages(mib * MIB);
            heap.pass(SECOND_NS);
            let lately = heap.in_use + 10 * MIB * SECONDS;
            assert!(
                heap.backed() <= lately * 11 / 10,
                "{} at {mib} MiB",
                heap.backed()
            );
        }
    }

    #[test]
    fn releases_take_at_most_their_share_of_time() {
        let mut heap = Heap::new();
        let start = heap.now_ns;
        let mut worst = 0;
        for _ in 0..20 {
            heap.use_pages(8192 * MIB);
            heap.pass(STEP_NS);
            heap.use_pages(0);
            let before = heap.spent_ns;
            heap.pass(20 * SECOND_NS);
            worst = worst.max(heap.spent_ns - before);
        }
        let share = (heap.now_ns - start) / SHARE_DIVISOR;
        let one_release = RELEASE_PAGES as u64 * PAGE_NS;
        assert!(heap.spent_ns <= share + CREDIT_MAX_NS as u64 + one_release);
        assert!(worst <= 20 * SECOND_NS / SHARE_DIVISOR + CREDIT_MAX_NS as u64 + one_release);
        assert!(heap.spent_ns > share / 2, "nothing to pace");
    }

    #[test]
    fn an_idle_process_has_saved_time_for_all_of_its_peak() {
        let mut heap = Heap::new();
        heap.policy.note(heap.now_ns, 0, 0);
        heap.pace.earn(heap.now_ns);
        heap.use_pages(1024 * MIB);
        heap.pass(STEP_NS);
        heap.use_pages(10 * MIB);
        // No step for long, as there was no call; then one.
        heap.now_ns += 60 * SECOND_NS;
        heap.pass(STEP_NS);
        assert!(heap.backed() <= 13 * MIB, "{} pages", heap.backed());
    }
}
