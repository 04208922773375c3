//! Huge objects: mappings of their own.
//!
//! Behind a huge object lies a *guard*, a page of the system without access that belongs to its mapping, unless
//! address space is short.
//!
//! The mappings that are kept of freed ones are not here, but in the page heap (`mheap::huge`, which is `huge` below).

#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::{REMAP_FROM_BYTES, live_object};
use crate::arena::{self, ARENA_BYTES};
use crate::base::PAGE_BYTES;
use crate::base::size_class::SizeClass;
use crate::counters::Pages;
use crate::mheap::{self, Room, huge, huge_pages, spans};
use crate::mspan::MSpan;
use crate::sys;

/// A mapping of its own: one that is kept of an object before, or a new one, whose memory is zero.
pub(super) fn alloc(size: usize, align: usize, zeroed: bool) -> Option<NonNull<u8>> {
    let bytes = mapping_bytes(size)?;
    if align <= ARENA_BYTES
        && let Some(span) = huge::take(bytes)
        && let Some(object) = reuse(span, size, zeroed)
    {
        if zeroed {
            huge_pages::advise_zeroed(live_object(object.as_ptr()));
        }
        return Some(object);
    }
    let room = mheap::make_room(bytes)?;
    let record = spans::take_record()?;
    let place = reserve_guarded(bytes, align).filter(|(base, guard)| {
        // SAFETY: reserved just now, whole system pages, ours alone.
        let committed = unsafe { sys::commit(*base, bytes) };
        if !committed {
            // SAFETY: as above.
            unsafe { sys::unmap(*base, bytes + guard) };
        }
        committed
    });
    let Some((base, guard)) = place else {
        // SAFETY: records are valid at any time; this one is ours.
        spans::put_record(unsafe { record.as_ref() });
        return None;
    };
    // SAFETY: record and mapping are ours alone; the record is filled before anyone can find it.
    let span = unsafe {
        MSpan::init(
            record,
            base.as_ptr(),
            (bytes / PAGE_BYTES) as u32,
            SizeClass::NONE,
            0,
        );
        record.as_ref()
    };
    span.set_huge();
    span.set_guard_behind(guard > 0);
    arena::set_huge(base.addr().get(), bytes, Some(span));
    Pages::Huge.allocated(bytes);
    huge::changed(0, bytes);
    room.keep();
    huge_pages::advise_new(span);
    Some(base)
}

/// Makes a mapping that was kept an object again, of `size` bytes; `None` if it is too short and can't grow.
fn reuse(span: &'static MSpan, size: usize, zeroed: bool) -> Option<NonNull<u8>> {
    let (object, kept, wanted) = (span.base(), span.bytes(), mapping_bytes(size)?);
    let base = NonNull::new(object)?;
    // SAFETY: the mapping is ours, and nothing lives in it.
    if zeroed && !unsafe { sys::release(base, kept, false) } {
        // SAFETY: as above; it has that many bytes.
        unsafe { base.write_bytes(0, kept) };
    }
    span.set_free(false);
    Pages::Huge.allocated(kept);
    huge::changed(0, kept);
    if wanted <= kept {
        span.set_used((wanted / PAGE_BYTES) as u32);
        return Some(base);
    }
    if resize_in_place(span, size) {
        return Some(base);
    }
    let moved = move_to_larger(object, size, ARENA_BYTES);
    if moved.is_none() {
        Pages::Huge.freed(kept);
        huge::changed(kept, 0);
        huge::unmap(span);
    }
    moved
}

/// Reserves address space for a huge object and its guard; where, and the bytes of the guard.
fn reserve_guarded(bytes: usize, align: usize) -> Option<(NonNull<u8>, usize)> {
    let align = align.max(ARENA_BYTES);
    let guards = [sys::page_bytes(), 0].into_iter();
    let mut places = guards.filter_map(|guard| {
        let base = arena::reserve_huge(bytes.checked_add(guard)?, align)?;
        Some((base, guard))
    });
    places.next()
}

/// Bytes of a mapping for `size` bytes: whole pages of the heap and of the system.
pub(super) fn mapping_bytes(size: usize) -> Option<usize> {
    size.max(1)
        .checked_next_multiple_of(sys::page_bytes().max(PAGE_BYTES))
}

/// Counts that a huge object was freed. Its memory stays counted as backed.
pub(crate) fn is_freed(span: &MSpan) {
    Pages::Huge.freed(span.bytes());
    huge::changed(span.bytes(), 0);
}

/// Frees a huge object, which is no sample: its mapping is kept for the next one, or unmapped.
pub(super) fn free(span: &'static MSpan) {
    is_freed(span);
    if !huge::keep(span) {
        huge::unmap(span);
    }
}

/// Changes the length of a huge object without moving it. False, and nothing changed, if that is not possible.
pub(super) fn resize_in_place(span: &'static MSpan, size: usize) -> bool {
    let (Some(bytes), Some(base)) = (mapping_bytes(size), NonNull::new(span.base())) else {
        return false;
    };
    let old = span.bytes();
    if span.takes_from_slack(bytes / PAGE_BYTES) {
        return true;
    }
    if bytes < old {
        Pages::Huge.resized(old, bytes);
        huge::changed(old, bytes);
        huge::cut(span, bytes);
        return true;
    }
    let Some(room) = mheap::make_room(bytes - old) else {
        return false;
    };
    let guard = huge::guard_bytes(span);
    // SAFETY: the object's guard, then its own mapping, whose owner calls, and its new end.
    unsafe {
        sys::unmap(base.add(old), guard);
        if !sys::resize_in_place(base, old, bytes + guard) {
            let again = sys::reserve_at(base.addr().get() + old, guard, true);
            span.set_guard_behind(guard > 0 && again.is_some());
            return false;
        }
        if guard > 0 {
            sys::protect(base.add(bytes), guard);
        }
    }
    if !arena::set_huge(base.addr().get(), bytes, Some(span)) {
        // SAFETY: the part just added, outside the window, but for the guard.
        unsafe {
            if guard > 0 {
                sys::protect(base.add(old), guard);
            }
            sys::unmap(base.add(old + guard), bytes - old);
        }
        return false;
    }
    span.set_extent(base.as_ptr(), (bytes / PAGE_BYTES) as u32);
    has_grown(span, old, room);
    true
}

/// Moves a huge object to a larger mapping, without copying; its new place. `None`, and nothing
/// changed, if it is not huge or the system has no memory or address space.
pub(super) fn move_to_larger(object: *mut u8, size: usize, align: usize) -> Option<NonNull<u8>> {
    let span = live_object(object);
    if !span.is_huge() || size < REMAP_FROM_BYTES {
        return None;
    }
    let (old, bytes) = (span.bytes(), mapping_bytes(size)?);
    let room = mheap::make_room(bytes.saturating_sub(old))?;
    let from = NonNull::new(object)?;
    let (to, guard) = reserve_guarded(bytes, align)?;
    // The old entries go first: once its pages have moved, anyone may get the address space.
    arena::set_huge(object.addr(), old, None);
    // SAFETY: the object's own mapping, whose owner calls, to a reservation of ours.
    if !unsafe { sys::move_pages(from, old, to, bytes) } {
        // The reservation stays: the kernel unmaps the target before it can fail, so another thread
        // may have got the place meanwhile. At worst address space is lost.
        arena::set_huge(object.addr(), old, Some(span));
        return None;
    }
    // SAFETY: the guard of the old mapping, where nothing else has been.
    unsafe { sys::unmap(from.add(old), huge::guard_bytes(span)) };
    span.set_guard_behind(guard > 0);
    span.set_extent(to.as_ptr(), (bytes / PAGE_BYTES) as u32);
    arena::set_huge(to.addr().get(), bytes, Some(span));
    has_grown(span, old, room);
    Some(to)
}

/// Counts that a huge object grew, and asks for huge pages for what comes. An object that grows has
/// been filled so far; any other may be used sparsely, and huge pages would be resident all the same.
fn has_grown(span: &MSpan, old: usize, room: Room) {
    Pages::Huge.resized(old, span.bytes());
    huge::changed(old, span.bytes());
    room.keep();
    huge_pages::advise_grown(span);
}

#[cfg(test)]
mod tests {
    use super::super::{alloc, free, resize};
    use super::*;
    use crate::alone::alone;

    /// The end of an object can be read, and nothing behind it.
    fn ends_at_a_guard(object: *mut u8) {
        let end = object.addr() + live_object(object).bytes();
        assert!(sys::is_readable(end - 8) && !sys::is_readable(end));
    }

    #[test]
    fn a_huge_object_ends_at_a_guard_wherever_and_however_long_it_is() {
        let mib = 1 << 20;
        let mut object = alloc(80 * mib, 16, false);
        assert!(!object.is_null());
        ends_at_a_guard(object);
        for size in [81, 300, 70, 64, 200, 128, 129, 20] {
            let resized = resize(object, size * mib, 16);
            object = resized.map_or(object, NonNull::as_ptr);
            assert_eq!(live_object(object).bytes(), size * mib);
            ends_at_a_guard(object);
        }
        free(object, None);
    }

    #[test]
    fn a_request_beyond_all_memory_is_refused_with_a_mapping_kept() {
        alone(|| {
            // There are systems that promise memory without a bound.
            let limit = libc::rlimit {
                rlim_cur: 1 << 40,
                rlim_max: 1 << 40,
            };
            // SAFETY: `limit` is valid for reads.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
            let mapping = alloc(80 << 20, 16, false);
            assert!(!mapping.is_null());
            free(mapping, None);
            assert!(alloc(30 << 40, 16, false).is_null());
            let object = alloc(80 << 20, 16, false);
            // SAFETY: the last byte of the object.
            unsafe { object.add((80 << 20) - 1).write(1) };
            free(object, None);
        });
    }
}
