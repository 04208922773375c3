//! The page of figures that a program publishes while it runs: its layout, for who writes and who reads it.
//!
//! A reader creates a file of [`PAGE_BYTES`] zero bytes, best in memory (`/dev/shm`), and runs the program with
//! the file's path in `SPANMALLOC_PUBLISH`. The library maps the file, and its background thread writes the
//! figures four times a second, and the exit hook once more. The file must not get shorter meanwhile.
//!
//! The page is of words of 8 bytes, in the byte order of the machine:
//!
//! | word | what |
//! |---|---|
//! | 0 | [`MAGIC`], once there is anything |
//! | 1 | [`VERSION`] |
//! | 2 | the number of the process that publishes: the first one to come. Those that it starts do not |
//! | 3 | the sequence number: odd while the words from 4 on change |
//! | 4 | 1 when the process has ended by `exit`, else 0 |
//! | 5 | the time of the figures: nanoseconds of the clock `CLOCK_MONOTONIC` |
//! | 6 | whether each call is counted: `SPANMALLOC_COUNT` |
//! | 7 | the number of size classes |
//! | 8 to 39 | [`Figures`], one word each, in that order, then zeros |
//! | from 40 on | the size classes, 6 words each: [`Class`] |
//!
//! The sequence number is a lock of readers: read it, then the other words, then it again. If both are the same
//! even number, the words belong together; else try again.

/// Bytes of the page.
pub(crate) const PAGE_BYTES: usize = 4096;
/// The first word.
pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"spanmpub");
pub(crate) const VERSION: u64 = 1;

pub(crate) const WORDS: usize = PAGE_BYTES / 8;
pub(crate) const PROCESS: usize = 2;
pub(crate) const SEQUENCE: usize = 3;
pub(crate) const HAS_ENDED: usize = 4;
pub(crate) const TIME: usize = 5;
pub(crate) const IS_COUNTED: usize = 6;
pub(crate) const CLASS_COUNT: usize = 7;
pub(crate) const FIGURES: usize = 8;
pub(crate) const CLASSES: usize = 40;

/// Words of one class, and how many there can be.
pub(crate) const CLASS_WORDS: usize = 6;
pub(crate) const CLASSES_MAX: usize = (WORDS - CLASSES) / CLASS_WORDS;

/// Fields that are a word each.
macro_rules! words {
    ($(#[$about:meta])* $name:ident: $($(#[$of_field:meta])* $field:ident,)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct $name {
            $($(#[$of_field])* pub(crate) $field: u64,)*
        }

        #[allow(dead_code, reason = "the library writes and the tool reads")]
        impl $name {
            pub(crate) const WORDS: usize = [$(stringify!($field)),*].len();

            pub(crate) fn to_words(self) -> [u64; Self::WORDS] {
                [$(self.$field),*]
            }

            pub(crate) fn from_words([$($field),*]: [u64; Self::WORDS]) -> Self {
                Self { $($field),* }
            }
        }
    };
}

words! {
    /// Figures of the whole heap.
    Figures:
    /// Objects that the program has, and their bytes, each rounded up to its size class or to whole pages.
    live_objects,
    live_bytes,
    /// Bytes of those that are large, and of those with a mapping of their own.
    large_live_bytes,
    huge_live_bytes,
    /// Free bytes in the caches of threads, and in spans and central lists.
    magazine_bytes,
    central_bytes,
    /// Free bytes in run caches, in the page heap with memory, and given back.
    cached_bytes,
    dirty_bytes,
    released_bytes,
    /// Bytes of the allocator's own records.
    record_bytes,
    /// Bytes that the allocator has from the system.
    backed_bytes,
    /// Threads that have a cache.
    threads,
    /// Calls since the start, if they are counted: objects and bytes.
    allocations,
    allocated_bytes,
    frees,
    /// Objects that came into the caches of threads since the start, and that left them.
    refilled,
    flushed,
}

words! {
    /// Figures of a size class.
    Class:
    /// Bytes of an object.
    object_bytes,
    live_objects,
    /// Calls since the start, if they are counted.
    allocations,
    frees,
    /// Objects that came into the caches of threads, and that left them.
    refilled,
    flushed,
}

const _: () = assert!(FIGURES + Figures::WORDS <= CLASSES && Class::WORDS == CLASS_WORDS);
