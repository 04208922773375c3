//! The private half of a span that is checked out: slots that its owner takes without a lock. The
//! invariants are those of the parent module.

#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr::NonNull;

use super::{MSpan, Set, WORDS, take_bits};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The private half of a thread's current span, one for each class in its mcache.
///
/// All-zero bytes are a valid, empty one.
#[repr(C)]
pub(crate) struct PrivateSlots {
    /// The current span. **Owner only.**
    pub(super) span: Cell<Option<NonNull<MSpan>>>,
    /// Bit `i` is set exactly if word `i` is not zero. **Owner only.**
    pub(super) summary: Cell<u16>,
    /// Free slots. **Written by the owner, read under the home lock by anyone.**
    pub(super) words: [AtomicU64; WORDS],
}

impl PrivateSlots {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            span: Cell::new(None),
            summary: Cell::new(0),
            words: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// The current span.
    #[inline]
    pub(crate) fn span(&self) -> Option<&'static MSpan> {
        // SAFETY: span records live for ever (`meta`), and this one is checked out to us.
        self.span.get().map(|span| unsafe { span.as_ref() })
    }

    /// Makes `span` the current span. It was swept to this half.
    pub(crate) fn set_span(&self, span: &'static MSpan) {
        self.span.set(Some(NonNull::from(span)));
    }

    /// Makes every slot of a fresh span free in this half. Nobody else knows the span.
    pub(crate) fn adopt(&self, span: &'static MSpan, slots: usize) {
        for word in 0..slots.div_ceil(64) {
            let bits = (slots - word * 64).min(64);
            self.words[word].store(u64::MAX >> (64 - bits), Relaxed);
        }
        let words = slots.div_ceil(64);
        self.summary.set((u32::MAX >> (32 - words)) as u16);
        // SAFETY: nobody else knows the span.
        let shared = unsafe { span.shared() };
        shared.owner = Some(NonNull::from(self));
        shared.set = Set::CHECKED_OUT;
        self.set_span(span);
    }

    /// Takes up to `wanted` slots, lowest first: `take` gets the first of neighbours, and their number.
    /// How many were taken. No lock.
    #[inline]
    pub(crate) fn take(&self, wanted: usize, mut take: impl FnMut(usize, usize)) -> usize {
        let mut summary = self.summary.get();
        let mut taken = 0;
        while summary != 0 && taken < wanted {
            let word = summary.trailing_zeros() as usize;
            // Relaxed: only this thread writes the word between sweeps.
            let bits = self.words[word].load(Relaxed);
            let (left, count) = take_bits(bits, wanted - taken, |bit, count| {
                take(word * 64 + bit, count);
            });
            taken += count;
            self.words[word].store(left, Relaxed);
            if left == 0 {
                summary &= !(1 << word);
            }
        }
        self.summary.set(summary);
        taken
    }

    /// Slots that are left.
    #[cfg(test)]
    pub(crate) fn free_slots(&self) -> usize {
        let bits = |word: &AtomicU64| word.load(Relaxed).count_ones() as usize;
        self.words.iter().map(bits).sum()
    }

    /// Whether no slot is left.
    #[cfg(all(test, loom))]
    pub(crate) fn is_dry(&self) -> bool {
        self.summary.get() == 0
    }
}
