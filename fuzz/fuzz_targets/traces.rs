//! Traces: the reader of the bench of allocation rates takes any bytes, with an error or with events that are
//! possible; and what the tool makes of any raw stream is a trace that the reader takes, with as many events.

#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::path::Path;

use libfuzzer_sys::fuzz_target;

#[path = "../../benches/rate/src"]
#[allow(dead_code, unused_imports, reason = "the module serves the bench")]
mod rate {
    pub mod trace;
}

#[path = "../../src/bin/spanmalloc/record"]
#[allow(dead_code, unused_imports, reason = "the modules serve the tool")]
mod record {
    pub mod convert;
    pub mod format;
    #[path = "../../../record/raw.rs"]
    pub mod raw;
}

use rate::trace::{Action, Event, MAX_ALIGN_LOG2, Trace};
use record::convert::Converter;
use record::raw::{MAGIC, RECORD_WORDS, VERSION};

/// A file in memory, and its path.
fn file_of(bytes: &[u8]) -> (File, String) {
    // SAFETY: a string; the descriptor is new and nobody else's.
    let (mut file, number) = unsafe {
        let number = libc::memfd_create(c"trace".as_ptr(), libc::MFD_CLOEXEC);
        assert!(number >= 0, "no file");
        (File::from_raw_fd(number), number)
    };
    file.write_all(bytes).unwrap();
    (file, format!("/proc/self/fd/{number}"))
}

/// The events of a trace, each of which is possible.
fn read(bytes: &[u8]) -> Result<u64, String> {
    let (_file, path) = file_of(bytes);
    let trace = Trace::open(Path::new(&path))?;
    let header = *trace.header();
    let mut live = vec![false; header.objects as usize];
    let mut events = 0;
    trace.each(
        |Event {
             thread,
             object,
             action,
         }| {
            assert!(thread < header.threads && object < header.objects);
            let live = &mut live[object as usize];
            match action {
                Action::Alloc {
                    size, align_log2, ..
                } => {
                    assert!(!*live && size > 0 && align_log2 <= MAX_ALIGN_LOG2);
                    *live = true;
                }
                Action::Realloc { size } => assert!(*live && size > 0),
                Action::Free => {
                    assert!(*live);
                    *live = false;
                }
            }
            events += 1;
            Ok(())
        },
    )?;
    assert_eq!(events, header.events);
    Ok(events)
}

/// A raw stream of records that nearly are such: few threads, few addresses.
fn stream(bytes: &[u8]) -> Vec<u8> {
    let mut words = vec![MAGIC, VERSION, 0, 0];
    for record in bytes.as_chunks::<8>().0 {
        let [kind, align, thread, address, size, high, huge, odd] = *record;
        if odd == 255 {
            words.extend([u64::from_le_bytes(*record); RECORD_WORDS]);
            continue;
        }
        let size = u64::from(u16::from_le_bytes([size, high]));
        words.extend([
            u64::from(kind % 8) | u64::from(align % 70) << 8,
            u64::from(thread),
            u64::from(address) * 16,
            if huge == 255 { size << 48 } else { size },
        ]);
    }
    words.into_iter().flat_map(u64::to_ne_bytes).collect()
}

fn convert(stream: &[u8]) {
    if let Ok(converter) = Converter::read(stream) {
        let events = converter.events;
        assert_eq!(read(&converter.into_bytes()), Ok(events));
    }
}

fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((0..64, rest)) => drop(read(rest)),
        Some((64..96, rest)) => convert(rest),
        Some((_, rest)) => convert(&stream(rest)),
        None => {}
    }
});
