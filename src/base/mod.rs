//! Vocabulary: pure values that every floor above uses.

pub(crate) mod fatal;
pub(crate) mod line;
#[cfg(not(loom))]
pub(crate) mod pace;
pub(crate) mod size_class;

/// Bytes of a heap page, the unit of the page heap: 8 KiB, as in Go and TCMalloc.
///
/// Independent of the system's page size. Smaller pages would make the page table of an arena
/// larger, larger ones would round large objects up further.
pub(crate) const PAGE_BYTES: usize = 8 << 10;

/// Heap pages that hold `bytes`. `bytes` is at most `isize::MAX`.
pub(crate) const fn pages_for(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES)
}
