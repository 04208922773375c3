//! The end of the process: one function, a different sentence for every crime.
//!
//! A broken rule of the caller (a double free, a pointer that is not ours) can't be reported by
//! return value, and going on would corrupt memory. The sentence names the crime and the address,
//! and is written from a stack buffer, since nothing here may allocate.

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
}

impl Crime {
    const fn sentence(self) -> &'static str {
        match self {
            Self::DoubleFree => "double free of 0x",
            Self::ForeignPointer => "free of a pointer that is not from this heap: 0x",
            Self::FreeMemory => "free of memory that is free already: 0x",
            Self::InteriorPointer => "free of a pointer into the middle of an object: 0x",
            Self::WrongLayout => "free with a Layout of another size class: 0x",
        }
    }
}

/// Bytes of the longest message: prefix, sentence, 16 digits, newline.
const MESSAGE_BYTES: usize = 128;

/// Reports `crime` at `address` on standard error and aborts.
#[cold]
#[inline(never)]
pub(crate) fn fatal(crime: Crime, address: usize) -> ! {
    let mut message = [0; MESSAGE_BYTES];
    let mut len = 0;
    let mut put = |byte: u8| {
        if let Some(slot) = message.get_mut(len) {
            *slot = byte;
            len += 1;
        }
    };
    "spanmalloc: ".bytes().for_each(&mut put);
    crime.sentence().bytes().for_each(&mut put);
    let digits = (address.max(1).ilog2() / 4) + 1;
    for digit in (0..digits).rev() {
        put(b"0123456789abcdef"[(address >> (digit * 4)) & 15]);
    }
    put(b'\n');
    sys::write_stderr(message.get(..len).unwrap_or_default());
    sys::abort()
}
