//! Objects above the largest size class: pages of their own.
//!
//! *Large* objects are runs of pages from the page heap, exact to the page, each with a span record
//! of class "none". *Huge* ones, of an arena's size or more, have a mapping of their own, so that
//! they grow by `mremap` without a copy; a few mappings of freed ones are kept for the next.
//!
//! Behind a huge object lies a *guard*, a page of the system without access that belongs to its mapping, unless
//! address space is short.
//!
//! Growing in place needs the neighbouring pages free (large) or the address space behind (huge).
//! Where that fails, a large object that grows to [`REMAP_FROM_BYTES`] or more moves to a mapping of
//! its own, with one copy, and is never copied again.
//!
//! Complexity: O(log n) in the pages of the heap, and one store for each page of the object.

#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use crate::arena::{self, ARENA_BYTES, Place, place_of};
use crate::base::fatal::{Crime, fatal};
use crate::base::size_class::SizeClass;
use crate::base::{PAGE_BYTES, pages_for};
use crate::counters::{Pages, calls};
use crate::mheap::run_cache::{self, FreeRun, RUN_PAGES_MAX};
use crate::mheap::{self, Room, Run, huge, huge_pages, spans};
use crate::mspan::MSpan;
use crate::shards::shard_here;
use crate::{profile, runtime, secure, sys};

/// Bytes from which a growing object that has to move gets a mapping of its own. Below, copying is
/// cheaper than the system calls and page faults of a mapping each time.
const REMAP_FROM_BYTES: usize = 16 << 20;

/// A large object that this thread has kept, if that needs no slow call; see [`alloc`].
#[inline]
pub(crate) fn alloc_at_once(size: usize, align: usize) -> Option<NonNull<u8>> {
    let pages = pages_kept(size, align)?;
    let mcache = runtime::own_mcache()?;
    if !mcache.takes_large_at_once() {
        return None;
    }
    let span = mcache.take_large(pages)?;
    drop(mcache);
    reuse(span, pages, false)
}

/// A large object that this thread has kept; see [`alloc`]. `None` if it has none that fits.
pub(crate) fn alloc_kept(size: usize, align: usize, zeroed: bool) -> Option<NonNull<u8>> {
    let pages = pages_kept(size, align)?;
    let span = runtime::mcache()?.take_large(pages)?;
    reuse(span, pages, zeroed)
}

/// Pages of an object that a thread may have kept; `None` if it keeps none for that.
#[inline]
fn pages_kept(size: usize, align: usize) -> Option<u32> {
    let pages = pages_for(size.max(1));
    (align <= PAGE_BYTES && pages <= RUN_PAGES_MAX).then_some(pages as u32)
}

/// Allocates pages for `size` bytes at a multiple of `align`. With `zeroed`, all bytes are zero,
/// without a memset where the pages are fresh. Null if the system has no memory.
pub(crate) fn alloc(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    let object = if fits_arena(size, align) {
        let pages = pages_for(size.max(1));
        alloc_run(pages as u32, align.div_ceil(PAGE_BYTES) as u32, zeroed)
    } else {
        alloc_huge(size, align, zeroed)
    };
    object.map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// A zeroed object of fresh pages gets its memory at once up to so many bytes, as C's library clears below them: many are
/// read before they are written, which takes two faults for a page, the second of which halts the program's other
/// threads. Larger ones may be used sparsely.
const PREFAULTED_MAX_BYTES: usize = 128 << 10;

/// Whether an object is a run of pages of an arena. Else it has a mapping of its own.
fn fits_arena(size: usize, align: usize) -> bool {
    let pages = pages_for(size.max(1));
    let align_pages = align.div_ceil(PAGE_BYTES);
    let most = arena::RUN_PAGES_MAX;
    pages < most && align_pages < most && pages + align_pages <= most
}

fn alloc_run(pages: u32, align_pages: u32, zeroed: bool) -> Option<NonNull<u8>> {
    let run = match align_pages {
        1 if run_cache::is_cached(pages) => match run_cache::take_large(pages)? {
            FreeRun::Pages(run) => run,
            FreeRun::Span(span) => {
                calls::live_changed(span.bytes() as i64); // The run cache has counted it.
                return reuse(span, pages, zeroed);
            }
        },
        1 => run_cache::take(pages, shard_here())?,
        _ => mheap::alloc_run(pages, align_pages)?,
    };
    let Some(record) = spans::take_record() else {
        run_cache::put(run, shard_here());
        return None;
    };
    let start = run.start();
    secure::pages_are_used(run.arena, run.first, run.count);
    let bytes = pages as usize * PAGE_BYTES;
    if zeroed && !run.fresh {
        // SAFETY: the run is ours, committed, and has at least that many bytes.
        unsafe { start.write_bytes(0, bytes) };
    } else if zeroed && bytes <= PREFAULTED_MAX_BYTES && spans::prefaults() {
        // SAFETY: as above.
        unsafe { sys::prefault(start, bytes) };
    }
    // SAFETY: record and run are ours alone; the record is filled before anyone can find it.
    let span = unsafe {
        MSpan::init(record, start.as_ptr(), run.count, SizeClass::NONE, 0);
        record.as_ref()
    };
    span.set_used(pages);
    run.arena.set_span(run.first, run.count, Some(span));
    Pages::Large.allocated(span.bytes());
    Some(start)
}

/// Makes a span from a cache, of at least `pages` pages, a large object again.
#[inline]
fn reuse(span: &'static MSpan, pages: u32, zeroed: bool) -> Option<NonNull<u8>> {
    let start = NonNull::new(span.base())?;
    if zeroed {
        // SAFETY: the pages are ours, committed, and have that many bytes.
        unsafe { start.write_bytes(0, pages as usize * PAGE_BYTES) };
    }
    span.set_used(pages);
    span.set_free(false);
    Some(start)
}

/// A mapping of its own: one that is kept of an object before, or a new one, whose memory is zero.
fn alloc_huge(size: usize, align: usize, zeroed: bool) -> Option<NonNull<u8>> {
    let bytes = mapping_bytes(size)?;
    if align <= ARENA_BYTES
        && let Some(span) = huge::take(bytes)
        && let Some(object) = reuse_huge(span, size, zeroed)
    {
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
    Some(base)
}

/// Makes a mapping that was kept an object again, of `size` bytes; `None` if it is too short and can't grow.
fn reuse_huge(span: &'static MSpan, size: usize, zeroed: bool) -> Option<NonNull<u8>> {
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
    if resize_huge_in_place(span, size) {
        return Some(base);
    }
    let moved = move_huge(object, size, ARENA_BYTES);
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
fn mapping_bytes(size: usize) -> Option<usize> {
    size.max(1)
        .checked_next_multiple_of(sys::page_bytes().max(PAGE_BYTES))
}

/// Bytes of the object that [`alloc`] would make; `None` if it is too large for any.
#[cfg(feature = "preload")]
pub(crate) fn usable_bytes(size: usize, align: usize) -> Option<usize> {
    if fits_arena(size, align) {
        return Some(pages_for(size.max(1)) * PAGE_BYTES);
    }
    mapping_bytes(size)
}

/// The span of a large object. Aborts if `object` is not the start of one.
fn live_object(object: *mut u8) -> &'static MSpan {
    match place_of(object.addr()) {
        Place::Live(span) if span.class() != SizeClass::NONE => {
            fatal(Crime::WrongLayout, object.addr())
        }
        Place::Live(span) if span.is_free() => fatal(Crime::FreeMemory, object.addr()),
        Place::Live(span) if span.base() != object => fatal(Crime::InteriorPointer, object.addr()),
        Place::Live(span) => span,
        Place::Free => fatal(Crime::FreeMemory, object.addr()),
        Place::Foreign => fatal(Crime::ForeignPointer, object.addr()),
    }
}

/// Frees a large object, as [`free`], if the thread has room for it. False if not, and whenever something else is not as
/// usual.
#[inline]
pub(crate) fn free_at_once(object: *mut u8, size: Option<usize>) -> bool {
    let Place::Live(span) = place_of(object.addr()) else {
        return false;
    };
    let has_size = |size: usize| pages_for(size.max(1)) * PAGE_BYTES == span.usable_bytes();
    span.class() == SizeClass::NONE
        && span.is_usual()
        && span.base() == object
        && run_cache::is_cached(span.pages())
        && size.is_none_or(has_size)
        && runtime::own_mcache().is_some_and(|mcache| mcache.push_large(span))
}

/// Frees a large or huge object, which was last asked for with `size` bytes if that is known. Aborts if `object` is
/// none, or has not that size, rounded up to its pages. Whether this thread keeps it.
pub(crate) fn free(object: *mut u8, size: Option<usize>) -> bool {
    let span = live_object(object);
    if size.is_some_and(|size| bytes_for(span, size) != Some(span.usable_bytes())) {
        fatal(Crime::WrongLayout, object.addr());
    }
    forget_sample(span);
    if run_cache::is_cached(span.pages())
        && !span.is_huge()
        && runtime::mcache().is_some_and(|mcache| mcache.put_large(span))
    {
        return true;
    }
    free_span(span);
    false
}

/// Bytes of the object of a span if `size` are asked for.
fn bytes_for(span: &MSpan, size: usize) -> Option<usize> {
    if span.is_huge() {
        return mapping_bytes(size);
    }
    Some(pages_for(size.max(1)) * PAGE_BYTES)
}

/// The heap profile has the object of a span no more.
#[inline]
pub(crate) fn forget_sample(span: &MSpan) {
    if span.is_sampled() {
        span.set_sampled(false);
        profile::freed(span.base());
    }
}

/// Frees a large object whose memory went back to the system.
#[cfg(feature = "secure")]
pub(crate) fn free_released(span: &'static MSpan) {
    Pages::Large.freed(span.bytes());
    spans::free_released_span(span);
}

/// Frees an object that the thread does not keep, which is no sample.
#[cold]
#[inline(never)]
pub(crate) fn free_span(span: &'static MSpan) {
    let bytes = span.bytes();
    if !span.is_huge() {
        if run_cache::is_cached(span.pages()) {
            calls::live_changed(-(bytes as i64));
            run_cache::put_large(span);
        } else {
            Pages::Large.freed(bytes);
            spans::free_span(span);
        }
        return;
    }
    huge_is_freed(span);
    if !huge::keep(span) {
        huge::unmap(span);
    }
}

/// Counts that a huge object was freed. Its memory stays counted as backed.
pub(crate) fn huge_is_freed(span: &MSpan) {
    Pages::Huge.freed(span.bytes());
    huge::changed(span.bytes(), 0);
}

/// Changes the length of a large object to `size` (which is large too) without copying it; where it
/// is then. `None`, and nothing changed, if that is not possible.
pub(crate) fn resize(object: *mut u8, size: usize, align: usize) -> Option<NonNull<u8>> {
    let new = if resize_in_place(object, size) {
        NonNull::new(object)?
    } else {
        move_huge(object, size, align)?
    };
    if let Place::Live(span) = place_of(new.addr().get())
        && span.is_sampled()
    {
        profile::resized(object, new.as_ptr(), span.bytes());
    }
    Some(new)
}

/// Changes the length of a large object without moving it. False, and nothing changed, if that is
/// not possible.
fn resize_in_place(object: *mut u8, size: usize) -> bool {
    let span = live_object(object);
    if span.is_huge() {
        return resize_huge_in_place(span, size);
    }
    let old = span.pages();
    let new = pages_for(size);
    if span.takes_from_slack(new) {
        return true;
    }
    let Some(run) = Run::of(span) else {
        return false;
    };
    let (arena, first) = (run.arena, run.first);
    match new {
        _ if new < old as usize => {
            let new = new as u32;
            Pages::Large.resized(span.bytes(), new as usize * PAGE_BYTES);
            span.set_extent(object, new);
            arena.set_span(first + new, old - new, None);
            let tail = Run {
                first: first + new,
                count: old - new,
                ..run
            };
            run_cache::put(tail, shard_here());
            true
        }
        _ if new < arena::RUN_PAGES_MAX => {
            let extra = new as u32 - old;
            if !mheap::extend_run(&run, extra) {
                return false;
            }
            secure::pages_are_used(arena, first + old, extra);
            arena.set_span(first + old, extra, Some(span));
            Pages::Large.resized(span.bytes(), new * PAGE_BYTES);
            span.set_extent(object, new as u32);
            true
        }
        _ => false,
    }
}

fn resize_huge_in_place(span: &'static MSpan, size: usize) -> bool {
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
    has_grown(base, old, bytes, room);
    true
}

/// Moves a huge object to a larger mapping, without copying; its new place. `None`, and nothing
/// changed, if it is not huge or the system has no memory or address space.
fn move_huge(object: *mut u8, size: usize, align: usize) -> Option<NonNull<u8>> {
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
    has_grown(to, old, bytes, room);
    Some(to)
}

/// Counts that a huge object grew, and asks for huge pages for what comes. An object that grows has
/// been filled so far; any other may be used sparsely, and huge pages would be resident all the same.
fn has_grown(base: NonNull<u8>, old: usize, bytes: usize, room: Room) {
    Pages::Huge.resized(old, bytes);
    huge::changed(old, bytes);
    room.keep();
    if huge_pages::are_wanted() {
        // SAFETY: whole system pages of a mapping of ours.
        unsafe { sys::advise_huge_pages(base, bytes) };
    }
}

/// Allocates for an object that grows to `size` bytes and has to move: a mapping of its own if that
/// spares further copies.
pub(crate) fn alloc_for_growth(size: usize, align: usize) -> *mut u8 {
    if size < REMAP_FROM_BYTES {
        return alloc(size, align, false);
    }
    alloc_huge(size, align, false).map_or(ptr::null_mut(), NonNull::as_ptr)
}

#[cfg(test)]
mod tests {
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
