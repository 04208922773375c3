//! Runs of pages become spans, and spans become runs again.
//!
//! Records of spans come from fixed-size pools and are reused for ever, so a stale pointer to one
//! never faults.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::{Run, huge_pages, run_cache};
use crate::base::PAGE_BYTES;
use crate::base::size_class::SizeClass;
use crate::mspan::{MSpan, TinyMasks};
use crate::sync::Mutex;
use crate::sync::atomic::Ordering::Relaxed;
#[cfg(feature = "lock-stats")]
use crate::sync::usage::LockUse;
use crate::{backed, meta, secure, sys};

/// Records that no span uses, linked by their `next`. One list for all, since a record may be freed
/// on another CPU than it was taken on.
struct FreeRecords(Option<NonNull<MSpan>>);

// SAFETY: the records in the list belong to the list alone.
unsafe impl Send for FreeRecords {}

static RECORDS: Mutex<FreeRecords> = Mutex::new(FreeRecords(None));

/// A record for a span, not initialised. `None` if the system has no memory.
pub(crate) fn take_record() -> Option<NonNull<MSpan>> {
    let mut records = RECORDS.lock();
    if let Some(record) = records.0 {
        // SAFETY: a record in the list was a span once, so it is initialised, and it is ours.
        records.0 = unsafe { record.as_ref().shared() }.next;
        return Some(record);
    }
    drop(records);
    meta::alloc()
}

/// Gives a record back. Nothing refers to its span any more.
pub(crate) fn put_record(span: &'static MSpan) {
    let mut records = RECORDS.lock();
    // SAFETY: the record is the caller's, who gives it up.
    unsafe { span.shared() }.next = records.0;
    records.0 = Some(NonNull::from(span));
}

/// A fresh span of objects of at most so many bytes gets its memory at once: each of its pages has parts of one or more
/// objects, so that all will be touched, but for slots that nobody takes. It takes one system call instead of a fault
/// for each page.
const PREFAULTED_MAX_BYTES: usize = 4096;
/// Bytes that the allocator has of the system, from which on it does so. Small programs keep what they don't touch.
const PREFAULTED_FROM_BYTES: usize = 4 << 20;

/// Makes a span of a size class, with all slots taken: the caller hands them out. `None` if the
/// system has no memory.
pub(crate) fn alloc_span(class: SizeClass, home: usize) -> Option<&'static MSpan> {
    make_span(class, home, |pages| run_cache::take(pages, home))
}

/// The same at a multiple of `align_pages`.
#[cfg(feature = "profile")]
pub(crate) fn alloc_aligned_span(
    class: SizeClass,
    home: usize,
    align_pages: u32,
) -> Option<&'static MSpan> {
    make_span(class, home, |pages| super::alloc_run(pages, align_pages))
}

/// Whether fresh memory that is likely to be touched comes at once.
pub(crate) fn prefaults() -> bool {
    backed::bytes() >= PREFAULTED_FROM_BYTES
}

fn make_span(
    class: SizeClass,
    home: usize,
    take_run: impl FnOnce(u32) -> Option<Run>,
) -> Option<&'static MSpan> {
    let record = take_record()?;
    let guard = secure::guard_bytes();
    let pages = class.geometry().span_pages + (guard / PAGE_BYTES) as u32;
    let Some(run) = take_run(pages) else {
        // SAFETY: not initialised by us, but all records are (zeroed memory is a valid one).
        put_record(unsafe { record.as_ref() });
        return None;
    };
    // SAFETY: record and run are ours alone.
    let span = unsafe {
        MSpan::init(record, run.start().as_ptr(), pages, class, home as u8);
        record.as_ref()
    };
    if class == SizeClass::TINY_BLOCKS {
        let Some(masks) = take_masks() else {
            run_cache::put(run, home);
            put_record(span);
            return None;
        };
        span.set_masks(masks);
    } else {
        secure::span_is_made(span);
    }
    if run.fresh && class.object_bytes() <= PREFAULTED_MAX_BYTES && prefaults() {
        huge_pages::touching(&run, || {
            // SAFETY: the run is committed, and ours.
            unsafe { sys::prefault(run.start(), pages as usize * PAGE_BYTES - guard) };
        });
    }
    secure::set_guard(span, guard);
    run.arena.set_span(run.first, pages, Some(span));
    Some(span)
}

/// Gives the pages and the record of a span back. All its slots are free, it is in no set, and no
/// thread has it checked out.
pub(crate) fn free_span(span: &'static MSpan) {
    if let Some(masks) = span.masks() {
        put_masks(masks);
    } else {
        secure::span_ends(span);
    }
    secure::clear_guard(span);
    // Its home needs pages more likely than this CPU, if the two are not the same: another thread's objects were freed.
    let home = span.home();
    if let Some(run) = into_run(span) {
        run_cache::put(run, home);
    }
}

/// As [`free_span`], for a large object whose memory went back to the system.
#[cfg(feature = "secure")]
pub(crate) fn free_released_span(span: &'static MSpan) {
    if let Some(run) = into_run(span) {
        super::free_released_run(run);
    }
}

/// Gives the record of a span back, which nobody uses any more; its pages are the caller's. `None` if
/// it is huge, and has none of the heap's.
pub(super) fn into_run(span: &'static MSpan) -> Option<Run> {
    let run = Run::of(span)?;
    run.arena.set_span(run.first, run.count, None);
    put_record(span);
    Some(run)
}

/// Masks that no span uses; a free one holds the address of the next in its first words.
struct FreeMasks(Option<NonNull<FreeMask>>);

/// The first bytes of free masks.
struct FreeMask {
    next: Option<NonNull<FreeMask>>,
}

// SAFETY: the masks in the list belong to the list alone.
unsafe impl Send for FreeMasks {}

static MASKS: Mutex<FreeMasks> = Mutex::new(FreeMasks(None));

/// All-zero masks for a span of tiny blocks.
fn take_masks() -> Option<NonNull<TinyMasks>> {
    let mut free = MASKS.lock();
    let Some(mask) = free.0 else {
        drop(free);
        return meta::alloc::<AlignedMasks>().map(NonNull::cast);
    };
    // SAFETY: the list's head is a free mask, whose first bytes are a `FreeMask`; zero bytes are a
    // valid end of the list and valid masks.
    unsafe {
        free.0 = mask.as_ref().next;
        mask.cast::<FreeMask>().write(FreeMask { next: None });
    }
    Some(mask.cast())
}

/// Gives masks back. Every block of their span is free, so all of them are zero.
fn put_masks(masks: &'static TinyMasks) {
    debug_assert!(masks.iter().all(|mask| mask.load(Relaxed) == 0));
    let mut free = MASKS.lock();
    let mask = NonNull::from(masks).cast::<FreeMask>();
    // SAFETY: nobody else uses the masks, which are aligned like a pointer (`AlignedMasks`).
    unsafe { mask.write(FreeMask { next: free.0 }) };
    free.0 = Some(mask);
}

/// Masks at the alignment of the link that free ones hold.
#[repr(C, align(64))]
struct AlignedMasks(TinyMasks);

/// The use of the locks of this floor.
#[cfg(feature = "lock-stats")]
pub(crate) fn lock_uses(each: &mut impl FnMut(LockUse)) {
    each(LockUse::of("span records", 0, None, RECORDS.usage()));
    each(LockUse::of("span records", 1, None, MASKS.usage()));
}

/// Whether the locks of this file come free in time, so that the calling thread does not hold one: see
/// [`Mutex::comes_free`].
pub(crate) fn locks_come_free(deadline_ns: u64) -> bool {
    RECORDS.comes_free(deadline_ns) && MASKS.comes_free(deadline_ns)
}

/// For `fork`: the locks of this file, in order.
pub(crate) fn lock_for_fork() {
    RECORDS.lock_for_fork();
    MASKS.lock_for_fork();
}

/// For `fork`: gives the locks of this file back.
///
/// # Safety
/// As for [`Mutex::unlock_after_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: the caller's contract.
    unsafe {
        RECORDS.unlock_after_fork();
        MASKS.unlock_after_fork();
    }
}
