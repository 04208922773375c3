//! What threads and signal handlers want of a thread that may sleep, and of which one has the turn to do it.
//!
//! Who asks notes that first ([`Request::make`]), and then wakes the sleeper ([`wake`]). The sleeper first says
//! that it sleeps, and then looks whether it was asked for something ([`falls_asleep`]). All four steps are
//! `SeqCst`: they have one order, so that one of the two sees the other (Dekker's argument). The model checker
//! takes them for weaker ones. There each side has a fence of its own, which orders the same steps.
//!
//! All of it may be done in signal handlers.

use super::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};
use super::const_unless_loom;

/// The sleeper works.
pub(crate) const AWAKE: u32 = 1;
/// The sleeper waits for a change of its state, or is about to.
pub(crate) const ASLEEP: u32 = 2;

/// Something that is asked for, once or several times before it is done. **Any thread; atomic.**
pub(crate) struct Request(AtomicBool);

impl Request {
    const_unless_loom! {
        /// Nothing is asked for.
        pub(crate) fn none() -> Self {
            Self(AtomicBool::new(false))
        }
    }

    /// Asks for it. [`wake`] comes next.
    pub(crate) fn make(&self) {
        // A swap, so that the checker gives it its place among those of `take`.
        self.0.swap(true, SeqCst);
        fence_of_checker();
    }

    /// Whether it is asked for, and not done yet.
    pub(crate) fn is_made(&self) -> bool {
        self.0.load(SeqCst)
    }

    /// Whether it is asked for; who is told so does it. What was written before [`Self::make`] is visible.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, SeqCst)
    }
}

fn fence_of_checker() {
    #[cfg(loom)]
    super::atomic::fence(SeqCst);
}

/// Lets the sleeper with this state go on, which is a futex: the caller wakes it then.
pub(crate) fn wake(state: &AtomicU32) {
    let _ = state.compare_exchange(ASLEEP, AWAKE, SeqCst, SeqCst);
}

/// Says that the sleeper sleeps. Whether it may: nothing is asked for. `None` if it was not awake, so that its
/// state is another one's.
pub(crate) fn falls_asleep(state: &AtomicU32, is_asked: impl FnOnce() -> bool) -> Option<bool> {
    let is_awake = state
        .compare_exchange(AWAKE, ASLEEP, SeqCst, SeqCst)
        .is_ok();
    is_awake.then(|| {
        fence_of_checker();
        !is_asked()
    })
}

/// The sleeper works from here on. Whether it was woken.
pub(crate) fn wakes_up(state: &AtomicU32) -> bool {
    state.swap(AWAKE, Relaxed) == AWAKE
}

/// A lock that nobody waits for in the kernel: a signal handler may have it, and it may be asked for at the end of
/// the process. **Any thread; atomic.**
pub(crate) struct Turn(AtomicBool);

impl Turn {
    const_unless_loom! {
        /// Nobody has it.
        pub(crate) fn free() -> Self {
            Self(AtomicBool::new(false))
        }
    }

    /// Takes it, if nobody has it.
    pub(crate) fn try_take(&self) -> bool {
        // Acquire pairs with the Release in `give`: what the one before did is visible.
        self.0
            .compare_exchange(false, true, Acquire, Relaxed)
            .is_ok()
    }

    /// Gives it back.
    pub(crate) fn give(&self) {
        self.0.store(false, Release);
    }
}
