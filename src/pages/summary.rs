//! The free runs of one chunk, in three numbers, and the bit searches inside a chunk.
//!
//! A [`Summary`] is what a search over chunks must know of one: how many pages are free at its
//! start, in its longest run, and at its end. A long run in several chunks is seen by adding the end
//! of one to the start of the next; a run inside one chunk is seen in the maximum.
//!
//! A change of a chunk almost never needs all of its bits. A free only makes one run longer, and the
//! caller knows that run ([`Summary::after_free`]). An allocation cuts one run, which matters to the
//! maximum only if it was a longest one ([`Summary::after_alloc`]).
//!
//! 1. `start <= max`, `end <= max`, and `max <= CHUNK_PAGES`.
//! 2. If one of the three is `CHUNK_PAGES`, all are, and the chunk is wholly free.
//! 3. All zero means that no page is free; `max == 0` says the same.
//!
//! Pages are counted from the start of the chunk; bit `i` of word `w` is page `64 * w + i`, and a
//! bit that is set is a free page.

use core::ops::{BitAnd, Shr};

use super::{CHUNK_PAGES, CHUNK_WORDS, Run, WORD_PAGES};

/// The bitmap of a chunk.
pub(super) type ChunkWords = [u64; CHUNK_WORDS];

/// Free runs of a chunk, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Free pages from the first page of the chunk on.
    start: u16,
    /// Length of the longest free run.
    max: u16,
    /// Free pages up to the last page of the chunk.
    end: u16,
}

const _: () = assert!(CHUNK_PAGES <= u16::MAX as u32);

impl Summary {
    /// The summary of a chunk without a free page.
    #[cfg_attr(not(test), allow(dead_code))] // For models: the heap's records start as zero bytes.
    pub(super) const EMPTY: Self = Self {
        start: 0,
        max: 0,
        end: 0,
    };

    /// Free pages from the first page of the chunk on.
    #[inline]
    pub(super) const fn start(self) -> u32 {
        self.start as u32
    }

    /// Length of the longest free run, in pages.
    #[inline]
    pub(super) const fn max(self) -> u32 {
        self.max as u32
    }

    /// Free pages up to the last page of the chunk.
    #[inline]
    pub(super) const fn end(self) -> u32 {
        self.end as u32
    }

    /// Length of the free run at the end of this chunk, if the chunk before it ends in one of
    /// `before` pages.
    #[inline]
    pub(super) const fn carry(self, before: u32) -> u32 {
        if self.end() == CHUNK_PAGES {
            before + CHUNK_PAGES
        } else {
            self.end()
        }
    }

    /// The summary after a free that made `run`.
    ///
    /// `run` is the whole free run around the freed pages after the free, in this chunk.
    #[inline]
    pub(super) fn after_free(self, run: Run) -> Self {
        let count = run.count() as u16;
        Self {
            start: if run.first == 0 { count } else { self.start },
            max: self.max.max(count),
            end: if run.end == CHUNK_PAGES {
                count
            } else {
                self.end
            },
        }
    }

    /// The summary after an allocation of `taken`, which was a part of the free run `run`.
    ///
    /// Both are in this chunk; `words` is the bitmap of the chunk after the allocation.
    #[inline]
    pub(super) fn after_alloc(self, words: &ChunkWords, run: Run, taken: Run) -> Self {
        // A run shorter than the longest one says nothing about that one. If it was the longest,
        // what is left of it is often still as long as all other pages of the chunk together.
        let left = run.longest_without(taken);
        let max = if run.count() < self.max() {
            self.max
        } else if left >= CHUNK_PAGES - run.count() {
            left as u16
        } else {
            longest_run(words) as u16
        };
        Self {
            start: self.start.min(taken.first as u16),
            max,
            end: self.end.min((CHUNK_PAGES - taken.end) as u16),
        }
    }
}

#[cfg(test)]
impl Summary {
    /// The summary of a bitmap, counted bit by bit.
    pub(super) fn naive(words: &ChunkWords) -> Self {
        let free = |page: u32| words[(page / WORD_PAGES) as usize] >> (page % WORD_PAGES) & 1 == 1;
        let (mut start, mut max, mut run) = (0, 0, 0);
        for page in 0..CHUNK_PAGES {
            run = if free(page) { run + 1 } else { 0 };
            max = run.max(max);
            if u32::from(run) == page + 1 {
                start = run;
            }
        }
        Self {
            start,
            max,
            end: run,
        }
    }
}

/// First page of the lowest run of `count` free pages in a chunk, `count` at least one.
#[inline]
pub(super) fn find_run(words: &ChunkWords, count: u32) -> Option<u32> {
    // Free pages directly below the word at hand.
    let mut below = 0;
    for (base, &word) in (0..).step_by(WORD_PAGES as usize).zip(words) {
        if below + word.trailing_ones() >= count {
            return Some(base - below);
        }
        if count < WORD_PAGES {
            let starts = run_starts(word, count);
            if starts != 0 {
                return Some(base + starts.trailing_zeros());
            }
        }
        below = if word == u64::MAX {
            below + WORD_PAGES
        } else {
            word.leading_ones()
        };
    }
    None
}

/// Length of the longest free run in a chunk, in pages.
fn longest_run(words: &ChunkWords) -> u32 {
    // Runs at the edges of words first: they are cheap to measure, and a long one spares the
    // look into the words.
    let mut longest = 0;
    let mut below = 0;
    for &word in words {
        longest = longest.max(below + word.trailing_ones());
        below = if word == u64::MAX {
            below + WORD_PAGES
        } else {
            word.leading_ones()
        };
    }
    longest = longest.max(below);
    for &word in words {
        // A run with an allocated page on each side in one word has at most 62 pages.
        if longest >= WORD_PAGES - 2 {
            break;
        }
        // Each turn makes `longest` greater by one, so there are at most 62 turns a chunk.
        let mut longer = run_starts(word, longest + 1);
        while longer != 0 {
            longest += 1;
            longer = longer & (longer >> 1);
        }
    }
    longest
}

/// The bits of `bits` from which on `count` bits are set, `count` from one to the width of `B`.
///
/// A bit survives `x & (x >> k)` if the bit `k` above it is set too; doubling `k` takes a logarithmic
/// number of steps. Bits above the width count as clear.
#[inline]
pub(super) fn run_starts<B>(mut bits: B, count: u32) -> B
where
    B: Copy + BitAnd<Output = B> + Shr<u32, Output = B>,
{
    let mut known = 1;
    while known * 2 <= count {
        bits = bits & (bits >> known);
        known *= 2;
    }
    bits & (bits >> (count - known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_run_inside_a_word_beats_one_over_an_edge_that_is_one_shorter() {
        let mut words = chunk_with(64 - 30, 61);
        words[3] = u64::MAX >> 2 << 1;
        assert_eq!(longest_run(&words), 62);
        assert_eq!(find_run(&words, 62), Some(3 * 64 + 1));
    }

    #[test]
    fn cutting_the_longest_run_finds_the_one_that_follows_it() {
        // Free: 0..300 and 301..512. A cut that leaves 210 pages must find the 211 others.
        let (run, taken) = (Run::new(0, 300), Run::new(0, 90));
        let before = Summary {
            start: 300,
            max: 300,
            end: 211,
        };
        for (cut, max) in [(88, 212), (89, 211), (90, 211)] {
            let taken = Run { end: cut, ..taken };
            let mut words = chunk_with(cut, 300 - cut);
            for (word, mask) in Run::new(301, 211).words() {
                words[word] |= mask;
            }
            let after = before.after_alloc(&words, run, taken);
            assert_eq!(
                after,
                Summary {
                    start: 0,
                    max,
                    end: 211
                }
            );
            assert_eq!(after, Summary::naive(&words));
        }
    }

    /// Every free run of `words` as (first page, length), bit by bit.
    fn runs(words: &ChunkWords) -> std::vec::Vec<(u32, u32)> {
        let mut runs = std::vec::Vec::new();
        let mut open = None;
        for page in 0..=CHUNK_PAGES {
            let free = page < CHUNK_PAGES
                && words[(page / WORD_PAGES) as usize] >> (page % WORD_PAGES) & 1 == 1;
            match (open, free) {
                (None, true) => open = Some(page),
                (Some(first), false) => {
                    runs.push((first, page - first));
                    open = None;
                }
                _ => {}
            }
        }
        runs
    }

    /// A bitmap whose only free pages are the given run.
    fn chunk_with(first: u32, count: u32) -> ChunkWords {
        let mut words = [0; CHUNK_WORDS];
        for (word, mask) in Run::new(first, count).words() {
            words[word] |= mask;
        }
        words
    }

    #[test]
    fn run_starts_finds_runs_of_every_length_up_to_the_width() {
        for count in 1..=64 {
            assert_eq!(run_starts(u64::MAX, count), u64::MAX >> (count - 1));
            assert_eq!(run_starts(u128::MAX, count), u128::MAX >> (count - 1));
        }
        assert_eq!(run_starts(0b0111_0110_u64, 1), 0b0111_0110);
        assert_eq!(run_starts(0b0111_0110_u64, 2), 0b0011_0010);
        assert_eq!(run_starts(0b0111_0110_u64, 3), 0b0001_0000);
        assert_eq!(run_starts(0b0111_0110_u64, 4), 0);
    }

    #[test]
    fn a_single_run_is_found_wherever_it_lies() {
        for first in 0..CHUNK_PAGES {
            for count in [1, 2, 3, 31, 32, 62, 63, 64, 65, 127, 128, 129, 511, 512] {
                if first + count > CHUNK_PAGES {
                    continue;
                }
                let words = chunk_with(first, count);
                assert_eq!(longest_run(&words), count);
                assert_eq!(find_run(&words, count), Some(first));
                assert_eq!(find_run(&words, 1), Some(first));
                assert_eq!(find_run(&words, count + 1), None);
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            failure_persistence: None,
            ..Default::default()
        })]

        #[test]
        fn searches_agree_with_a_walk_over_the_bits(
            a in proptest::array::uniform8(proptest::num::u64::ANY),
            b in proptest::array::uniform8(proptest::num::u64::ANY),
            full in 0_u8..,
            clear in 0_u8..,
            dense: bool,
        ) {
            let words: ChunkWords = core::array::from_fn(|i| match () {
                () if full >> i & 1 == 1 => u64::MAX,
                () if clear >> i & 1 == 1 => 0,
                () if dense => a[i] | b[i],
                () => a[i] & b[i],
            });
            let runs = runs(&words);
            let longest = runs.iter().map(|run| run.1).max().unwrap_or(0);
            proptest::prop_assert_eq!(longest_run(&words), longest);
            for count in 1..=CHUNK_PAGES {
                let lowest = runs.iter().find(|run| run.1 >= count).map(|run| run.0);
                proptest::prop_assert_eq!(find_run(&words, count), lowest);
            }
        }
    }
}
