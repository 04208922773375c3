//! C++'s operators `new` and `delete`.
//!
//! Each is the fast path of `malloc` or `free` without the detour through the C++ runtime. A `new`
//! that finds no memory does what the runtime's would: it calls the new-handler until that gives up,
//! then the runtime throws `std::bad_alloc`. Both exceptions unwind through this file, which has
//! nothing to clean up.
//!
//! The nothrow forms of `new` are left to the runtime: they have to catch what a new-handler throws,
//! which only C++ can, and both libstdc++ and libc++ make them of the throwing forms here.
//!
//! The sizes and alignments of the forms of `delete` are not looked at: programs in which a class
//! without a virtual destructor is deleted by its base are wrong, but run elsewhere.

use core::ffi::c_void;

use super::{ALIGN, allocate, release};
use crate::base::size_class::class_for_direct;
use crate::{runtime, sys};

/// `operator new` at a multiple of `align`, a power of two of at least [`ALIGN`].
#[inline(always)] // The fast path.
fn new(size: usize, align: usize) -> *mut c_void {
    if let Some(class) = class_for_direct(size, align) {
        let object = runtime::magazines().get(class).pop();
        if !object.is_null() {
            return object.cast();
        }
    }
    new_slow(size, align)
}

#[cold]
#[inline(never)]
extern "C-unwind" fn new_slow(size: usize, align: usize) -> *mut c_void {
    loop {
        let object = allocate(size, align);
        if !object.is_null() {
            return object;
        }
        sys::cxx::new_has_failed();
    }
}

macro_rules! operators_new {
    ($($(#[$docs:meta])* $name:ident($size:ident $(, $align:ident)?) at $at:expr;)*) => {$(
        $(#[$docs])*
        #[unsafe(no_mangle)]
        extern "C-unwind" fn $name($size: usize $(, $align: usize)?) -> *mut c_void {
            new($size, $at)
        }
    )*};
}

operators_new! {
    /// `operator new(size_t)`
    _Znwm(size) at ALIGN;
    /// `operator new[](size_t)`
    _Znam(size) at ALIGN;
    /// `operator new(size_t, align_val_t)`
    _ZnwmSt11align_val_t(size, align) at align.max(ALIGN);
    /// `operator new[](size_t, align_val_t)`
    _ZnamSt11align_val_t(size, align) at align.max(ALIGN);
}

macro_rules! operators_delete {
    ($($(#[$docs:meta])* $name:ident($($other:ty),*);)*) => {$(
        $(#[$docs])*
        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $name(object: *mut c_void, $(_: $other),*) {
            // SAFETY: the caller's contract.
            unsafe { release(object) }
        }
    )*};
}

operators_delete! {
    /// `operator delete(void*)`
    _ZdlPv();
    /// `operator delete[](void*)`
    _ZdaPv();
    /// `operator delete(void*, size_t)`
    _ZdlPvm(usize);
    /// `operator delete[](void*, size_t)`
    _ZdaPvm(usize);
    /// `operator delete(void*, const nothrow_t&)`
    _ZdlPvRKSt9nothrow_t(*const c_void);
    /// `operator delete[](void*, const nothrow_t&)`
    _ZdaPvRKSt9nothrow_t(*const c_void);
    /// `operator delete(void*, align_val_t)`
    _ZdlPvSt11align_val_t(usize);
    /// `operator delete[](void*, align_val_t)`
    _ZdaPvSt11align_val_t(usize);
    /// `operator delete(void*, size_t, align_val_t)`
    _ZdlPvmSt11align_val_t(usize, usize);
    /// `operator delete[](void*, size_t, align_val_t)`
    _ZdaPvmSt11align_val_t(usize, usize);
    /// `operator delete(void*, align_val_t, const nothrow_t&)`
    _ZdlPvSt11align_val_tRKSt9nothrow_t(usize, *const c_void);
    /// `operator delete[](void*, align_val_t, const nothrow_t&)`
    _ZdaPvSt11align_val_tRKSt9nothrow_t(usize, *const c_void);
}
