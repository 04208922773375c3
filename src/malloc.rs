//! Allocate, free, resize: the operations that the faces in `abi` are made of.
//!
//! The fast paths come first and are whole; everything rare meets in one cold call each.

#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use crate::base::size_class::{SizeClass, class_for, class_for_direct, class_for_rest};
use crate::{large, runtime, scavenge};

/// Allocates `size` bytes at a multiple of `align`. Null if the system has no memory.
#[inline]
pub(crate) fn alloc(size: usize, align: usize) -> *mut u8 {
    alloc_by(size, align, alloc_rest, alloc_slow)
}

/// [`alloc`], with the calls that what is not fast ends in: beyond 2 KiB, and when the magazine is empty.
#[inline]
pub(crate) fn alloc_by(
    size: usize,
    align: usize,
    rest: impl FnOnce(usize, usize) -> *mut u8,
    slow: impl FnOnce(SizeClass) -> *mut u8,
) -> *mut u8 {
    let Some(class) = class_for_direct(size, align) else {
        return rest(size, align);
    };
    let object = runtime::magazines().get(class).pop();
    if object.is_null() {
        return slow(class);
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
    let Some(class) = class_for_direct(size, align) else {
        return free_rest(object, size, align);
    };
    if !runtime::magazines().get(class).push(object) {
        free_slow(class, object);
    }
}

/// [`alloc`] beyond 2 KiB.
#[inline(never)]
pub(crate) fn alloc_rest(size: usize, align: usize) -> *mut u8 {
    let class = class_for_rest(size, align);
    let object = runtime::magazines().get(class).pop();
    if !object.is_null() {
        return object;
    }
    if class == SizeClass::NONE {
        return alloc_large(size, align, false);
    }
    alloc_slow(class)
}

/// [`free`] beyond 2 KiB.
#[inline(never)]
fn free_rest(object: *mut u8, size: usize, align: usize) {
    let class = class_for_rest(size, align);
    if runtime::magazines().get(class).push(object) {
        return;
    }
    if class == SizeClass::NONE {
        return free_large(object);
    }
    free_slow(class, object);
}

/// Allocates when the magazine is empty or the thread has no mcache.
#[cold]
#[inline(never)]
pub(crate) fn alloc_slow(class: SizeClass) -> *mut u8 {
    let alloc = || match runtime::mcache() {
        Some(mcache) => mcache.alloc(class),
        None => runtime::alloc_detached(class),
    };
    with_scavenger(alloc)
}

/// Allocates, with what the scavenger has to do before and after, and again if it finds room.
#[inline]
fn with_scavenger(mut alloc: impl FnMut() -> *mut u8) -> *mut u8 {
    scavenge::before_alloc();
    let mut object = alloc();
    if object.is_null() && scavenge::finds_room() {
        object = alloc();
    }
    scavenge::after_alloc();
    object
}

/// Frees when the magazine is full, the thread has no mcache, or the object is the newest one in its
/// magazine already.
#[cold]
#[inline(never)]
pub(crate) fn free_slow(class: SizeClass, object: *mut u8) {
    match runtime::mcache() {
        Some(mcache) => mcache.free(class, object),
        None => runtime::free_detached(class, object),
    }
    scavenge::after_free();
}

/// Allocates an object of whole pages; see [`large::alloc`].
pub(crate) fn alloc_large(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    with_scavenger(|| large::alloc(size, align, zeroed))
}

/// Makes a large object larger without copying it; where it is then. If that is not possible, a new object of
/// that size to copy it to, or null if the system has no memory.
pub(crate) fn grow_large(
    object: *mut u8,
    new_size: usize,
    align: usize,
) -> Result<NonNull<u8>, *mut u8> {
    let mut resized = None;
    let new = with_scavenger(|| {
        resized = large::resize(object, new_size, align);
        match resized {
            Some(resized) => resized.as_ptr(),
            None => large::alloc_for_growth(new_size, align),
        }
    });
    resized.ok_or(new)
}

/// Frees an object of whole pages. Aborts if `object` is none.
pub(crate) fn free_large(object: *mut u8) {
    large::free(object);
    scavenge::after_free();
}

/// Allocates `size` zero bytes at a multiple of `align`. Null if the system has no memory. Fresh
/// pages of large objects are zero without being touched.
#[inline]
pub(crate) fn alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    if class_for(size, align) == SizeClass::NONE {
        return alloc_large(size, align, true);
    }
    let object = alloc(size, align);
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
    if old_class == new_class && old_class != SizeClass::NONE {
        return object;
    }
    // SAFETY: the caller's contract.
    unsafe { realloc_slow(object, size, align, new_size, new_class) }
}

/// # Safety
/// As for [`realloc`].
#[inline(never)]
unsafe fn realloc_slow(
    object: *mut u8,
    size: usize,
    align: usize,
    new_size: usize,
    new_class: SizeClass,
) -> *mut u8 {
    let both_large = new_class == SizeClass::NONE && class_for(size, align) == SizeClass::NONE;
    let moved = if both_large && new_size > size {
        match grow_large(object, new_size, align) {
            Ok(resized) => return resized.as_ptr(),
            Err(new) => new,
        }
    } else {
        if both_large && let Some(resized) = large::resize(object, new_size, align) {
            return resized.as_ptr();
        }
        alloc(new_size, align)
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
