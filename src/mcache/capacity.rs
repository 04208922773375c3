//! How many objects each magazine may hold, and how that is paid for.

use super::{MCache, budget};
use crate::base::size_class::{MAGAZINE_BYTES, MAGAZINE_MAX, MAGAZINES, SizeClass};
use crate::{mcentral, tiny};

/// Objects that a magazine may hold when its class comes into use, and of large ones as many as are
/// [`MAGAZINE_BYTES`], but [`LEAST_AT_FIRST`]. They are not paid for, and 1,000 threads may have them all.
const CAPACITY_AT_FIRST: usize = 8;
const LEAST_AT_FIRST: usize = 4;
/// Slow calls of one kind in a row that are no chance: a walk at random would have turned.
const CALLS_OF_A_TREND: u8 = 3;
/// For so many of one kind in a row a magazine doubles while spans are sparse.
const CALLS_A_DOUBLING: u8 = 6;

/// What a slow call does. Zero bytes are valid.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Slow {
    #[default]
    Refill,
    Flush,
}

/// The last slow calls of a class. Zero bytes are valid.
#[derive(Clone, Copy, Default)]
pub(super) struct SlowCalls {
    kind: Slow,
    /// How many of that kind came one after the other.
    in_a_row: u8,
}

impl SlowCalls {
    fn and(self, kind: Slow) -> Self {
        let before = if self.kind == kind { self.in_a_row } else { 0 };
        let in_a_row = before.saturating_add(1);
        Self { kind, in_a_row }
    }

    /// Whether the thread only frees, or only allocates.
    pub(super) fn are_a_trend(self) -> bool {
        self.in_a_row >= CALLS_OF_A_TREND
    }
}

impl MCache {
    /// Most objects that the magazine of a class may hold from this slow call on, with spans of the shard `here`.
    ///
    /// A thread that frees and allocates in turns gets back what it has just freed, wherever that
    /// lies; the larger its magazine, the less comes by the spans, where a slot of a full span would
    /// take its place. So where the spans are sparse, magazines are small, but for threads whose slow
    /// calls are of one kind, which fill or empty the heap.
    pub(super) fn capacity_for(&self, class: SizeClass, kind: Slow, here: usize) -> usize {
        let calls = self.last[class.index()].get().and(kind);
        self.last[class.index()].set(calls);
        let most = class.magazine_max();
        if !mcentral::is_sparse(class, here) {
            return most;
        }
        // With capacity, a walk at random between empty and full takes its square to turn.
        let doublings = (calls.in_a_row / CALLS_A_DOUBLING).min(MAGAZINE_MAX.ilog2() as u8);
        most.min(capacity_at_first(class) << doublings)
    }

    /// Brings a magazine into use, doubles its capacity up to `most`, as far as the budget goes, or
    /// makes it `most` if it is more. False if it has not become more.
    pub(super) fn grow(&self, class: SizeClass, most: usize) -> bool {
        let old = self.capacity_of(class);
        if old == 0 {
            self.magazines.get(class).set_top(self.place(class, 0));
            return self.resize(class, capacity_at_first(class));
        }
        let new = (old * 2).min(most);
        new != old && self.resize(class, new) && old < most
    }

    /// Sets the capacity of a magazine and pays for it, or is paid. False, and nothing changed, if
    /// the budget does not allow it.
    pub(super) fn resize(&self, class: SizeClass, capacity: usize) -> bool {
        let paid_for = |capacity: usize| {
            capacity.saturating_sub(capacity_at_first(class)) * class.object_bytes()
        };
        let (old, new) = (paid_for(self.capacity_of(class)), paid_for(capacity));
        if new < old {
            budget::give(old - new);
        } else if new > old && !budget::take(new - old) {
            return false;
        }
        self.capacity[class.index()].set(capacity as u16);
        self.magazines
            .get(class)
            .limit
            .set(self.place(class, capacity));
        true
    }

    /// Bytes of the budget that this mcache holds.
    pub(crate) fn budget_bytes(&self) -> usize {
        let classes = (1..MAGAZINES).map(SizeClass::new);
        let paid = classes.map(|class| {
            let extra = self
                .capacity_of(class)
                .saturating_sub(capacity_at_first(class));
            extra * class.object_bytes()
        });
        paid.sum::<usize>() + self.large_budget_bytes()
    }

    /// Objects that the magazine of a class may hold.
    pub(super) fn capacity_of(&self, class: SizeClass) -> usize {
        usize::from(self.capacity[class.index()].get())
    }
}

/// Objects that a magazine may hold when its class comes into use. A tiny block must fit.
fn capacity_at_first(class: SizeClass) -> usize {
    let objects = if class.is_tiny() {
        tiny::objects_a_block(class)
    } else {
        0
    };
    let fit = MAGAZINE_BYTES / class.object_bytes().max(1);
    fit.clamp(LEAST_AT_FIRST, CAPACITY_AT_FIRST).max(objects)
}
