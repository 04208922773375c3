//! Allocate, free, resize: the operations that the faces in `abi` are made of.
//!
//! The fast paths come first and are whole; everything rare meets in one cold call each.

#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use crate::base::fatal::{Crime, fatal, fatal_in};
use crate::base::size_class::{
    SMALL_MAX_BYTES, SizeClass, class_for, class_for_direct, class_for_rest, class_for_stepped,
};
use crate::mcache::is_rare;
use crate::secure::{self, Told};
use crate::sys::caller::{Caller, entry};
use crate::{arena, guarded, large, mcentral, profile, runtime, scavenge};

/// Allocates `size` bytes at a multiple of `align`. Null if the system has no memory.
#[inline]
pub(crate) fn alloc(size: usize, align: usize) -> *mut u8 {
    // SAFETY: no precondition.
    let rest = |size, align| unsafe { alloc_rest(size, align) };
    // SAFETY: no precondition.
    let slow = |class, size, align| unsafe { alloc_slow(class, size, align) };
    alloc_by(size, align, rest, slow)
}

/// [`alloc`], with the calls that what is not fast ends in: beyond 2 KiB, and when the magazine has nothing
/// to hand out at once.
#[inline]
pub(crate) fn alloc_by(
    size: usize,
    align: usize,
    rest: impl FnOnce(usize, usize) -> *mut u8,
    slow: impl FnOnce(SizeClass, usize, usize) -> *mut u8,
) -> *mut u8 {
    let Some(class) = class_for_direct(size, align) else {
        return rest(size, align);
    };
    let magazines = runtime::magazines();
    let object = magazines.pop(class);
    // Only guarded objects and those of the secure mode are made by size and alignment; elsewhere registers would
    // keep them for nothing.
    let (exact, align) = if cfg!(any(feature = "guarded", feature = "secure")) {
        (size, align)
    } else {
        (0, 1)
    };
    if is_rare(object) {
        return slow(class, exact, align);
    }
    if magazines.counts_down(size) {
        // SAFETY: the object was popped just now.
        return unsafe { sampled(object, class, size, align) };
    }
    object
}

/// Frees an object that was allocated with this size and alignment.
///
/// # Safety
/// * `object` was allocated here with the same `size` and `align`, or last resized to `size`.
/// * It was not freed since, and nobody uses it any more.
#[inline]
pub(crate) unsafe fn free(object: *mut u8, size: usize, align: usize) {
    if guarded::contains(object.addr()) {
        // SAFETY: no precondition.
        return unsafe { free_guarded(object, size) };
    }
    let Some(class) = class_for_direct(size, align) else {
        return free_rest(object, size, align);
    };
    if !runtime::magazines().push(class, object) {
        free_slow(object, size, align);
    }
}

entry! {
    /// [`alloc`] beyond 2 KiB. No precondition.
    pub(crate) fn alloc_rest(size: usize, align: usize) -> *mut u8 = alloc_rest_from
}

unsafe extern "C-unwind" fn alloc_rest_from(
    size: usize,
    align: usize,
    frame: usize,
    return_address: usize,
) -> *mut u8 {
    let caller = Caller::new(frame, return_address);
    match class_for_stepped(size, align) {
        Some(class) => alloc_of(class, size, align, caller),
        None if size > SMALL_MAX_BYTES => alloc_large(size, align, caller),
        None => alloc_from(size, align, caller),
    }
}

entry! {
    /// [`alloc`] when the magazine has nothing to hand out at once, or the thread has no mcache. A size of zero
    /// is that of the class. No precondition.
    #[cold]
    pub(crate) fn alloc_slow(class: SizeClass, size: usize, align: usize) -> *mut u8 = alloc_slow_from
}

unsafe extern "C-unwind" fn alloc_slow_from(
    class: SizeClass,
    size: usize,
    align: usize,
    frame: usize,
    return_address: usize,
) -> *mut u8 {
    let caller = Caller::new(frame, return_address);
    let size = match size {
        0 => class.object_bytes(),
        size => size,
    };
    alloc_small(class, size, align, caller)
}

entry! {
    /// The end of an allocation of `size` bytes that comes to a sample point; see [`profile::sampled`].
    /// `object` is one of `class`, popped just now.
    #[cold]
    pub(crate) fn sampled(object: *mut u8, class: SizeClass, size: usize, align: usize) -> *mut u8 =
        sampled_from
}

unsafe extern "C-unwind" fn sampled_from(
    object: *mut u8,
    class: SizeClass,
    size: usize,
    align: usize,
    frame: usize,
    return_address: usize,
) -> *mut u8 {
    let caller = Caller::new(frame, return_address);
    at_sample_point(object, class, size, align, caller)
}

/// Takes a sample; or a guarded object goes out instead, since a thread that frees and allocates in turns
/// makes no other slow calls. The sample is the next allocation's then.
fn at_sample_point(
    object: *mut u8,
    class: SizeClass,
    size: usize,
    align: usize,
    caller: Caller,
) -> *mut u8 {
    if let Some(guarded) = guarded::alloc_if_due(class, size, align, caller) {
        free_small(class, object);
        return guarded.as_ptr();
    }
    profile::sampled(object, class, size, caller)
}

entry! {
    /// [`free`] of a guarded object. No precondition.
    #[cold]
    fn free_guarded(object: *mut u8, size: usize) -> () = free_guarded_from
}

unsafe extern "C-unwind" fn free_guarded_from(
    object: *mut u8,
    size: usize,
    frame: usize,
    return_address: usize,
) {
    guarded::free(object, Some(size), Caller::new(frame, return_address));
}

/// [`alloc`] for `caller`.
#[inline(never)]
pub(crate) fn alloc_from(size: usize, align: usize, caller: Caller) -> *mut u8 {
    if size > SMALL_MAX_BYTES {
        return alloc_large(size, align, caller);
    }
    alloc_of(class_for(size, align), size, align, caller)
}

#[inline]
fn alloc_of(class: SizeClass, size: usize, align: usize, caller: Caller) -> *mut u8 {
    let object = alloc_at_once(class, size);
    if object.is_null() {
        return alloc_of_slow(class, size, align, caller);
    }
    object
}

/// An object of `class` for a request of `size` bytes, if the magazine has one and it is no sample; else null.
#[inline(always)] // The fast path beyond 2 KiB.
pub(crate) fn alloc_at_once(class: SizeClass, size: usize) -> *mut u8 {
    let magazines = runtime::magazines();
    if magazines.would_be_due(size) {
        return ptr::null_mut();
    }
    let object = magazines.pop(class);
    if is_rare(object) {
        return ptr::null_mut();
    }
    magazines.counts_down(size);
    noted(class, object)
}

/// An object that is handed out, noted if its class is watched.
#[inline]
fn noted(class: SizeClass, object: *mut u8) -> *mut u8 {
    if class.is_watched() {
        arena::note_held(class, object.addr());
    }
    object
}

/// [`alloc_of`] when the magazine has nothing to hand out at once, the object is a sample, or large.
#[inline(never)]
fn alloc_of_slow(class: SizeClass, size: usize, align: usize, caller: Caller) -> *mut u8 {
    if class == SizeClass::NONE {
        return alloc_large(size, align, caller);
    }
    let magazines = runtime::magazines();
    let object = magazines.pop(class);
    let object = if is_rare(object) {
        alloc_small(class, size, align, caller)
    } else if magazines.counts_down(size) {
        at_sample_point(object, class, size, align, caller)
    } else {
        object
    };
    noted(class, object)
}

/// Allocates an object of `class` for a request of `size` bytes at a multiple of `align`.
#[cold]
#[inline(never)]
pub(crate) fn alloc_small(class: SizeClass, size: usize, align: usize, caller: Caller) -> *mut u8 {
    if let Some(guarded) = guarded::alloc_if_due(class, size, align, caller) {
        return guarded.as_ptr();
    }
    // The usual case of the mode keeps nothing for the other one.
    if secure::is_on() {
        return secure::alloc(size, align, false, caller);
    }
    alloc_small_rest(class, size, align, caller)
}

/// [`alloc_small`] where the secure mode is not known to be on.
#[cold]
#[inline(never)]
fn alloc_small_rest(class: SizeClass, size: usize, align: usize, caller: Caller) -> *mut u8 {
    if is_secure() {
        return secure::alloc(size, align, false, caller);
    }
    let object = alloc_from_spans(class);
    profile::count(object, class, size, caller)
}

/// Whether the secure mode is on, which is decided before the first object is made.
#[inline]
fn is_secure() -> bool {
    if !secure::is_decided() {
        runtime::decide_secure();
    }
    secure::is_on()
}

/// An object of `class`, from the magazine or what lies behind it. Null if the system has no memory.
pub(crate) fn alloc_from_spans(class: SizeClass) -> *mut u8 {
    with_scavenger(|| match runtime::mcache() {
        Some(mcache) => mcache.alloc(class),
        None => runtime::alloc_detached(class),
    })
}

/// Allocates an object of whole pages; see [`large::alloc`].
#[inline(never)]
pub(crate) fn alloc_large(size: usize, align: usize, caller: Caller) -> *mut u8 {
    let object = alloc_large_at_once(size, align, caller);
    if object.is_null() {
        return alloc_large_rest(size, align, false, caller);
    }
    object
}

/// An object of whole pages that the thread has kept, if that needs no slow call; else null.
#[inline]
pub(crate) fn alloc_large_at_once(size: usize, align: usize, caller: Caller) -> *mut u8 {
    if secure::is_on() {
        return ptr::null_mut();
    }
    match large::alloc_at_once(size, align) {
        Some(kept) => profile::count(kept.as_ptr(), SizeClass::NONE, size, caller),
        None => ptr::null_mut(),
    }
}

/// Frees an object of whole pages as [`free_large`], if the thread has room for it and there is nothing unusual about
/// it; else false.
#[cfg(feature = "preload")]
#[inline]
pub(crate) fn free_large_at_once(object: *mut u8) -> bool {
    !secure::is_on() && large::free_at_once(object, None)
}

/// [`alloc_large`] where it is not fast. An object that the thread has kept takes no memory, but is a slow call still.
#[inline(never)]
fn alloc_large_rest(size: usize, align: usize, zeroed: bool, caller: Caller) -> *mut u8 {
    if is_secure() {
        return secure::alloc(size, align, zeroed, caller);
    }
    let object = if let Some(kept) = large::alloc_kept(size, align, zeroed) {
        scavenge::after_alloc();
        kept.as_ptr()
    } else {
        alloc_pages(size, align, zeroed)
    };
    profile::count(object, SizeClass::NONE, size, caller)
}

/// [`large::alloc`], with the scavenger.
pub(crate) fn alloc_pages(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    with_scavenger(|| large::alloc(size, align, zeroed))
}

/// [`large::alloc_for_growth`], with the scavenger.
#[cfg(feature = "secure")]
pub(crate) fn alloc_pages_for_growth(size: usize, align: usize) -> *mut u8 {
    with_scavenger(|| large::alloc_for_growth(size, align))
}

/// [`free`] beyond 2 KiB.
#[inline(never)]
fn free_rest(object: *mut u8, size: usize, align: usize) {
    match class_for_stepped(size, align) {
        Some(class) => free_of(class, object, size, align),
        None if size > SMALL_MAX_BYTES && !secure::is_on() => free_large(object, Some(size)),
        None => free_aligned(object, size, align),
    }
}

/// [`free_rest`] of no bytes and at large alignments, and in secure mode of what is large.
#[inline(never)]
fn free_aligned(object: *mut u8, size: usize, align: usize) {
    match class_for_rest(size, align) {
        SizeClass::NONE if !secure::is_on() => free_large(object, Some(size)),
        class => free_of(class, object, size, align),
    }
}

/// Frees an object of `class` beyond 2 KiB; in secure mode also a large one, which no magazine takes.
#[inline]
fn free_of(class: SizeClass, object: *mut u8, size: usize, align: usize) {
    let magazines = runtime::magazines();
    if class.is_watched() {
        if !arena::give_back_held(class, object.addr()) {
            return free_unheld(object, size, align);
        }
        if magazines.push_unnoted(class, object) {
            return;
        }
    } else if magazines.push(class, object) {
        return;
    }
    free_slow(object, size, align);
}

/// Allocates, with what the scavenger has to do before and after, and again if it finds room.
#[inline]
fn with_scavenger(mut alloc: impl FnMut() -> *mut u8) -> *mut u8 {
    scavenge::before_alloc();
    let mut object = alloc();
    if object.is_null() && (scavenge::finds_room() || profile::gives_room()) {
        object = alloc();
    }
    scavenge::after_alloc();
    object
}

/// Frees when the magazine is full, the thread has no mcache, or the object seems to wait in its magazine
/// already; in secure mode always.
#[cold]
#[inline(never)]
fn free_slow(object: *mut u8, size: usize, align: usize) {
    if secure::is_on() {
        return secure::free_with_layout(object, size, align);
    }
    free_small(class_for(size, align), object);
}

/// Frees an object of a watched class that the program does not have, as far as the notes tell: in secure mode there
/// are none.
#[cold]
#[inline(never)]
fn free_unheld(object: *mut u8, size: usize, align: usize) {
    if secure::is_on() {
        return secure::free_with_layout(object, size, align);
    }
    fatal(
        mcentral::crime_of(object, class_for(size, align)),
        object.addr(),
    );
}

/// Aborts unless what is to be resized, and is no object of a watched class that the program has, is guarded.
#[cold]
#[inline(never)]
fn check_is_guarded(object: *mut u8, class: SizeClass) {
    if guarded::contains(object.addr()) {
        return;
    }
    let crime = match mcentral::crime_of(object, class) {
        Crime::DoubleFree => Crime::FreeMemory,
        other => other,
    };
    fatal_in("realloc", crime, object.addr());
}

/// Frees an object of a watched class that the program has, if the magazine takes it.
#[cfg(feature = "preload")]
#[inline(always)] // The fast path of C's `free` for such objects.
pub(crate) fn free_at_once(class: SizeClass, object: *mut u8) -> bool {
    let magazines = runtime::magazines();
    magazines.has_room(class)
        && arena::give_back_held(class, object.addr())
        && magazines.push_unnoted(class, object)
}

/// Frees an object of `class`, of which it is known that the program had it.
#[cfg(feature = "preload")]
pub(crate) fn free_taken(class: SizeClass, object: *mut u8) {
    if !runtime::magazines().push_unnoted(class, object) {
        free_small(class, object);
    }
}

/// Frees an object of `class` that the magazine did not take.
pub(crate) fn free_small(class: SizeClass, object: *mut u8) {
    match runtime::mcache() {
        Some(mcache) => mcache.free(class, object),
        None => runtime::free_detached(class, object),
    }
    scavenge::after_free();
}

/// Makes a large object larger without copying it; where it is then. If that is not possible, a new object of
/// that size to copy it to, or null if the system has no memory.
pub(crate) fn grow_large(
    object: *mut u8,
    new_size: usize,
    align: usize,
    caller: Caller,
) -> Result<NonNull<u8>, *mut u8> {
    let mut resized = None;
    let new = with_scavenger(|| {
        resized = large::resize(object, new_size, align);
        match resized {
            Some(resized) => resized.as_ptr(),
            None => large::alloc_for_growth(new_size, align),
        }
    });
    resized.ok_or_else(|| profile::count(new, SizeClass::NONE, new_size, caller))
}

/// Frees an object of whole pages, with its size if that is known. Aborts if `object` is none, or another size's.
#[inline(never)]
pub(crate) fn free_large(object: *mut u8, size: Option<usize>) {
    if !large::free_at_once(object, size) {
        free_large_rest(object, size);
    }
}

/// [`free_large`] where it is not fast.
#[cold]
#[inline(never)]
fn free_large_rest(object: *mut u8, size: Option<usize>) {
    if !large::free(object, size) {
        scavenge::after_free();
    }
}

/// Allocates `size` zero bytes at a multiple of `align`. Null if the system has no memory. Fresh
/// pages of large objects are zero without being touched.
#[inline]
pub(crate) fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    let Some(class) = class_for_direct(size, align) else {
        // SAFETY: no precondition, here and below.
        return unsafe { zeroed_rest(size, align) };
    };
    let magazines = runtime::magazines();
    // A sample is left to the other call: after a memset there is no jump to anything.
    if magazines.would_be_due(size) {
        // SAFETY: as above.
        return unsafe { zeroed_rest(size, align) };
    }
    let object = magazines.pop(class);
    if is_rare(object) {
        // SAFETY: as above.
        return unsafe { zeroed_rest(size, align) };
    }
    magazines.counts_down(size);
    // SAFETY: the object is ours and has at least `size` bytes.
    unsafe { ptr::write_bytes(object, 0, size) };
    object
}

entry! {
    /// [`alloc_zeroed`] where it is not fast. No precondition.
    pub(crate) fn zeroed_rest(size: usize, align: usize) -> *mut u8 = zeroed_rest_from
}

unsafe extern "C-unwind" fn zeroed_rest_from(
    size: usize,
    align: usize,
    frame: usize,
    return_address: usize,
) -> *mut u8 {
    alloc_zeroed_from(size, align, Caller::new(frame, return_address))
}

/// [`alloc_zeroed`] for `caller`, not fast.
pub(crate) fn alloc_zeroed_from(size: usize, align: usize, caller: Caller) -> *mut u8 {
    if is_secure() {
        return secure::alloc(size, align, true, caller);
    }
    if class_for(size, align) == SizeClass::NONE {
        return alloc_large_rest(size, align, true, caller);
    }
    let object = alloc_from(size, align, caller);
    if !object.is_null() {
        // SAFETY: the object is ours and has at least `size` bytes.
        unsafe { ptr::write_bytes(object, 0, size) };
    }
    object
}

/// Changes the size of an object. It stays in place exactly if that can be had: within its size
/// class, or where pages or address space behind a large object are free. Null, and the object is as
/// before, if the system has no memory.
///
/// # Safety
/// As for [`free`]; if the result is not null, the object is the result.
#[inline]
pub(crate) unsafe fn realloc(
    object: *mut u8,
    size: usize,
    align: usize,
    new_size: usize,
) -> *mut u8 {
    let (old_class, new_class) = (class_for(size, align), class_for(new_size, align));
    let stays = old_class == new_class && old_class != SizeClass::NONE;
    // A guarded object ends where it was asked to.
    if stays && !secure::is_on() && !guarded::contains(object.addr()) {
        return object;
    }
    // SAFETY: the caller's contract.
    unsafe { realloc_slow(object, size, align, new_size) }
}

entry! {
    /// [`realloc`] where the object does not stay in its class.
    ///
    /// # Safety
    /// As for [`realloc`].
    fn realloc_slow(object: *mut u8, size: usize, align: usize, new_size: usize) -> *mut u8 =
        realloc_slow_from
}

unsafe extern "C-unwind" fn realloc_slow_from(
    object: *mut u8,
    size: usize,
    align: usize,
    new_size: usize,
    frame: usize,
    return_address: usize,
) -> *mut u8 {
    let caller = Caller::new(frame, return_address);
    if secure::is_on() && !guarded::contains(object.addr()) {
        let told = Told::Layout(size, align);
        let resized = secure::realloc(object, told, new_size, align, caller);
        return resized.unwrap_or_else(|| fatal(Crime::ForeignPointer, object.addr()));
    }
    let class = class_for(size, align);
    let both_large = class == SizeClass::NONE && class_for(new_size, align) == SizeClass::NONE;
    if class.is_watched() && arena::held_class(object.addr()) != Some(class) {
        check_is_guarded(object, class);
    }
    let moved = if both_large && new_size > size {
        match grow_large(object, new_size, align, caller) {
            Ok(resized) => return resized.as_ptr(),
            Err(new) => new,
        }
    } else {
        if both_large && let Some(resized) = large::resize(object, new_size, align) {
            return resized.as_ptr();
        }
        alloc_from(new_size, align, caller)
    };
    if !moved.is_null() {
        // SAFETY: two different objects, of at least `new_size` and `size` bytes; the caller's
        // contract for the free.
        unsafe {
            ptr::copy_nonoverlapping(object, moved, size.min(new_size));
            free(object, size, align);
        }
    }
    moved
}
