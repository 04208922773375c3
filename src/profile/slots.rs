//! Objects at the addresses of samples: where they come from, and what becomes of them.

#![allow(unsafe_code)]

use core::ptr;

use super::{SAMPLE_ALIGN, take};
use crate::base::PAGE_BYTES;
use crate::base::size_class::{MAGAZINES, SizeClass};
use crate::mcache::is_rare;
use crate::mheap::run_cache;
use crate::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use crate::{counters, mcentral, runtime, tiny};

/// An object of each class for the next sample, or null: as if it was in a magazine. **Any
/// thread; atomic**: who swaps it out owns it. Relaxed: nobody reads the object's memory.
static STASH: [AtomicPtr<u8>; MAGAZINES] = [const { AtomicPtr::new(ptr::null_mut()) }; MAGAZINES];

/// The same in pages of the heap.
const ALIGN_PAGES: u32 = (SAMPLE_ALIGN / PAGE_BYTES) as u32;

/// Looks at an object that was popped and [`is_rare`]: a sample that was there has been freed. Whether it was
/// kept for the next sample; the caller has it no more then.
pub(crate) fn keeps(class: SizeClass, object: *mut u8) -> bool {
    take::freed(object);
    let empty = ptr::null_mut();
    STASH[class.index()]
        .compare_exchange(empty, object, Relaxed, Relaxed)
        .is_ok()
}

/// Objects of a class that are kept.
pub(crate) fn stashed(class: SizeClass) -> u64 {
    u64::from(!STASH[class.index()].load(Relaxed).is_null())
}

/// An object at an address of samples, in place of `object`, an ordinary one of `class` that goes back. None
/// if there is none: `object` is the caller's as before.
pub(super) fn exchange(object: *mut u8, class: SizeClass) -> Option<*mut u8> {
    if is_rare(object) {
        mcentral::mark_sampled(object);
        return Some(object);
    }
    let mcache = runtime::mcache()?;
    let kept = STASH[class.index()].swap(ptr::null_mut(), Relaxed);
    let place = if kept.is_null() {
        let place = mcentral::take_aligned(class.span_class(), ALIGN_PAGES)?;
        if class.is_tiny() {
            tiny::set_single(place);
        }
        mcache.count_taken(class);
        place
    } else {
        mcentral::mark_sampled(kept);
        kept
    };
    mcache.exchange(class, object);
    Some(place)
}

/// After an allocation was refused: gives back what is kept, which may be all that keeps free pages apart.
/// Whether that was anything. The caller holds no lock.
#[cold]
pub(crate) fn gives_room() -> bool {
    let gave = empty_stash();
    if gave {
        run_cache::drain();
    }
    gave
}

/// Gives back what is kept; whether that was anything. The caller holds no lock.
pub(crate) fn empty_stash() -> bool {
    let mut gave = false;
    for class in (1..MAGAZINES).map(SizeClass::new) {
        let kept = STASH[class.index()].swap(ptr::null_mut(), Relaxed);
        if !kept.is_null() {
            counters::detached_freed(class);
            mcentral::put(class, &mut [kept]);
            gave = true;
        }
    }
    gave
}
