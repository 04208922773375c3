//! Functions that take an alignment.

use core::ffi::{c_int, c_void};

use super::{SIZE_MAX, allocate_at, allocate_at_once, allocate_from, out_of_memory};
use crate::base::size_class::{class_for_direct, malloc_align};
use crate::sys;
use crate::sys::caller::{Caller, entry};

/// `posix_memalign` (POSIX): the result is the error, errno and on an error also `*target` are as before.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C-unwind" fn posix_memalign(
    target: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { posix_memalign_entry(target, align, size) }
}

entry! {
    /// As [`posix_memalign`].
    fn posix_memalign_entry(target: *mut *mut c_void, align: usize, size: usize) -> c_int =
        posix_memalign_from
}

unsafe extern "C-unwind" fn posix_memalign_from(
    target: *mut *mut c_void,
    align: usize,
    size: usize,
    frame: usize,
    return_address: usize,
) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let align = align.max(malloc_align(size));
    let mut object = allocate_at_once(class_for_direct(size, align), size, align);
    if object.is_null() {
        let errno = sys::errno();
        object = match align > SIZE_MAX / 2 {
            true => out_of_memory(),
            false => allocate_from(size, align, Caller::new(frame, return_address)),
        };
        if object.is_null() {
            sys::set_errno(errno);
            return libc::ENOMEM;
        }
    }
    // SAFETY: the caller's pointer is valid for the write of a pointer.
    unsafe { target.write(object) };
    0
}

/// `aligned_alloc` (C17 7.22.3.1).
#[unsafe(no_mangle)]
extern "C-unwind" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return invalid();
    }
    allocate_aligned(size, align)
}

/// `memalign` (glibc).
#[unsafe(no_mangle)]
pub(super) extern "C-unwind" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => allocate_aligned(size, align),
        None => invalid(),
    }
}

/// `valloc` (BSD): at a page.
#[unsafe(no_mangle)]
extern "C-unwind" fn valloc(size: usize) -> *mut c_void {
    allocate_aligned(size, sys::page_bytes())
}

/// `pvalloc` (SVID): whole pages.
#[unsafe(no_mangle)]
pub(super) extern "C-unwind" fn pvalloc(size: usize) -> *mut c_void {
    let page_bytes = sys::page_bytes();
    match size.max(1).checked_next_multiple_of(page_bytes) {
        Some(size) if size <= SIZE_MAX => allocate_aligned(size, page_bytes),
        _ => out_of_memory(),
    }
}

/// Null, and EINVAL.
fn invalid() -> *mut c_void {
    sys::set_errno(libc::EINVAL);
    core::ptr::null_mut()
}

/// Allocates at a multiple of `align`, any power of two.
pub(super) fn allocate_aligned(size: usize, align: usize) -> *mut c_void {
    if align > SIZE_MAX / 2 {
        return out_of_memory();
    }
    allocate_at(size, align.max(malloc_align(size)))
}
