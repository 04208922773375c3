//! Which pages of the heap are free: bitmaps with summaries, and a tree of maxima above them.
//!
//! A *page* is 8 KiB. An *arena* is [`ARENA_PAGES`] pages (64 MiB) of address space, aligned to its
//! own size. [`ArenaPages`] knows the pages of one arena, [`RunIndex`] knows the longest free run of
//! every arena. To allocate is to ask the index for the lowest arena with a long enough run, and that
//! arena for the lowest such run: address-ordered first fit, which keeps the heap dense at its low
//! end and leaves whole huge pages free at its high end.
//!
//! The model is the page allocator of Go (bitmap chunks, each summarised by its free run at the
//! start, its longest one and its free run at the end), with one law added: a run never crosses an
//! arena. So nothing above the arena needs the first and the last of the three numbers.
//!
//! 1. Everything here is pure: no system call, no lock, no pointer, no `unsafe`. Whoever holds the
//!    `&mut` holds the lock of the heap.
//! 2. All-zero bytes are a valid value of both types and mean "no page usable", so that records in
//!    fresh mappings and in statics need no initialisation.
//! 3. A page is in one of three states: allocated (or not yet committed, which is the same here),
//!    free and dirty (backed by memory, contents arbitrary), or free and released (not backed by
//!    memory, reads as zero).
//!
//! What is absent: spans, addresses, and the decision when to release pages. Those go by argument.

mod arena_pages;
mod run_index;
mod summary;
#[cfg(test)]
mod tests;

pub(crate) use arena_pages::ArenaPages;
pub(crate) use run_index::RunIndex;

/// Pages in an arena: 64 MiB of 8 KiB pages.
///
/// Bounded by `u16`, in which [`RunIndex`] keeps the lengths of runs.
pub(crate) const ARENA_PAGES: u32 = 8192;

/// Pages with one summary between them: 4 MiB, a bitmap of 64 bytes (one cache line).
///
/// Larger chunks make the search inside one longer, smaller ones the walk over the summaries of an
/// arena; at 512 both are short (8 words, 16 summaries).
pub(crate) const CHUNK_PAGES: u32 = 512;

/// Arenas that [`RunIndex`] has room for: 65,536 of 64 MiB are 4 TiB of address space.
pub(crate) const MAX_ARENAS: usize = 65_536;

/// Pages in one word of a bitmap.
const WORD_PAGES: u32 = u64::BITS;

/// Words of the bitmap of a chunk.
const CHUNK_WORDS: usize = (CHUNK_PAGES / WORD_PAGES) as usize;

/// Words of the bitmap of an arena.
pub(crate) const ARENA_WORDS: usize = (ARENA_PAGES / WORD_PAGES) as usize;

/// Chunks in an arena.
const ARENA_CHUNKS: usize = (ARENA_PAGES / CHUNK_PAGES) as usize;

const _: () = assert!(CHUNK_PAGES.is_multiple_of(WORD_PAGES));
const _: () = assert!(ARENA_PAGES.is_multiple_of(CHUNK_PAGES));
const _: () = assert!(ARENA_PAGES <= u16::MAX as u32);

/// What an allocation got: a range of pages of one arena, and how much of it reads as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Index of the first page in the arena.
    pub(crate) first: u32,
    /// Pages in the range, at least one.
    pub(crate) count: u32,
    /// Pages of the range that were released: not backed by memory, they read as zero. The whole
    /// range reads as zero if this equals `count`.
    pub(crate) released: u32,
}

/// The pages `first..end` of an arena (or of a chunk, after [`Run::clip`]).
///
/// `core::ops::Range` without its iterator, so that it can be `Copy`. Invariant: `first <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The first page.
    first: u32,
    /// The page behind the last.
    end: u32,
}

impl Run {
    /// The `count` pages from `first`.
    const fn new(first: u32, count: u32) -> Self {
        Self {
            first,
            end: first + count,
        }
    }

    /// Length in pages.
    const fn count(self) -> u32 {
        self.end - self.first
    }

    /// Length of the longer of the two pieces that stay when `taken`, a part of this run, is cut out.
    const fn longest_without(self, taken: Self) -> u32 {
        let below = taken.first - self.first;
        let above = self.end - taken.end;
        if below > above { below } else { above }
    }

    /// The part of this run in the chunk with index `chunk`, in pages from the start of that chunk.
    ///
    /// The run must have pages in the chunk.
    const fn clip(self, chunk: usize) -> Self {
        let base = chunk as u32 * CHUNK_PAGES;
        let end = self.end - base;
        Self {
            first: self.first.saturating_sub(base),
            end: if end < CHUNK_PAGES { end } else { CHUNK_PAGES },
        }
    }

    /// Indices of the chunks that this run, which is not empty, has pages in.
    const fn chunks(self) -> core::ops::Range<usize> {
        (self.first / CHUNK_PAGES) as usize..self.end.div_ceil(CHUNK_PAGES) as usize
    }

    /// The words of an arena's bitmap that this run, which is not empty, has pages in: the index of
    /// each and the bits of the run in it.
    fn words(self) -> impl DoubleEndedIterator<Item = (usize, u64)> {
        (self.first / WORD_PAGES..self.end.div_ceil(WORD_PAGES)).map(move |word| {
            let base = word * WORD_PAGES;
            let low = self.first.saturating_sub(base);
            let high = (self.end - base).min(WORD_PAGES);
            (
                word as usize,
                (u64::MAX >> (WORD_PAGES - (high - low))) << low,
            )
        })
    }
}
