//! What threads exchange by the depots: whole batches, and their end.

use super::{Shard, for_each_shard, put, shard_of};
use crate::base::size_class::SizeClass;
use crate::depot::{BatchRef, capacity};
use crate::sync::atomic::Ordering::Relaxed;

/// Takes a full batch of `class` from the depot of a shard, leaving `spare` there.
pub(crate) fn take_batch(
    class: SizeClass,
    here: usize,
    spare: &mut Option<BatchRef>,
) -> Option<BatchRef> {
    let shard = shard_of(class, here);
    // Relaxed: a wrong hint costs a look, or a batch left for later.
    if shard.depot_hint.load(Relaxed) == 0 {
        return None;
    }
    let mut spans = shard.lock.lock();
    let batch = spans.depot.take(spare);
    shard.depot_hint.store(spans.depot.full_batches(), Relaxed);
    batch
}

/// Whether the depot of a shard has room for a batch of `class`: a hint.
pub(crate) fn has_room_for_batch(class: SizeClass, here: usize) -> bool {
    // Relaxed: a wrong hint costs a look, or frees objects to their spans.
    shard_of(class, here).depot_hint.load(Relaxed) < capacity(class)
}

/// Leaves a full batch of `class` in the depot of a shard, and takes an empty record from there.
/// Gives the batch back if the depot is full.
pub(crate) fn put_batch(
    class: SizeClass,
    here: usize,
    batch: BatchRef,
) -> Result<Option<BatchRef>, BatchRef> {
    let shard = shard_of(class, here);
    let mut spans = shard.lock.lock();
    let result = spans.depot.put(batch, class);
    shard.depot_hint.store(spans.depot.full_batches(), Relaxed);
    result
}

/// Frees the objects of all depots to their spans. The records stay in the depots.
pub(crate) fn drain_depots() {
    for_each_shard(|shard, class| shard.drain_depot(class, u32::MAX));
}

/// Frees the objects of those batches to their spans that nobody needed since the last call.
pub(crate) fn shrink_depots() {
    for_each_shard(|shard, class| {
        // Relaxed: what is missed now is found the next time.
        if shard.depot_hint.load(Relaxed) > 0 {
            let idle = shard.lock.lock().depot.idle_batches(); // The guard ends here.
            shard.drain_depot(class, idle);
        }
    });
}

/// Looks at all objects that wait in depots.
#[cfg(feature = "profile")]
pub(crate) fn for_each_in_depots(mut look: impl FnMut(*mut u8)) {
    for_each_shard(|shard, _| {
        // Relaxed: what comes later is looked at later.
        if shard.depot_hint.load(Relaxed) > 0 {
            shard.lock.lock().depot.for_each(&mut look);
        }
    });
}

impl Shard {
    /// Frees the objects of up to `batches` batches of the depot to their spans.
    fn drain_depot(&self, class: SizeClass, batches: u32) {
        let mut spare = None;
        for _ in 0..batches {
            let mut spans = self.lock.lock();
            let batch = spans.depot.take(&mut spare);
            self.depot_hint.store(spans.depot.full_batches(), Relaxed);
            drop(spans);
            let Some(mut full) = batch else { break };
            put(class, full.get().objects_mut());
            spare = Some(full);
        }
        if let Some(spare) = spare {
            self.lock.lock().depot.put_empty(spare);
        }
    }
}
