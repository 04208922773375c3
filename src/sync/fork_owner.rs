//! The thread that holds all locks, around a `fork`.
//!
//! Other libraries' handlers run between ours, with all locks held, if they were registered before: in
//! the same thread, or in its copy in the child. They may allocate. So that thread passes every lock
//! until it gives them back; nobody else can have one.

use super::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sys;

/// The thread, or zero. **Written by who holds all locks, read by anyone; atomic.**
static OWNER: AtomicUsize = AtomicUsize::new(0);

/// The calling thread holds all locks from here on.
pub(crate) fn set_here() {
    // Relaxed: only the thread itself has to see it.
    OWNER.store(sys::thread_id(), Relaxed);
}

/// It is about to give them back.
pub(crate) fn clear() {
    OWNER.store(0, Relaxed);
}

/// Whether the calling thread holds all locks.
#[cold]
pub(crate) fn is_here() -> bool {
    let owner = OWNER.load(Relaxed);
    owner != 0 && owner == sys::thread_id()
}
