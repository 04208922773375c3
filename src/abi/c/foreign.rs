//! Pointers that are not from this heap.
//!
//! A program under a preloaded library can hand over memory of another allocator without a fault of
//! its own: from a library that was opened with `RTLD_DEEPBIND`, from one with an allocator inside,
//! from before this library was there. Ending the process would help nobody, so the first such
//! pointer is reported and all are left alone. `SPANMALLOC_FOREIGN=abort` makes it fatal.

use core::fmt::Write;

use crate::base::fatal::{Crime, fatal};
use crate::base::line::Line;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether a foreign pointer ends the process. **Any thread; atomic.** Set once, at the start.
static FATAL: AtomicBool = AtomicBool::new(false);
/// Whether one was reported. **Any thread; atomic.**
static REPORTED: AtomicBool = AtomicBool::new(false);

/// From here on a foreign pointer ends the process.
pub(super) fn set_fatal() {
    // Relaxed, here and below: the flags publish nothing but themselves.
    FATAL.store(true, Relaxed);
}

/// Reports that a function got a foreign pointer, unless one was reported before.
#[cold]
pub(super) fn report(function: &str, address: usize) {
    if FATAL.load(Relaxed) {
        fatal(Crime::ForeignPointer, address);
    }
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
