//! What the dynamic linker has bound a symbol to, from the global offset table; also of functions that there may
//! or may not be.
//!
//! In assembly, as stable Rust has no weak references: the linkers leave null where no library defines them.

/// The address that a symbol is bound to. Directives of the assembler may come before, each with a comma.
#[cfg(all(target_arch = "x86_64", not(miri)))]
macro_rules! bound_to {
    ($name:literal $(, $($directive:tt)*)?) => {{
        let address: *const ();
        // SAFETY: reads an entry of this library's global offset table.
        unsafe {
            core::arch::asm!(
                $($($directive)*)?
                concat!("mov {address}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                address = out(reg) address,
                options(nostack, preserves_flags, pure, readonly),
            );
        }
        address
    }};
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
macro_rules! bound_to {
    ($name:literal $(, $($directive:tt)*)?) => {{
        let address: *const ();
        // SAFETY: reads an entry of this library's global offset table.
        unsafe {
            core::arch::asm!(
                $($($directive)*)?
                concat!("adrp {address}, :got:", $name),
                concat!("ldr {address}, [{address}, :got_lo12:", $name, "]"),
                address = out(reg) address,
                options(nostack, preserves_flags, pure, readonly),
            );
        }
        address
    }};
}

#[cfg(miri)]
macro_rules! bound_to {
    ($name:literal $(, $($directive:tt)*)?) => {
        core::ptr::null::<()>()
    };
}

/// The address of a symbol, null if there is none.
macro_rules! address_of {
    ($name:literal) => {
        $crate::sys::weak::bound_to!($name, concat!(".weak ", $name),)
    };
}

pub(super) use {address_of, bound_to};
