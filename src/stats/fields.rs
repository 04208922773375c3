//! The figures of a snapshot in one table: their names, units and meanings, for all forms but the text.

use super::{ClassStats, Stats};

/// What a number counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Nanoseconds,
    /// Objects, calls, whatever the name says.
    Count,
}

/// Whether a number only grows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
}

/// One figure of a `T`.
pub(super) struct Field<T> {
    /// That of the field in Rust, and the key in JSON.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    /// One sentence without an end.
    pub(super) help: &'static str,
    /// `None` if it is not known.
    pub(super) get: fn(&T) -> Option<u64>,
}

/// Rows of the kind `name kind unit "help"`, for fields of a struct.
macro_rules! fields {
    ($of:ty: $($name:ident $kind:ident $unit:ident $help:literal)*) => {
        &[$(Field {
            name: stringify!($name),
            kind: Kind::$kind,
            unit: Unit::$unit,
            help: $help,
            get: |of: &$of| Some(of.$name as u64),
        },)*]
    };
}

/// Rows for what is known only if calls are counted.
macro_rules! call_fields {
    ($($name:ident $kind:ident $unit:ident $help:literal)*) => {
        &[$(Field {
            name: stringify!($name),
            kind: Kind::$kind,
            unit: Unit::$unit,
            help: $help,
            get: |stats: &Stats| stats.calls.map(|calls| calls.$name),
        },)*]
    };
}

pub(super) const CALLS: &[Field<Stats>] = call_fields! {
    allocations Counter Count "Objects allocated since calls are counted"
    frees Counter Count "Objects freed since calls are counted"
    allocated_bytes Counter Bytes "Bytes of the objects allocated since calls are counted"
    peak_live_bytes Gauge Bytes "Most live bytes at a time since calls are counted"
};

pub(super) const FIELDS: &[Field<Stats>] = fields! { Stats:
    live_objects Gauge Count "Objects that the program has"
    live_bytes Gauge Bytes "Bytes of them, rounded up"
    small_live_bytes Gauge Bytes "Live bytes in objects of up to 32 KiB"
    large_live_bytes Gauge Bytes "Live bytes in objects of more than 32 KiB in arenas"
    huge_live_bytes Gauge Bytes "Live bytes in objects with a mapping of their own"
    large_live_objects Gauge Count "Objects of more than 32 KiB in arenas"
    huge_live_objects Gauge Count "Objects with a mapping of their own"
    allocated_objects Counter Count "Objects that threads got from the tiers, not calls"
    freed_objects Counter Count "Objects that threads gave back to the tiers, not calls"
    large_allocations Counter Count "Large objects allocated"
    large_frees Counter Count "Large objects freed"
    huge_allocations Counter Count "Huge objects allocated"
    huge_frees Counter Count "Huge objects freed"
    refilled_from_current_span Counter Count "Objects that came into magazines from current spans"
    refilled_from_depot Counter Count "Objects that came into magazines from depots"
    refilled_from_spans Counter Count "Objects that came into magazines from other spans"
    flushed_to_depot Counter Count "Objects that left magazines for depots"
    flushed_to_spans Counter Count "Objects that left magazines for their spans"
    spans_made Counter Count "Spans made of free pages"
    magazine_bytes Gauge Bytes "Free objects in magazines"
    depot_bytes Gauge Bytes "Free objects in depots"
    current_free_bytes Gauge Bytes "Free slots in current spans"
    partial_free_bytes Gauge Bytes "Free slots in partial spans"
    split_free_bytes Gauge Bytes "Free parts of blocks that tiny objects share"
    tail_bytes Gauge Bytes "Unusable ends of spans"
    cached_bytes Gauge Bytes "Free pages in run caches"
    dirty_bytes Gauge Bytes "Free pages of the heap that are backed by memory"
    released_bytes Gauge Bytes "Free pages of the heap that went back to the system"
    fresh_bytes Gauge Bytes "Pages that were committed and never used"
    in_transit_bytes Gauge Bytes "Pages that a thread is just moving"
    released_slot_bytes Gauge Bytes "Of the free slots, what went back to the system"
    huge_free_bytes Gauge Bytes "Free mappings of huge objects"
    reserved_bytes Gauge Bytes "Address space in arenas"
    committed_bytes Gauge Bytes "Accessible part of the arenas"
    in_use_bytes Gauge Bytes "Spans and large objects"
    backed_bytes Gauge Bytes "Memory from the system as the memory limit counts it"
    mapped_bytes Gauge Bytes "Address space from the system"
    record_bytes Gauge Bytes "Records of the allocator"
    record_mapped_bytes Gauge Bytes "Address space mapped for records"
    magazine_budget_bytes Gauge Bytes "What magazines may hold beyond what each has at first"
    returned_bytes Counter Bytes "Memory given back to the system by madvise"
    return_calls Counter Count "System calls that gave memory back"
    return_ns Counter Nanoseconds "Time in system calls that gave memory back"
    lock_waits Counter Count "Times that a thread found a lock held"
    lock_sleeps Counter Count "Waits for a lock in which the thread slept"
    threads Gauge Count "Threads with a cache"
    uptime_ns Gauge Nanoseconds "Time since the allocator was first used"
    resident_bytes Gauge Bytes "Memory of the whole process, as the system counts it"
    minor_faults Counter Count "Page faults of the process without input"
    major_faults Counter Count "Page faults of the process with input"
};

pub(super) const CLASS_FIELDS: &[Field<ClassStats>] = fields! { ClassStats:
    live_objects Gauge Count "Objects that the program has"
    live_bytes Gauge Bytes "Bytes of them"
    magazine_objects Gauge Count "Free objects in magazines"
    depot_objects Gauge Count "Free objects in depots"
    allocated_objects Counter Count "Objects that threads got from the tiers, not calls"
    freed_objects Counter Count "Objects that threads gave back to the tiers, not calls"
    spans Gauge Count "Spans"
    current_spans Gauge Count "Spans that are a thread's current one"
    partial_spans Gauge Count "Spans with free slots that are no thread's"
    full_spans Gauge Count "Spans without a free slot"
    spans_made Counter Count "Spans made of free pages"
    current_free_bytes Gauge Bytes "Free slots in current spans"
    partial_free_bytes Gauge Bytes "Free slots in partial spans"
    split_free_bytes Gauge Bytes "Free parts of blocks that tiny objects share"
    tail_bytes Gauge Bytes "Unusable ends of spans"
};
