//! Objects above the largest size class: pages of their own.
//!
//! *Large* objects are runs of pages from the page heap, exact to the page, each with a span record
//! of class "none". *Huge* ones, of an arena's size or more, have a mapping of their own, so that
//! they grow by `mremap` without a copy; a few mappings of freed ones are kept for the next.
//!
//! Growing in place needs the neighbouring pages free (large) or the address space behind (huge).
//! Where that fails, a large object that grows to [`REMAP_FROM_BYTES`] or more moves to a mapping of
//! its own, with one copy, and is never copied again.
//!
//! Complexity: O(log n) in the pages of the heap, and one store for each page of the object.

#![allow(unsafe_code)]

mod huge;

#[cfg(feature = "secure")]
pub(crate) use huge::is_freed as huge_is_freed;

use core::ptr::{self, NonNull};

use crate::arena::{self, Place, place_of};
use crate::base::fatal::{Crime, fatal};
use crate::base::size_class::SizeClass;
use crate::base::{PAGE_BYTES, pages_for};
use crate::counters::{Pages, calls};
use crate::mheap::run_cache::{self, FreeRun, RUN_PAGES_MAX};
use crate::mheap::{self, Run, spans};
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
        huge::alloc(size, align, zeroed)
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

/// Bytes of the object that [`alloc`] would make; `None` if it is too large for any.
#[cfg(feature = "preload")]
pub(crate) fn usable_bytes(size: usize, align: usize) -> Option<usize> {
    if fits_arena(size, align) {
        return Some(pages_for(size.max(1)) * PAGE_BYTES);
    }
    huge::mapping_bytes(size)
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
        return huge::mapping_bytes(size);
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
    huge::free(span);
}

/// Changes the length of a large object to `size` (which is large too) without copying it; where it
/// is then. `None`, and nothing changed, if that is not possible.
pub(crate) fn resize(object: *mut u8, size: usize, align: usize) -> Option<NonNull<u8>> {
    let new = if resize_in_place(object, size) {
        NonNull::new(object)?
    } else {
        huge::move_to_larger(object, size, align)?
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
        return huge::resize_in_place(span, size);
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

/// Allocates for an object that grows to `size` bytes and has to move: a mapping of its own if that
/// spares further copies.
pub(crate) fn alloc_for_growth(size: usize, align: usize) -> *mut u8 {
    if size < REMAP_FROM_BYTES {
        return alloc(size, align, false);
    }
    huge::alloc(size, align, false).map_or(ptr::null_mut(), NonNull::as_ptr)
}
