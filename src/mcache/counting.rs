//! Counting calls: what an mcache does on each of them, if they are counted.

use super::{MCache, SizeClass};
use crate::counters::{Counter, calls};

/// Changes of a thread's live bytes that it keeps to itself, at most.
const UNTOLD_BYTES: i64 = 32 << 10;

impl MCache {
    #[cold]
    pub(crate) fn count_allocated(&self, class: SizeClass) {
        let counter = &self.counters.allocated[class.index()];
        self.count(counter, class.object_bytes() as i64);
    }

    #[cold]
    pub(crate) fn count_freed(&self, class: SizeClass) {
        let counter = &self.counters.freed[class.index()];
        self.count(counter, -(class.object_bytes() as i64));
    }

    /// Counts a call, and the bytes by which it changed what is live.
    fn count(&self, counter: &Counter, bytes: i64) {
        counter.add(1);
        let untold = self.live_untold.get() + bytes;
        if untold.abs() < UNTOLD_BYTES {
            self.live_untold.set(untold);
        } else {
            self.live_untold.set(0);
            calls::live_changed(untold);
        }
    }
}
