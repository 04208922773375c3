//! The misuses: what they are called, what is done, and what must be seen of them.
//!
//! Each is a program in C (`programs/`) and mostly one in Rust (`src/program/`), by the same name.

/// Which programs of a kind belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    DoubleFree,
    InvalidFree,
    /// A free with a wrong size or alignment.
    SizedFree,
    /// realloc or malloc_usable_size of what is no object.
    Resize,
    Overflow,
    Underflow,
    /// A use of memory that is free, or was never there.
    Stale,
}

impl Family {
    /// Whether the misuse is the program's own access to memory, so that a fault is what stops it.
    pub fn is_access(self) -> bool {
        matches!(self, Self::Overflow | Self::Underflow | Self::Stale)
    }
}

/// What spanmalloc owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// It must be caught in every run.
    Default,
    /// It must be caught in secure mode, in every run.
    Secure,
    /// It is in the table only.
    None,
}

/// How large the object is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Tiny,
    Small,
    Medium,
    Large,
    Huge,
}

impl Size {
    pub const ALL: [Self; 5] = [
        Self::Tiny,
        Self::Small,
        Self::Medium,
        Self::Large,
        Self::Huge,
    ];

    pub fn bytes(self) -> usize {
        match self {
            Self::Tiny => 3,
            Self::Small => 48,
            Self::Medium => 5_000,
            Self::Large => 100_000,
            Self::Huge => 100_000_000,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
            Self::Huge => "huge",
        }
    }
}

/// What a program is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    C,
    Rust,
}

impl Language {
    pub const ALL: [Self; 2] = [Self::C, Self::Rust];

    pub fn name(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::Rust => "Rust",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Misuse {
    pub name: &'static str,
    /// One sentence: what the program does.
    pub sentence: &'static str,
    pub family: Family,
    pub bar: Bar,
    pub sizes: &'static [Size],
    pub languages: &'static [Language],
}

const TINY_TO_HUGE: &[Size] = &Size::ALL;
const SMALL_TO_LARGE: &[Size] = &[Size::Small, Size::Medium, Size::Large];
const SMALL_TO_HUGE: &[Size] = &[Size::Small, Size::Medium, Size::Large, Size::Huge];
const LARGE_AND_HUGE: &[Size] = &[Size::Large, Size::Huge];
const SMALL_AND_MEDIUM: &[Size] = &[Size::Small, Size::Medium];
const SMALL: &[Size] = &[Size::Small];

const BOTH: &[Language] = &Language::ALL;
const C: &[Language] = &[Language::C];

macro_rules! misuses {
    ($($name:literal $family:ident $bar:ident $sizes:ident $languages:ident $sentence:literal)*) => {
        &[$(Misuse {
            name: $name,
            sentence: $sentence,
            family: Family::$family,
            bar: Bar::$bar,
            sizes: $sizes,
            languages: $languages,
        }),*]
    };
}

/// All rows, in the order of the table.
pub const MISUSES: &[Misuse] = misuses! {
    "double-free" DoubleFree Default TINY_TO_HUGE BOTH
        "An object is freed twice in a row."
    "double-free-after-1" DoubleFree Default TINY_TO_HUGE BOTH
        "An object is freed twice, with the free of another one of its size between."
    "double-free-after-8" DoubleFree Default SMALL_TO_LARGE BOTH
        "The same with 8 other frees between."
    "double-free-after-100" DoubleFree Default SMALL_TO_LARGE BOTH
        "The same with 100 other frees between."
    "double-free-after-1000" DoubleFree Default SMALL_AND_MEDIUM BOTH
        "The same with 1,000 other frees between."
    "double-free-interleaved" DoubleFree Default SMALL_TO_HUGE BOTH
        "A, B and C are freed, then A and B again."
    "double-free-allocations" DoubleFree Default SMALL_TO_LARGE BOTH
        "An object is freed twice, with allocations of other sizes between."
    "double-free-reused-span" DoubleFree Default SMALL_TO_LARGE BOTH
        "Of 16 objects that are freed, 8 are handed out again, and one of the others is freed again."
    "double-free-empty-span" DoubleFree Default SMALL_TO_LARGE BOTH
        "An object is freed again when all of its size are free, their thread has ended, and free memory was given back."
    "double-free-realloc" DoubleFree Default SMALL_TO_HUGE BOTH
        "An object that was freed is resized."
    "double-free-moved" DoubleFree Default SMALL_TO_LARGE BOTH
        "An object is freed at its old address after realloc moved it."
    "double-free-thread-main" DoubleFree Default SMALL_TO_LARGE BOTH
        "An object is freed by a thread, which ends, then by the main thread."
    "double-free-main-thread" DoubleFree Default SMALL_TO_LARGE BOTH
        "An object is freed by the main thread, then by another thread, which ends."
    "double-free-two-threads" DoubleFree Default SMALL_TO_LARGE BOTH
        "An object is freed by a thread, then by another one, both of which end."
    "free-stack" InvalidFree Default SMALL_TO_LARGE BOTH
        "A pointer to the stack is freed."
    "free-static" InvalidFree Default SMALL_TO_LARGE BOTH
        "A pointer to a static variable is freed."
    "free-mapping" InvalidFree Default SMALL_TO_LARGE BOTH
        "A pointer into a mapping that the program made itself is freed."
    "free-integer" InvalidFree Default SMALL_TO_LARGE BOTH
        "The address 8 is freed."
    "free-interior-1" InvalidFree Default SMALL_TO_HUGE BOTH
        "A pointer 1 byte into an object is freed."
    "free-interior-8" InvalidFree Default SMALL_TO_HUGE BOTH
        "A pointer 8 bytes into an object is freed."
    "free-interior-16" InvalidFree Default SMALL_TO_HUGE BOTH
        "A pointer 16 bytes into an object is freed."
    "free-interior-middle" InvalidFree Default SMALL_TO_HUGE BOTH
        "A pointer to the middle of an object is freed."
    "free-before" InvalidFree Default SMALL_TO_HUGE BOTH
        "A pointer 16 bytes before an object is freed."
    "free-in-free-span" InvalidFree Default SMALL_TO_LARGE BOTH
        "A pointer to the middle of an object is freed when all of its size are free."
    "free-in-released" InvalidFree Default LARGE_AND_HUGE BOTH
        "A pointer into pages that were given back is freed."
    "sized-larger" SizedFree Default SMALL_TO_LARGE BOTH
        "An object is freed with four times its size (C: free_sized; Rust: dealloc)."
    "sized-smaller" SizedFree Default SMALL_TO_LARGE BOTH
        "An object is freed with a quarter of its size (C: free_sized; Rust: dealloc)."
    "sized-alignment" SizedFree Default SMALL_AND_MEDIUM BOTH
        "An object is freed with an alignment of 64 KiB (C: free_aligned_sized; Rust: dealloc)."
    "sized-delete" SizedFree Default SMALL_TO_LARGE C
        "An object is freed by C++'s delete with four times its size."
    "sized-sdallocx" SizedFree Default SMALL_TO_LARGE C
        "An object is freed by sdallocx with four times its size."
    "realloc-stack" Resize Default SMALL_TO_LARGE BOTH
        "A pointer to the stack is resized."
    "realloc-interior" Resize Default SMALL_TO_LARGE BOTH
        "A pointer 16 bytes into an object is resized."
    "usable-stack" Resize Default SMALL C
        "malloc_usable_size is asked of a pointer to the stack."
    "usable-interior" Resize Default SMALL_TO_LARGE C
        "malloc_usable_size is asked of a pointer 16 bytes into an object."
    "usable-freed" Resize Default SMALL_TO_LARGE C
        "malloc_usable_size is asked of an object that was freed."
    "overflow-1" Overflow Secure SMALL_TO_HUGE BOTH
        "The byte after what was asked for is changed, then the object is freed."
    "overflow-8" Overflow Secure SMALL_TO_HUGE BOTH
        "The same with 8 bytes."
    "overflow-64" Overflow Secure SMALL_TO_HUGE BOTH
        "The same with 64 bytes."
    "overflow-usable" Overflow Secure SMALL_TO_HUGE C
        "The byte after what malloc_usable_size tells is changed, then the object is freed."
    "overflow-page" Overflow Secure SMALL_TO_LARGE BOTH
        "All bytes from the object's end to the end of its page are changed, then it is freed."
    "overflow-1-mib" Overflow Secure SMALL_TO_LARGE BOTH
        "1 MiB from the object's end on is changed, then it is freed."
    "overflow-128-mib" Overflow Secure SMALL BOTH
        "A byte of every 64 in 128 MiB from the object's end on is changed, then it is freed."
    "underflow-1" Underflow None SMALL_TO_LARGE BOTH
        "The byte before an object is changed, then the object is freed."
    "underflow-8" Underflow None SMALL_TO_LARGE BOTH
        "The same with 8 bytes."
    "underflow-16" Underflow None SMALL_TO_LARGE BOTH
        "The same with 16 bytes."
    "write-after-free" Stale Secure SMALL_TO_HUGE BOTH
        "The first 8 bytes of an object that was freed are changed."
    "write-after-free-100" Stale Secure SMALL_TO_LARGE BOTH
        "The same after 100 other frees."
    "write-after-free-middle" Stale Secure SMALL_TO_HUGE BOTH
        "8 bytes in the middle of an object that was freed are changed."
    "read-after-free" Stale None SMALL_TO_HUGE BOTH
        "A byte of an object that was freed is read; the harm is that it is as it was."
    "old-data" Stale None SMALL_TO_HUGE BOTH
        "An object is freed and handed out again; the harm is that it holds what it held."
    "use-of-malloc-0" Stale None SMALL C
        "A byte of an object of no bytes is changed."
};

/// What an allocator must never stop: a program that does nothing wrong. It is in no table, but can be
/// asked for by its name.
pub const INNOCENT: Misuse = Misuse {
    name: "none",
    sentence: "Nothing is wrong.",
    family: Family::DoubleFree,
    bar: Bar::None,
    sizes: SMALL_TO_LARGE,
    languages: BOTH,
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_misuse_has_a_name_of_its_own_and_one_sentence() {
        let names: BTreeSet<_> = MISUSES.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), MISUSES.len());
        for misuse in MISUSES {
            assert!(misuse.sentence.ends_with('.'), "{}", misuse.name);
            assert!(!misuse.sizes.is_empty() && !misuse.languages.is_empty());
        }
    }
}
