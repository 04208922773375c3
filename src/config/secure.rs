//! What the secure mode does: a set of measures, each of which has a word.

use core::fmt;

/// What may be in a list, or `none`, `1` or `all` instead of one.
pub(super) const FORMS: &[&str] = &[
    "none",
    "1",
    "all",
    "checks",
    "canary",
    "fill",
    "quarantine",
    "random",
    "retire",
    "protect",
    "guards",
    "zero",
];

/// The words of the bits, lowest first.
const WORDS: &[&str] = FORMS.split_at(3).1;

/// The sets of the words.
const SETS: [Secure; WORDS.len()] = [
    Secure::CHECKS,
    Secure::CANARY,
    Secure::FILL,
    Secure::QUARANTINE,
    Secure::RANDOM,
    Secure::RETIRE,
    Secure::PROTECT,
    Secure::GUARDS,
    Secure::ZERO,
];

/// What the secure mode does: a set of measures against misuse and attacks. It is off without any, and
/// with one of them [`CHECKS`](Self::CHECKS) is there as well.
///
/// What each costs is in the README, section "Secure mode".
///
/// ```
/// use spanmalloc::{Config, Secure};
///
/// const CONFIG: Config = Config::new().secure(Secure::CANARY.and(Secure::FILL));
/// assert!(CONFIG.secures().has(Secure::CHECKS));
/// assert!(!CONFIG.secures().has(Secure::GUARDS));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Secure(u16);

impl Secure {
    /// Nothing: the secure mode is off.
    pub const NONE: Self = Self(0);
    /// Each free is checked at once: a double free, a pointer into an object, a Layout of another size.
    pub const CHECKS: Self = Self(1);
    /// Bytes behind each object that must be the same when it is freed or resized.
    pub const CANARY: Self = Self(1 << 1 | 1);
    /// Freed objects are filled, and verified when their memory is used again: writes after free.
    pub const FILL: Self = Self(1 << 2 | 1);
    /// Freed objects wait, in random order, before their memory is used again.
    pub const QUARANTINE: Self = Self(1 << 3 | 1);
    /// Which free object is handed out, and where arenas lie, is left to chance.
    pub const RANDOM: Self = Self(1 << 4 | 1);
    /// Freed objects beyond 32 KiB wait as well, in the order of their frees. Those beyond 512 KiB can't be accessed
    /// meanwhile.
    pub const RETIRE: Self = Self(1 << 5 | 1);
    /// [`RETIRE`](Self::RETIRE), and none of these objects can be accessed while it waits.
    pub const PROTECT: Self = Self(1 << 6 | 1 << 5 | 1);
    /// A page without access behind each span and large object.
    pub const GUARDS: Self = Self(1 << 7 | 1);
    /// Freed objects are filled with zeros, so that secrets do not stay. [`FILL`](Self::FILL) then sees
    /// writes of anything else.
    pub const ZERO: Self = Self(1 << 8 | 1);
    /// What `SPANMALLOC_SECURE=1` stands for: all but [`PROTECT`](Self::PROTECT), which takes two system calls an
    /// object, [`GUARDS`](Self::GUARDS), which splits mappings, and [`ZERO`](Self::ZERO).
    pub const USUAL: Self = Self(0b11_1111);
    /// All but [`ZERO`](Self::ZERO).
    pub const ALL: Self = Self(0b1111_1111);

    /// Both sets.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Without the measures that concern objects of whole pages only, or pages.
    #[cfg(feature = "secure")]
    pub(crate) const fn without_pages(self) -> Self {
        Self(self.0 & !(Self::PROTECT.0 | Self::GUARDS.0) | self.0 & Self::CHECKS.0)
    }

    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// What a text means; `None` if it is malformed.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        match text {
            b"none" => return Some(Self::NONE),
            b"1" => return Some(Self::USUAL),
            b"all" => return Some(Self::ALL),
            _ => {}
        }
        text.split(|byte| *byte == b',')
            .try_fold(Self::NONE, |set, item| {
                let bit = WORDS.iter().position(|word| word.as_bytes() == item)?;
                Some(set.and(SETS[bit]))
            })
    }
}

impl fmt::Display for Secure {
    /// As it would be written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (bit, word) in WORDS.iter().enumerate() {
            if self.0 & 1 << bit != 0 {
                write!(f, "{separator}{word}")?;
                separator = ",";
            }
        }
        if separator.is_empty() {
            f.write_str("none")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn each_word_is_the_set_of_its_name_and_checks() {
        for (word, set) in WORDS.iter().zip(SETS) {
            assert_eq!(Secure::parse(word.as_bytes()), Some(set), "{word}");
            assert!(set.has(Secure::CHECKS));
        }
    }

    #[test]
    fn lists_add_up_and_are_written_as_they_are_read() {
        let both = Secure::parse(b"fill,canary").unwrap();
        assert_eq!(both, Secure::CANARY.and(Secure::FILL));
        assert_eq!(both.to_string(), "checks,canary,fill");
        for set in SETS.into_iter().chain([Secure::USUAL, Secure::ALL]) {
            assert_eq!(Secure::parse(set.to_string().as_bytes()), Some(set));
        }
        assert_eq!(Secure::NONE.to_string(), "none");
        assert_eq!(Secure::parse(b"none"), Some(Secure::NONE));
        assert_eq!(Secure::parse(b"1"), Some(Secure::USUAL));
        assert_eq!(Secure::parse(b"all"), Some(Secure::ALL));
        let all = SETS.iter().fold(Secure::NONE, |sum, set| sum.and(*set));
        assert_eq!(all, Secure::ALL.and(Secure::ZERO));
    }

    #[test]
    fn anything_else_is_malformed() {
        for text in [
            "",
            "0",
            "2",
            "Canary",
            "canary,",
            ",",
            "canary fill",
            "canary,all",
            "none,fill",
        ] {
            assert_eq!(Secure::parse(text.as_bytes()), None, "{text}");
        }
    }
}
