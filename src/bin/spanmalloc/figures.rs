//! What the allocator in the program did: asked for by environment variables, read from the file
//! that the library writes when the program exits.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::failure::{Failure, reason};
use crate::units;

pub(crate) const STATS: &str = "SPANMALLOC_STATS";
pub(crate) const STATS_FILE: &str = "SPANMALLOC_STATS_FILE";
pub(crate) const PROFILE: &str = "SPANMALLOC_PROFILE";
pub(crate) const PROFILE_FILE: &str = "SPANMALLOC_PROFILE_FILE";
const COUNT: &str = "SPANMALLOC_COUNT";

pub(crate) const PUBLISH: &str = "SPANMALLOC_PUBLISH";
pub(crate) const RECORD: &str = "SPANMALLOC_RECORD";

/// All variables by which a program's allocator is asked for figures, reports and records.
pub(crate) const VARIABLES: [&str; 7] = [
    STATS,
    STATS_FILE,
    PROFILE,
    PROFILE_FILE,
    COUNT,
    PUBLISH,
    RECORD,
];

/// The JSON object that the library wrote.
pub(crate) type Figures = Map<String, Value>;

enum Unit {
    Count,
    Bytes,
}

/// What the report shows, in this order: the key in the library's object, and what it is called.
const SHOWN: [(&str, &str, Unit); 32] = [
    ("allocations", "allocations", Unit::Count),
    ("allocated_bytes", "bytes allocated", Unit::Bytes),
    ("frees", "frees", Unit::Count),
    (
        "reallocations_in_place",
        "reallocations in place",
        Unit::Count,
    ),
    ("large_allocations", "large allocations", Unit::Count),
    ("huge_allocations", "huge allocations", Unit::Count),
    ("peak_live_bytes", "peak of live bytes", Unit::Bytes),
    ("live_bytes", "live bytes at exit", Unit::Bytes),
    ("live_objects", "live objects at exit", Unit::Count),
    ("threads", "threads at exit", Unit::Count),
    (
        "refilled_from_current_span",
        "objects from current spans",
        Unit::Count,
    ),
    ("refilled_from_depot", "objects from the depot", Unit::Count),
    (
        "refilled_from_spans",
        "objects from other spans",
        Unit::Count,
    ),
    ("flushed_to_depot", "objects to the depot", Unit::Count),
    ("flushed_to_spans", "objects to spans", Unit::Count),
    ("spans_made", "spans made", Unit::Count),
    ("returned_bytes", "given back so far", Unit::Bytes),
    ("return_calls", "calls that gave back", Unit::Count),
    ("lock_waits", "waits for a lock", Unit::Count),
    ("reserved_bytes", "reserved", Unit::Bytes),
    ("committed_bytes", "committed", Unit::Bytes),
    ("in_use_bytes", "in use", Unit::Bytes),
    ("magazine_bytes", "free, in magazines", Unit::Bytes),
    ("depot_bytes", "free, in depots", Unit::Bytes),
    ("current_free_bytes", "free, in current spans", Unit::Bytes),
    ("partial_free_bytes", "free, in partial spans", Unit::Bytes),
    ("cached_bytes", "free, in run caches", Unit::Bytes),
    ("dirty_bytes", "free, with memory", Unit::Bytes),
    ("released_bytes", "free, given back", Unit::Bytes),
    ("fresh_bytes", "never used", Unit::Bytes),
    ("backed_bytes", "all of it that is backed", Unit::Bytes),
    ("record_bytes", "the allocator's records", Unit::Bytes),
];

/// A private directory that the library writes its figures to.
pub(crate) struct Request {
    directory: TempDir,
}

impl Request {
    /// Asks the program's allocator for figures; `None` if the user has asked for them already, in
    /// which case they go where the user wants them.
    pub(crate) fn new(command: &mut Command) -> Result<Option<Self>, Failure> {
        if [STATS, STATS_FILE]
            .iter()
            .any(|name| env::var_os(name).is_some())
        {
            return Ok(None);
        }
        let directory = private_directory()?;
        command
            .env(STATS, "exit")
            .env(STATS_FILE, directory.path().join("%p.json"));
        count_calls(command);
        Ok(Some(Self { directory }))
    }

    /// The figures of the process that had this number; the error is a sentence.
    pub(crate) fn read(&self, pid: u32) -> Result<Figures, String> {
        let path = self.directory.path().join(format!("{pid}.json"));
        let Ok(data) = fs::read(path) else {
            return Err(missing("figures"));
        };
        parse(&data)
    }
}

/// Has the program's allocator count each call, unless the user has said something about it.
pub(crate) fn count_calls(command: &mut Command) {
    if env::var_os(COUNT).is_none() {
        command.env(COUNT, "1");
    }
}

/// A directory that nobody else can look into, which is removed in the end.
pub(crate) fn private_directory() -> Result<TempDir, Failure> {
    private_directory_in(&env::temp_dir())
}

/// [`private_directory`] in that one.
pub(crate) fn private_directory_in(place: &Path) -> Result<TempDir, Failure> {
    tempfile::Builder::new()
        .prefix("spanmalloc-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(place)
        .map_err(|error| {
            Failure::new(format!(
                "no directory for temporary files: {}",
                reason(&error)
            ))
        })
}

/// Why there is no file of the library's.
pub(crate) fn missing(what: &str) -> String {
    format!(
        "the allocator left no {what}: the program was killed, ended without the exit handlers, is \
         static or setuid, or changed its environment"
    )
}

pub(crate) fn parse(data: &[u8]) -> Result<Figures, String> {
    serde_json::from_slice(data)
        .map_err(|error| format!("the allocator's figures cannot be read: {error}"))
}

/// Names and values of those figures that are there.
pub(crate) fn shown(figures: &Figures) -> Vec<(&'static str, String)> {
    let value = |key: &str| figures.get(key).and_then(Value::as_u64);
    SHOWN
        .iter()
        .filter_map(|(key, name, unit)| {
            let text = match unit {
                Unit::Count => units::count(value(key)?),
                Unit::Bytes => units::bytes(value(key)?),
            };
            Some((*name, text))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_unknown_figures_are_left_out() {
        let figures =
            parse(br#"{"frees": 1200, "mood": "good", "live_bytes": 2048, "allocations": -1}"#);
        let expected = [
            ("frees", "1,200".to_string()),
            ("live bytes at exit", "2.0 KiB".to_string()),
        ];
        assert_eq!(shown(&figures.unwrap()), expected);
    }

    #[test]
    fn half_an_object_is_an_error() {
        assert!(parse(br#"{"frees": 12"#).is_err());
        assert!(parse(b"[]").is_err());
    }
}
