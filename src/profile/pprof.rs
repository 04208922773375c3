//! Writes a heap profile in pprof's format, a gzipped `profile.proto`.
//!
//! The first four sample types are those of Go's heap profiles, in their order, so that pprof's
//! habits hold; the last two are about the moment when the most bytes were in use. The values are
//! estimates of all objects and bytes, not counts of samples: whoever reads them has nothing to
//! scale. Functions and lines are not looked up here; the mappings tell which files have them.
//!
//! Each value is rounded to the nearest integer, which favours neither side in sums.

use std::borrow::ToOwned;
use std::collections::BTreeMap;
use std::format;
use std::io::{self, Write};
use std::string::String;
use std::vec::Vec;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::maps::{self, CodeMapping};
use super::proto::{Label, Location, Mapping, Profile, Sample, Strings, ValueType};
use super::snapshot::{Amount, Lifetime, Row, Snapshot, StackKind};

/// The sample types and their units.
const SAMPLE_TYPES: [(&str, &str); 6] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
    ("peak_objects", "count"),
    ("peak_space", "bytes"),
];

/// What pprof shows unless told otherwise.
const DEFAULT_SAMPLE_TYPE: &str = "inuse_space";

/// Functions that pprof hides with all that they call: this allocator, and how it is entered.
const DROP_FRAMES: &str = concat!(
    r"<?spanmalloc::.*|<?alloc::alloc::.*|(__rustc::)?__r(ust|dl|g)_(alloc|alloc_zeroed|realloc)",
    r"|malloc|calloc|realloc|reallocarray|aligned_alloc|memalign|posix_memalign|valloc|pvalloc",
    r"|operator new(\[\])?",
);

/// Writes the profile of this process.
pub(crate) fn write(snapshot: &Snapshot, out: &mut impl Write) -> io::Result<()> {
    // Without the mappings the addresses alone are of use, to a debugger at least.
    let mappings = maps::of_this_process().unwrap_or_default();
    let profile = encode(snapshot, &mappings);
    let mut encoder = GzEncoder::new(out, Compression::default());
    encoder.write_all(&profile.encode_to_vec())?;
    encoder.finish()?.flush()
}

fn encode(snapshot: &Snapshot, mappings: &[CodeMapping]) -> Profile {
    let mut strings = Strings::new();
    let mut locations = Locations::new(mappings);
    let sample_type = SAMPLE_TYPES
        .iter()
        .map(|(r#type, unit)| value_type(&mut strings, r#type, unit))
        .collect();
    let sample = snapshot
        .rows
        .iter()
        .filter_map(|row| sample(row, &mut strings, &mut locations))
        .collect();
    let mapping = mappings
        .iter()
        .zip(1..)
        .map(|(mapping, id)| Mapping {
            id,
            memory_start: mapping.start as u64,
            memory_limit: mapping.limit as u64,
            file_offset: mapping.file_offset,
            filename: strings.index(&mapping.path),
            build_id: strings.index(&mapping.build_id),
            ..Mapping::default()
        })
        .collect();
    Profile {
        sample_type,
        sample,
        mapping,
        location: locations.all,
        drop_frames: strings.index(DROP_FRAMES),
        time_nanos: snapshot.taken_at_ns,
        duration_nanos: snapshot.duration_ns,
        period_type: Some(value_type(&mut strings, "space", "bytes")),
        period: i64::try_from(snapshot.rate_bytes).unwrap_or(i64::MAX),
        comment: comments(snapshot)
            .iter()
            .map(|comment| strings.index(comment))
            .collect(),
        default_sample_type: strings.index(DEFAULT_SAMPLE_TYPE),
        string_table: strings.into_table(),
        ..Profile::default()
    }
}

fn value_type(strings: &mut Strings, r#type: &str, unit: &str) -> ValueType {
    ValueType {
        r#type: strings.index(r#type),
        unit: strings.index(unit),
    }
}

/// `None` if there is nothing to tell.
fn sample(row: &Row, strings: &mut Strings, locations: &mut Locations) -> Option<Sample> {
    let value: Vec<i64> = [row.allocated, row.in_use, row.peak]
        .iter()
        .flat_map(|Amount { objects, bytes }| [objects.round() as i64, bytes.round() as i64])
        .collect();
    value.iter().any(|&value| value != 0).then(|| Sample {
        location_id: row.frames.iter().map(|&it| locations.id(it)).collect(),
        value,
        label: labels(row, strings),
    })
}

fn labels(row: &Row, strings: &mut Strings) -> Vec<Label> {
    let mut labels = Vec::new();
    let mut tell = |key: &str, text: &str| {
        labels.push(Label {
            key: strings.index(key),
            str: strings.index(text),
            ..Label::default()
        });
    };
    if !row.thread.is_empty() {
        tell("thread", &String::from_utf8_lossy(&row.thread));
    }
    tell("lifetime", lifetime(row.lifetime));
    match row.stack {
        StackKind::FramePointers | StackKind::Unwound => {}
        StackKind::Incomplete => tell("stack", "incomplete"),
        StackKind::TooDeep => tell("stack", "too deep"),
    }
    if row.class_bytes == 0 {
        tell("size_class", "large");
    } else {
        labels.push(Label {
            key: strings.index("size_class"),
            num: i64::try_from(row.class_bytes).unwrap_or(i64::MAX),
            num_unit: strings.index("bytes"),
            ..Label::default()
        });
    }
    labels
}

fn lifetime(lifetime: Lifetime) -> &'static str {
    match lifetime {
        Lifetime::Live => "live",
        Lifetime::UnderMillisecond => "under 1 ms",
        Lifetime::UnderSecond => "under 1 s",
        Lifetime::UnderMinute => "under 1 min",
        Lifetime::Longer => "1 min or longer",
    }
}

/// What a reader of the profile has to know.
fn comments(snapshot: &Snapshot) -> [String; 3] {
    let bytes = |row: &Row| row.allocated.bytes;
    let all: f64 = snapshot.rows.iter().map(bytes).sum();
    let incomplete: f64 = snapshot
        .rows
        .iter()
        .filter(|row| row.stack == StackKind::Incomplete)
        .map(bytes)
        .sum();
    // A sum of nothing is negative zero.
    let share = match incomplete > 0.0 {
        true => incomplete / all * 100.0,
        false => 0.0,
    };
    [
        "The values are estimates of all objects and bytes, scaled up from samples already."
            .to_owned(),
        format!(
            "Samples dropped for lack of memory or room: {}.",
            snapshot.dropped
        ),
        format!("Incomplete stacks have {share:.1} % of the allocated bytes."),
    ]
}

/// Each address once.
struct Locations<'a> {
    mappings: &'a [CodeMapping],
    all: Vec<Location>,
    ids: BTreeMap<usize, u64>,
}

impl<'a> Locations<'a> {
    fn new(mappings: &'a [CodeMapping]) -> Self {
        Self {
            mappings,
            all: Vec::new(),
            ids: BTreeMap::new(),
        }
    }

    /// The id of the call that returns to an address. The byte before that is a part of the call,
    /// even where the call is the last instruction of its function.
    fn id(&mut self, return_address: usize) -> u64 {
        let address = return_address.saturating_sub(1);
        *self.ids.entry(address).or_insert_with(|| {
            let id = self.all.len() as u64 + 1;
            let inside = |it: &CodeMapping| (it.start..it.limit).contains(&address);
            let mapping_id = match self.mappings.iter().position(inside) {
                Some(index) => index as u64 + 1,
                None => 0,
            };
            self.all.push(Location {
                id,
                mapping_id,
                address: address as u64,
                ..Location::default()
            });
            id
        })
    }
}

#[cfg(all(test, not(miri)))]
mod tests;
