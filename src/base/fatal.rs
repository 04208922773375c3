//! The end of the process: one function, a different sentence for every crime.
//!
//! A broken rule of the caller (a double free, a pointer that is not ours) can't be reported by
//! return value, and going on would corrupt memory. The sentence names the crime and the address,
//! and is written from a stack buffer, since nothing here may allocate.

use core::fmt::Write;

use super::line::Line;
use crate::sys;

/// What a caller did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crime {
    /// An object was freed that is free already.
    DoubleFree,
    /// The address is outside the heap: the stack, a static, another allocator.
    ForeignPointer,
    /// The address is in the heap, but no live span has it: its memory was freed before.
    FreeMemory,
    /// The address lies inside an object, not at its start.
    InteriorPointer,
    /// The object was freed with a Layout of another size class than it was allocated with.
    WrongLayout,
    /// The object was freed with a size or alignment that it can't have had.
    #[cfg_attr(not(feature = "preload"), allow(dead_code))]
    WrongSize,
}

impl Crime {
    /// What follows the name of the operation.
    const fn sentence(self) -> &'static str {
        match self {
            Self::DoubleFree => "of",
            Self::ForeignPointer => "of a pointer that is not from this heap:",
            Self::FreeMemory => "of memory that is free already:",
            Self::InteriorPointer => "of a pointer into the middle of an object:",
            Self::WrongSize => "with a wrong size or alignment:",
            Self::WrongLayout => "with a Layout of another size class:",
        }
    }
}

/// Reports `crime` at `address` on standard error and aborts. It was committed by a free.
#[cold]
#[inline(never)]
pub(crate) fn fatal(crime: Crime, address: usize) -> ! {
    let operation = match crime {
        Crime::DoubleFree => "double free",
        _ => "free",
    };
    fatal_in(operation, crime, address)
}

/// [`fatal`] of another operation, as `realloc`.
#[cold]
#[inline(never)]
pub(crate) fn fatal_in(operation: &str, crime: Crime, address: usize) -> ! {
    let mut line = Line::new();
    let _ = writeln!(line, "{operation} {} {address:#x}", crime.sentence());
    line.print();
    sys::abort()
}
