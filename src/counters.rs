//! Counters: what happened how often, at no cost to the fast paths.
//!
//! A thread counts in its own mcache, on slow calls: the objects that came into its magazines and
//! that left them. What came, less what left, less what lies there is what the program got from it,
//! so the sum over all mcaches is what is live, whoever frees ([`mod@crate::stats`]).
//!
//! How often a magazine was popped cannot be told by that. Who needs to know turns on [`calls`]: then
//! threads have the second face of their mcache in their slot, with magazines that are always empty and
//! full, and each call is a slow one that counts.
//!
//! Counters only grow. A reader may see them at different moments.

use crate::base::size_class::{MAGAZINES, SizeClass};
use crate::shards::{MAX_SHARDS, shard_count, shard_here};
use crate::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

/// A counter that one thread writes and any may read.
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`; the owner calls.
    #[inline]
    pub(crate) fn add(&self, count: usize) {
        // Relaxed: counters publish nothing but themselves. A load and a store: one writer.
        self.0.store(self.get() + count as u64, Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What an mcache counts. All-zero bytes are valid. **Written by the owner, read by anyone.**
pub(crate) struct Counters {
    /// Objects that came into the magazine of each class, and that left it for the depot or spans.
    pub(crate) refilled: [Counter; MAGAZINES],
    pub(crate) flushed: [Counter; MAGAZINES],
    /// Objects of each class that were taken from spans, and blocks that tiny ones were cut of.
    pub(crate) taken: [Counter; MAGAZINES],
    pub(crate) tiny_blocks: Counter,
    /// Objects allocated and freed, while [`calls`] are counted.
    pub(crate) allocated: [Counter; MAGAZINES],
    pub(crate) freed: [Counter; MAGAZINES],
    /// Objects by where they came from, and went.
    pub(crate) from_current_span: Counter,
    pub(crate) from_depot: Counter,
    pub(crate) from_spans: Counter,
    pub(crate) to_depot: Counter,
    pub(crate) to_spans: Counter,
    /// Large objects that the cache of the thread had, or took.
    pub(crate) large: LargeCounters,
}

/// Large objects of one thread. **Written by the owner, read by anyone.**
pub(crate) struct LargeCounters {
    allocations: Counter,
    frees: Counter,
    allocated_bytes: Counter,
    freed_bytes: Counter,
}

impl LargeCounters {
    #[inline]
    pub(crate) fn allocated(&self, bytes: usize) {
        self.allocations.add(1);
        self.allocated_bytes.add(bytes);
    }

    #[inline]
    pub(crate) fn freed(&self, bytes: usize) {
        self.frees.add(1);
        self.freed_bytes.add(bytes);
    }

    /// How many allocations it counted.
    #[inline]
    pub(crate) fn allocations(&self) -> u64 {
        self.allocations.get()
    }

    /// How many times it counted, modulo 2^32.
    pub(crate) fn calls(&self) -> u32 {
        (self.allocations.get() + self.frees.get()) as u32
    }

    /// Adds what was allocated to `sum`, but for what was freed.
    pub(crate) fn add_allocated_to(&self, sum: &mut PageObjects) {
        sum.allocations += self.allocations.get();
        sum.allocated_bytes += self.allocated_bytes.get();
    }

    /// Adds what was freed to `sum`.
    pub(crate) fn add_freed_to(&self, sum: &mut PageObjects) {
        sum.frees += self.frees.get();
        sum.freed_bytes += self.freed_bytes.get();
    }
}

/// What threads do without an mcache, and large objects, by CPU.
#[repr(align(128))] // As the shards of mcentral.
struct Shared {
    detached_allocated: [AtomicU64; MAGAZINES],
    detached_freed: [AtomicU64; MAGAZINES],
    large: Tally,
    huge: Tally,
}

struct Tally {
    allocations: AtomicU64,
    frees: AtomicU64,
    allocated_bytes: AtomicU64,
    freed_bytes: AtomicU64,
}

impl Tally {
    const fn new() -> Self {
        Self {
            allocations: AtomicU64::new(0),
            frees: AtomicU64::new(0),
            allocated_bytes: AtomicU64::new(0),
            freed_bytes: AtomicU64::new(0),
        }
    }
}

/// **Any thread; atomic.**
static SHARED: [Shared; MAX_SHARDS] = [const {
    Shared {
        detached_allocated: [const { AtomicU64::new(0) }; MAGAZINES],
        detached_freed: [const { AtomicU64::new(0) }; MAGAZINES],
        large: Tally::new(),
        huge: Tally::new(),
    }
}; MAX_SHARDS];

fn here() -> &'static Shared {
    &SHARED[shard_here() % MAX_SHARDS]
}

fn sum(counter: impl Fn(&Shared) -> &AtomicU64) -> u64 {
    let shards = &SHARED[..shard_count()];
    shards
        .iter()
        .map(|shared| counter(shared).load(Relaxed))
        .sum()
}

/// Counts an object that a thread without an mcache allocated.
pub(crate) fn detached_allocated(class: SizeClass) {
    here().detached_allocated[class.index()].fetch_add(1, Relaxed);
}

/// Counts an object that a thread without an mcache freed.
pub(crate) fn detached_freed(class: SizeClass) {
    here().detached_freed[class.index()].fetch_add(1, Relaxed);
}

/// Objects of a class that threads without an mcache have allocated, and that they have freed.
pub(crate) fn detached(class: SizeClass) -> (u64, u64) {
    let index = class.index();
    (
        sum(|shared| &shared.detached_allocated[index]),
        sum(|shared| &shared.detached_freed[index]),
    )
}

/// Objects of whole pages: in arenas, or with mappings of their own.
#[derive(Clone, Copy)]
pub(crate) enum Pages {
    Large,
    Huge,
}

/// What became of objects of whole pages.
#[derive(Clone, Copy, Default)]
pub(crate) struct PageObjects {
    pub(crate) allocations: u64,
    pub(crate) frees: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) freed_bytes: u64,
}

impl PageObjects {
    pub(crate) const NONE: Self = Self {
        allocations: 0,
        frees: 0,
        allocated_bytes: 0,
        freed_bytes: 0,
    };

    /// The sum of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            allocations: self.allocations + other.allocations,
            frees: self.frees + other.frees,
            allocated_bytes: self.allocated_bytes + other.allocated_bytes,
            freed_bytes: self.freed_bytes + other.freed_bytes,
        }
    }
}

impl Pages {
    fn tally(self, shared: &Shared) -> &Tally {
        match self {
            Self::Large => &shared.large,
            Self::Huge => &shared.huge,
        }
    }

    pub(crate) fn allocated(self, bytes: usize) {
        let tally = self.tally(here());
        tally.allocations.fetch_add(1, Relaxed);
        tally.allocated_bytes.fetch_add(bytes as u64, Relaxed);
        calls::live_changed(bytes as i64);
    }

    pub(crate) fn freed(self, bytes: usize) {
        let tally = self.tally(here());
        tally.frees.fetch_add(1, Relaxed);
        tally.freed_bytes.fetch_add(bytes as u64, Relaxed);
        calls::live_changed(-(bytes as i64));
    }

    pub(crate) fn resized(self, old: usize, new: usize) {
        let tally = self.tally(here());
        tally.freed_bytes.fetch_add(old as u64, Relaxed);
        tally.allocated_bytes.fetch_add(new as u64, Relaxed);
        calls::live_changed(new as i64 - old as i64);
    }

    /// But for what the run caches and mcaches have counted.
    pub(crate) fn all(self) -> PageObjects {
        PageObjects {
            allocations: sum(|shared| &self.tally(shared).allocations),
            frees: sum(|shared| &self.tally(shared).frees),
            allocated_bytes: sum(|shared| &self.tally(shared).allocated_bytes),
            freed_bytes: sum(|shared| &self.tally(shared).freed_bytes),
        }
    }
}

/// Counting each call, and the peak of live bytes.
pub(crate) mod calls {
    use super::{AtomicBool, AtomicI64, Relaxed};

    /// **Any thread; atomic.** Set once, at the start.
    static ON: AtomicBool = AtomicBool::new(false);
    /// Live bytes since the start of counting, but for what threads have not told yet, and their
    /// peak. **Any thread; atomic.**
    static LIVE: AtomicI64 = AtomicI64::new(0);
    static PEAK: AtomicI64 = AtomicI64::new(0);

    /// Whether calls are counted.
    #[inline]
    pub(crate) fn are_counted() -> bool {
        ON.load(Relaxed)
    }

    /// Begins to count the calls of threads that attach from here on.
    #[cfg(feature = "preload")]
    pub(crate) fn start() {
        ON.store(true, Relaxed);
    }

    /// Notes that live bytes grew, or shrank, by this much.
    pub(crate) fn live_changed(bytes: i64) {
        if are_counted() {
            let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
            PEAK.fetch_max(live, Relaxed);
        }
    }

    /// The most bytes that were live at a time.
    pub(crate) fn peak_bytes() -> u64 {
        PEAK.load(Relaxed).max(0) as u64
    }
}
