//! Pointers that are not from this heap.
//!
//! What no allocator can have handed out is a crime: an address on the stack of the calling thread, in the
//! program's or a library's static data, or one that is not a multiple of 8.
//!
//! Anything else may be another allocator's. A program under a preloaded library can hand over such memory
//! without a fault of its own: from a library that was opened with `RTLD_DEEPBIND`, from one with an allocator
//! inside, from before this library was there. Ending the process would help nobody, so the first such
//! pointer is reported and all are left alone. `SPANMALLOC_FOREIGN=abort` makes it fatal.

use core::fmt::Write;

use crate::base::fatal::{Crime, fatal_in};
use crate::base::line::Line;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::{config, sys};

/// Whether one was reported. **Any thread; atomic.**
static REPORTED: AtomicBool = AtomicBool::new(false);

/// What every pointer of an allocator is a multiple of.
const ALIGN_MIN: usize = 8;

/// Reports that a function got a foreign pointer, unless one was reported before; aborts if it can't be
/// another allocator's.
#[cold]
pub(super) fn report(function: &str, address: usize) {
    if config::is_foreign_fatal()
        || !address.is_multiple_of(ALIGN_MIN)
        || sys::is_stack_or_static(address)
    {
        fatal_in(function, Crime::ForeignPointer, address);
    }
    // Relaxed: the flag publishes nothing but itself.
    if REPORTED.swap(true, Relaxed) {
        return;
    }
    let mut line = Line::new();
    let _ = writeln!(
        line,
        "{function} of a pointer that is not from this heap: {address:#x}; it is left alone, and so are all others"
    );
    line.print();
}
