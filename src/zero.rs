//! Objects of no bytes, for the C interface: addresses of their own, where every access faults.
//!
//! A *zero span* is a run of pages without access, each 16 bytes of which are a slot. It is a large object to
//! all that counts memory, and its record's bitmap says which slots are free. Nothing is cached: programs that
//! ask for no bytes often are rare, and so every double free is seen at once.
//!
//! Invariants:
//!
//! 1. The shared part of a zero span's record is reached under the lock [`PARTIAL`].
//! 2. A zero span is in the list exactly if it has a free slot. One that has no other is given to the page heap, but
//!    for the last one of the list.

#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use crate::base::PAGE_BYTES;
use crate::base::fatal::{Crime, fatal};
use crate::base::size_class::{SLOTS_MAX, SizeClass};
use crate::counters::Pages;
use crate::mheap::{self, run_cache, spans};
use crate::mspan::{Freed, MSpan, ZERO_SLOT_BYTES};
use crate::shards::shard_here;
use crate::sync::Mutex;
#[cfg(feature = "lock-stats")]
use crate::sync::usage::LockUse;
use crate::{secure, sys};

/// The first zero span with a free slot; the others follow by `next` and `prev`.
struct Partial(Option<NonNull<MSpan>>);

// SAFETY: the spans of the list are reached under its lock.
unsafe impl Send for Partial {}

static PARTIAL: Mutex<Partial> = Mutex::new(Partial(None));

impl Partial {
    fn first(&self) -> Option<&'static MSpan> {
        // SAFETY: records live for ever.
        self.0.map(|span| unsafe { span.as_ref() })
    }

    /// # Safety
    /// The span is a zero span, in no list, and `self` is reached through the lock.
    unsafe fn add(&mut self, span: &'static MSpan) {
        // SAFETY: the lock is held, here and below (Invariant 1); no two of these overlap.
        unsafe {
            if let Some(first) = self.first() {
                first.shared().prev = Some(NonNull::from(span));
            }
            span.shared().prev = None;
            span.shared().next = self.0.replace(NonNull::from(span));
        }
    }

    /// # Safety
    /// The span is in the list, and `self` is reached through the lock.
    unsafe fn remove(&mut self, span: &'static MSpan) {
        // SAFETY: as in `add`; records live for ever.
        unsafe {
            let (prev, next) = (span.shared().prev.take(), span.shared().next.take());
            match prev {
                Some(prev) => prev.as_ref().shared().next = next,
                None => self.0 = next,
            }
            if let Some(next) = next {
                next.as_ref().shared().prev = prev;
            }
        }
    }

    /// Whether the list has this span, and no other.
    ///
    /// # Safety
    /// The span is in the list, and `self` is reached through the lock.
    unsafe fn is_only(&self, span: &'static MSpan) -> bool {
        // SAFETY: the lock is held (Invariant 1).
        let shared = unsafe { span.shared() };
        shared.prev.is_none() && shared.next.is_none()
    }

    /// A slot of the first span.
    fn take(&mut self) -> Option<*mut u8> {
        let span = self.first()?;
        let mut taken = 0;
        // SAFETY: the lock is held, and the span is in the list.
        unsafe {
            span.take_slots(1, |slot, _| taken = slot);
            if span.shared().free_slots == 0 {
                self.remove(span);
            }
        }
        Some(span.base().wrapping_add(taken * ZERO_SLOT_BYTES))
    }
}

/// An object of no bytes. Null if the system has no memory.
pub(crate) fn alloc() -> *mut u8 {
    if let Some(object) = PARTIAL.lock().take() {
        return object;
    }
    let Some(span) = make_span() else {
        return ptr::null_mut();
    };
    let mut partial = PARTIAL.lock();
    // SAFETY: the lock is held, and nobody else knows the span.
    unsafe { partial.add(span) };
    partial.take().unwrap_or(ptr::null_mut())
}

/// A zero span of which all slots are free.
fn make_span() -> Option<&'static MSpan> {
    let system_pages = (sys::page_bytes() / PAGE_BYTES).max(1) as u32;
    let pages = ((SLOTS_MAX * ZERO_SLOT_BYTES / PAGE_BYTES) as u32).max(system_pages);
    let run = mheap::alloc_run(pages, system_pages)?;
    let Some(record) = spans::take_record() else {
        run_cache::put(run, shard_here());
        return None;
    };
    secure::pages_are_used(run.arena, run.first, pages);
    // SAFETY: record and run are ours alone; the record is filled before anyone can find it. If the system has
    // no mapping left, the pages can be accessed, and that is all.
    let span = unsafe {
        MSpan::init(record, run.start().as_ptr(), pages, SizeClass::NONE, 0);
        let span = record.as_ref();
        sys::protect(run.start(), span.bytes());
        for slot in 0..SLOTS_MAX {
            span.free_slot(slot);
        }
        span.set_zero();
        span
    };
    run.arena.set_span(run.first, pages, Some(span));
    Pages::Large.allocated(span.bytes());
    Some(span)
}

/// Frees an object of no bytes that begins in a zero span. Aborts if it is free already.
pub(crate) fn free(span: &'static MSpan, object: *mut u8) {
    let slot = (object.addr() - span.base().addr()) / ZERO_SLOT_BYTES;
    let mut partial = PARTIAL.lock();
    // SAFETY: the lock is held (Invariant 1), here and below.
    let (freed, free_slots) = unsafe { (span.free_slot(slot), span.shared().free_slots) };
    if freed == Freed::Twice {
        drop(partial);
        fatal(Crime::DoubleFree, object.addr());
    }
    // SAFETY: a span without a free slot is in no list, any other one is in it.
    let is_surplus = unsafe {
        if free_slots == 1 {
            partial.add(span);
        }
        let is_surplus = usize::from(free_slots) == SLOTS_MAX && !partial.is_only(span);
        if is_surplus {
            partial.remove(span);
        }
        is_surplus
    };
    drop(partial);
    if is_surplus {
        free_span(span);
    }
}

/// Gives a zero span to the page heap: all its slots are free, and it is in no list.
fn free_span(span: &'static MSpan) {
    let Some(base) = NonNull::new(span.base()) else {
        return;
    };
    // SAFETY: the span is the caller's, and its pages were committed before.
    if unsafe { sys::commit(base, span.bytes()) } {
        Pages::Large.freed(span.bytes());
        spans::free_span(span);
        return;
    }
    let mut partial = PARTIAL.lock();
    // SAFETY: the lock is held, and the span is in no list.
    unsafe { partial.add(span) };
}

/// Whether a slot of a zero span is free.
pub(crate) fn is_free(span: &'static MSpan, object: *mut u8) -> bool {
    let slot = (object.addr() - span.base().addr()) / ZERO_SLOT_BYTES;
    let _partial = PARTIAL.lock();
    // SAFETY: the lock is held (Invariant 1).
    unsafe { span.shared() }.is_free(slot)
}

/// The use of the lock of this floor.
#[cfg(feature = "lock-stats")]
pub(crate) fn lock_uses(each: &mut impl FnMut(LockUse)) {
    each(LockUse::of("zero spans", 0, None, PARTIAL.usage()));
}

/// Whether the lock of this floor comes free in time, so that the calling thread does not hold it: see
/// [`Mutex::comes_free`].
pub(crate) fn locks_come_free(deadline_ns: u64) -> bool {
    PARTIAL.comes_free(deadline_ns)
}

/// For `fork`: the lock of this floor.
pub(crate) fn lock_for_fork() {
    PARTIAL.lock_for_fork();
}

/// For `fork`: gives the lock of this floor back.
///
/// # Safety
/// As for [`Mutex::unlock_after_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    // SAFETY: the caller's contract.
    unsafe { PARTIAL.unlock_after_fork() };
}
