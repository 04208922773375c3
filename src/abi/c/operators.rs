//! C++'s operators `new` and `delete`.
//!
//! Each is the fast path of `malloc` or `free` without the detour through the C++ runtime. A `new`
//! that finds no memory does what the runtime's would: it calls the new-handler until that gives up,
//! then the runtime throws `std::bad_alloc`. Both exceptions unwind through this file, which has
//! nothing to clean up.
//!
//! Only the four forms are here that the others are made of. The standard lets a program replace
//! these alone, and then the forms for arrays, with sizes and with `nothrow` must call the program's:
//! the runtime's do, through the dynamic linker, and so they reach either the program's or ours. The
//! nothrow forms also have to catch what a new-handler throws, which only C++ can.

use core::ffi::c_void;

use super::{ALIGN, allocate_from, release};
use crate::base::size_class::class_for_direct;
use crate::mcache::is_rare;
use crate::sys::caller::{Caller, entry};
use crate::{malloc, runtime, sys};

/// `operator new` at a multiple of `align`, a power of two of at least [`ALIGN`].
#[inline(always)] // The fast path.
fn new(size: usize, align: usize) -> *mut c_void {
    if let Some(class) = class_for_direct(size, align) {
        let magazines = runtime::magazines();
        let object = magazines.get(class).pop();
        if !is_rare(object) {
            if magazines.counts_down(size) {
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
    new(size, ALIGN)
}

/// `operator new(size_t, align_val_t)`
#[unsafe(no_mangle)]
extern "C-unwind" fn _ZnwmSt11align_val_t(size: usize, align: usize) -> *mut c_void {
    new(size, align.max(ALIGN))
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
