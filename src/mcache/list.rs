//! All mcaches that there are, in the order in which they were made. None ever leaves.

#![allow(unsafe_code)]

use core::iter::successors;
use core::ptr::{self, NonNull};

use super::MCache;
use crate::sync::atomic::{
    AtomicPtr,
    Ordering::{Acquire, Relaxed, Release},
};

/// The newest mcache, from which all can be walked. **Any thread; atomic.**
static NEWEST: AtomicPtr<MCache> = AtomicPtr::new(ptr::null_mut());

/// Adds an mcache that is filled and that nobody else knows.
pub(super) fn add(mcache: NonNull<MCache>) {
    let mut newest = NEWEST.load(Relaxed);
    loop {
        // SAFETY: mcaches live for ever, and nobody else knows this one yet.
        unsafe { mcache.as_ref() }
            .made_before
            .set(NonNull::new(newest));
        // Release pairs with the Acquire in `all`.
        match NEWEST.compare_exchange(newest, mcache.as_ptr(), Release, Relaxed) {
            Ok(_) => return,
            Err(newer) => newest = newer,
        }
    }
}

/// All mcaches, of threads and free ones.
pub(crate) fn all() -> impl Iterator<Item = &'static MCache> {
    // SAFETY: mcaches live for ever; what other threads may touch of them is atomic.
    let get = |link: NonNull<MCache>| unsafe { link.as_ref() };
    // Acquire pairs with the Release in `add`: the record is filled.
    let newest = NonNull::new(NEWEST.load(Acquire)).map(get);
    successors(newest, move |mcache| mcache.made_before.get().map(get))
}
