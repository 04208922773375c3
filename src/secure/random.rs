//! Random numbers of a thread: a counter, hashed by a wide multiplication; it begins with a number from the system.
//!
//! They say where objects come to lie, which an attacker should not know; they need not be unpredictable for
//! somebody who sees thousands of them.

use core::cell::Cell;

use crate::sys;

/// An odd number: the counter takes all values before one comes again.
const STEP: u64 = 0x2437_7ee2_1687_0cb5;
/// What makes the two factors differ.
const MIX: u64 = 0x9e8d_5f1b_6ac3_42e7;

/// A generator. **Owner only.** Zero bytes are valid: one that has not begun, whose numbers anybody can tell.
pub(crate) struct Random(Cell<u64>);

impl Random {
    /// A number below `bound`, which is not zero and fits 32 bits.
    #[inline]
    pub(crate) fn below(&self, bound: usize) -> usize {
        let state = self.0.get();
        self.0.set(state.wrapping_add(STEP));
        let product = u128::from(state) * u128::from(state ^ MIX);
        let number = (product >> 64) as u32 ^ product as u32;
        // The upper half of the product is below `bound`, nearly uniformly.
        ((u64::from(number) * bound as u64) >> 32) as usize
    }

    /// Begins, if that is not done.
    #[inline]
    pub(crate) fn begin(&self) {
        if self.0.get() == 0 {
            self.begin_anew();
        }
    }

    /// Begins anew, in the child of a `fork`.
    #[cold]
    pub(crate) fn begin_anew(&self) {
        self.0.set(sys::random() | 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_below_the_bound_and_all_of_them_come() {
        let random = Random(Cell::new(0));
        random.begin();
        for bound in [1, 2, 7, 256] {
            let mut came = [false; 256];
            for _ in 0..20_000 {
                came[random.below(bound)] = true;
            }
            assert!(came[..bound].iter().all(|came| *came), "{bound}");
            assert!(!came[bound..].iter().any(|came| *came), "{bound}");
        }
    }
}
