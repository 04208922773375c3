//! A snapshot made by hand is written and read by another implementation of the format.

use std::io::Read;
use std::string::ToString;
use std::vec;

use ::pprof::protos::Message as _;
use ::pprof::protos::{self, Profile as ReadProfile};
use flate2::read::GzDecoder;

use super::*;

fn amount(objects: f64, bytes: f64) -> Amount {
    Amount { objects, bytes }
}

/// Two mappings, and an executable that is not at the lowest address.
fn mappings() -> Vec<CodeMapping> {
    vec![
        CodeMapping {
            start: 0x5000,
            limit: 0x6000,
            file_offset: 0x1000,
            path: "/opt/tool".to_string(),
            build_id: "00ff".to_string(),
        },
        CodeMapping {
            start: 0x2000,
            limit: 0x3000,
            file_offset: 0,
            path: "/lib/library.so".to_string(),
            build_id: String::new(),
        },
    ]
}

fn snapshot() -> Snapshot {
    let live = Row {
        frames: vec![0x2100, 0x6000, 0x5001],
        stack: StackKind::FramePointers,
        thread: b"main".to_vec(),
        class_bytes: 48,
        lifetime: Lifetime::Live,
        allocated: amount(1000.5, 48_024.4),
        in_use: amount(10.49, 500.5),
        peak: amount(20.0, 960.0),
    };
    let large = Row {
        frames: vec![0x9000, 0x5001],
        stack: StackKind::Incomplete,
        thread: Vec::new(),
        class_bytes: 0,
        lifetime: Lifetime::UnderSecond,
        allocated: amount(1.0, 144_073.2),
        in_use: Amount::default(),
        peak: Amount::default(),
    };
    let nothing = Row {
        allocated: amount(0.4, 0.4),
        ..large.clone()
    };
    Snapshot {
        rows: vec![live, large, nothing],
        rate_bytes: 524_288,
        dropped: 7,
        taken_at_ns: 1_700_000_000_000_000_001,
        duration_ns: 2_000_000_000,
    }
}

/// A profile as the other implementation sees it.
struct Seen {
    profile: ReadProfile,
}

impl Seen {
    fn of(bytes: &[u8]) -> Self {
        let profile = ReadProfile::parse_from_bytes(bytes).unwrap();
        Self { profile }
    }

    fn text(&self, index: i64) -> &str {
        &self.profile.string_table[usize::try_from(index).unwrap()]
    }

    fn value_type(&self, it: &protos::ValueType) -> (&str, &str) {
        (self.text(it.ty), self.text(it.unit))
    }

    /// Address and mapping of each frame.
    fn frames(&self, sample: &protos::Sample) -> Vec<(u64, u64)> {
        let find = |id: &u64| {
            let mut locations = self.profile.location.iter();
            let location = locations.find(|it| it.id == *id).unwrap();
            (location.address, location.mapping_id)
        };
        sample.location_id.iter().map(find).collect()
    }

    /// As `key=text` or `key=number unit`.
    fn labels(&self, sample: &protos::Sample) -> Vec<String> {
        let show = |label: &protos::Label| {
            let key = self.text(label.key);
            match label.str {
                0 => format!("{key}={} {}", label.num, self.text(label.num_unit)),
                text => format!("{key}={}", self.text(text)),
            }
        };
        sample.label.iter().map(show).collect()
    }
}

fn read(snapshot: &Snapshot) -> Seen {
    Seen::of(&encode(snapshot, &mappings()).encode_to_vec())
}

#[test]
fn samples_have_the_values_frames_and_labels_of_their_rows() {
    let read = read(&snapshot());
    let [live, large] = &read.profile.sample[..] else {
        panic!("{} samples", read.profile.sample.len());
    };
    assert_eq!(live.value, [1001, 48_024, 10, 501, 20, 960]);
    assert_eq!(read.frames(live), [(0x20ff, 2), (0x5fff, 1), (0x5000, 1)]);
    assert_eq!(
        read.labels(live),
        ["thread=main", "lifetime=live", "size_class=48 bytes"]
    );
    assert_eq!(large.value, [1, 144_073, 0, 0, 0, 0]);
    assert_eq!(read.frames(large), [(0x8fff, 0), (0x5000, 1)]);
    assert_eq!(
        read.labels(large),
        ["lifetime=under 1 s", "stack=incomplete", "size_class=large"]
    );
}

#[test]
fn the_sample_types_begin_with_those_of_go() {
    let read = read(&snapshot());
    let types = read.profile.sample_type.iter();
    let types: Vec<_> = types.map(|it| read.value_type(it)).collect();
    assert_eq!(
        types,
        [
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
            ("peak_objects", "count"),
            ("peak_space", "bytes"),
        ]
    );
    let default = read.profile.default_sample_type;
    assert_eq!(read.text(default), "inuse_space");
}

#[test]
fn the_profile_tells_when_how_long_and_how_often() {
    let read = read(&snapshot());
    assert_eq!(read.profile.time_nanos, 1_700_000_000_000_000_001);
    assert_eq!(read.profile.duration_nanos, 2_000_000_000);
    assert_eq!(read.profile.period, 524_288);
    let period_type = read.profile.period_type.as_ref().unwrap();
    assert_eq!(read.value_type(period_type), ("space", "bytes"));
}

#[test]
fn the_executable_is_the_first_mapping() {
    let read = read(&snapshot());
    let shown: Vec<_> = read
        .profile
        .mapping
        .iter()
        .map(|it| {
            assert!(!it.has_functions);
            (
                (it.id, it.memory_start, it.memory_limit, it.file_offset),
                read.text(it.filename),
                read.text(it.build_id),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ((1, 0x5000, 0x6000, 0x1000), "/opt/tool", "00ff"),
            ((2, 0x2000, 0x3000, 0), "/lib/library.so", ""),
        ]
    );
}

#[test]
fn each_address_is_one_location() {
    let read = read(&snapshot());
    let locations: Vec<_> = read
        .profile
        .location
        .iter()
        .map(|it| (it.id, it.address))
        .collect();
    assert_eq!(
        locations,
        [(1, 0x20ff), (2, 0x5fff), (3, 0x5000), (4, 0x8fff)]
    );
}

#[test]
fn the_comments_tell_what_the_values_are_worth() {
    let read = read(&snapshot());
    let comments: Vec<_> = read
        .profile
        .comment
        .iter()
        .map(|&it| read.text(it))
        .collect();
    assert!(comments[0].contains("scaled up from samples already"));
    assert!(comments[1].ends_with(": 7."), "{}", comments[1]);
    // 144,073.6 of 192,098.
    assert!(comments[2].contains(" 75.0 % "), "{}", comments[2]);
}

#[test]
fn every_lifetime_and_kind_of_stack_has_its_label() {
    let mut rows = Vec::new();
    for lifetime in [
        Lifetime::Live,
        Lifetime::UnderMillisecond,
        Lifetime::UnderSecond,
        Lifetime::UnderMinute,
        Lifetime::Longer,
    ] {
        for stack in [
            StackKind::FramePointers,
            StackKind::Unwound,
            StackKind::Incomplete,
            StackKind::TooDeep,
        ] {
            rows.push(Row {
                lifetime,
                stack,
                ..snapshot().rows[0].clone()
            });
        }
    }
    let read = read(&Snapshot { rows, ..snapshot() });
    let mut lifetimes = Vec::new();
    for samples in read.profile.sample.chunks(4) {
        let labels: Vec<_> = samples.iter().map(|it| read.labels(it)).collect();
        lifetimes.push(labels[0][1].clone());
        let stacks: Vec<_> = labels.iter().map(|it| it.get(2).cloned()).collect();
        let class = Some("size_class=48 bytes".to_string());
        let incomplete = Some("stack=incomplete".to_string());
        let deep = Some("stack=too deep".to_string());
        assert_eq!(stacks, [class.clone(), class, incomplete, deep]);
    }
    assert_eq!(
        lifetimes,
        [
            "lifetime=live",
            "lifetime=under 1 ms",
            "lifetime=under 1 s",
            "lifetime=under 1 min",
            "lifetime=1 min or longer",
        ]
    );
}

#[test]
fn what_is_no_number_or_beyond_all_is_written_all_the_same() {
    let mut snapshot = snapshot();
    snapshot.rows[0].allocated = amount(f64::NAN, f64::INFINITY);
    snapshot.rows[0].frames.push(0);
    snapshot.rows[0].thread = vec![0xff, b'a'];
    let read = read(&snapshot);
    let sample = &read.profile.sample[0];
    assert_eq!(sample.value[..2], [0, i64::MAX]);
    assert_eq!(read.frames(sample)[3], (0, 0));
    assert_eq!(read.labels(sample)[0], "thread=\u{fffd}a");
}

#[test]
fn an_empty_profile_can_be_read() {
    let empty = Snapshot {
        rows: Vec::new(),
        ..snapshot()
    };
    let read = read(&empty);
    assert!(read.profile.sample.is_empty());
    assert_eq!(read.profile.sample_type.len(), 6);
    assert!(share_of_incomplete(&read).contains(" 0.0 % "));
}

#[test]
fn whole_stacks_have_no_share_in_the_incomplete_ones() {
    let mut whole = snapshot();
    whole.rows.truncate(1);
    let read = read(&whole);
    let expected = "Incomplete stacks have 0.0 % of the allocated bytes.";
    assert_eq!(share_of_incomplete(&read), expected);
}

fn share_of_incomplete(read: &Seen) -> &str {
    read.text(read.profile.comment[2])
}

#[test]
fn the_file_is_gzipped_and_about_this_process() {
    let code = the_file_is_gzipped_and_about_this_process as fn() as usize;
    let mut snapshot = snapshot();
    snapshot.rows[0].frames = vec![code + 1];
    let mut file = Vec::new();
    write(&snapshot, &mut file).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(&file[..]).read_to_end(&mut bytes).unwrap();
    let read = Seen::of(&bytes);
    let frames = read.frames(&read.profile.sample[0]);
    assert_eq!(frames, [(code as u64, 1)]);
    let executable = std::env::current_exe().unwrap();
    let filename = read.profile.mapping[0].filename;
    assert_eq!(read.text(filename), executable.to_str().unwrap());
}

#[test]
fn an_output_that_fails_is_an_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = write(&snapshot(), &mut Full).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}
