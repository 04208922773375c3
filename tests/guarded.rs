//! Guarded objects in a Rust program: what is done with them wrongly ends it, with a line and stacks.
//!
//! Each test commits its crime in a process of its own, in which each slow call is guarded.

#![cfg(not(miri))] // Starts processes.

mod common;

use std::alloc::GlobalAlloc;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::ptr;
use std::thread;

use common::crime::{alloc, free, layout, tell, told, write};
use common::{alone_with, is_alone, run_alone_with};
use spanmalloc::{Config, SpanMalloc, stats};

/// Each slow call is guarded.
const ALL: [(&str, &str); 1] = [("SPANMALLOC_GUARDED", "1")];

/// Runs `crime` in a process of its own, whose first line on standard error is to say this: `OBJECT` and
/// `ADDRESS` are what it told.
fn dies<F: FnOnce()>(signal: i32, sentence: &str, stacks: &[&str], crime: F) {
    if is_alone() {
        return crime();
    }
    let output = run_alone_with(&ALL, &crime);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let told = told(&output);
    let [object, address] = &told[..] else {
        panic!("{told:?} are told; {output:?}");
    };
    let sentence = sentence
        .replace("ADDRESS", address)
        .replace("OBJECT", object);
    let mut lines = stderr.lines();
    let first = format!("spanmalloc: {sentence}");
    assert_eq!(lines.next(), Some(&*first), "{stderr}");
    let heads: Vec<_> = lines
        .filter(|line| !line.starts_with("      #"))
        .map(|line| line.split_once(" by thread ").map(|(done, _)| done.trim()))
        .collect();
    let expected: Vec<_> = stacks.iter().map(|done| Some(*done)).collect();
    assert_eq!(heads, expected, "{stderr}");
    // Frames of this program.
    let executable = std::env::current_exe().unwrap();
    let of_program = format!(" {}+0x", executable.display());
    let frames = stderr.matches(&*of_program).count();
    assert!(frames > stacks.len(), "{stderr}");
    assert_eq!(output.status.signal(), Some(signal), "{stderr}");
}

/// A guarded object. The statistics count its page among the records.
fn guarded(size: usize) -> *mut u8 {
    for _ in 0..100_000 {
        let before = stats().record_bytes;
        let object = alloc(size);
        if stats().record_bytes == before + page() {
            return object;
        }
    }
    panic!("nothing is guarded");
}

/// One that ends where its page does, or begins there.
fn guarded_at(size: usize, end: bool) -> *mut u8 {
    loop {
        let object = guarded(size);
        let beside = object.addr() + if end { size } else { 0 };
        if beside.is_multiple_of(page()) {
            return object;
        }
        free(object, size);
    }
}

fn page() -> usize {
    // SAFETY: no precondition.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap()
}

/// Tells the object, and the address that the crime is about to be committed at.
fn tell_both(object: *mut u8, address: *mut u8) {
    tell(object);
    tell(address);
}

const LIVE: [&str; 2] = ["allocated", "accessed"];
const FREED: [&str; 3] = ["allocated", "freed", "accessed"];

#[test]
fn a_byte_beyond_the_end_is_seen_at_once() {
    let sentence = "overflow at ADDRESS, byte 41 of an object of 41 bytes at OBJECT";
    dies(libc::SIGSEGV, sentence, &LIVE, || {
        let object = guarded_at(41, true);
        tell_both(object, object.wrapping_add(41));
        write(object.wrapping_add(41), 1);
    });
}

#[test]
fn a_byte_before_the_start_is_seen_at_once() {
    let sentence = "underflow at ADDRESS, byte -1 of an object of 41 bytes at OBJECT";
    dies(libc::SIGSEGV, sentence, &LIVE, || {
        let object = guarded_at(41, false);
        tell_both(object, object.wrapping_sub(1));
        write(object.wrapping_sub(1), 1);
    });
}

#[test]
fn a_use_after_free_is_seen_at_once_by_any_thread() {
    let sentence = "use after free at ADDRESS, byte 40 of an object of 41 bytes at OBJECT";
    dies(libc::SIGSEGV, sentence, &FREED, || {
        let object = guarded(41);
        free(object, 41);
        tell_both(object, object.wrapping_add(40));
        let address = object.expose_provenance() + 40;
        let thread = thread::spawn(move || write(ptr::with_exposed_provenance_mut(address), 1));
        thread.join().unwrap();
    });
}

#[test]
fn a_write_on_the_other_side_is_seen_when_the_object_is_freed() {
    let sentence =
        "overflow at ADDRESS, byte 43 of an object of 41 bytes at OBJECT, seen when that was freed";
    dies(libc::SIGABRT, sentence, &["allocated", "freed"], || {
        let object = guarded_at(41, false);
        tell_both(object, object.wrapping_add(43));
        write(object.wrapping_add(43), 1);
        free(object, 41);
    });
}

#[test]
fn a_second_free_is_seen_at_once_whatever_was_between() {
    let stacks = ["allocated", "freed", "wrongly freed"];
    dies(libc::SIGABRT, "double free of OBJECT", &stacks, || {
        let object = guarded(41);
        free(object, 41);
        (0..40).for_each(|_| free(guarded(41), 41));
        tell_both(object, object);
        free(object, 41);
    });
}

#[test]
fn a_free_with_another_size_is_seen_at_once() {
    let sentence = "free with a wrong size or alignment: OBJECT";
    dies(
        libc::SIGABRT,
        sentence,
        &["allocated", "wrongly freed"],
        || {
            let object = guarded(41);
            tell_both(object, object);
            free(object, 42);
        },
    );
}

#[test]
fn an_object_that_grows_within_its_class_moves() {
    let sentence = "use after free at ADDRESS, byte 0 of an object of 41 bytes at OBJECT";
    dies(libc::SIGSEGV, sentence, &FREED, || {
        let object = guarded(41);
        write(object.wrapping_add(40), 1);
        // SAFETY: the object has this Layout.
        let grown = unsafe { SpanMalloc.realloc(object, layout(41), 42) };
        assert_ne!(grown, object);
        // SAFETY: the object has 42 bytes, of which 41 were copied.
        unsafe {
            assert_eq!(grown.add(40).read(), 1);
            grown.add(41).write(7);
        }
        tell_both(object, object);
        write(object, 1);
    });
}

#[test]
fn a_stack_overflow_is_told_as_ever() {
    #[expect(unconditional_recursion, reason = "that is the point")]
    fn descend(depth: &mut [u8; 1024]) -> u8 {
        let mut deeper = [depth[0]; 1024];
        black_box(descend)(black_box(&mut deeper)) + deeper[7]
    }
    let body = || {
        guarded(41);
        black_box(descend(&mut [1; 1024]));
    };
    if is_alone() {
        return body();
    }
    let output = run_alone_with(&ALL, &body);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("has overflowed its stack"), "{stderr}");
    assert!(!stderr.contains("spanmalloc: "), "{stderr}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
}

/// Allocates, resizes and frees objects of many sizes and alignments, and looks at each byte.
fn work(seed: u64) {
    let mut numbers = common::Numbers(seed);
    let mut objects = Vec::new();
    for _ in 0..4000 {
        if objects.len() > 60 || numbers.below(2) == 0 && !objects.is_empty() {
            objects.swap_remove(numbers.below(objects.len()));
        }
        let (size, align) = (1 + numbers.size(11), 1 << numbers.below(13));
        objects.extend(common::Object::try_new(size, align, seed));
    }
}

#[test]
fn programs_without_fault_run_as_ever_and_the_statistics_add_up() {
    alone_with(&ALL, || {
        let before = guarded(41);
        free(before, 41);
        // Those that were not guarded are left.
        let (records, live) = (stats().record_bytes, stats().live_objects);
        let threads: Vec<_> = (0..8)
            .map(|seed| thread::spawn(move || work(seed)))
            .collect();
        // Others may be waited for, and found in the middle of anything, by a fork.
        for _ in 0..20 {
            // SAFETY: the child uses the allocator alone, and ends.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    work(99);
                    libc::_exit(0);
                }
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &mut status, 0), child);
                assert_eq!(status, 0);
            }
        }
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        let stats = stats();
        assert!(stats.record_bytes >= records);
        let heap = stats.committed_bytes - stats.released_bytes - stats.fresh_bytes;
        let backed = heap - stats.released_slot_bytes + stats.huge_live_bytes + stats.record_bytes;
        assert_eq!(backed, stats.backed_bytes, "{stats:?}");
        assert!(stats.record_bytes <= stats.record_mapped_bytes);
        assert_eq!(stats.live_objects, live, "{stats:?}");
    });
}

#[test]
fn the_program_chooses_the_rate() {
    common::alone(|| {
        spanmalloc::set_config(spanmalloc::config().guarded(1));
        assert_eq!(spanmalloc::config().guards_one_in(), 1);
        free(guarded(41), 41);
        spanmalloc::set_config(spanmalloc::config().guarded(0));
        let records = stats().record_bytes;
        for _ in 0..10_000 {
            alloc(3000);
        }
        // Spans take records, far less than a page for each slow call.
        assert!(stats().record_bytes < records + (1 << 20));
        assert_eq!(Config::new().guards_one_in(), 1000);
    });
}
