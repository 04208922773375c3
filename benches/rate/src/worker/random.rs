//! Random numbers, the same on every run, without an allocation.

/// A xorshift generator (Marsaglia 2003) with a multiplied result.
#[derive(Clone, Copy)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..4 {
            random.next();
        }
        random
    }

    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, at most 2^32.
    #[inline]
    pub fn below(&mut self, end: usize) -> usize {
        (((self.next() >> 32) * end as u64) >> 32) as usize
    }

    /// A size from `2^from` to below `2^to` bytes, each power of two as likely as any other: small
    /// ones are many, as in real programs.
    #[inline]
    pub fn size(&mut self, from: u32, to: u32) -> usize {
        let bits = self.next();
        let shift = from + (((bits >> 32) * u64::from(to - from)) >> 32) as u32;
        ((1 << shift) + (bits & ((1 << shift) - 1))) as usize
    }

    /// Puts the items in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
