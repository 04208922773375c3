//! The writer's side of a sequence lock: readers get words that belong together, and hold nobody up. They may be
//! other processes, which see memory that is shared.
//!
//! The sequence number is odd while the words change. A reader reads the number, then the words, then the number
//! again: if both are the same even number, nothing was written between. Words are read and written one by one
//! with atomic operations, so that a reader who is too early or too late sees old ones or new ones.

use super::atomic::{
    AtomicU64,
    Ordering::{Relaxed, Release},
    fence,
};

/// Changes the words of this sequence number. One thread at a time.
pub(crate) fn write(sequence: &AtomicU64, change: impl FnOnce()) {
    // An odd number is of a process that was replaced in the middle.
    let before = sequence.load(Relaxed) & !1;
    sequence.store(before.wrapping_add(1), Relaxed);
    // Who sees one of the new words sees the odd number. Pairs with the reader's fence behind the words.
    fence(Release);
    change();
    // Who sees the even number sees the words. Pairs with the reader's fence before the words.
    sequence.store(before.wrapping_add(2), Release);
}
