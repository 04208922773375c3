//! A heap profile at one moment: what the writers make files of.

use std::vec::Vec;

/// Most frames of a stack that are kept.
pub(crate) const FRAMES_MAX: usize = 62;

/// How long sampled objects lived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Lifetime {
    /// Not freed yet.
    Live,
    UnderMillisecond,
    UnderSecond,
    UnderMinute,
    Longer,
}

impl Lifetime {
    /// Those of objects that were freed, from the shortest on.
    pub(crate) const OF_FREED: [Self; 4] = [
        Self::UnderMillisecond,
        Self::UnderSecond,
        Self::UnderMinute,
        Self::Longer,
    ];
}

/// How a stack was found, and whether all of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StackKind {
    /// By frame pointers.
    FramePointers,
    /// By unwind tables, since frame pointers led nowhere.
    Unwound,
    /// Neither led beyond the first frames: the caller's, at least.
    Incomplete,
    /// There were more frames than are kept.
    TooDeep,
}

/// Objects and bytes, estimated from samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Amount {
    pub(crate) objects: f64,
    pub(crate) bytes: f64,
}

/// What objects of one stack, thread name, class and lifetime were.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Return addresses, the innermost first. The call is before it.
    pub(crate) frames: Vec<usize>,
    pub(crate) stack: StackKind,
    /// Of the thread that allocated, without zeros.
    pub(crate) thread: Vec<u8>,
    /// Bytes of the size class; of a large object, zero.
    pub(crate) class_bytes: usize,
    pub(crate) lifetime: Lifetime,
    /// Since the start.
    pub(crate) allocated: Amount,
    /// Zero unless `lifetime` is [`Lifetime::Live`].
    pub(crate) in_use: Amount,
    /// When the most bytes were in use. Told once for a stack, thread name and class: in the row
    /// whose lifetime is [`Lifetime::Live`].
    pub(crate) peak: Amount,
}

/// A heap profile.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) rows: Vec<Row>,
    /// Mean distance of samples, in allocated bytes.
    pub(crate) rate_bytes: usize,
    /// Samples that found no place.
    pub(crate) dropped: u64,
    /// Since the Unix epoch.
    pub(crate) taken_at_ns: i64,
    /// Since sampling began.
    pub(crate) duration_ns: i64,
}
