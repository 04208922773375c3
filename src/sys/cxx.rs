//! The C++ runtime, of which this library knows two functions, if the program has one.
//!
//! They are weak references in assembly, as stable Rust has none: the dynamic linker leaves null
//! where no library defines them.

#![allow(unsafe_code)]

use core::mem::transmute;

use super::{abort, write_stderr};

type NewHandler = extern "C-unwind" fn();

/// The address of a symbol, null if there is none.
#[cfg(target_arch = "x86_64")]
macro_rules! address_of {
    ($name:literal) => {{
        let address: *const ();
        // SAFETY: reads an entry of this library's global offset table.
        unsafe {
            core::arch::asm!(
                concat!(".weak ", $name),
                concat!("mov {address}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                address = out(reg) address,
                options(nostack, preserves_flags, pure, readonly),
            );
        }
        address
    }};
}

#[cfg(target_arch = "aarch64")]
macro_rules! address_of {
    ($name:literal) => {{
        let address: *const ();
        // SAFETY: reads an entry of this library's global offset table.
        unsafe {
            core::arch::asm!(
                concat!(".weak ", $name),
                concat!("adrp {address}, :got:", $name),
                concat!("ldr {address}, [{address}, :got_lo12:", $name, "]"),
                address = out(reg) address,
                options(nostack, preserves_flags, pure, readonly),
            );
        }
        address
    }};
}

/// What an `operator new` has to do when there is no memory: call the new-handler and return, to be
/// called again if that did not help; or throw `std::bad_alloc`. The handler may throw too.
pub(crate) extern "C-unwind" fn new_has_failed() {
    let get_new_handler = address_of!("_ZSt15get_new_handlerv");
    let throw_bad_alloc = address_of!("_ZSt17__throw_bad_allocv");
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
    if throw_bad_alloc.is_null() {
        write_stderr(
            b"spanmalloc: operator new has no memory, and there is no C++ runtime to say so\n",
        );
        abort();
    }
    // SAFETY: `void std::__throw_bad_alloc()`, of libstdc++ and of libc++.
    unsafe { transmute::<*const (), NewHandler>(throw_bad_alloc)() }
}
