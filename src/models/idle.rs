//! The mcaches of idle threads, which others empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as GhostUsize, Ordering::SeqCst};

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed, fence};
use loom::thread;

use super::check;
use crate::sync::Mutex;
use crate::sync::busy::Busy;

/// What a slot has: this thread's mcache, or nothing.
const OWN: usize = 1;
const EMPTY: usize = 0;

/// A thread's slot and mcache, and how often the mcache was used.
struct Attached {
    slot: AtomicUsize,
    busy: Busy,
    registry: Mutex<()>,
    uses: UnsafeCell<usize>,
}

// SAFETY: `uses` is reached by the thread that is busy with it, or by who has taken it away: what the model checks.
unsafe impl Sync for Attached {}
// SAFETY: as above.
unsafe impl Send for Attached {}

impl Attached {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            slot: AtomicUsize::new(OWN),
            busy: Busy::new(),
            registry: Mutex::new(()),
            uses: UnsafeCell::new(0),
        })
    }

    fn touch(&self) {
        // SAFETY: the caller is the only one to do this at a time; the checker would say if not.
        self.uses.with_mut(|uses| unsafe { *uses += 1 });
    }

    /// A slow call of the owner, as `runtime::mcache` has it.
    fn call(&self) {
        loop {
            if self.slot.load(Relaxed) == EMPTY {
                let _registry = self.registry.lock();
                self.slot.store(OWN, Relaxed);
                continue;
            }
            self.busy.enter();
            let has_it = self.slot.load(Relaxed) == OWN;
            if has_it {
                self.touch();
            }
            self.busy.leave();
            if has_it {
                return;
            }
        }
    }

    /// As `runtime::idle` empties an mcache; whether it did.
    fn empty(&self) -> bool {
        let _registry = self.registry.lock();
        let is_taken = self
            .slot
            .compare_exchange(OWN, EMPTY, Relaxed, Relaxed)
            .is_ok();
        // The barrier in all threads; the owner's half is in `Busy::enter`.
        fence(loom::sync::atomic::Ordering::SeqCst);
        let is_free = is_taken && !self.busy.is_now();
        if is_free {
            self.touch();
        }
        is_free
    }
}

#[test]
fn an_mcache_is_never_emptied_in_the_middle_of_a_call_of_its_owner() {
    let emptied = Arc::new(GhostUsize::new(0));
    let left_alone = Arc::new(GhostUsize::new(0));
    let (of_model, of_others) = (Arc::clone(&emptied), Arc::clone(&left_alone));
    check(move || {
        let attached = Attached::new();
        let owner = {
            let attached = Arc::clone(&attached);
            thread::spawn(move || (0..2).for_each(|_| attached.call()))
        };
        let was_emptied = attached.empty();
        owner.join().unwrap();
        // SAFETY: the owner has ended.
        let uses = attached.uses.with(|uses| unsafe { *uses });
        assert_eq!(uses, 2 + usize::from(was_emptied));
        let count = if was_emptied { &of_model } else { &of_others };
        count.fetch_add(1, SeqCst);
    });
    assert!(emptied.load(SeqCst) > 0 && left_alone.load(SeqCst) > 0);
}
