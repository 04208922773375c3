//! How much memory the allocator has from the system.
//!
//! Counted where pages come to use and where they go back: runs that the page heap hands out for the
//! first time, or again after a release; mappings of huge objects, as if all of them were touched;
//! records. What is free and backed is counted, what is reserved or released is not.

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use crate::{config, sys};

/// **Any thread; atomic**, a counter.
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Memory came to use.
pub(crate) fn add(bytes: usize) {
    BYTES.fetch_add(bytes, Relaxed);
}

/// Memory went back.
pub(crate) fn sub(bytes: usize) {
    BYTES.fetch_sub(bytes, Relaxed);
}

/// Bytes of memory that are backed.
pub(crate) fn bytes() -> usize {
    BYTES.load(Relaxed)
}

/// What went back to the system so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Returned {
    pub(crate) bytes: u64,
    /// System calls for that, and the time that they took.
    pub(crate) calls: u64,
    pub(crate) ns: u64,
}

/// **Any thread; atomic**, counters.
static RETURNED_BYTES: AtomicU64 = AtomicU64::new(0);
static RETURN_CALLS: AtomicU64 = AtomicU64::new(0);
static RETURN_NS: AtomicU64 = AtomicU64::new(0);

/// Counts a system call that gives `bytes` back, which `call` makes; its result, whether they went.
pub(crate) fn releasing(bytes: usize, call: impl FnOnce() -> bool) -> bool {
    let start_ns = sys::now_ns();
    let gone = call();
    RETURN_NS.fetch_add(sys::now_ns().saturating_sub(start_ns), Relaxed);
    RETURN_CALLS.fetch_add(1, Relaxed);
    if gone {
        RETURNED_BYTES.fetch_add(bytes as u64, Relaxed);
    }
    gone
}

/// What went back to the system so far.
pub(crate) fn returned() -> Returned {
    Returned {
        bytes: RETURNED_BYTES.load(Relaxed),
        calls: RETURN_CALLS.load(Relaxed),
        ns: RETURN_NS.load(Relaxed),
    }
}

/// One part of so many of the limit is left for what is not counted: the program itself and its stacks.
const MARGIN_DIVISOR: usize = 64;

/// Bytes by which the memory limit, less a margin, would be exceeded with so many more.
#[inline]
pub(crate) fn above_limit(more: usize) -> usize {
    let limit = config::memory_limit_bytes();
    above(limit - limit / MARGIN_DIVISOR, more)
}

/// Whether there is a hard limit, and it is exceeded.
pub(crate) fn is_refused() -> bool {
    config::is_limit_hard() && above(config::memory_limit_bytes(), 0) > 0
}

#[inline]
fn above(limit: usize, more: usize) -> usize {
    bytes().saturating_add(more).saturating_sub(limit)
}
