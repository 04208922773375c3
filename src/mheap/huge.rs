//! Mappings of huge objects that were freed, kept for the next ones.
//!
//! A mapping that goes to the system with its object takes its pages along, and the next object faults
//! all of them in again: 25,000 faults for 100 MiB. So a few are kept whole, with their span, marked as free,
//! and their entries in the table of arenas. One that is too short grows by `mremap`, one that is far too
//! long is cut. They are free and backed like the dirty pages of the heap, and go like them: by the
//! scavenger, in pieces from their ends; all at once for `trim` and near the memory limit.
//!
//! Invariants:
//!
//! 1. The first `count` of `mappings` are spans of huge objects, oldest first, that are marked as free and
//!    that nobody else has.
//! 2. `free_pages` is the sum of their pages.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::{HEAP, HeapGuard};
use crate::arena::{self, ARENA_BYTES};
use crate::base::PAGE_BYTES;
use crate::config::{self, Release};
use crate::mspan::MSpan;
use crate::{backed, sys};

/// Most mappings that are kept. More than a few of 64 MiB and more are rarely wanted at a time.
const MAPPINGS_MAX: usize = 8;
/// A mapping may be longer than what is asked for by one part of so many.
const SLACK_DIVISOR: u32 = 4;
/// A mapping that would have less is not worth its place.
const LEAST_BYTES: usize = 4 << 20;

/// Most pages of a mapping for an object of so many.
fn most_pages(pages: u32) -> u32 {
    pages.saturating_add(pages / SLACK_DIVISOR)
}

/// Huge objects, for the heap. **Under the heap's lock.**
pub(super) struct Huge {
    /// Pages in objects.
    live_pages: usize,
    mappings: [Option<&'static MSpan>; MAPPINGS_MAX],
    count: usize,
    free_pages: usize,
    /// Fewest free pages since the round began.
    least_pages: usize,
}

impl Huge {
    pub(super) const NONE: Self = Self {
        live_pages: 0,
        mappings: [None; MAPPINGS_MAX],
        count: 0,
        free_pages: 0,
        least_pages: 0,
    };

    /// Pages in objects.
    pub(super) fn live_pages(&self) -> usize {
        self.live_pages
    }

    /// Pages in free mappings.
    pub(super) fn free_pages(&self) -> usize {
        self.free_pages
    }

    /// The mapping for an object of `pages`: the shortest that is long enough, but not by much; else the
    /// longest that is too short, as growing costs no page that is there; else the shortest.
    fn choose(&self, pages: u32) -> Option<usize> {
        let most = most_pages(pages);
        let found = self.mappings[..self.count].iter().flatten().enumerate();
        let found = found.min_by_key(|(_, span)| match span.pages() {
            kept if kept > most => (2, kept),
            kept if kept >= pages => (0, kept),
            kept => (1, u32::MAX - kept),
        });
        found.map(|(place, _)| place)
    }

    fn remove(&mut self, place: usize) -> Option<&'static MSpan> {
        let span = self.mappings.get_mut(place)?.take()?;
        self.mappings[place..self.count].rotate_left(1);
        self.count -= 1;
        self.free_pages -= span.pages() as usize;
        self.least_pages = self.least_pages.min(self.free_pages);
        Some(span)
    }

    /// Adds a mapping as the oldest or the newest one; false if there are too many.
    fn insert(&mut self, place: usize, span: &'static MSpan) -> bool {
        if self.count == MAPPINGS_MAX {
            return false;
        }
        self.mappings[self.count] = Some(span);
        self.count += 1;
        self.mappings[place..self.count].rotate_right(1);
        self.free_pages += span.pages() as usize;
        true
    }
}

/// Notes that huge objects became larger or smaller by this much.
pub(crate) fn changed(old_bytes: usize, new_bytes: usize) {
    let mut heap = HEAP.lock();
    heap.huge.live_pages += new_bytes / PAGE_BYTES;
    heap.huge.live_pages -= old_bytes / PAGE_BYTES;
    heap.note_peak();
}

/// A free mapping, for an object of `bytes`; longer than that by a quarter at most, or shorter. It is
/// the caller's, and still marked as free.
pub(crate) fn take(bytes: usize) -> Option<&'static MSpan> {
    let pages = u32::try_from(bytes / PAGE_BYTES).ok()?;
    let mut heap = HEAP.lock();
    let place = heap.huge.choose(pages)?;
    let span = heap.huge.remove(place)?;
    drop(heap);
    if span.pages() > most_pages(pages) {
        cut(span, bytes);
    }
    Some(span)
}

/// Keeps the mapping of a huge object that was freed; false if it is to go. Nobody else has the span.
pub(crate) fn keep(span: &'static MSpan) -> bool {
    if config::release() == Release::AtOnce || backed::above_limit(0) > 0 {
        return false;
    }
    span.set_free(true);
    let mut heap = HEAP.lock();
    let oldest = if heap.huge.count == MAPPINGS_MAX {
        heap.huge.remove(0)
    } else {
        None
    };
    let newest = heap.huge.count;
    let kept = heap.huge.insert(newest, span);
    drop(heap);
    if let Some(oldest) = oldest {
        unmap(oldest);
    }
    kept
}

/// Cuts a mapping to `bytes`, whole pages of the system and fewer than it has: the rest goes back. The span is
/// the caller's.
pub(crate) fn cut(span: &'static MSpan, bytes: usize) {
    let (start, old) = (span.base(), span.bytes());
    let entries_from = start.addr() + bytes.next_multiple_of(ARENA_BYTES);
    let end = start.addr() + old;
    if entries_from < end {
        arena::set_huge(entries_from, end - entries_from, None);
    }
    span.set_extent(start, (bytes / PAGE_BYTES) as u32);
    backed::sub(old - bytes);
    let Some(tail) = NonNull::new(start.wrapping_add(bytes)) else {
        return;
    };
    // SAFETY: the tail of the mapping, whose owner gives it up, and its guard; no table refers to it. The first
    // page of it is the new guard; if the system can't take the access away, it is just unused.
    unsafe {
        let guard = guard_bytes(span);
        if guard > 0 {
            sys::release(tail, guard, false);
            sys::protect(tail, guard);
        }
        sys::unmap(tail.add(guard), old - bytes);
    }
}

/// Gives a mapping and its span back. Nobody else has the span.
pub(crate) fn unmap(span: &'static MSpan) {
    let (start, bytes) = (span.base(), span.bytes());
    let guard = guard_bytes(span);
    arena::set_huge(start.addr(), bytes, None);
    super::spans::put_record(span);
    backed::sub(bytes);
    if let Some(start) = NonNull::new(start) {
        // SAFETY: the mapping of the span, whose owner gives it up; no table refers to it.
        unsafe { sys::unmap(start, bytes + guard) };
    }
}

/// Bytes of the guard behind a huge object, which belongs to its mapping.
pub(crate) fn guard_bytes(span: &MSpan) -> usize {
    if span.has_guard_behind() {
        sys::page_bytes()
    } else {
        0
    }
}

/// Begins a round; pages in free mappings that nobody needed in the last one.
pub(crate) fn begin_round() -> usize {
    let huge = &mut HEAP.lock().huge;
    core::mem::replace(&mut huge.least_pages, huge.free_pages)
}

/// Gives back all free mappings; their pages.
pub(crate) fn release_all() -> usize {
    release(HEAP.lock(), usize::MAX).1
}

/// Gives back `count` pages of free mappings, oldest first and from the end; how many went. Fewer if there are
/// fewer, and more if little of a mapping would be left.
pub(super) fn release(mut heap: HeapGuard, count: usize) -> (HeapGuard, usize) {
    let mut released = 0;
    while released < count
        && let Some(oldest) = heap.huge.remove(0)
    {
        drop(heap);
        let (pages, unit) = (oldest.pages() as usize, sys::page_bytes().max(PAGE_BYTES));
        let left = (pages.saturating_sub(count - released) * PAGE_BYTES) / unit * unit;
        if left < LEAST_BYTES {
            unmap(oldest);
            released += pages;
            heap = HEAP.lock();
            continue;
        }
        cut(oldest, left);
        released += pages - oldest.pages() as usize;
        heap = HEAP.lock();
        if !heap.huge.insert(0, oldest) {
            drop(heap);
            released += oldest.pages() as usize;
            unmap(oldest);
            heap = HEAP.lock();
        }
    }
    (heap, released)
}
