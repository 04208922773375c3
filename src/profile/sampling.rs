//! Which allocations are sampled: each byte with the same chance, whatever the size of its object.
//!
//! A thread counts the bytes that it asks for down from a random number, and samples the allocation with
//! which it comes below zero. The numbers are exponentially distributed with the mean `rate`, so where the
//! next sample point lies does not depend on where the last one was, and an object of `size` bytes is a
//! sample with the chance `1 - exp(-size / rate)`. It stands for one object divided by that chance (as in
//! Go's and TCMalloc's profiles).
//!
//! Where a thread comes to sample points so fast that they would cost more than one part in
//! [`COST_DIVISOR`] of its time, its mean distance doubles, and comes down again when it is slower. The
//! distance of a sample point is drawn with the mean that holds then, and the sample is weighed by that
//! mean: the estimate stays unbiased, since a chance is never chosen by what it hits.

use core::cell::Cell;

/// A thread's way to its next sample point. **Owner only.** Zero bytes are valid: a thread that has not begun.
pub(crate) struct Sampling {
    /// Bytes until the sample point, less those asked for since it was drawn.
    left: Cell<i64>,
    /// Mean distance of sample points now, in bytes; zero before the first.
    rate: Cell<u64>,
    /// State of the generator of random numbers.
    random: Cell<u64>,
    /// When the last sample was taken.
    sampled_at_ns: Cell<u64>,
    /// Whether a sample is being taken: what it may allocate is none.
    in_progress: Cell<bool>,
}

/// One part of so many of a thread's time may go to samples, about.
const COST_DIVISOR: u64 = 128;
/// The mean distance grows to at most so many times the one that was asked for.
const RATE_FACTOR_MAX: u64 = 1024;

impl Sampling {
    #[allow(clippy::declare_interior_mutable_const)] // A value to start from, never used in place.
    pub(crate) const NONE: Self = Self {
        left: Cell::new(0),
        rate: Cell::new(0),
        random: Cell::new(0),
        sampled_at_ns: Cell::new(0),
        in_progress: Cell::new(false),
    };

    /// Counts an allocation; whether it is to be sampled.
    #[inline(always)] // Part of the fast path.
    pub(crate) fn counts_down(&self, size: usize) -> bool {
        let left = self.left.get().wrapping_sub(size as i64);
        self.left.set(left);
        left < 0
    }

    #[inline(always)] // Part of the fast path.
    pub(crate) fn would_be_due(&self, size: usize) -> bool {
        self.left.get() < size as i64
    }

    /// The mean distance by which the sample point was drawn that was come to just now. `None` if there was
    /// none: the thread begins to sample, if `rate` is not zero, or it is taking a sample already.
    pub(crate) fn begin(&self, rate: u64, seed: u64) -> Option<u64> {
        if self.in_progress.get() {
            return None;
        }
        if rate == 0 {
            self.left.set(i64::MAX);
            return None;
        }
        let drawn_with = self.rate.get();
        if drawn_with == 0 {
            self.random.set(seed | 1);
            self.rate.set(rate);
            self.draw();
            return None;
        }
        self.in_progress.set(true);
        Some(drawn_with)
    }

    /// Ends a sample that took from `start_ns` to `end_ns`, and goes on to the next one. With `paced`, the
    /// distance follows the cost.
    pub(crate) fn end(&self, rate: u64, paced: bool, start_ns: u64, end_ns: u64) {
        let cost_ns = end_ns.saturating_sub(start_ns).max(1);
        let elapsed_ns = end_ns.saturating_sub(self.sampled_at_ns.replace(end_ns));
        let now = self.rate.get();
        if !paced {
            self.rate.set(rate);
        } else if elapsed_ns < cost_ns.saturating_mul(COST_DIVISOR) {
            self.rate
                .set((now * 2).min(rate.saturating_mul(RATE_FACTOR_MAX)));
        } else if elapsed_ns / 4 > cost_ns.saturating_mul(COST_DIVISOR) {
            self.rate.set((now / 2).max(rate));
        }
        self.draw();
        self.in_progress.set(false);
    }

    /// Draws the distance to the next sample point.
    fn draw(&self) {
        // Xorshift (Marsaglia, "Xorshift RNGs", 2003), and a multiplication for the upper bits.
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        let uniform =
            ((x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        self.left
            .set((-libm::log(uniform) * self.rate.get() as f64) as i64);
    }
}

/// How many objects of `size` bytes a sample stands for that was drawn with the mean distance `rate`.
pub(super) fn weight(size: usize, rate: u64) -> f64 {
    -1.0 / libm::expm1(-(size.max(1) as f64) / rate as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Allocates `count` objects of `size` bytes; the estimate of how many they are, and its variance.
    fn estimate(
        sampling: &Sampling,
        rate: u64,
        size: usize,
        count: usize,
        paced: bool,
    ) -> (f64, f64) {
        let mut estimate = 0.0;
        let mut variance = 0.0;
        let mut now_ns = 0;
        for _ in 0..count {
            now_ns += 100;
            if sampling.counts_down(size)
                && let Some(drawn_with) = sampling.begin(rate, 88)
            {
                let weight = weight(size, drawn_with);
                estimate += weight;
                variance += weight * (weight - 1.0);
                sampling.end(rate, paced, now_ns, now_ns + 50);
            }
        }
        (estimate, variance)
    }

    #[test]
    fn estimates_are_unbiased_for_every_size() {
        let rate = 4096;
        for size in [1, 16, 100, 4096, 40_000, 1_000_000] {
            let sampling = Sampling::NONE;
            estimate(&sampling, rate, 4096, 100, false);
            let count = 4_000_000 / size.max(4) + 100;
            let (estimate, variance) = estimate(&sampling, rate, size, count, false);
            let error = (estimate - count as f64).abs();
            let bound = 3.0 * variance.sqrt() + 1.0;
            assert!(error <= bound, "{size}: {estimate} of {count}, {bound}");
        }
    }

    #[test]
    fn estimates_are_unbiased_while_the_distance_follows_the_cost() {
        let sampling = Sampling::NONE;
        estimate(&sampling, 512, 512, 100, false);
        let counts: Vec<(f64, f64)> = [64, 3000, 64, 700]
            .map(|size| estimate(&sampling, 512, size, 200_000, true))
            .into();
        assert!(sampling.rate.get() > 512);
        for (estimate, variance) in counts {
            let error = (estimate - 200_000.0).abs();
            assert!(
                error <= 3.0 * variance.sqrt(),
                "{estimate}, {}",
                variance.sqrt()
            );
        }
    }

    #[test]
    fn a_rate_of_zero_is_never_due_again() {
        let sampling = Sampling::NONE;
        assert!(sampling.counts_down(16));
        assert_eq!(sampling.begin(0, 1), None);
        assert!((0..1000).all(|_| !sampling.counts_down(1 << 40)));
    }
}
