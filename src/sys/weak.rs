//! Functions that there may or may not be.
//!
//! Weak references in assembly, as stable Rust has none: the linkers leave null where no library
//! defines them.

/// The address of a symbol, null if there is none.
#[cfg(all(target_arch = "x86_64", not(miri)))]
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

#[cfg(all(target_arch = "aarch64", not(miri)))]
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

#[cfg(miri)]
macro_rules! address_of {
    ($name:literal) => {
        core::ptr::null::<()>()
    };
}

pub(super) use address_of;
