//! Functions that take back a size, or return one.

use core::ffi::{c_int, c_void};

use super::aligned::allocate_aligned;
use super::resize::{HAS_STAYED, reallocate};
use super::{
    ALIGN, SIZE_MAX, allocate, has_no_bytes, release, release_secure, usable_size, usable_size_at,
    usable_size_for,
};
use crate::base::fatal::{Crime, fatal};
use crate::base::size_class::malloc_align;
use crate::secure::{self, Told};
use crate::sync::atomic::Ordering::Relaxed;
use crate::{guarded, record, sys};

/// An object and the bytes of it that may be used.
#[repr(C)]
struct Sized {
    object: *mut c_void,
    size: usize,
}

impl Sized {
    fn new(object: *mut c_void) -> Self {
        Self {
            object,
            size: usable_size(object),
        }
    }
}

/// `malloc_usable_size` (glibc).
#[unsafe(no_mangle)]
extern "C-unwind" fn malloc_usable_size(object: *mut c_void) -> usize {
    usable_size(object)
}

/// `malloc_size` (macOS).
#[unsafe(no_mangle)]
extern "C-unwind" fn malloc_size(object: *mut c_void) -> usize {
    usable_size(object)
}

/// `malloc_good_size` (macOS): the usable size of what `malloc(size)` would return.
#[unsafe(no_mangle)]
extern "C-unwind" fn malloc_good_size(size: usize) -> usize {
    usable_size_for(size, malloc_align(size))
}

/// `nallocx` (jemalloc): the usable size of an object with these flags; zero if there can be none.
#[unsafe(no_mangle)]
extern "C-unwind" fn nallocx(size: usize, flags: c_int) -> usize {
    usable_size_for(size, align_of_flags(flags).max(malloc_align(size)))
}

/// `sdallocx` (jemalloc). Aborts as `free_aligned_sized` does.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn sdallocx(object: *mut c_void, size: usize, flags: c_int) {
    // SAFETY: the caller's contract.
    unsafe { release_sized(object, align_of_flags(flags), size) }
}

/// The alignment that flags of jemalloc ask for.
fn align_of_flags(flags: c_int) -> usize {
    1 << (flags & 63)
}

/// `alloc_at_least` (TCMalloc).
#[unsafe(no_mangle)]
extern "C-unwind" fn alloc_at_least(size: usize) -> Sized {
    Sized::new(allocate(size))
}

/// `aligned_alloc_at_least` (TCMalloc).
#[unsafe(no_mangle)]
extern "C-unwind" fn aligned_alloc_at_least(align: usize, size: usize) -> Sized {
    if !align.is_power_of_two() {
        sys::set_errno(libc::EINVAL);
        return Sized::new(core::ptr::null_mut());
    }
    Sized::new(allocate_aligned(size, align))
}

/// `free_sized` (C23 7.24.3.4). Aborts if the object can't have had that size.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn free_sized(object: *mut c_void, size: usize) {
    // SAFETY: the caller's contract.
    unsafe { release_sized(object, 1, size) }
}

/// `free_aligned_sized` (C23 7.24.3.5). Aborts if the object can't have had that size or alignment.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn free_aligned_sized(object: *mut c_void, align: usize, size: usize) {
    // SAFETY: the caller's contract.
    unsafe { release_sized(object, align, size) }
}

/// Whether an object with so many usable bytes can have been asked for with this size and alignment, or
/// have got the size from `realloc`, which leaves it where it uses the upper half, or if there is no memory.
fn can_have_had(usable: usize, align: usize, size: usize) -> bool {
    size <= usable
        && (HAS_STAYED.load(Relaxed)
            || size >= (usable / 2).saturating_sub(ALIGN / 2)
            || usable_size_for(size, align.clamp(malloc_align(size), SIZE_MAX / 2 + 1)) == usable)
}

/// Whether the secure mode knows the size of an object, and nobody else has to hear of its free.
fn tells_size(object: *mut c_void) -> bool {
    let is_another = object.is_null() || guarded::contains(object.addr());
    !is_another && !has_no_bytes(object.cast()) && !record::is_on()
}

/// # Safety
/// As for [`release`].
pub(super) unsafe fn release_sized(object: *mut c_void, align: usize, size: usize) {
    if secure::is_on() && tells_size(object) {
        return release_secure(object.cast(), Told::Size(size));
    }
    if let Some(usable) = usable_size_at("free", object)
        && (object.addr() & align.wrapping_sub(1) != 0 || !can_have_had(usable, align, size))
    {
        fatal(Crime::WrongSize, object.addr());
    }
    // SAFETY: the caller's contract.
    unsafe { release(object) }
}

/// `reallocarray` (POSIX 2024).
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn reallocarray(
    object: *mut c_void,
    count: usize,
    size: usize,
) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the caller's contract.
        Some(bytes) => unsafe { reallocate(object, bytes) },
        None => super::out_of_memory(),
    }
}

/// `reallocf` (BSD): frees the object if it can't be had at the new size.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn reallocf(object: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: the caller's contract.
    let moved = unsafe { reallocate(object, size) };
    if moved.is_null() && size != 0 {
        // SAFETY: as above; after a failure the object is as before.
        unsafe { release(object) };
    }
    moved
}

/// `reallocarr` (NetBSD): `*target` is the object; the result is the error, and errno is as before.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn reallocarr(target: *mut c_void, count: usize, size: usize) -> c_int {
    let Some(bytes) = count.checked_mul(size) else {
        return libc::EOVERFLOW;
    };
    let errno = sys::errno();
    let target = target.cast::<*mut c_void>();
    // SAFETY: `target` points to a pointer, the object, by the caller's contract.
    unsafe {
        let moved = reallocate(target.read(), bytes);
        if moved.is_null() && bytes != 0 {
            sys::set_errno(errno);
            return libc::ENOMEM;
        }
        target.write(moved);
    }
    0
}
