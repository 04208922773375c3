//! One word of thread-local memory: the address of this thread's mcache.
//!
//! A `thread_local!` would be one load in a program but a call of `__tls_get_addr` in a shared
//! library, which may allocate on first touch (jemalloc#937). So the word is defined in assembly
//! and read through the initial-exec model, which is the same two instructions in both: the
//! offset from the global offset table (an immediate in programs, where the linker relaxes the
//! load), then the word relative to the thread pointer. It works on stable Rust, needs no
//! destructor, and takes 8 bytes of a shared library's static TLS.
//!
//! The word starts as the address of the EMPTY mcache, so
//! that the fast path has no test for "no mcache yet".
//!
//! Another thread may change it while this one waits in a system call. So a read is not `pure`: the compiler
//! must not use an earlier one, nor move one over a system call that is inline assembly itself.

#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use crate::mcache::EMPTY;

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod word {
    use super::EMPTY;

    core::arch::global_asm!(
        ".pushsection .tdata.spanmalloc_mcache_slot, \"awT\", %progbits",
        ".p2align 3",
        ".globl spanmalloc_mcache_slot",
        ".hidden spanmalloc_mcache_slot",
        ".type spanmalloc_mcache_slot, %object",
        ".size spanmalloc_mcache_slot, 8",
        "spanmalloc_mcache_slot:",
        ".quad {empty}",
        ".popsection",
        empty = sym EMPTY,
    );

    #[cfg(target_arch = "x86_64")]
    pub(super) fn address() -> *mut *mut u8 {
        let address;
        // SAFETY: computes the address of the calling thread's own word; the first word at the thread
        // pointer is its own address (System V ABI).
        unsafe {
            core::arch::asm!(
                "mov {address}, qword ptr [rip + spanmalloc_mcache_slot@GOTTPOFF]",
                "add {address}, qword ptr fs:[0]",
                address = out(reg) address,
                options(nostack, pure, readonly),
            );
        }
        address
    }

    #[cfg(target_arch = "aarch64")]
    pub(super) fn address() -> *mut *mut u8 {
        let address;
        // SAFETY: computes the address of the calling thread's own word.
        unsafe {
            core::arch::asm!(
                "adrp {address}, :gottprel:spanmalloc_mcache_slot",
                "ldr {address}, [{address}, :gottprel_lo12:spanmalloc_mcache_slot]",
                "mrs {thread}, tpidr_el0",
                "add {address}, {address}, {thread}",
                address = out(reg) address,
                thread = out(reg) _,
                options(nostack, preserves_flags, pure, readonly),
            );
        }
        address
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)] // The whole point of the word: two instructions on the fast path.
    pub(super) fn get() -> *mut u8 {
        let value: *mut u8;
        // SAFETY: reads the calling thread's own word, defined above; the thread pointer is in FS
        // in every thread of the System V ABI.
        unsafe {
            core::arch::asm!(
                "mov {value}, qword ptr [rip + spanmalloc_mcache_slot@GOTTPOFF]",
                "mov {value}, qword ptr fs:[{value}]",
                value = out(reg) value,
                options(nostack, preserves_flags, readonly),
            );
        }
        value
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn set(value: *mut u8) {
        // SAFETY: writes the calling thread's own word.
        unsafe {
            core::arch::asm!(
                "mov {offset}, qword ptr [rip + spanmalloc_mcache_slot@GOTTPOFF]",
                "mov qword ptr fs:[{offset}], {value}",
                offset = out(reg) _,
                value = in(reg) value,
                options(nostack, preserves_flags),
            );
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)] // As above.
    pub(super) fn get() -> *mut u8 {
        let value: *mut u8;
        // SAFETY: reads the calling thread's own word, defined above; the thread pointer is in
        // TPIDR_EL0 in every thread.
        unsafe {
            core::arch::asm!(
                "adrp {value}, :gottprel:spanmalloc_mcache_slot",
                "ldr {value}, [{value}, :gottprel_lo12:spanmalloc_mcache_slot]",
                "mrs {thread}, tpidr_el0",
                "ldr {value}, [{thread}, {value}]",
                value = out(reg) value,
                thread = out(reg) _,
                options(nostack, preserves_flags, readonly),
            );
        }
        value
    }

    #[cfg(target_arch = "aarch64")]
    pub(super) fn set(value: *mut u8) {
        // SAFETY: writes the calling thread's own word.
        unsafe {
            core::arch::asm!(
                "adrp {offset}, :gottprel:spanmalloc_mcache_slot",
                "ldr {offset}, [{offset}, :gottprel_lo12:spanmalloc_mcache_slot]",
                "mrs {thread}, tpidr_el0",
                "str {value}, [{thread}, {offset}]",
                offset = out(reg) _,
                thread = out(reg) _,
                value = in(reg) value,
                options(nostack, preserves_flags),
            );
        }
    }
}

#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
mod word {
    use super::EMPTY;
    use core::cell::Cell;

    std::thread_local! {
        static SLOT: Cell<*mut u8> = const { Cell::new((&raw const EMPTY).cast_mut().cast()) };
    }

    pub(super) fn get() -> *mut u8 {
        SLOT.with(Cell::get)
    }

    pub(super) fn set(value: *mut u8) {
        SLOT.with(|slot| slot.set(value));
    }

    pub(super) fn address() -> *mut *mut u8 {
        SLOT.with(Cell::as_ptr)
    }
}

/// This thread's word: the address of its mcache, or of a sentinel.
#[inline(always)] // Part of the fast path.
pub(crate) fn thread_slot() -> NonNull<u8> {
    // SAFETY: the word starts as the address of a static and `set_thread_slot` takes no null.
    unsafe { NonNull::new_unchecked(word::get()) }
}

/// Sets this thread's word.
pub(crate) fn set_thread_slot(value: NonNull<u8>) {
    word::set(value.as_ptr());
}

/// The place of a thread's word, for other threads.
#[derive(Clone, Copy)]
pub(crate) struct SlotOfThread(NonNull<AtomicPtr<u8>>);

impl SlotOfThread {
    /// The calling thread's.
    pub(crate) fn here() -> Option<Self> {
        // The word is a pointer, aligned as one; an atomic one is the same.
        NonNull::new(word::address().cast()).map(Self)
    }

    /// Where it is: in the thread-local memory of its thread.
    #[cfg(feature = "preload")]
    pub(super) fn address(self) -> usize {
        self.0.addr().get()
    }

    /// Changes the word from `old` to `new`; false if it was not `old`.
    ///
    /// # Safety
    /// The thread has not ended.
    pub(crate) unsafe fn replace(self, old: NonNull<u8>, new: NonNull<u8>) -> bool {
        // SAFETY: the caller's promise: the thread's memory is there. The thread itself reads and writes
        // the word by single instructions. Relaxed: the barriers are the caller's.
        let word = unsafe { self.0.as_ref() };
        word.compare_exchange(old.as_ptr(), new.as_ptr(), Relaxed, Relaxed)
            .is_ok()
    }
}
