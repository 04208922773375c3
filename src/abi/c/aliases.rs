//! Second names: old ones, and those by which glibc's own functions go, which some programs call.

use core::ffi::{c_int, c_void};

use super::aligned::allocate_aligned;
use super::{allocate, allocate_zeroed, reallocate, release};
use crate::sys;

/// `cfree` (SunOS): `free`.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn cfree(object: *mut c_void) {
    // SAFETY: the caller's contract.
    unsafe { release(object) }
}

/// `vfree`: frees what `valloc` returned.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn vfree(object: *mut c_void) {
    // SAFETY: the caller's contract.
    unsafe { release(object) }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn __libc_malloc(size: usize) -> *mut c_void {
    allocate(size)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn __libc_calloc(count: usize, size: usize) -> *mut c_void {
    allocate_zeroed(count, size)
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __libc_realloc(object: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's contract.
    unsafe { reallocate(object, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __libc_free(object: *mut c_void) {
    // SAFETY: the caller's contract.
    unsafe { release(object) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __libc_cfree(object: *mut c_void) {
    // SAFETY: the caller's contract.
    unsafe { release(object) }
}

#[unsafe(no_mangle)]
extern "C-unwind" fn __libc_memalign(align: usize, size: usize) -> *mut c_void {
    super::aligned::memalign(align, size)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn __libc_valloc(size: usize) -> *mut c_void {
    allocate_aligned(size, sys::page_bytes())
}

#[unsafe(no_mangle)]
extern "C-unwind" fn __libc_pvalloc(size: usize) -> *mut c_void {
    super::aligned::pvalloc(size)
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn __posix_memalign(
    target: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { super::aligned::posix_memalign(target, align, size) }
}
