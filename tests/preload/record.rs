//! The raw record of what a program does.

use std::collections::{HashMap, HashSet};
use std::fs;

use super::workshop::{Heap, Run, Workshop};

#[path = "../../src/record/raw.rs"]
mod raw;

use raw::{Kind, MAGIC, VERSION, decode};

/// What one record says: kind, alignment, thread, address, size.
type Record = (Kind, u32, u64, u64, u64);

/// The records in a file, but for the first one.
fn records(path: &str) -> Vec<Record> {
    let bytes = fs::read(path).unwrap();
    let words: Vec<u64> = bytes
        .as_chunks()
        .0
        .iter()
        .map(|word| u64::from_ne_bytes(*word))
        .collect();
    let (first, rest) = words
        .as_chunks::<{ raw::RECORD_WORDS }>()
        .0
        .split_first()
        .unwrap();
    assert_eq!(first[..2], [MAGIC, VERSION]);
    let decoded = rest.iter().map_while(|[head, thread, address, size]| {
        let (kind, align_log2) = decode(*head)?;
        Some((kind, align_log2, *thread, *address, *size))
    });
    let records: Vec<_> = decoded.collect();
    // Nothing is behind the last one.
    assert!(
        rest[records.len()..]
            .iter()
            .flatten()
            .all(|word| *word == 0)
    );
    records
}

fn recorded(shop: &Workshop, source: &str) -> (Run, Vec<Record>) {
    let path = shop.path("raw");
    let program = shop.program(source);
    let run = program.on(Heap::Ours).env("SPANMALLOC_RECORD", &path).run();
    assert!(run.status.success(), "{run}");
    assert_eq!(run.stderr, "", "{run}");
    (run, records(&path))
}

#[test]
fn each_call_is_recorded_in_order_with_its_size() {
    let shop = Workshop::new();
    let (run, records) = recorded(&shop, "record.c");
    run.passed();
    let mut rest = records.iter();
    for line in run.stdout.lines() {
        let Some((what, size)) = line.split_once(": ") else {
            continue;
        };
        let Ok(size) = size.parse::<u64>() else {
            continue;
        };
        let (kind, align_log2) = match what {
            "alloc" => (Kind::Alloc, 4),
            "aligned" => (Kind::Alloc, 12),
            "free" => (Kind::Free, 0),
            "zeroed" => (Kind::EndZeroed, 4),
            "resized" | "failed" => (Kind::EndResized, 4),
            _ => continue,
        };
        let found = rest.find(|record| {
            let is_size = size == 0 || record.4 == size;
            record.0 == kind && record.1 == align_log2 && is_size
        });
        let found = found.unwrap_or_else(|| panic!("no {line} in its place; {run}"));
        assert_eq!(found.3 == 0, what == "failed", "{line}");
    }
    // The child's is not there; the thread has another number.
    assert!(records.iter().all(|record| record.4 != 9973));
    let threads_of = |size| records.iter().find(|record| record.4 == size).unwrap().2;
    assert_ne!(threads_of(1237), threads_of(5557));
}

#[test]
fn address_is_never_twice_without_a_free_between_nor_freed_without_an_allocation() {
    let shop = Workshop::new();
    let (_, records) = recorded(&shop, "threads.c");
    assert!(records.len() > 10_000, "{}", records.len());
    let mut live = HashSet::new();
    // Calls that may do both, by the threads that are in them.
    let mut calls: HashMap<u64, u32> = HashMap::new();
    for (kind, _, thread, address, _) in records {
        let depth = calls.entry(thread).or_default();
        match kind {
            Kind::Alloc if *depth == 0 => assert!(live.insert(address)),
            Kind::Free if *depth == 0 => assert!(live.remove(&address)),
            Kind::Alloc | Kind::Free => {}
            Kind::Begin => {
                live.remove(&address);
                *depth += 1;
            }
            Kind::EndResized | Kind::EndZeroed => {
                *depth -= 1;
                assert!(address == 0 || live.insert(address));
            }
        }
    }
}

#[test]
fn file_that_cannot_be_written_is_told_and_the_program_runs() {
    let program = Workshop::new().program("misuse.c");
    let run = program
        .on(Heap::Ours)
        .args(&["none"])
        .env("SPANMALLOC_RECORD", "/no/such/file")
        .run();
    run.passed();
    let line =
        "spanmalloc: SPANMALLOC_RECORD=/no/such/file cannot be written: nothing is recorded\n";
    assert_eq!(run.stderr, line);
}
