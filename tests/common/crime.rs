//! Tests of crimes: each is committed in a process of its own, which first tells the address that it is about,
//! and has to end as is said.

use std::alloc::{GlobalAlloc, Layout};
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use spanmalloc::SpanMalloc;

use super::{is_alone, run_alone_with, stay_on_one_cpu};

pub const DOUBLE_FREE: &str = "double free of";
pub const FOREIGN: &str = "free of a pointer that is not from this heap:";
pub const FREE_MEMORY: &str = "free of memory that is free already:";
pub const INTERIOR: &str = "free of a pointer into the middle of an object:";
pub const WRONG_LAYOUT: &str = "free with a Layout of another size class:";

/// What belongs to no heap.
pub static NOT_OURS: [u8; 64] = [7; 64];

/// Before an address, on the standard output of who commits a crime.
const MARK: &str = "the address is ";

/// Says in the process of a crime which number it is about.
const NUMBER: &str = "SPANMALLOC_TEST_NUMBER";

/// Tells an address that the crime is about. What it is has to be said before it is committed.
pub fn tell(address: *const u8) {
    println!("{MARK}{:#x}", address.addr());
}

/// The addresses that were told, as they are written.
pub fn told(output: &Output) -> Vec<String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let marked = stdout.split(MARK).skip(1);
    marked
        .filter_map(|rest| rest.lines().next().map(str::to_owned))
        .collect()
}

/// Runs `crime` in a process of its own, which must end with this sentence.
pub fn dies<F: FnOnce()>(sentence: &str, crime: F) {
    if is_alone() {
        return crime();
    }
    assert_died(&run_alone_with(&[], &crime), sentence);
}

/// [`dies`], once for each of the numbers, which the crime is told.
pub fn dies_for_each<F: FnOnce(usize)>(sentence: &str, numbers: &[usize], crime: F) {
    dies_for_each_with(sentence, numbers, &[], crime);
}

/// [`dies_for_each`] with variables in the environment.
pub fn dies_for_each_with<F: FnOnce(usize)>(
    sentence: &str,
    numbers: &[usize],
    variables: &[(&str, &str)],
    crime: F,
) {
    for_each(numbers, variables, crime, |output| {
        assert_died(output, sentence);
    });
}

/// Runs `crime` for each of the numbers in a process of its own, with variables in the environment. It tells an
/// address, and must end by `SIGSEGV`.
pub fn faults_for_each_with<F: FnOnce(usize)>(
    numbers: &[usize],
    variables: &[(&str, &str)],
    crime: F,
) {
    for_each(numbers, variables, crime, |output| {
        assert_eq!(told(output).len(), 1, "{output:?}");
        assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{output:?}");
    });
}

/// Runs `crime` for each of the numbers in a process of its own, with variables in the environment; looks at what it
/// did.
pub fn for_each<F: FnOnce(usize)>(
    numbers: &[usize],
    variables: &[(&str, &str)],
    crime: F,
    assert: impl Fn(&Output),
) {
    if is_alone() {
        // What one CPU's caches keep, another one does not get.
        stay_on_one_cpu();
        return crime(env::var(NUMBER).unwrap().parse().unwrap());
    }
    for number in numbers {
        println!("with {number}");
        let number = number.to_string();
        let variables = [variables, &[(NUMBER, &number)]].concat();
        assert(&run_alone_with(&variables, &crime));
    }
}

/// The process has told an address, and ended by `SIGABRT` with this sentence.
fn assert_died(output: &Output, sentence: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let told = told(output);
    let [address] = &told[..] else {
        panic!("{told:?} are told; {output:?}");
    };
    // More lines are the stack of the allocation, if the heap profile happens to know it.
    let mut lines = stderr.lines();
    let line = format!("spanmalloc: {sentence} {address}");
    assert_eq!(lines.next(), Some(&*line), "{output:?}");
    assert!(lines.all(|line| line.starts_with("    ")), "{stderr}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
}

pub fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).unwrap()
}

pub fn alloc(size: usize) -> *mut u8 {
    assert!(size > 0);
    // SAFETY: the size is not zero.
    let object = unsafe { SpanMalloc.alloc(layout(size)) };
    assert!(!object.is_null());
    object
}

/// Frees, rightly or wrongly.
#[inline(never)]
pub fn free(object: *mut u8, size: usize) {
    // SAFETY: none if it is a crime, of which the allocator promises to end the process.
    unsafe { SpanMalloc.dealloc(object, layout(size)) };
}

/// Writes a byte that may be nobody's.
#[inline(never)]
pub fn write(address: *mut u8, byte: u8) {
    // SAFETY: none if it is the crime: memory of the heap, or address space of it without access.
    unsafe { address.write_volatile(byte) };
}
