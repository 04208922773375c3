//! One bound for what all threads' magazines may hold together.
//!
//! Each magazine has its first few objects for free; growth beyond is paid from here and given back
//! when the magazine shrinks or its thread exits. So 1,000 threads do not hold 1,000 full caches.

use crate::config;
use crate::shards::shard_count;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes of objects for any process, and for each shard (about a CPU) besides.
const BASE_BYTES: usize = 16 << 20;
const SHARD_BYTES: usize = 2 << 20;
/// Under a memory limit, at most one part of so many of it.
const LIMIT_DIVISOR: usize = 32;

/// Bytes in use. **Any thread; atomic**, a counter.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Takes `bytes`, or nothing if that would exceed the bound.
pub(super) fn take(bytes: usize) -> bool {
    let used = USED.fetch_add(bytes, Relaxed) + bytes;
    let most = BASE_BYTES + SHARD_BYTES * shard_count();
    let within = used <= most.min(config::memory_limit_bytes() / LIMIT_DIVISOR);
    if !within {
        give(bytes);
    }
    within
}

/// Gives `bytes` back.
pub(super) fn give(bytes: usize) {
    USED.fetch_sub(bytes, Relaxed);
}

/// Bytes in use.
pub(crate) fn used() -> usize {
    USED.load(Relaxed)
}

/// Forgets what the threads held that a `fork` did not bring along: `bytes` are left.
pub(crate) fn reset(bytes: usize) {
    USED.store(bytes, Relaxed);
}
