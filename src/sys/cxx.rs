//! The C++ runtime, of which this library knows two functions, if the program has one; and who has which operator.
//!
//! The two are looked up when a `new` has failed, no lock is held and nothing else can be done: in the
//! program's global scope, then in the runtimes that are loaded at all, as those are of a program in C
//! that opened a library in C++.

#![allow(unsafe_code)]

use core::ffi::CStr;
use core::mem::{MaybeUninit, transmute};

use super::weak::bound_to;
use super::{abort, write_stderr};

type NewHandler = extern "C-unwind" fn();

/// Libraries with the runtime: of GCC, and of LLVM.
const RUNTIMES: [&CStr; 3] = [c"libstdc++.so.6", c"libc++.so.1", c"libc++abi.so.1"];

/// Where the program's `operator delete(void*)` is: this library defines it as well, but the program may have its own.
#[inline(always)] // A load.
pub(crate) fn delete() -> *const () {
    bound_to!("_ZdlPv")
}

/// Where the program's `operator delete(void*, align_val_t)` is; as [`delete`].
#[inline(always)] // As above.
pub(crate) fn delete_aligned() -> *const () {
    bound_to!("_ZdlPvSt11align_val_t")
}

/// Whether a function is one of this library.
pub(crate) fn is_ours(function: *const ()) -> bool {
    fn inside() {}
    let base_of = |function: *const ()| {
        let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: any address may be asked for; the record is one to be written to.
        let is_found = unsafe { libc::dladdr(function.cast(), info.as_mut_ptr()) } != 0;
        // SAFETY: all-zero bytes are valid, and so is what `dladdr` writes.
        is_found.then(|| unsafe { info.assume_init() }.dli_fbase)
    };
    let base = base_of(function);
    base.is_some() && base == base_of(inside as *const ())
}

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
