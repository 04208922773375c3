//! The process: what it is linked with, and streams of C.

#![allow(unsafe_code)]

use core::ffi::c_void;
use core::fmt;

use super::linux::KeepErrno;

/// Whether the program's `malloc` is that of this library: it was preloaded, or is part of the program.
fn is_the_programs() -> bool {
    let (start, end, malloc): (usize, usize, usize);
    // SAFETY: takes two addresses that the linker defines, of the first and behind the last byte of
    // this library, and reads an entry of its global offset table.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!(
            ".hidden __ehdr_start",
            ".hidden _end",
            "lea {start}, [rip + __ehdr_start]",
            "lea {end}, [rip + _end]",
            "mov {malloc}, qword ptr [rip + malloc@GOTPCREL]",
            start = out(reg) start,
            end = out(reg) end,
            malloc = out(reg) malloc,
            options(nostack, preserves_flags, pure, readonly),
        );
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!(
            ".hidden __ehdr_start",
            ".hidden _end",
            "adrp {start}, __ehdr_start",
            "add {start}, {start}, :lo12:__ehdr_start",
            "adrp {end}, _end",
            "add {end}, {end}, :lo12:_end",
            "adrp {malloc}, :got:malloc",
            "ldr {malloc}, [{malloc}, :got_lo12:malloc]",
            start = out(reg) start,
            end = out(reg) end,
            malloc = out(reg) malloc,
            options(nostack, preserves_flags, pure, readonly),
        );
    }
    (start..end).contains(&malloc)
}

/// Keeps the library that has `within` loaded until the process ends: threads and handlers of `fork` call
/// its functions. Only one that was opened late can be closed at all, and only then it costs anything.
pub(crate) fn stay_loaded<T>(within: &T) {
    if is_the_programs() {
        return;
    }
    let _errno = KeepErrno::new();
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: an all-zero `Dl_info` is valid, and valid for writes; the name, if there is one, is a
    // string that lives as long as the library.
    unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        let address = core::ptr::from_ref(within).cast();
        if libc::dladdr(address, &mut info) != 0 && !info.dli_fname.is_null() {
            libc::dlopen(info.dli_fname, flags);
        }
    }
}

/// A stream of C's standard library.
pub(crate) struct Stream(*mut libc::FILE);

impl Stream {
    /// # Safety
    /// `stream` is a `FILE *` that is open for writing, for as long as the result is used.
    pub(crate) unsafe fn new(stream: *mut c_void) -> Self {
        Self(stream.cast())
    }
}

impl fmt::Write for Stream {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the promise of `new`; `text` is valid for reads of its length.
        let written = unsafe { libc::fwrite(text.as_ptr().cast(), 1, text.len(), self.0) };
        if written == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}
