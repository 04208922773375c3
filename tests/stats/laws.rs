//! The conservation laws of statistics: each committed byte is in one place, and each object in one class.

use spanmalloc::{ClassStats, Stats};

/// What holds in every snapshot.
pub fn check_always(stats: &Stats) {
    let buckets = [
        stats.small_live_bytes,
        stats.large_live_bytes,
        stats.magazine_bytes,
        stats.depot_bytes,
        stats.current_free_bytes,
        stats.partial_free_bytes,
        stats.split_free_bytes,
        stats.tail_bytes,
        stats.cached_bytes,
        stats.dirty_bytes,
        stats.released_bytes,
        stats.fresh_bytes,
        stats.in_transit_bytes,
    ];
    let sum: usize = buckets.iter().sum();
    assert_eq!(sum, stats.committed_bytes, "{stats:?}");
    let huge = stats.huge_live_bytes + stats.huge_free_bytes;
    let mapped = stats.reserved_bytes + huge + stats.record_mapped_bytes;
    assert_eq!(mapped, stats.mapped_bytes);
    assert!(stats.committed_bytes <= stats.reserved_bytes);
    assert!(stats.record_bytes <= stats.record_mapped_bytes);
    let live = stats.small_live_bytes + stats.large_live_bytes + stats.huge_live_bytes;
    assert_eq!(live, stats.live_bytes);
    check_classes(stats);
}

fn check_classes(stats: &Stats) {
    let total = |of: fn(&ClassStats) -> usize| stats.classes.iter().map(of).sum::<usize>();
    assert_eq!(total(|class| class.live_bytes), stats.small_live_bytes);
    let magazines = total(|class| class.magazine_objects * class.object_bytes);
    assert_eq!(magazines, stats.magazine_bytes);
    let depots = total(|class| class.depot_objects * class.object_bytes);
    assert_eq!(depots, stats.depot_bytes);
    assert_eq!(total(|class| class.tail_bytes), stats.tail_bytes);
    let objects = total(|class| class.live_objects);
    let others = stats.large_live_objects + stats.huge_live_objects;
    assert_eq!(objects + others, stats.live_objects);
    let bytes = |class: &ClassStats| {
        let cached = (class.magazine_objects + class.depot_objects) * class.object_bytes;
        let free = class.current_free_bytes + class.partial_free_bytes + class.split_free_bytes;
        class.live_bytes + cached + free + class.tail_bytes
    };
    // The first three share spans.
    let (tiny, others) = stats.classes.split_at(3);
    let tiny_bytes: usize = tiny.iter().map(bytes).sum();
    assert_eq!(tiny_bytes, tiny[0].spans * tiny[0].span_bytes, "{tiny:?}");
    for class in others {
        assert_eq!(bytes(class), class.spans * class.span_bytes, "{class:?}");
        assert_eq!(class.live_bytes, class.live_objects * class.object_bytes);
    }
    for class in stats.classes.iter() {
        let spans = class.current_spans + class.partial_spans + class.full_spans;
        assert_eq!(spans, class.spans, "{class:?}");
        assert!(class.spans as u64 <= class.spans_made);
    }
}
