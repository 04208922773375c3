//! Who called into the allocator: where the stack of a sampled allocation begins.
//!
//! The allocator itself is compiled without frame pointers, so the way to its caller's frame is lost as soon
//! as its own code runs. The calls that fast paths end in are therefore *entries*: a few instructions that
//! hand the caller's frame pointer and return address on as two more arguments. A fast path ends in a jump to
//! one, so its caller is the program.

#![allow(unsafe_code)]

/// Where a call into the allocator came from.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "profile"), allow(dead_code))]
pub(crate) struct Caller {
    /// Its frame pointer, if its code keeps one; else any value.
    pub(crate) frame: usize,
    /// Where the call returns to.
    pub(crate) return_address: usize,
}

impl Caller {
    pub(crate) fn new(frame: usize, return_address: usize) -> Self {
        Self {
            frame,
            return_address,
        }
    }
}

/// Defines a function that hands its arguments, and then its caller's frame pointer and the return address,
/// to another one of the same result. As all `extern "C-unwind"` ones its frame is gone then.
macro_rules! entry {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $of:ty),+) -> $result:ty = $inner:path
    ) => {
        $(#[$attribute])*
        #[unsafe(naked)]
        $visibility unsafe extern "C-unwind" fn $name($($argument: $of),+) -> $result {
            const _: unsafe extern "C-unwind" fn($($of,)+ usize, usize) -> $result = $inner;
            core::arch::naked_asm!(
                $crate::sys::caller::instructions!($($argument)+),
                inner = sym $inner,
            )
        }
    };
}
pub(crate) use entry;

/// The two more arguments, behind as many as are named (System V ABI of x86-64, 3.2.3).
#[cfg(target_arch = "x86_64")]
macro_rules! instructions {
    ($a:ident) => {
        "mov rsi, rbp\nmov rdx, [rsp]\njmp {inner}"
    };
    ($a:ident $b:ident) => {
        "mov rdx, rbp\nmov rcx, [rsp]\njmp {inner}"
    };
    ($a:ident $b:ident $c:ident) => {
        "mov rcx, rbp\nmov r8, [rsp]\njmp {inner}"
    };
    ($a:ident $b:ident $c:ident $d:ident) => {
        "mov r8, rbp\nmov r9, [rsp]\njmp {inner}"
    };
}

/// The two more arguments, behind as many as are named (AAPCS64, 6.4).
#[cfg(target_arch = "aarch64")]
macro_rules! instructions {
    ($a:ident) => {
        "mov x1, x29\nmov x2, x30\nb {inner}"
    };
    ($a:ident $b:ident) => {
        "mov x2, x29\nmov x3, x30\nb {inner}"
    };
    ($a:ident $b:ident $c:ident) => {
        "mov x3, x29\nmov x4, x30\nb {inner}"
    };
    ($a:ident $b:ident $c:ident $d:ident) => {
        "mov x4, x29\nmov x5, x30\nb {inner}"
    };
}
pub(crate) use instructions;
