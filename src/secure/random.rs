//! Random numbers of a thread: xorshift64*, which begins with a number from the system.
//!
//! They say where objects come to lie, which an attacker should not know; they need not be unpredictable for
//! somebody who sees thousands of them.

use core::cell::Cell;

use crate::sys;

/// A generator. **Owner only.** Zero bytes are valid: one that has not begun.
pub(crate) struct Random(Cell<u64>);

impl Random {
    /// A number below `bound`, which is not zero and fits 32 bits.
    #[inline]
    pub(crate) fn below(&self, bound: usize) -> usize {
        let mut state = self.0.get();
        if state == 0 {
            state = sys::random() | 1;
        }
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        let high = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        // The upper half of the product is below `bound`, nearly uniformly.
        ((high * bound as u64) >> 32) as usize
    }

    /// Begins anew, in the child of a `fork`.
    pub(crate) fn forget(&self) {
        self.0.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_below_the_bound_and_all_of_them_come() {
        let random = Random(Cell::new(0));
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
