//! `realloc`: objects that stay, and those that move.

#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ptr;

use super::{
    ALIGN, SIZE_MAX, allocate_at_once, allocate_from, class_in_use, foreign, has_no_bytes,
    live_span, or_out_of_memory, out_of_memory, release, usable_of,
};
use crate::base::size_class::{SizeClass, class_for, class_for_malloc, malloc_align};
use crate::record::{self, raw::Kind};
use crate::secure::{self, Told};
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sys::caller::{Caller, entry};
use crate::{guarded, large, malloc, sys};

/// Whether an object has stayed as large as it was because the system had no memory for a smaller one. **Any
/// thread; atomic**, a note: sizes tell less from here on.
pub(super) static HAS_STAYED: AtomicBool = AtomicBool::new(false);

/// Changes the size of an object; null is an object of no bytes, and becomes one of that size.
///
/// # Safety
/// As for [`release`]; if the result is not null, the object is the result.
#[inline]
pub(super) unsafe fn reallocate(object: *mut c_void, size: usize) -> *mut c_void {
    if record::is_on() {
        // SAFETY: the caller's contract, here and below.
        return unsafe { reallocate_recorded(object, size) };
    }
    // SAFETY: as above.
    unsafe { reallocate_unrecorded(object, size) }
}

/// # Safety
/// As for [`reallocate`].
#[cold]
#[inline(never)]
unsafe fn reallocate_recorded(object: *mut c_void, size: usize) -> *mut c_void {
    // An allocation or a free, and nothing else, records itself.
    let is_resized = !object.is_null() && size != 0;
    if is_resized {
        record::note(Kind::Begin, object, 0, ALIGN);
    }
    // SAFETY: the caller's contract.
    let resized = unsafe { reallocate_unrecorded(object, size) };
    if is_resized {
        record::note(Kind::EndResized, resized, size, malloc_align(size));
    }
    resized
}

/// # Safety
/// As for [`reallocate`].
#[inline]
unsafe fn reallocate_unrecorded(object: *mut c_void, size: usize) -> *mut c_void {
    let is_resized = size != 0 && !secure::is_on();
    let class = is_resized.then(|| class_in_use("realloc", object.cast()));
    match class.flatten() {
        Some(class) => {
            let usable = class.object_bytes();
            if stays(usable, size) {
                return object;
            }
            // SAFETY: the caller's contract.
            unsafe { move_to_new(object, usable, size) }
        }
        // SAFETY: as above.
        None => unsafe { reallocate_rest(object, size) },
    }
}

/// Whether an object of `usable` bytes stays in its place when it is to have `size`.
#[inline(always)] // The fast path of `realloc`.
fn stays(usable: usize, size: usize) -> bool {
    size <= usable && size >= (usable / 2).saturating_sub(ALIGN / 2)
}

entry! {
    /// # Safety
    /// As for [`reallocate`].
    fn reallocate_rest(object: *mut c_void, size: usize) -> *mut c_void = reallocate_rest_from
}

unsafe extern "C-unwind" fn reallocate_rest_from(
    object: *mut c_void,
    size: usize,
    frame: usize,
    return_address: usize,
) -> *mut c_void {
    let caller = Caller::new(frame, return_address);
    if object.is_null() {
        return allocate_from(size, malloc_align(size), caller);
    }
    if size == 0 {
        // SAFETY: the caller's contract.
        unsafe { release(object) };
        return ptr::null_mut();
    }
    if guarded::contains(object.addr()) {
        let usable = guarded::bytes_of(object.cast(), caller);
        if stays(usable, size) {
            return object;
        }
        // SAFETY: the caller's contract.
        return unsafe { move_to_new_for(object, usable, size, caller) };
    }
    if secure::is_on() && !has_no_bytes(object.cast()) {
        return reallocate_secure(object, size, caller);
    }
    let Some(span) = live_span("realloc", object.cast()) else {
        foreign::report("realloc", object.addr());
        return out_of_memory();
    };
    if size > SIZE_MAX - ALIGN {
        return out_of_memory();
    }
    let usable = usable_of(span);
    if span.is_zero() || class_for(size, ALIGN) != SizeClass::NONE {
        // SAFETY: the caller's contract.
        return unsafe { move_to_new_for(object, usable, size, caller) };
    }
    if size <= usable {
        let resized = large::resize(object.cast(), size, ALIGN);
        let Some(resized) = resized else {
            HAS_STAYED.store(true, Relaxed);
            return object; // A mapping that can't be cut.
        };
        return resized.as_ptr().cast();
    }
    let new = match malloc::grow_large(object.cast(), size, ALIGN, caller) {
        Ok(resized) => return resized.as_ptr().cast(),
        Err(new) => or_out_of_memory(new),
    };
    // SAFETY: the caller's contract, and the object is large, with all of its span's bytes.
    unsafe { move_to(object, usable, new, size) }
}

fn reallocate_secure(object: *mut c_void, size: usize, caller: Caller) -> *mut c_void {
    if size > SIZE_MAX - ALIGN {
        return out_of_memory();
    }
    let align = malloc_align(size);
    match secure::realloc(object.cast(), Told::Nothing, size, align, caller) {
        Some(resized) => or_out_of_memory(resized),
        None => {
            foreign::report("realloc", object.addr());
            out_of_memory()
        }
    }
}

entry! {
    /// Moves an object of `usable` bytes to a new one of `size` bytes. If there is no memory, null, and
    /// the object is as before; one that shrinks stays.
    ///
    /// # Safety
    /// As for [`reallocate`].
    fn move_to_new(object: *mut c_void, usable: usize, size: usize) -> *mut c_void = move_to_new_from
}

unsafe extern "C-unwind" fn move_to_new_from(
    object: *mut c_void,
    usable: usize,
    size: usize,
    frame: usize,
    return_address: usize,
) -> *mut c_void {
    // SAFETY: the caller's contract.
    unsafe { move_to_new_for(object, usable, size, Caller::new(frame, return_address)) }
}

/// [`move_to_new`] for `caller`.
///
/// # Safety
/// As for [`reallocate`].
unsafe fn move_to_new_for(
    object: *mut c_void,
    usable: usize,
    size: usize,
    caller: Caller,
) -> *mut c_void {
    let mut new = allocate_at_once(class_for_malloc(size), size, malloc_align(size));
    if new.is_null() {
        let errno = sys::errno();
        new = allocate_from(size, malloc_align(size), caller);
        if new.is_null() && size <= usable {
            sys::set_errno(errno);
            HAS_STAYED.store(true, Relaxed);
            return object;
        }
    }
    // SAFETY: the caller's contract.
    unsafe { move_to(object, usable, new, size) }
}

/// # Safety
/// As for [`reallocate`]; `new` is null or a new object of `size` bytes.
unsafe fn move_to(
    object: *mut c_void,
    usable: usize,
    new: *mut c_void,
    size: usize,
) -> *mut c_void {
    if !new.is_null() {
        // SAFETY: two different objects of at least `usable` and `size` bytes; the caller's contract
        // for the free.
        unsafe {
            ptr::copy_nonoverlapping(object.cast::<u8>(), new.cast(), usable.min(size));
            release(object);
        }
    }
    new
}
