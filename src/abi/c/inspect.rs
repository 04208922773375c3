//! Functions that tell about the heap, and those that tune glibc's.

use core::ffi::{c_int, c_void};
use core::fmt::{self, Write};

use crate::stats::{Stats, stats};
use crate::{scavenge, sys};

/// `struct mallinfo2` of glibc.
#[repr(C)]
struct MallInfo2 {
    /// Bytes of arenas that the system has given and not got back.
    arena: usize,
    /// Free slots of spans.
    ordblks: usize,
    /// Free objects in magazines and depots.
    smblks: usize,
    /// Objects with mappings of their own.
    hblks: usize,
    /// Bytes of them.
    hblkhd: usize,
    usmblks: usize,
    /// Bytes of free objects in magazines and depots.
    fsmblks: usize,
    /// Bytes in arenas that the program has.
    uordblks: usize,
    /// Bytes in arenas that it has not.
    fordblks: usize,
    /// Bytes that `malloc_trim` could give back at least.
    keepcost: usize,
}

impl MallInfo2 {
    fn new(stats: &Stats) -> Self {
        let free = stats.free_objects();
        let uordblks = stats.small_live_bytes + stats.large_live_bytes;
        let arena = stats.system_bytes();
        Self {
            arena,
            ordblks: free.slots,
            smblks: free.cached,
            hblks: stats.huge_live_objects,
            hblkhd: stats.huge_live_bytes,
            usmblks: 0,
            fsmblks: free.cached_bytes,
            uordblks,
            fordblks: arena.saturating_sub(uordblks),
            keepcost: stats.dirty_bytes + stats.cached_bytes,
        }
    }
}

/// `struct mallinfo` of SVID: as [`MallInfo2`], in numbers that large heaps do not fit.
#[repr(C)]
struct MallInfo([c_int; 10]);

/// `mallinfo2` (glibc).
#[unsafe(no_mangle)]
extern "C-unwind" fn mallinfo2() -> MallInfo2 {
    MallInfo2::new(&stats())
}

/// `mallinfo` (SVID): what does not fit is `INT_MAX`.
#[unsafe(no_mangle)]
extern "C-unwind" fn mallinfo() -> MallInfo {
    let info = mallinfo2();
    let fields = [
        info.arena,
        info.ordblks,
        info.smblks,
        info.hblks,
        info.hblkhd,
        info.usmblks,
        info.fsmblks,
        info.uordblks,
        info.fordblks,
        info.keepcost,
    ];
    MallInfo(fields.map(|field| c_int::try_from(field).unwrap_or(c_int::MAX)))
}

/// `malloc_trim` (glibc): 1 if memory went back to the system. All goes that can, whatever `pad`.
#[unsafe(no_mangle)]
extern "C-unwind" fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(scavenge::trim() > 0)
}

/// `malloc_stats` (glibc): the statistics, on standard error.
#[unsafe(no_mangle)]
extern "C-unwind" fn malloc_stats() {
    let stats = stats();
    let _ = write!(sys::Output::stderr(), "{stats}");
}

/// `malloc_info` (glibc): the statistics in glibc's XML to a stream of C. `options` must be zero.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn malloc_info(options: c_int, stream: *mut c_void) -> c_int {
    if options != 0 {
        sys::set_errno(libc::EINVAL);
        return -1;
    }
    let stats = stats();
    // SAFETY: the caller's stream is open for writing.
    let mut stream = unsafe { sys::Stream::new(stream) };
    match write!(stream, "{}", stats.malloc_info()) {
        Ok(()) => 0,
        Err(fmt::Error) => -1,
    }
}

/// `mallopt` (SVID): zero, as none of glibc's parameters has a meaning here.
#[unsafe(no_mangle)]
extern "C-unwind" fn mallopt(_parameter: c_int, _value: c_int) -> c_int {
    0
}
