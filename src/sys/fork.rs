//! What surrounds a `fork`.
//!
//! glibc takes the lock of its list of streams in `fork`, after the handlers that were registered
//! with `pthread_atfork`. A thread in `fflush(NULL)` has that lock and waits for one stream's; a thread in
//! `getline` has the stream's and may wait for memory. So who takes the allocator's locks in a handler
//! has to take that of the list first, as glibc does for its own malloc.

#![allow(unsafe_code)]

use super::weak::address_of;
use core::mem::transmute;

/// Calls a function of the C library that takes nothing, if it has one of that name.
macro_rules! call_if_there {
    ($name:literal) => {{
        let address = address_of!($name);
        if !address.is_null() {
            // SAFETY: a function without arguments or a result (glibc's internal interface, exported
            // since 2.2.5).
            unsafe { transmute::<*const (), extern "C" fn()>(address)() }
        }
    }};
}

/// Takes the lock of the list of streams, which the calling thread may take again.
pub(crate) fn lock_streams() {
    call_if_there!("_IO_list_lock");
}

/// Gives it back.
pub(crate) fn unlock_streams() {
    call_if_there!("_IO_list_unlock");
}

/// Frees it, in the child.
pub(crate) fn reset_streams() {
    call_if_there!("_IO_list_resetlock");
}

type Handler = unsafe extern "C" fn();

/// Has the three functions called around each `fork`. Nothing happens if there is no memory for it.
pub(crate) fn at_fork(prepare: Handler, parent: Handler, child: Handler) {
    let _errno = super::linux::KeepErrno::new();
    // glibc drops the handlers of a library at the exit, while other threads still run and
    // destructors may fork. This library is never closed: its handlers are nobody's.
    #[cfg(all(feature = "preload", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn __register_atfork(
                prepare: Handler,
                parent: Handler,
                child: Handler,
                library: *const core::ffi::c_void,
            ) -> core::ffi::c_int;
        }
        // SAFETY: three plain functions of this library.
        unsafe { __register_atfork(prepare, parent, child, core::ptr::null()) };
    }
    #[cfg(not(all(feature = "preload", target_env = "gnu")))]
    // SAFETY: as above.
    unsafe {
        libc::pthread_atfork(Some(prepare), Some(parent), Some(child));
    }
}
