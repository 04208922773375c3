//! The stack of a sampled allocation, and those of reports of misuse.
//!
//! By frame pointers: each frame holds the address of the one that called it, and the return address behind
//! that. Code that keeps none has any value there, so nothing is read before it is known to be readable, and
//! frames must follow each other upwards. A chain may be plausible and yet pass over functions. Where that
//! matters (a profile was asked for), a chain that was not seen before is compared with what the unwinder of
//! the compiler's runtime says, and if they differ, chains like it are not used. No lock of the allocator is
//! held meanwhile. The unwinder does not allocate; it is used with glibc alone, whose loader it asks
//! without a lock.

#![allow(unsafe_code)]

use core::ffi::c_void;

use super::snapshot::{FRAMES_MAX, StackKind};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sys;
use crate::sys::caller::Caller;

/// How stacks are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stacks {
    /// By frame pointers alone.
    FramePointers,
    /// By frame pointers where they agree with the unwinder.
    Verified,
}

/// A stack, the innermost return address first. Zero bytes are valid: no frames.
#[derive(Clone, Copy)]
pub(crate) struct Stack {
    frames: [usize; FRAMES_MAX],
    len: usize,
    pub(super) kind: StackKind,
}

/// A frame may be this far from the one that it called, in bytes: 4 MiB, since functions with larger ones
/// hardly exist.
const FRAME_BYTES_MAX: usize = 4 << 20;
/// Frames and the stack pointer at calls have this alignment on both architectures.
const FRAME_ALIGN: usize = 16;
/// Frames below `main`, which keep no frame pointers.
const START_FRAMES: usize = 3;
/// Addresses that a program can have code at.
const CODE: core::ops::Range<usize> = 4096..1 << 48;

impl Stack {
    fn from(return_address: usize) -> Self {
        let mut stack = Self {
            frames: [0; FRAMES_MAX],
            len: 0,
            kind: StackKind::Incomplete,
        };
        stack.push(return_address);
        stack
    }

    /// False if there is no room.
    fn push(&mut self, return_address: usize) -> bool {
        let Some(place) = self.frames.get_mut(self.len) else {
            self.kind = StackKind::TooDeep;
            return false;
        };
        *place = return_address;
        self.len += 1;
        true
    }

    pub(crate) fn frames(&self) -> &[usize] {
        self.frames.get(..self.len).unwrap_or_default()
    }

    /// A hash of the frames (FNV-1a by words), and more.
    pub(super) fn hash(&self) -> u64 {
        let step = |hash: u64, word: &usize| {
            (hash ^ *word as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
        };
        self.frames().iter().fold(0xcbf2_9ce4_8422_2325, step)
    }
}

/// The stack of a call into the allocator. Never inlined, so that the unwinder sees a frame of this function.
#[inline(never)]
pub(crate) fn capture(caller: Caller, how: Stacks) -> Stack {
    let here = (&raw const caller).addr();
    let chain = by_frame_pointers(caller, here);
    if how == Stacks::FramePointers || !unwinder::EXISTS {
        return chain;
    }
    let hash = chain.hash();
    match trusted(hash) {
        Some(true) => return chain,
        Some(false) => {}
        None => {
            let unwound = unwinder::unwind(caller);
            // What the unwinder could not go beyond does not speak against the chain, nor does the C
            // library's code before `main`.
            let agrees = unwound.len > 1 && chain.frames().starts_with(unwound.frames())
                || unwound.frames().starts_with(chain.frames())
                    && unwound.len <= chain.len + START_FRAMES;
            trust(hash, agrees);
            return if agrees { chain } else { unwound };
        }
    }
    unwinder::unwind(caller)
}

/// The stack of code that a signal has interrupted, whose first frame is the interrupted instruction.
/// `stack_pointer` is the one there.
#[cfg(feature = "guarded")]
#[inline(never)]
pub(crate) fn interrupted(caller: Caller, stack_pointer: usize, how: Stacks) -> Stack {
    let chain = by_frame_pointers(caller, stack_pointer.wrapping_sub(1));
    if how == Stacks::FramePointers || !unwinder::EXISTS {
        return chain;
    }
    let unwound = unwinder::unwind(caller);
    if unwound.len > 1 { unwound } else { chain }
}

/// The chain of frames, which lie above an address.
fn by_frame_pointers(caller: Caller, mut below: usize) -> Stack {
    let mut stack = Stack::from(caller.return_address);
    let mut readable = Readable(0);
    let mut frame = caller.frame;
    while frame > below && frame - below <= FRAME_BYTES_MAX && frame.is_multiple_of(FRAME_ALIGN) {
        let Some((next, return_address)) = readable.frame(frame) else {
            break;
        };
        if !CODE.contains(&return_address) {
            break;
        }
        if !stack.push(return_address) {
            return stack;
        }
        (below, frame) = (frame, next);
    }
    if stack.len > 2 {
        stack.kind = StackKind::FramePointers;
    }
    stack
}

/// The page that was found readable last, at its first address.
struct Readable(usize);

impl Readable {
    /// The frame that called, and the return address, which a frame begins with. `None` if they cannot be
    /// read.
    fn frame(&mut self, frame: usize) -> Option<(usize, usize)> {
        // Aligned to its size, so it is in one page.
        let page = frame & !(sys::page_bytes() - 1);
        if page != self.0 && !sys::is_readable(page) {
            return None;
        }
        self.0 = page;
        let words = core::ptr::with_exposed_provenance::<[usize; 2]>(frame);
        // SAFETY: the page is readable: it is one of this thread's stack, above the frames of the running
        // functions, or of something else that the thread could not unmap meanwhile. Another thread that
        // unmaps it between the two calls would pull a page from under a pointer that looks like a stack's.
        // Volatile: nobody's variable.
        let [next, return_address] = unsafe { words.read_volatile() };
        Some((next, return_address))
    }
}

/// Chains by hash: whether the unwinder agreed. **Any thread; atomic**, a cache: a word holds the hash, its
/// lowest bit the answer.
static TRUST: [AtomicU64; TRUST_LEN] = [const { AtomicU64::new(0) }; TRUST_LEN];
const TRUST_LEN: usize = 1024;

fn trust_of(hash: u64) -> &'static AtomicU64 {
    &TRUST[(hash >> 32) as usize % TRUST_LEN]
}

fn trusted(hash: u64) -> Option<bool> {
    let word = trust_of(hash).load(Relaxed);
    (word >> 1 == hash >> 1).then_some(word & 1 == 1)
}

fn trust(hash: u64, agrees: bool) {
    trust_of(hash).store(hash & !1 | u64::from(agrees), Relaxed);
}

#[cfg(target_env = "gnu")]
mod unwinder {
    use super::{Caller, Stack, StackKind, c_void};

    pub(super) const EXISTS: bool = true;

    /// What the runtime says goes on (`_URC_NO_REASON`) or ends (`_URC_END_OF_STACK`).
    const GO_ON: i32 = 0;
    const END: i32 = 5;

    // Of the compiler's runtime (Itanium C++ ABI: Exception Handling, 1.6), which std links.
    unsafe extern "C" {
        fn _Unwind_Backtrace(
            each: extern "C" fn(*mut c_void, *mut c_void) -> i32,
            argument: *mut c_void,
        ) -> i32;
        fn _Unwind_GetIP(context: *mut c_void) -> usize;
    }

    struct Walk {
        stack: Stack,
        /// Frames before it are the allocator's own.
        first: usize,
        has_begun: bool,
    }

    pub(super) fn unwind(caller: Caller) -> Stack {
        let mut walk = Walk {
            stack: Stack::from(caller.return_address),
            first: caller.return_address,
            has_begun: false,
        };
        // SAFETY: `each` gets the context and this argument, which is valid during the call.
        unsafe { _Unwind_Backtrace(each, (&raw mut walk).cast()) };
        if walk.stack.len > 1 && walk.stack.kind != StackKind::TooDeep {
            walk.stack.kind = StackKind::Unwound;
        }
        walk.stack
    }

    extern "C" fn each(context: *mut c_void, walk: *mut c_void) -> i32 {
        // SAFETY: the argument that `unwind` gave, which nobody else uses.
        let walk = unsafe { &mut *walk.cast::<Walk>() };
        // SAFETY: the context of this callback.
        let address = unsafe { _Unwind_GetIP(context) };
        if !walk.has_begun {
            walk.has_begun = address == walk.first;
            return GO_ON;
        }
        if address == 0 || !walk.stack.push(address) {
            return END;
        }
        GO_ON
    }
}

#[cfg(not(target_env = "gnu"))]
mod unwinder {
    use super::{Caller, Stack};

    /// Musl's loader holds a lock while it allocates, for which the unwinder would wait.
    pub(super) const EXISTS: bool = false;

    pub(super) fn unwind(caller: Caller) -> Stack {
        Stack::from(caller.return_address)
    }
}
