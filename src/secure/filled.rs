//! Free pages that are filled: what was written there after the free is seen when they are used again.
//!
//! A span that ends leaves such pages, where each slot that has a part of them is filled; a fresh span has its slots
//! filled there from the start, and for a large object they are verified when it gets them. What goes back to the
//! system is not filled any more.

#![allow(unsafe_code)]

use core::ops::Range;

use super::bytes;
use crate::arena::Arena;
use crate::base::PAGE_BYTES;
use crate::base::fatal::{Crime, fatal};
use crate::mspan::MSpan;
use crate::pages::{ARENA_PAGES, ARENA_WORDS};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A bit for each page of an arena: set if it is free and filled. Zero bytes are valid. **Written by who holds the
/// page; atomic**, as others hold its neighbours.
pub(crate) struct FilledPages([AtomicU64; ARENA_WORDS]);

impl FilledPages {
    /// The word of a page, and its bit there.
    fn bit(&self, page: u32) -> (&AtomicU64, u64) {
        let page = page % ARENA_PAGES; // It is less.
        (
            &self.0[(page / u64::BITS) as usize],
            1 << (page % u64::BITS),
        )
    }

    fn has(&self, page: u32) -> bool {
        let (word, bit) = self.bit(page);
        // Relaxed, here and below: who has the page got it through a lock from who had it before.
        word.load(Relaxed) & bit != 0
    }

    fn set(&self, page: u32) {
        let (word, bit) = self.bit(page);
        word.fetch_or(bit, Relaxed);
    }

    fn unset(&self, page: u32) {
        let (word, bit) = self.bit(page);
        word.fetch_and(!bit, Relaxed);
    }
}

/// Notes that these bytes of a span that ends were filled: their whole pages are.
pub(super) fn note(span: &MSpan, filled: Range<usize>) {
    if filled.is_empty() {
        return;
    }
    let Some((arena, first)) = Arena::containing(span.base()) else {
        return;
    };
    for page in filled.start.div_ceil(PAGE_BYTES)..filled.end / PAGE_BYTES {
        arena.filled.set(first + page as u32);
    }
}

/// How many pages of a fresh span are filled.
pub(super) fn pages_of(span: &MSpan) -> u32 {
    let Some((arena, first)) = Arena::containing(span.base()) else {
        return 0;
    };
    let pages = first..first + span.pages();
    pages.filter(|page| arena.filled.has(*page)).count() as u32
}

/// Whether these bytes of a fresh span are filled as a whole. Where only a part is, that is verified at once. Aborts
/// if it was written to.
pub(super) fn has(span: &MSpan, slot: Range<usize>) -> bool {
    let Some((arena, first)) = Arena::containing(span.base()) else {
        return false;
    };
    let pages = || slot.start / PAGE_BYTES..slot.end.div_ceil(PAGE_BYTES);
    let is_filled = |page: &usize| arena.filled.has(first + *page as u32);
    if pages().all(|page| is_filled(&page)) {
        return true;
    }
    for page in pages().filter(is_filled) {
        let start = slot.start.max(page * PAGE_BYTES);
        let end = slot.end.min((page + 1) * PAGE_BYTES);
        verify(span.base().wrapping_add(start), end - start);
    }
    false
}

/// Pages get another use, and are not verified here.
pub(crate) fn forget(arena: &Arena, first: u32, count: u32) {
    for page in first..first + count {
        if arena.filled.has(page) {
            arena.filled.unset(page);
        }
    }
}

/// Pages become part of a large object. Aborts if one of them was filled, and written to.
pub(crate) fn pages_are_used(arena: &Arena, first: u32, count: u32) {
    for page in first..first + count {
        if arena.filled.has(page) {
            arena.filled.unset(page);
            verify(arena.page_start(page).as_ptr(), PAGE_BYTES);
        }
    }
}

/// Aborts if bytes of free memory, whole words, are not as they were filled: with the address of the first word, as the
/// object that it was part of is not known any more.
fn verify(start: *mut u8, count: usize) {
    // SAFETY: at least one whole word, at a word, of a committed page that is free, and the caller's; here and below.
    let are_filled = |start, count| unsafe { bytes::is_filled(start, count) };
    if !are_filled(start, count) {
        let words = (0..count).step_by(size_of::<u64>());
        let changed = words.map(|offset| start.wrapping_add(offset));
        let first = changed
            .into_iter()
            .find(|word| !are_filled(*word, size_of::<u64>()));
        fatal(Crime::WriteAfterFree, first.unwrap_or(start).addr());
    }
}
