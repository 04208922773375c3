//! A trace comes back as it was written; a broken one gives an error.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// The next of some numbers that look random: xorshift.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Possible events, of three threads and some 50 objects.
fn events(seed: u64, count: usize) -> Vec<Event> {
    let mut state = seed;
    let mut live: Vec<u32> = Vec::new();
    let mut free: Vec<u32> = Vec::new();
    let mut unused = 0;
    let mut events = Vec::new();
    for _ in 0..count {
        let number = next(&mut state);
        let thread = (number % 3) as u32;
        let size = 1 + (number >> 8) as u32 % (1 << (number >> 40 & 15));
        let at = (number >> 20) as usize % live.len().max(1);
        let (object, action) = if live.len() < 20 || (live.len() < 50 && number & 0x30 == 0) {
            let object = free.pop().unwrap_or_else(|| {
                unused += 1;
                unused - 1
            });
            live.push(object);
            let align_log2 = (number >> 50) as u8 % 5;
            (
                object,
                Action::Alloc {
                    size,
                    align_log2,
                    zeroed: number & 0x40 == 0,
                },
            )
        } else if number & 0x80 == 0 {
            (live[at], Action::Realloc { size })
        } else {
            let object = live.swap_remove(at);
            free.push(object);
            (object, Action::Free)
        };
        events.push(Event {
            thread,
            object,
            action,
        });
    }
    events
}

fn written(events: &[Event]) -> Vec<u8> {
    let mut writer = Writer::new();
    for &event in events {
        writer.push(event).expect("the event is possible");
    }
    writer.into_bytes()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

fn read(trace: &Trace) -> Result<Vec<Event>, String> {
    let mut events = Vec::new();
    trace.each(|event| {
        events.push(event);
        Ok(())
    })?;
    Ok(events)
}

fn read_bytes(bytes: &[u8]) -> Result<Vec<Event>, String> {
    read(&Trace::from_bytes(bytes)?)
}

fn read_packed(bytes: &[u8]) -> Result<Vec<Event>, String> {
    read(&Trace::unpack(bytes)?)
}

#[test]
fn events_come_back() {
    for seed in 1..=20 {
        let events = events(seed, 500);
        let bytes = written(&events);
        assert_eq!(read_bytes(&bytes), Ok(events.clone()));
        assert_eq!(read_packed(&packed(&bytes)), Ok(events));
    }
}

#[test]
fn the_format_is_the_documented_one() {
    let alloc = Action::Alloc {
        size: 300,
        align_log2: 4,
        zeroed: false,
    };
    let zeroed = Action::Alloc {
        size: 1,
        align_log2: 0,
        zeroed: true,
    };
    let events = [
        (0, 0, alloc),
        (1, 1, zeroed),
        (1, 0, Action::Realloc { size: 5 }),
        (0, 1, Action::Free),
    ]
    .map(|(thread, object, action)| Event {
        thread,
        object,
        action,
    });
    let bytes = written(&events);
    let header = [
        0x93, b't', b'r', b'a', b'c', b'e', 13, 10, // The magic number.
        1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, // Version, threads, objects, zero.
        4, 0, 0, 0, 0, 0, 0, 0, 45, 1, 0, 0, 0, 0, 0, 0, // Events, peak.
        14, 0, 0, 0, 0, 0, 0, 0, // The length of the events.
    ];
    assert_eq!(bytes[..48], header);
    assert_eq!(bytes[48..], [0, 0, 172, 2, 4, 5, 2, 1, 0, 6, 1, 5, 3, 2]);
}

#[test]
fn the_writer_refuses_what_is_impossible() {
    let mut writer = Writer::new();
    let mut push = |object, action| {
        writer.push(Event {
            thread: 0,
            object,
            action,
        })
    };
    let alloc = Action::Alloc {
        size: 8,
        align_log2: 3,
        zeroed: false,
    };
    assert!(push(1, alloc).is_err(), "an id is left out");
    assert!(push(0, Action::Free).is_err());
    assert!(
        push(
            0,
            Action::Alloc {
                size: 0,
                align_log2: 3,
                zeroed: false
            }
        )
        .is_err()
    );
    assert!(
        push(
            0,
            Action::Alloc {
                size: 8,
                align_log2: 25,
                zeroed: false
            }
        )
        .is_err()
    );
    assert!(push(0, alloc).is_ok());
    assert!(push(0, alloc).is_err(), "it is allocated");
    assert!(push(0, Action::Realloc { size: 0 }).is_err());
    assert_eq!(
        read_bytes(&writer.into_bytes()).map(|events| events.len()),
        Ok(1)
    );
}

#[test]
fn a_truncated_trace_gives_an_error() {
    let bytes = written(&events(1, 200));
    for len in 1..bytes.len() {
        assert!(read_bytes(&bytes[..len]).is_err(), "{len} bytes");
    }
    let packed = packed(&bytes);
    for len in 0..packed.len() {
        assert!(
            read_packed(&packed[..len]).is_err(),
            "{len} bytes, compressed"
        );
    }
}

#[test]
fn a_trace_with_bytes_behind_it_gives_an_error() {
    let mut bytes = written(&events(1, 200));
    let mut twice = packed(&bytes);
    twice.extend(packed(&bytes));
    assert!(read_packed(&twice).is_err());
    bytes.push(0);
    assert!(read_bytes(&bytes).is_err());
    assert!(read_packed(&packed(&bytes)).is_err());
}

/// Any bit may be wrong, or a whole byte: an error, or events that are possible; no panic. The
/// checksum of gzip finds all changes of events.
#[test]
fn a_corrupted_trace_gives_an_error_or_possible_events() {
    let bytes = written(&events(1, 200));
    for at in 0..bytes.len() {
        let flipped = (0..8).map(|bit| bytes[at] ^ 1 << bit);
        for value in flipped.chain([0, 0xff]) {
            let mut broken = bytes.clone();
            broken[at] = value;
            if let Ok(events) = read_bytes(&broken) {
                assert_eq!(
                    read_bytes(&written(&events)),
                    Ok(events),
                    "byte {at} is {value}"
                );
            }
        }
    }
    let whole = read_bytes(&bytes);
    let packed = packed(&bytes);
    for at in 10..packed.len() {
        let mut broken = packed.clone();
        broken[at] ^= 1 << (at % 8);
        // Some bits before the checksum are padding.
        let events = read_packed(&broken);
        assert!(events.is_err() || events == whole, "byte {at}");
    }
}

#[test]
fn random_bytes_behind_a_header_give_an_error_or_possible_events() {
    let mut state = 1;
    for _ in 0..2000 {
        let body: Vec<u8> = (0..60).map(|_| next(&mut state) as u8 & 0x0f).collect();
        let count = next(&mut state) % 31;
        let header = Header {
            threads: 4,
            objects: 15,
            events: count,
            peak_live_bytes: next(&mut state) % 16,
            events_bytes: 60,
        };
        let bytes: Vec<u8> = header.to_bytes().into_iter().chain(body).collect();
        let _ = read_bytes(&bytes);
    }
}

/// The numbers of a header cannot make the reader take more memory than the file is long, by far.
#[test]
fn a_header_with_huge_numbers_gives_an_error() {
    let bytes = written(&events(1, 200));
    for (at, len) in [(12, 4), (16, 4), (20, 4), (24, 8), (32, 8), (40, 8)] {
        for value in [0x7f, 0xff] {
            let mut broken = bytes.clone();
            broken[at..at + len].fill(value);
            assert!(read_bytes(&broken).is_err(), "bytes from {at}");
            assert!(
                read_packed(&packed(&broken)).is_err(),
                "bytes from {at}, compressed"
            );
        }
    }
}

#[test]
fn an_error_is_a_sentence_that_names_the_event() {
    let bytes = written(&[Event {
        thread: 0,
        object: 0,
        action: Action::Alloc {
            size: 8,
            align_log2: 3,
            zeroed: false,
        },
    }]);
    let mut broken = bytes.clone();
    broken[48] = 3;
    let why = "event 0 of the trace: object 0 is not allocated";
    assert_eq!(read_bytes(&broken), Err(why.to_owned()));
    broken[8] = 2;
    assert_eq!(
        read_bytes(&broken),
        Err("the trace has version 2, not 1".to_owned())
    );
    assert_eq!(
        read_bytes(b"text"),
        Err("the file is shorter than a trace's header".to_owned())
    );
    assert_eq!(read_bytes(&[b' '; 100]), Err("this is no trace".to_owned()));
}

/// The files in `traces/`, both ways that a trace can be opened.
#[test]
fn the_traces_of_this_repository_are_traces() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    let mut count = 0;
    for file in folder.read_dir().expect("a folder") {
        let path = file.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "gz") {
            let trace = Trace::open(&path).expect("a trace");
            let events = read(&trace).expect("possible events");
            let plain = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(plain.path(), written(&events)).expect("written");
            let again = Trace::open(plain.path()).expect("a trace");
            assert_eq!(again.header(), trace.header());
            assert!(read(&again) == Ok(events));
            count += 1;
        }
    }
    assert!(count >= 2, "{count} traces");
    assert!(Trace::open(&folder).is_err(), "a folder");
    assert!(
        Trace::open(&folder.join("missing")).is_err(),
        "a missing file"
    );
}
