//! What this floor tells the statistics.

#![allow(unsafe_code)]

use super::{TINY_CLASSES, shard_of};
use crate::base::size_class::SizeClass;
use crate::shards::shard_count;
use crate::span_set::SetTally;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sys;

/// Pages of the system in free slots of spans that went back to it. **Any thread; atomic**, a counter.
static RELEASED_SLOT_PAGES: AtomicUsize = AtomicUsize::new(0);

/// Bytes in free slots of spans that went back to the system and are not in use again.
pub(crate) fn released_slot_bytes() -> usize {
    RELEASED_SLOT_PAGES.load(Relaxed) * sys::page_bytes()
}

/// Notes that of some span so many pages of free slots are released, instead of so many before.
pub(super) fn released_slots_changed(before: usize, after: usize) {
    RELEASED_SLOT_PAGES.fetch_add(after, Relaxed);
    RELEASED_SLOT_PAGES.fetch_sub(before, Relaxed);
}

/// What the shards of a class count, for statistics.
#[derive(Clone, Copy, Default)]
pub(crate) struct ClassTally {
    /// Its spans. Those of the tiny classes are told with the first of them.
    pub(crate) spans: SetTally,
    /// Objects of the class that were freed to spans.
    pub(crate) freed: u64,
    /// Slots that were freed.
    pub(crate) freed_slots: u64,
    /// Objects of the class in depots.
    pub(crate) in_depots: u64,
}

/// What the shards of a class count.
///
/// # Safety
/// The caller holds all locks of this floor ([`super::lock_for_fork`]).
pub(crate) unsafe fn tally(class: SizeClass) -> ClassTally {
    let span_class = class.span_class();
    let number = class.index() - span_class.index();
    let mut sum = ClassTally::default();
    for shard in 0..shard_count() {
        // SAFETY: the caller's promise; the reference ends with the statement.
        let depot = unsafe { shard_of(class, shard).lock.value_for_fork() };
        sum.in_depots += depot.depot.objects() as u64;
        // SAFETY: as above.
        let spans = unsafe { shard_of(span_class, shard).lock.value_for_fork() };
        sum.freed += spans.freed[number % TINY_CLASSES];
        if class == span_class {
            let tally = spans.set.tally();
            sum.spans.spans += tally.spans;
            sum.spans.partial += tally.partial;
            sum.spans.full += tally.full;
            sum.spans.free_slots += tally.free_slots;
            sum.spans.made += tally.made;
            sum.freed_slots += spans.freed_slots;
        }
    }
    sum
}
