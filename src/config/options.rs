//! The table of options: names, accepted forms, defaults, meanings. Nothing else knows them.
//!
//! A test compares it with the table in the README. The words of an option stand in the order of the
//! type that it chooses from, so that a word's index is the value.

use super::secure::Secure;
use super::values::{Config, HugePages, MemoryLimit, Release, ReleaseBy};

/// What holds where nobody has said anything.
pub(super) const DEFAULT: Config = Config {
    // A library under any program serves idle servers; a Rust program may not want a thread.
    background: cfg!(feature = "preload"),
    release: Release::Lazily,
    release_by: ReleaseBy::DontNeed,
    memory_limit: MemoryLimit::None,
    hard_limit: false,
    huge_pages: HugePages::Auto,
    secure: Secure::NONE,
    guarded: GUARDED_DEFAULT,
};

/// What all names begin with.
pub(super) const PREFIX: &[u8] = b"SPANMALLOC_";

/// What names begin with that are for this project's own tests.
pub(super) const TESTS_PREFIX: &[u8] = b"SPANMALLOC_TEST_";

/// Paths, which are not kept here.
pub(crate) const STATS_FILE: &str = "SPANMALLOC_STATS_FILE";
#[cfg(feature = "profile")]
pub(crate) const PROFILE_FILE: &str = "SPANMALLOC_PROFILE_FILE";

#[cfg_attr(not(feature = "preload"), allow(dead_code))]
pub(crate) const RECORD: &str = "SPANMALLOC_RECORD";
pub(crate) const PUBLISH: &str = "SPANMALLOC_PUBLISH";

/// Where profiles go unless the environment says something else.
pub(crate) const PROFILE_FILE_DEFAULT: &str = "spanmalloc.%p.%n.pb.gz";

/// Mean distance of the profile's samples in allocated bytes, unless something else is said: 512 KiB.
pub(crate) const PROFILE_RATE_DEFAULT: usize = 512 << 10;

/// Of so many slow calls that allocate, one guards its object, on the average.
pub(super) const GUARDED_DEFAULT: u32 = 1000;

/// An option that is one of up to four words; its place in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Background,
    Release,
    ReleaseBy,
    HardLimit,
    HugePages,
    Foreign,
    Count,
    Help,
}

/// An option that is a list of triggers; its place in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Stats,
    Profile,
}

/// What a value may be.
pub(super) enum Form {
    /// One of these words; the default is the one of that index.
    Words(Choice, &'static [&'static str], u8),
    /// A limit of memory.
    Limit,
    /// When a report is made.
    Triggers(Report),
    /// The profile's rate, in bytes.
    Rate,
    /// What the secure mode does.
    Secure,
    /// Of how many slow calls one guards its object.
    Guarded,
    /// Any text; the default, or what happens without one.
    Path(&'static str),
}

/// What a build needs to act on an option. Elsewhere it is known and without effect, as a program may
/// run under the preloaded library and use this crate as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    Preload,
    Profile,
    Secure,
    Guarded,
}

/// One option.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) needs: Needs,
    pub(super) meaning: &'static str,
}

const SWITCH: &[&str] = &["0", "1"];

/// All options.
pub(super) const OPTIONS: &[Entry] = &[
    Entry {
        name: "SPANMALLOC_BACKGROUND",
        form: Form::Words(Choice::Background, SWITCH, DEFAULT.background as u8),
        needs: Needs::Nothing,
        meaning: "a background thread gives memory back while the program is idle",
    },
    Entry {
        name: "SPANMALLOC_RELEASE",
        form: Form::Words(
            Choice::Release,
            &["lazily", "at-once", "never"],
            DEFAULT.release as u8,
        ),
        needs: Needs::Nothing,
        meaning: "when free memory goes back to the system",
    },
    Entry {
        name: "SPANMALLOC_RELEASE_BY",
        form: Form::Words(
            Choice::ReleaseBy,
            &["dontneed", "free"],
            DEFAULT.release_by as u8,
        ),
        needs: Needs::Nothing,
        meaning: "how it goes back: by MADV_DONTNEED or by MADV_FREE",
    },
    Entry {
        name: "SPANMALLOC_MEMLIMIT",
        form: Form::Limit,
        needs: Needs::Nothing,
        meaning: "memory that the allocator may take; auto is what cgroup and ulimit -v allow",
    },
    Entry {
        name: "SPANMALLOC_MEMLIMIT_HARD",
        form: Form::Words(Choice::HardLimit, SWITCH, DEFAULT.hard_limit as u8),
        needs: Needs::Nothing,
        meaning: "allocations beyond the limit fail",
    },
    Entry {
        name: "SPANMALLOC_THP",
        form: Form::Words(
            Choice::HugePages,
            &["auto", "always", "never"],
            DEFAULT.huge_pages as u8,
        ),
        needs: Needs::Nothing,
        meaning: "whether the heap asks for transparent huge pages",
    },
    Entry {
        name: "SPANMALLOC_SECURE",
        form: Form::Secure,
        needs: Needs::Secure,
        meaning: "finds crimes early and keeps attackers out; several with commas between",
    },
    Entry {
        name: "SPANMALLOC_FOREIGN",
        form: Form::Words(Choice::Foreign, &["report", "abort"], 0),
        needs: Needs::Preload,
        meaning: "a pointer that is not from this heap is left alone, or ends the process",
    },
    Entry {
        name: "SPANMALLOC_GUARDED",
        form: Form::Guarded,
        needs: Needs::Guarded,
        meaning: "of so many slow calls that allocate, one guards its object; 0 is none",
    },
    Entry {
        name: "SPANMALLOC_COUNT",
        form: Form::Words(Choice::Count, SWITCH, 0),
        needs: Needs::Preload,
        meaning: "counts each call and the peak of live bytes, for the statistics",
    },
    Entry {
        name: "SPANMALLOC_STATS",
        form: Form::Triggers(Report::Stats),
        needs: Needs::Nothing,
        meaning: "when statistics are written; several with commas between",
    },
    Entry {
        name: STATS_FILE,
        form: Form::Path("stderr"),
        needs: Needs::Nothing,
        meaning: "where to; %p is the process's number, %n counts; .json, .prom or .xml choose the form",
    },
    Entry {
        name: "SPANMALLOC_PROFILE",
        form: Form::Triggers(Report::Profile),
        needs: Needs::Profile,
        meaning: "when heap profiles are written; several with commas between",
    },
    Entry {
        name: "SPANMALLOC_PROFILE_FILE",
        form: Form::Path(PROFILE_FILE_DEFAULT),
        needs: Needs::Profile,
        meaning: "where to; %p is the process's number, %n counts",
    },
    Entry {
        name: "SPANMALLOC_PROFILE_RATE",
        form: Form::Rate,
        needs: Needs::Profile,
        meaning: "allocated bytes between two samples, on the average; 0 is no samples",
    },
    Entry {
        name: PUBLISH,
        form: Form::Path("none"),
        needs: Needs::Nothing,
        meaning: "a file of 4096 bytes for figures that other processes read meanwhile",
    },
    Entry {
        name: RECORD,
        form: Form::Path("none"),
        needs: Needs::Preload,
        meaning: "a file for a raw record of each call, for spanmalloc run --record",
    },
    Entry {
        name: "SPANMALLOC_HELP",
        form: Form::Words(Choice::Help, SWITCH, 0),
        needs: Needs::Nothing,
        meaning: "prints this table at the start",
    },
];

impl Entry {
    /// Whether this build acts on it.
    pub(super) fn applies(&self) -> bool {
        match self.needs {
            Needs::Nothing => true,
            Needs::Preload => cfg!(feature = "preload"),
            Needs::Profile => cfg!(feature = "profile"),
            Needs::Secure => cfg!(feature = "secure"),
            Needs::Guarded => cfg!(feature = "guarded"),
        }
    }
}

impl Form {
    /// What may be written, one after the other.
    pub(super) fn accepted(&self) -> &'static [&'static str] {
        match self {
            Self::Words(_, words, _) => words,
            Self::Limit => &["none", "auto", "<size>"],
            Self::Triggers(_) => super::triggers::FORMS,
            Self::Rate => &["<size>"],
            Self::Secure => super::secure::FORMS,
            Self::Guarded => &["<n>"],
            Self::Path(_) => &["<path>"],
        }
    }

    /// The default, as it would be written.
    pub(super) fn default(&self) -> &'static str {
        match self {
            Self::Words(_, words, default) => words[*default as usize],
            Self::Limit | Self::Triggers(_) | Self::Secure => "none",
            Self::Rate => "512KiB",
            Self::Guarded => "1000",
            Self::Path(default) => default,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn names_begin_alike_and_differ() {
        for (index, entry) in OPTIONS.iter().enumerate() {
            let name = entry.name.as_bytes();
            assert!(name.starts_with(PREFIX) && !name.starts_with(TESTS_PREFIX));
            assert!(
                OPTIONS[..index]
                    .iter()
                    .all(|other| other.name != entry.name)
            );
        }
    }

    #[test]
    fn words_fit_into_the_state_and_have_the_default() {
        for entry in OPTIONS {
            if let Form::Words(_, words, default) = entry.form {
                assert!((2..=4).contains(&words.len()), "{}", entry.name);
                assert!(usize::from(default) < words.len(), "{}", entry.name);
            }
        }
    }

    #[test]
    fn forms_tell_the_defaults_that_there_are() {
        assert_eq!(DEFAULT.memory_limit, MemoryLimit::None);
        assert_eq!(Form::Limit.default(), "none");
        let rate = format!("{}", super::super::parse::Size(PROFILE_RATE_DEFAULT));
        assert_eq!(Form::Rate.default(), rate);
        assert_eq!(Form::Guarded.default(), format!("{GUARDED_DEFAULT}"));
    }

    /// The README's rows `| `NAME` | forms | default | meaning |`.
    fn readme_rows() -> Vec<Vec<String>> {
        include_str!("../../README.md")
            .lines()
            .filter(|line| line.starts_with("| `SPANMALLOC_"))
            .map(|line| {
                let cells = line.trim_matches('|').split(" | ");
                cells.map(|cell| cell.trim().into()).collect()
            })
            .collect()
    }

    #[test]
    fn readme_has_exactly_these_options_with_their_forms_and_defaults() {
        let rows = readme_rows();
        let names = |row: &Vec<String>| row[0].clone();
        let told: Vec<String> = rows.iter().map(names).collect();
        let known = OPTIONS.iter().map(|entry| format!("`{}`", entry.name));
        assert_eq!(told, known.collect::<Vec<_>>());
        for (row, entry) in rows.iter().zip(OPTIONS) {
            let accepted: Vec<String> = entry
                .form
                .accepted()
                .iter()
                .map(|form| format!("`{form}`"))
                .collect();
            assert_eq!(row[1], accepted.join(", "), "{}", entry.name);
            let default = match (&entry.form, entry.name) {
                (Form::Path("stderr"), _) => "standard error".into(),
                (_, "SPANMALLOC_BACKGROUND") => "`1` when preloaded, else `0`".into(),
                (form, _) => format!("`{}`", form.default()),
            };
            assert_eq!(row[2], default, "{}", entry.name);
        }
    }
}
