//! Whether a thread is in the middle of something, told without a barrier on its side.
//!
//! A thread says that it is busy, and then looks whether it still has what it works on. Who takes that away first
//! does so, then has all threads pass a barrier ([`barrier_in_all_threads`]), and then asks. So one of the two sees
//! the other (Dekker's argument): the thread finds that it was taken away, or is found busy. The barrier stands
//! between two steps of the thread as well, wherever it comes, so that the thread needs only a compiler fence.
//!
//! The model checker knows no barrier in other threads. There each side has a fence of its own, which orders the
//! same steps.
//!
//! [`barrier_in_all_threads`]: crate::sys::barrier_in_all_threads

use super::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};

/// A flag that its thread sets, and others read.
pub(crate) struct Busy(AtomicBool);

impl Busy {
    /// Not busy. All-zero bytes are the same.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The thread is busy from here on, and looks afterwards whether it has what it works on.
    #[inline]
    pub(crate) fn enter(&self) {
        self.0.store(true, Relaxed);
        #[cfg(not(loom))]
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
        #[cfg(loom)]
        loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
    }

    /// The thread is not busy any more.
    #[inline]
    pub(crate) fn leave(&self) {
        // Release pairs with the Acquire in `is_now`: what the thread did is visible.
        self.0.store(false, Release);
    }

    /// Whether the thread is busy, for who has taken away what it works on, and passed the barrier.
    pub(crate) fn is_now(&self) -> bool {
        self.0.load(Acquire)
    }
}
