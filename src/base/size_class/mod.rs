//! Size classes: to which slot size a request is rounded, and how slots are cut from spans.
//!
//! The classes are Go's (`runtime/sizeclasses.go`, itself from TCMalloc): 67 sizes from 8 bytes to
//! 32 KiB whose spacing wastes at most 12.5 % of a slot from 128 bytes on, and class 0 for "none". They are generated here at
//! compile time. The bytes of a span are our own choice: about 16 KiB, at least 4 slots, at most
//! [`SLOTS_MAX`] slots, and a tail waste of at most 12.5 %. Measured in batches of mixed sizes:
//! spans of 8, 16, 32 and 64 KiB cost 44.9, 42.0, 41.1 and 40.5 cycles a pair, and RSS grows with
//! them: with 32 KiB, 16 threads that replace objects of up to 128 KiB had 1.25 times as much.
//!
//! Three *tiny classes* follow: requests of 1, 2 and 3-4 bytes. Their objects share 16-byte blocks,
//! and the blocks are the slots of spans of class [`SizeClass::TINY_BLOCKS`]; see `tiny`.
//!
//! Invariants, checked by tests over every size and alignment:
//!
//! 1. The class of a Layout holds its size, and each slot of the class has its alignment.
//! 2. It is the smallest such class.
//! 3. `alloc`, `dealloc` and `realloc` compute the class from the Layout alone, so the same Layout
//!    has the same class everywhere.
//!
//! ```text
//! class  slot bytes  span bytes  slots  tail waste  worst waste  alignment
//!     1           8        8192   1024           0       37.50%          8
//!     2          16       16384   1024           0       43.75%         16
//!     3          24       16384    682          16       29.24%          8
//!     4          32       16384    512           0       21.88%         32
//!     5          48       16384    341          16       31.32%         16
//!     6          64       16384    256           0       23.44%         64
//!     7          80       16384    204          64       19.07%         16
//!     8          96       16384    170          64       15.95%         32
//!     9         112       16384    146          32       13.56%         16
//!    10         128       16384    128           0       11.72%        128
//!    11         144       16384    113         112       11.03%         16
//!    12         160       16384    102          64        9.73%         32
//!    13         176       16384     93          16        8.61%         16
//!    14         192       16384     85          64        8.17%         64
//!    15         208       16384     78         160        8.12%         16
//!    16         224       16384     73          32        6.88%         32
//!    17         240       16384     68          64        6.62%         16
//!    18         256       16384     64           0        5.86%        256
//!    19         288       16384     56         256       12.16%         32
//!    20         320       16384     51          64       10.04%         64
//!    21         352       16384     46         192        9.88%         32
//!    22         384       16384     42         256        9.51%        128
//!    23         416       16384     39         160        8.36%         32
//!    24         448       16384     36         256        8.37%         64
//!    25         480       16384     34          64        6.82%         32
//!    26         512       16384     32           0        6.05%        512
//!    27         576       16384     28         256       12.33%         64
//!    28         640       16384     25         384       11.96%        128
//!    29         704       16384     23         192       10.02%         64
//!    30         768       16384     21         256        9.64%        256
//!    31         896       16384     18         256       15.52%        128
//!    32        1024       16384     16           0       12.40%       1024
//!    33        1152       16384     14         256       12.41%        128
//!    34        1280       16384     12        1024       15.55%        256
//!    35        1408       16384     11         896       14.00%        128
//!    36        1536       16384     10        1024       14.00%        512
//!    37        1792       16384      9         256       15.57%        256
//!    38        2048       16384      8           0       12.45%       2048
//!    39        2304       16384      7         256       12.46%        256
//!    40        2688       16384      6         256       15.59%        128
//!    41        3072       16384      5        1024       17.94%       1024
//!    42        3200       16384      5         384        6.22%        128
//!    43        3456       24576      7         384        8.83%        128
//!    44        4096       16384      4           0       15.60%       4096
//!    45        4864       24576      5         256       16.65%        256
//!    46        5376       24576      4        3072       20.82%        256
//!    47        6144       24576      4           0       12.48%       2048
//!    48        6528       32768      5         128        6.23%        128
//!    49        6784       40960      6         256        4.36%        128
//!    50        6912       49152      7         768        3.37%        256
//!    51        8192       32768      4           0       15.61%       8192
//!    52        9472       40960      4        3072       19.99%        256
//!    53        9728       40960      4        2048        7.49%        512
//!    54       10240       40960      4           0        4.99%       2048
//!    55       10880       49152      4        5632       16.66%        128
//!    56       12288       49152      4           0       11.45%       4096
//!    57       13568       57344      4        3072       14.28%        256
//!    58       14336       57344      4           0        5.35%       2048
//!    59       16384       65536      4           0       12.49%       8192
//!    60       18432       73728      4           0       11.11%       2048
//!    61       19072       81920      4        5632       10.00%        128
//!    62       20480       81920      4           0        6.87%       4096
//!    63       21760       90112      4        3072        9.09%        256
//!    64       24576       98304      4           0       11.45%       8192
//!    65       27264      114688      4        5632       14.28%        128
//!    66       28672      114688      4           0        4.91%       4096
//!    67       32768      131072      4           0       12.50%       8192
//! ```

mod tables;

use super::PAGE_BYTES;

/// Number of size classes, class 0 ("none") included.
pub(crate) const CLASSES: usize = 68;
/// Number of classes that have a magazine: the size classes and three tiny classes.
pub(crate) const MAGAZINES: usize = CLASSES + 3;
/// Bytes of the largest size class; larger requests get pages of their own.
pub(crate) const SMALL_MAX_BYTES: usize = 32 << 10;
/// Most slots that a span has. Bounds the bitmap of a span record to 16 words: with 8-byte slots
/// the span is one page, and the record costs 2.3 % of it.
pub(crate) const SLOTS_MAX: usize = 1024;
/// Bytes of a tiny block.
pub(crate) const TINY_BLOCK_BYTES: usize = 16;

/// Most objects in a magazine. 16, 32, 64, 128 and 256 measured 33, 27, 24, 21 and 21 cycles a pair
/// in bulk.
pub(crate) const MAGAZINE_MAX: usize = 256;
/// Bytes of objects that a full magazine holds, within [`MAGAZINE_MIN`] and [`MAGAZINE_MAX`]
/// objects.
pub(crate) const MAGAZINE_BYTES: usize = 16 << 10;
/// Bytes of an object from which on it is twice as many. With 16 KiB, most slow calls of threads that pass objects of
/// 8 bytes to 2 KiB to others were those of the largest: all instructions of `xmalloc-test` were a seventh more.
const TWICE_FROM_BYTES: usize = 256;
/// Fewest objects of a full-grown magazine. Of random sizes up to 128 KiB, one call in 30 was slow with 4, one in 50
/// with 8, and one in 140 is with 16.
const MAGAZINE_MIN: usize = 16;
/// Span bytes aimed at.
const SPAN_BYTES_GOAL: usize = 16 << 10;
/// Fewest slots in a span: fewer would make every few allocations a visit to the page heap.
const SLOTS_MIN: usize = 4;
/// Objects of a class with more bytes than these are *watched*: it is noted of each whether the program has it
/// ([`arena`](crate::arena), Invariant 4), so that a second free is seen at once. A power of two. An allocation and its
/// free take about 50 instructions more by that. What is smaller has faster calls, and notes in more cache lines.
pub(crate) const WATCHED_FROM_BYTES: usize = 4096;
/// The smallest watched class.
const FIRST_WATCHED: usize = {
    let mut class = 1;
    while SLOT_BYTES[class] <= WATCHED_FROM_BYTES {
        class += 1;
    }
    class
};
/// Largest alignment that a slot can have: spans begin at a page.
const ALIGN_MAX: usize = PAGE_BYTES;

/// A size class, or a tiny class. Invariant: less than [`MAGAZINES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct SizeClass(u8);

/// How the slots of a class lie in its spans.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    /// Bytes of a slot.
    pub(crate) slot_bytes: u32,
    /// Heap pages of a span.
    pub(crate) span_pages: u32,
    /// Slots of a span.
    pub(crate) slots: u32,
    /// ceil(2^32 / `slot_bytes`): multiplied with the offset of a slot it gives the slot's index in
    /// the upper half, exactly (a span is far below 2^32 bytes).
    pub(crate) reciprocal: u32,
    /// 2^19 / `slots`: multiplied with a number of free slots it gives the occupancy bucket in the
    /// bits from 16 on. See `span_set`.
    pub(crate) bucket_scale: u32,
}

impl SizeClass {
    /// No class: the request is large.
    pub(crate) const NONE: Self = Self(0);
    /// The span class of the 16-byte blocks that tiny objects share. Its own magazine holds
    /// one-byte objects; the other two tiny classes follow.
    pub(crate) const TINY_BLOCKS: Self = Self(CLASSES as u8);

    /// The class with this number.
    #[inline]
    pub(crate) const fn new(index: usize) -> Self {
        assert!(index < MAGAZINES);
        Self(index as u8)
    }

    /// Its number, below [`MAGAZINES`].
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Whether its objects share 16-byte blocks.
    #[inline]
    pub(crate) const fn is_tiny(self) -> bool {
        self.0 as usize >= CLASSES
    }

    /// Whether it is noted of each of its objects whether the program has it.
    #[inline]
    pub(crate) const fn is_watched(self) -> bool {
        let index = self.index();
        FIRST_WATCHED <= index && index < CLASSES
    }

    /// The class of the spans that its objects lie in: itself, but for tiny classes.
    #[inline]
    pub(crate) const fn span_class(self) -> Self {
        if self.is_tiny() {
            Self::TINY_BLOCKS
        } else {
            self
        }
    }

    /// Bytes that an object of this class can use.
    #[inline]
    pub(crate) const fn object_bytes(self) -> usize {
        OBJECT_BYTES[self.0 as usize] as usize
    }

    /// Most objects that a magazine of this class may hold.
    #[inline]
    pub(crate) const fn magazine_max(self) -> usize {
        MAGAZINE_OBJECTS[self.0 as usize] as usize
    }

    /// How its span class cuts spans.
    #[inline]
    pub(crate) const fn geometry(self) -> &'static Geometry {
        &GEOMETRY[self.span_class().index()]
    }
}

/// The class for a request, [`SizeClass::NONE`] if it is large.
///
/// `align` is a power of two, and `size` rounded up to it is at most `isize::MAX`, as `Layout`
/// promises. A constant Layout folds to a constant.
#[inline(always)] // Without it LLVM keeps a call per allocation for Layouts it could fold.
pub(crate) const fn class_for(size: usize, align: usize) -> SizeClass {
    match class_for_direct(size, align) {
        Some(class) => class,
        None => class_for_rest(size, align),
    }
}

/// The class of a request that needs at most [`DIRECT_BYTES`], its size rounded up to its alignment.
///
/// The last byte of that is `(size - 1) | (align - 1)`, so one look at a table of last bytes serves
/// every alignment: each class up to there that is the smallest for a multiple of an alignment is a
/// multiple of it itself (checked by test). A size of zero is left to [`class_for_rest`].
#[inline(always)] // Part of the fast path.
pub(crate) const fn class_for_direct(size: usize, align: usize) -> Option<SizeClass> {
    let last = size.wrapping_sub(1) | (align - 1);
    if last < DIRECT_BYTES {
        Some(SizeClass(DIRECT[last]))
    } else {
        None
    }
}

/// Bytes of the largest request for which C's `malloc` promises no more than [`MALLOC_ALIGN_LEAST`]: nothing that
/// fits has a larger alignment (C23 7.24.3).
#[cfg(feature = "preload")]
const MALLOC_ALIGN_LEAST: usize = 8;

/// The alignment that C's `malloc` promises an object of `size` bytes.
#[cfg(feature = "preload")]
#[inline]
pub(crate) const fn malloc_align(size: usize) -> usize {
    if size <= MALLOC_ALIGN_LEAST {
        MALLOC_ALIGN_LEAST
    } else {
        16
    }
}

/// [`class_for_direct`] at the alignment [`malloc_align`], by a table of its own.
#[cfg(feature = "preload")]
#[inline(always)] // Part of the fast path.
pub(crate) const fn class_for_malloc(size: usize) -> Option<SizeClass> {
    let last = size.wrapping_sub(1);
    if last < DIRECT_BYTES {
        Some(SizeClass(MALLOC_DIRECT[last]))
    } else {
        None
    }
}

/// The class of a request for which [`class_for_direct`] has none.
#[inline]
pub(crate) const fn class_for_rest(size: usize, align: usize) -> SizeClass {
    match class_for_stepped(size, align) {
        Some(class) => class,
        None if size > SMALL_MAX_BYTES => SizeClass::NONE,
        None => class_for_aligned(size, align),
    }
}

/// [`class_for_rest`] of what is no more than small and needs no larger alignment than all classes from
/// [`DIRECT_BYTES`] on have.
#[inline(always)] // Part of the fast paths of larger objects.
pub(crate) const fn class_for_stepped(size: usize, align: usize) -> Option<SizeClass> {
    let last = size.wrapping_sub(1);
    if last < SMALL_MAX_BYTES && align <= STEP_BYTES {
        Some(SizeClass(STEPPED[last / STEP_BYTES]))
    } else {
        None
    }
}

/// [`class_for_rest`] of no bytes, and at larger alignments.
#[inline(never)]
const fn class_for_aligned(size: usize, align: usize) -> SizeClass {
    let size = if size == 0 { 1 } else { size };
    let rounded = (size + (align - 1)) & !(align - 1);
    if rounded > SMALL_MAX_BYTES || align > ALIGN_MAX {
        return SizeClass::NONE;
    }
    let last = rounded - 1;
    let class = if last < DIRECT_BYTES {
        DIRECT[last]
    } else {
        STEPPED[last / STEP_BYTES]
    };
    if align <= 16 {
        return SizeClass(class);
    }
    // The natural alignment of a class is the lowest set bit of its slot size.
    let mut class = class;
    while (class as usize) < CLASSES {
        if SLOT_BYTES[class as usize] & (align - 1) == 0 {
            return SizeClass(class);
        }
        class += 1;
    }
    SizeClass::NONE
}

/// Largest request, in bytes, whose class is looked up by its last byte. A table of one byte a size
/// costs no shift; programs touch only the lines of the sizes they use.
const DIRECT_BYTES: usize = 2048;
/// Beyond [`DIRECT_BYTES`] all classes are multiples of this many bytes, and the class of a request is looked up by
/// the step of its last byte.
const STEP_BYTES: usize = 128;

const DIRECT: [u8; DIRECT_BYTES] = tables::direct_table();
#[cfg(feature = "preload")]
const MALLOC_DIRECT: [u8; DIRECT_BYTES] = tables::malloc_table();
const STEPPED: [u8; STEPS] = tables::stepped_table();
const STEPS: usize = SMALL_MAX_BYTES / STEP_BYTES;
/// Geometry of the size classes and, last, of the tiny blocks.
pub(crate) static GEOMETRY: [Geometry; CLASSES + 1] = tables::geometry_table();
const SLOT_BYTES: [usize; CLASSES] = tables::slot_sizes();
const OBJECT_BYTES: [u16; MAGAZINES] = tables::object_sizes();
const MAGAZINE_OBJECTS: [u16; MAGAZINES] = tables::magazine_table();

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    #[cfg(feature = "preload")]
    #[test]
    fn requests_of_c_have_the_class_for_their_alignment() {
        for size in 0..=DIRECT_BYTES + 1 {
            let class = class_for_malloc(size);
            assert_eq!(class, class_for_direct(size, malloc_align(size)), "{size}");
        }
        let bytes =
            [1, 8, 9, 16, 17, 24].map(|size| class_for_malloc(size).unwrap().object_bytes());
        assert_eq!(bytes, [8, 8, 16, 16, 32, 32]);
    }

    /// The best class for a request, by trying all.
    fn naive_class_for(size: usize, align: usize) -> SizeClass {
        let tiny = (CLASSES..MAGAZINES).map(SizeClass::new);
        let small = (1..CLASSES).map(SizeClass::new);
        let fits = |class: &SizeClass| {
            let bytes = class.object_bytes();
            bytes >= size && bytes.is_multiple_of(align) && align <= PAGE_BYTES
        };
        tiny.chain(small).find(fits).unwrap_or(SizeClass::NONE)
    }

    #[test]
    fn every_size_and_alignment_gets_the_smallest_class_that_fits() {
        for align in (0..20).map(|shift| 1 << shift) {
            for size in 0..=SMALL_MAX_BYTES + 1 {
                let expected = naive_class_for(size, align);
                assert_eq!(
                    class_for(size, align),
                    expected,
                    "size {size}, align {align}"
                );
            }
        }
        assert_eq!(class_for(isize::MAX as usize, 1), SizeClass::NONE);
        assert_eq!(class_for(1, 1 << 62), SizeClass::NONE);
    }

    #[test]
    fn sizes_are_those_of_go() {
        let first = [0, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144];
        let last = [18432, 19072, 20480, 21760, 24576, 27264, 28672, 32768];
        assert_eq!(SLOT_BYTES[..first.len()], first);
        assert_eq!(SLOT_BYTES[CLASSES - last.len()..], last);
    }

    #[test]
    fn index_by_reciprocal_is_exact_for_every_slot() {
        for geometry in &GEOMETRY[1..] {
            for slot in 0..u64::from(geometry.slots) {
                let offset = slot * u64::from(geometry.slot_bytes);
                assert_eq!((offset * u64::from(geometry.reciprocal)) >> 32, slot);
            }
        }
    }

    #[test]
    fn tail_waste_is_at_most_an_eighth() {
        for geometry in &GEOMETRY[1..] {
            let span_bytes = geometry.span_pages * PAGE_BYTES as u32;
            assert!(span_bytes - geometry.slots * geometry.slot_bytes <= span_bytes / 8);
        }
    }

    /// The table as the docs of this file show it.
    fn rendered_table() -> String {
        let mut text = String::from(
            "//! class  slot bytes  span bytes  slots  tail waste  worst waste  alignment\n",
        );
        for class in 1..CLASSES {
            let geometry = &GEOMETRY[class];
            let slot_bytes = geometry.slot_bytes as usize;
            let span_bytes = geometry.span_pages as usize * PAGE_BYTES;
            let tail = span_bytes - geometry.slots as usize * slot_bytes;
            // Worst: every object is one byte longer than the next smaller class. Tiny classes
            // take requests of up to 4 bytes.
            let smallest = if class == 1 {
                5
            } else {
                SLOT_BYTES[class - 1] + 1
            };
            let worst = tail + geometry.slots as usize * (slot_bytes - smallest);
            text += &format!(
                "//! {class:5}  {slot_bytes:10}  {span_bytes:10}  {:5}  {tail:10}  {:10.2}%  {:9}\n",
                geometry.slots,
                100.0 * worst as f64 / span_bytes as f64,
                (slot_bytes & slot_bytes.wrapping_neg()).min(PAGE_BYTES),
            );
        }
        text
    }

    #[test]
    fn table_in_the_docs_is_the_generated_one() {
        let source = include_str!("mod.rs");
        let table = rendered_table();
        assert!(
            source.contains(&table),
            "replace the table in the docs by:\n{table}"
        );
    }
}
