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
    #[cfg_attr(not(any(feature = "secure", feature = "guarded")), allow(dead_code))]
    WrongSize,
    /// Bytes behind an object were written: its canary is dead.
    #[cfg_attr(not(feature = "secure"), allow(dead_code))]
    Overflow,
    /// An object was written after it was freed.
    #[cfg_attr(not(feature = "secure"), allow(dead_code))]
    WriteAfterFree,
}

impl Crime {
    /// What is said of it.
    pub(crate) fn line(self, operation: &str, address: usize) -> Line {
        let mut line = Line::new();
        let _ = writeln!(line, "{operation} {} {address:#x}", self.sentence());
        line
    }

    /// What it was committed by, if nothing else is known.
    pub(crate) const fn operation(self) -> &'static str {
        match self {
            Self::DoubleFree => "double free",
            Self::Overflow => "overflow:",
            Self::WriteAfterFree => "write after free",
            _ => "free",
        }
    }

    /// What follows the name of the operation.
    const fn sentence(self) -> &'static str {
        match self {
            Self::DoubleFree => "of",
            Self::ForeignPointer => "of a pointer that is not from this heap:",
            Self::FreeMemory => "of memory that is free already:",
            Self::InteriorPointer => "of a pointer into the middle of an object:",
            Self::WrongSize => "with a wrong size or alignment:",
            Self::WrongLayout => "with a Layout of another size class:",
            Self::Overflow => "bytes were written behind the object at",
            Self::WriteAfterFree => "to the object at",
        }
    }
}

/// Reports `crime` at `address` on standard error and aborts. It was committed by a free, or found by one. If the
/// stack of the object's allocation is known, of the heap profile's sample or of a guarded object, it comes in more
/// lines, which begin with four spaces.
#[cold]
#[inline(never)]
pub(crate) fn fatal(crime: Crime, address: usize) -> ! {
    fatal_in(crime.operation(), crime, address)
}

/// [`fatal`] of another operation, as `realloc`.
#[cold]
#[inline(never)]
pub(crate) fn fatal_in(operation: &str, crime: Crime, address: usize) -> ! {
    crime.line(operation, address).print();
    #[cfg(all(feature = "profile", not(loom)))]
    crate::profile::tell_of(address);
    #[cfg(all(feature = "guarded", not(loom)))]
    crate::guarded::tell_of(address);
    sys::abort()
}
