//! The C++ runtime, of which this library knows two functions, if the program has one.
//!
//! They are looked up when a `new` has failed, no lock is held and nothing else can be done: in the
//! program's global scope, then in the runtimes that are loaded at all, as those are of a program in C
//! that opened a library in C++.

#![allow(unsafe_code)]

use core::ffi::CStr;
use core::mem::transmute;

use super::{abort, write_stderr};

type NewHandler = extern "C-unwind" fn();

/// Libraries with the runtime: of GCC, and of LLVM.
const RUNTIMES: [&CStr; 3] = [c"libstdc++.so.6", c"libc++.so.1", c"libc++abi.so.1"];

/// The address of a function of the C++ runtime, null if there is none.
fn address_of(name: &CStr) -> *const () {
    // SAFETY: a string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if !found.is_null() {
        return found.cast();
    }
    for runtime in RUNTIMES {
        // SAFETY: a string; without a load there is no code that could run.
        let handle = unsafe { libc::dlopen(runtime.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if handle.is_null() {
            continue;
        }
        // SAFETY: a handle of a library, and a string.
        let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
        // SAFETY: the handle that `dlopen` counted.
        unsafe { libc::dlclose(handle) };
        if !found.is_null() {
            return found.cast();
        }
    }
    core::ptr::null()
}

/// What an `operator new` has to do when there is no memory: call the new-handler and return, to be
/// called again if that did not help; or throw `std::bad_alloc`. The handler may throw too.
pub(crate) extern "C-unwind" fn new_has_failed() {
    let get_new_handler = address_of(c"_ZSt15get_new_handlerv");
    if !get_new_handler.is_null() {
        // SAFETY: `std::new_handler std::get_new_handler() noexcept`, a plain function that returns
        // a plain function or null.
        let handler = unsafe {
            transmute::<*const (), extern "C" fn() -> Option<NewHandler>>(get_new_handler)()
        };
        if let Some(handler) = handler {
            return handler();
        }
    }
    let throw_bad_alloc = address_of(c"_ZSt17__throw_bad_allocv");
    if throw_bad_alloc.is_null() {
        write_stderr(
            b"spanmalloc: operator new has no memory, and there is no C++ runtime to say so\n",
        );
        abort();
    }
    // SAFETY: `void std::__throw_bad_alloc()`, of libstdc++ and of libc++.
    unsafe { transmute::<*const (), NewHandler>(throw_bad_alloc)() }
}
