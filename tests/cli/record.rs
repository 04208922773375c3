//! `run --record`: traces.

use std::fs;
use std::io::Read;

use super::*;

#[path = "../../src/bin/spanmalloc/record/format/mod.rs"]
#[allow(dead_code, unused_imports, reason = "this is a reader")]
mod format;

use format::{Action, Event, HEADER_BYTES, Live, MAGIC, Varints, unzigzag};

/// The events of a trace, which are possible: [`Live`] has the rules.
fn events(trace: &[u8]) -> Vec<Event> {
    assert_eq!(trace[..8], MAGIC);
    let word = |at: usize| u32::from_le_bytes(trace[at..at + 4].try_into().unwrap());
    let (threads, objects) = (word(12), word(16));
    let mut varints = Varints::new(&trace[HEADER_BYTES..]);
    let mut sizes = vec![0; objects as usize];
    let mut live = Live::default();
    let mut object = 0;
    let mut events = Vec::new();
    while !varints.is_empty() {
        let head = varints.take().unwrap();
        object += unzigzag(varints.take().unwrap());
        let mut number = || u32::try_from(varints.take().unwrap()).unwrap();
        let action = match head & 3 {
            2 => Action::Realloc { size: number() },
            3 => Action::Free,
            alloc => Action::Alloc {
                size: number(),
                align_log2: number() as u8,
                zeroed: alloc == 1,
            },
        };
        let event = Event {
            thread: (head >> 2) as u32,
            object: object as u32,
            action,
        };
        assert!(event.thread < threads);
        live.apply(&event, &mut sizes).unwrap();
        events.push(event);
    }
    assert_eq!(events.len(), word(24) as usize);
    events
}

/// Allocates in steps, and in a process of its own, which is not recorded.
const PROGRAM: [&str; 3] = [
    "bash",
    "-c",
    "for i in {1..500}; do a[i]=$i$i; done; (for i in {1..20000}; do b[i]=$i; done); echo ${#a[@]}; exit 3",
];

#[test]
fn trace_is_that_of_the_program_plain_or_compressed() {
    let directory = tempfile::tempdir().unwrap();
    let mut traces = Vec::new();
    for name in ["plain.trace", "packed.trace.gz"] {
        let mut tool = tool_on("run", &["--record", name], &PROGRAM);
        let output = tool.current_dir(&directory).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(stdout(&output), "500\n");
        let told = stderr(&output);
        assert!(told.starts_with(&format!("spanmalloc: {name}: ")), "{told}");
        assert!(told.contains(" events of 1 threads\n"), "{told}");
        assert!(told.contains("\nallocations "), "{told}");
        traces.push(fs::read(directory.path().join(name)).unwrap());
    }
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&traces[1][..])
        .read_to_end(&mut unpacked)
        .unwrap();
    for trace in [&traces[0], &unpacked] {
        let events = events(trace);
        // The elements of the array; those of the other process would be many more.
        assert!((1000..200_000).contains(&events.len()), "{}", events.len());
        let are_any = |what: fn(&Action) -> bool| events.iter().any(|event| what(&event.action));
        assert!(are_any(|action| matches!(action, Action::Free)));
        assert!(are_any(|action| matches!(action, Action::Realloc { .. })));
    }
    // The raw stream is gone.
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
}

#[test]
fn program_that_is_killed_leaves_its_trace() {
    let directory = tempfile::tempdir().unwrap();
    let script = "for i in {1..500}; do a[i]=$i$i; done; kill -KILL $$";
    let mut tool = tool_on("run", &["-q", "--record", "trace"], &["bash", "-c", script]);
    let output = tool.current_dir(&directory).output().unwrap();
    assert_eq!(stderr(&output), "");
    let trace = fs::read(directory.path().join("trace")).unwrap();
    assert!(events(&trace).len() > 1000);
}

#[test]
fn library_that_records_nothing_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut tool = tool_on_fake("run", &["-q", "--record", "trace"], &["true"]);
    let output = tool.current_dir(&directory).output().unwrap();
    assert!(output.status.success());
    let told = stderr(&output);
    assert!(
        told.starts_with("spanmalloc: the allocator left no record: "),
        "{told}"
    );
}
