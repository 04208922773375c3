//! How much memory the allocator has from the system.
//!
//! Counted where pages come to use and where they go back: runs that the page heap hands out for the
//! first time, or again after a release; mappings of huge objects, as if all of them were touched;
//! records. What is free and backed is counted, what is reserved or released is not.

use crate::config;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

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
