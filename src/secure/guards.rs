//! Pages without access behind spans: a run over the end of the last object faults.
//!
//! The guard is the last page of a span, so that it comes and goes with it, and a pointer into it is one into
//! the span. Each splits a mapping in two, of which the kernel allows a process 65,530
//! (`vm.max_map_count`): from [`GUARDS_MAX`] on spans do without.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::on::does;
use crate::base::PAGE_BYTES;
use crate::base::size_class::SizeClass;
use crate::config::Secure;
use crate::mspan::MSpan;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::{backed, sys};

/// Most guards: two mappings each, so half of what the kernel allows.
const GUARDS_MAX: usize = 16_384;

/// Guards that there are. **Any thread; atomic**, a counter.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Those of spans with slots. **Any thread; atomic**, a counter.
static COUNT_OF_SLOTS: AtomicUsize = AtomicUsize::new(0);

/// Bytes that a span needs for a guard; zero if it gets none. Where pages of the system are larger than the
/// heap's, there are none: a span may end in the middle of one.
pub(crate) fn bytes() -> usize {
    let has_room = COUNT.load(Relaxed) < GUARDS_MAX;
    if does(Secure::GUARDS) && has_room && sys::page_bytes() <= PAGE_BYTES {
        PAGE_BYTES
    } else {
        0
    }
}

/// Bytes of the guard of a span; zero if it has none.
pub(super) fn bytes_of(span: &MSpan) -> usize {
    if span.is_guarded() { PAGE_BYTES } else { 0 }
}

/// Pages of guards of spans with slots; those of large objects count as part of them.
pub(crate) fn pages() -> usize {
    COUNT_OF_SLOTS.load(Relaxed)
}

/// Makes the last page of a span a guard, if it has so many bytes for one. Nobody uses it.
pub(crate) fn set(span: &MSpan, bytes: usize) {
    if bytes == 0 {
        return;
    }
    COUNT.fetch_add(1, Relaxed);
    // SAFETY: whole pages of the system, of the span, which is the caller's.
    let is_set = last_page(span).is_some_and(|page| unsafe { sys::protect(page, PAGE_BYTES) });
    if !is_set {
        COUNT.fetch_sub(1, Relaxed);
        return;
    }
    span.set_guarded(true);
    if has_slots(span) {
        COUNT_OF_SLOTS.fetch_add(1, Relaxed);
        backed::sub(PAGE_BYTES);
        if let Some(page) = last_page(span) {
            // SAFETY: as above.
            unsafe { sys::release(page, PAGE_BYTES, false) };
        }
    }
}

/// Makes the guard of a span memory again, if it has one. Nobody uses the span.
pub(crate) fn clear(span: &MSpan) {
    if !span.is_guarded() {
        return;
    }
    span.set_guarded(false);
    COUNT.fetch_sub(1, Relaxed);
    if has_slots(span) {
        COUNT_OF_SLOTS.fetch_sub(1, Relaxed);
        backed::add(PAGE_BYTES);
    }
    if let Some(page) = last_page(span) {
        // SAFETY: as in `set`. It merges with its neighbours, which needs no more mappings than before.
        unsafe { sys::commit(page, PAGE_BYTES) };
    }
}

fn has_slots(span: &MSpan) -> bool {
    span.class() != SizeClass::NONE
}

fn last_page(span: &MSpan) -> Option<NonNull<u8>> {
    NonNull::new(span.base().wrapping_add(span.bytes() - PAGE_BYTES))
}
