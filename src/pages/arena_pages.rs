//! The pages of one arena: which are free, and which of those are released to the system.
//!
//! Two bitmaps of [`ARENA_PAGES`] bits, a [`Summary`] for each chunk of the first, and three numbers
//! for the whole. A search walks the 16 summaries, adding the free end of one chunk to the free
//! start of the next, and looks at the bits of at most one chunk. There is no list and no tree of
//! runs, so freeing next to a free run coalesces by setting bits.
//!
//! A change measures the free run around it, through words inside a chunk and through summaries
//! beyond, and from that run alone repairs the summaries of the chunks it touches and the maximum of
//! the arena. Bits are counted again only when an allocation cuts a longest run.
//!
//! 1. Bit `page` of `free` is set if and only if the page is free. A page that is not committed yet
//!    is not free.
//! 2. `released` is a subset of `free`: a bit that is set is a free page that reads as zero.
//! 3. `summaries[c]` are the free runs of chunk `c`.
//! 4. `max_run`, `free_pages` and `released_pages` are the length of the longest free run and the
//!    numbers of bits set in `free` and in `released`.
//! 5. All-zero bytes are valid and mean that no page is usable.
//!
//! It does not remember who allocated what: a caller may free any part of what it allocated, and
//! must not free what is free already (checked in debug builds only).

use super::summary::{Summary, find_run, run_starts};
use super::{
    ARENA_CHUNKS, ARENA_PAGES, ARENA_WORDS, CHUNK_PAGES, CHUNK_WORDS, Run, Taken, WORD_PAGES,
};

/// Free and released pages of one arena. 2,160 bytes.
pub(crate) struct ArenaPages {
    /// Longest free run, in pages.
    max_run: u32,
    /// Free pages.
    free_pages: u32,
    /// Free pages that are released.
    released_pages: u32,
    /// Free runs of each chunk.
    summaries: [Summary; ARENA_CHUNKS],
    /// A set bit is a free page.
    free: [u64; ARENA_WORDS],
    /// A set bit is a free page that is released.
    released: [u64; ARENA_WORDS],
}

impl ArenaPages {
    /// An arena without a usable page: all bytes zero.
    #[cfg_attr(not(test), allow(dead_code))] // For models: the heap's records start as zero bytes.
    pub(crate) const fn new() -> Self {
        Self {
            max_run: 0,
            free_pages: 0,
            released_pages: 0,
            summaries: [Summary::EMPTY; ARENA_CHUNKS],
            free: [0; ARENA_WORDS],
            released: [0; ARENA_WORDS],
        }
    }

    /// Length of the longest free run, in pages.
    #[inline]
    pub(crate) fn max_run(&self) -> u32 {
        self.max_run
    }

    /// Number of free pages.
    #[inline]
    #[cfg_attr(not(test), allow(dead_code))] // For models: the heap's records start as zero bytes.
    pub(crate) fn free_pages(&self) -> u32 {
        self.free_pages
    }

    /// Number of pages that are free and not released.
    #[inline]
    pub(crate) fn dirty_pages(&self) -> u32 {
        self.free_pages - self.released_pages
    }

    /// Whether `page` is free.
    #[inline]
    #[cfg_attr(not(test), allow(dead_code))] // For models: the heap's records start as zero bytes.
    pub(crate) fn is_free(&self, page: u32) -> bool {
        self.free[(page / WORD_PAGES) as usize] >> (page % WORD_PAGES) & 1 == 1
    }

    /// Takes the lowest free run of at least `count` pages, and of it the lowest `count`.
    pub(crate) fn alloc(&mut self, count: u32) -> Option<Taken> {
        if count == 0 || count > self.max_run {
            return None;
        }
        let first = self.find(count)?;
        Some(self.take(Run::new(first, count)))
    }

    /// The `count` pages at one end of a free run of which the fewest are released: the first of them, and how
    /// many are. `None` if no run is as long, or all have `below` or more. Costs a step for each run and each
    /// word.
    pub(crate) fn least_released(&self, count: u32, below: u32) -> Option<(u32, u32)> {
        if count == 0 || count > self.max_run {
            return None;
        }
        let mut best = None;
        let mut least = below;
        let mut page = 0;
        while let Some(first) = self.next_free(page) {
            let run = self.leading_free(first);
            page = first + run;
            if run < count {
                continue;
            }
            for start in [first, page - count] {
                let words = Run::new(start, count).words();
                let released = words.map(|(word, mask)| (self.released[word] & mask).count_ones());
                let released = released.sum();
                if released < least {
                    least = released;
                    best = Some((start, released));
                }
            }
            if least == 0 {
                break;
            }
        }
        best
    }

    /// Takes the `count` free pages at the lowest multiple of `align_pages` that has that many.
    ///
    /// `align_pages` is a power of two of at most [`ARENA_PAGES`]. As arenas are aligned to their
    /// size, the address is aligned as the index is. Pages around the range stay free. Costs one step
    /// for each word at worst.
    pub(crate) fn alloc_aligned(&mut self, count: u32, align_pages: u32) -> Option<Taken> {
        debug_assert!(align_pages.is_power_of_two() && align_pages <= ARENA_PAGES);
        if align_pages <= 1 {
            return self.alloc(count);
        }
        if count == 0 || count > self.max_run {
            return None;
        }
        let first = self.find_aligned(count, align_pages)?;
        Some(self.take(Run::new(first, count)))
    }

    /// Takes exactly the `count` pages from `first`, if all are free and in the arena.
    pub(crate) fn alloc_at(&mut self, first: u32, count: u32) -> Option<Taken> {
        if count == 0 || first >= ARENA_PAGES || count > ARENA_PAGES - first {
            return None;
        }
        let run = Run::new(first, count);
        let all_free = run
            .words()
            .all(|(word, mask)| self.free[word] & mask == mask);
        all_free.then(|| self.take(run))
    }

    /// Makes `count` pages from `first` usable: free and released. They were just committed.
    pub(crate) fn grow(&mut self, first: u32, count: u32) {
        self.free(first, count, true);
    }

    /// Frees `count` pages from `first`, all of which are allocated.
    ///
    /// `released` says that the caller gave their memory back to the system, so that they read as
    /// zero.
    pub(crate) fn free(&mut self, first: u32, count: u32, released: bool) {
        debug_assert!(first <= ARENA_PAGES && count <= ARENA_PAGES - first);
        if count == 0 {
            return;
        }
        let freed = Run::new(first, count);
        let run = self.run_around(freed);
        for (word, mask) in freed.words() {
            debug_assert!(
                self.free[word] & mask == 0,
                "a page of {freed:?} is free already"
            );
            self.free[word] |= mask;
            if released {
                self.released[word] |= mask;
            }
        }
        for chunk in freed.chunks() {
            self.summaries[chunk] = self.summaries[chunk].after_free(run.clip(chunk));
        }
        self.free_pages += count;
        self.released_pages += if released { count } else { 0 };
        self.max_run = self.max_run.max(run.count());
    }

    /// Number of free pages directly below page `end`, which may be the end of the arena.
    pub(crate) fn trailing_free(&self, end: u32) -> u32 {
        let chunk = end / CHUNK_PAGES;
        let mut below = ones_below(end, chunk * CHUNK_PAGES, |word| self.free[word]);
        if below == end - chunk * CHUNK_PAGES {
            for summary in self.summaries[..chunk as usize].iter().rev() {
                below += summary.end();
                if summary.end() < CHUNK_PAGES {
                    break;
                }
            }
        }
        below
    }

    /// Takes free pages whose memory is worth giving back to the system.
    ///
    /// First choice: the highest wholly free group of `align_pages` pages (a power of two: a huge
    /// page) that has a dirty page, and the groups directly below of which the same is true, at most
    /// `max_pages` together. Second choice, also if a group is longer than `max_pages`: the highest
    /// run of dirty pages, of which the upper end if it is longer. `None` if no page is dirty.
    ///
    /// The range is allocated afterwards. The caller gives the whole of it to the system, without the
    /// lock if it likes, and then calls [`ArenaPages::free`] with `released` set. Whole groups may
    /// have pages that were released already.
    pub(crate) fn take_releasable(&mut self, max_pages: u32, align_pages: u32) -> Option<Taken> {
        debug_assert!(align_pages.is_power_of_two() && align_pages <= ARENA_PAGES);
        if max_pages == 0 {
            return None;
        }
        let run = match self.highest_dirty_groups(max_pages, align_pages) {
            Some(groups) => groups,
            None => {
                let end = self.highest_dirty_below(ARENA_PAGES)? + 1;
                let floor = end.saturating_sub(max_pages);
                Run {
                    first: end - ones_below(end, floor, |word| self.dirty(word)),
                    end,
                }
            }
        };
        Some(self.take(run))
    }
}

/// Searches.
impl ArenaPages {
    /// First page of the lowest run of `count` free pages, `count` at least one.
    #[inline]
    fn find(&self, count: u32) -> Option<u32> {
        let (chunks, _) = self.free.as_chunks::<CHUNK_WORDS>();
        // Free pages directly below the chunk at hand.
        let mut below = 0;
        let mut base = 0;
        for (summary, words) in self.summaries.iter().zip(chunks) {
            if below + summary.start() >= count {
                return Some(base - below);
            }
            if summary.max() >= count {
                return find_run(words, count).map(|page| base + page);
            }
            below = summary.carry(below);
            base += CHUNK_PAGES;
        }
        None
    }

    /// The lowest multiple of `align`, a power of two, from which on `count` pages are free.
    fn find_aligned(&self, count: u32, align: u32) -> Option<u32> {
        // The multiples of `align` in a word that starts with one.
        let multiples = if align < WORD_PAGES {
            u64::MAX / ((1 << align) - 1)
        } else {
            1
        };
        let mut from = 0;
        while from + count <= ARENA_PAGES {
            let chunk = from / CHUNK_PAGES;
            let summary = self.summaries[chunk as usize];
            if summary.max() < count {
                // Only the run at the end of the chunk, if any, may be a part of a longer one.
                from = from.max((chunk + 1) * CHUNK_PAGES - summary.end());
            }
            from = (from + align - 1) & !(align - 1);
            if from + count > ARENA_PAGES {
                break;
            }
            let word = (from / WORD_PAGES) as usize;
            let above = self.free.get(word + 1).copied().unwrap_or(0);
            let bits = u128::from(self.free[word]) | u128::from(above) << WORD_PAGES;
            // The cut to the low half loses no run: they are the ones that start in `word`.
            let starts = run_starts(bits, count.min(WORD_PAGES)) as u64;
            let starts = starts & multiples & (u64::MAX << (from % WORD_PAGES));
            let base = word as u32 * WORD_PAGES;
            if starts == 0 {
                from = base + WORD_PAGES;
                continue;
            }
            let first = base + starts.trailing_zeros();
            let run = if count <= WORD_PAGES {
                count
            } else {
                self.leading_free(first)
            };
            if run >= count {
                return Some(first);
            }
            // The page at the end of the run is not free, so the next candidate is behind it. Words
            // of the run are not looked at again: the search stays linear.
            from = first + run + 1;
        }
        None
    }

    /// The groups of `align` pages that [`ArenaPages::take_releasable`] prefers.
    ///
    /// Jumps from dirty page to dirty page, so it costs one step for each word and one for each
    /// group that has a dirty page.
    fn highest_dirty_groups(&self, max_pages: u32, align: u32) -> Option<Run> {
        // A group of one page is a dirty run of one page: the second choice finds longer ones.
        if align <= 1 || align > max_pages.min(self.max_run) {
            return None;
        }
        let mut below = ARENA_PAGES;
        let group = loop {
            let group = self.highest_dirty_below(below)? & !(align - 1);
            if self.leading_free(group) >= align {
                break group;
            }
            below = group;
        };
        let end = group + align;
        let lowest = (end - self.trailing_free(end)).max(end.saturating_sub(max_pages));
        let mut first = group;
        while first - lowest >= align
            && self
                .highest_dirty_below(first)
                .is_some_and(|page| page >= first - align)
        {
            first -= align;
        }
        Some(Run { first, end })
    }

    /// The highest page below `end` that is free and not released.
    fn highest_dirty_below(&self, end: u32) -> Option<u32> {
        if self.dirty_pages() == 0 || end == 0 {
            return None;
        }
        Run::new(0, end).words().rev().find_map(|(word, mask)| {
            let dirty = self.dirty(word) & mask;
            (dirty != 0).then(|| word as u32 * WORD_PAGES + dirty.ilog2())
        })
    }

    /// The lowest free page from `page` on, which may be the end of the arena.
    fn next_free(&self, page: u32) -> Option<u32> {
        Run::new(page, ARENA_PAGES - page)
            .words()
            .find_map(|(word, mask)| {
                let free = self.free[word] & mask;
                (free != 0).then(|| word as u32 * WORD_PAGES + free.trailing_zeros())
            })
    }

    /// The free pages of a word that are not released.
    #[inline]
    fn dirty(&self, word: usize) -> u64 {
        self.free[word] & !self.released[word]
    }

    /// Number of free pages from page `first` on, which may be the end of the arena.
    fn leading_free(&self, first: u32) -> u32 {
        let chunk = first.div_ceil(CHUNK_PAGES);
        let mut page = first;
        while page < chunk * CHUNK_PAGES {
            // The shift brings in allocated pages at the top, so no run leaves the word by it.
            let ones =
                (self.free[(page / WORD_PAGES) as usize] >> (page % WORD_PAGES)).trailing_ones();
            page += ones;
            if ones == 0 || !page.is_multiple_of(WORD_PAGES) {
                return page - first;
            }
        }
        for summary in &self.summaries[chunk as usize..] {
            page += summary.start();
            if summary.start() < CHUNK_PAGES {
                break;
            }
        }
        page - first
    }

    /// `range` with the free pages directly below and above it.
    #[inline]
    fn run_around(&self, range: Run) -> Run {
        Run {
            first: range.first - self.trailing_free(range.first),
            end: range.end + self.leading_free(range.end),
        }
    }

    /// Length of the longest free run according to the summaries, in pages.
    fn longest_run(&self) -> u32 {
        let mut longest = 0;
        let mut below = 0;
        for summary in &self.summaries {
            longest = longest.max(summary.max()).max(below + summary.start());
            below = summary.carry(below);
        }
        longest
    }
}

/// The one way in which pages cease to be free.
impl ArenaPages {
    /// Makes the pages of `taken`, all free, allocated.
    fn take(&mut self, taken: Run) -> Taken {
        let run = self.run_around(taken);
        let mut released = 0;
        for (word, mask) in taken.words() {
            debug_assert!(
                self.free[word] & mask == mask,
                "a page of {taken:?} is not free"
            );
            released += (self.released[word] & mask).count_ones();
            self.free[word] &= !mask;
            self.released[word] &= !mask;
        }
        let (chunks, _) = self.free.as_chunks::<CHUNK_WORDS>();
        for chunk in taken.chunks() {
            let summary = &mut self.summaries[chunk];
            *summary = summary.after_alloc(&chunks[chunk], run.clip(chunk), taken.clip(chunk));
        }
        let free_before = self.free_pages;
        self.free_pages -= taken.count();
        self.released_pages -= released;
        if run.count() == self.max_run {
            // The tail of a young arena is longer than all of its other free pages together.
            let left = run.longest_without(taken);
            let elsewhere = free_before - run.count();
            self.max_run = if left >= elsewhere {
                left
            } else {
                self.longest_run()
            };
        }
        Taken {
            first: taken.first,
            count: taken.count(),
            released,
        }
    }
}

/// Number of set bits directly below bit `end` and not below bit `floor` of a bitmap, whose words
/// are given by `word_at`.
#[inline]
fn ones_below(end: u32, floor: u32, word_at: impl Fn(usize) -> u64) -> u32 {
    let mut page = end;
    while page > floor {
        let word = (page - 1) / WORD_PAGES;
        let bits = page - word * WORD_PAGES;
        let ones = (word_at(word as usize) << (WORD_PAGES - bits)).leading_ones();
        page -= ones;
        if ones < bits {
            break;
        }
    }
    // The last word may have gone on below the floor.
    end - page.max(floor)
}

#[cfg(test)]
impl ArenaPages {
    /// Panics if one of the invariants of this file does not hold. Counts bit by bit.
    pub(crate) fn check_invariants(&self) {
        let (mut longest, mut run) = (0, 0);
        for page in 0..ARENA_PAGES {
            run = if self.is_free(page) { run + 1 } else { 0 };
            longest = run.max(longest);
        }
        let count = |words: &[u64]| words.iter().map(|word| word.count_ones()).sum::<u32>();
        assert_eq!(self.max_run, longest, "longest free run");
        assert_eq!(self.free_pages, count(&self.free), "free pages");
        assert_eq!(self.released_pages, count(&self.released), "released pages");
        for (free, released) in self.free.iter().zip(&self.released) {
            assert_eq!(released & !free, 0, "a page is released and not free");
        }
        for (chunk, words) in self.free.as_chunks().0.iter().enumerate() {
            assert_eq!(
                self.summaries[chunk],
                Summary::naive(words),
                "summary of chunk {chunk}"
            );
        }
    }
}
