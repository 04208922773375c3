//! Pointers that are not from this heap.
//!
//! A program under a preloaded library can hand over memory of another allocator without a fault of
//! its own: from a library that was opened with `RTLD_DEEPBIND`, from one with an allocator inside,
//! from before this library was there. Ending the process would help nobody, so the first such
//! pointer is reported and all are left alone. `SPANMALLOC_FOREIGN=abort` makes it fatal.

use core::fmt::Write;

use crate::base::fatal::{Crime, fatal};
use crate::base::line::Line;
use crate::config;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether one was reported. **Any thread; atomic.**
static REPORTED: AtomicBool = AtomicBool::new(false);

/// Reports that a function got a foreign pointer, unless one was reported before.
#[cold]
pub(super) fn report(function: &str, address: usize) {
    if config::is_foreign_fatal() {
        fatal(Crime::ForeignPointer, address);
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
