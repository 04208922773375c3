//! Memory for the allocator's own records, never from the heap that it serves.
//!
//! Records (spans, mcaches, arenas, batches) are carved one after another from zeroed mappings of
//! [`CHUNK_BYTES`], and never go back to the system; who frees a record keeps it in a list of its
//! own kind, so a record's address is a record of that kind for ever. A stale pointer to one
//! therefore never faults.
//!
//! Records and objects never share a page, and on both sides of each mapping is a page of the system without
//! access: no overflow of an object, nor of anything else, reaches a record.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
#[cfg(feature = "lock-stats")]
use crate::sync::usage::LockUse;
use crate::{backed, sys};

/// Bytes mapped at a time. Untouched pages cost no memory; a power of two and at least one page of
/// any system.
const CHUNK_BYTES: usize = 256 << 10;

/// The part of the newest chunk that is still unused.
struct Rest {
    start: Option<NonNull<u8>>,
    bytes: usize,
}

// SAFETY: the unused part of a mapping belongs to nobody, whichever thread looks at it.
unsafe impl Send for Rest {}

static RECORDS: Mutex<Rest> = Mutex::new(Rest {
    start: None,
    bytes: 0,
});

/// Bytes handed out for records so far. **Any thread; atomic**, a counter.
static BYTES: AtomicUsize = AtomicUsize::new(0);
/// Bytes mapped for them. **Any thread; atomic**, a counter.
static MAPPED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Memory for one `T`, all bytes zero, at the alignment of `T` and never given back.
///
/// `None` if the system has no memory. Constant time but for the system calls of a new chunk.
pub(crate) fn alloc<T>() -> Option<NonNull<T>> {
    const { assert!(align_of::<T>() <= 4096) };
    let bytes = size_of::<T>();
    let memory = if bytes > CHUNK_BYTES / 4 {
        map(bytes)?
    } else {
        carve(bytes, align_of::<T>())?
    };
    BYTES.fetch_add(bytes, Relaxed);
    backed::add(bytes);
    Some(memory.cast())
}

/// Counts a mapping that is not made here and serves as those for records do: that of guarded objects.
#[cfg(feature = "guarded")]
pub(crate) fn add_mapping(bytes: usize) {
    MAPPED_BYTES.fetch_add(bytes, Relaxed);
}

/// Counts memory in such a mapping that came to use.
#[cfg(feature = "guarded")]
pub(crate) fn add_use(bytes: usize) {
    BYTES.fetch_add(bytes, Relaxed);
    backed::add(bytes);
}

/// Counts memory in such a mapping that went back.
#[cfg(feature = "guarded")]
pub(crate) fn sub_use(bytes: usize) {
    BYTES.fetch_sub(bytes, Relaxed);
    backed::sub(bytes);
}

/// Bytes handed out for records.
pub(crate) fn record_bytes() -> usize {
    BYTES.load(Relaxed)
}

/// Bytes of the mappings that records are in.
pub(crate) fn mapped_bytes() -> usize {
    MAPPED_BYTES.load(Relaxed)
}

/// Maps memory for records, between two guard pages.
fn map(bytes: usize) -> Option<NonNull<u8>> {
    let guard = sys::page_bytes();
    let bytes = bytes.next_multiple_of(guard);
    let mapping = sys::map(guard + bytes + guard)?;
    MAPPED_BYTES.fetch_add(guard + bytes + guard, Relaxed);
    // SAFETY: the first, inner and last part of the mapping made above, which nobody else knows. Where the
    // system has no mapping left, there is no guard, and the page is unused.
    unsafe {
        let records = mapping.add(guard);
        sys::protect(mapping, guard);
        sys::protect(records.add(bytes), guard);
        sys::name_mapping(records, bytes, c"spanmalloc: records");
        Some(records)
    }
}

fn carve(bytes: usize, align: usize) -> Option<NonNull<u8>> {
    if let Some(found) = RECORDS.lock().take(bytes, align) {
        return Some(found);
    }
    // Without the lock, as it takes a few system calls.
    let start = map(CHUNK_BYTES);
    let mut rest = RECORDS.lock();
    if let Some(found) = rest.take(bytes, align) {
        // Another thread has mapped one meanwhile.
        drop(rest);
        if let Some(start) = start {
            unmap_chunk(start);
        }
        return Some(found);
    }
    *rest = Rest {
        start: Some(start?),
        bytes: CHUNK_BYTES,
    };
    rest.take(bytes, align)
}

/// Gives a chunk back of which nothing was carved.
fn unmap_chunk(start: NonNull<u8>) {
    let guard = sys::page_bytes();
    let bytes = guard + CHUNK_BYTES + guard;
    // SAFETY: what `map` has made, with its guards, and nobody else knows it.
    unsafe { sys::unmap(start.sub(guard), bytes) };
    MAPPED_BYTES.fetch_sub(bytes, Relaxed);
}

impl Rest {
    fn take(&mut self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let start = self.start?;
        let padding = start.addr().get().wrapping_neg() & (align - 1);
        if padding + bytes > self.bytes {
            return None;
        }
        // SAFETY: both offsets are within the chunk, as just compared.
        let (found, next) = unsafe { (start.add(padding), start.add(padding + bytes)) };
        *self = Self {
            start: Some(next),
            bytes: self.bytes - padding - bytes,
        };
        Some(found)
    }
}

/// The use of the lock of this floor.
#[cfg(feature = "lock-stats")]
pub(crate) fn lock_uses(each: &mut impl FnMut(LockUse)) {
    each(LockUse::of("records", 0, None, RECORDS.usage()));
}

/// Whether the lock of this floor comes free in time, so that the calling thread does not hold it: see
/// [`Mutex::comes_free`].
pub(crate) fn locks_come_free(deadline_ns: u64) -> bool {
    RECORDS.comes_free(deadline_ns)
}

/// For `fork`: the lock of this floor.
pub(crate) fn lock_for_fork() {
    RECORDS.lock_for_fork();
}

/// For `fork`: gives the lock of this floor back.
///
/// # Safety
/// As for [`Mutex::unlock_after_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: the caller's contract.
    unsafe { RECORDS.unlock_after_fork() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_lie_between_pages_without_access() {
        for bytes in [CHUNK_BYTES, 100_000] {
            let Some(records) = map(bytes) else {
                panic!("no memory");
            };
            let first = records.addr().get();
            let limit = first + bytes.next_multiple_of(sys::page_bytes());
            assert!(sys::is_readable(first) && sys::is_readable(limit - 8));
            assert!(!sys::is_readable(first - 8) && !sys::is_readable(limit));
        }
    }
}
