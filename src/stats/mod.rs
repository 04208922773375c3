//! Where the memory is, and what the allocator did.
//!
//! What is counted is counted where it costs nothing that matters: in the slow calls of an mcache, by its
//! owner, and under the locks of the tiers ([`counters`](crate::counters)). A look takes all locks at once,
//! as `fork` does, so that what moves between tiers is found in one of them ([`collect`]); the forms in
//! which it is written are in [`forms`], from one table ([`fields`]).
//!
//! Invariant: nothing here allocates, and nothing takes a lock while it looks.

mod collect;
mod fields;
mod forms;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use forms::write_file;

use core::fmt;
use core::ops::Deref;

use crate::base::size_class::MAGAZINES;
use crate::runtime;

/// A look at the heap: where each byte of it is, and what was done since the start.
///
/// `Display` makes a table of it for people; [`Stats::json`], [`Stats::open_metrics`] and
/// [`Stats::malloc_info`] write it for programs. None of them allocates.
///
/// # What adds up
///
/// *In every snapshot*, whatever other threads do meanwhile:
///
/// 1. Each committed byte is counted once: `committed_bytes` is the sum of `small_live_bytes`,
///    `large_live_bytes`, `magazine_bytes`, `depot_bytes`, `current_free_bytes`, `partial_free_bytes`,
///    `split_free_bytes`, `tail_bytes`, `cached_bytes`, `dirty_bytes`, `released_bytes`, `fresh_bytes` and
///    `in_transit_bytes`.
/// 2. `mapped_bytes` is `reserved_bytes` + `huge_live_bytes` + `huge_free_bytes` + `record_mapped_bytes`, and
///    `reserved_bytes` is at least `committed_bytes`.
/// 3. `live_bytes` is `small_live_bytes` + `large_live_bytes` + `huge_live_bytes`; what is said of small
///    objects is the sum over [`Stats::classes`].
/// 4. In each class, the bytes of all `spans` are the sum of its live bytes, of what magazines and depots
///    hold, and of `current_free_bytes`, `partial_free_bytes`, `split_free_bytes` and `tail_bytes`; and
///    `spans` is `current_spans` + `partial_spans` + `full_spans`. (The three smallest classes share spans:
///    there it holds for their sum.)
///
/// What is on its way between two tiers at that moment counts as in the one or the other. Objects that a
/// thread is just moving out of its magazine count as live, those that it is just taking from a span as
/// free there; pages that a thread has taken from one place and not yet brought to the next are
/// `in_transit_bytes`. So while threads work, `live_bytes` may be out by what fits a magazine, for each
/// thread that is in a slow call.
///
/// *When no other thread is in a call of the allocator:*
///
/// 5. `in_transit_bytes` is zero, and all live figures are exact: allocated and not freed, whichever threads
///    did it, and whether they are still there.
/// 6. `allocated_objects` - `freed_objects` is `live_objects` and the objects in magazines, in each class too.
/// 7. `backed_bytes` is `committed_bytes` - `released_bytes` - `fresh_bytes` - `released_slot_bytes` +
///    `huge_live_bytes` + `huge_free_bytes` + `record_bytes`.
///
/// In the child of a `fork`, what other threads of the parent had in hand at that moment stays where it was.
///
/// # What is not counted
///
/// Calls that a magazine answers are not counted, unless `calls` are: the fast paths do nothing but their
/// work. And nobody knows how many bytes were asked for: all bytes are of objects as rounded up to their
/// size class or to whole pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Objects that the program has.
    pub live_objects: usize,
    /// Bytes of them, each rounded up to its size class or to whole pages.
    pub live_bytes: usize,
    /// Bytes of them in objects of up to 32 KiB.
    pub small_live_bytes: usize,
    /// Bytes of them in objects of more than 32 KiB, in arenas.
    pub large_live_bytes: usize,
    /// Bytes of them in objects with a mapping of their own.
    pub huge_live_bytes: usize,
    /// Objects of more than 32 KiB in arenas.
    pub large_live_objects: usize,
    /// Objects that have a mapping of their own.
    pub huge_live_objects: usize,
    /// Calls and the peak of live bytes, if calls are counted.
    pub calls: Option<Calls>,

    /// Objects that threads got from the tiers: those that came into magazines, those of threads without one,
    /// large and huge ones. Not calls: an object in a magazine may be allocated and freed many times.
    pub allocated_objects: u64,
    /// Objects that they gave back to the tiers.
    pub freed_objects: u64,
    /// Objects of more than 32 KiB that were allocated in arenas.
    pub large_allocations: u64,
    /// Those of them that were freed.
    pub large_frees: u64,
    /// Objects that were allocated with a mapping of their own.
    pub huge_allocations: u64,
    /// Those of them that were freed.
    pub huge_frees: u64,
    /// Objects that came into magazines from their thread's current span.
    pub refilled_from_current_span: u64,
    /// Objects that came into magazines in batches from depots.
    pub refilled_from_depot: u64,
    /// Objects that came into magazines from other spans, under a lock.
    pub refilled_from_spans: u64,
    /// Objects that left magazines in batches for depots.
    pub flushed_to_depot: u64,
    /// Objects that left magazines for their spans.
    pub flushed_to_spans: u64,
    /// Spans that were made of free pages.
    pub spans_made: u64,

    /// Bytes of free objects in threads' magazines.
    pub magazine_bytes: usize,
    /// Bytes of free objects in depots, on their way between threads.
    pub depot_bytes: usize,
    /// Bytes of free slots in threads' current spans.
    pub current_free_bytes: usize,
    /// Bytes of free slots in partial spans: what fragmentation costs.
    pub partial_free_bytes: usize,
    /// Free bytes in the 16-byte blocks that objects of up to 4 bytes share, as long as one of them is taken.
    pub split_free_bytes: usize,
    /// Bytes behind the last slot of spans, which nobody can use.
    pub tail_bytes: usize,
    /// Free bytes in run caches, backed by memory.
    pub cached_bytes: usize,
    /// Free bytes in the page heap that are backed by memory.
    pub dirty_bytes: usize,
    /// Free bytes in the page heap that went back to the system: they cost nothing.
    pub released_bytes: usize,
    /// Bytes of arenas that were committed and never used: they cost nothing either.
    pub fresh_bytes: usize,
    /// Bytes of pages that a thread is just moving from one place to another.
    pub in_transit_bytes: usize,
    /// Bytes in free slots of spans (which are counted above) that went back to the system.
    pub released_slot_bytes: usize,
    /// Bytes in mappings of huge objects that are free, and kept for the next ones.
    pub huge_free_bytes: usize,

    /// Bytes of address space in arenas.
    pub reserved_bytes: usize,
    /// Bytes of arenas that can be used without asking the system for access; not all are backed.
    pub committed_bytes: usize,
    /// Bytes in spans and large objects: all that is committed, but for free pages and run caches.
    pub in_use_bytes: usize,
    /// Bytes of memory that the allocator has from the system, as the memory limit counts them: spans less
    /// what went back of their free slots, free pages that are backed, huge objects and free mappings of them,
    /// records.
    pub backed_bytes: usize,
    /// Bytes of address space that the allocator has from the system, but for the guard pages of arenas and huge
    /// objects.
    pub mapped_bytes: usize,
    /// Bytes of the allocator's own records.
    pub record_bytes: usize,
    /// Bytes that are mapped for them.
    pub record_mapped_bytes: usize,
    /// Bytes that magazines may hold beyond what each has at first.
    pub magazine_budget_bytes: usize,

    /// Bytes that went back to the system so far, by `madvise`, of pages, slots and records. Mappings of huge
    /// objects, which are unmapped, are not among them.
    pub returned_bytes: u64,
    /// System calls for that, those that the system refused included.
    pub return_calls: u64,
    /// Nanoseconds that these calls took.
    pub return_ns: u64,
    /// How often a thread found a lock of the allocator held by another one.
    pub lock_waits: u64,
    /// In how many of these waits it slept.
    pub lock_sleeps: u64,

    /// Threads that have an mcache.
    pub threads: usize,
    /// Nanoseconds since the first thread got one.
    pub uptime_ns: u64,
    /// Bytes of memory that the process has, as the system counts them: not only the heap's. Zero if the
    /// system does not tell.
    pub resident_bytes: usize,
    /// Page faults of the process that needed no input.
    pub minor_faults: u64,
    /// Page faults of the process that needed input.
    pub major_faults: u64,

    /// Each size class.
    pub classes: Classes,
}

/// What was counted call by call. The preloaded library counts with `SPANMALLOC_COUNT=1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Calls {
    /// Objects that were allocated since counting began.
    pub allocations: u64,
    /// Objects that were freed since.
    pub frees: u64,
    /// Bytes of the objects that were allocated since, each rounded up.
    pub allocated_bytes: u64,
    /// Most bytes that were live at a time; each thread's share may be 32 KiB out.
    pub peak_live_bytes: u64,
}

/// One size class. Objects of 1, 2 and 4 bytes are cut from 16-byte blocks in spans of one kind: what is said
/// of these spans is said with the class of 1 byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes of an object.
    pub object_bytes: usize,
    /// Bytes of a span.
    pub span_bytes: usize,
    /// Objects that the program has.
    pub live_objects: usize,
    /// Bytes of them.
    pub live_bytes: usize,
    /// Free objects in threads' magazines.
    pub magazine_objects: usize,
    /// Free objects in depots.
    pub depot_objects: usize,
    /// Objects that came into magazines, and those that threads without one got from spans.
    pub allocated_objects: u64,
    /// Objects that left magazines, and those that threads without one gave back to spans.
    pub freed_objects: u64,
    /// Spans.
    pub spans: usize,
    /// Those that are some thread's current span.
    pub current_spans: usize,
    /// Those with free slots that are no thread's.
    pub partial_spans: usize,
    /// Those without a free slot.
    pub full_spans: usize,
    /// Spans that were made of free pages so far.
    pub spans_made: u64,
    /// Bytes of free slots in current spans.
    pub current_free_bytes: usize,
    /// Bytes of free slots in partial spans.
    pub partial_free_bytes: usize,
    /// Free bytes in blocks of which another part is taken.
    pub split_free_bytes: usize,
    /// Bytes behind the last slot of spans.
    pub tail_bytes: usize,
}

/// Number of classes.
const COUNT: usize = MAGAZINES - 1;

/// All size classes, by the size of their objects. `Debug` shows those that were used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Classes([ClassStats; COUNT]);

impl Default for Classes {
    fn default() -> Self {
        Self([ClassStats::default(); COUNT])
    }
}

impl Deref for Classes {
    type Target = [ClassStats];

    fn deref(&self) -> &[ClassStats] {
        &self.0
    }
}

impl Classes {
    /// Those that were ever used.
    fn used(&self) -> impl Iterator<Item = &ClassStats> {
        let was_used = |class: &&ClassStats| class.spans_made > 0 || class.allocated_objects > 0;
        self.0.iter().filter(was_used)
    }
}

impl fmt::Debug for Classes {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.debug_list().entries(self.used()).finish()
    }
}

/// Looks at the heap. See [`Stats`] for what adds up.
///
/// Takes all locks of the allocator, about 72 for each CPU (up to 32), and under them looks at each size class
/// of each thread: some ten microseconds in a small program, half a millisecond with 1,000 threads. So
/// long other threads wait when they need a lock; what their magazines answer goes on. Allocates nothing,
/// and needs some 20 KiB of stack. Not for a signal handler that may interrupt the allocator.
///
/// ```
/// let stats = spanmalloc::stats();
/// assert!(stats.in_use_bytes <= stats.committed_bytes);
/// println!("{stats}");
/// ```
pub fn stats() -> Stats {
    let mut stats = Stats::default();
    runtime::while_all_locked(|| stats.look_at_tiers());
    stats.look_at_counters();
    stats.sum_up();
    stats
}
