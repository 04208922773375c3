//! C++'s operators `new` and `delete`.
//!
//! Each is the fast path of `malloc` or `free` without the detour through the C++ runtime. A `new`
//! that finds no memory does what the runtime's would: it calls the new-handler until that gives up,
//! then the runtime throws `std::bad_alloc`. Both exceptions unwind through this file, which has
//! nothing to clean up.
//!
//! The four forms are here that the others are made of. The standard lets a program replace
//! these alone, and then the forms for arrays, with sizes and with `nothrow` must call the program's:
//! the runtime's do, through the dynamic linker, and so they reach either the program's or ours. The
//! nothrow forms also have to catch what a new-handler throws, which only C++ can.
//!
//! And the two that tell the size of one object, which the runtime's would drop. Where the program has replaced the
//! form without a size, they call the program's.

use core::ffi::c_void;
use core::mem::transmute;

use super::sized::release_sized;
use super::{allocate_from, release};
use crate::arena::class_at;
use crate::base::size_class::{SizeClass, class_for_direct, class_for_malloc, malloc_align};
use crate::mcache::is_rare;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sys::caller::{Caller, entry};
use crate::sys::cxx;
use crate::{malloc, runtime, sys};

/// `operator new` of an object of `class`, if it has one, as [`allocate_of`](super::allocate_of).
#[inline(always)] // The fast path.
fn new(class: Option<SizeClass>, size: usize, align: usize) -> *mut c_void {
    if let Some(class) = class {
        let magazines = runtime::magazines();
        let object = magazines.pop(class);
        if !is_rare(object) {
            if magazines.counts_down(size) {
                let align = align.max(malloc_align(size));
                // SAFETY: the object was popped just now.
                return unsafe { malloc::sampled(object, class, size, align) }.cast();
            }
            return object.cast();
        }
    }
    // SAFETY: no precondition.
    unsafe { new_slow(size, align) }
}

entry! {
    /// [`new`] where it is not fast. No precondition.
    #[cold]
    fn new_slow(size: usize, align: usize) -> *mut c_void = new_slow_from
}

unsafe extern "C-unwind" fn new_slow_from(
    size: usize,
    align: usize,
    frame: usize,
    return_address: usize,
) -> *mut c_void {
    let caller = Caller::new(frame, return_address);
    let align = align.max(malloc_align(size));
    loop {
        let object = allocate_from(size, align, caller);
        if !object.is_null() {
            return object;
        }
        sys::cxx::new_has_failed();
    }
}

/// `operator new(size_t)`
#[unsafe(no_mangle)]
extern "C-unwind" fn _Znwm(size: usize) -> *mut c_void {
    new(class_for_malloc(size), size, 0)
}

/// `operator new(size_t, align_val_t)`
#[unsafe(no_mangle)]
extern "C-unwind" fn _ZnwmSt11align_val_t(size: usize, align: usize) -> *mut c_void {
    let align = align.max(malloc_align(size));
    new(class_for_direct(size, align), size, align)
}

/// `operator delete(void*)`
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn _ZdlPv(object: *mut c_void) {
    // SAFETY: the caller's contract.
    unsafe { release(object) }
}

/// `operator delete(void*, align_val_t)`
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn _ZdlPvSt11align_val_t(object: *mut c_void, _align: usize) {
    // SAFETY: the caller's contract.
    unsafe { release(object) }
}

/// Whether `operator delete(void*)` and `operator delete(void*, align_val_t)` of the program are this library's. **Any
/// thread; atomic.** Set once, by [`look_who_deletes`].
static DELETES_ARE_OURS: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

/// Finds out whether the program has operators `delete` of its own. Before, all that come with a size are done as by
/// the runtime. The library's constructor calls: it may wait for the dynamic linker.
pub(super) fn look_who_deletes() {
    // Relaxed: a late look at it is a size that is not looked at.
    DELETES_ARE_OURS[0].store(cxx::is_ours(cxx::delete()), Relaxed);
    DELETES_ARE_OURS[1].store(cxx::is_ours(cxx::delete_aligned()), Relaxed);
}

/// `operator delete(void*, size_t)`. Aborts if the object can't have been made with that size.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn _ZdlPvm(object: *mut c_void, size: usize) {
    if DELETES_ARE_OURS[0].load(Relaxed)
        && let Some(class) = class_at(object.addr())
        && class_for_malloc(size) == Some(class)
        && runtime::magazines().push(class, object.cast())
    {
        return;
    }
    // SAFETY: the caller's contract.
    unsafe { delete_sized_slow(object, size) }
}

/// # Safety
/// As for [`release`].
#[cold]
#[inline(never)]
unsafe extern "C-unwind" fn delete_sized_slow(object: *mut c_void, size: usize) {
    if DELETES_ARE_OURS[0].load(Relaxed) {
        // SAFETY: the caller's contract.
        return unsafe { release_sized(object, 1, size) };
    }
    type Delete = unsafe extern "C-unwind" fn(*mut c_void);
    // SAFETY: a function of that name has that type; the caller's contract.
    unsafe { transmute::<*const (), Delete>(cxx::delete())(object) }
}

/// `operator delete(void*, size_t, align_val_t)`. Aborts if the object can't have been made with that size and
/// alignment.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn _ZdlPvmSt11align_val_t(object: *mut c_void, size: usize, align: usize) {
    if DELETES_ARE_OURS[1].load(Relaxed) {
        // SAFETY: the caller's contract.
        return unsafe { release_sized(object, align, size) };
    }
    type Delete = unsafe extern "C-unwind" fn(*mut c_void, usize);
    // SAFETY: as in `delete_sized_slow`.
    unsafe { transmute::<*const (), Delete>(cxx::delete_aligned())(object, align) }
}
