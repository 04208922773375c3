//! A guarded object's life.

#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::pool::{self, Place, State, Taken};
use super::report;
use crate::base::fatal::Crime;
use crate::base::size_class::SizeClass;
use crate::counters::calls;
use crate::mcache::MCache;
use crate::profile::stack::{self, Stack, Stacks};
use crate::sys::caller::Caller;
use crate::{backed, config, meta, runtime, sys};

/// What the bytes of a page around an object hold: no number, letter or likely part of an address.
const FILLER: u8 = 0xb9;
/// Slow calls of a thread after which the program runs for sure: what the dynamic linker and constructors of
/// libraries do has ended then.
const SLOW_CALLS_OF_START: u32 = 256;

/// Who did something, where. Zero bytes are valid.
#[derive(Clone, Copy)]
pub(super) struct Trace {
    pub(super) stack: Stack,
    /// The kernel's number of the thread.
    pub(super) thread: i32,
}

impl Trace {
    fn of(caller: Caller) -> Self {
        Self {
            stack: stack::capture(caller, stacks()),
            thread: sys::kernel_thread_id(),
        }
    }
}

/// The unwinder is for those who have asked for guarded objects; as with the heap profile.
pub(super) fn stacks() -> Stacks {
    if cfg!(not(feature = "preload")) || config::guarded_is_asked() {
        Stacks::Verified
    } else {
        Stacks::FramePointers
    }
}

/// Counts a slow call that allocates, and makes a guarded object of `size` bytes at a multiple of `align` if one
/// is due. `class` is that of an ordinary one.
#[inline]
pub(crate) fn alloc_if_due(
    class: SizeClass,
    size: usize,
    align: usize,
    caller: Caller,
) -> Option<NonNull<u8>> {
    let one_in = config::guarded();
    // Unit tests ask for guarded objects where they want them.
    if one_in == 0 || cfg!(test) {
        return None;
    }
    // SAFETY: mcaches live for ever, and the one in a thread's slot is the thread's.
    let mcache = unsafe { runtime::magazines().mcache.get()?.as_ref() };
    if !mcache.guards(one_in) {
        return None;
    }
    alloc_if_running(mcache, class, size, align, caller)
}

#[cold]
#[inline(never)]
fn alloc_if_running(
    mcache: &MCache,
    class: SizeClass,
    size: usize,
    align: usize,
    caller: Caller,
) -> Option<NonNull<u8>> {
    let runs = sys::is_in_executable(caller.return_address)
        || mcache.slow_calls() >= SLOW_CALLS_OF_START
        || pool::has_begun();
    if !runs || !config::has_begun() {
        return None;
    }
    let object = alloc(class, size, align, caller)?;
    if calls::are_counted() {
        mcache.count_allocated(class);
    }
    Some(object)
}

/// Makes a guarded object. `None` if there is no place, and for what is empty or larger than a page.
pub(super) fn alloc(
    class: SizeClass,
    size: usize,
    align: usize,
    caller: Caller,
) -> Option<NonNull<u8>> {
    let page_bytes = sys::page_bytes();
    let fits = size != 0 && size <= page_bytes && align <= page_bytes;
    if !fits || backed::above_limit(page_bytes) > 0 {
        return None;
    }
    let start_ns = sys::now_ns();
    let taken = pool::lock().take(start_ns)?;
    sys::on_fault(report::look);
    let allocated = Trace::of(caller);
    // SAFETY: the page is reserved, and nobody's but this call's, which took the place.
    if !unsafe { sys::commit(taken.page, page_bytes) } {
        pool::lock().put(taken.index, 0);
        return None;
    }
    meta::add_use(page_bytes);
    let offset = match taken.random >> 63 {
        0 => 0,
        _ => (page_bytes - size) & !(align - 1),
    };
    let (before, behind) = around(&taken, offset, size);
    // SAFETY: the page is this call's, and has access; the object lies in it.
    let object = unsafe {
        before.start.write_bytes(FILLER, before.bytes);
        behind.start.write_bytes(FILLER, behind.bytes);
        taken.page.add(offset)
    };
    let mut pool = pool::lock();
    if let Some(place) = pool.place(taken.index) {
        place.state = State::Live;
        place.object = object.addr().get();
        place.bytes = size;
        place.class = class;
        place.allocated = allocated;
    }
    pool.spend(sys::now_ns().saturating_sub(start_ns));
    Some(object)
}

/// Bytes of a page that are nobody's.
struct Around {
    start: NonNull<u8>,
    bytes: usize,
}

/// The bytes before and behind an object in the page of a place.
fn around(taken: &Taken, offset: usize, bytes: usize) -> (Around, Around) {
    // SAFETY: the object lies in the page.
    let behind = unsafe { taken.page.add(offset + bytes) };
    (
        Around {
            start: taken.page,
            bytes: offset,
        },
        Around {
            start: behind,
            bytes: taken.page_bytes - offset - bytes,
        },
    )
}

/// The byte around an object that was changed and is nearest to it, as an offset from the object.
///
/// # Safety
/// The place's object is live, and the caller holds the lock or frees the object.
unsafe fn damage(taken: &Taken, place: &Place) -> Option<isize> {
    let offset = place.object - taken.page.addr().get();
    let (before, behind) = around(taken, offset, place.bytes);
    // SAFETY: the page has access while its object is live. Volatile: another thread may write there, wrongly.
    let is_changed = |byte: NonNull<u8>| unsafe { byte.read_volatile() } != FILLER;
    let behind_it = (0..behind.bytes)
        // SAFETY: inside the page.
        .find(|index| is_changed(unsafe { behind.start.add(*index) }))
        .map(|index| (place.bytes + index) as isize);
    let before_it = (0..before.bytes)
        .rev()
        // SAFETY: as above.
        .find(|index| is_changed(unsafe { before.start.add(*index) }))
        .map(|index| index as isize - offset as isize);
    behind_it.or(before_it)
}

/// Frees a guarded object, of which the caller says that it has `bytes`. Ends the process if the pointer is to
/// none, or bytes around the object were changed.
#[cold]
#[inline(never)]
pub(crate) fn free(object: *mut u8, bytes: Option<usize>, caller: Caller) {
    let start_ns = sys::now_ns();
    let freed = Trace::of(caller);
    let Some((taken, class)) = note_free(object.addr(), bytes, &freed) else {
        return;
    };
    // SAFETY: the object was noted as freed by this call, so nobody uses the page any more.
    unsafe { sys::decommit(taken.page, taken.page_bytes) };
    meta::sub_use(taken.page_bytes);
    if calls::are_counted()
        && let Some(mcache) = runtime::mcache()
    {
        mcache.count_freed(class);
    }
    let cost_ns = sys::now_ns().saturating_sub(start_ns);
    pool::lock().put(taken.index, cost_ns);
}

const WRONGLY_FREED: &str = "wrongly freed";

/// Makes a live object a freed one; its place and class.
fn note_free(address: usize, bytes: Option<usize>, freed: &Trace) -> Option<(Taken, SizeClass)> {
    let mut pool = pool::lock();
    let taken = pool.at(address);
    let place = taken.and_then(|taken| pool.place(taken.index));
    let (Some(taken), Some(place)) = (taken, place) else {
        drop(pool);
        report::wrong_pointer(Crime::ForeignPointer, address, None, (WRONGLY_FREED, freed));
    };
    if let Some(crime) = place.crime(address, bytes) {
        let place = *place;
        drop(pool);
        report::wrong_pointer(crime, address, Some(&place), (WRONGLY_FREED, freed));
    }
    // SAFETY: live, and the lock is held.
    if let Some(offset) = unsafe { damage(&taken, place) } {
        let place = *place;
        drop(pool);
        report::damaged(offset, &place, freed);
    }
    place.state = State::Freed;
    place.freed = *freed;
    Some((taken, place.class))
}

/// Bytes of a guarded object. Ends the process if the pointer is to none.
#[cfg(feature = "preload")]
pub(crate) fn bytes_of(object: *mut u8, caller: Caller) -> usize {
    let address = object.addr();
    let mut pool = pool::lock();
    let index = pool.at(address).map(|taken| taken.index);
    let place = index.and_then(|index| pool.place(index)).copied();
    drop(pool);
    let crime = place.as_ref().map_or(Some(Crime::ForeignPointer), |place| {
        place.crime(address, None)
    });
    let (Some(place), None) = (place, crime) else {
        // A second free is one of memory that is free, for who does not free.
        let crime = crime.filter(|crime| *crime != Crime::DoubleFree);
        let crime = crime.unwrap_or(Crime::FreeMemory);
        report::wrong_pointer(crime, address, place.as_ref(), ("used", &Trace::of(caller)));
    };
    place.bytes
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::base::size_class::class_for;

    fn guarded(size: usize, align: usize) -> Option<NonNull<u8>> {
        let here = guarded as fn(usize, usize) -> Option<NonNull<u8>> as usize;
        alloc(
            class_for(size, align),
            size,
            align,
            Caller::new(0, here + 1),
        )
    }

    fn free_it(object: NonNull<u8>, size: usize) {
        free(object.as_ptr(), Some(size), Caller::new(0, 4096));
    }

    /// One test, as there is one pool; in a build where nobody asks for a rate, time may be used up.
    #[test]
    fn objects_lie_at_either_end_and_places_are_used_in_turn() {
        config::set_guarded(1);
        let page_bytes = sys::page_bytes();
        let mut ends = [false; 2];
        for size in [1, 15, 16, 41, 1000, page_bytes - 1, page_bytes] {
            for align in [1, 8, 16, 256, page_bytes] {
                for _ in 0..16 {
                    let object = guarded(size, align).unwrap();
                    let offset = object.addr().get() % page_bytes;
                    let last = (page_bytes - size) & !(align - 1);
                    assert!([0, last].contains(&offset), "{size}, {align}: {offset}");
                    assert!(pool::contains(object.addr().get()));
                    if last != 0 {
                        ends[usize::from(offset != 0)] = true;
                    }
                    // SAFETY: the object has so many bytes, and a fresh page is zero.
                    let bytes = unsafe { core::slice::from_raw_parts_mut(object.as_ptr(), size) };
                    assert!(bytes.iter().all(|byte| *byte == 0));
                    bytes.fill(0xff);
                    free_it(object, size);
                }
            }
        }
        assert_eq!(ends, [true; 2]);
        for (size, align) in [(0, 1), (page_bytes + 1, 1), (1, 2 * page_bytes)] {
            assert!(guarded(size, align).is_none(), "{size}, {align}");
        }

        let object = guarded(41, 1).unwrap();
        free_it(object, 41);
        let place = |object: NonNull<u8>| object.addr().get() / page_bytes;
        let mut objects = Vec::new();
        while let Some(next) = guarded(41, 1) {
            assert_ne!(place(next), place(object));
            objects.push(next);
        }
        // As many as may be.
        assert_eq!(objects.len(), (320 << 10) / page_bytes);
        let mut between = objects.len();
        free_it(objects.pop().unwrap(), 41);
        loop {
            let next = guarded(41, 1).unwrap();
            if place(next) == place(object) {
                break;
            }
            between += 1;
            free_it(next, 41);
        }
        assert_eq!(between, (2 << 20) / (16 << 10).max(2 * page_bytes) - 1);
        objects.into_iter().for_each(|object| free_it(object, 41));
    }
}
